"""The embedded store: one row for each point as it stands now, no older than asked for."""

from pathlib import Path
from typing import Any

import duckdb
import numpy
import pytest

import ingest.sinks.duckdb as store
from ingest.points import NS_PER_MS, Entry, pack
from ingest.sinks.duckdb import FILE_NAME, DuckDBSink
from schemas.measurements import ALERT, MEASUREMENTS, TREND, Point
from schemas.topics import Stream
from tests.line import DEVICE, MODEL, START_MS, message, stored

DAY_MS = 86_400_000


def opened(directory: Path) -> DuckDBSink:
    sink = DuckDBSink(directory)
    sink.open("j")
    return sink


def own(number: int, point: Point) -> Entry:
    return Entry(number, point.tags[0], None, None, START_MS, START_MS, True, pack(point))


def trend(messages: int, at_ms: int = START_MS, device: str = DEVICE, **fields: Any) -> Point:
    given = {"messages": messages, "current_samples": 0, "contact_samples": 0, "output_s": 0.0, **fields}
    return Point(TREND.name, (device, MODEL, "all"), given, at_ms * NS_PER_MS)


def alert(state: str, rule: str = "overtemperature", at_ms: int = START_MS) -> Point:
    return Point(ALERT.name, (DEVICE, MODEL, "2.3.1", rule), {"alert_id": "a", "state": state}, at_ms * NS_PER_MS)


def reading(number: int, at_ms: int) -> Entry:
    return Entry(number, DEVICE, number, Stream.CURRENT.value, at_ms, at_ms, True, message(Stream.CURRENT, number, at_ms))


def trends(sink: DuckDBSink) -> list[tuple]:
    return stored(sink, "SELECT device_id, time_ns // 1000000, messages, z_max_ohm FROM trend ORDER BY 2, 1")


# -- one row for each point -----------------------------------------------------------------------------


def test_a_later_point_of_the_same_tags_and_time_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([own(1, trend(1, z_max_ohm=8e3)), own(2, trend(5, device="tone-2")), own(3, trend(6, START_MS + 600_000))])
    sink.write([own(4, trend(2))])
    assert trends(sink) == [(DEVICE, START_MS, 2, None), ("tone-2", START_MS, 5, None), (DEVICE, START_MS + 600_000, 6, None)]


def test_the_last_of_several_within_a_write_wins(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([own(1, trend(1)), own(2, trend(2)), own(3, trend(3, START_MS - DAY_MS)), own(4, trend(4))])
    assert [row[1:3] for row in trends(sink)] == [(START_MS - DAY_MS, 3), (START_MS, 4)]


def test_points_that_differ_in_any_tag_stand_side_by_side(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([own(1, alert("open")), own(2, alert("open", "gel-bridge"))])
    sink.write([own(3, alert("closed"))])
    assert stored(sink, "SELECT rule, state FROM alert ORDER BY 1") == [("gel-bridge", "open"), ("overtemperature", "closed")]


def test_readings_are_never_replaced(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([reading(1, START_MS)])
    sink.write([reading(1, START_MS)])
    assert list(sink.held([DEVICE])) == [(DEVICE, 7, 1, False, True)]  # doubled, as `reconcile` must be able to see


def test_a_replacement_and_the_offset_are_one_transaction(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([own(1, trend(1))])
    sink._db.execute("ALTER TABLE ingest_offset RENAME TO elsewhere")
    with pytest.raises(duckdb.Error):
        sink.write([own(2, trend(2))])
    sink._db.close()
    assert [row[2] for row in trends(opened(tmp_path))] == [1]


def test_the_offset_is_that_of_the_rows_that_are_there_wherever_a_write_fails(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([reading(1, START_MS)])
    sink._db.execute("ALTER TABLE trend RENAME TO elsewhere")
    with pytest.raises(duckdb.Error):
        sink.write([reading(2, START_MS + 1), own(3, trend(2))])
    sink._db.close()
    with duckdb.connect(tmp_path / FILE_NAME) as db:
        db.execute("ALTER TABLE elsewhere RENAME TO trend")
    again = DuckDBSink(tmp_path)
    assert 1 == again.open("j")
    assert [(1,)] == stored(again, "SELECT seq FROM current")


# -- files of before ------------------------------------------------------------------------------------

BEFORE = """
CREATE TABLE ingest_offset (journal VARCHAR, upto BIGINT);
CREATE TABLE alert (
    time_ns BIGINT, device_id VARCHAR, model VARCHAR, fw VARCHAR, alert_id VARCHAR, rule VARCHAR, severity VARCHAR, state VARCHAR,
    session_id VARCHAR, onset_ms BIGINT, opened_ms BIGINT, updated_ms BIGINT, closed_ms BIGINT, close_reason VARCHAR,
    "value" DOUBLE, "limit" DOUBLE, unit VARCHAR, profile_id VARCHAR, profile_version BIGINT, rule_version BIGINT,
    retrospective BOOLEAN, from_rejected BOOLEAN, service BOOLEAN, detail VARCHAR, acknowledged_by VARCHAR, acknowledged_ms BIGINT,
    assigned_to VARCHAR
);
CREATE TABLE pipeline (
    time_ns BIGINT, device_id VARCHAR, model VARCHAR, fw VARCHAR, accepted BIGINT, inbox BIGINT, outbox BIGINT, stored BIGINT,
    duplicate BIGINT, quarantined BIGINT, alerts_open BIGINT
);
INSERT INTO ingest_offset VALUES ('j', 41);
INSERT INTO alert (time_ns, device_id, model, fw, rule, state) VALUES
    (1795298400000000000, 'tone-1', 'toneduo-400', '2.3.1', 'overtemperature', 'open'),
    (1795298400000000000, 'tone-1', 'toneduo-400', '2.3.1', 'overtemperature', 'closed'),
    (1795298400000000000, 'tone-1', 'toneduo-400', '2.3.1', 'gel-bridge', 'open');
INSERT INTO pipeline VALUES (1795298400000000000, 'w', 'ingest', 'v1', 1, 0, 0, 1, 0, 0, 0);
"""
"""What the first files had, as far as it differs: every state of an alert was a row."""


def test_a_file_of_before_gets_its_new_columns_and_keeps_of_each_point_its_last_state(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / FILE_NAME)) as db:
        db.execute(BEFORE)
    sink = DuckDBSink(tmp_path)
    assert sink.open("j") == 41
    found = stored(sink, "SELECT rule, state, unacknowledged FROM alert ORDER BY 1")
    assert found == [("gel-bridge", "open", None), ("overtemperature", "closed", None)]
    sink.write([own(42, alert("withdrawn"))])
    assert stored(sink, "SELECT rule, state FROM alert ORDER BY 1") == [("gel-bridge", "open"), ("overtemperature", "withdrawn")]
    assert stored(sink, "SELECT accepted, alerts_open, missing FROM pipeline") == [(1, 0, None)]
    for measurement in MEASUREMENTS.values():
        columns = ", ".join(f'"{name}"' for name in ("time_ns", *measurement.tags, *measurement.fields))
        stored(sink, f'SELECT {columns} FROM "{measurement.name}"')
    sink.close()


def test_a_file_that_is_up_to_date_is_left_as_it_is(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write([own(1, trend(1))])
    sink.close()
    before = (tmp_path / FILE_NAME).stat().st_mtime_ns
    again = DuckDBSink(tmp_path)
    assert again.open("j2") is None
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == before
    again.close()


# -- what is too old ------------------------------------------------------------------------------------


def test_readings_and_what_lasts_are_deleted_each_by_its_own_limit_and_by_event_time(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    days = (1, 89, 91, 729, 731)  # numbers of entries as well, which begin at 1
    sink.write([reading(n, START_MS - n * DAY_MS) for n in days] + [own(1000 + n, trend(n, START_MS - n * DAY_MS)) for n in days])
    assert not sink.forget(START_MS - 90 * DAY_MS, START_MS - 730 * DAY_MS)
    assert sorted(seq for _, _, seq, *_ in sink.held([DEVICE])) == [1, 89]
    assert sorted(row[2] for row in trends(sink)) == [1, 89, 91, 729]
    sink.close()


def test_what_is_too_old_is_deleted_in_pieces_and_its_space_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FORGET_MOST", 1_000)
    sink = opened(tmp_path)
    sink._db.execute(f"INSERT INTO current (time_ns, device_id, i_rms_ua) SELECT {START_MS} * 1000000 + i, 'tone-1', random() FROM range(500000) t(i)")
    sink._db.execute(f"INSERT INTO current (time_ns, device_id, i_rms_ua) SELECT {START_MS + 1} * 1000000, 'tone-1', random() FROM range(500000)")
    sink._db.execute("CHECKPOINT")

    def count() -> int:
        return stored(sink, "SELECT count(*) FROM current")[0][0]

    assert sink.forget(START_MS + 1, 0)
    assert count() == 999_000
    monkeypatch.setattr(store, "FORGET_MOST", 200_000)
    pieces = [sink.forget(START_MS + 1, 0) for _ in range(3)]
    assert pieces == [True, True, False]
    assert count() == 500_000
    free = stored(sink, "SELECT free_blocks FROM pragma_database_size()")[0][0]
    assert free > 0
    sink.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/hostname')", "SELECT * FROM '/etc/hostname.csv'", "COPY (SELECT 1) TO '{directory}/out.csv'", "ATTACH '{directory}/other.duckdb'",
        "EXPORT DATABASE '{directory}/all'", "INSTALL httpfs", "LOAD httpfs", "SET enable_external_access = true", "SET lock_configuration = false",
        "SET autoload_known_extensions = true", "PRAGMA memory_limit='64GB'", "SELECT * FROM rows",
    ],
)  # fmt: skip
def test_no_statement_reaches_a_file_the_network_a_variable_or_these_settings(tmp_path: Path, statement: str) -> None:
    """Panels and parameters are ours; should a statement ever not be, it finds nothing but the store."""
    sink, rows = opened(tmp_path), numpy.arange(3)
    try:
        with pytest.raises(duckdb.Error):
            sink._db.execute(statement.format(directory=tmp_path)).fetchall()
        assert (1,) == sink._db.execute("SELECT 1").fetchone()
    finally:
        sink.close()
    assert {"telemetry.duckdb"} == {path.name for path in tmp_path.iterdir()} - {"telemetry.duckdb.wal"} and 3 == len(rows)
