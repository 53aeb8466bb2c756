"""What happens when there is no more room: levels, a full disk in the midst of everything, and the way back."""

import os
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ingest import disk
from ingest.app import is_of_the_disk
from ingest.errors import NoRoom, Unavailable
from ingest.journal import Journal
from ingest.mqtt import Delivery
from ingest.points import Entry
from ingest.pressure import MIB, RESERVE_FILE, Amounts, Level, Room, level_of
from ingest.sinks.duckdb import _CONFIG, FILE_NAME, DuckDBSink
from ingest.supervisor import NoSpaceLeft
from schemas.topics import Stream
from tests.line import DEVICE, IN_MEMORY, START_MS, Line, deliver, message, pulse, stored

NORMAL, HIGH, STOPPED = Level.NORMAL, Level.HIGH, Level.STOPPED
PLENTY = 10**12


@pytest.fixture(autouse=True)
def looks_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOOK_S", 0.0)
    monkeypatch.setattr(disk, "FULL_S", 0.0)


# -- levels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "used", "level"),
    [
        (NORMAL, 699, NORMAL), (NORMAL, 700, HIGH), (NORMAL, 949, HIGH), (NORMAL, 950, STOPPED), (NORMAL, 2_000, STOPPED),
        (HIGH, 651, HIGH), (HIGH, 649, NORMAL), (HIGH, 949, HIGH), (HIGH, 950, STOPPED),
        (STOPPED, 900, STOPPED), (STOPPED, 899, HIGH), (STOPPED, 651, HIGH), (STOPPED, 649, NORMAL),
    ],
)  # fmt: skip
def test_a_level_follows_from_what_the_journal_takes_and_is_left_with_room_to_spare(before: Level, used: int, level: Level) -> None:
    assert level == level_of(before, Amounts(used, 1_000, PLENTY, 0))


@pytest.mark.parametrize(
    ("before", "free", "level"),
    [
        (NORMAL, 200, NORMAL), (NORMAL, 199, HIGH), (NORMAL, 100, HIGH), (NORMAL, 99, STOPPED),
        (HIGH, 219, HIGH), (HIGH, 220, NORMAL), (STOPPED, 119, STOPPED), (STOPPED, 120, HIGH), (STOPPED, 220, NORMAL),
    ],
)  # fmt: skip
def test_a_level_follows_from_what_is_free_too(before: Level, free: int, level: Level) -> None:
    assert level == level_of(before, Amounts(0, PLENTY, free, 100))


@given(st.sampled_from(Level), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_less_room_is_never_a_lower_level(before: Level, used: int, limit: int, free: int, floor: int) -> None:
    level = level_of(before, Amounts(used, limit, free, floor)).rank
    assert level <= level_of(before, Amounts(used + limit // 10 + 1, limit, free, floor)).rank
    assert level <= level_of(before, Amounts(used, limit, free // 2, floor)).rank
    assert level <= level_of(STOPPED, Amounts(used, limit, free, floor)).rank


def test_what_was_accepted_must_find_room_to_be_worked_off(tmp_path: Path) -> None:
    few, many = Room(tmp_path, floor_bytes=10).amounts(0, 0, 0), Room(tmp_path, floor_bytes=10).amounts(0, 0, 1_000_000)
    assert 10 == few.floor
    assert 1_000_000_000 < many.floor


def test_a_small_disk_and_a_small_journal_keep_a_small_reserve(tmp_path: Path) -> None:
    room = Room(tmp_path, max_bytes=4 * MIB, floor_bytes=0)
    assert room.make_reserve() and room.make_reserve()
    kept = (tmp_path / RESERVE_FILE).stat()
    assert room.reserve_bytes == kept.st_size < MIB
    assert kept.st_blocks * 512 >= kept.st_size
    assert room.give_up_reserve() and not room.give_up_reserve()
    assert [] == list(tmp_path.iterdir())


def test_no_reserve_is_made_where_little_is_free(tmp_path: Path) -> None:
    assert not Room(tmp_path, floor_bytes=PLENTY * 1_000).make_reserve()
    assert [] == list(tmp_path.iterdir())


# -- a journal that cannot grow -------------------------------------------------------------------------


def current(seq: int, **fields: object) -> Delivery:
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + 1_000 * seq, **fields), START_MS + 1_000 * seq)


DANGER = {"i_peak_ua": 900.0}


def line_with_room(directory: Path) -> Line:
    line = Line(directory)
    line.core.disk.room = Room(directory, floor_bytes=0)
    return line


@pytest.fixture
def line() -> Iterator[Line]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root, line_with_room(Path(root)) as line:
        yield line


def allow_pages(journal: Journal, more: int) -> None:
    """SQLite itself then says that the disk is full."""
    pages = journal._scalar("PRAGMA page_count")
    journal._db.execute(f"PRAGMA max_page_count={pages + more}")


def assert_as_on_disk(line: Line) -> None:
    """What is known in memory is what a new worker would read from the files."""
    ledger, devices = line.journal.ledger(), {d.device_id: d.to_json() for d in line.core.devices.values()}
    assert ledger.balanced
    line.journal.read_again()
    assert ledger == line.journal.ledger()
    assert devices == {i: d for i, d in line.journal.devices().items()}


def test_what_finds_no_room_is_not_acknowledged_and_goes_on_when_there_is_some(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "FULL_S", 3_600.0)
    line.run(*(current(n) for n in range(10)))
    allow_pages(line.journal, 0)
    waiting = [current(n) for n in range(10, 400)]
    line.part(5, *waiting).part(3, *(current(n) for n in range(400, 420)))
    assert STOPPED == line.core.disk.pressure.level
    assert "full" in line.core.disk.pressure.detail
    assert line.feed.held
    assert 10 == len(line.feed.acknowledged) == line.journal.accepted
    assert_as_on_disk(line)
    allow_pages(line.journal, 1_000)
    line.part(3)
    assert 10 == line.journal.accepted
    line.core.disk._full_until = 0.0
    line.part(30).run()
    assert NORMAL == line.core.disk.pressure.level
    assert not line.feed.held
    assert 420 == len(line.feed.acknowledged) == line.journal.accepted == line.journal.outbox
    assert_as_on_disk(line)


def test_a_danger_that_was_accepted_is_told_though_nothing_can_be_recorded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.run(*(current(n) for n in range(3)))
    line.journal.accept([(d.received_ms, d.topic, d.payload, d.retained) for d in (current(n, **DANGER) for n in range(3, 60))])
    line.core._load_again()
    allow_pages(line.journal, 0)
    monkeypatch.setattr(Room, "is_writable", lambda *_: False)
    line.part(6)
    told = [said for topic, said in line.feed.said if topic.endswith("/alert")]
    assert 1 == len({said["alert"]["id"] for said in told}) == len([said for said in told if said["event"] == "opened"])
    assert {"overcurrent-peak"} == {said["alert"]["rule"] for said in told}
    assert all("before it could be recorded" in said["note"] for said in told)
    assert [] == line.alerts()
    assert 57 == line.journal.ledger().inbox
    assert_as_on_disk(line)
    monkeypatch.undo()
    allow_pages(line.journal, 1_000)
    line.part(30).run()
    recorded = line.alerts()
    assert [told[0]["alert"]["id"]] == [alert["id"] for alert in recorded]
    assert 0 == line.journal.ledger().inbox


def test_who_acts_while_nothing_can_be_recorded_is_told_and_what_the_store_confirmed_waits(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.run(*(current(n) for n in range(30)))
    entries = line.waiting()
    allow_pages(line.journal, 0)
    monkeypatch.setattr(Room, "is_writable", lambda *_: False)
    line.part(2, *(current(n) for n in range(30, 400)))
    confirmed = line.core.request(lambda: line.core.settle(entries, [], lambda *_: b""), write=True)
    act = line.core.request(lambda: line.core.journal.put_told([("d", 1, b"x")]), write=True, insist=False)
    question = line.core.request(line.journal.ledger)
    line.part(2)
    assert isinstance(act.exception(0), NoRoom)
    assert question.result(0).balanced
    assert not confirmed.done()
    monkeypatch.undo()
    allow_pages(line.journal, 1_000)
    line.part(30).run()
    assert confirmed.done()
    assert 30 == line.journal.stored
    assert 400 == line.journal.accepted
    assert line.journal.ledger().balanced


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["send", "danger", "twice", "full", "room", "die"]), st.integers(0, 20)), max_size=12))
def test_a_full_disk_changes_nothing_of_what_is_said_in_the_end(course: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        undisturbed, line = Line(Path(root) / "sound"), line_with_room(Path(root) / "0")
        seq = 0
        for at, (what, n) in enumerate(course):
            if what in ("send", "danger", "twice"):
                deliveries = [current(seq + i, **(DANGER if what == "danger" else {})) for i in range(n)]
                seq += 0 if what == "twice" else n
                undisturbed.run(*deliveries)
                line.part(3, *deliveries)
            elif what == "full":
                allow_pages(line.journal, n % 4)
            elif what == "room":
                allow_pages(line.journal, 500)
            elif what == "die":
                line, dead = line.die(Path(root) / f"{at + 1}"), line
                line.feed.waiting.extendleft(reversed(dead.core._taken))  # the broker delivers again what nobody acknowledged
                line.core.disk.room = Room(line.directory, floor_bytes=0)
                dead.journal.close()
            assert line.journal.ledger().balanced
        allow_pages(line.journal, 5_000)
        end = pulse(START_MS + 1_000 * (seq + 30))
        undisturbed.run(end)
        line.part(60).run(end)
        line.part(5).run()
        assert undisturbed.journal.ledger() == line.journal.ledger()
        assert _said(undisturbed) == _said(line)
        assert_as_on_disk(line)
        undisturbed.journal.close()
        line.journal.close()


def _said(line: Line) -> list[tuple]:
    return sorted((a["id"], a["severity"], a["state"], a["value"], a["opened_ms"]) for a in line.alerts() if a["state"] != "withdrawn")


# -- a disk that fails ----------------------------------------------------------------------------------


def test_a_damaged_journal_is_a_matter_of_the_disk_and_a_wrong_statement_is_not(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db, pytest.raises(sqlite3.OperationalError) as wrong:
        db.execute("SELECT nonsense")
    db.close()
    assert not is_of_the_disk(wrong.value)
    (tmp_path / "y.db").write_bytes(os.urandom(8192))
    db = sqlite3.connect(tmp_path / "y.db")
    with pytest.raises(sqlite3.DatabaseError) as damaged:
        db.execute("SELECT * FROM sqlite_master")
    db.close()
    assert is_of_the_disk(damaged.value)


# -- others on the same disk ----------------------------------------------------------------------------


ROOM_LEFT = 1_000_000


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """To a program that looks like a disk that has no room for longer files."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


@pytest.mark.parametrize("checkpoint", ["16MB", "64KB"], ids=["not written", "written, and the store none the wiser"])
def test_a_store_without_room_is_waited_for_and_holds_each_message_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str) -> None:
    monkeypatch.setitem(_CONFIG, "checkpoint_threshold", checkpoint)

    def entries(first: int, count: int) -> list[Entry]:
        return [
            Entry(n, DEVICE, n, Stream.CURRENT.value, START_MS + n, START_MS + n, True, message(Stream.CURRENT, n, START_MS + n))
            for n in range(first, first + count)
        ]

    sink = DuckDBSink(tmp_path)
    assert sink.open("j") is None
    sink.write(entries(1, 100))
    upto, files = 100, [tmp_path / FILE_NAME, tmp_path / f"{FILE_NAME}.wal"]
    with no_file_longer_than(max(f.stat().st_size for f in files if f.exists()) + ROOM_LEFT):
        with pytest.raises(Unavailable, match="no room for"):
            while upto < 100_000:
                sink.write(entries(upto + 1, 100))
                upto += 100
        assert not sink.is_open
        with pytest.raises(Unavailable):
            sink.reader().rows("SELECT 1", {}, 1)
    end = upto + 500
    while upto < end:  # smaller writes, as after any failure: what the failed one has left in the file comes again
        sink.write(entries(upto + 1, 20))
        upto += 20
    assert sink.is_open
    (count, different) = stored(sink, "SELECT count(*), count(DISTINCT seq) FROM current")[0]
    assert upto == count == different
    sink.close()


def test_a_store_without_memory_for_a_write_is_waited_for_and_holds_all_of_it_once_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entries(first: int, count: int) -> list[Entry]:
        said = message(Stream.CURRENT, 0, START_MS)
        return [Entry(n, DEVICE, n, Stream.CURRENT.value, START_MS + n, START_MS + n, True, said) for n in range(first, first + count)]

    monkeypatch.setitem(_CONFIG, "memory_limit", "10MB")
    sink = DuckDBSink(tmp_path)
    sink.open("j")
    sink.write(entries(1, 20))
    with pytest.raises(Unavailable, match="Out of Memory"):
        sink.write(entries(21, 40_000))
    for first in range(21, 221, 20):
        sink.write(entries(first, 20))
    assert [(220, 220)] == stored(sink, "SELECT count(*), count(DISTINCT time_ns) FROM current")
    sink.close()


def test_a_broker_is_started_anew_once_there_is_room_for_what_it_could_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "broker.log"
    log.write_text("[ERR] write x.blk: no space left on device\n")  # of an earlier life
    watch = NoSpaceLeft(log)
    assert not watch.is_over()

    def look() -> bool:
        watch._due = 0.0
        return watch.is_over()

    with log.open("a") as file:
        file.write("[INF] all is well\n[ERR] write x.blk: no space left on device\n")
    full = os.statvfs_result((4096, 4096, 1000, 1, 1, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert not look() and not look()
    monkeypatch.undo()
    assert look()
    assert not look()
    log.write_text("[ERR] no space left on device\n")  # a new log, shorter than the old one
    assert look()
