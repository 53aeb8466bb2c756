"""Every panel on a real InfluxDB and on DuckDB: it says something, and both say the same.

Once of a small fleet that the real worker told of, and once of points with every field in odd values.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from dashboards.catalogue import DASHBOARDS
from dashboards.panel import Dashboard, Panel
from dashboards.query import Query, Rows, View
from ingest.points import Entry, unpack
from schemas.measurements import DRAWN_LIMITS, MEASUREMENTS
from tests.integration import lived, synthetic
from tests.integration.both import Both
from tests.line import IN_MEMORY, MODEL

pytestmark = pytest.mark.system

LIMITS = {name: 100.5 * place + 0.125 for place, name in enumerate(DRAWN_LIMITS, 1)}
WRITTEN_AT_ONCE = 700
"""So few that points which are told again come with a later write."""

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

CASES = [
    pytest.param(dashboard, panel, query, id=f"{dashboard.title}-{panel.title}-{number}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels()
    for number, query in enumerate(panel.queries)
]


class Told(NamedTuple):
    """What both stores hold, until when, and whom one would look at."""

    both: Both
    end_ms: int
    devices: tuple[str, ...]
    measurements: frozenset[str]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with TemporaryDirectory(dir=IN_MEMORY) as journal, Both(tmp_path_factory.mktemp("stores")) as stores:
        entries: list[Entry] = []
        end_ms = lived.live(Path(journal), entries.extend)
        for start in range(0, len(entries), WRITTEN_AT_ONCE):
            stores.write(entries[start : start + WRITTEN_AT_ONCE])
        told = frozenset(unpack(entry).measurement.name for entry in entries)
        yield Told(stores, end_ms, (lived.STEADY, lived.UPDATED, lived.AT_RISK), told)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with Both(tmp_path_factory.mktemp("stores")) as stores:
        stores.write_points(synthetic.points())
        yield Told(stores, synthetic.END_MS, ("tone-1",), frozenset(MEASUREMENTS))


def views(told: Told) -> list[View]:
    """All; one model; one device after the other; two firmwares; narrow and wide; nobody."""
    end_ms = told.end_ms
    day = View(end_ms - DAY_MS, end_ms, 10 * MINUTE_MS, {}, LIMITS)
    month = View(end_ms - 40 * DAY_MS, end_ms, DAY_MS, {}, LIMITS)
    return [
        day,
        month,
        day._replace(chosen={"model": [MODEL]}),
        *(month._replace(chosen={"device_id": [device]}, step_ms=HOUR_MS) for device in told.devices),
        month._replace(chosen={"fw": [lived.OLD_FW, lived.NEW_FW]}, step_ms=6 * HOUR_MS),
        View(end_ms - 33 * MINUTE_MS - 333, end_ms, 1_000, {}, LIMITS),
        View(end_ms - 70 * MINUTE_MS - 777, end_ms - 35 * MINUTE_MS - 1, 30_000, {"model": ["ursa-adapt-10"], "device_id": list(told.devices)}, {}),
        month._replace(chosen={"device_id": ["nobody"]}),
    ]


def shown(dashboard: Dashboard, view: View, device: str) -> View:
    """As its variables let a person choose."""
    chosen = {tag: values for tag, values in view.chosen.items() if tag in dashboard.variables}
    if dashboard.single and len(chosen.get(dashboard.single, ())) != 1:
        chosen[dashboard.single] = [device]
    return view._replace(chosen=chosen)


def agreed(told: Told, dashboard: Dashboard, query: Query | Rows) -> set[str]:
    """The columns that say something in some view; all say the same in every view."""
    found = [told.both.agree(query, shown(dashboard, view, told.devices[0])) for view in views(told)]
    return {title for rows in found for row in rows for title, value in row.items() if value is not None}


@pytest.mark.parametrize(("dashboard", "panel", "query"), CASES)
def test_every_panel_says_the_same_of_a_real_fleet(real: Told, dashboard: Dashboard, panel: Panel, query: Query | Rows) -> None:
    assert set(query.columns) & agreed(real, dashboard, query)


@pytest.mark.parametrize(("dashboard", "panel", "query"), CASES)
def test_every_column_of_every_panel_says_the_same_of_odd_values(
    made_up: Told, dashboard: Dashboard, panel: Panel, query: Query | Rows
) -> None:
    assert set(query.columns) <= agreed(made_up, dashboard, query)


def test_the_worker_has_told_of_everything_there_is(real: Told) -> None:
    assert set(MEASUREMENTS) == real.measurements
