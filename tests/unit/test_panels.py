"""What panels and queries refuse, and what all dashboards keep to."""

from collections.abc import Callable
from typing import Any

import pytest

from dashboards.catalogue import DASHBOARD, DASHBOARDS
from dashboards.panel import (
    WHOLE_WIDTH,
    Dashboard,
    Kind,
    Level,
    Look,
    Panel,
    Section,
    Unit,
    has_step,
    narrowed_by,
    places,
    step_ms,
)
from dashboards.query import (
    FILTERS,
    Query,
    Rows,
    Step,
    View,
    Where,
    above_zero,
    count,
    filled,
    influxql,
    last,
    mean,
    narrowest_ms,
    newest,
    spread,
    sql,
    total,
)

PANELS = [pytest.param(d, p, id=f"{d.title}-{p.title}") for d in DASHBOARDS for p in d.panels()]

SESSIONS = Query({"n": total("sessions")}, "session")
OVER_TIME = Query({"n": total("sessions")}, "session", step=Step.AUTO)
BY_FW = Query({"n": total("sessions")}, "session", by=("fw",))


REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "a measurement that is not there": ("nothing", lambda: Query({"x": total("n")}, "nothing")),
    "a field that is not there": ("has no 'nothing'", lambda: Query({"x": total("nothing")}, "session")),
    "a condition on what is not there": ("has no 'nothing'", lambda: Query({"x": total("sessions")}, "session", where=(above_zero("nothing"),))),
    "a group by a field": ("by its tags", lambda: Query({"x": total("sessions")}, "session", by=("end_reason",))),
    "a mean of text": ("not a number", lambda: Query({"x": mean("end_reason")}, "session")),
    "a sum of truths": ("not a number", lambda: Query({"x": total("completed")}, "session")),
    "the latest of a tag": ("is a tag", lambda: Query({"x": last("fw")}, "session")),
    "the latest of groups": ("no meaning", lambda: Query({"x": last("n")}, BY_FW)),
    "over time what is not within": ("over time", lambda: Query({"x": total("n")}, BY_FW, step=Step.AUTO)),
    "a count over time": ("add up ones", lambda: Query({"x": count("sessions")}, "session", step=Step.AUTO)),
    "the newest beside a sum": ("stands alone", lambda: Query({"x": newest("sessions"), "y": total("messages")}, "session")),
    "the newest in a sum": ("stands alone", lambda: Query({"x": newest("sessions") + newest("messages")}, "session")),
    "the newest over time": ("stands alone", lambda: Query({"x": newest("sessions")}, "session", step=Step.AUTO)),
    "the newest by what may be missing": ("every point has", lambda: Query({"x": newest("symmetry"), "y": newest("fw")}, "session")),
    "a choice by a column that is not there": ("no column", lambda: Query({"x": total("sessions")}, "session", having=(above_zero("y"),))),
    "a choice over time": ("not for what is over time", lambda: Query({"x": total("sessions")}, "session", step=1_000, having=(above_zero("x"),))),
    "a sign that is none": ("no such comparison", lambda: Where("fw", "; DROP", "x")),
    "text that is more": ("no such comparison", lambda: Where("fw", ">", "x")),
    "truth that is less": ("no such comparison", lambda: Where("completed", "<", True)),
    "a quotient by a sum": ("may be zero", lambda: Query({"x": total("observed_s") / total("running_s")}, "session")),
    "a quotient by a difference": ("may be zero", lambda: Query({"x": total("observed_s") / (total("sessions") - 1)}, "session", where=(above_zero("sessions"),))),
    "a quotient by zero": ("may be zero", lambda: Query({"x": total("observed_s") / 0}, "session")),
    "a quotient by a spread": ("may be zero", lambda: Query({"x": mean("n") / spread("n")}, BY_FW, where=(above_zero("n"),))),
    "a guard that lets zero through": ("may be zero", lambda: Query({"x": mean("n") / total("n")}, BY_FW, where=(Where("n", ">=", 0),))),
    "a row of what is not there": ("has no 'nothing'", lambda: Rows({"x": "nothing"}, "session")),
    "rows as numbers": ("make a table", lambda: Panel("p", Kind.STAT, (Rows({"x": "fw"}, "session"),), "d")),
    "a line without time": ("over time", lambda: Panel("p", Kind.SERIES, (SESSIONS,), "d")),
    "a table over time": ("over time", lambda: Panel("p", Kind.TABLE, (OVER_TIME,), "d")),
    "a line with two names": ("not by both", lambda: Panel("p", Kind.SERIES, (Query({"a": total("sessions"), "b": total("messages")}, "session", by=("fw",), step=1_000),), "d")),
    "a look of no column": ("no column 'm'", lambda: Panel("p", Kind.STAT, (SESSIONS,), "d", looks={"m": Look()})),
    "a look by a tag's own name": ("no column 'fw'", lambda: Panel("p", Kind.TABLE, (BY_FW,), "d", looks={"fw": Look()})),
    "a sort by no column": ("no column 'm'", lambda: Panel("p", Kind.TABLE, (SESSIONS,), "d", sort="m")),
    "a dashboard without the variable": (
        "nobody can choose",
        lambda: Dashboard("u", "t", "d", (Section("s", (Panel("p", Kind.STAT, (SESSIONS,), "d"),)),), variables=("model", "fw")),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "make"), REFUSED.values(), ids=REFUSED)
def test_what_a_store_could_not_answer_is_refused_where_it_is_written(sentence: str, make: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, KeyError), match=sentence):
        make()


def test_a_guarded_quotient_is_taken() -> None:
    Query({"x": total("observed_s") / total("running_s") / 2}, "session", where=(above_zero("running_s"),))


def test_numbers_have_no_exponent() -> None:
    query = Query({"x": total("sessions") * 1e12 + 1e-7}, "session", where=(Where("messages", ">", 1_795_298_400_000),))
    assert '(sum("sessions") * 1000000000000.0) + 0.0000001' in influxql(query)
    assert '"messages" > 1795298400000' in influxql(query)


def test_what_a_person_chose_cannot_leave_its_place() -> None:
    view = View(0, 1_000, 10, {"fw": ["x$/ OR 1=1; --", "'\"\\"]})
    assert '/^(x\\$\\/ OR 1=1; --|\'"\\\\)$/' in filled(influxql(SESSIONS), view)
    assert {"from_ns": 0, "to_ns": 10**9, "fw": ["x$/ OR 1=1; --", "'\"\\"]} == sql(SESSIONS, view).parameters


def test_a_step_is_of_a_few_widths_and_never_too_narrow() -> None:
    assert [1_000, 30_000, 3_600_000, 604_800_000] == [step_ms(span, 400) for span in (1, 12_000_000, 10**9, 2 * 10**11)]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.title)
def test_a_dashboard_has_titles_that_tell_its_panels_apart_and_keeps_within_its_width(dashboard: Dashboard) -> None:
    titles = [panel.title for panel in dashboard.panels()]
    assert sorted(set(titles)) == sorted(titles)
    taken = [(x, y, w, h) for _, x, y, w, h in places(dashboard)]
    assert all(x + w <= WHOLE_WIDTH for x, _, w, _ in taken)
    cells = [(i, j) for x, y, w, h in taken for i in range(x, x + w) for j in range(y, y + h)]
    assert len(set(cells)) == len(cells)


def test_the_dashboards_are_these() -> None:
    assert {"safety", "fleet", "device", "usage", "pipeline"} == {uid.removeprefix("microcurrent-") for uid in DASHBOARD}
    assert all(set(d.variables) <= set(FILTERS) for d in DASHBOARDS)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_a_panel_says_what_it_means_and_what_it_is_when_it_is_empty(dashboard: Dashboard, panel: Panel) -> None:
    assert len(panel.description) > 20 and panel.description.endswith(".")
    assert panel.empty != Panel.__dataclass_fields__["empty"].default
    links = [look.link.uid for look in panel.looks.values() if look.link]
    assert set(links) <= set(DASHBOARD)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_a_line_has_gaps_and_thresholds_rise(dashboard: Dashboard, panel: Panel) -> None:
    assert (panel.gap_ms is not None) == (panel.kind in (Kind.SERIES, Kind.STATES) and not panel.counted)
    for thresholds in (panel.thresholds, *(look.thresholds for look in panel.looks.values())):
        values = [t.value for t in thresholds]
        assert sorted(values) == values


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_what_looks_at_readings_is_of_one_device(dashboard: Dashboard, panel: Panel) -> None:
    """Readings of a whole fleet over months are too many to look at."""
    streams = {"current", "contact", "runtime", "health", "identity", "status", "trend"}
    for query in panel.queries:
        source = query.source.source if isinstance(query.source, Query) else query.source
        assert source not in streams or (dashboard.single == "device_id" and narrowed_by(query) == ("device_id",))


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_no_step_is_so_narrow_that_a_worker_is_missed_in_it(dashboard: Dashboard, panel: Panel) -> None:
    """Each worker reports every ten seconds, and not at the same moment as the others."""
    for query in panel.queries:
        source = query.source.source if isinstance(query.source, Query) else query.source
        if source in ("fleet", "pipeline", "quarantine") and has_step(query):
            assert 20_000 <= narrowest_ms(query) <= panel.least_ms


GREEN_ZEROS = {"unaccounted"}
"""Of these 0 is known to be well: it is worked out from everything that was accepted."""


@pytest.mark.parametrize(("dashboard", "panel"), [p for p in PANELS if p.values[1].kind is Kind.STAT])
def test_a_large_number_that_is_zero_is_not_green(dashboard: Dashboard, panel: Panel) -> None:
    """Where nothing is late, missing or blind, there may be nothing that speaks. A word is no number."""
    for title in {title for query in panel.queries for title in query.columns} - GREEN_ZEROS:
        look = panel.looks.get(title, Look())
        thresholds = look.thresholds or (panel.thresholds if look.unit in (None, panel.unit) else ())
        levels = [panel.base, *(t.level for t in thresholds if t.value <= 0)] if thresholds else [None]
        assert 0 in look.meanings or (look.level or levels[-1]) is not Level.OK, title


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_a_rate_stands_beside_its_coverage(dashboard: Dashboard, panel: Panel) -> None:
    """Or, where each column is a bar, beside the panel that has it."""
    units = {panel.unit, *(look.unit for look in panel.looks.values())}
    if Unit.PER_100_H not in units:
        return
    section = next(s for s in dashboard.sections if panel in s.panels)
    near = section.panels[max(0, section.panels.index(panel) - 1)] if panel.kind is Kind.BARS else panel
    titles = {title.lower() for query in near.queries for title in query.columns}
    assert {"coverage", "output h"} <= titles
    assert all(look.level is not Level.OK for look in panel.looks.values())
