"""Whatever is killed, and whenever: what was acknowledged is stored once.

The oracle publishes from outside and is never faulted. The random moments come from a printed
seed; MICROCURRENT_TEST_SEED repeats them.
"""

import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import InfluxDB, Mosquitto, crowd, free_port, wait_until
from tests.system.line import (
    Installation,
    Key,
    Oracle,
    balanced,
    held_by_duckdb,
    held_by_influx,
    influx_settings,
    message,
    send,
    topic,
    with_mosquitto,
)  # fmt: skip

pytestmark = pytest.mark.system

DEVICES = tuple(f"example-{n}" for n in range(8))
PROBE = ("probe", 7, 0)


def seeded() -> random.Random:
    seed = int(os.environ.get("MICROCURRENT_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"MICROCURRENT_TEST_SEED={seed}")
    return random.Random(seed)


class Load:
    """Messages of several devices, published in a thread at a steady pace until a number is reached."""

    def __init__(self, port: int, messages: int, per_s: float) -> None:
        self._port, self._messages, self._per_s = port, messages, per_s
        self.acked: set[Key] = set()
        self.refused = 0
        self.done = threading.Event()
        self._hurry = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hurry.set()
        self._thread.join(120)

    def finish(self) -> set[Key]:
        """Publish the rest without pausing; everything the broker has taken over."""
        self._hurry.set()
        self._thread.join(120)
        assert not self._thread.is_alive() and self._failure is None, self._failure
        return self.acked

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # handed to the test's own thread
            self._failure = error
        self.done.set()

    def _run(self) -> None:
        began = time.monotonic()
        with Oracle(self._port) as oracle:
            for n in range(self._messages):
                oracle.publish(DEVICES[n % len(DEVICES)], n // len(DEVICES), session_id=f"s-{n // 800}")
                ahead_s = began + n / self._per_s - time.monotonic()
                if n % 20 == 0 and ahead_s > 0:
                    self._hurry.wait(ahead_s)
            wait_until(lambda: len(oracle.acked) + oracle.refused >= self._messages, 30, "every PUBACK")
            self.acked, self.refused = oracle.acked, oracle.refused


def kill_at_random_moments(line: Installation, chance: random.Random, kills: int) -> list[float]:
    """SIGKILL to the worker, in work, in recovery or while it starts; how long after its death the next one served."""
    served_after_s = []
    for n in range(kills):
        if n % 3:  # every third worker dies before it has served
            began = time.monotonic()
            line.wait_ready()
            served_after_s.append(time.monotonic() - began)
        time.sleep(chance.uniform(0.0, 0.7))
        wait_until(line.kill_worker, 30, "a worker to kill")
    line.wait_ready()
    return served_after_s


def probe(line: Installation, port: int) -> None:
    """Something fresh is stored soon after the faults have ended."""
    before = line.ledger()["stored"]
    with Oracle(port, client_id="prober") as oracle:
        oracle.publish(*PROBE[::2], boot_id=PROBE[1])
        oracle.wait_acked(1)
        line.wait_for(lambda seen: seen["ledger"]["stored"] > before, 10, "the probe to be stored")


def judge(found: dict[str, Any], messages: int) -> None:
    ledger = found["ledger"]
    assert {"ok": True, "balanced": True, "lost": 0, "doubled": 0, "spurious": 0, "messages": messages} == {
        name: found[name] for name in ("ok", "balanced", "lost", "doubled", "spurious", "messages")
    }, found["ledger"]
    assert (messages, 0, 0) == (ledger["stored"], ledger["quarantined"], ledger["pending"])
    assert balanced(ledger)


@pytest.mark.long
def test_a_worker_killed_fifty_times_loses_nothing_and_doubles_nothing(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The first five die between commit and acknowledgement, the others at any moment."""
    chance, on_purpose, at_random, messages = seeded(), 5, 45, 20_000
    orders, carried_out = tmp_path / "orders", tmp_path / "carried-out"
    orders.write_text("accepted:3:kill\n" * on_purpose)
    with with_mosquitto(tmp_path / "line", mosquitto, failpoint=f"@{orders}", failpoint_log=carried_out) as line:
        with Load(mosquitto.port, messages, per_s=messages / 60) as load:
            wait_until(lambda: carried_out.exists() and len(carried_out.read_text().splitlines()) == on_purpose, 30, "deaths on purpose")
            served_after_s = kill_at_random_moments(line, chance, at_random)
            acked = load.finish()
        assert (messages, 0) == (len(acked), load.refused)
        line.wait_settled(messages, 30)
        probe(line, mosquitto.port)
        judge(line.reconcile(), messages + 1)
        assert on_purpose + at_random == line.logged("event=restarting child=worker code=-9")
        assert line.ledger()["duplicate"] >= on_purpose, "what was on disk and not acknowledged did not come again"
        assert sorted(served_after_s)[len(served_after_s) // 2] < 5 * crowd()
        line.stop()
    assert dict.fromkeys(acked | {PROBE}, 1) == held_by_duckdb(line.data)


@pytest.mark.long
def test_worker_and_influxdb_killed_in_turn_lose_nothing_and_double_nothing(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB
) -> None:
    chance, messages = seeded(), 8_000
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line:
        with Load(mosquitto.port, messages, per_s=messages / 20) as load:
            for _ in range(3):
                kill_at_random_moments(line, chance, 3)
                time.sleep(chance.uniform(0.2, 1.0))
                influxdb.kill()
                time.sleep(chance.uniform(0.0, 0.5))
                influxdb.start()
            acked = load.finish()
        line.wait_settled(messages, 60)
        probe(line, mosquitto.port)
        judge(line.reconcile(), messages + 1)
        assert 9 == line.logged("event=restarting child=worker code=-9")
    assert dict.fromkeys(acked | {PROBE}, 1) == held_by_influx(influxdb)


@pytest.mark.long
def test_the_embedded_broker_killed_ten_times_loses_nothing_it_has_acknowledged(tmp_path: Path) -> None:
    chance, kills, messages = seeded(), 10, 4_000
    with Installation(tmp_path / "line", broker="embedded", mqtt_port=free_port()) as line:
        passwords = line.answer("credentials", "create", *DEVICES, "probe")
        port = int((line.data / "credentials" / "broker.port").read_text())
        oracles = [Oracle(port, version=4, client_id=d, user=d, password=passwords[d]) for d in (*DEVICES, "probe")]
        wait_until(lambda: all(admitted(o) for o in oracles), 20, "the broker to know the new devices")
        try:
            left, killed = kills, []
            for n in range(messages):
                device = n % len(DEVICES)
                oracles[device].publish(DEVICES[device], n // len(DEVICES), session_id=f"s-{n // 800}")
                if n % (messages // kills) == 200:
                    time.sleep(chance.uniform(0.0, 0.5))
                    wait_until(lambda: kill_broker(line, killed), 20, "a broker to kill")
                    left -= 1
                time.sleep(0.002)
            acked = {key for oracle in oracles[:-1] for key in oracle.wait_acked(messages // len(DEVICES), 60)}
            line.wait_settled(messages, 60)
            oracles[-1].publish("probe", 0)
            oracles[-1].wait_acked(1)
            line.wait_for(lambda seen: seen["ledger"]["stored"] == messages + 1, 15, "the probe to be stored")
        finally:
            for oracle in oracles:
                oracle.__exit__()
        assert (0, kills) == (left, line.logged("event=restarting child=broker code=-9"))
        judge(line.reconcile(), messages + 1)
        line.stop()
    assert dict.fromkeys(acked | {PROBE}, 1) == held_by_duckdb(line.data)


def admitted(oracle: Oracle) -> bool:
    if not oracle.connected:
        try:
            oracle.__enter__()
        except (OSError, pytest.fail.Exception):
            oracle.__exit__()
    return oracle.connected


def kill_broker(line: Installation, killed: list[int]) -> bool:
    """Another one than was killed last, which may be still on its way out."""
    pid = line.child("nats-server")
    return pid not in (None, *killed) and send(pid, signal.SIGKILL) and not killed.append(pid)


@pytest.mark.long
def test_a_large_backlog_that_a_killed_worker_left_is_finished_before_what_comes_after_it(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """A worker that died takes messages in faster than it works off what it suspects, one by one."""
    messages, more = 12_000, 1_000
    with with_mosquitto(tmp_path / "line", mosquitto) as line, Oracle(mosquitto.port) as oracle:
        line.kill()
        for seq in range(messages):
            oracle.publish(DEVICES[seq % 8], seq // 8)
        oracle.wait_acked(messages)
        orders, carried_out = tmp_path / "orders", tmp_path / "carried-out"
        orders.write_text("accepted:2:kill\nsuspect-passed:10:kill\nsuspect-passed:10:sleep=600\n")
        line.settings |= {"failpoint": f"@{orders}", "failpoint_log": carried_out}
        line.start(ready=False)
        wait_until(lambda: carried_out.exists() and 3 == len(carried_out.read_text().splitlines()), 60, "two deaths, and a worker that stands still")
        line.kill()
        backlog = line.answer("status")["ledger"]["inbox"]
        line.start()
        for seq in range(messages, messages + more):
            oracle.publish(DEVICES[seq % 8], seq // 8)
        oracle.wait_acked(messages + more)
        line.wait_settled(messages + more, 60)
        judge(line.reconcile(), messages + more)
        assert backlog > 2_500, "the kills left no large backlog: the test is too kind"


def test_what_cannot_be_put_on_disk_is_not_acknowledged_and_comes_again(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Somebody holds the journal's file; the worker that waits for it is killed."""
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        mosquitto.publish(topic("example-1"), message(0))
        line.wait_settled(1)
        holder = sqlite3.connect(line.data / "journal.db", isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            for seq in range(1, 11):
                mosquitto.publish(topic("example-1"), message(seq))
            time.sleep(1.0)  # long enough for an acknowledgement that must not be sent
            line.kill()
        finally:
            holder.close()
        line.start()
        line.wait_settled(11, 15)
        judge(line.reconcile(), 11)


def test_a_journal_that_is_held_for_long_costs_a_restart_and_no_message(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        holder = sqlite3.connect(line.data / "journal.db", isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            mosquitto.publish(topic("example-1"), message(0))
            wait_until(lambda: line.logged("event=restarting child=worker code=74"), 20, "the worker to give up")
        finally:
            holder.close()
        line.wait_settled(1, 20)
        judge(line.reconcile(), 1)
