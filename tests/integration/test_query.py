"""What a query means, on a real InfluxDB and on DuckDB: odd names, nothing to divide by, nothing at all."""

from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.query import (
    Limit,
    Query,
    Rows,
    Step,
    View,
    Where,
    above_zero,
    count,
    first,
    highest,
    last,
    lowest,
    mean,
    median,
    newest,
    spread,
    total,
)
from dashboards.shapes import COVERAGE, of_groups, of_workers, per_100_h
from schemas.measurements import ALERT, EVERY, PIPELINE, SESSION, Kind, Measurement, Point
from tests.integration.both import Both

pytestmark = pytest.mark.system

START_MS = 1_795_298_400_000
"""A round ten seconds."""

VIEW = View(START_MS, START_MS + 60_000, 10_000)

ODD = ("a.b", "a/b", "it's", 'say "µA"', "µ-Ω ガ", "a|b", "(a)", "[a-z]", "$a^", "a*b+c?", "a\\b", "{x}", "a,b=c d")
"""Tags that a regular expression, a literal or line protocol could take for something else. No device is called so
today; firmware and lots are nearly free."""


def point(measurement: Measurement, device: str, at_ms: int, model: str = "m", fw: str = "1", **fields: Any) -> Point:
    neutral = {Kind.FLOAT: 0.0, Kind.INTEGER: 0, Kind.BOOLEAN: False, Kind.STRING: ""}
    whole = {name: neutral[kind] for name, kind in measurement.fields.items() if name not in measurement.optional}
    labels = ("dc-offset",) if measurement.labels else ()
    return Point(measurement.name, (device, model, fw, *labels), whole | fields, (START_MS + at_ms) * 1_000_000 + 7)


def session(device: str, at_ms: int, model: str = "m", fw: str = "1", **fields: Any) -> Point:
    return point(SESSION, device, at_ms, model, fw, **fields)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with Both(tmp_path_factory.mktemp("stores")) as stores:
        stores.write_points(
            [
                session("d1", 1_000, fw="1", running_s=10.0, observed_s=4.0, sessions=1, messages=3, end_reason="it's \"over\" \\"),
                session("d1", 2_000, fw="1", running_s=30.0, observed_s=6.0, sessions=1, messages=5, completed=True, symmetry=0.5),
                session("d1", 31_000, fw="2", running_s=20.0, observed_s=20.0, sessions=1, messages=-2, delivery_ratio=0.9),
                session("d2", 12_345, fw="2", running_s=0.0, observed_s=0.0, sessions=1, messages=9),
                session("d2", 59_999, fw="2", running_s=0.0, observed_s=0.0, sessions=1, messages=4_000_000_000),
                point(ALERT, "d1", 5_000, critical=1, detail="grün “µ” \\ 'x'"),
                point(ALERT, "d2", 6_000, detail="plain"),
            ]
        )
        yield stores


def test_every_aggregate_means_the_same(both: Both) -> None:
    of = {"mean": mean, "sum": total, "most": highest, "least": lowest, "median": median, "spread": spread, "n": count, "last": last, "first": first}
    rows = both.agree(Query({name: make("messages") for name, make in of.items()}, "session", by=("device_id",)), VIEW)
    assert {
        "device_id": "d1", "mean": 2.0, "sum": 6, "most": 5, "least": -2, "median": 3.0, "spread": 7, "n": 3, "last": -2, "first": 3,
    } == rows[0]  # fmt: skip
    assert 4_000_000_000 == rows[1]["last"]


def test_what_no_row_has_is_no_number(both: Both) -> None:
    assert [] == both.agree(Query({"a": mean("symmetry"), "n": count("symmetry")}, "session", by=("device_id",), where=(Where("fw", "=", "2"),)), VIEW)
    assert [{"a": 0.5, "b": None, "c": 4_000_000_012}] == [
        {name: row[name] for name in ("a", "b", "c")}
        for row in both.agree(Query({"a": mean("symmetry"), "b": mean("z_median_ohm"), "c": total("messages") - 3}, "session"), VIEW)
    ]


def test_a_term_with_a_part_that_is_missing_is_missing(both: Both) -> None:
    rows = both.agree(Query({"sum": total("messages") + mean("symmetry"), "n": total("sessions")}, "session", by=("fw",)), VIEW)
    assert [{"fw": "1", "sum": 8.5, "n": 2}, {"fw": "2", "sum": None, "n": 3}] == rows


def test_where_it_could_be_divided_by_zero_nothing_is_said(both: Both) -> None:
    inner = Query({"seen": total("observed_s"), "ran": total("running_s")}, "session", by=("device_id",))
    rows = both.agree(Query({"coverage": total("seen") / total("ran")}, inner, by=("device_id",), where=(above_zero("ran"),)), VIEW)
    assert [{"device_id": "d1", "coverage": 0.5}] == rows


def test_large_and_small_numbers_keep_their_digits(both: Both) -> None:
    terms = {"large": total("messages") * 3_600_000_000.0, "small": mean("running_s") * 0.000001, "odd": mean("running_s") + 353.5533905932738}
    assert [{"large": 4_000_000_015 * 3.6e9, "small": 1.2e-05, "odd": 365.5533905932738}] == [
        {**row, "large": float(row["large"])} for row in both.agree(Query(terms, "session"), VIEW)
    ]


def test_a_limit_that_is_not_known_is_zero_and_one_that_is_keeps_its_digits(both: Both) -> None:
    query = Query({"a": mean("running_s") * 0 + Limit("peak_limit_ua"), "b": mean("running_s") * 0 + Limit("nothing")}, "session")
    for limit in (0.25, 353.5533905932738, 1e6, 5e7):
        assert [{"a": limit, "b": 0.0}] == both.agree(query, VIEW._replace(limits={"peak_limit_ua": limit}))


def test_a_count_over_groups_counts_groups(both: Both) -> None:
    inner = Query({"last": last("messages")}, "session", by=("device_id",))
    assert [{"devices": 2}] == both.agree(Query({"devices": count("last")}, inner), VIEW)
    assert [{"devices": 1}] == both.agree(Query({"devices": count("last")}, inner, where=(Where("last", ">", 1_000),)), VIEW)
    assert [] == both.agree(Query({"devices": count("last")}, inner, where=(Where("last", ">", 5_000_000_000),)), VIEW)


def test_a_time_without_readings_has_no_rows(both: Both) -> None:
    empty = VIEW._replace(from_ms=START_MS - 60_000, to_ms=START_MS - 1)
    for by in ((), ("fw",)):
        for step in (None, Step.AUTO):
            assert [] == both.agree(Query({"n": total("sessions")}, "session", by=by, step=step), empty)
    assert [] == both.agree(Rows({"n": "sessions"}, "session"), empty)
    assert [] == both.agree(Query({"n": newest("sessions"), "e": newest("end_reason")}, "session", by=("device_id",)), empty)


def test_buckets_begin_at_round_times_whatever_is_shown(both: Both) -> None:
    unround = VIEW._replace(from_ms=START_MS + 1_500, to_ms=START_MS + 33_333)
    rows = both.agree(Query({"n": total("sessions")}, "session", step=Step.AUTO), unround)
    assert [(0, 1), (10_000, 1), (30_000, 1)] == [(row["time"] - START_MS, row["n"]) for row in rows]
    inner = Query({"n": total("sessions")}, "session", by=("device_id",), step=Step.AUTO)
    assert rows == both.agree(Query({"n": total("n")}, inner, step=Step.AUTO), unround)


def test_a_step_is_never_narrower_than_the_points_of_several_workers(both: Both) -> None:
    query = Query({"n": total("sessions")}, "session", step=Step.AUTO, least_ms=30_000)
    assert [(0, 3), (30_000, 2)] == [(row["time"] - START_MS, row["n"]) for row in both.agree(query, VIEW._replace(step_ms=1_000))]


def test_looking_back_begins_at_the_end_of_what_is_shown(both: Both) -> None:
    shown = VIEW._replace(from_ms=START_MS + 59_000, to_ms=START_MS + 60_000)
    query = Query({"n": total("sessions")}, "session", back_ms=48_000)
    assert [{"n": 3}] == both.agree(query, shown)
    assert [{"n": 2}] == both.agree(query, shown._replace(to_ms=START_MS + 59_999))  # not the one that is yet to come


def test_the_newest_row_is_one_row_whatever_it_lacks(both: Both) -> None:
    columns = {"Sessions": newest("sessions"), "Firmware": newest("fw"), "Completed": newest("completed"), "Symmetry": newest("symmetry")}
    rows = both.agree(Query(columns, "session", by=("device_id",)), VIEW)
    assert {"device_id": "d1", "Sessions": 1, "Firmware": "2", "Completed": False, "Symmetry": None} == rows[0]
    before = VIEW._replace(to_ms=START_MS + 30_000)
    assert 0.5 == both.agree(Query(columns, "session", by=("device_id",)), before)[0]["Symmetry"]


def test_groups_are_chosen_by_what_is_shown_of_them(both: Both) -> None:
    columns = {"Sessions": newest("sessions"), "Messages": newest("messages"), "Firmware": newest("fw"), "End": newest("end_reason")}
    query = Query(columns, "session", by=("device_id",), having=(Where("Messages", "!=", -2),))
    assert ["d2"] == [row["device_id"] for row in both.agree(query, VIEW)]
    text = Query(columns, "session", by=("device_id",), having=(Where("End", "=", "it's \"over\" \\"),))
    assert ["d1"] == [row["device_id"] for row in both.agree(text, VIEW._replace(to_ms=START_MS + 1_500))]
    sums = Query({"n": total("sessions")}, "session", by=("fw",), having=(Where("n", ">", 2),))
    assert [{"fw": "2", "n": 3}] == both.agree(sums, VIEW)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where("end_reason", "=", "it's \"over\" \\"), 1),
        (Where("end_reason", "!=", "other"), 1),  # those that lack it do not meet it
        (Where("completed", "=", True), 1),
        (Where("completed", "!=", True), 4),
        (Where("messages", ">", 3_999_999_999), 1),
        (Where("running_s", ">=", 0.1), 3),
        (Where("fw", "!=", "1"), 3),
        (Where("symmetry", "<", 1), 1),
        (Where("device_id", "=", "d1' OR '1' = '1"), None),
    ],
    ids=str,
)
def test_a_condition_means_the_same(both: Both, where: Where, expected: int | None) -> None:
    rows = both.agree(Query({"n": total("sessions")}, "session", where=(where,)), VIEW)
    assert ([{"n": expected}] if expected else []) == rows


def test_single_rows_come_newest_first_and_no_more_than_asked(both: Both) -> None:
    rows = both.agree(Rows({"Fw": "fw", "N": "messages"}, "session", limit=3), VIEW)
    assert [("2", 4_000_000_000), ("2", -2), ("2", 9)] == [(row["Fw"], row["N"]) for row in rows]
    assert ["grün “µ” \\ 'x'"] == [r["What"] for r in both.agree(Rows({"What": "detail"}, "alert", where=(Where("critical", "=", 1),)), VIEW)]


def test_odd_names_are_taken_for_themselves(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Line protocol is not at issue here, so what cannot stand in it unescaped is left out."""
    names = [name for name in ODD if not set(name) & set(", =\\\"")]
    with Both(tmp_path_factory.mktemp("odd")) as stores:
        stores.write_points(session("d", n * 1_000, fw=fw, sessions=1, messages=n) for n, fw in enumerate(names))
        query = Query({"n": total("sessions")}, "session", by=("fw",))
        for name in ODD:
            told = stores.agree(query, VIEW._replace(chosen={"fw": [name]}))
            assert ([name] if name in names else []) == [row["fw"] for row in told]
            same = Query({"n": total("sessions")}, "session", by=("fw",), where=(Where("fw", "=", name),))
            assert told == stores.agree(same, VIEW)
        assert 3 == len(stores.agree(query, VIEW._replace(chosen={"fw": names[:3]})))
        assert [] == stores.agree(query, VIEW._replace(chosen={"fw": [".*", "a.b|it's", "["]}))
        assert len(names) == len(stores.agree(query, VIEW._replace(chosen={"fw": []})))


def test_workers_are_added_up_by_what_each_said_last(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A worker that has said nothing for two minutes is no part of what is now."""
    with Both(tmp_path_factory.mktemp("workers")) as stores:
        stores.write_points(
            point(PIPELINE, worker, at_ms, EVERY, EVERY, accepted=accepted, unseen_s=unseen_s)
            for worker, at_ms, accepted, unseen_s in (
                ("w1", 0, 900, 9.0), ("w1", 40_000, 10, 1.0), ("w1", 50_000, 20, 2.0), ("w2", 31_000, 300, 5.0), ("w3", -60_001, 7_000, 99.0),
            )
        )  # fmt: skip
        columns = {"accepted": total("accepted"), "unseen": highest("unseen_s")}
        assert [{"accepted": 320, "unseen": 5.0}] == stores.agree(of_workers("pipeline", columns), VIEW)
        rows = stores.agree(of_workers("pipeline", columns, step=Step.AUTO), VIEW._replace(step_ms=1_000))
        assert [(0, 900, 9.0), (30_000, 320, 5.0)] == [(row["time"] - START_MS, row["accepted"], row["unseen"]) for row in rows]


def test_a_rate_is_of_what_was_on_and_stands_on_what_was_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Both(tmp_path_factory.mktemp("rates")) as stores:
        stores.write_points(
            [
                session("d1", 1_000, fw="1", output_s=1_800.0, running_s=2_000.0, observed_s=1_000.0, alerts_critical=2),
                session("d2", 2_000, fw="1", output_s=1_800.0, running_s=2_000.0, observed_s=2_000.0),
                session("d3", 3_000, fw="2", output_s=3_600.0, running_s=3_600.0, observed_s=3_600.0),
                session("d4", 4_000, fw="3", output_s=0.0, running_s=10.0, observed_s=10.0, alerts_critical=1),
            ]
        )
        columns = {"rate": per_100_h("alerts_critical"), "coverage": COVERAGE}
        assert [{"fw": "1", "rate": 200.0, "coverage": 0.75}, {"fw": "2", "rate": 0.0, "coverage": 1.0}] == stores.agree(
            of_groups("session", columns, by=("fw",)), VIEW
        )
        worst = of_groups("session", columns, by=("device_id",), only=total("alerts_critical") + total("alerts_warning"))
        assert [{"device_id": "d1", "rate": 400.0, "coverage": 0.5}] == stores.agree(worst, VIEW)
