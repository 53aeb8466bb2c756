"""The journal holds what was promised, whatever is killed, closed or refused in between."""

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ingest.errors import EXIT_LOCKED, Mistake
from ingest.journal import Journal
from ingest.journal.confirmed import Confirmed
from ingest.mqtt import Delivery
from ingest.sink import RefusedEntry
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.line import DEVICE, IN_MEMORY, START_MS, Line, copy_files, deliver, message, pulse

FILE = "journal.db"


def current(seq: int, *, received_ms: int | None = None, **fields: Any) -> Delivery:
    sent_ms = START_MS + 1_000 * seq
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, sent_ms, **fields), sent_ms if received_ms is None else received_ms)


def assert_accounted(line: Line) -> None:
    """In total and per device: accepted = pending + stored + duplicate + quarantined."""
    ledger, devices = line.journal.ledger(), line.core.devices.values()
    assert ledger.balanced
    told = {name: sum(getattr(d, name) for d in devices) for name in ("stored", "duplicate", "quarantined")}
    assert told == {name: getattr(ledger, name) for name in told}
    assert sum(d.pending for d in devices) == ledger.outbox
    assert sum(d.accepted for d in devices) == ledger.accepted - ledger.inbox


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 12)),
        st.tuples(st.just("send bad"), st.integers(0, 3)),
        st.tuples(st.just("send other"), st.integers(0, 12)),
        st.tuples(st.just("accept"), st.integers(0, 12)),
        st.tuples(st.just("store"), st.integers(1, 5)),
        st.tuples(st.just("store refuses"), st.integers(1, 2)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("die"), st.just(0)),
        st.tuples(st.just("prune"), st.integers(0, 20)),
    ),
    max_size=14,
)


@settings(max_examples=80)
@given(steps)
def test_every_message_is_somewhere_after_any_course_of_events(course: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        line = Line(Path(root) / "0")
        for at, (what, n) in enumerate(course):
            entries = line.waiting()[:n]
            if what == "send":
                line.run(current(n))
            elif what == "send bad":
                line.run(current(n, level="three"))
            elif what == "send other":
                line.run(current(n, level=5))
            elif what == "accept":
                line.journal.accept([(START_MS, b"mc/v1/%s/current" % DEVICE.encode(), message(Stream.CURRENT, n, START_MS + 1_000 * n), False)])
                assert line.journal.ledger().balanced
            elif what == "store" and entries:
                line.settle(entries)
            elif what == "store refuses" and entries:
                line.settle(entries, [RefusedEntry(entries[-1], Reason.SINK_REJECTED_422, "no")])
            elif what == "restart":
                line.restart()
            elif what == "die":
                line, dead = line.die(Path(root) / f"{at + 1}"), line
                dead.journal.close()
            elif what == "prune":
                line.prune(START_MS + 1_000 * n, 3)
            assert line.journal.ledger().balanced
        line.restart()
        assert_accounted(line)
        assert all(entry.payload is not None for entry in line.waiting())
        line.settle_store()
        assert_accounted(line)
        assert line.journal.ledger().pending == 0
        line.journal.close()


@given(st.integers(0, 12), st.integers(0, 6))
@settings(max_examples=40)
def test_files_copied_between_any_two_steps_open_with_the_ledger_balanced(messages: int, turns: int) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root, Line(Path(root) / "live") as line, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingest.backlog.TURN_MOST", 2)
        line.part(turns, *(current(seq % 9, level="x" if seq == 5 else 3) for seq in range(messages)))
        with line.die(Path(root) / "copy") as later:
            assert later.journal.unclean
            assert later.journal.ledger().balanced
            later.run()
            line.run()
            assert later.journal.ledger() == line.journal.ledger()
            assert_accounted(later)


def test_files_copied_in_the_middle_of_a_step_hold_nothing_of_it(tmp_path: Path) -> None:
    with Line(tmp_path / "live") as line:
        line.run(current(0))
        before = line.journal.ledger()
        with line.journal.step():
            line.journal.settle(line.waiting())
            copy_files(tmp_path / "live", tmp_path / "copy")
        assert line.journal.ledger() != before
        with Line(tmp_path / "copy") as later:
            assert later.journal.ledger() == before


def test_a_step_that_fails_has_not_happened(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0))
        with pytest.raises(ZeroDivisionError), line.journal.step():
            line.journal.add_notice("t", b"{}")
            raise ZeroDivisionError
        assert line.journal.notices_waiting() == 0


def test_an_orderly_end_is_remembered_and_a_death_too(tmp_path: Path) -> None:
    with Line(tmp_path / "0") as line:
        assert not line.journal.unclean
        line.restart()
        assert not line.journal.unclean
        with line.die(tmp_path / "1") as later:
            assert later.journal.unclean
            later.restart()
            assert not later.journal.unclean
            assert later.journal.uuid == line.journal.uuid


def test_a_journal_of_a_newer_program_is_refused_in_one_sentence(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    for _ in range(2):  # the lock was given back
        with pytest.raises(Mistake, match=r"^\S+journal\.db: written by a newer version of this program .*999.*$") as told:
            Journal(tmp_path)
    assert told.value.exit_code == 2


def test_a_file_that_is_no_database_is_refused_in_one_sentence_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, but someone's notes" * 50)
    with pytest.raises(Mistake, match=r"^\S+journal\.db: not a readable journal"):
        Journal(tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"not a database, but someone's notes" * 50


def test_somebody_elses_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    with pytest.raises(Mistake, match=r"^\S+journal\.db: is an SQLite file, but not a journal"):
        Journal(tmp_path)


def test_a_second_owner_is_refused_with_the_number_of_the_first_and_the_exit_code_for_it(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    with pytest.raises(Mistake, match=r"process \d+\) already owns") as told:
        Journal(tmp_path)
    assert told.value.exit_code == EXIT_LOCKED == 73
    first.close()
    Journal(tmp_path).close()


@given(st.integers(0, 6), st.integers(0, 20), st.integers(1, 20))
@settings(max_examples=40)
def test_pruning_never_removes_what_is_not_yet_stored(stored: int, before: int, most: int) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root, Line(Path(root)) as line:
        line.run(*(current(seq) for seq in range(6))).settle_store(stored)
        line.journal.accept([(START_MS, b"mc/v1/tone-1/current", message(Stream.CURRENT, 9), False)])
        with line.journal.step():
            line.journal.prune_raw(START_MS + 1_000 * before, most)
        assert [entry.payload for entry in line.waiting()] == [current(seq).payload for seq in range(stored, 6)]
        assert [raw.payload for raw in line.journal.inbox(line.journal.processed_upto, 100)] == [message(Stream.CURRENT, 9)]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"boot_id":{},"seq":1}', b'{"boot_id":1,"seq":[]}', b'{"boot_id":18446744073709551615,"seq":1}', b'{"boot_id":1e308,"seq":"x"}',
        b'{"boot_id":null,"seq":true}', b"[]", b"[1]", b"7", b'"boot_id"', b"", b"{}", b"\xff", b'{"boot_id":[[]],"seq":9007199254740993}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("topic", [f"mc/v1/{DEVICE}/current", "elsewhere", "\udcff"])
def test_pruning_survives_whatever_was_refused(topic: str, payload: bytes, tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(deliver(topic, payload), current(0), current(1)).settle_store()
        line.prune(START_MS + 10**9)
        assert [entry["bytes"] for entry in line.journal.quarantine()] == [len(payload)]
        assert line.journal.session_messages(DEVICE, "s-1", 0)[0][0][0].id == 3


def test_the_bytes_of_a_refused_message_with_danger_are_forgotten_with_its_raw_message(tmp_path: Path) -> None:
    for_nobody = deliver("elsewhere", b'{"i_peak_ua":5000}')
    with Line(tmp_path) as line:
        line.run(for_nobody, deliver(Stream.CURRENT, b'{"i_peak_ua":5000}'), current(0), current(1)).settle_store()
        line.prune(START_MS + 10**9)
        rows = line.journal._db.execute("SELECT device_id, lane FROM message").fetchall()
        assert rows == [(DEVICE, 0)]


def test_the_same_refused_message_is_kept_once_and_counted(tmp_path: Path) -> None:
    bad = current(0, level="three")
    with Line(tmp_path) as line:
        line.one_by_one([bad, bad, current(0, level="four"), bad])
        assert [(e["reason"], e["times"]) for e in line.journal.quarantine()] == [("schema", 1), ("schema", 3)]
        ledger = line.journal.ledger()
        assert (ledger.accepted, ledger.quarantined, ledger.duplicate) == (4, 2, 2)
        assert_accounted(line)


def test_what_the_store_refuses_moves_to_quarantine_with_its_words(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0), current(1))
        first, second = line.waiting()
        line.settle([first, second], [RefusedEntry(second, Reason.SINK_REJECTED_400, "400: unable to parse")])
        assert [(e["reason"], e["detail"], e["seq"]) for e in line.journal.quarantine()] == [("sink_rejected_400", "400: unable to parse", 1)]
        assert_accounted(line)
        with Confirmed(line.journal.path) as confirmed:
            assert list(confirmed.keys(DEVICE, 0)) == [(7, 0, 0)]


def test_what_the_store_has_not_confirmed_stays_in_the_outbox(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*(current(seq) for seq in range(5)))
        waiting = line.waiting()
        line.settle(waiting[:2])
        assert waiting[2:] == line.waiting()
        assert waiting[2:] == line.restart().waiting()
        line.settle(waiting[2:4], [RefusedEntry(waiting[3], Reason.SINK_REJECTED_422, "no")])
        assert waiting[4:] == line.restart().waiting()
        assert (3, 1, 1) == (line.journal.stored, line.journal.quarantined, line.journal.outbox)
        assert_accounted(line)


def test_what_the_store_held_when_the_worker_died_is_counted_as_stored(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*(current(seq) for seq in range(5)))
        third = line.waiting()[2]
        line.write(lambda: line.core.settle_upto(third.id))
        assert_accounted(line)
        assert (line.journal.stored, line.journal.outbox) == (3, 2)


def test_what_the_store_held_is_counted_for_its_device_though_the_worker_dies_at_once(tmp_path: Path) -> None:
    with Line(tmp_path / "0") as line:
        line.run(*(current(seq) for seq in range(5)))
        with line.journal.step():
            line.core.settle_upto(line.waiting()[2].id)
        with line.die(tmp_path / "1") as later:
            assert later.core.devices[DEVICE].stored == later.journal.stored == 3


def test_a_message_that_kills_the_worker_again_and_again_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(tmp_path / "0")
    line.feed.waiting.extend([current(0), current(1)])

    def die(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("ingest.intake.readings", die)
    for life in range(1, 7):
        with pytest.raises(MemoryError):
            line.run()
        line, dead = line.die(tmp_path / str(life)), line
        dead.journal.close()
        if life == 4:
            break
    monkeypatch.undo()
    line.run(pulse(START_MS + 60_000))
    assert line.journal.ledger().pending == 1
    assert line.reasons() == ["crash_suspect"]
    assert_accounted(line)
    line.journal.close()
