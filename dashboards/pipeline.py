"""Whether the line itself can be believed: what came, where it is, how late, and what was refused."""

from dashboards.panel import Dashboard, Kind, Level, Look, Meaning, Panel, Section, Threshold, Unit
from dashboards.query import Query, Rows, Step, Where, count, highest, last, lowest, mean, total
from dashboards.shapes import (
    ALERTING,
    BLIND_SPOTS,
    DELAYED,
    SEVERITY_MEANINGS,
    STORE_UP,
    TIME_LOOK,
    UP,
    WARNING_FROM_ONE,
    WORKER_STEP_MS,
    of_workers,
)
from schemas.limits import CRITICAL_DAYS, WARN_DAYS
from schemas.measurements import EVERY
from schemas.rejections import EXPLAINED
from schemas.security import SECURITY_EXPLAINED

NOBODY = "no worker has reported for two minutes: nothing is known of the line"
NOBODY_THEN = "no worker has reported in this time"
GAP_MS = 3 * WORKER_STEP_MS

PRESSURE = {0: Meaning("enough", Level.OK), 1: Meaning("SHORT", Level.WARNING), 2: Meaning("NONE, STOPPED", Level.CRITICAL)}
CANARY_LATE = (Threshold(0, Level.IDLE), Threshold(30, Level.WARNING), Threshold(300, Level.CRITICAL))
"""s through the whole path: half a minute is late, five minutes are a blind spot. Less is not green: the last may be long ago."""

CERTIFICATE_DAY_S = 86_400
CERTIFICATE_ENDS = (
    Threshold(-(10**10), Level.CRITICAL),
    Threshold(CRITICAL_DAYS * CERTIFICATE_DAY_S, Level.WARNING),
    Threshold(WARN_DAYS * CERTIFICATE_DAY_S, Level.IDLE),
)
"""s until the first one ends, as the worker's own alert has it by default; below 0 it has ended."""

BALANCED = Look(thresholds=(Threshold(0, Level.OK), Threshold(1, Level.CRITICAL)))


LINE_ALERT = {
    "Severity": "severity",
    "Rule": "rule",
    "Worker": "device_id",
    "State": "state",
    "Since": "onset_ms",
    "Until": "closed_ms",
    "Acknowledged by": "acknowledged_by",
    "What": "detail",
}


def _over_time(title: str, **columns: str) -> Query:
    return of_workers("pipeline", {name: total(field) for name, field in columns.items()}, step=Step.AUTO)


PIPELINE = Dashboard(
    uid="microcurrent-pipeline",
    title="Pipeline",
    description="Whether the line itself can be believed: what came, where it is, how late, and what was refused.",
    sections=(
        Section(
            "Now",
            (
                Panel(
                    "Can the picture be believed?",
                    Kind.STAT,
                    (
                        of_workers(
                            "pipeline",
                            {
                                "blind spots": total("blind"),
                                "blind for": highest("blind_s"),
                                "last canary took": highest("canary_s"),
                                "since last canary": highest("canary_age_s"),
                                "room on disk": highest("pressure"),
                                "disk free": lowest("free_mb"),
                                "journal": highest("journal_mb"),
                                "first certificate ends in": lowest("certificate_s"),
                            },
                        ),
                    ),
                    "How many reasons the workers know why something cannot be seen, and since when; the alert pipeline-blind names "
                    "them. How long the last canary, a message of the worker's own, took through broker, judge and store and "
                    "back, and how long ago it was sent: an empty one is turned off or has never come through. Whether the journal has room; when it "
                    "has stopped, nothing more is accepted. How long until the first certificate ends that a worker knows of: empty, it knows of "
                    "none. The worst worker counts.",
                    Unit.COUNT,
                    width=24,
                    height=4,
                    looks={
                        "blind spots": BLIND_SPOTS,
                        "blind for": Look(unit=Unit.SECOND, thresholds=ALERTING, decimals=0),
                        "last canary took": Look(unit=Unit.SECOND, thresholds=CANARY_LATE, decimals=2),
                        "since last canary": Look(unit=Unit.SECOND, level=Level.IDLE, decimals=0),
                        "room on disk": Look(unit=Unit.NONE, meanings=PRESSURE),
                        "disk free": Look(unit=Unit.MEGABYTE, level=Level.IDLE, decimals=0),
                        "journal": Look(unit=Unit.MEGABYTE, level=Level.IDLE, decimals=0),
                        "first certificate ends in": Look(unit=Unit.SECOND, thresholds=CERTIFICATE_ENDS, decimals=1),
                    },
                    empty=NOBODY,
                ),
                Panel(
                    "Every message accounted for",
                    Kind.STAT,
                    (
                        of_workers(
                            "pipeline",
                            {
                                "accepted": total("accepted"),
                                "= pending": total("pending"),
                                "+ stored": total("stored"),
                                "+ duplicate": total("duplicate"),
                                "+ quarantined": total("quarantined"),
                                "unaccounted": total("accepted")
                                - total("pending")
                                - total("stored")
                                - total("duplicate")
                                - total("quarantined"),
                            },
                        ),
                    ),
                    "The ledger of all workers since their journals began: what was acknowledged is waiting, or stored, or came "
                    "twice, or was set aside with a reason. 'unaccounted' is what is left over, and must be 0.",
                    Unit.COUNT,
                    width=24,
                    height=4,
                    base=Level.CRITICAL,
                    looks={
                        "accepted": Look(level=Level.IDLE),
                        "= pending": Look(level=Level.IDLE),
                        "+ stored": Look(level=Level.IDLE),
                        "+ duplicate": Look(level=Level.IDLE),
                        "+ quarantined": Look(level=Level.IDLE),
                        "unaccounted": BALANCED,
                    },
                    decimals=0,
                    empty=NOBODY,
                ),
                Panel(
                    "Workers",
                    Kind.STAT,
                    (
                        of_workers(
                            "pipeline",
                            {
                                "workers": count("accepted"),
                                "broker": lowest("broker_connected"),
                                "store": lowest("store_ok"),
                                "broker lost our session": total("broker_session_lost"),
                                "delay until seen": highest("unseen_s"),
                                "delay until stored": highest("outbox_age_s"),
                                "notices waiting": total("notices_waiting"),
                                "memory": highest("rss_mb"),
                            },
                        ),
                    ),
                    "Workers that reported in the last two minutes; one that is gone is not counted, and nobody speaks for its "
                    "devices. Of the others the worst: connections, how far back the moment lies up to which they surely "
                    "saw everything, and how long the oldest entry has waited for the store. A broker that lost a session may have "
                    "dropped messages. Notices wait for the webhook.",
                    Unit.COUNT,
                    width=24,
                    height=4,
                    base=Level.IDLE,
                    looks={
                        "broker": Look(unit=Unit.NONE, meanings=UP),
                        "store": Look(unit=Unit.NONE, meanings=STORE_UP),
                        "broker lost our session": Look(thresholds=WARNING_FROM_ONE),
                        "delay until seen": Look(unit=Unit.SECOND, thresholds=DELAYED, decimals=0),
                        "delay until stored": Look(unit=Unit.SECOND, thresholds=DELAYED, decimals=0),
                        "notices waiting": Look(thresholds=WARNING_FROM_ONE),
                        "memory": Look(unit=Unit.MEGABYTE, decimals=0),
                    },
                    empty=NOBODY,
                ),
            ),
        ),
        Section(
            "Connections",
            (
                Panel(
                    "Broker",
                    Kind.STATES,
                    (
                        Query(
                            {"broker": lowest("broker_connected")},
                            "pipeline",
                            by=("device_id",),
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "Whether each worker was connected to the broker throughout each step. A gap: the worker did not report.",
                    width=12,
                    height=5,
                    meanings=UP,
                    gap_ms=GAP_MS,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Store",
                    Kind.STATES,
                    (
                        Query(
                            {"store": lowest("store_ok")},
                            "pipeline",
                            by=("device_id",),
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "Whether each worker could write to the store throughout each step. While it cannot, its reports wait as well "
                    "and come later.",
                    width=12,
                    height=5,
                    meanings=STORE_UP,
                    gap_ms=GAP_MS,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Workers reporting",
                    Kind.SERIES,
                    (
                        Query(
                            {"workers": total("one")},
                            Query(
                                {"one": last("accepted") * 0 + 1},
                                "pipeline",
                                by=("device_id",),
                                step=Step.AUTO,
                                narrowed=(),
                                least_ms=WORKER_STEP_MS,
                            ),
                            step=Step.AUTO,
                        ),
                    ),
                    "Each serves its own devices: with one less, the devices of that one are unseen.",
                    Unit.COUNT,
                    width=12,
                    height=6,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Delay until seen",
                    Kind.SERIES,
                    (of_workers("pipeline", {"delay": highest("unseen_s")}, step=Step.AUTO),),
                    "How far back, for the worst worker, the moment lay up to which it was sure to have seen everything.",
                    Unit.SECOND,
                    width=12,
                    height=6,
                    thresholds=DELAYED,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
            ),
        ),
        Section(
            "What could not be seen",
            (
                Panel(
                    "Alerts of the line itself",
                    Kind.TABLE,
                    (Rows(LINE_ALERT, "alert", where=(Where("model", "=", EVERY),), limit=100, narrowed=()),),
                    "What was unknown from when to when, when room was short, who tried to get in, and which certificate ends: the newest 100 that began in this time.",
                    width=24,
                    looks={
                        "Severity": Look(meanings=SEVERITY_MEANINGS),
                        "Since": TIME_LOOK,
                        "Until": TIME_LOOK,
                        "What": Look(wide=True),
                    },
                    sort="Since",
                    empty="no alert of the line itself began in this time, as far as a worker ran to raise it",
                ),
                Panel(
                    "Canary through the whole path",
                    Kind.SERIES,
                    (
                        Query(
                            {"took": highest("canary_s")},
                            "pipeline",
                            by=("device_id",),
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "How long the last message of the worker's own took from the broker through judge and store and back. The line "
                    "stays where it is while none comes through: how long ago stands above.",
                    Unit.SECOND,
                    thresholds=CANARY_LATE,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty="no canary came through in this time, or it is turned off",
                ),
                Panel(
                    "Room for the journal",
                    Kind.SERIES,
                    (of_workers("pipeline", {"disk free": lowest("free_mb"), "journal": highest("journal_mb")}, step=Step.AUTO),),
                    "Free disk and size of the journal, of the worst worker. Without room nothing more is accepted; brokers and "
                    "devices then keep what they have.",
                    Unit.MEGABYTE,
                    looks={"journal": Look(level=Level.IDLE)},
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty="no worker has told its room in this time",
                ),
                Panel(
                    "Security events by kind",
                    Kind.TABLE,
                    (Query({"Events": total("events")}, "security", by=("kind",), narrowed=()),),
                    "Attempts to get in, or to be somebody else, and certificates that end, in this time. Who and from where is told by 'microcurrent security'.",
                    width=12,
                    looks={
                        "Kind": Look(meanings={k.value: Meaning(f"{k}: {text}", Level.WARNING) for k, text in SECURITY_EXPLAINED.items()}, wide=True),
                    },
                    sort="Events",
                    empty="none in this time, as far as workers saw",
                ),
                Panel(
                    "Security events over time",
                    Kind.SERIES,
                    (
                        Query({"events": total("events")}, "security", by=("kind",), step=Step.AUTO, narrowed=(), least_ms=WORKER_STEP_MS),
                    ),
                    "Security events in each step. A step without a point had none, as far as workers saw.",
                    Unit.COUNT,
                    width=12,
                    stacked=True,
                    counted=True,
                    lowest=0,
                    empty="none in this time, as far as workers saw",
                ),
            ),
        ),
        Section(
            "Flow",
            (
                Panel(
                    "Messages a second",
                    Kind.SERIES,
                    (
                        Query(
                            {"received": total("rate")},
                            Query(
                                {"rate": mean("rate_per_s")},
                                "pipeline",
                                by=("device_id",),
                                step=Step.AUTO,
                                narrowed=(),
                                least_ms=WORKER_STEP_MS,
                            ),
                            step=Step.AUTO,
                        ),
                    ),
                    "Messages accepted by all workers. A fall may be the night, a broker, or a worker that is gone.",
                    Unit.PER_SECOND,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Delay from reading to receipt",
                    Kind.SERIES,
                    (
                        Query(
                            {"mean": mean("delay_mean_s"), "longest": highest("delay_max_s")},
                            "pipeline",
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "Receipt after event time. A phone that uploads what it held for hours shows here, and is no fault of the "
                    "line. The mean is over reports, not over messages.",
                    Unit.SECOND,
                    looks={"longest": Look(level=Level.IDLE)},
                    gap_ms=GAP_MS,
                    logarithmic=True,
                    empty="no message with a time was received in this time",
                ),
                Panel(
                    "Waiting",
                    Kind.SERIES,
                    (
                        of_workers(
                            "pipeline",
                            {"to be judged": total("inbox"), "for the store": total("outbox")},
                            step=Step.AUTO,
                        ),
                    ),
                    "Messages on disk that are not judged yet, and entries that the store has not confirmed. Nothing of it is "
                    "lost; until it is stored it is not on these pages.",
                    Unit.COUNT,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Age of what waits for the store",
                    Kind.SERIES,
                    (of_workers("pipeline", {"oldest": highest("outbox_age_s")}, step=Step.AUTO),),
                    "How long the oldest entry, of the worst worker, has waited: so old is what these pages show.",
                    Unit.SECOND,
                    thresholds=DELAYED,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Messages missing, clocks doubted",
                    Kind.SERIES,
                    (
                        of_workers(
                            "pipeline", {"missing": total("missing"), "devices with gaps": total("devices_missing")}, step=Step.AUTO
                        ),
                        Query(
                            {"clock doubted": total("clock_doubted")},
                            "pipeline",
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "Numbers skipped in devices' sequences and not yet come, how many devices have such, and the messages in each "
                    "step whose own time was not believed: they stand at a time worked out from their receipt.",
                    Unit.COUNT,
                    looks={
                        "missing": Look(level=Level.UNKNOWN),
                        "devices with gaps": Look(level=Level.SILENT),
                        "clock doubted": Look(level=Level.WARNING),
                    },
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
                Panel(
                    "Memory",
                    Kind.SERIES,
                    (
                        Query(
                            {"memory": highest("rss_mb")},
                            "pipeline",
                            by=("device_id",),
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "Resident memory of each worker.",
                    Unit.MEGABYTE,
                    gap_ms=GAP_MS,
                    lowest=0,
                    empty=NOBODY_THEN,
                ),
            ),
        ),
        Section(
            "Refused",
            (
                Panel(
                    "Quarantine by reason",
                    Kind.TABLE,
                    (Query({"Messages": total("messages")}, "quarantine", by=("reason",), narrowed=()),),
                    "Messages set aside in this time, with all their bytes, and why. Each was searched for danger before.",
                    width=12,
                    looks={
                        "Reason": Look(
                            meanings={r.value: Meaning(f"{r}: {text}", Level.WARNING) for r, text in EXPLAINED.items()}, wide=True
                        ),
                    },
                    sort="Messages",
                    empty="no message was set aside in this time, as far as workers reported",
                ),
                Panel(
                    "Quarantine over time",
                    Kind.SERIES,
                    (
                        Query(
                            {"messages": total("messages")},
                            "quarantine",
                            by=("reason",),
                            step=Step.AUTO,
                            narrowed=(),
                            least_ms=WORKER_STEP_MS,
                        ),
                    ),
                    "Messages set aside in each step. A step without a point had none, as far as workers reported.",
                    Unit.COUNT,
                    width=12,
                    stacked=True,
                    counted=True,
                    lowest=0,
                    empty="no message was set aside in this time, as far as workers reported",
                ),
            ),
        ),
    ),
)
