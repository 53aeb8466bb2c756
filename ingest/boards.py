"""The dashboards as the local page asks for them: how each panel looks, and what it shows now."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

from dashboards.catalogue import DASHBOARD, DASHBOARDS
from dashboards.panel import TAG_TITLES, Dashboard, Kind, Panel, has_step, step_ms
from dashboards.query import DAY_MS, FILTERS, Combined, Limit, Query, Rows, Term, View, narrowest_ms, sql
from ingest.errors import Mistake, Unavailable
from schemas.measurements import DEVICE

POINTS, FEWEST_POINTS, MOST_POINTS = 400, 10, 1_000
MOST_SPAN_MS = 731 * DAY_MS
LATEST_MS = 4_102_444_800_000
MOST_CHOSEN = 100
MOST_NAME = 128
MOST_VALUES = 40_000
MOST_SERIES = 40
MOST_ROWS = 2_000
MOST_ALERTS = 300
LIMITS_BACK_MS = 30 * DAY_MS

ELSEWHERE = "this worker writes to InfluxDB; its dashboards are in Grafana"

Found = tuple[list[str], list[tuple]]
"""Titles of columns, and rows."""


class Reader(Protocol):
    """A store's reader for one thread; `stop` ends what it reads, from any thread."""

    def rows(self, statement: str, parameters: Mapping[str, Any], most: int) -> Found: ...

    def stop(self) -> None: ...


# -- how they look ---------------------------------------------------------------------------------


def listed() -> dict[str, Any]:
    """All dashboards in the order in which they are offered."""
    return {"dashboards": [_about(dashboard) for dashboard in DASHBOARDS]}


def definition(uid: str) -> dict[str, Any]:
    """Sections of panels in reading order. Unknown names are a Mistake."""
    dashboard = dashboard_of(uid)
    sections = [{"title": s.title, "panels": [_look(panel) for panel in s.panels]} for s in dashboard.sections]
    return {**_about(dashboard), "sections": sections}


def dashboard_of(uid: str) -> Dashboard:
    if uid not in DASHBOARD:
        raise Mistake(f"there is no dashboard {uid!r}; known are {', '.join(DASHBOARD)}")
    return DASHBOARD[uid]


def _about(dashboard: Dashboard) -> dict[str, Any]:
    return {f.name: getattr(dashboard, f.name) for f in fields(Dashboard) if f.name != "sections"}


def _look(panel: Panel) -> dict[str, Any]:
    """All of a panel but what it asks."""
    return {f.name: getattr(panel, f.name) for f in fields(Panel) if f.name != "queries"}


# -- what is asked ---------------------------------------------------------------------------------


def read_view(dashboard: Dashboard, words: Sequence[tuple[str, str]], now_ms: int) -> View:
    """What a person looks at, from the words of an address. Unusable ones are a Mistake."""
    single: dict[str, str] = {}
    chosen: dict[str, list[str]] = {}
    for word, text in words:
        if word in FILTERS:
            _choose(dashboard, chosen, word, text)
        elif word in ("from_ms", "to_ms", "points"):
            single[word] = text
        else:
            raise Mistake(f"{word!r} is not something a dashboard is asked for; known are from_ms, to_ms, points, {', '.join(FILTERS)}")
    to_ms = _whole("to_ms", single.get("to_ms"), now_ms, 0, LATEST_MS)
    from_ms = _whole("from_ms", single.get("from_ms"), max(0, to_ms - dashboard.shown_s * 1000), 0, LATEST_MS)
    points = _whole("points", single.get("points"), POINTS, FEWEST_POINTS, MOST_POINTS)
    if from_ms >= to_ms:
        raise Mistake(f"from_ms {from_ms} is not before to_ms {to_ms}; exchange them")
    if to_ms - from_ms > MOST_SPAN_MS:
        raise Mistake(f"the time from from_ms to to_ms is longer than {MOST_SPAN_MS // DAY_MS} days; choose a shorter one")
    if dashboard.single and len(chosen.get(dashboard.single, ())) != 1:
        raise Mistake(f"{dashboard.title} shows one device at a time; name it as {dashboard.single}")
    return View(from_ms, to_ms, step_ms(to_ms - from_ms, points), chosen)


def _choose(dashboard: Dashboard, chosen: dict[str, list[str]], tag: str, value: str) -> None:
    if tag not in dashboard.variables and tag != dashboard.single:
        raise Mistake(f"{dashboard.title} is not chosen by {tag}")
    values = chosen.setdefault(tag, [])
    if not 1 <= len(value) <= MOST_NAME:
        raise Mistake(f"{tag} has 1 to {MOST_NAME} characters")
    if len(values) >= MOST_CHOSEN:
        raise Mistake(f"more than {MOST_CHOSEN} times {tag}; leave it out to see all")
    values.append(value)


def _whole(word: str, text: str | None, default: int, low: int, high: int) -> int:
    if text is None:
        return default
    if not (text.isdecimal() and text.isascii() and low <= int(text[:16]) <= high):
        raise Mistake(f"{word} {text[:32]!r} is unusable; it is a whole number from {low} to {high}")
    return int(text)


# -- what is shown ---------------------------------------------------------------------------------


def results(dashboard: Dashboard, view: View, reader: Reader) -> dict[str, Any]:
    """What each panel shows, in reading order; one that fails says so in a sentence, and the others go on."""
    view = view._replace(limits=_limits(dashboard, view, reader))
    panels = [_result(panel, view, reader) for panel in dashboard.panels()]
    return {
        "from_ms": view.from_ms, "to_ms": view.to_ms, "step_ms": view.step_ms, "limits": view.limits, "panels": panels,
    }  # fmt: skip


def _limits(dashboard: Dashboard, view: View, reader: Reader) -> dict[str, float]:
    """What the profile of the one chosen device allows; what is not bounded or not known is absent."""
    devices = view.chosen.get("device_id", ())
    if not dashboard.limits or len(devices) != 1:
        return {}
    columns = ", ".join(f'arg_max("{name}", time_ns) AS "{name}"' for name in dashboard.limits)
    named, rows = reader.rows(
        f'SELECT {columns} FROM "{DEVICE.name}" WHERE device_id = $device_id AND time_ns > $from_ns AND time_ns <= $to_ns',
        {"device_id": devices[0], "from_ns": (view.to_ms - LIMITS_BACK_MS) * 1_000_000, "to_ns": view.to_ms * 1_000_000},
        1,
    )
    return {name: value for name, value in zip(named, rows[0], strict=True) if value is not None}


def _result(panel: Panel, view: View, reader: Reader) -> dict[str, Any]:
    try:
        if panel.kind in (Kind.SERIES, Kind.STATES):
            return {"lines": [_lines(query, view, reader) for query in panel.queries if isinstance(query, Query)]}
        return _table(panel, view, reader)
    except Unavailable as error:
        return {"error": str(error)}


def _read(query: Query | Rows, view: View, reader: Reader) -> Found:
    asked = sql(query, view)
    titles, rows = reader.rows(asked.text, asked.parameters, MOST_VALUES + 1)
    if len(rows) > MOST_VALUES:
        raise Unavailable(f"this is more than {MOST_VALUES:,} values; choose fewer devices or a shorter time")
    return titles, rows


def _lines(query: Query, view: View, reader: Reader) -> dict[str, Any]:
    """Series on one scale of time; a time at which a series has no value is null in it."""
    titles, rows = _read(query, view, reader)
    times = sorted({row[0] for row in rows})
    place = {at: n for n, at in enumerate(times)}
    tags = len(query.by)
    unknown = {title for title, term in query.columns.items() if not _limits_of(term) <= set(view.limits)}
    series: dict[tuple, dict[str, Any]] = {}
    for at, *rest in rows:
        group = tuple(rest[:tags])
        for title, value in zip(titles[1 + tags :], rest[tags:], strict=True):
            line = series.get((group, title))
            if line is None:
                name = " ".join(str(tag) for tag in group) if tags else title
                line = series[group, title] = {
                    "name": name, "column": title, "tags": dict(zip(query.by, group, strict=True)), "values": [None] * len(times),
                }  # fmt: skip
            line["values"][place[at]] = None if title in unknown else value
    shown = sorted(series.values(), key=_size, reverse=True)[:MOST_SERIES] if len(series) > MOST_SERIES else list(series.values())
    if tags:
        shown.sort(key=lambda line: line["name"])
    step = max(view.step_ms, narrowest_ms(query)) if has_step(query) else query.step
    return {"times": times, "series": shown, "of": len(series), "step_ms": step}


def _size(line: dict[str, Any]) -> float:
    return max((value for value in line["values"] if isinstance(value, int | float)), default=float("-inf"))


def _limits_of(term: Term) -> set[str]:
    if isinstance(term, Combined):
        return _limits_of(term.left) | _limits_of(term.right)
    return {term.field} if isinstance(term, Limit) else set()


def _table(panel: Panel, view: View, reader: Reader) -> dict[str, Any]:
    """One table of all queries, joined by the tags that they share; `tags` says which column is which tag."""
    columns: list[str] = []
    tags: dict[str, str] = {}
    rows: dict[tuple, dict[str, Any]] = {}
    shared = _shared_tags(panel)
    for number, query in enumerate(panel.queries):
        titles, found = _read(query, view, reader)
        named = [TAG_TITLES.get(title, title) if isinstance(query, Query) and title in query.by else title for title in titles]
        columns += [title for title in named if title not in columns]
        tags |= _tags_of(query)
        keys = [titles.index(tag) for tag in shared]
        for at, row in enumerate(found):
            key = tuple(row[k] for k in keys) if shared or not isinstance(query, Rows) else (number, at)
            rows.setdefault(key if len(panel.queries) > 1 else (at,), {}).update(zip(named, row, strict=True))
    listed = [[row.get(title) for title in columns] for row in rows.values()]
    if panel.sort in columns:
        by = columns.index(panel.sort)
        listed.sort(key=lambda row: (row[by] is not None, row[by] if row[by] is not None else 0), reverse=True)
    most = min(panel.limit or MOST_ROWS, MOST_ROWS)
    return {"columns": columns, "tags": tags, "rows": listed[:most], "of": len(listed)}


def _shared_tags(panel: Panel) -> list[str]:
    queries = [query for query in panel.queries if isinstance(query, Query)]
    return [tag for tag in queries[0].by if all(tag in query.by for query in queries)] if queries else []


def _tags_of(query: Query | Rows) -> dict[str, str]:
    if isinstance(query, Query):
        return {TAG_TITLES.get(tag, tag): tag for tag in query.by}
    return {title: name for title, name in query.columns.items() if name in TAG_TITLES}

