"""What several dashboards have in common: how workers are added up, how guarded quotients are made, what colours mean."""

from collections.abc import Mapping

from dashboards.panel import Kind, Level, Link, Look, Meaning, Panel, Threshold, Unit
from dashboards.query import (
    DAY_MS,
    FILTERS,
    Of,
    Query,
    Step,
    Term,
    Where,
    above_zero,
    aggregates,
    combine,
    divisors,
    highest,
    last,
    lowest,
    total,
)
from schemas.alerts import Severity
from schemas.limits import GAP_MS
from schemas.measurements import STATES
from schemas.messages import Zone
from schemas.sessions import COVERAGE_MIN

HOUR_MS = 3_600_000
HOUR_S = 3_600.0

WORKER_STEP_MS = 30_000
"""Workers report every ten seconds: narrower buckets would miss one or the other."""

NOW_MS = 120_000
"""What a worker reported longer ago is not now."""

DEVICE_NOW_MS = 3 * HOUR_MS
"""Every device has a point an hour, heard or not: one without is not watched any more."""

ALL_ALERTS_MS = 400 * DAY_MS
"""How far back an alert may have begun that still waits for somebody."""

DEVICE_UID = "microcurrent-device"

STREAM_GAP_MS = GAP_MS
DEVICE_GAP_MS = 2 * HOUR_MS

ALERTING = (Threshold(0, Level.IDLE), Threshold(1, Level.CRITICAL))
WARNING_FROM_ONE = (Threshold(0, Level.IDLE), Threshold(1, Level.WARNING))
UNKNOWN_FROM_ONE = (Threshold(0, Level.IDLE), Threshold(1, Level.UNKNOWN))
SILENT_FROM_ONE = (Threshold(0, Level.IDLE), Threshold(1, Level.SILENT))
DELAYED = (Threshold(0, Level.IDLE), Threshold(NOW_MS / 2_000, Level.WARNING), Threshold(5 * NOW_MS / 2_000, Level.CRITICAL))
"""s behind: a minute is late, five are a blind spot; less is not green, for a fleet that has fallen silent is not behind either."""
SEEN = (Threshold(0, Level.UNKNOWN, "too little seen"), Threshold(COVERAGE_MIN, Level.IDLE))
"""Coverage: it makes a figure worth reading, and never green."""

BLIND_SPOTS = Look(meanings={0: Meaning("none known", Level.IDLE)}, thresholds=ALERTING)

UP = {1: Meaning("connected", Level.OK), 0: Meaning("LOST", Level.CRITICAL)}
STORE_UP = {1: Meaning("writing", Level.OK), 0: Meaning("NOT WRITING", Level.CRITICAL)}

STATE_MEANINGS = {state: Meaning(state, Level(state)) for state in STATES}
RANK_MEANINGS = {rank: Meaning(state, Level(state)) for rank, state in enumerate(STATES)}
SEVERITY_MEANINGS = {severity.value: Meaning(severity.value, Level(severity.value)) for severity in Severity}
YES_NO = {True: Meaning("yes", Level.IDLE), False: Meaning("no", Level.IDLE)}

TO_DEVICE = Link(DEVICE_UID, "Device")
TO_MOMENT = Link(DEVICE_UID, "Device, about that time", around_ms=HOUR_MS)

COVERAGE_LOOK = Look(unit=Unit.FRACTION, thresholds=SEEN, decimals=1)
HOURS_LOOK = Look(decimals=2)
RATE_LOOK = Look(unit=Unit.PER_100_H, decimals=2)
TIME_LOOK = Look(unit=Unit.MILLISECOND_TIME)
HIDDEN = Look(hidden=True)

SEVERITY_LOOKS = {severity.value: Look(level=Level(severity.value)) for severity in Severity}

COVERAGE = total("observed_s") / total("running_s")
"""Of the time in which devices ran, the part of which there are readings."""

OUTPUT_H = total("output_s") / HOUR_S


def per_100_h(name: str) -> Term:
    """How often something was, in 100 h with output on."""
    return total(name) / total("output_s") * (100 * HOUR_S)


SOURCES = {"fleet": (("device_id", "model", "fw"), ("model", "fw")), "pipeline": (("device_id",), ())}
"""What a worker reports: apart by which tags, and narrowed by which."""


def of_workers(
    source: str,
    columns: Mapping[str, Term],
    by: tuple[str, ...] = (),
    step: Step | None = None,
    having: tuple[Where, ...] = (),
) -> Query:
    """The workers' latest reports (in each bucket) taken together; a worker that is gone drops out of what is now."""
    apart, narrowed = SOURCES[source]
    fields = {of.field: last(of.field) for term in columns.values() for of in aggregates(term)}
    back_ms = None if step else NOW_MS
    inner = Query(fields, source, by=apart, step=step, back_ms=back_ms, narrowed=narrowed, least_ms=WORKER_STEP_MS)
    return Query(columns, inner, by=by, step=step, back_ms=back_ms, having=having)


def of_groups(
    source: str,
    columns: Mapping[str, Term],
    by: tuple[str, ...] = (),
    where: tuple[Where, ...] = (),
    only: Term | None = None,
    step: int | None = None,
    back_ms: int | None = None,
    narrowed: tuple[str, ...] = FILTERS,
) -> Query:
    """Quotients of aggregates, for each group in which none is divided by zero and `only`, if given, is above zero."""
    inside: dict[str, Term] = {_inner(of): of for term in columns.values() for of in aggregates(term)}
    renamed = {title: combine(term, lambda of: total(_inner(of))) for title, term in columns.items()}
    guards = _guards(renamed)
    if only is not None:
        inside["only"] = only
        guards += (above_zero("only"),)
    inner = Query(inside, source, by=by, where=where, step=step, back_ms=back_ms, narrowed=narrowed)
    return Query(renamed, inner, by=by, where=guards, step=step, back_ms=back_ms)


def _inner(of: Of) -> str:
    return f"{of.function}_{of.field}"


def _guards(columns: Mapping[str, Term]) -> tuple[Where, ...]:
    names = {d.field: None for term in columns.values() for d in divisors(term) if isinstance(d, Of)}
    return tuple(above_zero(name) for name in names)


def zone_words(zone: Zone) -> str:
    """As people read it: "under eye, left"."""
    name, sides = zone.value.replace("_", " "), {" l": ", left", " r": ", right"}
    return name[:-2] + sides[name[-2:]] if name[-2:] in sides else name


TRUST = Panel(
    "Can this picture be trusted?",
    Kind.STAT,
    (
        of_workers(
            "pipeline",
            {
                "blind spots": total("blind"),
                "broker": lowest("broker_connected"),
                "store": lowest("store_ok"),
                "delay until seen": highest("unseen_s"),
                "delay until stored": highest("outbox_age_s"),
                "messages missing": total("missing"),
            },
        ),
    ),
    "How many reasons the workers know why something cannot be seen; the alert pipeline-blind names them. Whether the workers "
    "hear the broker and write to the store; how far back the moment lies up to which they are sure to have seen everything, "
    "and up to which all of it is shown here; and how many messages devices numbered that have not come. The worst worker "
    "counts. What is missing may hold a danger that nobody has seen.",
    Unit.COUNT,
    width=24,
    height=4,
    looks={
        "blind spots": BLIND_SPOTS,
        "broker": Look(unit=Unit.NONE, meanings=UP),
        "store": Look(unit=Unit.NONE, meanings=STORE_UP),
        "delay until seen": Look(unit=Unit.SECOND, thresholds=DELAYED, decimals=0),
        "delay until stored": Look(unit=Unit.SECOND, thresholds=DELAYED, decimals=0),
        "messages missing": Look(thresholds=UNKNOWN_FROM_ONE),
    },
    empty="NO: no worker has reported for two minutes; nothing on this page is current",
)
