"""Rows 15 to 18: the network between device, broker and worker."""

import time

from tests.faults import wire
from tests.faults.chaos import Chaos
from tests.faults.contract import payload_of
from tests.faults.matrix import row
from tests.faults.trial import Trial
from tests.servers import wait_until

KEEPALIVE_S = 5


@row(15, "connections cut in the middle of a packet", lasts_s=30)
def cut_mid_packet(trial: Trial) -> None:
    with trial.mosquitto() as broker, Chaos(broker.port) as near, Chaos(broker.port) as far:
        with trial.line(near) as line, trial.oracle() as oracle:
            oracle.devices(12, far.port)
            oracle.issue(10_000_000, per_s=800)
            for n in range(trial.scale(16, 500)):
                way = far if n % 2 else near
                before = way.cut_mid_packet
                way.cut_after(trial.chance.randint(1, 20_000))
                wait_until(lambda: way.cut_mid_packet > before, 30, "a cut")  # noqa: B023
                trial.happened("cut mid-packet")
                time.sleep(trial.chance.uniform(0, 0.4))
                line.wait_ready()
            oracle.halt()
            oracle.wait_acknowledged()
            trial.judge(line, oracle)


@row(16, "half-open: nothing passes, nothing is closed", lasts_s=45)
def half_open(trial: Trial) -> None:
    with trial.mosquitto() as broker, Chaos(broker.port) as near, Chaos(broker.port) as far:
        with trial.line(near, mqtt_keepalive_s=KEEPALIVE_S) as line, trial.oracle() as oracle:
            oracle.devices(8, far.port, keepalive_s=KEEPALIVE_S)
            oracle.issue(10_000_000, per_s=300)
            time.sleep(1)
            for _ in range(trial.scale(2, 30)):
                near.fall_silent()
                began = time.monotonic()
                wait_until(lambda: not line.ready(), 3 * KEEPALIVE_S, "the worker to notice that nothing comes")
                noticed_s = time.monotonic() - began
                trial.figure("noticed_s", round(max(noticed_s, trial.outcome.figures.get("noticed_s", 0)), 1))
                # paho looks twice a second; its own rule is 1.5 times the keepalive
                trial.must(noticed_s <= 1.5 * KEEPALIVE_S + 2, f"noticed only after {noticed_s:.1f} s")
                trial.happened("worker cut off")
                near.heal()
                line.wait_ready()
                far.fall_silent()
                time.sleep(1.5 * KEEPALIVE_S)
                trial.happened("devices cut off")
                far.heal()
            oracle.halt()
            oracle.wait_acknowledged()
            trial.judge(line, oracle)


@row(17, "1 kB/s, and 2 s of delay", lasts_s=45)
def slow_and_narrow(trial: Trial) -> None:
    """Slow is not dead: nobody may hang up for it."""
    with trial.mosquitto() as broker, Chaos(broker.port) as near, Chaos(broker.port) as far:
        with trial.line(near, mqtt_keepalive_s=KEEPALIVE_S, pulse_interval_ms=2000) as line, trial.oracle() as oracle:
            oracle.devices(4, far.port)
            for way, delay_s, per_s, rate in ((far, 2.0, 0.0, 20.0), (near, 2.0, 0.0, 20.0), (far, 0.0, 1000.0, 1.0), (near, 0.0, 1000.0, 1.0)):
                connections = near.accepted
                way.delay_s, way.bytes_per_s = delay_s, per_s
                oracle.issue(int(rate * trial.scale(6, 60)), per_s=rate)
                oracle.wait_issued()
                trial.happened("slow")
                way.heal()
                trial.must(near.accepted == connections, f"the worker hung up on a slow way ({delay_s} s, {per_s} B/s)")
                oracle.wait_acknowledged()
            trial.judge(line, oracle)


@row(18, "500 devices cut at once, and back", lasts_s=50)
def storm(trial: Trial) -> None:
    with trial.mosquitto() as broker, Chaos(broker.port) as far, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(500, far.port, births=True)
        oracle.issue(10_000_000, per_s=500)
        for _ in range(trial.scale(3, 30)):
            time.sleep(trial.chance.uniform(0.5, 1.5))
            far.cut()
            trial.happened("500 cut")
            began = time.monotonic()
            wait_until(lambda: oracle.status()["connected"] == 500, 60, "500 devices to be back")
            trial.figure("back_s", round(max(time.monotonic() - began, trial.outcome.figures.get("back_s", 0)), 1))
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle, probe_within_s=60)


@row("1w", "what the worker itself acknowledged, seen on its wire", lasts_s=30)
def seen_on_the_wire(trial: Trial) -> None:
    """Promise W: a delivery that the worker has PUBACKed is stored, though worker and broker die together and no device
    sends again. A tap between broker and worker notes which deliveries those are."""
    delivered: dict[tuple[int, int], bytes] = {}
    promised: set[bytes] = set()
    parsers: dict[tuple[int, bool], wire.Parser] = {}

    def tap(connection: int, up: bool, data: bytes) -> None:
        for packet in parsers.setdefault((connection, up), wire.Parser()).feed(data):
            if packet.kind == wire.PUBLISH and not up:
                message = wire.published(packet, wire.V5)
                if message.mid is not None:
                    delivered[connection, message.mid] = message.payload
            elif packet.kind == wire.PUBACK and up:
                promised.add(delivered[connection, wire.acknowledged(packet)[0]])

    with trial.mosquitto() as broker, Chaos(broker.port, tap) as near, trial.line(near) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port, durable=False)
        oracle.issue(10_000_000, per_s=800)
        for _ in range(trial.scale(6, 200)):
            time.sleep(trial.chance.uniform(0.3, 1.5))
            before = line.worker_id()
            if line.kill_worker():
                trial.outcome.kills += 1
            broker.kill()
            trial.outcome.kills += 1
            broker.data.unlink(missing_ok=True)
            broker.start()
            trial.wait_serving(line, before)
        oracle.halt()
        oracle.wait_acknowledged()
        time.sleep(0.5)
        verdict = trial.judge(line, oracle, may_lose=True)
        lost = [key for key, (ts_ms, kind) in oracle.issued().messages.items() if key in verdict.lost_keys and payload_of(key, ts_ms, kind) in promised]
        trial.must(len(promised) > 1000, f"I10: the tap saw only {len(promised)} acknowledgements")
        trial.must(not lost, f"I1: {len(lost)} messages that the worker had acknowledged are lost: {lost[:3]}")
        trial.outcome.lost += len(lost)
        trial.figure("promised by the worker", len(promised))
