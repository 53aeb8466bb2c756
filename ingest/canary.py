"""The canary: a message of our own through the whole path, and back out of the store.

It is a message of the contract, published to the broker like a device's, received by the worker's subscription,
judged in its turn, and stored behind everything that came before it; then the store is asked for it. It carries a
danger that the judge must find. Like the pulse it is outside the ledger: it is no device's, and nobody's usage.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import orjson

from ingest import observe
from ingest.admit import readings
from ingest.clock import Clock, steady_s
from ingest.decode import decode
from ingest.errors import InvalidMessage, Unavailable
from ingest.safety.data import SENSOR_IMPLAUSIBLE
from ingest.safety.judge import Judged, judge
from ingest.safety.track import Track
from ingest.sink import NotReadable
from schemas.measurements import CANARY, EVERY, Point
from schemas.messages import VERSION
from schemas.profile import Profiles
from schemas.topics import Stream

PATIENCE_S = 10.0
"""After so long without one back from the broker, another one is sent; the first that comes back is seen through."""

UNREAD_S = 60.0
"""After so long one that the store took and does not give back is given up, and another one sent."""

MOST_FLYING = 10

ASK_AGAIN_S = 2.0
NS_PER_MS = 1_000_000


class Stage(StrEnum):
    """How far one has come."""

    SENT = "sent"
    JUDGED = "judged"
    WRITTEN = "written"
    THROUGH = "through"
    UNFOUND = "unfound"


STUCK: dict[Stage, str] = {
    Stage.SENT: "it did not come back from the broker",
    Stage.JUDGED: "it waits for the store",
    Stage.WRITTEN: "the store took it, and does not give it back",
    Stage.UNFOUND: "the judge did not find the danger in it",
}


class Air(Protocol):
    """What carries it to the broker."""

    def is_connected(self) -> bool: ...
    def say(self, payload: bytes) -> None: ...


@dataclass(slots=True)
class Flight:
    seq: int
    sent_s: float
    sent_ms: int
    stage: Stage = Stage.SENT
    entry_id: int = 0


class Canary:
    """Sends them from a thread of its own; the core tells it how far each has come.

    `read_back(point)` says whether the store has a point, as `Sink.holds` does; where the store may not be asked, the
    check ends at the write.
    """

    def __init__(
        self, air: Air, clock: Clock, name: str, boot_id: int, interval_s: float, read_back: Callable[[Point], bool]
    ) -> None:
        self._air = air
        self._clock = clock
        self._name = name
        self._boot_id = boot_id
        self.interval_s = interval_s
        self._read_back = read_back
        self._flight: Flight | None = None
        self._flying: dict[int, Flight] = {}
        self._seq = 0
        self._moved = threading.Event()
        self._stopping = threading.Event()
        self.missing_since: tuple[float, int] | None = None
        """When the first was sent that has not come through: steady s, and ms since 1970."""

        self.through_ms: int | None = None
        self.through_s: float | None = None
        self.took_s: float | None = None
        self.ends_at = "read back"
        """Where the check ends: 'read back', or why it ends at the write."""

        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float = 2.0) -> None:
        self._stopping.set()
        self._moved.set()
        self._thread.join(deadline_s)

    # -- for the core ---------------------------------------------------------------------------

    def judged(self, topic: bytes, payload: bytes, received_ms: int, profiles: Profiles) -> Point | None:
        """One has come back: what is to be stored of it, if it is the one that flies."""
        seq, found = look_at(topic, payload, received_ms, profiles)
        flight = self._flying.get(seq)
        if flight is None or self._flight is None or self._flight.stage is not Stage.SENT:
            return None
        self._flight = flight
        if not found:
            flight.stage = Stage.UNFOUND
            return None
        return Point(
            CANARY.name, (self._name, EVERY, EVERY),
            {"boot_id": self._boot_id, "seq": seq, "received_ms": received_ms}, flight.sent_ms * NS_PER_MS,
        )  # fmt: skip

    def enqueued(self, entry_id: int) -> None:
        """It waits for the store under this number."""
        if self._flight is not None:
            self._flight.entry_id, self._flight.stage = entry_id, Stage.JUDGED

    def settled(self, entry_id: int) -> None:
        """The store has confirmed everything up to this number."""
        flight = self._flight
        if flight is not None and flight.stage is Stage.JUDGED and entry_id >= flight.entry_id:
            flight.stage = Stage.WRITTEN
            self._moved.set()

    # -- for whoever looks ----------------------------------------------------------------------

    @property
    def waits_for_the_store(self) -> bool:
        flight = self._flight
        return flight is not None and flight.stage in (Stage.JUDGED, Stage.WRITTEN)

    @property
    def words(self) -> str:
        flight = self._flight
        return STUCK.get(flight.stage, "") if flight else ""

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._air.is_connected():
                self._flight = self.missing_since = None
                self._flying.clear()  # nothing is expected of it: that is told by another name
                self._stopping.wait(0.5)
                continue
            if self._fly():
                self._stopping.wait(self.interval_s)

    def send(self) -> Flight:
        """One more is on its way."""
        self._seq += 1
        flight = Flight(self._seq, steady_s(), self._clock.now_ms())
        if self.missing_since is None:
            self.missing_since = (flight.sent_s, flight.sent_ms)
        self._moved.clear()
        self._flying[flight.seq] = self._flight = flight
        if len(self._flying) > MOST_FLYING:
            del self._flying[min(self._flying)]
        self._air.say(message(self._boot_id, flight.seq, flight.sent_ms))
        return flight

    def _fly(self) -> bool:
        """Send one and see it through; whether the next may wait for its time."""
        sent_s = self.send().sent_s
        while not self._stopping.is_set():
            if self.look():
                return True
            if not self._air.is_connected():
                return False
            if steady_s() - sent_s >= self._patience_s():
                return False
            self._moved.wait(ASK_AGAIN_S)
            self._moved.clear()
        return True

    def _patience_s(self) -> float:
        """What waits in the journal will be stored; else another one is sent after a while. It may also have been undone
        with a step for which there was no room, and then another entry is stored under its number."""
        stage = self._flight.stage
        return math.inf if stage is Stage.JUDGED else UNREAD_S if stage is Stage.WRITTEN else PATIENCE_S

    def look(self) -> bool:
        """Whether the one that flies is through; the store is asked for it once it has taken it."""
        flight = self._flight
        if flight is not None and flight.stage is Stage.WRITTEN and self._is_there(flight):
            self._note_through(flight)
        return flight is not None and flight.stage is Stage.THROUGH

    def _is_there(self, flight: Flight) -> bool:
        point = Point(CANARY.name, (self._name, EVERY, EVERY), {"boot_id": self._boot_id, "seq": flight.seq}, flight.sent_ms * NS_PER_MS)
        try:
            there = self._read_back(point)
        except Unavailable:
            return False
        except NotReadable as refusal:
            self.ends_at = f"the write: {refusal}"
            return True
        self.ends_at = "read back"
        return there

    def _note_through(self, flight: Flight) -> None:
        now_s = steady_s()
        flight.stage = Stage.THROUGH
        self._flying.clear()
        self.took_s, self.through_s, self.through_ms, self.missing_since = now_s - flight.sent_s, flight.sent_s, flight.sent_ms, None
        observe.CANARY_SECONDS.set(self.took_s)

    @property
    def age_s(self) -> float | None:
        """Since the last that came through was sent."""
        return None if self.through_s is None else steady_s() - self.through_s


def message(boot_id: int, seq: int, now_ms: int) -> bytes:
    """A message of stream `runtime` with more output than time: a danger that the judge must find, and nobody's."""
    sample = {
        "dt_ms": 0, "run_state": "idle", "program_id": "canary", "elapsed_s": 0, "output_on_s": 14_400, "zone": "forehead",
        "zone_source": "program", "zone_elapsed_s": 0, "auto_off_s": None, "end_reason": None,
    }  # fmt: skip
    said = {
        "model": "canary", "v": VERSION, "boot_id": boot_id, "seq": seq, "ts_ms": now_ms, "uptime_ms": 0, "session_id": None,
        "hw": "0", "fw": "0", "samples": [sample],
    }  # fmt: skip
    return orjson.dumps(said)


def look_at(topic: bytes, payload: bytes, received_ms: int, profiles: Profiles) -> tuple[int | None, bool]:
    """The number of a canary, and whether the judge finds what is wrong with it. Anything else has no number."""
    try:
        decoded = decode(topic.decode(), payload)
    except (InvalidMessage, UnicodeDecodeError):
        return None, False
    if decoded.stream is not Stream.RUNTIME:
        return None, False
    track, judged = Track(decoded.device_id, "canary"), Judged()
    for reading in readings(decoded, decoded.message.ts_ms, received_ms, profiles):
        judge(track, reading, judged)
    return decoded.message.seq, any(alert.rule == SENSOR_IMPLAUSIBLE.id for alert in judged.alerts.values())
