"""Roll-ups: what remains of readings and sessions, the same whatever the order in which they came."""

import random
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given, settings

from ingest import summaries
from ingest.mqtt import Delivery
from ingest.rollup import SLOT_MS, Before, Trend, week_of, weeks_of
from ingest.safety.history import DAY_MS, WEEK_MS
from schemas.measurements import EVERY, TREND, WEEK, Measurement, Point
from schemas.sessions import SessionRecord
from schemas.topics import Stream
from tests.line import DEVICE, IN_MEMORY, MODEL, PROFILES, START_MS, Line, deliver, envelope, message, pulse, sample

FIRST_MS = START_MS - START_MS % SLOT_MS
READY_MS = FIRST_MS + SLOT_MS + summaries.SETTLE_MS
Key = tuple[tuple[str, ...], int]


def points(line: Line, measurement: Measurement = TREND) -> list[tuple[Key, dict[str, Any]]]:
    """The points of a measurement in the order in which they go to the store: (tags, ms after the first slot), fields."""
    found = [orjson.loads(e.payload) for e in line.journal.outbox_after(0, 100_000) if not e.is_message]
    return [
        ((tuple(p["tags"]), p["time_ns"] // 1_000_000 - FIRST_MS), p["fields"]) for p in found if p["measurement"] == measurement.name
    ]


def held(line: Line, measurement: Measurement = TREND) -> dict[Key, dict[str, Any]]:
    """What a store holds in the end."""
    return dict(points(line, measurement))


def summed(line: Line, until_ms: int = READY_MS) -> Line:
    return line.run(pulse(until_ms)).sum_up()


def said(stream: Stream, seq: int, at_ms: int, device: str = DEVICE, fw: str = "2.3.1", **fields: Any) -> Delivery:
    payload = message(stream, seq, at_ms, envelope_={"fw": fw, "uptime_ms": 60_000}, **fields)
    return deliver(stream, payload, at_ms + 100, device)


def current(seq: int, at_ms: int, **fields: Any) -> Delivery:
    return said(Stream.CURRENT, seq, at_ms, **fields)


TAGS = (DEVICE, MODEL, "2.3.1")


# -- ten minutes of a device ----------------------------------------------------------------------------


def test_a_slot_is_told_with_all_its_figures(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(
            current(0, FIRST_MS, i_rms_ua=100.0, i_peak_ua=150.0, v_peak_mv=900.0),
            current(1, FIRST_MS + 1_000, i_rms_ua=200, i_peak_ua=250.0, v_peak_mv=800.0, window_ms=500),
            current(2, FIRST_MS + 2_000, i_rms_ua=0.0, i_peak_ua=0.0, v_peak_mv=0.0, output_enabled=False),
            said(Stream.CONTACT, 3, FIRST_MS + 2_500, z_ohm=8_000.0),
            said(Stream.CONTACT, 4, FIRST_MS + 3_000, z_ohm=16_000.0, state="marginal"),
            said(Stream.CONTACT, 5, FIRST_MS + 3_500, z_ohm=2e6, state="off"),
            said(Stream.CONTACT, 6, FIRST_MS + 4_000, z_ohm=90e3, state="poor"),
            said(Stream.HEALTH, 7, FIRST_MS + 5_000, temp_head_c=36.5, battery_mv=3_900.0),
            said(Stream.HEALTH, 8, FIRST_MS + SLOT_MS - 1, temp_head_c=34.0, battery_mv=3_800.0),
        )
        assert held(summed(line)) == {
            (TAGS, 0): {
                "messages": 9, "current_samples": 3, "contact_samples": 4, "output_s": 1.5, "i_rms_mean_ua": 150.0, "i_rms_max_ua": 200.0,
                "i_peak_max_ua": 250.0, "v_peak_max_mv": 900.0, "z_mean_ohm": 12_000.0, "z_max_ohm": 16_000.0, "contact_part": 0.5,
                "temp_head_max_c": 36.5, "battery_min_mv": 3_800.0,
            }
        }  # fmt: skip


def test_what_was_not_measured_is_absent(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(said(Stream.RUNTIME, 0, FIRST_MS))
        assert held(summed(line)) == {(TAGS, 0): {"messages": 1, "current_samples": 0, "contact_samples": 0, "output_s": 0.0}}


def test_each_sample_counts_where_it_lies_and_a_message_where_it_begins(tmp_path: Path) -> None:
    samples = [sample(Stream.CURRENT, dt_ms) for dt_ms in (0, 999, 1_000, 2_000)]
    payload = orjson.dumps(envelope(0, FIRST_MS + SLOT_MS - 1_000, *samples, uptime_ms=60_000))
    with Line(tmp_path) as line:
        line.run(deliver(Stream.CURRENT, payload, FIRST_MS + SLOT_MS + 1_500))
        found = held(summed(line, READY_MS + SLOT_MS))
        assert [(at, f["messages"], f["current_samples"], f["output_s"]) for (_, at), f in found.items()] == [(0, 1, 2, 2.0), (SLOT_MS, 0, 2, 2.0)]


def test_what_a_device_says_as_another_firmware_is_told_apart(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0, FIRST_MS), current(1, FIRST_MS + 1_000, fw="2.4.0"), current(2, FIRST_MS + 2_000, fw="2.4.0"))
        assert {key: f["messages"] for key, f in held(summed(line)).items()} == {(TAGS, 0): 1, ((DEVICE, MODEL, "2.4.0"), 0): 2}


def test_a_slot_is_told_once_it_is_over_and_has_settled(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0, FIRST_MS))
        assert held(summed(line, READY_MS - 1)) == {}
        assert len(held(summed(line, READY_MS))) == 1


def test_late_data_have_their_slot_told_again_and_duplicates_do_not(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0, FIRST_MS))
        summed(line)
        line.run(current(1, FIRST_MS + 5_000, i_rms_ua=300.0))
        assert len(points(summed(line, READY_MS + summaries.SETTLE_MS - 1))) == 1
        summed(line, READY_MS + summaries.SETTLE_MS)
        assert [(f["messages"], f["i_rms_max_ua"]) for _, f in points(line)] == [(1, 141.0), (2, 300.0)]
        line.run(current(1, FIRST_MS + 5_000, i_rms_ua=300.0))
        assert len(points(summed(line, READY_MS + SLOT_MS))) == 2


def test_what_arrives_while_a_slot_is_added_up_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "PIECE", 1)
    monkeypatch.setattr(summaries, "SMALL_PIECE", 1)
    with Line(tmp_path) as line:
        line.run(*(current(seq, FIRST_MS + seq) for seq in range(6)))
        line.part(2, pulse(READY_MS))
        while line.core._summaries._trend is None:
            line.core._turn()
        line.run(current(6, FIRST_MS + 6))
        assert [f["messages"] for _, f in points(line.sum_up())] == [6]
        with line.die(tmp_path / "copy") as later:
            assert [f["messages"] for _, f in points(summed(later, READY_MS + summaries.SETTLE_MS))] == [6, 7]
        assert [f["messages"] for _, f in points(summed(line, READY_MS + summaries.SETTLE_MS))] == [6, 7]


def test_once_raw_messages_of_a_slot_may_be_gone_its_point_stays_as_it_is(tmp_path: Path) -> None:
    with Line(tmp_path, raw_retention_days=1) as line:
        line.run(*(current(seq, FIRST_MS + seq) for seq in range(5)))
        assert [f["messages"] for f in held(summed(line)).values()] == [5]
        line.settle_store(3)
        line.prune(FIRST_MS + 60_000, 2)
        line.run(current(7, FIRST_MS + 1_000))
        assert [f["messages"] for _, f in points(summed(line, READY_MS + SLOT_MS))] == [5]
        line.restart()
        line.run(current(8, FIRST_MS + 2_000), current(9, FIRST_MS + SLOT_MS))
        assert [(at, f["messages"]) for (_, at), f in points(summed(line, READY_MS + 2 * SLOT_MS))] == [(0, 5), (SLOT_MS, 1)]


def told_by(directory: Path, deliveries: list[Delivery], chance: random.Random, restarts: bool) -> dict[Key, dict[str, Any]]:
    line, at = Line(directory / "0"), 0
    end_ms = READY_MS + 3 * SLOT_MS
    while at < len(deliveries):
        count = chance.randint(1, 12)
        line.run(*deliveries[at : at + count])
        at += count
        if chance.random() < 0.3:
            line.part(chance.randint(1, 4), pulse(FIRST_MS + chance.randint(0, 3 * SLOT_MS)))
        if restarts and chance.random() < 0.2:
            line, dead = line.die(directory / str(at)), line
            dead.journal.close()
    for _ in range(3):
        summed(line, end_ms)
        end_ms += summaries.SETTLE_MS
    found = held(line)
    line.journal.close()
    return found


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3 * SLOT_MS - 1), st.integers(0, 400), st.booleans()), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_trends_are_the_same_for_any_order_doubling_batching_and_restart(sent: list[tuple[int, int, bool]], chance: random.Random) -> None:
    deliveries = [
        current(seq, FIRST_MS + at_ms, i_rms_ua=0.1 * rms) if is_current else said(Stream.CONTACT, seq, FIRST_MS + at_ms, z_ohm=rms / 7)
        for seq, (at_ms, rms, is_current) in enumerate(sent)
    ]
    shuffled = deliveries + chance.sample(deliveries, len(deliveries) // 3)
    chance.shuffle(shuffled)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries, "PIECE", 3)
        expected = told_by(Path(root) / "in order", deliveries, random.Random(0), restarts=False)
        assert sum(f["messages"] for f in expected.values()) == len(deliveries)
        assert expected == told_by(Path(root) / "shuffled", shuffled, chance, restarts=True)


@given(st.lists(st.floats(0, 1e5), min_size=3, max_size=30), st.randoms(use_true_random=False))
def test_the_order_in_which_messages_are_added_plays_no_part(values: list[float], chance: random.Random) -> None:
    sent = [orjson.loads(message(Stream.CURRENT, seq, FIRST_MS + seq, i_rms_ua=value)) for seq, value in enumerate(values)]
    found = []
    for _ in range(2):
        trend = Trend(DEVICE, FIRST_MS)
        for document in sent:
            trend.add(Stream.CURRENT, document["ts_ms"], document)
        found.append(trend.points())
        chance.shuffle(sent)
    assert found[0] == found[1]


# -- a week of a device ---------------------------------------------------------------------------------

MONDAY = week_of(START_MS)


def record(week: int, day: float, completed: bool = True, output_s: float = 300.0, **fields: Any) -> SessionRecord:
    started_ms = MONDAY + week * WEEK_MS + round(day * DAY_MS)
    return SessionRecord.model_construct(
        device_id=DEVICE, model=MODEL, hw="B", fw="2.3.1", session_id=f"s-{started_ms}", started_ms=started_ms, output_s=output_s,
        effective_s=output_s - 20.0, charge_mc=output_s / 10, completed=completed, **fields,
    )  # fmt: skip


def weeks(*records: SessionRecord, **given: Any) -> list[Point]:
    return weeks_of(DEVICE, records, PROFILES.find, **given)


def column(found: list[Point], *names: str) -> list[tuple]:
    return [tuple(p.fields[name] for name in names) for p in found]


def full(week: int, sessions: int) -> list[SessionRecord]:
    return [record(week, day) for day in range(sessions)]


def test_a_week_begins_on_monday_at_midnight_utc() -> None:
    import datetime

    for t_ms in (START_MS, START_MS + 5 * DAY_MS, 0, MONDAY, MONDAY - 1):
        begins = datetime.datetime.fromtimestamp(week_of(t_ms) / 1000, datetime.UTC)
        assert (begins.isoweekday(), begins.hour, begins.minute, begins.second) == (1, 0, 0, 0)
        assert 0 <= t_ms - week_of(t_ms) < WEEK_MS


def test_a_week_is_told_with_all_its_figures() -> None:
    assert weeks(record(0, 0), record(0, 2, completed=False), record(0, 6.99), record(0, 3, output_s=59.9)) == [
        Point(
            WEEK.name, (DEVICE, MODEL, EVERY),
            {"sessions": 3, "completions": 2, "prescribed": 5, "streak_weeks": 0, "course_sessions": 2, "adherence": 0.4,
             "output_s": 900.0, "effective_s": 840.0, "charge_mc": 90.0},
            MONDAY * 1_000_000,
        )
    ]  # fmt: skip


def test_initiation_lasts_eight_weeks_from_the_first_session_and_adherence_is_never_above_one() -> None:
    found = weeks(*(r for week in range(10) for r in full(week, 4)))
    assert column(found, "prescribed", "adherence") == [(5, 0.8)] * 8 + [(3, 1.0)] * 2


def test_a_streak_counts_weeks_in_a_row_and_a_weak_or_missing_week_breaks_it() -> None:
    found = weeks(*full(0, 4), *full(1, 5), *full(2, 3), *full(3, 5), *full(5, 5), *full(6, 5))
    assert column(found, "streak_weeks", "course_sessions") == [(1, 4), (2, 9), (0, 12), (1, 17), (1, 22), (2, 27)]
    assert [p.time_ns // 1_000_000 - MONDAY for p in found] == [week * WEEK_MS for week in (0, 1, 2, 3, 5, 6)]


def test_a_model_without_a_profile_is_prescribed_what_the_domain_says() -> None:
    assert column(weeks_of(DEVICE, full(0, 5) + full(8, 3), lambda *_: None), "prescribed") == [(5,), (3,)]


def test_weeks_go_on_from_what_is_left_of_those_before_them() -> None:
    everything = [r for week in range(12) for r in full(week, 5)]
    whole = weeks(*everything)
    for cut in range(1, 12):
        last = whole[cut - 1].fields
        before = Before(MONDAY + cut * WEEK_MS, MONDAY, last["course_sessions"], last["streak_weeks"])
        assert weeks(*everything, before=before) == whole[cut:]


@given(st.randoms(use_true_random=False))
def test_weeks_do_not_depend_on_the_order_of_records(chance: random.Random) -> None:
    records = [record(week, day, output_s=60 + 0.1 * day) for week in range(3) for day in range(6)]
    shuffled = chance.sample(records, len(records))
    assert weeks(*records) == weeks(*shuffled)


def put(line: Line, *records: SessionRecord) -> Line:
    for each in records:
        whole = SessionRecord.model_construct(**{"last_ms": each.started_ms + 300_000, "minutes": {}, "zone_s": {}, **each.__dict__})
        line.write(lambda whole=whole: line.journal.put_session(whole, 7))
    return line


def week_points(line: Line) -> list[tuple[int, int, int]]:
    """(week, sessions, streak) of each point, in the order in which they went out."""
    return [((at + FIRST_MS - MONDAY) // WEEK_MS, f["sessions"], f["streak_weeks"]) for (_, at), f in points(line, WEEK)]


def test_a_session_has_its_week_told_and_later_ones_that_it_changes(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        summed(put(line, *full(0, 3), *full(1, 5), *full(3, 5)), START_MS)
        assert week_points(line) == [(0, 3, 0), (1, 5, 1), (3, 5, 1)]
        summed(put(line, record(0, 5.5)), START_MS + summaries.SETTLE_MS)
        assert week_points(line)[3:] == [(0, 4, 1), (1, 5, 2), (3, 5, 1)]  # the course of the last is longer
        summed(put(line, record(1, 5.5, completed=False)), START_MS + 2 * summaries.SETTLE_MS)
        assert week_points(line)[6:] == [(1, 6, 2)]  # nothing else is changed by it
        summed(line, START_MS + 3 * summaries.SETTLE_MS)
        assert len(week_points(line)) == 7


def test_a_session_that_late_data_move_to_another_week_leaves_the_old_one_right(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        moved = record(1, 0)
        summed(put(line, record(0, 1), moved), START_MS)
        moved.started_ms -= 1
        summed(put(line, moved), START_MS + summaries.SETTLE_MS)
        assert {at: f["sessions"] for at, f in held(line, WEEK).items()} == {
            ((DEVICE, MODEL, EVERY), MONDAY - FIRST_MS): 2, ((DEVICE, MODEL, EVERY), MONDAY + WEEK_MS - FIRST_MS): 0,
        }  # fmt: skip


def test_weeks_that_are_due_outlive_a_worker(tmp_path: Path) -> None:
    with Line(tmp_path / "0") as line:
        put(line, *full(0, 5))
        with line.die(tmp_path / "1") as later:
            assert week_points(summed(later, START_MS)) == [(0, 5, 1)]


def test_a_session_that_is_over_makes_a_week(tmp_path: Path) -> None:
    from tests.unit.test_sessions import heard, plain

    with Line(tmp_path) as line:
        heard(line, plain(70))
        assert week_points(summed(line, START_MS + 600_000)) == [(0, 1, 0)]


# -- journals of before ---------------------------------------------------------------------------------

V2 = (Path(__file__).parent / "journal-v2.sql").read_text()


def test_a_journal_of_version_2_has_its_slots_and_weeks_told_once_it_is_opened(tmp_path: Path) -> None:
    with Line(tmp_path / "new") as line:
        line.run(current(0, FIRST_MS), current(1, FIRST_MS + SLOT_MS - 1), current(2, FIRST_MS + SLOT_MS))
        put(line, *full(0, 5))
        expected = held(summed(line, READY_MS + SLOT_MS)), held(line, WEEK)
        (tmp_path / "old").mkdir()
        with sqlite3.connect(tmp_path / "old" / "journal.db") as db:
            db.executescript(V2)
            meta = {"uuid": "u-1", "running": 0, "processed_upto": 3, "stored": 3, "duplicate": 0, "quarantined": 0}
            db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
            for table, columns in {"raw": "id, received_ms, topic, payload, retained", "message": "*", "session": "device_id, session, started_ms, last_ms, model, fw, output_s, first_boot, doc"}.items():
                for row in line.journal._db.execute(f"SELECT {columns} FROM {table}"):
                    db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
            db.execute("PRAGMA user_version = 2")
        db.close()
    with Line(tmp_path / "old") as line:
        assert (held(summed(line, READY_MS + SLOT_MS)), held(line, WEEK)) == expected
        assert len(expected[0]) == 2


@pytest.mark.parametrize(("pruned", "kept"), [(0, 1), (1, 0)])
def test_what_a_journal_of_version_2_has_pruned_is_not_told_in_part(tmp_path: Path, pruned: int, kept: int) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.executescript(V2)
        meta = {"uuid": "u-1", "running": 0, "processed_upto": 2, "stored": 2, "duplicate": 0, "quarantined": 0}
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        one = current(1, FIRST_MS + 120_000)
        db.execute("INSERT INTO raw VALUES (?, ?, ?, ?, 0)", (1 + pruned, one.received_ms, one.topic, one.payload))
        times = (FIRST_MS + 120_000,) * 3
        db.execute("INSERT INTO message VALUES (?, 7, 0, 1, ?, 's-1', ?, ?, ?, 1)", (DEVICE, 1 + pruned, *times))
        db.execute("PRAGMA user_version = 2")
    db.close()
    with Line(tmp_path) as line:
        assert len(held(summed(line))) == kept
