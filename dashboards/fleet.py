"""Who is out there, who is heard, and how they are."""

from dashboards.panel import Dashboard, Kind, Level, Panel, Section, Threshold, Unit
from dashboards.query import DAY_MS, Query, Step, count, last, total

STATE_BACK_MS = 30 * DAY_MS

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
                    (
                        Query(
                            {"known": count("rank")},
                            Query({"rank": last("rank")}, "device", by=("device_id",), back_ms=STATE_BACK_MS),
                            back_ms=STATE_BACK_MS,
                        ),
                    ),
                    "Devices that were heard in the last 30 days.",
                    Unit.COUNT,
                    width=6,
                    height=4,
                    thresholds=(Threshold(0, Level.IDLE),),
                ),
                Panel(
                    "Devices online",
                    Kind.SERIES,
                    (
                        Query(
                            {"online": total("online")},
                            Query({"online": last("online")}, "fleet", by=("device_id", "model", "fw"), step=Step.AUTO, narrowed=("model", "fw")),
                            step=Step.AUTO,
                        ),
                    ),
                    "Connected devices, as the worker counts them.",
                    Unit.COUNT,
                ),
            ),
        ),
    ),
)
