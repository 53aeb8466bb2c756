"""A simulated fleet without sockets and clocks: what would arrive at a broker, in order of arrival."""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from ingest.simulator.devices import Device, Message, Role
from ingest.simulator.household import Rhythm
from ingest.simulator.truth import DeviceMade, End, Expectation, MessageMade, Truth, digest
from ingest.simulator.use import Clusters
from schemas.messages import Online, StatusReason
from schemas.profile import Profiles
from schemas.topics import Stream, uplink


class Arrival(NamedTuple):
    """One message as it reaches the broker, at `received_ms` (simulated)."""

    received_ms: int
    device_id: str
    stream: Stream
    topic: str
    payload: bytes


class Generated:
    """Iterate once over its arrivals; `truth` is complete when that is done."""

    def __init__(
        self, roles: Sequence[Role], profiles: Profiles, seed: int, start_ms: int, duration_s: float,
        rhythm: Rhythm, first_within_s: float, digests: bool,
    ) -> None:  # fmt: skip
        self._start_ms, self._end_ms = start_ms, start_ms + round(duration_s * 1000)
        self._digests = digests
        self._clusters = Clusters()
        self._made: list[DeviceMade] = []
        self._messages: list[MessageMade] = []
        self._expectations: list[Expectation] = []
        self._count = self._samples = self._repeats = 0
        self._devices: list[Device] = []
        self._steps: list[tuple[int, int]] = []
        self._flights: list[tuple[int, int, Message, bool]] = []
        self._flown = 0
        for index, role in enumerate(roles):
            profile = profiles.for_model(role.model)
            if profile is None:
                raise ValueError(f"no profile for model '{role.model}'")
            device = Device(role, profile, seed, start_ms, rhythm, first_within_s)
            self._devices.append(device)
            self._clusters.add(role.device_id, role.model, role.lot, role.fw)
            self._made.append(DeviceMade(role.device_id, role.model, role.scenario.number, role.scenario.name))
            heappush(self._steps, (device.next_ms, index))

    def __iter__(self) -> Iterator[Arrival]:
        born: dict[str, int] = {}
        while self._steps and self._steps[0][0] < self._end_ms:
            now_ms, index = heappop(self._steps)
            yield from self._arrived(now_ms)
            device = self._devices[index]
            if born.get(device.role.device_id) != device.boot_id:
                born[device.role.device_id] = device.boot_id
                self._send([device.status(Online.ONLINE, StatusReason.BIRTH, now_ms)], now_ms)
            self._send(device.step(), now_ms)
            self._note(device)
            heappush(self._steps, (device.next_ms, index))
        for device in self._devices:
            self._send(device.stop(self._end_ms), self._end_ms)
            self._note(device)
            if device.on:
                self._send([device.status(Online.OFFLINE, StatusReason.SHUTDOWN, self._end_ms)], self._end_ms)
        yield from self._arrived(None)

    @property
    def truth(self) -> Truth:
        """What the devices did and what must be noticed, as far as it has been generated."""
        end = End(
            clock_ms=self._end_ms, messages=self._count, samples=self._samples,
            devices=len(self._devices), resent=self._repeats, unacked=0,
        )  # fmt: skip
        return Truth(tuple(self._made), tuple(self._messages), tuple(self._expectations), end)

    def _send(self, messages: list[Message], now_ms: int) -> None:
        # A step lives through the seconds before it: what they made cannot arrive before now.
        for message in messages:
            for repeat, at_ms in enumerate(message.flights_ms):
                self._flown += 1
                heappush(self._flights, (max(at_ms, now_ms), self._flown, message, repeat > 0))

    def _arrived(self, until_ms: int | None) -> Iterator[Arrival]:
        flights = self._flights
        while flights and (until_ms is None or flights[0][0] <= until_ms):
            at_ms, _, message, repeated = heappop(flights)
            if repeated:
                self._repeats += 1
            else:
                self._count += 1
                self._samples += message.samples
                if self._digests:
                    self._messages.append(MessageMade(
                        message.device_id, message.boot_id, message.seq, message.stream, at_ms, digest(message.payload)
                    ))  # fmt: skip
            yield Arrival(at_ms, message.device_id, message.stream, uplink(message.device_id, message.stream), message.payload)

    def _note(self, device: Device) -> None:
        for expectation in device.injected:
            self._expectations.append(expectation)
            self._expectations += self._clusters.note(expectation)
        device.injected.clear()


def generate(
    roles: Sequence[Role], profiles: Profiles, seed: int = 1, *, start_ms: int, duration_s: float,
    rhythm: Rhythm = Rhythm.HOUSEHOLD, first_within_s: float = 240.0, digests: bool = False,
) -> Generated:  # fmt: skip
    """The life of these devices over `duration_s` simulated seconds, then a polite end.

    With `digests`, the truth names every message and its SHA-256.
    """
    return Generated(roles, profiles, seed, start_ms, duration_s, rhythm, first_within_s, digests)
