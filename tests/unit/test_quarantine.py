"""Refused messages: sent through the line again they are stored once; discarded they stay as a fact; and none fills the disk."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from ingest.journal.quarantine import Quota, RefusedFilter
from ingest.mqtt import Delivery
from ingest.sink import RefusedEntry
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.line import DEVICE, IN_MEMORY, START_MS, Line, deliver, message

DAY_MS = 86_400_000
SENT_MS = START_MS - 10 * DAY_MS
EVERYTHING = RefusedFilter()


def old(seq: int, **fields: Any) -> Delivery:
    """A message that is ten days old: refused by a line that keeps one day, kept by one that keeps ninety."""
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, SENT_MS + 1_000 * seq, **fields), START_MS + 1_000 * seq)


def forgetful(directory: Path) -> Line:
    return Line(directory, retention_days=1)


def remember(line: Line) -> Line:
    """Start the worker again with a longer retention: what was too old is not any more."""
    line.retention_days = 90
    return line.restart()


def replay(line: Line, wanted: RefusedFilter = EVERYTHING, by: str = "Ada") -> Line:
    line.write(lambda: line.core.replay(wanted, 500, by, "kept longer now"))
    return line.run()


def states(line: Line) -> list[tuple[str, str]]:
    return [(entry["state"], entry["reason"]) for entry in reversed(line.journal.quarantine())]


def happened(line: Line, entry_id: int) -> list[tuple[str, str]]:
    _, _, events = line.journal.quarantined_entry(entry_id)
    return [(event["event"], event["actor"]) for event in events]


def stored_keys(line: Line) -> list[tuple[int, int]]:
    """(boot, seq) of all that waits for the store, each as often as it would be stored."""
    found = line.journal._db.execute(
        "SELECT boot_id, seq FROM outbox JOIN message ON message.raw_id = outbox.raw_id WHERE lane < 2 ORDER BY outbox.id"
    )
    return found.fetchall()


def assert_accounted(line: Line) -> None:
    ledger, devices = line.journal.ledger(), line.core.devices.values()
    assert ledger.balanced
    told = {name: sum(getattr(d, name) for d in devices) for name in ("stored", "duplicate", "quarantined")}
    assert told == {name: getattr(ledger, name) for name in told}
    assert sum(d.accepted for d in devices) == ledger.accepted - ledger.inbox


def assert_sums_agree(line: Line) -> None:
    """What is summed up of the entries is what a look at each of them gives."""
    counted = line.journal._db.execute(
        "SELECT coalesce(device_id, 'unidentified'), reason, state, count(*), sum(1 + more), sum(held) FROM quarantine GROUP BY 1, 2, 3"
    )
    told = line.journal._db.execute("SELECT * FROM quarantine_sum WHERE device_id != '~all' AND messages + entries + bytes != 0")
    assert sorted(counted.fetchall()) == sorted(told.fetchall())
    held = line.journal._scalar("SELECT coalesce(sum(length(payload)), 0) FROM quarantine_payload")
    assert held == line.journal.quarantine_state()["bytes"]


def test_a_replayed_message_is_kept_as_if_it_came_when_it_first_did(tmp_path: Path) -> None:
    with forgetful(tmp_path) as line:
        line.run(old(0), old(1)).clock.ms += 3 * DAY_MS
        replay(remember(line))
        assert states(line) == [("replayed", "too_old")] * 2
        assert [(e.event_ms, e.received_ms, e.clock_ok) for e in line.waiting()] == [
            (SENT_MS, START_MS, True), (SENT_MS + 1_000, START_MS + 1_000, True),
        ]  # fmt: skip
        ledger = line.journal.ledger()
        assert (ledger.accepted, ledger.outbox, ledger.quarantined) == (4, 2, 2)
        assert_accounted(line)
        assert happened(line, 1) == [("replay", "Ada"), ("kept", "~worker")]
        assert_sums_agree(line)


def test_a_message_that_is_refused_again_stays_open_with_its_new_reason(tmp_path: Path) -> None:
    with forgetful(tmp_path) as line:
        line.run(old(0, i_peak_ua=201.0), deliver(Stream.CURRENT, message(Stream.CURRENT, 1, START_MS, level="x")))
        remember(line).run(old(0, i_peak_ua=207.0))  # the device has told this number otherwise meanwhile
        replay(line)
        assert states(line) == [("open", "conflict"), ("open", "schema")]
        assert happened(line, 1) == [("replay", "Ada"), ("refused", "~worker")]
        ledger = line.journal.ledger()
        assert (ledger.accepted, ledger.outbox, ledger.quarantined, ledger.duplicate) == (5, 1, 2, 2)
        assert [entry["times"] for entry in line.journal.quarantine()] == [1, 1]
        assert_accounted(line)
        assert_sums_agree(line)


def test_a_number_taken_by_a_message_that_is_no_longer_on_record_is_not_called_replayed(tmp_path: Path) -> None:
    with forgetful(tmp_path) as line:
        line.run(old(0, i_peak_ua=201.0))
        remember(line).run(old(0, i_peak_ua=207.0)).settle_store().prune(START_MS + DAY_MS)
        replay(line)
        assert states(line) == [("open", "conflict")]


def test_what_the_device_said_again_meanwhile_is_on_record_already(tmp_path: Path) -> None:
    with forgetful(tmp_path) as line:
        line.run(old(0))
        remember(line).run(old(0))
        replay(line)
        assert states(line) == [("replayed", "too_old")]
        assert happened(line, 1) == [("replay", "Ada"), ("held", "~worker")]
        assert stored_keys(line) == [(7, 0)]
        assert_accounted(line)


def test_danger_in_a_replayed_message_is_said_in_event_time_and_as_of_the_past(tmp_path: Path) -> None:
    with forgetful(tmp_path) as line, Line(tmp_path / "whole") as whole:
        sent_ms = START_MS - 60_000
        young = deliver(Stream.CURRENT, message(Stream.CURRENT, 0, sent_ms, i_peak_ua=900.0, level="x"), sent_ms)
        sound = deliver(Stream.CURRENT, message(Stream.CURRENT, 0, sent_ms, i_peak_ua=900.0), sent_ms)
        del young
        line.retention_days = 90
        line.restart()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ingest.admit.decode", _refuse_all)
            line.run(sound)
        assert line.reasons() == ["schema"]
        replay(line)
        whole.run(sound)
        told = [(a["rule"], a["severity"], a["onset_ms"], a["value"]) for a in line.alerts()]
        assert told == [(a["rule"], a["severity"], a["onset_ms"], a["value"]) for a in whole.alerts()] != []
        assert line.journal._db.execute("SELECT count(*) FROM message WHERE lane = 2").fetchone() == (0,)


def _refuse_all(topic: str, payload: bytes) -> None:
    from ingest.errors import InvalidMessage

    raise InvalidMessage(Reason.SCHEMA, "an older program did not know it")
