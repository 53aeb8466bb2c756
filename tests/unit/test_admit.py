"""What becomes of one delivery, through the line: kept, known before, or refused with a reason."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from ingest import dedupe
from ingest.admit import CLOCK_SET_MS, DAY_MS, Duplicate, Kept, Refused, admit, fingerprint
from ingest.device import Device
from ingest.mqtt import Delivery
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.line import BOOT, DEVICE, START_MS, Line, deliver, envelope, message, pulse, sample

NOW_MS = START_MS + 5_000


class Desk:
    """Admits deliveries one after the other, with the memory of earlier bytes that the journal has."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.kept: dict[tuple[str, int, int, int], bytes] = {}

    def __call__(self, payload: bytes, *, received_ms: int = NOW_MS, stream: Stream = Stream.CURRENT, retained: bool = False) -> Any:
        outcome = admit(
            f"mc/v1/{DEVICE}/{stream}".encode(), payload, retained, received_ms,
            lambda device_id: self.devices.setdefault(device_id, Device(device_id)), lambda *key: self.kept.get(key), 90,
        )  # fmt: skip
        if isinstance(outcome, Kept):
            said = outcome.decoded.message
            self.kept[(DEVICE, said.boot_id, outcome.lane, said.seq)] = payload
        return outcome


def refused(outcome: Any) -> Reason:
    assert isinstance(outcome, Refused)
    return outcome.reason


def test_a_message_is_kept_once_and_known_afterwards() -> None:
    take = Desk()
    first = take(message(Stream.CURRENT, 0))
    assert (first.event_ms, first.clock_ok) == (START_MS, True)
    assert take(message(Stream.CURRENT, 0)) == Duplicate(DEVICE, BOOT, 0)
    assert isinstance(take(message(Stream.CURRENT, 1)), Kept)


@pytest.mark.parametrize("later_ms", [0, 60_000, 3_600_000, DAY_MS, 89 * DAY_MS, 400 * DAY_MS])
def test_a_message_that_comes_again_is_known_however_late(later_ms: int) -> None:
    take = Desk()
    take(message(Stream.CURRENT, 0))
    take(message(Stream.CURRENT, 1))
    assert take(message(Stream.CURRENT, 0), received_ms=NOW_MS + later_ms) == Duplicate(DEVICE, BOOT, 0)


def test_the_same_identity_with_another_payload_is_a_conflict_and_the_first_stands() -> None:
    take = Desk()
    first = message(Stream.CURRENT, 0)
    take(first)
    assert refused(take(message(Stream.CURRENT, 0, level=4))) == Reason.CONFLICT
    assert take(first) == Duplicate(DEVICE, BOOT, 0)


def test_the_same_sequence_in_another_boot_is_another_message() -> None:
    take = Desk()
    take(message(Stream.CURRENT, 0))
    assert isinstance(take(message(Stream.CURRENT, 0, envelope_={"boot_id": 8})), Kept)


@pytest.mark.parametrize(
    ("age_ms", "expected"), [(0, "kept"), (90 * DAY_MS - 3_600_000, "kept"), (90 * DAY_MS - 3_599_999, "too_old"), (90 * DAY_MS, "too_old")]
)
def test_what_is_older_than_the_store_keeps_is_refused(age_ms: int, expected: str) -> None:
    outcome = Desk()(message(Stream.CURRENT, 0, NOW_MS - age_ms))
    assert ("kept" if isinstance(outcome, Kept) else outcome.reason.value) == expected


@pytest.mark.parametrize("ts_ms", [0, 1_000, CLOCK_SET_MS - 1, NOW_MS + 70_000, 253_402_300_799_999])
def test_a_clock_that_cannot_be_right_gives_way_to_the_uptime_since_receipt(ts_ms: int) -> None:
    take = Desk()
    kept = [
        take(message(Stream.CURRENT, seq, ts_ms, envelope_={"uptime_ms": 60_000 + 1_000 * seq}), received_ms=NOW_MS + 1_000 * seq + delay_ms)
        for seq, delay_ms in enumerate((0, 700, 0))
    ]
    assert [(k.event_ms - NOW_MS, k.clock_ok) for k in kept] == [(0, False), (1_000, False), (2_000, False)]


def test_a_clock_just_within_its_allowance_is_believed() -> None:
    kept = Desk()(message(Stream.CURRENT, 0, NOW_MS + 60_000))
    assert (kept.event_ms, kept.clock_ok) == (NOW_MS + 60_000, True)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=10))
def test_without_a_clock_no_reading_comes_after_its_receipt(said: list[tuple[int, int]]) -> None:
    take = Desk()
    for seq, (uptime_ms, later_ms) in enumerate(said):
        kept = take(message(Stream.CURRENT, seq, 5, envelope_={"uptime_ms": uptime_ms}), received_ms=NOW_MS + later_ms)
        assert CLOCK_SET_MS <= kept.event_ms <= NOW_MS + later_ms


def test_one_absurd_uptime_does_not_spoil_the_clock_of_a_boot() -> None:
    take = Desk()
    take(message(Stream.CURRENT, 0, 5, envelope_={"uptime_ms": 9_007_199_254_740_991}))
    later = take(message(Stream.CURRENT, 1, 5, envelope_={"uptime_ms": 61_000}), received_ms=NOW_MS + 1_000)
    assert isinstance(later, Kept)
    assert abs(later.event_ms - NOW_MS) <= 60_000


@pytest.mark.parametrize("ts_ms", [NOW_MS, 5])
def test_no_sample_is_taken_for_the_future_because_its_message_began_now(ts_ms: int) -> None:
    """ts_ms is believable, or was never set; dt_ms reaches an hour beyond our clock."""
    outcome = Desk()(orjson.dumps(envelope(0, ts_ms, sample(Stream.CURRENT, 0), sample(Stream.CURRENT, 3_600_000))))
    assert isinstance(outcome, Refused) or (not outcome.clock_ok and outcome.event_ms + 3_600_000 <= NOW_MS + 60_000)


def test_a_will_stands_outside_the_sequence_and_speaks_of_now() -> None:
    take = Desk()
    will = message(Stream.STATUS, 3, START_MS - DAY_MS, state="offline", reason="will")
    outcome = take(will, stream=Stream.STATUS)
    assert (outcome.lane, outcome.event_ms, outcome.clock_ok) == (1, NOW_MS, True)
    assert take(will, stream=Stream.STATUS) == Duplicate(DEVICE, BOOT, 3)
    assert isinstance(take(message(Stream.CURRENT, 3)), Kept)
    assert take.devices[DEVICE].boots[BOOT].held.starts == [3]


def test_what_the_broker_retained_is_refused_and_not_marked_as_seen() -> None:
    take = Desk()
    assert refused(take(message(Stream.CURRENT, 0), retained=True)) == Reason.RETAINED
    assert refused(take(b"", retained=True)) == Reason.RETAINED
    assert isinstance(take(message(Stream.CURRENT, 0)), Kept)


def test_a_payload_in_the_name_of_another_device_is_refused() -> None:
    outcome = Desk()(orjson.dumps(envelope(0, START_MS, sample(Stream.CURRENT)) | {"device_id": "tone-2"}))
    assert (outcome.reason, outcome.device_id) == (Reason.IDENTITY_MISMATCH, DEVICE)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_fingerprints_tell_deliveries_apart(topic: bytes, payload: bytes, other_topic: bytes, other: bytes) -> None:
    assert (fingerprint(topic, payload) == fingerprint(other_topic, other)) == ((topic, payload) == (other_topic, other))


# -- through the line: what is on disk, and what the device is told of it -------------------------------


def current(seq: int, **fields: Any) -> Delivery:
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + 1_000 * seq, **fields), START_MS + 1_000 * seq)


def acked(*missing: tuple[int, int], upto: int) -> dict[str, Any]:
    return {"boot_id": BOOT, "upto": upto, "missing": [list(pair) for pair in missing]}


def test_a_refused_message_is_on_our_disk_so_the_device_need_not_send_it_again(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one([current(0), current(1, level="three"), current(2)])
        assert (line.last_ack(), line.reasons()) == (acked(upto=2), ["schema"])


def test_a_message_with_the_sequence_of_a_refused_one_is_still_kept(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one([current(0), current(1, level="three"), current(1)])
        assert line.journal.ledger().to_json() | {"pending": 0} == {
            "accepted": 3, "inbox": 0, "outbox": 2, "pending": 0, "stored": 0, "duplicate": 0, "quarantined": 1,
        }  # fmt: skip
        assert line.last_ack() == acked(upto=1)


def test_a_device_that_comes_back_is_told_what_is_safe_of_this_boot_and_of_those_before(tmp_path: Path) -> None:
    birth = message(Stream.STATUS, 0, START_MS + 9_000, envelope_={"boot_id": 8, "session_id": None}, state="online", reason="birth")
    goodbye = message(Stream.STATUS, 1, START_MS + 9_500, envelope_={"boot_id": 8, "session_id": None}, state="offline", reason="shutdown")
    with Line(tmp_path) as line:
        line.one_by_one([current(0), current(3)])
        said = len(line.feed.said)
        line.run(deliver(Stream.STATUS, birth, START_MS + 9_000))
        told = [ack for topic, ack in line.feed.said[said:] if topic.endswith("/ack")]
        assert [acked((1, 2), upto=3), {"boot_id": 8, "upto": 0, "missing": []}] == sorted(told, key=lambda ack: ack["boot_id"])
        said = len(line.feed.said)
        line.run(deliver(Stream.STATUS, goodbye, START_MS + 9_500))
        assert [8] == [ack["boot_id"] for topic, ack in line.feed.said[said:] if topic.endswith("/ack")]


def test_the_refused_first_message_of_a_boot_is_acknowledged_too(tmp_path: Path) -> None:
    """Otherwise its device sends it again for ever."""
    bad = current(0, level="three")
    with Line(tmp_path) as line:
        line.one_by_one([bad, current(1), bad])
        assert line.last_ack() == acked(upto=1)


def test_a_refused_message_beyond_the_gaps_that_are_tracked_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "MOST_INTERVALS", 4)
    with Line(tmp_path) as line:
        line.one_by_one([current(0), current(2), current(4), current(6), current(9, level="three"), current(11), current(7)])
        assert line.reasons() == ["schema", "state_overflow"]
        assert line.last_ack() == acked((1, 1), (3, 3), (5, 5), upto=7)


def test_a_message_refused_for_too_many_gaps_is_kept_once_the_gaps_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedupe, "MOST_INTERVALS", 4)
    with Line(tmp_path) as line:
        line.one_by_one([current(0), current(2), current(4), current(6, level="x"), current(8), current(1), current(3), current(8)])
        assert 8 in line.core.devices[DEVICE].boots[BOOT].seen
        assert line.journal.outbox == 6


def test_a_message_of_a_boot_long_past_is_not_stored_twice(tmp_path: Path) -> None:
    """More boots have passed than are remembered in full; the journal still knows the message."""
    old = current(0)
    boots = [deliver(Stream.CURRENT, message(Stream.CURRENT, 0, START_MS + boot, envelope_={"boot_id": 100 + boot})) for boot in range(70)]
    with Line(tmp_path) as line:
        line.run(old, *boots).run(old)
        ledger = line.journal.ledger()
        assert (ledger.outbox, ledger.duplicate + ledger.quarantined) == (71, 1)


def test_what_is_known_of_a_device_survives_a_restart(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one([current(0), current(2), current(3, level="x"), current(5)])
        before = line.core.devices[DEVICE]
        after = line.restart().core.devices[DEVICE]
        assert after.boots == before.boots
        assert (after.accepted, after.stored, after.quarantined, after.live) == (4, 0, 1, before.live)
        line.one_by_one([current(2), current(4), current(1), pulse(NOW_MS)])
        assert line.last_ack() == acked(upto=5)
        assert line.journal.ledger().duplicate == 1
