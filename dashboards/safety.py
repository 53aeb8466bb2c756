"""What is dangerous, how often, with which firmware, and on how much observation that stands."""

from dashboards.panel import Dashboard, Kind, Level, Look, Panel, Section, Unit
from dashboards.query import DAY_MS, Query, Rows, Where, count, highest, lowest, median, total
from dashboards.shapes import (
    ALERTING,
    ALL_ALERTS_MS,
    COVERAGE,
    COVERAGE_LOOK,
    HIDDEN,
    HOUR_MS,
    HOURS_LOOK,
    OUTPUT_H,
    RATE_LOOK,
    SEVERITY_LOOKS,
    SEVERITY_MEANINGS,
    SILENT_FROM_ONE,
    TIME_LOOK,
    TO_DEVICE,
    TO_MOMENT,
    TRUST,
    UNKNOWN_FROM_ONE,
    WARNING_FROM_ONE,
    of_groups,
    of_workers,
    per_100_h,
)
from schemas.measurements import RULE_FIELDS

WAITING = Where("unacknowledged", "=", 1)
OPEN = Where("open", "=", 1)
CRITICAL = Where("critical", "=", 1)
WARNING = Where("warning", "=", 1)

OPEN_ALERT = {
    "Severity": "severity",
    "Rule": "rule",
    "Device": "device_id",
    "Value": "value",
    "Limit": "limit",
    "Unit": "unit",
    "Since": "onset_ms",
    "Acknowledged by": "acknowledged_by",
    "Assigned to": "assigned_to",
    "Model": "model",
    "Firmware": "fw",
    "What": "detail",
}

ALERT_LOOKS = {
    "Severity": Look(meanings=SEVERITY_MEANINGS),
    "Device": Look(link=TO_MOMENT),
    "Value": Look(decimals=2),
    "Limit": Look(decimals=2),
    "Since": TIME_LOOK,
    "What": Look(wide=True),
}

RATES = {
    "Critical": total("alerts_critical"),
    "Critical per 100 h": per_100_h("alerts_critical"),
    "Warnings per 100 h": per_100_h("alerts_warning"),
    "Info per 100 h": per_100_h("alerts_info"),
    "Coverage": COVERAGE,
    "Output h": OUTPUT_H,
    "Sessions": total("sessions"),
}

RATE_LOOKS = {
    "Critical": Look(thresholds=ALERTING, decimals=0),
    "Critical per 100 h": RATE_LOOK,
    "Warnings per 100 h": RATE_LOOK,
    "Info per 100 h": RATE_LOOK,
    "Coverage": COVERAGE_LOOK,
    "Output h": HOURS_LOOK,
}

ON_RATES = (
    "Alerts of sessions per 100 h with output on, withdrawn ones left out. Coverage is the part of the running time of which "
    "there are readings: what happened in the rest is not counted. Little output makes a rate of chance."
)

NO_OUTPUT = "no session with output in this time: nothing can be said"


def _acknowledged(severity: Where, name: str) -> Query:
    return Query(
        {
            f"{name}, median": median("acknowledged_after_s"),
            f"{name}, longest": highest("acknowledged_after_s"),
            f"{name}, how many": count("acknowledged_after_s"),
        },
        "alert",
        where=(severity,),
    )


SAFETY = Dashboard(
    uid="microcurrent-safety",
    title="Safety",
    description="What is dangerous, how often, with which firmware, and on how much observation that stands.",
    variables=("model", "fw", "device_id"),
    shown_s=7 * 86_400,
    sections=(
        Section(
            "Now",
            (
                Panel(
                    "Open alerts, all devices",
                    Kind.STAT,
                    (
                        of_workers(
                            "pipeline",
                            {
                                "critical": total("open_critical"),
                                "warning": total("open_warning"),
                                "info": total("open_info"),
                                "not acknowledged": total("unacknowledged"),
                            },
                        ),
                    ),
                    "Alerts that stand open, as the workers have them on record, and alerts, open or not, that nobody has "
                    "acknowledged. Of all devices, whatever is chosen. 0 means that nothing was seen: read it with the "
                    "panel below.",
                    Unit.COUNT,
                    width=14,
                    height=4,
                    looks={
                        "critical": Look(thresholds=ALERTING),
                        "warning": Look(thresholds=WARNING_FROM_ONE),
                        "info": Look(level=Level.IDLE),
                        "not acknowledged": Look(thresholds=WARNING_FROM_ONE),
                    },
                    empty="unknown: no worker has reported for two minutes",
                ),
                Panel(
                    "Devices that cannot be judged",
                    Kind.STAT,
                    (
                        of_workers(
                            "fleet", {"silent": total("silent"), "unknown": total("unknown"), "of all": total("devices")}
                        ),
                    ),
                    "Devices that went silent while they ran, and those of which too little was heard: no alert of theirs can "
                    "be seen. Of the chosen model and firmware.",
                    Unit.COUNT,
                    width=10,
                    height=4,
                    looks={
                        "silent": Look(thresholds=SILENT_FROM_ONE),
                        "unknown": Look(thresholds=UNKNOWN_FROM_ONE),
                        "of all": Look(level=Level.IDLE),
                    },
                    empty="unknown: no worker has counted its devices for two minutes",
                ),
                TRUST,
                Panel(
                    "Open: critical",
                    Kind.TABLE,
                    (Rows(OPEN_ALERT, "alert", where=(OPEN, CRITICAL), limit=200, back_ms=ALL_ALERTS_MS),),
                    "Critical alerts that stand open, the newest 200, whenever they began: stop use, human review. The value is "
                    "the worst until now. The device leads to what it did around that time.",
                    width=24,
                    looks=ALERT_LOOKS,
                    empty="none on record for what is chosen; whether all was seen stands above",
                ),
                Panel(
                    "Open: warnings and information",
                    Kind.TABLE,
                    (
                        Rows(
                            {**OPEN_ALERT, "Warning": "warning"},
                            "alert",
                            where=(OPEN, Where("critical", "=", 0)),
                            limit=500,
                            back_ms=ALL_ALERTS_MS,
                        ),
                    ),
                    "Warnings and information that stand open, warnings first, of the newest 500.",
                    width=24,
                    looks={**ALERT_LOOKS, "Warning": HIDDEN},
                    sort="Warning",
                    empty="none on record for what is chosen; whether all was seen stands above",
                ),
            ),
        ),
        Section(
            "How often",
            (
                Panel(
                    "What the rates rest on",
                    Kind.STAT,
                    (
                        of_groups(
                            "session",
                            {"coverage": COVERAGE, "output h": OUTPUT_H, "sessions": total("sessions")},
                        ),
                    ),
                    "Of the time in which devices ran, the part of which there are readings; the hours with output on; the "
                    "sessions that are over. Every rate here is of these.",
                    width=6,
                    height=12,
                    base=Level.IDLE,
                    looks={
                        "coverage": COVERAGE_LOOK,
                        "output h": HOURS_LOOK,
                        "sessions": Look(unit=Unit.COUNT, decimals=0),
                    },
                    empty=NO_OUTPUT,
                ),
                Panel(
                    "Alerts per 100 h of output, by rule",
                    Kind.BARS,
                    (of_groups("session", {rule: per_100_h(name) for rule, name in RULE_FIELDS.items()}),),
                    f"{ON_RATES} A rule without a bar raised nothing in the part that was seen.",
                    Unit.PER_100_H,
                    width=18,
                    height=12,
                    base=Level.INFO,
                    decimals=2,
                    lowest=0,
                    empty=NO_OUTPUT,
                ),
                Panel(
                    "By firmware, beside that before it",
                    Kind.TABLE,
                    (of_groups("session", {**RATES, "First session": lowest("started_ms")}, by=("model", "fw")),),
                    f"{ON_RATES} The firmwares of a model stand together; 'first session' tells which is the newer. Firmware "
                    "that never had output is not listed.",
                    width=24,
                    looks={**RATE_LOOKS, "First session": TIME_LOOK},
                    empty=NO_OUTPUT,
                ),
                Panel(
                    "By model",
                    Kind.TABLE,
                    (of_groups("session", RATES, by=("model",)),),
                    ON_RATES,
                    width=24,
                    height=6,
                    looks=RATE_LOOKS,
                    empty=NO_OUTPUT,
                ),
                Panel(
                    "Worst devices",
                    Kind.TABLE,
                    (
                        of_groups(
                            "session", RATES, by=("device_id",), only=total("alerts_critical") + total("alerts_warning")
                        ),
                    ),
                    f"{ON_RATES} Devices with critical alerts or warnings, those with most critical ones first. One that is not "
                    "listed raised neither in what was seen of it.",
                    width=24,
                    looks={**RATE_LOOKS, "Device": Look(link=TO_DEVICE)},
                    sort="Critical",
                    limit=20,
                    empty="no critical alert or warning in the sessions on record",
                ),
                Panel(
                    "Alerts an hour",
                    Kind.SERIES,
                    (
                        Query(
                            {name: total(name) for name in ("critical", "warning", "info")},
                            "alert",
                            step=HOUR_MS,
                        ),
                    ),
                    "Alerts by the hour in which their cause began, withdrawn ones left out; they rise with use. An hour without "
                    "a point had none that was seen.",
                    Unit.COUNT,
                    width=24,
                    looks=SEVERITY_LOOKS,
                    stacked=True,
                    counted=True,
                    lowest=0,
                    empty="no alert on record began in this time",
                ),
            ),
        ),
        Section(
            "What was done",
            (
                Panel(
                    "Time to acknowledge",
                    Kind.STAT,
                    (_acknowledged(CRITICAL, "critical"), _acknowledged(WARNING, "warning")),
                    "From the opening of an alert to its acknowledgement, for alerts that began in this time and were "
                    "acknowledged. Those that still wait are not in it: see beside.",
                    Unit.SECOND,
                    width=16,
                    height=5,
                    base=Level.IDLE,
                    looks={
                        "critical, how many": Look(unit=Unit.COUNT, decimals=0),
                        "warning, how many": Look(unit=Unit.COUNT, decimals=0),
                    },
                    empty="nothing that began in this time has been acknowledged",
                ),
                Panel(
                    "Waiting for acknowledgement",
                    Kind.STAT,
                    (
                        Query(
                            {
                                "critical": total("critical"),
                                "warning": total("warning"),
                                "info": total("info"),
                                "the oldest since": lowest("onset_ms"),
                            },
                            "alert",
                            where=(WAITING,),
                            back_ms=ALL_ALERTS_MS,
                        ),
                    ),
                    "Alerts, open or closed, that nobody has acknowledged, whenever they began.",
                    Unit.COUNT,
                    width=8,
                    height=5,
                    base=Level.IDLE,
                    looks={
                        "critical": Look(thresholds=ALERTING),
                        "warning": Look(thresholds=WARNING_FROM_ONE),
                        "info": Look(level=Level.IDLE),
                        "the oldest since": TIME_LOOK,
                    },
                    empty="none on record for what is chosen",
                ),
                Panel(
                    "Clusters in the fleet",
                    Kind.TABLE,
                    (
                        Rows(
                            {
                                "What": "detail",
                                "Model": "model",
                                "State": "state",
                                "Devices": "value",
                                "Limit": "limit",
                                "Since": "onset_ms",
                                "Latest": "updated_ms",
                                "Acknowledged by": "acknowledged_by",
                            },
                            "alert",
                            where=(Where("rule", "=", "fleet-cluster"),),
                            back_ms=90 * DAY_MS,
                            narrowed=("model",),
                        ),
                    ),
                    "The same critical rule on several devices of one lot or one firmware, in the last 90 days: it may be the "
                    "moment from which a maker is aware of a defect. A worker knows only the devices that it serves.",
                    width=24,
                    height=6,
                    looks={
                        "What": Look(wide=True),
                        "Devices": Look(decimals=0),
                        "Limit": Look(decimals=0),
                        "Since": TIME_LOOK,
                        "Latest": TIME_LOOK,
                    },
                    empty="none on record",
                ),
            ),
        ),
    ),
)
