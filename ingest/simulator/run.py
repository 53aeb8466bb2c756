"""A whole simulated fleet against a real broker: devices, radio, connections, clock and truth."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import paho.mqtt.client as paho

from ingest.simulator.buffer import Birth, Held, Link
from ingest.simulator.clock import Clock, ClockFile
from ingest.simulator.devices import Device, Role
from ingest.simulator.envelope import Message
from ingest.simulator.household import Rhythm
from ingest.simulator.publish import Endpoint, Uplinks
from ingest.simulator.truth import DeviceMade, End, TruthFile
from ingest.simulator.use import Clusters
from schemas.messages import Online, StatusReason
from schemas.profile import Profiles, load_profiles

PROTOCOLS = {"3.1.1": paho.MQTTv311, "5": paho.MQTTv5}
_TURN_S = 0.004
_PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. `start_ms` in the past makes simulated time run at `speed` until it meets
    the present. `duration_s` is simulated; None runs until stopped. With `pace`, time never runs
    more than `max_lag_s` (simulated) ahead of what the fleet has durably acknowledged. At the end,
    `flush_s` without one more durable acknowledgement is taken for the end of them."""

    host: str
    port: int
    credentials: Mapping[str, str]
    start_ms: int
    roles: Sequence[Role]
    protocol: str | int = "3.1.1"
    seed: int = 1
    speed: float = 1.0
    duration_s: float | None = None
    rhythm: Rhythm = Rhythm.HOUSEHOLD
    first_within_s: float = 240.0
    truth: Path | None = None
    clock_file: Path | None = None
    pace: bool = True
    max_lag_s: float = 20.0
    flush_s: float = 30.0
    profiles: Profiles | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`problem` is the last reason why a device could not connect, empty if none."""

    clock_ms: int
    target_ms: int | None
    speed: float
    devices: int
    connected: int
    messages: int
    samples: int
    unacked: int
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    clock_ms: int
    simulated_s: float
    wall_s: float
    cpu_s: float
    devices: int
    messages: int
    samples: int
    published: int
    resent: int
    refused_pubacks: int
    connects: int
    acked_unsent: int
    unacked: int
    problem: str


def run_simulation(
    plan: Plan, stop: threading.Event, progress: Callable[[Progress], None] = lambda _: None
) -> Report:
    """Simulate until the plan's duration is over or `stop` is set; then end politely."""
    simulation = _Simulation(plan)
    try:
        simulation.live(stop, progress)
        simulation.end(progress)
    finally:
        simulation.close()
    return simulation.report()


class _Simulation:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._began_s, self._began_cpu_s = time.monotonic(), time.thread_time()
        self._clock = Clock(plan.start_ms, plan.speed)
        self._clock_file = ClockFile(plan.clock_file)
        self._truth = TruthFile(plan.truth)
        self._messages = self._samples = 0
        self._told_s, self._told_ms = self._began_s, plan.start_ms
        if not plan.roles or plan.speed <= 0:
            raise ValueError("a simulation needs at least one device and a speed above 0")
        protocol = PROTOCOLS.get(plan.protocol, plan.protocol)  # type: ignore[call-overload]
        if protocol not in (paho.MQTTv311, paho.MQTTv5):
            raise ValueError(f"protocol is {plan.protocol!r}; use '3.1.1' or '5'")
        self._uplinks = Uplinks(Endpoint(plan.host, plan.port, protocol), self._announce)
        self._clusters = Clusters()
        self._devices: list[Device] = []
        self._links: list[Link] = []
        self._steps: list[tuple[int, int]] = []
        self._flights: list[tuple[int, int, int, Message, Held]] = []
        self._flown = 0
        self._end_ms = None if plan.duration_s is None else plan.start_ms + round(plan.duration_s * 1000)
        self._build()

    def _build(self) -> None:
        plan, profiles = self._plan, self._plan.profiles or load_profiles()
        for index, role in enumerate(plan.roles):
            profile = profiles.for_model(role.model)
            if profile is None:
                raise ValueError(f"no profile for model '{role.model}'")
            device = Device(role, profile, plan.seed, plan.start_ms, plan.rhythm, plan.first_within_s)
            link = Link(role.device_id, device.boot_id, plan.credentials.get(role.device_id), self._birth_of(device))
            self._devices.append(device)
            self._links.append(link)
            self._truth.write(
                DeviceMade(role.device_id, role.model, role.scenario.number, role.scenario.name)
            )
            self._clusters.add(role.device_id, role.model, role.lot, role.fw)
            self._uplinks.add(link)
            heappush(self._steps, (device.next_ms, index))

    def _birth_of(self, device: Device) -> Birth:
        def birth(oldest_seq: int | None) -> tuple[Message, bytes]:
            message = device.status(Online.ONLINE, StatusReason.BIRTH, self._clock.now_ms, oldest_seq)
            return message, device.will(message)

        return birth

    # -- time -------------------------------------------------------------------------------

    def live(self, stop: threading.Event, progress: Callable[[Progress], None]) -> None:
        while not stop.is_set():
            now_ms = self._clock.advance(self._limit_ms())
            self._step(now_ms)
            self._fly(now_ms, now_ms)
            self._truth.flush()
            self._uplinks.turn(_TURN_S)
            self._commit(now_ms)
            self._tell(progress)
            if self._end_ms is not None and self._clock_file.written_ms >= self._end_ms:
                return

    def _limit_ms(self) -> float:
        """How far time may go: a broker or a fleet that falls behind holds it back."""
        slack_ms = self._plan.max_lag_s * 1000
        limits = [float("inf") if self._end_ms is None else float(self._end_ms)]
        waiting_ms = self._uplinks.on_broker.oldest_ms()
        if waiting_ms is not None:
            limits.append(waiting_ms + slack_ms)
        if self._plan.pace:
            uncovered_ms = self._uplinks.durable.oldest_ms()
            if uncovered_ms is not None:
                limits.append(uncovered_ms + slack_ms)
        return min(limits)

    def _commit(self, now_ms: int) -> None:
        """Say how late it is, once the broker has all that was due until then."""
        waiting_ms = self._uplinks.on_broker.oldest_ms()
        self._clock_file.write(now_ms if waiting_ms is None else min(now_ms, waiting_ms - 1))

    # -- messages ---------------------------------------------------------------------------

    def _step(self, now_ms: int) -> None:
        while self._steps[0][0] <= now_ms:
            _, index = heappop(self._steps)
            device, link = self._devices[index], self._links[index]
            if device.boot_id != link.boot_id:
                self._uplinks.restart(link, device.boot_id)
            messages = device.step()
            self._note_faults(device)
            self._schedule(index, messages)
            heappush(self._steps, (device.next_ms, index))

    def _note_faults(self, device: Device) -> None:
        for expectation in device.injected:
            for fact in (expectation, *self._clusters.note(expectation)):
                self._truth.write(fact)
        device.injected.clear()

    def _schedule(self, index: int, messages: list[Message]) -> None:
        for message in messages:
            if not message.flights_ms:
                continue  # the device forgets it
            held = self._links[index].hold(message)
            for at_ms in message.flights_ms:
                self._flown += 1
                heappush(self._flights, (at_ms, self._flown, index, message, held))

    def _fly(self, now_ms: int, until_ms: float) -> None:
        while self._flights and self._flights[0][0] <= until_ms:
            at_ms, _, index, message, held = heappop(self._flights)
            self._hand_over(self._links[index], message, held, min(at_ms, now_ms))

    def _hand_over(self, link: Link, message: Message, held: Held, at_ms: int) -> None:
        # A message that comes late to this loop is due now: what is written stays true.
        due_ms = max(at_ms, self._clock_file.written_ms + 1)
        if self._uplinks.publish(link, held, due_ms):
            self._messages += 1
            self._samples += message.samples
            self._truth.message(
                message.device_id, message.boot_id, message.seq, message.stream, due_ms, message.payload
            )

    def _announce(self, link: Link, message: Message, held: Held) -> None:
        self._hand_over(link, message, held, self._clock.now_ms)

    # -- the end ----------------------------------------------------------------------------

    def end(self, progress: Callable[[Progress], None]) -> None:
        """Sessions end, everything on its way arrives, every message is durably acknowledged."""
        now_ms = self._clock.now_ms
        for index, device in enumerate(self._devices):
            self._schedule(index, device.stop(now_ms))
            self._note_faults(device)
        self._fly(now_ms, float("inf"))
        for index, device in enumerate(self._devices):
            if device.on:
                self._schedule(index, [device.status(Online.OFFLINE, StatusReason.SHUTDOWN, now_ms)])
        self._fly(now_ms, float("inf"))
        self._flush(progress)
        self._commit(now_ms)
        self._truth.write(End(
            clock_ms=max(self._clock_file.written_ms, self._plan.start_ms), messages=self._messages,
            samples=self._samples, devices=len(self._devices), resent=self._uplinks.counts.resent,
            unacked=self._uplinks.unacked,
        ))  # fmt: skip

    def _flush(self, progress: Callable[[Progress], None]) -> None:
        fewest, since_s = self._uplinks.unacked, time.monotonic()
        while self._uplinks.unacked and time.monotonic() - since_s < self._plan.flush_s:
            self._truth.flush()
            self._uplinks.turn(_TURN_S)
            self._tell(progress)
            if self._uplinks.unacked < fewest:
                fewest, since_s = self._uplinks.unacked, time.monotonic()

    def close(self) -> None:
        self._uplinks.leave()
        self._truth.close()
        self._clock_file.close()

    # -- what is told -----------------------------------------------------------------------

    def _tell(self, progress: Callable[[Progress], None]) -> None:
        now_s = time.monotonic()
        passed_s = now_s - self._told_s
        if passed_s < _PROGRESS_S:
            return
        now_ms = self._clock.now_ms
        speed = (now_ms - self._told_ms) / 1000 / passed_s
        self._told_s, self._told_ms = now_s, now_ms
        connected = self._uplinks.connected
        progress(Progress(
            clock_ms=now_ms, target_ms=self._end_ms, speed=speed, devices=len(self._devices),
            connected=connected, messages=self._messages, samples=self._samples,
            unacked=self._uplinks.unacked,
            problem="" if connected == len(self._devices) else self._uplinks.counts.refusal,
        ))  # fmt: skip

    def report(self) -> Report:
        counts = self._uplinks.counts
        return Report(
            clock_ms=self._clock.now_ms,
            simulated_s=(self._clock.now_ms - self._plan.start_ms) / 1000,
            wall_s=time.monotonic() - self._began_s,
            cpu_s=time.thread_time() - self._began_cpu_s,
            devices=len(self._devices),
            messages=self._messages,
            samples=self._samples,
            published=counts.published,
            resent=counts.resent,
            refused_pubacks=counts.refused_pubacks,
            connects=counts.connects,
            acked_unsent=counts.acked_unsent,
            unacked=self._uplinks.unacked,
            problem=counts.refusal,
        )
