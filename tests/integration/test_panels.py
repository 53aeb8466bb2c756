"""Every panel on a real InfluxDB and on DuckDB: it says something, and both say the same."""

from collections.abc import Iterator

import pytest

from dashboards.catalogue import DASHBOARDS
from dashboards.panel import Dashboard, Panel
from dashboards.query import Query, Rows, View
from schemas.measurements import DRAWN_LIMITS
from tests.integration.both import Both
from tests.integration.synthetic import DAY_MS, END_MS, HOUR_MS, MINUTE_MS, points

pytestmark = pytest.mark.system

LIMITS = {name: 100.5 * place + 0.125 for place, name in enumerate(DRAWN_LIMITS, 1)}
OLD_FW, NEW_FW = "2.3.1", "2.10.0"

ALL = View(END_MS - DAY_MS, END_MS, 10 * MINUTE_MS, {}, LIMITS)
VIEWS = (
    ALL,
    ALL._replace(chosen={"model": ["toneduo-400"]}),
    ALL._replace(chosen={"device_id": ["tone-1"]}),
    ALL._replace(chosen={"fw": [OLD_FW, NEW_FW]}, from_ms=END_MS - 60 * DAY_MS, step_ms=6 * HOUR_MS),
    View(END_MS - 33 * MINUTE_MS - 333, END_MS, 1_000, {}, LIMITS),
    View(END_MS - 3 * HOUR_MS - 777, END_MS - HOUR_MS - 1, 30_000, {"model": ["ursa-adapt-10"], "fw": ["1.0.0+rc.1"]}, {}),
    View(END_MS - 40 * DAY_MS, END_MS, DAY_MS, {}, LIMITS),
    View(END_MS - 40 * DAY_MS, END_MS, DAY_MS, {"device_id": ["nobody"]}, LIMITS),
)

CASES = [
    pytest.param(dashboard, panel, query, id=f"{dashboard.title}-{panel.title}-{number}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels()
    for number, query in enumerate(panel.queries)
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with Both(tmp_path_factory.mktemp("stores")) as stores:
        stores.write_points(points())
        yield stores


def shown(dashboard: Dashboard, view: View) -> View:
    """As its variables let a person choose."""
    chosen = {tag: values for tag, values in view.chosen.items() if tag in dashboard.variables}
    if dashboard.single and dashboard.single not in chosen:
        chosen[dashboard.single] = ["tone-1"]
    return view._replace(chosen=chosen)


@pytest.mark.parametrize(("dashboard", "panel", "query"), CASES)
def test_every_panel_says_the_same_on_both_stores_and_says_something(
    both: Both, dashboard: Dashboard, panel: Panel, query: Query | Rows
) -> None:
    told = [both.agree(query, shown(dashboard, view)) for view in VIEWS]
    assert any(told)
    columns = {title for rows in told for row in rows for title, value in row.items() if value is not None}
    assert set(query.columns) <= columns
