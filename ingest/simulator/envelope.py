"""A device's clock, its sequence numbers and its radio: what turns samples into messages. Pure."""

from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from ingest.simulator.radio import Radio
from ingest.simulator.scenario import DeviceClock, Path
from schemas.messages import VERSION
from schemas.topics import Stream

BELIEVED_AHEAD_MS = 60_000
BELIEVED_BEHIND_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the contract. `flights_ms` are the simulated times at which it reaches the
    broker: one, two where the path repeats it, or none where it is lost for good."""

    device_id: str
    boot_id: int
    seq: int
    stream: Stream
    payload: bytes
    samples: int
    flights_ms: tuple[int, ...]


class Envelopes:
    """The messages of one device, boot after boot. A device that is made again at another time has other boots,
    and is else the same."""

    def __init__(self, key: str, start_ms: int, device_id: str, model: str, hw: str, fw: str, clock: DeviceClock | None) -> None:
        random = Random(key)
        self._boots = Random(f"{key}/{start_ms}")
        self.radio = Radio(Random(f"{key}/radio"), Path())
        self.boot_id = self.seq = self.boot_ms = 0
        self._device_id = device_id
        self._gateway_id = f"phone-{device_id}"[:64]
        self._about = {"model": model, "hw": hw, "fw": fw}
        self._offset_ms = random.uniform(-2_000, 2_000)
        self._wrong_ms = 0.0 if clock is None else clock.ahead_s * 1000
        self._drift = random.uniform(-30e-6, 30e-6)

    def restart(self, at_ms: int) -> None:
        """A new boot: another id, numbers from 0. The phone sets the clock, if it can be set."""
        self.boot_id, self.seq, self.boot_ms = self._boots.getrandbits(32), 0, at_ms

    def set_clock_right(self) -> None:
        self._wrong_ms = 0.0

    def device_ms(self, at_ms: int) -> int:
        """What this device's clock shows at a simulated moment."""
        return round(at_ms + self._wrong_ms + self._offset_ms + (at_ms - self.boot_ms) * self._drift)

    def event_ms(self, at_ms: int) -> int:
        """The time under which the fleet will know this moment: the device's, if it can be believed."""
        if -BELIEVED_BEHIND_MS <= self._wrong_ms < BELIEVED_AHEAD_MS:
            return self.device_ms(at_ms)
        return at_ms

    def message(
        self, stream: Stream, at_ms: int, samples: list[dict[str, Any]], session_id: str | None, at_once: bool = False
    ) -> Message:
        """Envelope samples that carry simulated times; `at_once` is what the radio cannot delay."""
        first_ms = samples[0]["dt_ms"]
        for sample in samples:
            sample["dt_ms"] -= first_ms
        envelope = {
            "v": VERSION,
            "boot_id": self.boot_id,
            "seq": self.seq,
            "ts_ms": self.device_ms(first_ms),
            "uptime_ms": max(first_ms - self.boot_ms, 0),
            "session_id": session_id,
            **self._about,
        }
        carried_ms = None if at_once else self.radio.carried_until_ms(at_ms)
        if carried_ms is not None:
            envelope["gateway_id"] = self._gateway_id
            envelope["gateway_ts_ms"] = carried_ms
        envelope["samples"] = samples
        flights = (at_ms,) if at_once else self.radio.flights(at_ms)
        made = Message(self._device_id, self.boot_id, self.seq, stream, orjson.dumps(envelope), len(samples), flights)
        self.seq += 1
        return made
