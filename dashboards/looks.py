"""What levels and units are in Grafana: colours that read in its light and its dark theme, and unit ids."""

import re
from collections.abc import Mapping

from dashboards.panel import TAG_TITLES, Kind, Level, Look, Panel, Threshold, Unit
from dashboards.query import Of, Query, Rows

COLOUR: Mapping[Level, str] = {
    Level.OK: "semi-dark-green",
    Level.IDLE: "#8c96a0",
    Level.OFF: "#6b757f",
    Level.INFO: "semi-dark-blue",
    Level.UNKNOWN: "purple",
    Level.SILENT: "dark-purple",
    Level.WARNING: "semi-dark-orange",
    Level.CRITICAL: "semi-dark-red",
    Level.LIMIT: "text",
}
"""Grafana's own names follow the theme; `text` is what writing has. Each level has one, and no two share it."""

NOTHING_KNOWN = "text"
"""Of what no threshold or meaning speaks: not green, for it is not known to be well."""

UNIT_ID: Mapping[Unit, str] = {
    Unit.NONE: "none",
    Unit.COUNT: "locale",
    Unit.FRACTION: "percentunit",
    Unit.MICROAMPERE: "suffix:µA",
    Unit.MILLIVOLT: "suffix:mV",
    Unit.OHM: "ohm",
    Unit.CELSIUS: "celsius",
    Unit.SECOND: "s",
    Unit.MILLISECOND_TIME: "dateTimeAsIsoNoDateIfToday",
    Unit.HERTZ: "hertz",
    Unit.MILLICOULOMB: "suffix:mC",
    Unit.PER_SECOND: "suffix:/s",
    Unit.PER_100_H: "suffix:per 100 h",
    Unit.MEGABYTE: "decmbytes",
    Unit.WEEK: "suffix:weeks",
}
"""Grafana scales `ohm`, `s` and `hertz` as people do (kΩ, min); what it would scale wrongly has a fixed suffix."""

TIME_COLUMN = "Time"
"""What Grafana calls the time of a row."""

TAG_NAMES: Mapping[str, str] = {title: tag for tag, title in TAG_TITLES.items()}


def steps(thresholds: tuple[Threshold, ...], base: Level | None) -> list[tuple[float | None, str]]:
    """From which value on (None: from the lowest) which colour."""
    first = COLOUR[base] if base is not None else NOTHING_KNOWN
    return [(None, first), *((t.value, COLOUR[t.level]) for t in sorted(thresholds, key=lambda t: t.value))]


def grouped(query: Query | Rows) -> tuple[str, ...]:
    """The tags of which Grafana's table has a column by their own names."""
    return query.by if isinstance(query, Query) else ()


def column_of(query: Query | Rows, key: str) -> str | None:
    """The column of Grafana's table that a title means."""
    tag = TAG_NAMES.get(key, key)
    return tag if tag in grouped(query) else key if key in query.columns else None


def columns_of(query: Query | Rows) -> list[str]:
    """The columns of Grafana's table, less `Time`: tags first, then titles."""
    return [*grouped(query), *query.columns]


def tag_columns(query: Query | Rows) -> dict[str, str]:
    """Which column holds which tag."""
    named = {title: term.field if isinstance(term, Of) else term for title, term in query.columns.items()}
    return {name: title for title, name in named.items() if isinstance(name, str) and name in TAG_TITLES} | {tag: tag for tag in grouped(query)}


def value_columns(panel: Panel) -> list[str]:
    """Titles that are shown as values: not tags, not hidden."""
    shown: list[str] = []
    for query in panel.queries:
        shown += [title for title in query.columns if not panel.looks.get(title, Look()).hidden and title not in shown]
    return shown


def only(names: list[str]) -> str:
    """Grafana's way to choose fields by name: a regular expression between slashes."""
    return "/^(?:" + "|".join(re.sub(r"([.*+?^${}()|\[\]\\/])", r"\\\1", name) for name in names) + ")$/"


def column_unit(panel: Panel, column: str) -> Unit:
    own = panel.looks.get(column, Look()).unit
    return panel.unit if own is None else own


def time_columns(panel: Panel, query: Query | Rows) -> list[str]:
    return [title for title in query.columns if column_unit(panel, title) is Unit.MILLISECOND_TIME]


def over_time(panel: Panel) -> bool:
    return panel.kind in (Kind.SERIES, Kind.STATES)


def by_group(panel: Panel) -> bool:
    return any(tag_columns(query) for query in panel.queries)
