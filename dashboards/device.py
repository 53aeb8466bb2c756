"""One device: what it gave, how it touched, when it ran, what was said of it."""

from dashboards.panel import Dashboard, Kind, Level, Look, Meaning, Panel, Section, Unit
from dashboards.query import DAY_MS, Limit, Query, Rows, Step, Term, highest, last, lowest, mean, median, newest, total
from dashboards.shapes import (
    ALERTING,
    COVERAGE_LOOK,
    DEVICE_GAP_MS,
    DEVICE_NOW_MS,
    DEVICE_UID,
    SEVERITY_MEANINGS,
    STATE_MEANINGS,
    STREAM_GAP_MS,
    TIME_LOOK,
    TO_MOMENT,
    UNKNOWN_FROM_ONE,
    WARNING_FROM_ONE,
    YES_NO,
    zone_words,
)
from schemas.measurements import DRAWN_LIMITS, STREAM_MEASUREMENTS, TREND_S
from schemas.messages import ContactState, RunState, Zone
from schemas.profile import ALWAYS_FORBIDDEN, base_zone
from schemas.topics import Stream

ITS = ("device_id",)
TREND_MS = TREND_S * 1000
HEALTH_GAP_MS = 180_000
"""Health comes once a minute: two in a row may be late."""

LIMIT_LOOK = Look(level=Level.LIMIT, dashed=True)

CONTACT_MEANINGS = {
    ContactState.GOOD.value: Meaning("good", Level.OK),
    ContactState.MARGINAL.value: Meaning("marginal", Level.INFO),
    ContactState.POOR.value: Meaning("poor", Level.WARNING),
    ContactState.OFF.value: Meaning("off", Level.IDLE),
    ContactState.SHORT.value: Meaning("short", Level.CRITICAL),
}

RUN_MEANINGS = {state.value: Meaning(state.value, Level.IDLE) for state in RunState} | {
    RunState.ARMED.value: Meaning("armed", Level.INFO),
    RunState.RUNNING.value: Meaning("running", Level.OK),
    RunState.FAULT.value: Meaning("fault", Level.CRITICAL),
}

ZONE_MEANINGS = {
    zone.value: Meaning(zone_words(zone), Level.CRITICAL if base_zone(zone) in ALWAYS_FORBIDDEN else Level.INFO) for zone in Zone
}

NOT_HEARD = "not heard in this time: this says nothing of how it is"


def drawn(limit: str, beside: Term) -> Term:
    """A limit, where there are readings beside it."""
    return beside * 0 + Limit(limit)


def _readings(stream: Stream, **columns: Term) -> Query:
    return Query(
        {name.replace("_", " "): term for name, term in columns.items()}, STREAM_MEASUREMENTS[stream].name, step=Step.AUTO, narrowed=ITS
    )


DEVICE = Dashboard(
    uid=DEVICE_UID,
    title="Device",
    description="One device: what it gave, how it touched, when it ran, and what was said of it.",
    variables=("device_id",),
    single="device_id",
    limits=DRAWN_LIMITS,
    annotated=True,
    sections=(
        Section(
            "Now",
            (
                Panel(
                    "This device",
                    Kind.TABLE,
                    (
                        Query(
                            {
                                "State": newest("state"),
                                "Last seen": newest("last_seen_ms"),
                                "Latest reading of": newest("last_event_ms"),
                                "Model": newest("model"),
                                "Hardware": newest("hw"),
                                "Firmware": newest("fw"),
                                "Lot": newest("lot"),
                                "Profile": newest("profile"),
                                "Contract": newest("contract"),
                            },
                            "device",
                            by=ITS,
                            back_ms=DEVICE_NOW_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "What the worker thinks of it. 'Last seen' is when its latest message came; the reading in it may be hours "
                    "older if a phone held it back. Without a profile it is judged by what no device may exceed.",
                    width=24,
                    height=4,
                    looks={
                        "State": Look(meanings=STATE_MEANINGS),
                        "Last seen": TIME_LOOK,
                        "Latest reading of": TIME_LOOK,
                    },
                    empty="no worker has said anything of this device in three hours",
                ),
                Panel(
                    "Open alerts and gaps",
                    Kind.STAT,
                    (
                        Query(
                            {
                                "critical": last("open_critical"),
                                "warning": last("open_warning"),
                                "info": last("open_info"),
                                "missing": last("missing"),
                                "refused": last("quarantined"),
                                "battery": last("battery_mv"),
                            },
                            "device",
                            back_ms=DEVICE_NOW_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "Its open alerts, the numbers missing in its sequence, its messages in quarantine. 0 open alerts say that "
                    "none was seen; what is missing has not been judged.",
                    Unit.COUNT,
                    width=24,
                    height=4,
                    looks={
                        "critical": Look(thresholds=ALERTING),
                        "warning": Look(thresholds=WARNING_FROM_ONE),
                        "info": Look(level=Level.IDLE),
                        "missing": Look(thresholds=UNKNOWN_FROM_ONE),
                        "refused": Look(thresholds=WARNING_FROM_ONE),
                        "battery": Look(unit=Unit.MILLIVOLT, level=Level.IDLE, decimals=0),
                    },
                    empty="no worker has said anything of this device in three hours",
                ),
            ),
        ),
        Section(
            "Output and contact",
            (
                Panel(
                    "Current",
                    Kind.SERIES,
                    (
                        _readings(
                            Stream.CURRENT,
                            peak=highest("i_peak_ua"),
                            rms=highest("i_rms_ua"),
                            set_point=highest("i_set_ua"),
                            peak_limit=drawn("peak_limit_ua", highest("i_peak_ua")),
                            rms_limit=drawn("rms_limit_ua", highest("i_rms_ua")),
                        ),
                    ),
                    "The highest peak, r.m.s. (rms) and set-point in each step, and the limits of its profile from which an "
                    "alert is raised. With boost the profile may allow more than is drawn. A gap is time without readings: "
                    "output off, or unseen.",
                    Unit.MICROAMPERE,
                    width=24,
                    height=10,
                    looks={
                        "set point": Look(level=Level.IDLE),
                        "peak limit": LIMIT_LOOK,
                        "rms limit": LIMIT_LOOK,
                    },
                    gap_ms=STREAM_GAP_MS,
                    lowest=0,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Contact impedance",
                    Kind.SERIES,
                    (
                        _readings(
                            Stream.CONTACT,
                            median=median("z_ohm"),
                            highest=highest("z_ohm"),
                            lowest=lowest("z_ohm"),
                            good_up_to=drawn("z_good_max_ohm", median("z_ohm")),
                        ),
                    ),
                    "Impedance between the electrodes at the frequency of the stimulus, on a logarithmic scale: it saturates "
                    "when the contact is open. Up to the line contact is good.",
                    Unit.OHM,
                    width=24,
                    height=9,
                    looks={
                        "highest": Look(level=Level.IDLE),
                        "lowest": Look(level=Level.IDLE),
                        "good up to": LIMIT_LOOK,
                    },
                    gap_ms=STREAM_GAP_MS,
                    logarithmic=True,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Contact",
                    Kind.STATES,
                    (_readings(Stream.CONTACT, contact=last("state")),),
                    "The latest state of contact in each step; a short lift within a step is not shown.",
                    width=24,
                    height=4,
                    meanings=CONTACT_MEANINGS,
                    gap_ms=STREAM_GAP_MS,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Run state",
                    Kind.STATES,
                    (_readings(Stream.RUNTIME, run=last("run_state")),),
                    "What the device says that it does.",
                    width=24,
                    height=4,
                    meanings=RUN_MEANINGS,
                    gap_ms=STREAM_GAP_MS,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Zone",
                    Kind.STATES,
                    (_readings(Stream.RUNTIME, zone=last("zone")),),
                    "Where the device says it is. It is told, not sensed: a wrong tap looks the same. Zones that no profile "
                    "allows are red; a profile may forbid more.",
                    width=24,
                    height=4,
                    meanings=ZONE_MEANINGS,
                    gap_ms=STREAM_GAP_MS,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "State, as the worker judges it",
                    Kind.STATES,
                    (Query({"state": last("state")}, "device", step=Step.AUTO, narrowed=ITS),),
                    "The worst about the device at each time: alert, silence, or too little heard.",
                    width=24,
                    height=4,
                    meanings=STATE_MEANINGS,
                    gap_ms=DEVICE_GAP_MS,
                    empty="no worker has said anything of this device in this time",
                ),
                Panel(
                    "Time in session",
                    Kind.SERIES,
                    (
                        _readings(
                            Stream.RUNTIME,
                            elapsed=highest("elapsed_s"),
                            output_on=highest("output_on_s"),
                            in_zone=highest("zone_elapsed_s"),
                            longest_session=drawn("session_max_s", highest("elapsed_s")),
                        ),
                    ),
                    "The device's own counters since the session began, and how long its profile lets a session be.",
                    Unit.SECOND,
                    looks={"in zone": Look(level=Level.IDLE), "longest session": LIMIT_LOOK},
                    gap_ms=STREAM_GAP_MS,
                    lowest=0,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Temperature",
                    Kind.SERIES,
                    (
                        _readings(
                            Stream.HEALTH,
                            head=highest("temp_head_c"),
                            board=highest("temp_pcb_c"),
                            warm=drawn("head_warm_c", highest("temp_head_c")),
                            hot=drawn("head_hot_c", highest("temp_head_c")),
                        ),
                    ),
                    "The highest temperature of head and circuit board in each step; the head is a warning from 'warm' and "
                    "critical from 'hot' on. Told once a minute while it is cool.",
                    Unit.CELSIUS,
                    looks={
                        "board": Look(level=Level.IDLE),
                        "warm": Look(level=Level.WARNING, dashed=True),
                        "hot": Look(level=Level.CRITICAL, dashed=True),
                    },
                    gap_ms=HEALTH_GAP_MS,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Battery",
                    Kind.SERIES,
                    (_readings(Stream.HEALTH, battery=lowest("battery_mv")),),
                    "The lowest voltage in each step.",
                    Unit.MILLIVOLT,
                    gap_ms=HEALTH_GAP_MS,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Messages missing",
                    Kind.SERIES,
                    (Query({"missing": last("missing")}, "device", step=Step.AUTO, narrowed=ITS),),
                    "Numbers skipped in its sequence. It falls when they come late.",
                    Unit.COUNT,
                    looks={"missing": Look(level=Level.UNKNOWN)},
                    gap_ms=DEVICE_GAP_MS,
                    lowest=0,
                    empty="no worker has said anything of this device in this time",
                ),
            ),
        ),
        Section(
            "Alerts and sessions",
            (
                Panel(
                    "Alerts of the last 90 days",
                    Kind.TABLE,
                    (
                        Rows(
                            {
                                "Severity": "severity",
                                "Rule": "rule",
                                "State": "state",
                                "Value": "value",
                                "Limit": "limit",
                                "Unit": "unit",
                                "Onset": "onset_ms",
                                "Closed": "closed_ms",
                                "Because": "close_reason",
                                "Late": "retrospective",
                                "Acknowledged by": "acknowledged_by",
                                "What": "detail",
                                "Device": "device_id",
                            },
                            "alert",
                            limit=200,
                            back_ms=90 * DAY_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "The newest 200. 'Late' alerts were found in data that came afterwards; 'withdrawn' ones stood on an "
                    "incomplete picture.",
                    width=24,
                    height=9,
                    looks={
                        "Severity": Look(meanings=SEVERITY_MEANINGS),
                        "Value": Look(decimals=2),
                        "Limit": Look(decimals=2),
                        "Onset": TIME_LOOK,
                        "Closed": TIME_LOOK,
                        "Late": Look(meanings=YES_NO),
                        "Device": Look(link=TO_MOMENT),
                        "What": Look(wide=True),
                    },
                    empty="none on record in 90 days, in what was seen",
                ),
                Panel(
                    "Sessions of the last 90 days",
                    Kind.TABLE,
                    (
                        Rows(
                            {
                                "Began": "started_ms",
                                "Program": "program_id",
                                "Ended by": "end_reason",
                                "Completed": "completed",
                                "Coverage": "coverage",
                                "Output": "output_s",
                                "Effective": "effective_s",
                                "Completion": "completion",
                                "Contact": "contact_efficiency",
                                "Delivery": "delivery_ratio",
                                "Charge": "charge_mc",
                                "Highest peak": "i_peak_max_ua",
                                "Critical": "alerts_critical",
                                "Warnings": "alerts_warning",
                                "Firmware": "fw",
                            },
                            "session",
                            limit=200,
                            back_ms=90 * DAY_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "The newest 200 that are over. Figures of a session of which too little was seen (coverage in the colour of "
                    "the unknown) say little. Effective: in contact, at half the set-point or more.",
                    width=24,
                    height=9,
                    looks={
                        "Began": TIME_LOOK,
                        "Completed": Look(meanings=YES_NO),
                        "Coverage": COVERAGE_LOOK,
                        "Output": Look(unit=Unit.SECOND, decimals=0),
                        "Effective": Look(unit=Unit.SECOND, decimals=0),
                        "Completion": Look(unit=Unit.FRACTION, decimals=0),
                        "Contact": Look(unit=Unit.FRACTION, decimals=0),
                        "Delivery": Look(unit=Unit.FRACTION, decimals=0),
                        "Charge": Look(unit=Unit.MILLICOULOMB, decimals=1),
                        "Highest peak": Look(unit=Unit.MICROAMPERE, decimals=1),
                        "Critical": Look(thresholds=ALERTING),
                        "Warnings": Look(thresholds=WARNING_FROM_ONE),
                    },
                    empty="none on record in 90 days",
                ),
            ),
        ),
        Section(
            "Months: choose a long time",
            (
                Panel(
                    "Current over months",
                    Kind.SERIES,
                    (
                        Query(
                            {
                                "highest peak": highest("i_peak_max_ua"),
                                "mean r.m.s.": mean("i_rms_mean_ua"),
                                "peak limit": drawn("peak_limit_ua", highest("i_peak_max_ua")),
                            },
                            "trend",
                            step=TREND_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "By ten minutes, kept when the readings themselves are deleted. The limit is that of today's profile.",
                    Unit.MICROAMPERE,
                    width=12,
                    looks={"peak limit": LIMIT_LOOK},
                    gap_ms=TREND_MS,
                    lowest=0,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Impedance over months",
                    Kind.SERIES,
                    (
                        Query(
                            {
                                "mean": mean("z_mean_ohm"),
                                "good up to": drawn("z_good_max_ohm", mean("z_mean_ohm")),
                            },
                            "trend",
                            step=TREND_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "Mean impedance in good or marginal contact, by ten minutes. A rise over weeks is how electrodes wear.",
                    Unit.OHM,
                    width=12,
                    looks={"good up to": LIMIT_LOOK},
                    gap_ms=TREND_MS,
                    logarithmic=True,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Output by day",
                    Kind.SERIES,
                    (Query({"output": total("output_s")}, "trend", step=DAY_MS, narrowed=ITS),),
                    "Time with output on, by day (UTC), as far as it was seen.",
                    Unit.SECOND,
                    width=12,
                    counted=True,
                    lowest=0,
                    empty=NOT_HEARD,
                ),
                Panel(
                    "Head and battery over months",
                    Kind.SERIES,
                    (
                        Query(
                            {
                                "hottest head": highest("temp_head_max_c"),
                                "hot": drawn("head_hot_c", highest("temp_head_max_c")),
                                "lowest battery": lowest("battery_min_mv"),
                            },
                            "trend",
                            step=DAY_MS,
                            narrowed=ITS,
                        ),
                    ),
                    "The hottest head and the lowest battery of each day (UTC).",
                    Unit.CELSIUS,
                    width=12,
                    looks={
                        "hot": Look(level=Level.CRITICAL, dashed=True),
                        "lowest battery": Look(unit=Unit.MILLIVOLT, level=Level.IDLE, right_axis=True),
                    },
                    gap_ms=7 * DAY_MS,
                    empty=NOT_HEARD,
                ),
            ),
        ),
    ),
)
