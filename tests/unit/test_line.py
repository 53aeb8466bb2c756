"""The line as a whole: a real core on a real journal, deliveries from memory."""

import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
from hypothesis import given, settings

from ingest.mqtt import Delivery
from schemas import topics
from schemas.alerts import AlertEvent
from schemas.messages import DurableAck
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.line import BOOT, DEVICE, IN_MEMORY, START_MS, Line, deliver, message, pulse


def current(seq: int, **fields: Any) -> Delivery:
    sent_ms = START_MS + 1_000 * seq
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, sent_ms, **fields), sent_ms)


def test_a_delivery_is_acked_only_after_it_is_on_disk(tmp_path: Path) -> None:
    with Line(tmp_path / "live") as line:
        on_disk: list[int] = []

        def acknowledge(deliveries: list[Delivery]) -> None:
            later = line.die(tmp_path / f"copy-{len(on_disk)}")
            on_disk.append(later.journal.ledger().accepted)
            later.journal.close()

        line.feed.ack = acknowledge  # type: ignore[method-assign]
        line.run(current(0), current(1)).run(current(2))
        assert on_disk == [2, 3]


def test_deliveries_are_acked_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        deliveries = [current(3), current(1), deliver("rubbish", b""), current(1), pulse(START_MS)]
        line.run(*deliveries)
        assert line.feed.acknowledged == deliveries


def test_what_is_published_is_of_the_contract(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0, i_peak_ua=900.0), current(3))
        for topic, said in line.feed.said:
            model = DurableAck if topic == topics.durable_ack(DEVICE) else AlertEvent
            assert model.model_validate_json(orjson.dumps(said)).model_dump(mode="json") == said
        assert {topic for topic, _ in line.feed.said} == {topics.durable_ack(DEVICE), topics.alert(DEVICE)}
        assert line.last_ack() == {"boot_id": BOOT, "upto": 3, "missing": [[1, 2]]}


def acknowledged(line: Line, boot_id: int = BOOT) -> set[int]:
    """The numbers that durable acknowledgements have covered so far."""
    said = [said for topic, said in line.feed.said if topic == topics.durable_ack(DEVICE) and said["boot_id"] == boot_id]
    return {
        seq for ack in said for seq in range(ack["upto"] + 1) if not any(first <= seq <= last for first, last in ack["missing"])
    }


def test_what_a_device_has_lost_for_good_holds_up_no_acknowledgement(tmp_path: Path) -> None:
    said = [*range(0, 200, 2), 61]
    with Line(tmp_path) as line:
        line.one_by_one(current(seq) for seq in said)
        assert set(said) == acknowledged(line)
        line.feed.said.clear()  # the acknowledgements were lost, and the device says again what it still holds
        line.run(*(current(seq) for seq in said))
        assert set(said) == acknowledged(line)


def test_a_refused_message_that_comes_again_is_acknowledged_again_whatever_boot_it_is_of(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        refused = current(0, i_peak_ua=-1.0)
        line.run(refused).run(current(0, envelope_={"boot_id": BOOT + 1}))
        line.feed.said.clear()
        line.run(refused)
        assert ([Reason.RANGE], {0}) == (line.reasons(), acknowledged(line))


def test_an_alert_is_published_until_the_broker_has_it(tmp_path: Path) -> None:
    """The source confirms by token; what it has not confirmed is published again after a restart."""
    with Line(tmp_path) as line:
        line.feed.published = type("Deaf", (list,), {"append": lambda *_: None, "popleft": lambda self: self.pop(0)})()  # type: ignore[assignment]
        line.run(current(0, i_peak_ua=900.0))
        assert (line.events(), line.journal.notices_waiting()) == ([("opened", "overcurrent-peak")], 1)
        line.feed.said.clear()
        line.feed.published = deque()
        line.restart().run(current(1)).run(current(2))
        assert (line.events(), line.journal.notices_waiting()) == ([("opened", "overcurrent-peak")], 0)


def test_alarms_go_out_while_the_store_is_down(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one(current(seq) for seq in range(30))
        line.run(current(30, i_peak_ua=900.0))
        assert line.events() == [("opened", "overcurrent-peak")]
        assert line.journal.ledger().pending == 31


def test_two_devices_are_told_apart(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        danger = message(Stream.CURRENT, 0, i_peak_ua=900.0)
        line.run(deliver(Stream.CURRENT, danger, device="a"), deliver(Stream.CURRENT, message(Stream.CURRENT, 0), device="b"))
        assert {d: (x.accepted, x.pending) for d, x in line.core.devices.items()} == {"a": (1, 1), "b": (1, 1)}
        assert [a["device_id"] for a in line.alerts()] == ["a"]


def test_the_latest_by_event_time_is_what_the_fleet_view_shows(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one([current(5, i_set_ua=250.0), current(2, i_set_ua=100.0)])
        device = line.core.devices[DEVICE]
        assert (device.live["i_set_ua"], device.last_event_ms) == (250.0, START_MS + 5_000)


def test_a_will_shows_the_device_offline_and_raises_nothing(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        birth = deliver(Stream.STATUS, message(Stream.STATUS, 0))
        will = deliver(Stream.STATUS, message(Stream.STATUS, 0, state="offline", reason="will"), START_MS + 9_000)
        line.run(birth)
        assert line.core.devices[DEVICE].online is True
        line.run(will, will)
        assert (line.core.devices[DEVICE].online, line.alerts()) == (False, [])
        ledger = line.journal.ledger()
        assert (ledger.outbox, ledger.duplicate) == (2, 1)


def test_the_ledger_goes_to_the_store_every_ten_seconds(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(0))
        line.clock.ms += 9_999
        line.run()
        line.clock.ms += 1
        line.run()
        told = [(p.time_ns // 10**6 - START_MS, p.fields["accepted"]) for p in line.points("pipeline")]
        assert told == [(0, 1), (10_000, 1)]


def test_an_alert_is_a_point_in_the_outbox_at_each_of_its_steps(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one(current(seq, i_peak_ua=900.0 if seq == 0 else 200.0) for seq in range(12))
        states = [(p.fields["state"], p.time_ns) for p in line.points("alert")]
        assert [state for state, _ in states] == ["open", "closed"]
        assert len({time_ns for _, time_ns in states}) == 1


noise = st.one_of(
    st.binary(max_size=50),
    st.sampled_from([current(seq).payload for seq in range(4)]),
    st.builds(lambda seq, boot, i: message(Stream.CURRENT, seq, envelope_={"boot_id": boot}, i_peak_ua=i), st.integers(0, 5), st.integers(0, 2), st.floats(0, 2_000)),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["mc/v1/a/current", "mc/v1/b/current", "mc/v1/a/runtime", "x"]), noise, st.booleans()), max_size=12))
def test_whatever_comes_every_message_is_accounted_for_by_device_and_in_total(messages: list[tuple[str, bytes, bool]]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root, Line(Path(root)) as line:
        line.run(*(deliver(topic, payload, retained=retained) for topic, payload, retained in messages))
        ledger = line.journal.ledger()
        assert (ledger.balanced, ledger.accepted, ledger.inbox) == (True, len(messages), 0)
        assert sum(d.accepted for d in line.core.devices.values()) == len(messages)
        assert sum(d.pending for d in line.core.devices.values()) == ledger.outbox
        assert sum(e["times"] for e in line.journal.quarantine()) <= ledger.quarantined + ledger.duplicate
