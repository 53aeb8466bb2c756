"""The same points in a real InfluxDB and in DuckDB, and the same question put to both."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dashboards.query import NS_PER_MS, Query, Rows, View, filled, influxql, narrowest_ms, sql
from ingest.points import Entry, pack
from ingest.settings import Settings
from ingest.sinks.duckdb import DuckDBSink
from ingest.sinks.influx import InfluxSink
from schemas.measurements import Point
from tests.servers import InfluxDB
from tests.system.line import influx_settings

BATCH = 5_000

Row = dict[str, Any]


def entry(number: int, point: Point) -> Entry:
    """A point of the line's own, as the outbox holds it."""
    return Entry(number, point.tags[0], None, None, 0, 0, True, pack(point))


class Both:
    """Two stores that are given the same, each through its own sink."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.influxdb = InfluxDB(directory / "influxdb")
        self.duckdb = DuckDBSink(directory)
        self._written = 0

    def __enter__(self) -> Self:
        self.influxdb.start()
        self._sink = InfluxSink(Settings(**influx_settings(self.influxdb)))
        self.duckdb.open("test")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sink.close()
        self.duckdb.close()
        self.influxdb.__exit__(kind, error, trace)

    def write_points(self, points: Iterable[Point]) -> None:
        self.write([entry(self._written + n, point) for n, point in enumerate(points, 1)])

    def write(self, entries: Sequence[Entry]) -> None:
        self._written += len(entries)
        for start in range(0, len(entries), BATCH):
            some = list(entries[start : start + BATCH])
            assert ([], []) == (self._sink.write(some), self.duckdb.write(some))

    def in_influxdb(self, query: Query | Rows, view: View) -> list[Row]:
        view = view._replace(step_ms=max(view.step_ms, narrowest_ms(query)))  # what a panel's `least_ms` does in Grafana
        return _told(query, self.influxdb.query(filled(influxql(query), view)), NS_PER_MS)

    def in_duckdb(self, query: Query | Rows, view: View) -> list[Row]:
        statement = sql(query, view)
        cursor = self.duckdb._db.cursor()
        rows = cursor.execute(statement.text, statement.parameters).fetchall()
        titles = [column[0] for column in cursor.description]
        return _told(query, [dict(zip(titles, row, strict=True)) for row in rows], 1)

    def agree(self, query: Query | Rows, view: View) -> list[Row]:
        """What both say, which must be the same; fails where it is not."""
        one, other = self.in_influxdb(query, view), self.in_duckdb(query, view)
        told = f"{view}\n{filled(influxql(query), view)}\n{sql(query, view)}"
        assert [list(row) for row in one] == [list(row) for row in other], told
        for left, right in zip(one, other, strict=True):
            different = {title: (left[title], right[title]) for title in left if not same(left[title], right[title])}
            assert {} == different, f"{left}\n{told}"
        return other


def same(left: Any, right: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (left, right))
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12) if numbers else type(left) is type(right) and left == right


def _told(query: Query | Rows, rows: list[Row], per_ms: int) -> list[Row]:
    """Rows with something in them. Groups are in no order that both promise; single rows are in that of time."""
    keys = () if isinstance(query, Rows) else query.by
    timed = isinstance(query, Rows) or query.step is not None
    found = [
        ({"time": row["time"] // per_ms} if timed else {}) | {name: row[name] for name in (*keys, *query.columns)}
        for row in rows
        if any(row[title] is not None for title in query.columns)
    ]
    if isinstance(query, Rows):
        return found
    return sorted(found, key=lambda row: [str(row[name]) for name in (*(("time",) if timed else ()), *keys)])
