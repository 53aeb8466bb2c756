"""Whether the line itself can be believed: what came, where it is, how late, and what was refused."""

from dashboards.panel import Dashboard, Kind, Level, Look, Meaning, Panel, Section, Threshold, Unit
from dashboards.query import Query, Step, count, highest, last, lowest, mean, total
from dashboards.shapes import (
    DELAYED,
    STORE_UP,
    UP,
    WARNING_FROM_ONE,
    WORKER_STEP_MS,
    of_workers,
)
from schemas.rejections import EXPLAINED

NOBODY = "no worker has reported for two minutes: nothing is known of the line"
NOBODY_THEN = "no worker has reported in this time"
GAP_MS = 3 * WORKER_STEP_MS

BALANCED = Look(thresholds=(Threshold(0, Level.OK), Threshold(1, Level.CRITICAL)))


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
                                "not seen for": highest("unseen_s"),
                                "not stored for": highest("outbox_age_s"),
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
                        "not seen for": Look(unit=Unit.SECOND, thresholds=DELAYED, decimals=0),
                        "not stored for": Look(unit=Unit.SECOND, thresholds=DELAYED, decimals=0),
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
                    "Unseen",
                    Kind.SERIES,
                    (of_workers("pipeline", {"not seen for": highest("unseen_s")}, step=Step.AUTO),),
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
