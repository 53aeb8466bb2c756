"""Which devices there are, which of them are heard, and how they are."""

from dashboards.panel import Dashboard, Kind, Level, Look, Panel, Section, Threshold, Unit
from dashboards.query import Query, Step, Where, above_zero, count, last, lowest, median, newest, total
from dashboards.shapes import (
    ALERTING,
    DEVICE_NOW_MS,
    HIDDEN,
    RANK_MEANINGS,
    SILENT_FROM_ONE,
    STATE_MEANINGS,
    TIME_LOOK,
    TO_DEVICE,
    TRUST,
    UNKNOWN_FROM_ONE,
    WARNING_FROM_ONE,
    WORKER_STEP_MS,
    of_workers,
)
from schemas.messages import VERSION

STATES = {
    "critical": total("in_critical"),
    "warning": total("in_warning"),
    "silent": total("silent"),
    "unknown": total("unknown"),
    "running": total("running"),
    "online": total("online"),
    "known": total("devices"),
}

STATE_LOOKS = {
    "critical": Look(thresholds=ALERTING),
    "warning": Look(thresholds=WARNING_FROM_ONE),
    "silent": Look(thresholds=SILENT_FROM_ONE),
    "unknown": Look(thresholds=UNKNOWN_FROM_ONE),
    "running": Look(thresholds=(Threshold(0, Level.IDLE), Threshold(1, Level.OK))),
    "online": Look(level=Level.INFO),
    "known": Look(level=Level.IDLE),
}

LINE_LOOKS = {
    "critical": Look(level=Level.CRITICAL),
    "warning": Look(level=Level.WARNING),
    "silent": Look(level=Level.SILENT),
    "unknown": Look(level=Level.UNKNOWN),
    "running": Look(level=Level.OK),
    "online": Look(level=Level.INFO),
    "known": Look(level=Level.IDLE, dashed=True),
}

CONTRACT_LOOK = Look(
    thresholds=(Threshold(0, Level.WARNING, "old"), Threshold(VERSION, Level.IDLE), Threshold(VERSION + 1, Level.WARNING, "too new"))
)

NO_DEVICE = "no worker has said anything of such a device in three hours"

FLEET = Dashboard(
    uid="microcurrent-fleet",
    title="Fleet",
    description="Which devices there are, which of them are heard, and how they are.",
    variables=("model", "fw", "device_id"),
    sections=(
        Section(
            "Now",
            (
                Panel(
                    "Devices",
                    Kind.STAT,
                    (of_workers("fleet", STATES),),
                    "Devices by what is the worst about them: an open critical alert or warning, silence while running, or "
                    "too little heard to say. Running and online devices may be among those. All devices of the chosen "
                    "model and firmware, as their workers counted them in the last ten seconds. A device that is not "
                    "known is not counted: it has never spoken.",
                    Unit.COUNT,
                    width=24,
                    height=4,
                    looks=STATE_LOOKS,
                    empty="unknown: no worker has counted its devices for two minutes",
                ),
                TRUST,
                Panel(
                    "Health of each device",
                    Kind.TILES,
                    (Query({"state": last("rank")}, "device", by=("device_id",), back_ms=DEVICE_NOW_MS),),
                    "One tile for each device, the worst first, at most 400. 'ok' says that it was heard and nothing is "
                    "wrong in what was heard; 'idle' that it is not in use, 'off' that it is away and was not in use; "
                    "'silent' and 'unknown' that nobody can say how it is.",
                    width=24,
                    height=7,
                    meanings=RANK_MEANINGS,
                    looks={"Device": Look(link=TO_DEVICE)},
                    sort="state",
                    limit=400,
                    empty=NO_DEVICE,
                ),
                Panel(
                    "Devices, the worst first",
                    Kind.TABLE,
                    (
                        Query(
                            {
                                "State": newest("state"),
                                "Rank": newest("rank"),
                                "Last seen": newest("last_seen_ms"),
                                "Model": newest("model"),
                                "Firmware": newest("fw"),
                                "Lot": newest("lot"),
                                "Battery": newest("battery_mv"),
                                "Contract": newest("contract"),
                                "Missing": newest("missing"),
                                "Refused": newest("quarantined"),
                            },
                            "device",
                            by=("device_id",),
                            back_ms=DEVICE_NOW_MS,
                        ),
                    ),
                    "What the worker thinks of each device: up to 200, the worst first. 'Last seen' is when its latest message "
                    "came, whatever was in it. 'Missing' are numbers skipped in its sequence, 'refused' its messages in "
                    "quarantine. An empty battery or lot was never told.",
                    width=24,
                    height=10,
                    looks={
                        "Device": Look(link=TO_DEVICE),
                        "State": Look(meanings=STATE_MEANINGS),
                        "Rank": HIDDEN,
                        "Last seen": TIME_LOOK,
                        "Battery": Look(unit=Unit.MILLIVOLT, decimals=0),
                        "Contract": CONTRACT_LOOK,
                        "Missing": Look(thresholds=UNKNOWN_FROM_ONE),
                        "Refused": Look(thresholds=WARNING_FROM_ONE),
                    },
                    sort="Rank",
                    limit=200,
                    empty=NO_DEVICE,
                ),
            ),
        ),
        Section(
            "Over time",
            (
                Panel(
                    "Devices by state",
                    Kind.SERIES,
                    (of_workers("fleet", STATES, step=Step.AUTO),),
                    "The counts above over time. A gap is a time in which no worker counted; a step down in all of them at "
                    "once is a worker that is gone, not devices that are well.",
                    Unit.COUNT,
                    looks=LINE_LOOKS,
                    gap_ms=3 * WORKER_STEP_MS,
                    lowest=0,
                    empty="no worker has counted its devices in this time",
                ),
                Panel(
                    "Messages missing",
                    Kind.SERIES,
                    (
                        of_workers(
                            "pipeline", {"messages": total("missing"), "devices": total("devices_missing")}, step=Step.AUTO
                        ),
                    ),
                    "Numbers that devices have given to messages which have not come, in all, and how many devices have such. "
                    "Of all devices, whatever is chosen. It falls when a phone uploads what it held.",
                    Unit.COUNT,
                    looks={"messages": Look(level=Level.UNKNOWN), "devices": Look(level=Level.SILENT, right_axis=True)},
                    gap_ms=3 * WORKER_STEP_MS,
                    lowest=0,
                    empty="no worker has reported in this time",
                ),
            ),
        ),
        Section(
            "What they are",
            (
                Panel(
                    "Models and firmware",
                    Kind.TABLE,
                    (
                        of_workers(
                            "fleet",
                            {
                                "Devices": total("devices"),
                                "Online": total("online"),
                                "Running": total("running"),
                                "Silent": total("silent"),
                                "Warning": total("in_warning"),
                                "Critical": total("in_critical"),
                                "Old contract": total("old_contract"),
                            },
                            by=("model", "fw"),
                            having=(above_zero("Devices"),),
                        ),
                    ),
                    "How many devices are of which model and firmware, and how they are. Counts: a firmware with more devices "
                    "has more alerts without being worse; rates are on the dashboard Safety.",
                    width=16,
                    looks={
                        "Silent": Look(thresholds=SILENT_FROM_ONE),
                        "Warning": Look(thresholds=WARNING_FROM_ONE),
                        "Critical": Look(thresholds=ALERTING),
                        "Old contract": Look(thresholds=WARNING_FROM_ONE),
                    },
                    empty="unknown: no worker has counted its devices for two minutes",
                ),
                Panel(
                    "Models",
                    Kind.BARS,
                    (of_workers("fleet", {"devices": total("devices")}, by=("model",), having=(above_zero("devices"),)),),
                    "Known devices by model.",
                    Unit.COUNT,
                    width=8,
                    base=Level.IDLE,
                    empty="unknown: no worker has counted its devices for two minutes",
                ),
                Panel(
                    "Batteries",
                    Kind.STAT,
                    (
                        Query(
                            {"lowest": lowest("battery"), "median": median("battery"), "devices": count("battery")},
                            Query({"battery": last("battery_mv")}, "device", by=("device_id",), back_ms=DEVICE_NOW_MS),
                            back_ms=DEVICE_NOW_MS,
                        ),
                    ),
                    "The latest voltage that each device told. Devices without a battery, or that never told, are not in it.",
                    Unit.MILLIVOLT,
                    width=8,
                    base=Level.IDLE,
                    looks={"devices": Look(unit=Unit.COUNT, decimals=0)},
                    decimals=0,
                    empty="no device has told its voltage",
                ),
                Panel(
                    "Devices that speak another contract",
                    Kind.TABLE,
                    (
                        Query(
                            {
                                "Contract": newest("contract"),
                                "State": newest("state"),
                                "Model": newest("model"),
                                "Firmware": newest("fw"),
                                "Last seen": newest("last_seen_ms"),
                            },
                            "device",
                            by=("device_id",),
                            back_ms=DEVICE_NOW_MS,
                            having=(Where("Contract", "!=", VERSION),),
                        ),
                    ),
                    f"Devices whose latest message was not of version {VERSION} of the contract: what they say is set aside "
                    "unread, save for dangers that can be seen in it.",
                    width=16,
                    looks={
                        "Device": Look(link=TO_DEVICE),
                        "Contract": CONTRACT_LOOK,
                        "State": Look(meanings=STATE_MEANINGS),
                        "Last seen": TIME_LOOK,
                    },
                    limit=200,
                    empty="none among the devices that were heard",
                ),
            ),
        ),
    ),
)
