"""The oracle: a process of its own that is never faulted. Its devices issue messages and keep each until it is acknowledged.

An obligation is noted only when the acknowledgement arrives: the durable one of the fleet, or the broker's PUBACK where
that is the promise. The ledger is a file that is only appended to: `I device boot seq ts_ms kind` when a message is issued,
before it is sent for the first time, and `A device boot seq` when it is acknowledged.

Run as `python -m tests.faults.oracle LEDGER`; commands come as lines of JSON on standard input, answers go to standard
output. It ends when its input is closed. `Oracle` in oracle_client.py speaks to it.
"""

import asyncio
import json
import random
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from tests.faults import wire
from tests.faults.contract import BIRTH, DANGEROUS, PLAIN, REFUSED, Key, ack_topic, payload_of, topic_of

WINDOW = 40
"""Messages of a device that may wait for a PUBACK at once."""

PUBACK_PATIENCE_S = 8.0
"""A connection on which no PUBACK comes for so long is given up; MQTT allows to send again only on a new one."""

DURABLE_AGAIN_S, MOST_AGAIN_S = 5.0, 60.0
NAMED_AGAIN_S = 1.0


@dataclass(slots=True)
class Held:
    topic: str
    payload: bytes
    sent_s: float | None = None
    sendings: int = 0
    on_broker: bool = False
    queued: bool = False


@dataclass
class Terms:
    """How a set of devices behaves. `repeat`: each message is sent so often, a few places apart."""

    host: str
    port: int
    version: int = wire.V5
    durable: bool = True
    births: bool = False
    kind: str = PLAIN
    dangerous_every: int = 0
    refused_every: int = 0
    repeat: int = 1
    clean: bool = False
    resend: bool = True
    window: int = WINDOW
    most_held: int = 250
    """What a device can hold; it issues nothing more until something is acknowledged, so that a slow machine has less to do."""
    keepalive_s: int = 20
    clock_ms: int | None = None
    """What the devices' clock says all the time, in place of the truth."""


@dataclass
class Counts:
    issued: int = 0
    acked: int = 0
    sent: int = 0
    refused: int = 0
    connects: int = 0
    refusals: int = 0
    acks_heard: int = 0
    stalls: int = 0


class Ledger:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def issue(self, key: Key, ts_ms: int, kind: str) -> None:
        self._file.write(f"I {key.device_id} {key.boot_id} {key.seq} {ts_ms} {kind}\n")

    def acknowledge(self, key: Key) -> None:
        self._file.write(f"A {key.device_id} {key.boot_id} {key.seq}\n")

    def flush(self) -> None:
        self._file.flush()


class Device(asyncio.Protocol):
    """One device on one connection at a time. Everything runs on the loop's thread."""

    def __init__(self, device_id: str, password: str | None, terms: Terms, ledger: Ledger, counts: Counts, chance: random.Random) -> None:
        self.device_id, self.terms = device_id, terms
        self.boot_id, self.next_seq = chance.randrange(1, 1 << 32), 0
        self.held: dict[Key, Held] = {}
        self.up = False
        self.named_missing: dict[int, tuple[int, list]] = {}
        self._password, self._ledger, self._counts, self._chance = password, ledger, counts, chance
        self._ready: deque[Key] = deque()
        self._awaiting: dict[int, Key] = {}
        self._sub_mid = 0
        self._mid = 0
        self._heard_s = self._asked_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = wire.Parser()
        self._gone = asyncio.Event()
        self.leaving = False

    # -- its life ---------------------------------------------------------------------------------

    async def live(self) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while not self.leaving:
            self._gone.clear()
            self._parser = wire.Parser()
            try:
                await asyncio.wait_for(loop.create_connection(lambda: self, self.terms.host, self.terms.port), 3)
            except (OSError, TimeoutError):
                failures += 1
            else:
                began = time.monotonic()
                await self._gone.wait()
                failures = 0 if time.monotonic() - began > 2 else failures + 1
            if not self.leaving:
                await asyncio.sleep(min(3.0, 0.1 * 2 ** min(failures, 5)) * self._chance.uniform(0.5, 1.5))

    def reboot(self, clock_ms: int | None) -> None:
        """A new boot with a sequence of its own; what is held of the old one is still sent."""
        self.boot_id, self.next_seq = self._chance.randrange(1, 1 << 32), 0
        self.terms.clock_ms = clock_ms
        self.hang_up()

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        self.leaving = True
        if self._transport is not None and self.up:
            self._transport.write(wire.GOODBYE)
            self._transport.close()

    # -- asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        t = self.terms
        user = self.device_id if self._password is not None else None
        self._transport.write(
            wire.connect(self.device_id, t.version, clean=t.clean, keepalive_s=t.keepalive_s, user=user, password=self._password)
        )
        self._heard_s = self._asked_s = time.monotonic()

    def connection_lost(self, error: Exception | None) -> None:
        self.up, self._transport = False, None
        for key in self._awaiting.values():  # MQTT: what was not acknowledged is sent again, first
            if (held := self.held.get(key)) is not None and not held.queued:
                held.queued = True
                self._ready.appendleft(key)
        self._awaiting.clear()
        self._gone.set()

    def data_received(self, data: bytes) -> None:
        self._heard_s = time.monotonic()
        for packet in self._parser.feed(data):
            if packet.kind == wire.PUBACK:
                self._on_puback(*wire.acknowledged(packet))
            elif packet.kind == wire.PUBLISH:
                self._on_message(wire.published(packet, self.terms.version))
            elif packet.kind == wire.CONNACK:
                self._on_connack(*wire.accepted(packet))
            elif packet.kind == wire.SUBACK:
                self.up = True
                self._on_up()
        self.pump()

    def _on_connack(self, present: bool, code: int) -> None:
        if code:
            self._counts.refusals += 1
            self.hang_up()
            return
        self._counts.connects += 1
        if self.terms.durable:
            self._transport.write(wire.subscribe(ack_topic(self.device_id), self._next_mid(), self.terms.version))
        else:
            self.up = True
            self._on_up()

    def _on_up(self) -> None:
        now = time.monotonic()
        for held in self.held.values():  # an acknowledgement may have been told while it was away
            if held.on_broker and held.sent_s is not None:
                held.sent_s, held.sendings = now - DURABLE_AGAIN_S + NAMED_AGAIN_S, 1
        if self.terms.births and not self.leaving:
            self.issue(BIRTH)

    def _on_puback(self, mid: int, reason: int) -> None:
        key = self._awaiting.pop(mid, None)
        held = self.held.get(key) if key is not None else None
        if held is None:
            return
        if reason == wire.NO_MATCHING_SUBSCRIBERS or reason >= 0x80:
            self._counts.refused += 1
            asyncio.get_running_loop().call_later(0.5, self._again, key)
        elif self.terms.durable:
            held.on_broker = True
        else:
            self._release(key)

    def _on_message(self, message: wire.Published) -> None:
        if message.mid is not None:
            self._transport.write(wire.puback(message.mid))
        if message.topic != ack_topic(self.device_id):
            return
        self._counts.acks_heard += 1
        ack = json.loads(message.payload)
        missing = ack["missing"]
        self.named_missing[ack["boot_id"]] = (ack["upto"], missing)
        now = time.monotonic()
        for key, held in list(self.held.items()):
            if key.boot_id != ack["boot_id"] or key.seq > ack["upto"]:
                continue
            if any(first <= key.seq <= last for first, last in missing):
                if held.on_broker and held.sent_s is not None and now - held.sent_s > NAMED_AGAIN_S:
                    self._again(key)
            elif held.sendings:
                self._release(key)

    # -- messages ---------------------------------------------------------------------------------

    def issue(self, kind: str) -> None:
        key = Key(self.device_id, self.boot_id, self.next_seq)
        self.next_seq += 1
        ts_ms = self.terms.clock_ms or time.time_ns() // 1_000_000
        self._ledger.issue(key, ts_ms, kind)
        self._counts.issued += 1
        self.held[key] = Held(topic_of(key, kind), payload_of(key, ts_ms, kind))
        self._again(key)
        for other in range(1, self.terms.repeat):
            self._ready.insert(max(0, len(self._ready) - 3 * other), key)

    def _again(self, key: Key) -> None:
        held = self.held.get(key)
        if held is not None and not held.queued:
            held.queued = True
            self._ready.append(key)

    def _release(self, key: Key) -> None:
        if self.held.pop(key, None) is not None:
            self._counts.acked += 1
            self._ledger.acknowledge(key)

    def pump(self) -> None:
        if not self.up or self._transport is None or self._transport.is_closing():
            return
        out, now = [], time.monotonic()
        while self._ready and len(self._awaiting) < self.terms.window:
            key = self._ready.popleft()
            held = self.held.get(key)
            if held is None:
                continue
            held.queued = held.on_broker = False
            held.sent_s, held.sendings = now, held.sendings + 1
            mid = self._next_mid()
            self._awaiting[mid] = key
            out.append(wire.publish(held.topic, held.payload, mid, self.terms.version))
        if out:
            self._counts.sent += len(out)
            if len(self._awaiting) == len(out):
                self._asked_s = now
            self._transport.write(b"".join(out))

    def _next_mid(self) -> int:
        while True:
            self._mid = self._mid % 65_535 + 1
            if self._mid not in self._awaiting:
                return self._mid

    def chores(self, now: float) -> None:
        if self._transport is None:
            return
        if not self.up and now - self._heard_s > 5:
            self.hang_up()
            return
        oldest = max(self._asked_s, self._heard_s)
        if self._awaiting and now - oldest > PUBACK_PATIENCE_S:
            self._counts.stalls += 1
            self.hang_up()
            return
        if now - self._heard_s > self.terms.keepalive_s * 1.5:
            self.hang_up()
            return
        if now - self._heard_s > self.terms.keepalive_s / 2 and self.up:
            self._transport.write(wire.PING)
        if self.terms.durable and self.terms.resend:
            for key, held in list(self.held.items())[:300]:
                if held.on_broker and not held.queued and now - held.sent_s > min(MOST_AGAIN_S, DURABLE_AGAIN_S * 2 ** (held.sendings - 1)):
                    self._again(key)
        self.pump()


@dataclass
class Fleet:
    """All devices, and how much they shall still issue."""

    ledger: Ledger
    chance: random.Random
    devices: dict[str, Device] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    left: int = 0
    per_s: float = 0.0
    _credit: float = 0.0
    _turn: int = 0

    async def run(self) -> None:
        last = flushed = chored = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self._credit = min(self._credit + (now - last) * self.per_s, max(50.0, self.per_s * 0.2))
            last = now
            self._issue()
            if now - chored > 0.2:
                chored = now
                for device in self.devices.values():
                    device.chores(now)
            if now - flushed > 0.05:
                flushed = now
                self.ledger.flush()

    def _issue(self) -> None:
        able = [d for d in self.devices.values() if not d.leaving and len(d.held) < d.terms.most_held]
        if not able:
            return
        most = min(self.left, int(self._credit) if self.per_s else 400)
        for _ in range(most):
            device = able[self._turn % len(able)]
            self._turn += 1
            device.issue(self._kind(device))
        self.left -= most
        if self.per_s:
            self._credit -= most
        if most:
            for device in able:
                device.pump()

    def _kind(self, device: Device) -> str:
        t, seq = device.terms, device.next_seq
        if t.refused_every and seq % t.refused_every == t.refused_every - 1:
            return REFUSED
        if t.dangerous_every and seq % t.dangerous_every == t.dangerous_every - 1:
            return DANGEROUS
        return t.kind

    # -- commands ---------------------------------------------------------------------------------

    def add(self, ids: list[str], passwords: dict[str, str] | None = None, **terms: Any) -> None:
        for device_id in ids:
            device = Device(device_id, (passwords or {}).get(device_id), Terms(**terms), self.ledger, self.counts, self.chance)
            self.devices[device_id] = device
            _keep(asyncio.ensure_future(device.live()))

    def issue(self, messages: int, per_s: float = 0.0) -> None:
        self.left, self.per_s, self._credit = messages, per_s, 0.0

    def halt(self) -> None:
        self.left = 0

    def reboot(self, ids: list[str], clock_ms: int | None = None) -> None:
        for device_id in ids:
            self.devices[device_id].reboot(clock_ms)

    def change(self, ids: list[str], **terms: Any) -> None:
        """Other terms from now on; a new address holds from the next connection."""
        for device_id in ids:
            for name, value in terms.items():
                setattr(self.devices[device_id].terms, name, value)

    def hang_up(self, ids: list[str]) -> None:
        for device_id in ids:
            self.devices[device_id].hang_up()

    def leave(self, ids: list[str]) -> None:
        for device_id in ids:
            self.devices[device_id].leave()

    def status(self) -> dict[str, Any]:
        self.ledger.flush()
        return {
            **vars(self.counts),
            "left": self.left,
            "held": sum(len(d.held) for d in self.devices.values()),
            "connected": sum(d.up for d in self.devices.values()),
        }

    def boots(self) -> dict[str, int]:
        return {d.device_id: d.boot_id for d in self.devices.values()}

    def missing(self) -> dict[str, dict[int, tuple[int, list]]]:
        """What each device was last told of each boot: (up to, ranges that lack)."""
        return {d.device_id: d.named_missing for d in self.devices.values()}


_tasks: set[asyncio.Future] = set()


def _keep(task: asyncio.Future) -> None:
    _tasks.add(task)

    def done(ended: asyncio.Future) -> None:
        _tasks.discard(ended)
        if not ended.cancelled() and ended.exception() is not None:
            print(json.dumps({"died": repr(ended.exception())}), flush=True)
            sys.exit(1)

    task.add_done_callback(done)


async def serve(ledger_path: str, seed: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with open(ledger_path, "a", buffering=1 << 20) as file:
        fleet = Fleet(Ledger(file), random.Random(seed))
        _keep(asyncio.ensure_future(fleet.run()))
        while line := await reader.readline():
            command = json.loads(line)
            answer = getattr(fleet, command.pop("do"))(**command)
            print(json.dumps({"ok": answer}), flush=True)
        for device in fleet.devices.values():
            device.leave()
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
