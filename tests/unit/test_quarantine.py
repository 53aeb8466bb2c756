"""Refused messages: sent through the line again they are stored once; discarded they stay as a fact; and none fills the disk."""

import tempfile
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import example, given, settings

from ingest.errors import InvalidMessage
from ingest.glean import Gleaned, condensed, glean
from ingest.journal.confirmed import Confirmed
from ingest.journal.quarantine import HEAD_BYTES, WHOLE_MOST, Quota, RefusedFilter
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
    line.write(lambda: line.core.acts.replay(wanted, 500, by, "kept longer now"))
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
        remember(line).run(old(0, i_peak_ua=207.0), old(1)).settle_store().prune(START_MS + DAY_MS)
        assert line.journal.payload_of(DEVICE, 7, 0, 0) is None
        replay(line)
        assert states(line) == [("open", "conflict")]
        assert "can no longer be compared" in line.journal.quarantine()[0]["detail"]


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
    sent_ms = START_MS - 60_000
    dangerous = deliver(Stream.CURRENT, message(Stream.CURRENT, 0, sent_ms, i_peak_ua=900.0), sent_ms)

    def told(line: Line) -> list[tuple]:
        return [(a["id"], a["severity"], a["value"], a["state"]) for a in line.alerts()]

    with Line(tmp_path / "refused") as line, Line(tmp_path / "taken") as taken:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ingest.admit.decode", _refuse_all)
            line.run(dangerous)
        assert line.reasons() == ["schema"]
        at_once = told(line)
        assert told(taken.run(dangerous)) == at_once != []
        assert told(replay(line)) == at_once
        assert line.journal._scalar("SELECT count(*) FROM message WHERE lane = 2") == 0
        assert told(line.restart()) == at_once


def test_a_replay_does_not_say_that_a_device_is_there_now(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ingest.admit.decode", _refuse_all)
            line.run(deliver(Stream.STATUS, message(Stream.STATUS, 0)), deliver(Stream.CURRENT, message(Stream.CURRENT, 1)))
        line.run(deliver(Stream.STATUS, message(Stream.STATUS, 2, START_MS + 9_000, state="offline", reason="shutdown"), START_MS + 9_000))
        assert line.core.devices[DEVICE].online is False
        replay(line)
        assert (line.core.devices[DEVICE].online, states(line)) == (False, [("replayed", "schema")] * 2)


def test_an_alert_that_only_the_replay_raises_is_retrospective(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ingest.admit.decode", _refuse_all)
            patch.setattr("ingest.admit.glean", lambda payload: Gleaned())
            line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 0, i_peak_ua=900.0)))
        assert line.alerts() == []
        replay(line)
        assert [(a["rule"], a["retrospective"], a["onset_ms"]) for a in line.alerts()] == [("overcurrent-peak", True, START_MS)]


def _refuse_all(topic: str, payload: bytes) -> None:
    raise InvalidMessage(Reason.SCHEMA, "an older program did not know it")


# -- what the store refused -----------------------------------------------------------------------------


def refuse_by_store(line: Line, which: int = 0) -> Line:
    entries = line.waiting()
    return line.settle(entries, [RefusedEntry(entries[which], Reason.SINK_REJECTED_422, "no such shard")])


def test_what_the_store_refused_goes_to_it_again_and_is_neither_judged_nor_sequenced_twice(tmp_path: Path) -> None:
    young = [deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + 1_000 * seq, i_peak_ua=900.0)) for seq in range(2)]
    with Line(tmp_path) as line:
        refuse_by_store(line.run(*young))
        said, messages = line.events(), line.journal._db.execute("SELECT boot_id, lane, seq FROM message").fetchall()
        before = line.core.devices[DEVICE].to_json()
        replay(line)
        assert [(e.event_ms, e.received_ms, e.payload) for e in line.waiting()] == [(START_MS, START_MS, young[0].payload)]
        assert states(line) == [("replayed", "sink_rejected_422")]
        assert line.events() == said
        assert line.journal._db.execute("SELECT boot_id, lane, seq FROM message").fetchall() == messages
        line.settle_store()
        ledger = line.journal.ledger()
        assert (ledger.accepted, ledger.stored, ledger.quarantined, ledger.duplicate) == (3, 2, 1, 0)
        assert_accounted(line)
        assert line.core.devices[DEVICE].boots == type(line.core.devices[DEVICE]).from_json(before).boots


def test_what_the_store_refuses_again_is_open_again_and_not_called_lost(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(old(0))
        refuse_by_store(replay(refuse_by_store(line)))
        assert states(line) == [("open", "sink_rejected_422")]
        assert [event for event, _ in happened(line, 1)] == ["replay", "kept", "refused"]
        ledger = line.journal.ledger()
        assert (ledger.accepted, ledger.stored, ledger.quarantined, ledger.duplicate) == (2, 0, 1, 1)
        assert_accounted(line)
        with Confirmed(line.journal.path) as confirmed:
            assert list(confirmed.keys(DEVICE, 0)) == []
        replay(line).settle_store()
        assert states(line) == [("replayed", "sink_rejected_422")]
        with Confirmed(line.journal.path) as confirmed:
            assert list(confirmed.keys(DEVICE, 0)) == [(7, 0, 0)]
        assert_sums_agree(line)


def test_a_replay_that_only_the_store_refuses_goes_to_the_store_alone_the_next_time(tmp_path: Path) -> None:
    with forgetful(tmp_path) as line:
        line.run(old(0))
        refuse_by_store(replay(remember(line)))
        assert states(line) == [("open", "sink_rejected_422")]
        replay(line).settle_store()
        assert states(line) == [("replayed", "sink_rejected_422")]
        assert (line.journal.stored, line.journal.outbox) == (1, 0)
        assert_accounted(line)


def test_what_the_store_refused_and_keeps_no_more_is_not_sent_to_it(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        refuse_by_store(line.run(old(0)))
        line.clock.ms += 85 * DAY_MS
        replay(line)
        assert (states(line), line.waiting()) == ([("open", "too_old")], [])
        assert_accounted(line)


def test_what_the_store_refused_and_keeps_no_more_stays_on_record_and_is_sent_to_it_when_it_keeps_longer(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        refuse_by_store(line.run(old(0)))
        line.clock.ms += 85 * DAY_MS
        replay(line)
        assert states(line) == [("open", "too_old")]
        assert line.journal.payload_of(DEVICE, 7, 0, 0) == old(0).payload
        with Confirmed(line.journal.path) as confirmed:
            assert list(confirmed.keys(DEVICE, 0)) == []
        line.retention_days = 365
        replay(line.restart())
        assert [e.payload for e in line.waiting()] == [old(0).payload]
        line.settle_store()
        assert [state for state, _ in states(line)] == ["replayed"]
        assert (line.journal.stored, line.journal.outbox) == (1, 0)
        with Confirmed(line.journal.path) as confirmed:
            assert list(confirmed.keys(DEVICE, 0)) == [(7, 0, 0)]
        assert_accounted(line)


# -- discarding -------------------------------------------------------------------------------------------


def test_what_is_discarded_stays_as_a_fact_with_its_head_and_its_hash(tmp_path: Path) -> None:
    payload = b"x" * 10_000
    with Line(tmp_path) as line:
        line.run(deliver(Stream.CURRENT, payload))
        line.write(lambda: line.core.acts.discard(EVERYTHING, 10, "Ada", "noise"))
        entry, kept, events = line.journal.quarantined_entry(1)
        assert (entry["state"], entry["bytes"], entry["kept"], entry["actor"]) == ("discarded", 10_000, "head", "Ada")
        assert (entry["sha256"], kept) == (sha256(payload).hexdigest(), payload[:HEAD_BYTES])
        assert [(e["event"], e["actor"], e["note"]) for e in events] == [("discard", "Ada", "noise")]
        assert line.journal.ledger().quarantined == 1
        replay(line)
        assert states(line) == [("discarded", "json_syntax")]
        assert_sums_agree(line)


# -- room -------------------------------------------------------------------------------------------------


KNOWN = deliver(Stream.CONTACT, message(Stream.CONTACT, 0))
"""From it the model of the device is known, and so its limits."""


def garbage(n: int, size: int = 8_000, device: str = DEVICE, received_ms: int = START_MS) -> Delivery:
    return deliver(Stream.CURRENT, (b"%d " % n).ljust(size, b"x"), received_ms, device)


def test_beyond_its_share_of_a_device_only_heads_are_kept_and_the_others_keep_their_room(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.journal.quota = Quota(100_000, 0.2)
        line.run(*(garbage(n) for n in range(5)), garbage(0, device="other"))
        assert [(e["device_id"], e["kept"], e["bytes"]) for e in reversed(line.journal.quarantine())] == [
            *[(DEVICE, "whole", 8_000)] * 2, *[(DEVICE, "head", 8_000)] * 3, ("other", "whole", 8_000),
        ]  # fmt: skip
        entry, kept, _ = line.journal.quarantined_entry(4)
        assert (kept, entry["sha256"]) == (garbage(3).payload[:HEAD_BYTES], sha256(garbage(3).payload).hexdigest())
        assert max(line.journal._scalar("SELECT length(payload) FROM raw WHERE id = ?", raw_id) for raw_id in (3, 4, 5)) < 100
        assert line.write(lambda: None).core.acts.replay(RefusedFilter(ids=(3,)), 1, "Ada", "")["not_whole"] == 1
        assert_accounted(line)
        assert_sums_agree(line)


def test_beyond_the_room_for_all_only_heads_are_kept(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.journal.quota = Quota(20_000, 1.0)
        line.run(*(garbage(n, device=f"d-{n}") for n in range(4)))
        assert [e["kept"] for e in reversed(line.journal.quarantine())] == ["whole", "whole", "head", "head"]


def test_of_a_very_large_payload_only_the_head_is_kept_and_the_danger_in_it_is_judged_once_and_for_all(tmp_path: Path) -> None:
    payload = b'{"junk":"' + b"x" * WHOLE_MOST + b'","samples":[{"i_peak_ua":900.0,"dt_ms":0}],"session_id":"s-1"}'
    with Line(tmp_path) as line:
        line.run(KNOWN, deliver(Stream.CURRENT, payload))
        told = line.standing()
        assert [rule for rule, *_ in told] == ["overcurrent-peak"]
        assert [(e["reason"], e["kept"], e["held"]) for e in line.journal.quarantine()] == [("oversize", "head", HEAD_BYTES)]
        assert line.journal._scalar("SELECT max(length(payload)) FROM raw") < HEAD_BYTES
        line.restart().run(deliver(Stream.CURRENT, message(Stream.CURRENT, 1, START_MS - 5_000), START_MS + 1))  # judged again from the record
        assert line.standing()[0] == told[0]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("ingest.journal.quarantine.MOST_ENTRIES", 5)
    return 5


def test_beyond_its_entries_a_device_is_counted_by_reason_and_hour_and_every_message_is_accounted_for(tmp_path: Path, few: int) -> None:
    with Line(tmp_path) as line:
        line.run(*(garbage(n, 20) for n in range(few)), *(garbage(100 + n, 20, received_ms=START_MS + 60_000 * n) for n in range(90)))
        line.run(deliver(Stream.CURRENT, b"[]"), garbage(0, 20, device="other"))
        entries = list(reversed(line.journal.quarantine()))
        assert [e["more"] for e in entries] == [0] * few + [59, 29, 0, 0]
        assert (entries[few]["received_ms"], entries[few]["last_ms"]) == (START_MS, START_MS + 59 * 60_000)
        assert [e["kept"] for e in entries[few - 1 : few + 3]] == ["whole", "counted", "counted", "whole"]
        ledger = line.journal.ledger()
        assert (ledger.accepted, ledger.quarantined, ledger.duplicate) == (few + 92, few + 92, 0)
        assert line.journal.quarantine_by_reason() == {"json_syntax": few + 91, "schema": 1}
        assert line.journal._scalar("SELECT count(*) FROM raw") == few + 4
        assert_accounted(line)
        assert_sums_agree(line)


def test_danger_in_a_message_that_is_only_counted_raises_its_alert_and_stays_on_record(tmp_path: Path, few: int) -> None:
    def said(n: int, i_peak_ua: float) -> Delivery:
        return deliver(Stream.CURRENT, b'{"session_id":"s-1","ts_ms":%d,"i_peak_ua":%f,broken' % (START_MS + 1_000 * n, i_peak_ua), START_MS + 1_000 * n)

    with Line(tmp_path) as line:
        line.run(KNOWN, *(garbage(n, 20) for n in range(few)), *(said(n, 200.0) for n in range(30)))
        assert line.alerts() == []
        line.run(said(30, 900.0), *(said(31 + n, 901.0 + n) for n in range(30)))
        told = [(a["rule"], a["severity"], a["onset_ms"]) for a in line.alerts()]
        assert told == [("overcurrent-peak", "critical", START_MS + 30_000)]
        assert 0 < line.journal._scalar("SELECT count(*) FROM message WHERE lane = 2") < 5
        line.restart().run(deliver(Stream.CURRENT, message(Stream.CURRENT, 1, START_MS + 500), START_MS + 100_000))  # judged again
        assert [(a["rule"], a["severity"], a["onset_ms"], a["state"]) for a in line.alerts()] == [(*told[0], "open")]
        line.run(said(2, 950.0))  # late: it is judged from what is on record
        assert START_MS + 2_000 in [a["onset_ms"] for a in line.alerts() if a["state"] == "open"]


def test_entries_that_somebody_saw_to_make_room_for_others(tmp_path: Path, few: int) -> None:
    with Line(tmp_path) as line:
        line.run(*(garbage(n, 20) for n in range(few)))
        line.write(lambda: line.core.acts.discard(EVERYTHING, 10, "Ada", ""))
        line.run(*(garbage(10 + n, 20) for n in range(few)))
        assert [e["more"] for e in line.journal.quarantine()] == [0] * 2 * few


def test_the_same_refused_bytes_take_no_more_room_however_often_they_come(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one(garbage(0, received_ms=START_MS + n) for n in range(20))
        assert [(e["times"], e["received_ms"], e["last_ms"]) for e in line.journal.quarantine()] == [(20, START_MS, START_MS + 19)]
        assert line.journal._scalar("SELECT count(*) FROM raw") == 1
        assert_accounted(line)


def test_what_is_forgotten_gives_its_room_back(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(garbage(0), garbage(1, received_ms=START_MS + DAY_MS))
        line.write(lambda: line.journal.forget_refused(START_MS + 1, 100))
        assert [e["id"] for e in line.journal.quarantine()] == [2]
        assert_sums_agree(line)


readings = st.lists(
    st.dictionaries(
        st.sampled_from(["i_peak_ua", "i_rms_ua", "temp_head_c", "z_ohm", "dt_ms", "self_test", "output_enabled", "boost", "model", "session_id", "seq"]),
        st.one_of(st.floats(allow_nan=False), st.booleans(), st.sampled_from(["fail", "pass", "s-1"])),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(readings, st.dictionaries(st.sampled_from(["boot_id", "seq", "ts_ms", "model", "session_id", "i_peak_ua"]), st.one_of(st.integers(0, 2**40), st.just("a-1"))))
def test_of_what_is_condensed_the_same_is_gleaned_and_the_worst_is_never_lost(samples: list[dict[str, Any]], head: dict[str, Any]) -> None:
    found = glean(orjson.dumps({**head, "samples": samples}))
    short = condensed(found, HEAD_BYTES)
    assert len(short) <= HEAD_BYTES
    again = glean(short)
    assert condensed(again, HEAD_BYTES) == short
    if len(again.readings) == len(found.readings):
        assert again.readings == found.readings
    for key, worst in (("i_peak_ua", max), ("z_ohm", min)):
        values = [abs(reading[key]) if worst is max else reading[key] for reading in found.readings if key in reading]
        kept = [abs(reading[key]) if worst is max else reading[key] for reading in again.readings if key in reading]
        assert worst(values, default=None) == worst(kept, default=None)


def test_the_worst_of_very_many_readings_is_in_what_is_condensed() -> None:
    found = glean(orjson.dumps({"samples": [{"i_peak_ua": 100.0 + n, "z_ohm": 9_000.0 - n, "dt_ms": n} for n in range(300)]}))
    again = glean(condensed(found, HEAD_BYTES)).readings
    assert len(again) < 100 and found.readings[: len(again) - 1] == again[:-1]
    assert (max(r["i_peak_ua"] for r in again), min(r["z_ohm"] for r in again)) == (399.0, 8_701.0)


# -- any course of events ---------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["send", "send other", "replay one"]), st.integers(0, 4)),
        st.tuples(st.sampled_from(["replay", "keep longer", "store", "store refuses", "die", "restart", "half a turn", "discard"]), st.just(0)),
    ),
    max_size=16,
)


@settings(max_examples=120, deadline=None)
@given(steps)
@example([("send", 0), ("keep longer", 0), ("replay", 0), ("send", 0), ("replay", 0), ("die", 0)])
@example([("send", 1), ("keep longer", 0), ("replay", 0), ("store refuses", 0), ("replay", 0), ("store refuses", 0), ("send", 1)])
def test_any_interleaving_of_replays_resends_and_deaths_stores_each_message_once(course: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        line = forgetful(Path(root) / "0")
        stored: Counter[tuple[int, int]] = Counter()
        first: dict[int, set[bytes]] = {}

        def settle(refuse_last: bool = False) -> None:
            entries = line.waiting()
            taken = entries[:-1] if refuse_last else entries
            stored.update((e.payload and orjson.loads(e.payload)["seq"], 0) for e in taken)
            line.settle(entries, [RefusedEntry(entries[-1], Reason.SINK_REJECTED_400, "no")] if refuse_last else [])

        for at, (what, n) in enumerate(course):
            if what == "send" or what == "send other":
                delivery = old(n, level=5 if what == "send other" else 3)
                first.setdefault(n, set()).add(delivery.payload)
                line.run(delivery)
            elif what == "replay":
                line.write(lambda: line.core.acts.replay(EVERYTHING, 500, "Ada", ""))
            elif what == "replay one":
                line.write(lambda n=n: line.core.acts.replay(RefusedFilter(ids=(n + 1,)), 500, "Ada", ""))
            elif what == "half a turn":
                line.core.request(lambda: line.core.acts.replay(EVERYTHING, 500, "Ada", ""), write=True)
                line.part(1)
            elif what == "discard":
                line.write(lambda: line.core.acts.discard(RefusedFilter(ids=(1,)), 1, "Ada", ""))
            elif what == "keep longer":
                remember(line)
            elif what == "store":
                settle()
            elif what == "store refuses" and line.waiting():
                settle(refuse_last=True)
            elif what == "restart":
                line.restart()
            elif what == "die":
                line, dead = line.die(Path(root) / f"{at + 1}"), line
                dead.journal.close()
                line.run()
            assert line.journal.ledger().balanced
        remember(line)
        for _ in range(2):
            replay(line)
            settle()
        assert_accounted(line)
        assert_sums_agree(line)
        assert line.journal.ledger().pending == 0
        assert dict(stored) == dict.fromkeys(((seq, 0) for seq in first), 1)
        assert {entry["state"] for entry in line.journal.quarantine()} <= {"replayed", "open"}
        assert {entry["reason"] for entry in line.journal.quarantine() if entry["state"] == "open"} <= {"conflict"}
        line.journal.close()


def test_danger_in_what_the_worker_died_on_is_told_when_it_is_replayed_though_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise MemoryError

    line = Line(tmp_path / "0")
    line.run(KNOWN)
    line.feed.waiting.append(deliver(Stream.CURRENT, message(Stream.CURRENT, 5, START_MS, i_peak_ua=900.0, level="three")))
    monkeypatch.setattr("ingest.admit.glean", die)
    for life in range(1, 5):
        with pytest.raises(MemoryError):
            line.run()
        line, dead = line.die(tmp_path / str(life)), line
        dead.journal.close()
        if line.journal._scalar("SELECT coalesce(max(times), 0) FROM attempt") == 3:
            break
    line.run()
    monkeypatch.undo()
    assert states(line) == [("open", "crash_suspect")]
    assert [] == line.alerts()
    replay(line)
    assert states(line) == [("open", "schema")]
    assert [(a["rule"], a["severity"]) for a in line.alerts()] == [("overcurrent-peak", "critical")]
    line.restart().run(deliver(Stream.CURRENT, message(Stream.CURRENT, 6, START_MS - 5_000), START_MS + 1))  # judged again from the record
    assert [a["rule"] for a in line.alerts() if a["state"] != "withdrawn"] == ["overcurrent-peak"]
    assert_accounted(line)
    line.journal.close()
