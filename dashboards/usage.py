"""Who uses what, how long and how well: of sessions that were seen well enough."""

from dashboards.panel import Dashboard, Kind, Level, Look, Panel, Section, Threshold, Unit
from dashboards.query import DAY_MS, Query, Where, count, highest, last, mean, median, total
from dashboards.shapes import COVERAGE, COVERAGE_LOOK, HOUR_S, HOURS_LOOK, OUTPUT_H, TO_DEVICE, of_groups, zone_words
from schemas.messages import Zone
from schemas.sessions import (
    ADHERENCE_MIN,
    COURSE_SESSIONS,
    COVERAGE_MIN,
    DELIVERY_MIN,
    EFFICIENCY_MIN,
    ZONE_FIELDS,
)

WELL_SEEN = (Where("coverage", ">=", COVERAGE_MIN),)

ON_SEEN = f"Of sessions of which at least {COVERAGE_MIN:.0%} was seen; the others are counted above as left out, not guessed."

NONE_SEEN = "no session in this time was seen well enough to say"

TEN_MINUTES_S = 600.0

USE_BACK_MS = 28 * DAY_MS
NO_WEEK = "no week of use is on record in the four weeks before"

EFFICIENCY = total("effective_s") / total("active_s")
COMFORT = {
    "Turned down or stopped": (total("level_downs") + total("stopped_by_user")) / total("effective_s") * TEN_MINUTES_S,
    "Level downs": total("level_downs"),
    "Stopped by user": total("stopped_by_user"),
    "Effective h": total("effective_s") / HOUR_S,
    "Coverage": COVERAGE,
}

FIGURES = {
    "Completion": mean("completion"),
    "Contact efficiency": EFFICIENCY,
    "Delivery ratio": median("delivery_ratio"),
    "Zone coverage": mean("zone_coverage"),
    "L/R symmetry": mean("symmetry"),
    "Intensity": mean("intensity_part"),
    "Mean current": mean("mean_intensity_ua"),
}


def good_from(least: float) -> Look:
    return Look(unit=Unit.FRACTION, thresholds=(Threshold(0, Level.WARNING), Threshold(least, Level.OK)), decimals=0)


PLAIN_FRACTION = Look(unit=Unit.FRACTION, level=Level.IDLE, decimals=0)

FIGURE_LOOKS = {
    "Completion": PLAIN_FRACTION,
    "Contact efficiency": good_from(EFFICIENCY_MIN),
    "Delivery ratio": good_from(DELIVERY_MIN),
    "Zone coverage": PLAIN_FRACTION,
    "L/R symmetry": PLAIN_FRACTION,
    "Intensity": PLAIN_FRACTION,
    "Mean current": Look(unit=Unit.MICROAMPERE, level=Level.IDLE, decimals=0),
}

COMFORT_LOOKS = {
    "Turned down or stopped": Look(decimals=2),
    "Effective h": HOURS_LOOK,
    "Coverage": COVERAGE_LOOK,
}

ON_FIGURES = (
    "Completion: effective time over what was planned. Contact efficiency: effective over active time. Delivery ratio: the "
    "median of peak over set-point. Zone coverage: of the time meant for each zone. L/R symmetry: 100 % is the same time on "
    "both sides. Intensity: r.m.s. current as a part of the most that the profile allows; it is no measure of benefit."
)

USAGE = Dashboard(
    uid="microcurrent-usage",
    title="Usage",
    description="Who uses what, how long and how well: of sessions that were seen well enough.",
    variables=("model", "fw", "device_id"),
    shown_s=30 * 86_400,
    refresh_s=60,
    sections=(
        Section(
            "How much",
            (
                Panel(
                    "Sessions",
                    Kind.STAT,
                    (
                        of_groups(
                            "session",
                            {
                                "sessions": total("sessions"),
                                "completed": total("completions"),
                                "stopped by user": total("stopped_by_user"),
                                "output h": OUTPUT_H,
                                "coverage": COVERAGE,
                            },
                        ),
                    ),
                    "Sessions that are over. Completed: four fifths of what was planned and ended by itself, or all of it. Where "
                    "coverage is low, some will look less complete than they were.",
                    Unit.COUNT,
                    width=16,
                    height=4,
                    base=Level.IDLE,
                    looks={"output h": HOURS_LOOK, "coverage": COVERAGE_LOOK},
                    empty="no session with output is on record in this time",
                ),
                Panel(
                    "Left out of all figures below",
                    Kind.STAT,
                    (
                        Query(
                            {"sessions": total("sessions"), "mean coverage": mean("coverage")},
                            "session",
                            where=(Where("coverage", "<", COVERAGE_MIN),),
                        ),
                    ),
                    f"Sessions of which less than {COVERAGE_MIN:.0%} was seen: what they would say of use is not known.",
                    Unit.COUNT,
                    width=8,
                    height=4,
                    base=Level.UNKNOWN,
                    looks={"mean coverage": COVERAGE_LOOK},
                    empty="none on record",
                ),
                Panel(
                    "Sessions by day",
                    Kind.SERIES,
                    (
                        Query(
                            {
                                "sessions": total("sessions"),
                                "completed": total("completions"),
                                "stopped by user": total("stopped_by_user"),
                            },
                            "session",
                            step=DAY_MS,
                        ),
                    ),
                    "Sessions that are over, by the day (UTC) on which they began. A session whose data are still in a phone "
                    "is not yet in it.",
                    Unit.COUNT,
                    width=24,
                    looks={"completed": Look(level=Level.OK), "stopped by user": Look(level=Level.WARNING)},
                    counted=True,
                    lowest=0,
                    empty="no session is on record in this time",
                ),
            ),
        ),
        Section(
            "How well",
            (
                Panel(
                    "Quality of use",
                    Kind.STAT,
                    (of_groups("session", FIGURES, where=WELL_SEEN),),
                    f"{ON_SEEN} {ON_FIGURES}",
                    width=24,
                    height=5,
                    looks=FIGURE_LOOKS,
                    empty=NONE_SEEN,
                ),
                Panel(
                    "Quality of use by model and firmware",
                    Kind.TABLE,
                    (
                        of_groups(
                            "session",
                            {"Sessions": total("sessions"), "Coverage": COVERAGE, **FIGURES},
                            by=("model", "fw"),
                            where=WELL_SEEN,
                        ),
                    ),
                    f"{ON_SEEN} {ON_FIGURES}",
                    width=24,
                    looks={"Coverage": COVERAGE_LOOK, **FIGURE_LOOKS},
                    empty=NONE_SEEN,
                ),
                Panel(
                    "Signs of discomfort, by model and firmware",
                    Kind.TABLE,
                    (of_groups("session", COMFORT, by=("model", "fw"), where=WELL_SEEN),),
                    "How often the level was turned down or the session stopped by the user, per 10 min of effective time. "
                    f"{ON_SEEN} A firmware that was never effective is not listed here, but above.",
                    width=24,
                    height=7,
                    looks=COMFORT_LOOKS,
                    empty="no effective time was seen well enough to say",
                ),
                Panel(
                    "Quality by day",
                    Kind.SERIES,
                    (
                        of_groups(
                            "session",
                            {
                                "coverage": COVERAGE,
                                "contact efficiency": EFFICIENCY,
                                "delivery ratio": median("delivery_ratio"),
                                "zone coverage": mean("zone_coverage"),
                                "L/R symmetry": mean("symmetry"),
                            },
                            where=WELL_SEEN,
                            step=DAY_MS,
                        ),
                    ),
                    f"{ON_SEEN} By the day (UTC) on which they began.",
                    Unit.FRACTION,
                    looks={"coverage": Look(level=Level.UNKNOWN, dashed=True)},
                    gap_ms=DAY_MS,
                    lowest=0,
                    empty=NONE_SEEN,
                ),
                Panel(
                    "Time by zone",
                    Kind.BARS,
                    (Query({zone_words(zone): total(ZONE_FIELDS[zone]) for zone in Zone}, "session", where=WELL_SEEN),),
                    f"Effective time by zone. {ON_SEEN} The zone is told by program or user, not sensed; 'unassigned' is time "
                    "without one, and is not spread over the others.",
                    Unit.SECOND,
                    base=Level.INFO,
                    decimals=0,
                    lowest=0,
                    empty=NONE_SEEN,
                ),
            ),
        ),
        Section(
            "How steadily",
            (
                Panel(
                    "Adherence",
                    Kind.STAT,
                    (
                        Query(
                            {
                                "adherence": mean("adherence"),
                                "completed": total("completions"),
                                "prescribed": total("prescribed"),
                            },
                            "week",
                            back_ms=USE_BACK_MS,
                            narrowed=("model", "device_id"),
                        ),
                    ),
                    "Of the four weeks before the end of what is shown: the mean over devices and weeks (from Monday, UTC) of "
                    "completed over prescribed sessions, at most 100 % each, so that over-use does not make up for others. The week that is running counts as it stands. A "
                    "session that was not seen counts as not done: read it with the coverage above.",
                    Unit.COUNT,
                    width=12,
                    height=4,
                    base=Level.IDLE,
                    looks={"adherence": good_from(ADHERENCE_MIN)},
                    empty=NO_WEEK,
                ),
                Panel(
                    "Streaks and courses",
                    Kind.STAT,
                    (
                        Query(
                            {"mean streak": mean("streak"), "longest streak": highest("streak")},
                            Query(
                                {"streak": last("streak_weeks")}, "week", by=("device_id",), back_ms=USE_BACK_MS,
                                narrowed=("model", "device_id"),
                            ),
                            back_ms=USE_BACK_MS,
                        ),
                        Query(
                            {"course progress": mean("done") / COURSE_SESSIONS},
                            Query(
                                {"done": highest("course_sessions")}, "week", by=("device_id",), back_ms=USE_BACK_MS,
                                narrowed=("model", "device_id"),
                            ),
                            back_ms=USE_BACK_MS,
                        ),
                        Query(
                            {"courses done": count("done")},
                            Query(
                                {"done": highest("course_sessions")}, "week", by=("device_id",), back_ms=USE_BACK_MS,
                                narrowed=("model", "device_id"),
                            ),
                            back_ms=USE_BACK_MS,
                            where=(Where("done", ">=", COURSE_SESSIONS),),
                        ),
                    ),
                    f"Streak: weeks in a row of {ADHERENCE_MIN:.0%} adherence or more. A course is {COURSE_SESSIONS} completed "
                    "sessions; progress beyond it counts on. Of devices with a week on record in the four weeks before the "
                    "end of what is shown.",
                    Unit.WEEK,
                    width=12,
                    height=4,
                    base=Level.IDLE,
                    decimals=1,
                    looks={
                        "course progress": PLAIN_FRACTION,
                        "courses done": Look(unit=Unit.COUNT, decimals=0),
                    },
                    empty=NO_WEEK,
                ),
                Panel(
                    "Adherence by week",
                    Kind.SERIES,
                    (
                        Query(
                            {"adherence": mean("adherence")},
                            "week",
                            step=DAY_MS,
                            narrowed=("model", "device_id"),
                        ),
                    ),
                    "A point at the Monday (UTC) of each week; the latest is of a week that is not over.",
                    Unit.FRACTION,
                    thresholds=(Threshold(0, Level.IDLE), Threshold(ADHERENCE_MIN, Level.OK, "counts for a streak")),
                    gap_ms=8 * DAY_MS,
                    lowest=0,
                    highest=1,
                    empty="no week began in this time; choose a longer one",
                ),
                Panel(
                    "Devices that fall behind",
                    Kind.TABLE,
                    (
                        Query(
                            {
                                "Behind": total("prescribed") - total("completions"),
                                "Completed": total("completions"),
                                "Prescribed": total("prescribed"),
                                "Adherence": mean("adherence"),
                                "Streak": last("streak_weeks"),
                                "Of the course": last("course_sessions"),
                                "Output": total("output_s"),
                            },
                            "week",
                            by=("device_id",),
                            back_ms=USE_BACK_MS,
                            narrowed=("model", "device_id"),
                        ),
                    ),
                    "Prescribed less completed sessions of the four weeks before the end of what is shown, the most first, up "
                    "to 50 devices. A negative number is over-use. A "
                    "device whose phone is away looks the same as one that is not used.",
                    looks={
                        "Device": Look(link=TO_DEVICE),
                        "Adherence": good_from(ADHERENCE_MIN),
                        "Streak": Look(unit=Unit.WEEK),
                        "Output": Look(unit=Unit.SECOND, decimals=0),
                    },
                    sort="Behind",
                    limit=50,
                    empty=NO_WEEK,
                ),
            ),
        ),
    ),
)
