"""What a device holds until the fleet has it on disk, and when it says it again. Pure."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import chain, islice
from math import inf
from typing import Any

from ingest.simulator.envelope import Message
from schemas.messages import DurableAck
from schemas.topics import uplink

NAMED_MISSING_AGAIN_S = 2.0
UNCOVERED_AGAIN_S = 5.0
RECONNECTED_AGAIN_S = 0.3
LONGEST_AGAIN_S = 60.0
SCANNED = 200


@dataclass(slots=True, eq=False)
class Held:
    """A message on the device. Times are real seconds, `due_ms` is simulated."""

    seq: int
    topic: str
    payload: bytes
    due_ms: int = 0
    sent_s: float | None = None
    sendings: int = 0
    queued: bool = False
    on_broker: bool = False
    durable: bool = False
    missing: bool = False


@dataclass(slots=True)
class Counts:
    published: int = 0
    resent: int = 0
    refused_pubacks: int = 0
    connects: int = 0
    acks: int = 0
    acked_unsent: int = 0
    stalled: int = 0
    refusal: str = ""


class Frontier:
    """Finds the simulated time of the oldest published message that is not yet `done`."""

    def __init__(self, done: Callable[[Held], bool]) -> None:
        self._done = done
        self._heap: list[tuple[int, int, Held]] = []
        self._added = 0

    def add(self, held: Held) -> None:
        self._added += 1
        heappush(self._heap, (held.due_ms, self._added, held))

    def oldest_ms(self) -> int | None:
        heap = self._heap
        while heap and self._done(heap[0][2]):
            heappop(heap)
        return heap[0][0] if heap else None


Birth = Callable[[int | None], tuple[Message, bytes]]
"""Makes a birth and its will, given the oldest message still held."""


@dataclass(eq=False)
class Link:
    """One device's connection, and the messages that it still holds, by boot and number."""

    device_id: str
    boot_id: int
    password: str | None
    birth: Birth
    boots: dict[int, dict[int, Held]] = field(default_factory=dict)
    ready: deque[Held] = field(default_factory=deque)
    awaiting: dict[int, Held] = field(default_factory=dict)
    connected: bool = False
    restarting: bool = False
    born: tuple[Message, Held] | None = None
    retry_s: float = 0.0
    misc_s: float = 0.0
    client: Any = None

    def hold(self, message: Message) -> Held:
        held = Held(message.seq, uplink(self.device_id, message.stream), message.payload)
        self.boots.setdefault(message.boot_id, {})[message.seq] = held
        return held

    @property
    def unacked(self) -> int:
        return sum(map(len, self.boots.values()))

    @property
    def oldest_seq(self) -> int | None:
        """The oldest message of this boot that is still held."""
        return next(iter(self.boots.get(self.boot_id, ())), None)

    def owed_since_s(self) -> float:
        """When the oldest message was sent whose PUBACK has not come; never, if none is owed."""
        return min((held.sent_s for held in self.awaiting.values() if held.sent_s is not None), default=inf)

    def enqueue(self, held: Held) -> None:
        if not held.queued and not held.durable:
            held.queued = True
            self.ready.append(held)

    def cover(self, ack: DurableAck, counts: Counts) -> None:
        """Let go of what the fleet has on its disk. What is held is in order of seq."""
        boot = self.boots.get(ack.boot_id, {})
        ranges = ack.missing
        safe: list[int] = []
        for seq, held in boot.items():
            if seq > ack.upto:
                break
            if any(first <= seq <= last for first, last in ranges):
                held.missing = True
            elif held.sendings == 0:
                counts.acked_unsent += 1  # a false ack: the copy here is the only one
            else:
                held.durable = True
                safe.append(seq)
        for seq in safe:
            del boot[seq]
        if not boot and ack.boot_id != self.boot_id:
            self.boots.pop(ack.boot_id, None)

    def ask_again(self, now_s: float) -> None:
        """An acknowledgement may have been told while the device was away: what is uncovered goes soon."""
        for boot in self.boots.values():
            for held in boot.values():
                if held.sent_s is not None:
                    held.sent_s, held.sendings = now_s - UNCOVERED_AGAIN_S + RECONNECTED_AGAIN_S, 1

    def overdue(self, now_s: float) -> Iterable[Held]:
        """What must be sent again."""
        everything = chain.from_iterable(boot.values() for boot in self.boots.values())
        for held in islice(everything, SCANNED):
            if held.sent_s is None or held.queued or not held.on_broker:
                continue
            again_s = min(UNCOVERED_AGAIN_S * 2 ** (held.sendings - 1), LONGEST_AGAIN_S)
            if held.missing:
                again_s = min(again_s, NAMED_MISSING_AGAIN_S)
            if now_s - held.sent_s >= again_s:
                yield held
