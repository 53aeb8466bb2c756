"""What a panel asks, written once: compiled to InfluxQL for Grafana, and to SQL for the local page.

Both give the same rows for the same readings. The InfluxQL holds Grafana's own macros; `filled` puts
values in their place as Grafana does, so that the very text can be tried.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from schemas.measurements import MEASUREMENTS, Kind

NS_PER_MS = 1_000_000
DAY_MS = 86_400_000

LONG = "long"
"""The retention policy under which InfluxQL finds measurements that are `lasting`."""

FILTERS = ("model", "fw", "device_id")
"""Tags by which a person narrows what is shown; dashboards have a variable of that name for each."""

Value = str | int | float | bool


class Step(Enum):
    """How wide a bucket of time is, other than a fixed number of ms."""

    AUTO = "as wide as a point on the screen"


class Term:
    """A number for each group of rows; terms can be added, subtracted, multiplied and divided."""

    def __add__(self, other: "Term | float") -> "Term":
        return Combined("+", self, _term(other))

    def __sub__(self, other: "Term | float") -> "Term":
        return Combined("-", self, _term(other))

    def __mul__(self, other: "Term | float") -> "Term":
        return Combined("*", self, _term(other))

    def __truediv__(self, other: "Term | float") -> "Term":
        return Combined("/", self, _term(other))


@dataclass(frozen=True, slots=True)
class Number(Term):
    value: float


@dataclass(frozen=True, slots=True)
class Combined(Term):
    """Two terms and one of + - * /. Nothing may be divided by what can be zero (see Query)."""

    sign: str
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Of(Term):
    """An aggregate of one field of the source (or, over another query, of one of its columns)."""

    function: str
    field: str


@dataclass(frozen=True, slots=True)
class Limit(Term):
    """What the profile of the chosen device allows, as its latest `device` point has it; 0 if there is none."""

    field: str


def _term(value: Term | float) -> Term:
    return value if isinstance(value, Term) else Number(value)


def mean(name: str) -> Of:
    return Of("mean", name)


def total(name: str) -> Of:
    return Of("sum", name)


def count(name: str) -> Of:
    """How many rows have the field."""
    return Of("count", name)


def highest(name: str) -> Of:
    return Of("max", name)


def lowest(name: str) -> Of:
    return Of("min", name)


def median(name: str) -> Of:
    return Of("median", name)


def last(name: str) -> Of:
    """The latest value; the only aggregate beside `first` of text and truth values."""
    return Of("last", name)


def first(name: str) -> Of:
    return Of("first", name)


def spread(name: str) -> Of:
    """Highest less lowest: how far a counter has come."""
    return Of("spread", name)


def newest(name: str) -> Of:
    """The field or tag as the newest row of the group has it, even if it has none. It stands alone, and not beside others."""
    return Of(NEWEST, name)


NEWEST = "newest"

_SQL_OF = {
    NEWEST: "arg_max_null({0}, time_ns)",
    "mean": "avg({0})",
    "sum": "sum({0})",
    "count": "nullif(count({0}), 0)",
    "max": "max({0})",
    "min": "min({0})",
    "median": "median({0})",
    "last": "arg_max({0}, time_ns) FILTER (WHERE {0} IS NOT NULL)",
    "first": "arg_min({0}, time_ns) FILTER (WHERE {0} IS NOT NULL)",
    "spread": "(max({0}) - min({0}))",
}
_NEEDS_TIME = ("last", "first", NEWEST)


SIGNS = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Where:
    """A condition on a tag, field or column; a row that lacks it does not meet it."""

    name: str
    sign: str
    value: Value

    def __post_init__(self) -> None:
        if self.sign not in (SIGNS[:2] if isinstance(self.value, str | bool) else SIGNS):
            raise ValueError(f"'{self.name} {self.sign} {self.value}': no such comparison")


def above_zero(name: str) -> Where:
    """What a quotient needs of what it divides by."""
    return Where(name, ">", 0)


@dataclass(frozen=True, slots=True)
class Query:
    """Columns by title, each an aggregate over the rows of each group.

    `source` is a measurement or another query. Groups are made `by` tags and, with a `step`, by buckets of
    time (ms, or as wide as fits). `back_ms` looks that far back from the end of what is shown, instead of at
    the range that is shown: for what is true now and may have begun long ago. `narrowed` are the FILTERS that
    it follows: points of the worker itself are not of one device. `least_ms` is the narrowest that Step.AUTO
    may be: narrower than the points come, a sum over workers would miss some of them.

    Only groups are shown of which all columns meet `having` (by title).

    InfluxQL divides by zero and says 0, SQL says nothing: what a term is divided by must be `above_zero`.
    """

    columns: Mapping[str, Term]
    source: "str | Query"
    where: tuple[Where, ...] = ()
    by: tuple[str, ...] = ()
    step: Step | int | None = None
    back_ms: int | None = None
    narrowed: tuple[str, ...] = FILTERS
    least_ms: int = 0
    having: tuple[Where, ...] = ()

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class Rows:
    """Single rows, the newest first: the fields and tags by title."""

    columns: Mapping[str, str]
    source: str
    where: tuple[Where, ...] = ()
    limit: int = 100
    back_ms: int | None = None
    narrowed: tuple[str, ...] = FILTERS

    def __post_init__(self) -> None:
        names = _names_of(self.source)
        for name in (*self.columns.values(), *(w.name for w in self.where)):
            if name not in names:
                raise ValueError(f"'{self.source}' has no '{name}'")


def narrowest_ms(query: "Query | Rows") -> int:
    """What Step.AUTO may not be narrower than, in the query and those within it."""
    if isinstance(query, Rows):
        return 0
    return max(query.least_ms, narrowest_ms(query.source) if isinstance(query.source, Query) else 0)


def _names_of(source: str) -> set[str]:
    measurement = MEASUREMENTS[source]
    return {*measurement.tags, *measurement.fields}


def _check(query: Query) -> None:
    """A name that the store does not have, or an aggregate that a store cannot make, is a defect here."""
    inner = query.source if isinstance(query.source, Query) else None
    names = {*inner.columns, *inner.by} if inner else _names_of(str(query.source))
    kinds, tags = ({}, ()) if inner else (MEASUREMENTS[str(query.source)].fields, MEASUREMENTS[str(query.source)].tags)
    for name in (*query.by, *(w.name for w in query.where)):
        if name not in names:
            raise ValueError(f"'{query.source}' has no '{name}'")
    for term in query.columns.values():
        for of in aggregates(term):
            if of.field not in names:
                raise ValueError(f"'{query.source}' has no '{of.field}'")
            if kinds.get(of.field) in (Kind.STRING, Kind.BOOLEAN) and of.function not in ("last", "first", "count", NEWEST):
                raise ValueError(f"'{of.field}' is not a number")
            if of.function == "count" and query.step is not None:
                raise ValueError("InfluxQL counts 0 where there is nothing: over time, add up ones")
            if inner and of.function in _NEEDS_TIME:
                raise ValueError(f"'{of.function}' has no meaning over another query")
            if of.field in tags and of.function != NEWEST:
                raise ValueError(f"'{of.field}' is a tag, and has no '{of.function}'")
    sure = {w.name for w in query.where if w.sign == ">" and not isinstance(w.value, str | bool) and w.value >= 0}
    for term in query.columns.values():
        for divisor in divisors(term):
            if not (isinstance(divisor, Number) and divisor.value) and not (
                isinstance(divisor, Of) and divisor.field in sure and divisor.function != "spread"
            ):
                raise ValueError(f"divided by what may be zero: {divisor}; divide by an aggregate of what is above_zero")
    if _of_newest(query):
        if query.step is not None or any(not (isinstance(t, Of) and t.function == NEWEST) for t in query.columns.values()):
            raise ValueError("'newest' stands alone, beside nothing but its like, and not over time")
        _marker(query)
    if query.having and query.step is not None:
        raise ValueError("'having' is not for what is over time")
    for where in query.having:
        if where.name not in query.columns:
            raise ValueError(f"there is no column '{where.name}'")
    if inner and query.step is not None and inner.step is None:
        raise ValueError("a query over time needs one over time within it")
    if not inner and any(tag not in MEASUREMENTS[str(query.source)].tags for tag in query.by):
        raise ValueError(f"'{query.source}' can be grouped by its tags only")


def _of_newest(query: Query) -> bool:
    return any(of.function == NEWEST for term in query.columns.values() for of in aggregates(term))


def _marker(query: Query) -> str:
    """The title of a field that every point has: InfluxQL picks the newest row by it."""
    measurement = MEASUREMENTS[str(query.source)]
    for title, term in query.columns.items():
        if isinstance(term, Of) and term.field in measurement.fields and term.field not in measurement.optional:
            return title
    raise ValueError(f"the newest row of '{query.source}' is found by a field that every point has; show one")


def aggregates(term: Term) -> Iterator[Of]:
    """The aggregates that a term is made of."""
    if isinstance(term, Of):
        yield term
    elif isinstance(term, Combined):
        yield from aggregates(term.left)
        yield from aggregates(term.right)


def combine(term: Term, of: Callable[[Of], Term]) -> Term:
    """The term with other aggregates in their places."""
    if isinstance(term, Of):
        return of(term)
    if isinstance(term, Combined):
        return Combined(term.sign, combine(term.left, of), combine(term.right, of))
    return term


def divisors(term: Term) -> Iterator[Term]:
    """What is divided by in a term."""
    if isinstance(term, Combined):
        yield from divisors(term.left)
        yield from divisors(term.right)
        if term.sign == "/":
            yield term.right


def _number(value: float) -> str:
    """All its digits and no exponent, which InfluxQL cannot read."""
    return format(Decimal(repr(value)), "f")


# -- InfluxQL ------------------------------------------------------------------------------------


def influxql(query: Query | Rows, fill: str = "null") -> str:
    """The text for Grafana, with its macros. `fill` tells what becomes of empty buckets of the outermost query."""
    if isinstance(query, Rows):
        columns = ", ".join(f'"{name}" AS "{title}"' for title, name in query.columns.items())
        where = _influx_where(query, query.narrowed)
        return f"SELECT {columns} FROM {_influx_name(query.source)} WHERE {where} ORDER BY time DESC LIMIT {query.limit}"
    columns = ", ".join(f'{_influx_term(term)} AS "{title}"' for title, term in _picked(query).items())
    if isinstance(query.source, Query):
        source, narrowed = f"({influxql(query.source, 'none')})", ()
    else:
        source, narrowed = _influx_name(query.source), query.narrowed
    groups = [f'"{tag}"' for tag in query.by]
    if query.step is not None:
        groups.insert(0, "time($__interval)" if query.step is Step.AUTO else f"time({query.step}ms)")
    text = f"SELECT {columns} FROM {source} WHERE {_influx_where(query, narrowed)}"
    if groups:
        text += f" GROUP BY {', '.join(groups)}"
    if query.having:
        titles = ", ".join(f'"{title}" AS "{title}"' for title in query.columns)
        where = " AND ".join([_influx_time(query), *(_influx_condition(w) for w in query.having)])
        text = f"SELECT {titles} FROM ({text}) WHERE {where}" + (f" GROUP BY {', '.join(groups)}" if groups else "")
    return text + (f" fill({fill})" if query.step is not None else "")


def _picked(query: Query) -> Mapping[str, Term]:
    """One `last` picks a row; what stands beside it without an aggregate is then of that very row."""
    if not _of_newest(query):
        return query.columns
    marker = _marker(query)
    return {t: last(of.field) if t == marker else of for t, of in query.columns.items() if isinstance(of, Of)}


def _influx_name(measurement: str) -> str:
    return f'"{LONG}"."{measurement}"' if MEASUREMENTS[measurement].lasting else f'"{measurement}"'


def _influx_term(term: Term) -> str:
    if isinstance(term, Of):
        return f'"{term.field}"' if term.function == NEWEST else f'{term.function}("{term.field}")'
    if isinstance(term, Number):
        return _number(term.value)
    if isinstance(term, Limit):
        return f"0${{{term.field}}}"  # a variable without a value leaves 0
    assert isinstance(term, Combined)
    return f"({_influx_term(term.left)} {term.sign} {_influx_term(term.right)})"


def _influx_where(query: Query | Rows, narrowed: Sequence[str]) -> str:
    parts = [_influx_time(query)]
    parts += [f'"{tag}" =~ /^${{{tag}:regex}}$/' for tag in narrowed]
    parts += [_influx_condition(w) for w in query.where]
    return " AND ".join(parts)


def _influx_time(query: Query | Rows) -> str:
    if query.back_ms is None:
        return "$timeFilter"
    return f"time > ${{__to}}ms - {query.back_ms}ms AND time <= ${{__to}}ms"


def _influx_condition(where: Where) -> str:
    return f'"{where.name}" {where.sign} {_influx_value(where.value)}'


def _influx_value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return _number(value)


class View(NamedTuple):
    """What a person looks at: a span of time (ms since 1970 UTC), in steps, of these tags (empty is all)."""

    from_ms: int
    to_ms: int
    step_ms: int
    chosen: Mapping[str, Sequence[str]] = {}
    limits: Mapping[str, float] = {}


def filled(text: str, view: View) -> str:
    """InfluxQL as Grafana sends it, its macros filled in."""
    text = text.replace("$timeFilter", f"time >= {view.from_ms}ms and time <= {view.to_ms}ms")
    text = text.replace("$__interval", f"{view.step_ms}ms").replace("${__to}", str(view.to_ms))
    for tag in FILTERS:
        values = view.chosen.get(tag)
        text = text.replace(f"${{{tag}:regex}}", f"({'|'.join(_regex(v) for v in values)})" if values else ".*")
    return re.sub(r"\$\{(\w+)\}", lambda m: _number(view.limits[m[1]]) if m[1] in view.limits else "", text)


def _regex(value: str) -> str:
    return re.sub(r"([.*+?^${}()|\[\]\\/])", r"\\\1", value)


# -- SQL -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sql:
    """A statement for DuckDB and its parameters."""

    text: str
    parameters: dict[str, Any] = field(default_factory=dict)


TIME = "time"
"""The column of buckets, ms since 1970 UTC; rows come in its order."""


def sql(query: Query | Rows, view: View) -> Sql:
    """The same for the embedded store; buckets without readings are absent."""
    made = Sql("")
    view = view._replace(step_ms=max(view.step_ms, narrowest_ms(query)))
    if isinstance(query, Rows):
        columns = ", ".join(f'"{name}" AS "{title}"' for title, name in query.columns.items())
        where = _sql_where(query, view, made, query.narrowed)
        made.text = (
            f'SELECT time_ns // {NS_PER_MS} AS "{TIME}", {columns} FROM "{query.source}" WHERE {where} '
            f"ORDER BY time_ns DESC LIMIT {query.limit}"
        )
        return made
    order = [f'"{name}"' for name in ((TIME,) if query.step is not None else ()) + query.by]
    made.text = _sql_query(query, view, made) + (f" ORDER BY {', '.join(order)}" if order else "")
    return made


def _sql_query(query: Query, view: View, made: Sql) -> str:
    step_ns = (view.step_ms if query.step is Step.AUTO else query.step or 0) * NS_PER_MS
    groups = [f'"{tag}"' for tag in query.by]
    selected = [*groups, *(f'{_sql_term(term, view, made)} AS "{title}"' for title, term in query.columns.items())]
    if isinstance(query.source, Query):
        source = f"({_sql_query(query.source, view, made)})"
        where = " AND ".join(_sql_condition(w, made) for w in query.where)
        moment = f'("{TIME}" * {NS_PER_MS})'
    else:
        source = f'"{query.source}"'
        where = _sql_where(query, view, made, query.narrowed)
        moment = "time_ns"
    if query.step is not None:
        selected.insert(0, f'{moment} // {step_ns} * {step_ns // NS_PER_MS} AS "{TIME}"')
        groups.insert(0, f'{moment} // {step_ns}')
    text = f"SELECT {', '.join(selected)} FROM {source}"
    if where:
        text += f" WHERE {where}"
    if groups:
        text += f" GROUP BY {', '.join(groups)}"
    if query.having:
        text = f"SELECT * FROM ({text}) WHERE {' AND '.join(_sql_condition(w, made) for w in query.having)}"
    return text


def _sql_term(term: Term, view: View, made: Sql) -> str:
    if isinstance(term, Of):
        return _SQL_OF[term.function].format(f'"{term.field}"')
    if isinstance(term, Number):
        return _sql_number(term.value)
    if isinstance(term, Limit):
        return _sql_number(view.limits.get(term.field, 0.0))
    assert isinstance(term, Combined)
    left, right = _sql_term(term.left, view, made), _sql_term(term.right, view, made)
    return f"(CAST({left} AS DOUBLE) {term.sign} {right})"


def _sql_number(value: float) -> str:
    """DuckDB counts in decimals unless it is told otherwise."""
    return f"CAST({_number(value)} AS DOUBLE)"


def _sql_where(query: Query | Rows, view: View, made: Sql, narrowed: Sequence[str]) -> str:
    made.parameters["to_ns"] = view.to_ms * NS_PER_MS
    if query.back_ms is None:
        made.parameters["from_ns"] = view.from_ms * NS_PER_MS
        parts = ["time_ns >= $from_ns AND time_ns <= $to_ns"]
    else:
        parts = [f"time_ns > $to_ns - {query.back_ms * NS_PER_MS} AND time_ns <= $to_ns"]
    for tag in narrowed:
        if view.chosen.get(tag):
            made.parameters[tag] = list(view.chosen[tag])
            parts.append(f'list_contains(${tag}, "{tag}")')
    parts += [_sql_condition(w, made) for w in query.where]
    return " AND ".join(parts)


def _sql_condition(where: Where, made: Sql) -> str:
    name = f"value_{len(made.parameters)}"
    made.parameters[name] = where.value
    return f'"{where.name}" {where.sign} ${name}'
