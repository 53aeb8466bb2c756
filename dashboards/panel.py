"""Panels and dashboards: what is shown, in words, units, limits and colours that mean something."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dashboards.query import Query, Rows, Step, narrowest_ms


class Kind(StrEnum):
    SERIES = "series"
    """Lines over time; a gap in the readings is a gap in the line."""

    STAT = "stat"
    """A few large numbers."""

    TABLE = "table"
    BARS = "bars"
    """One bar for each column, or each group."""

    STATES = "states"
    """What holds when, in a lane for each column or group."""

    TILES = "tiles"
    """One coloured tile for each group."""


class Level(StrEnum):
    """What a colour means; nothing is green that is not known to be well."""

    OK = "ok"
    IDLE = "idle"
    OFF = "off"
    INFO = "info"
    UNKNOWN = "unknown"
    SILENT = "silent"
    WARNING = "warning"
    CRITICAL = "critical"
    LIMIT = "limit"


class Unit(StrEnum):
    """The units of quantities, as people read them."""

    NONE = ""
    COUNT = "count"
    FRACTION = "0–1 as %"
    MICROAMPERE = "µA"
    MILLIVOLT = "mV"
    OHM = "Ω"
    CELSIUS = "°C"
    SECOND = "s"
    MILLISECOND_TIME = "ms since 1970"
    HERTZ = "Hz"
    MILLICOULOMB = "mC"
    PER_SECOND = "per second"
    PER_100_H = "per 100 h"
    MEGABYTE = "MB"
    WEEK = "weeks"


@dataclass(frozen=True, slots=True)
class Threshold:
    """From `value` on, `level`. Where a panel has thresholds, what lies below the first is `base` of the panel."""

    value: float
    level: Level
    name: str = ""


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a value is shown."""

    text: str
    level: Level


@dataclass(frozen=True, slots=True)
class Link:
    """Another dashboard, for the row's tags and about its time. `around_ms` is what is shown before and after."""

    uid: str
    title: str
    around_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How one column or series is shown, where it differs from its panel."""

    unit: Unit | None = None
    level: Level | None = None
    meanings: Mapping[str | int, Meaning] = field(default_factory=dict)
    thresholds: tuple[Threshold, ...] = ()
    link: Link | None = None
    dashed: bool = False
    decimals: int | None = None
    wide: bool = False
    hidden: bool = False
    right_axis: bool = False


TAG_TITLES = {"device_id": "Device", "model": "Model", "fw": "Firmware", "rule": "Rule", "reason": "Reason", "kind": "Kind"}
"""How tags are called where people read them."""

WHOLE_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One thing worth knowing, `width` of 24 wide and `height` rows of 30 px high.

    `looks` are by the title of a column or tag. `gap_ms`: readings further apart are not joined. `counted`: each bucket
    is a sum of its own, and one without rows had none on record. Tables are
    sorted by `sort` (descending) and cut to `limit` rows. `empty` is said when there is nothing, and must not
    sound as if that were well unless it is.
    """

    title: str
    kind: Kind
    queries: tuple[Query | Rows, ...]
    description: str
    unit: Unit = Unit.NONE
    width: int = 12
    height: int = 8
    thresholds: tuple[Threshold, ...] = ()
    base: Level = Level.OK
    meanings: Mapping[str | int, Meaning] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    gap_ms: int | None = None
    stacked: bool = False
    counted: bool = False
    sort: str | None = None
    limit: int | None = None
    lowest: float | None = None
    highest: float | None = None
    decimals: int | None = None
    logarithmic: bool = False
    empty: str = "no data in this time"

    def __post_init__(self) -> None:
        for query in self.queries:
            over_time = isinstance(query, Query) and query.step is not None
            if over_time != (self.kind in (Kind.SERIES, Kind.STATES)):
                raise ValueError(f"'{self.title}': lines and states are over time, and nothing else is")
            if isinstance(query, Query) and over_time and query.by and len(query.columns) > 1:
                raise ValueError(f"'{self.title}': a series is named by its tags or by its column, not by both")
            if isinstance(query, Rows) and self.kind is not Kind.TABLE:
                raise ValueError(f"'{self.title}': rows make a table")
        titles = {title for query in self.queries for title in titles_of(query)}
        for title in (*self.looks, *([self.sort] if self.sort else [])):
            if title not in titles:
                raise ValueError(f"'{self.title}': there is no column '{title}'")

    @property
    def least_ms(self) -> int:
        """The narrowest step at which its queries tell the truth."""
        return max((narrowest_ms(query) for query in self.queries), default=0)


def titles_of(query: Query | Rows) -> list[str]:
    """What its columns are called where people read them: tags first."""
    tags = query.by if isinstance(query, Query) else ()
    return [TAG_TITLES[tag] for tag in tags] + list(query.columns)


@dataclass(frozen=True, slots=True)
class Section:
    """Panels that belong together, in reading order, under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`variables` are those of FILTERS that a person can choose by; `single` is one that is always chosen.

    `limits` are fields of `device` that its panels draw for the chosen device. With `annotated`, the alerts
    of what is chosen are drawn into all panels over time.
    """

    uid: str
    title: str
    description: str
    sections: tuple[Section, ...]
    variables: tuple[str, ...] = ()
    single: str | None = None
    limits: tuple[str, ...] = ()
    annotated: bool = False
    shown_s: int = 6 * 3600
    refresh_s: int = 10

    def __post_init__(self) -> None:
        for panel in self.panels():
            for query in panel.queries:
                if strange := set(narrowed_by(query)) - set(self.variables):
                    raise ValueError(f"'{self.title}', '{panel.title}': narrowed by {sorted(strange)}, which nobody can choose")

    def panels(self) -> Iterator[Panel]:
        for section in self.sections:
            yield from section.panels


def places(dashboard: Dashboard) -> list[tuple[Section | Panel, int, int, int, int]]:
    """Where everything stands, (x, y, width, height) in a grid 24 wide: row by row, in reading order."""
    placed: list[tuple[Section | Panel, int, int, int, int]] = []
    y = 0
    for section in dashboard.sections:
        placed.append((section, 0, y, WHOLE_WIDTH, 1))
        y += 1
        x, tallest = 0, 0
        for panel in section.panels:
            if x + panel.width > WHOLE_WIDTH:
                x, y, tallest = 0, y + tallest, 0
            placed.append((panel, x, y, panel.width, panel.height))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed


STEPS_MS = (
    1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000,
    21_600_000, 86_400_000, 604_800_000,
)  # fmt: skip


def step_ms(span_ms: int, points: int) -> int:
    """The narrowest step with which a span has no more than so many points."""
    return next((s for s in STEPS_MS if s * points >= span_ms), max(STEPS_MS[-1], math.ceil(span_ms / points)))


def narrowed_by(query: Query | Rows) -> tuple[str, ...]:
    """The FILTERS that the query, or the one within it, follows."""
    return narrowed_by(query.source) if isinstance(query.source, Query) else query.narrowed


def has_step(query: Query | Rows) -> bool:
    """Whether the query follows the width of the screen."""
    return isinstance(query, Query) and (query.step is Step.AUTO or (isinstance(query.source, Query) and has_step(query.source)))
