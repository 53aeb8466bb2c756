"""What the page asks a dashboard for, and what it is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dashboards.catalogue import DASHBOARDS
from dashboards.panel import Dashboard, Kind, Look, Panel, Section, Unit
from dashboards.query import Limit, Query, Step, highest, last
from ingest import boards
from ingest.errors import Mistake, Unavailable
from ingest.sinks.duckdb import DuckDBSink

NOW_MS = 1_800_000_000_000
LINES = Query({"peak": highest("i_peak_ua"), "limit": highest("i_peak_ua") * 0 + Limit("peak_limit_ua")}, "current", step=Step.AUTO)
BY_DEVICE = Query({"state": last("state")}, "device", by=("device_id",))


def dashboard(*panels: Panel, **said: Any) -> Dashboard:
    return Dashboard("uid", "Title", "What it is.", (Section("Now", panels),), **{"variables": ("model", "fw", "device_id")} | said)


def panel(kind: Kind, *queries: Query, **said: Any) -> Panel:
    return Panel("Panel", kind, queries, "What it shows.", Unit.COUNT, **said)


class Store:
    """A reader that gives what it is told to give, for as long as there is some."""

    def __init__(self, *answers: boards.Found | Unavailable) -> None:
        self._answers = list(answers)

    def rows(self, statement: str, parameters: Mapping[str, Any], most: int) -> boards.Found:
        answer = self._answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer[0], answer[1][:most]

    def stop(self) -> None: ...


def shown(board: Dashboard, *answers: boards.Found | Unavailable, **chosen: list[str]) -> list[dict[str, Any]]:
    view = boards.read_view(board, [(tag, value) for tag, values in chosen.items() for value in values], NOW_MS)
    return boards.results(board, view, Store(*answers))["panels"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([("points", "x")], "points 'x' is unusable; it is a whole number from 10 to 1000"),
        ([("from_ms", "-5")], "from_ms '-5' is unusable"),
        ([("from_ms", "7"), ("to_ms", "7")], "from_ms 7 is not before to_ms 7; exchange them"),
        ([("from_ms", "0")], "longer than 731 days"),
        ([("to_ms", "9" * 40)], "to_ms '99999999999999999999999999999999' is unusable"),
        ([("colour", "red")], "'colour' is not something a dashboard is asked for"),
        ([("model", "")], "model has 1 to 128 characters"),
        ([("fw", "x" * 129)], "fw has 1 to 128 characters"),
        ([("fw", "1")] * 101, "more than 100 times fw"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(words: list[tuple[str, str]], complaint: str) -> None:
    with pytest.raises(Mistake) as refused:
        boards.read_view(dashboard(), words, NOW_MS)
    assert complaint in str(refused.value)


def test_a_variable_that_a_dashboard_does_not_have_is_refused() -> None:
    with pytest.raises(Mistake, match="Title is not chosen by fw"):
        boards.read_view(dashboard(variables=()), [("fw", "1.0.0")], NOW_MS)


@pytest.mark.parametrize("devices", [[], ["a", "b"]])
def test_a_dashboard_of_one_device_is_asked_for_one(devices: list[str]) -> None:
    with pytest.raises(Mistake, match="one device at a time"):
        boards.read_view(dashboard(single="device_id"), [("device_id", device) for device in devices], NOW_MS)


def test_without_words_it_is_the_time_that_the_dashboard_shows_until_now() -> None:
    view = boards.read_view(dashboard(shown_s=3600), [("model", "a"), ("model", "b")], NOW_MS)
    assert (NOW_MS - 3_600_000, NOW_MS, 10_000, {"model": ["a", "b"]}) == (view.from_ms, view.to_ms, view.step_ms, view.chosen)


def test_lines_share_a_scale_of_time_and_lack_what_is_not_there() -> None:
    query = Query({"state": last("open_critical")}, "device", by=("device_id",), step=60_000)
    (found,) = shown(dashboard(panel(Kind.SERIES, query)), (["time", "device_id", "state"], [(0, "b", 1), (0, "a", 2), (60_000, "a", None)]))
    (lines,) = found["lines"]
    assert ([0, 60_000], 60_000) == (lines["times"], lines["step_ms"])
    assert [("a", [2, None]), ("b", [1, None])] == [(line["name"], line["values"]) for line in lines["series"]]


def test_a_limit_that_is_not_known_is_not_drawn_as_zero() -> None:
    board = dashboard(panel(Kind.SERIES, LINES), limits=("peak_limit_ua",))
    answer = (["time", "peak", "limit"], [(0, 200.0, 0.0)])
    (unknown,) = shown(board, (["peak_limit_ua"], [(None,)]), answer, device_id=["a"])
    (known,) = shown(board, (["peak_limit_ua"], [(400.0,)]), (answer[0], [(0, 200.0, 400.0)]), device_id=["a"])
    assert [[200.0], [None]] == [line["values"] for line in unknown["lines"][0]["series"]]
    assert [[200.0], [400.0]] == [line["values"] for line in known["lines"][0]["series"]]


def test_a_table_joins_its_queries_by_the_tags_that_they_share() -> None:
    counts = Query({"count": highest("open_critical")}, "device", by=("device_id",))
    (table,) = shown(
        dashboard(panel(Kind.TABLE, BY_DEVICE, counts, sort="count", limit=2)),
        (["device_id", "state"], [("a", "ok"), ("b", "silent")]),
        (["device_id", "count"], [("c", 7), ("b", 9)]),
    )
    assert {"columns": ["Device", "state", "count"], "tags": {"Device": "device_id"}, "rows": [["b", "silent", 9], ["c", None, 7]], "of": 3} == table


def test_one_panel_that_fails_leaves_the_others() -> None:
    tiles = panel(Kind.TILES, BY_DEVICE)
    failed, filled = shown(dashboard(tiles, tiles), Unavailable("it took too long"), (["device_id", "state"], [("a", "ok")]))
    assert ({"error": "it took too long"}, [["a", "ok"]]) == (failed, filled["rows"])


def test_more_than_a_screen_can_hold_is_said_and_not_cut_at_the_newest_end() -> None:
    (found,) = shown(dashboard(panel(Kind.SERIES, LINES)), (["time", "peak", "limit"], [(n, 1.0, 0.0) for n in range(boards.MOST_VALUES + 5)]))
    assert "more than 40,000 values" in found["error"]


def test_many_series_are_cut_to_the_highest() -> None:
    query = Query({"state": last("open_critical")}, "device", by=("device_id",), step=60_000)
    (found,) = shown(dashboard(panel(Kind.SERIES, query)), (["time", "device_id", "state"], [(0, f"{n:03}", n) for n in range(100)]))
    (lines,) = found["lines"]
    assert (100, boards.MOST_SERIES, "060") == (lines["of"], len(lines["series"]), lines["series"][0]["name"])


@pytest.mark.parametrize("wanted", DASHBOARDS, ids=lambda d: d.title)
def test_every_dashboard_is_answered_by_an_empty_store(wanted: Dashboard, tmp_path: Path) -> None:
    sink = DuckDBSink(tmp_path)
    sink.open("journal")
    words = [("device_id", "nobody")] if wanted.single else []
    found = boards.results(wanted, boards.read_view(wanted, words, NOW_MS), sink.reader())
    assert [] == [result["error"] for result in found["panels"] if "error" in result]
    assert len(list(wanted.panels())) == len(found["panels"])


def test_a_reader_that_is_stopped_says_so_for_the_rest(tmp_path: Path) -> None:
    sink = DuckDBSink(tmp_path)
    sink.open("journal")
    reader = sink.reader()
    reader.stop()
    with pytest.raises(Unavailable, match="took too long"):
        reader.rows("SELECT 1", {}, 1)


def test_a_definition_says_how_panels_look_and_not_what_they_ask() -> None:
    said = [p for section in boards.definition("microcurrent-device")["sections"] for p in section["panels"]]
    assert all("queries" not in each for each in said)
    current = next(each for each in said if each["title"] == "Current")
    assert (Unit.MICROAMPERE, Look) == (current["unit"], type(current["looks"]["peak limit"]))
