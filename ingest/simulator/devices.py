"""A device that obeys the contract, in simulated time: it boots, idles, treats, and batches what
it measures into messages. Pure: no socket, no clock; the same seed and start give the same readings.
"""

import hashlib
import zlib
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from ingest.simulator.household import Household, Rhythm
from ingest.simulator.radio import DELIVERY_S, Radio
from ingest.simulator.scenarios import HEALTHY, LUMABAR, Scenario
from ingest.simulator.session import Counters, Session
from ingest.simulator.skin import Skin
from ingest.simulator.truth import Expectation
from schemas.messages import (
    VERSION,
    EndReason,
    Online,
    ResetReason,
    RunState,
    SelfTest,
    StatusReason,
)
from schemas.profile import Profile
from schemas.topics import Stream

BATCH_S = 5
HEALTH_MS = 60_000
HW, FW = "B", "2.3.1"

_BASE_OHM = {"lumabar-s15": 40_000.0, "toneduo-400": 8_000.0, "tonetip-e": 18_000.0}


@dataclass(frozen=True, slots=True)
class Role:
    """Which device this is and what happens to it. The id is stable over runs."""

    device_id: str
    model: str
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the contract. `flights_ms` are the simulated times at which it reaches the
    broker: one, or two where the path repeats it."""

    device_id: str
    boot_id: int
    seq: int
    stream: Stream
    payload: bytes
    samples: int
    flights_ms: tuple[int, ...]


class Device:
    """Call `step` whenever simulated time has reached `next_ms`; it returns the messages due."""

    def __init__(self, role: Role, profile: Profile, seed: int, start_ms: int, rules: frozenset[str],
                 rhythm: Rhythm = Rhythm.HOUSEHOLD) -> None:  # fmt: skip
        self.role = role
        self.profile = profile
        self.injected: list[Expectation] = []
        self._rules = rules
        key = f"{seed}/{role.device_id}"
        body = Random(key)  # what stays the same over boots
        self._serial = f"SN{body.randrange(10**8):08d}"
        self._lot = f"L{body.randrange(6):02d}-26"
        self._base_ohm = _BASE_OHM.get(role.model, 9_000.0) * body.uniform(0.92, 1.08)
        self._random = Random(f"{key}/{start_ms}")
        self._radio = Radio(Random(f"{key}/{start_ms}/radio"), role.scenario.path)
        self.boot_id = self._random.getrandbits(32)
        self._boot_ms = start_ms
        self._offset_ms = self._random.uniform(-2_000, 2_000)
        self._drift = self._random.uniform(-30e-6, 30e-6)
        self._seq = 0
        self._counters = Counters()
        self._session: Session | None = None
        self._household = Household(role.scenario, profile, rhythm, self._random)
        self._batch: dict[Stream, list[dict[str, Any]]] = {Stream.CURRENT: [], Stream.CONTACT: [], Stream.RUNTIME: []}
        self._battery_mv = self._random.uniform(3_800, 4_100)
        self._head_c = self._room_c = self._random.uniform(28.0, 30.0)
        self._reported_c = self._head_c
        self._lux = self._random.uniform(300.0, 800.0)
        late_s = 45.0 if role.scenario is not HEALTHY else 240.0
        self._begin_ms = start_ms + round(self._random.uniform(5.0, late_s) * 1000)
        self._health_ms = start_ms + HEALTH_MS
        self.next_ms = self._begin_ms

    def device_ms(self, at_ms: int) -> int:
        """What this device's clock shows at a simulated moment."""
        return round(at_ms + self._offset_ms + (at_ms - self._boot_ms) * self._drift)

    def boot(self) -> list[Message]:
        """What a device says first, apart from its birth: who it is and how it is."""
        at_ms = self._boot_ms
        return [self._message(Stream.IDENTITY, at_ms, [self._identity(at_ms)]), self._health(at_ms)]

    def status(self, state: Online, reason: StatusReason, at_ms: int, oldest_seq: int | None = None) -> Message:
        """Birth or goodbye; `oldest_seq` is the oldest message still held, None if there is no other."""
        sample: dict[str, Any] = {
            "dt_ms": at_ms, "state": state, "reason": reason,
            "oldest_seq": self._seq if oldest_seq is None else oldest_seq,
        }  # fmt: skip
        return self._message(Stream.STATUS, at_ms, [sample], now=True)

    def will(self, birth: Message) -> bytes:
        """The last will that belongs to a birth: the same envelope, `seq` and all."""
        will = orjson.loads(birth.payload)
        will["samples"] = [{"dt_ms": 0, "state": Online.OFFLINE, "reason": StatusReason.WILL}]
        return orjson.dumps(will)

    def step(self) -> list[Message]:
        """Everything that this device makes at `next_ms`."""
        now_ms = self.next_ms
        messages: list[Message] = []
        if self._session is not None:
            messages += self._treat(self._session, BATCH_S)
        elif now_ms >= self._begin_ms:
            messages += self._begin(now_ms)
        if now_ms >= self._health_ms or abs(self._head_c - self._reported_c) >= 0.5:
            messages.append(self._health(now_ms))
        if self._session is not None:
            self.next_ms = self._session.began_ms + (self._session.age_s + BATCH_S) * 1000
        else:
            self._head_c += (self._room_c - self._head_c) * 0.3
            self.next_ms = max(min(self._begin_ms, self._health_ms), now_ms + 1)
        return messages

    def stop(self, at_ms: int) -> list[Message]:
        """The user switches off: a running session is lived up to now and ended."""
        session = self._session
        if session is None:
            return []
        whole_s = (at_ms - session.began_ms) // 1000 - session.age_s
        messages = self._treat(session, max(min(whole_s, BATCH_S), 0))
        if self._session is not None:
            messages += self._end(session, EndReason.USER)
        return messages

    # -- sessions ---------------------------------------------------------------------------

    def _begin(self, at_ms: int) -> list[Message]:
        plan = self._household.choose(self.boot_id)
        session = self._session = Session(
            plan, self.profile, Skin(self._random, self._base_ohm, plan.scenario.habit),
            self._counters, self._random, at_ms,
        )  # fmt: skip
        path = plan.scenario.path
        if path.outage_from_s is not None:
            from_ms = at_ms + path.outage_from_s * 1000
            self._radio.fail(from_ms, from_ms + path.outage_s * 1000)
        self._batch[Stream.RUNTIME] += [
            session.runtime(at_ms - 1_500, RunState.ARMED),
            session.runtime(at_ms, RunState.RUNNING),
        ]
        return self._flush(at_ms)

    def _treat(self, session: Session, seconds: int) -> list[Message]:
        """Live `seconds` of the session, or less if it ends; send what was gathered."""
        for _ in range(seconds):
            reading = session.advance()
            at_ms = session.began_ms + session.age_s * 1000
            self._batch[Stream.CURRENT].append(reading.current)
            self._batch[Stream.CONTACT] += reading.contact
            self._inject(session)
            end = reading.second.end
            if end is None and session.age_s >= session.plan.length_s:
                end = session.plan.end_reason
            if end is not None:
                return self._end(session, end)
            if session.zone_changed():
                self._batch[Stream.RUNTIME].append(session.runtime(at_ms, RunState.RUNNING))
        at_ms = session.began_ms + session.age_s * 1000
        heartbeat = self._batch[Stream.RUNTIME]
        if seconds and not (heartbeat and heartbeat[-1]["dt_ms"] == at_ms):
            heartbeat.append(session.runtime(at_ms, RunState.RUNNING))
        self._head_c += (self._room_c + 4.0 - self._head_c) * 0.02 + self._random.gauss(0.0, 0.02)
        self._battery_mv -= 0.1 * seconds
        return self._flush(at_ms)

    def _inject(self, session: Session) -> None:
        for expected in session.plan.scenario.fires:
            if expected.at_s + 1 == session.age_s and expected.rule in self._rules:
                onset_ms = session.began_ms + expected.at_s * 1000
                self.injected.append(Expectation(
                    device_id=self.role.device_id, session_id=session.plan.session_id,
                    scenario=session.plan.scenario.number, rule=expected.rule, severity=expected.severity,
                    onset_ms=self.device_ms(onset_ms),
                    by_ms=onset_ms + round((expected.within_s + DELIVERY_S) * 1000), required=expected.required,
                ))  # fmt: skip

    def _end(self, session: Session, reason: EndReason) -> list[Message]:
        at_ms = session.began_ms + session.age_s * 1000
        runtime = self._batch[Stream.RUNTIME]
        if reason == EndReason.FAULT:
            runtime.append(session.runtime(at_ms, RunState.FAULT))
            at_ms += 10
        elif runtime and runtime[-1]["dt_ms"] == at_ms:
            runtime.pop()
        runtime.append(session.runtime(at_ms, RunState.ENDED, reason))
        messages = self._flush(at_ms)
        self._session = None
        self._begin_ms = self._household.next_begin_ms(session.began_ms, session.age_s)
        return messages

    # -- messages ---------------------------------------------------------------------------

    def _flush(self, at_ms: int) -> list[Message]:
        messages = [self._message(stream, at_ms, samples) for stream, samples in self._batch.items() if samples]
        for stream in self._batch:
            self._batch[stream] = []
        return messages

    def _message(self, stream: Stream, at_ms: int, samples: list[dict[str, Any]], now: bool = False) -> Message:
        """Envelope samples that carry simulated times; `now` is for what the radio cannot delay."""
        first_ms = samples[0]["dt_ms"]
        ts_ms = self.device_ms(first_ms)
        for sample in samples:
            sample["dt_ms"] -= first_ms
        envelope = {
            "v": VERSION,
            "boot_id": self.boot_id,
            "seq": self._seq,
            "ts_ms": ts_ms,
            "uptime_ms": max(first_ms - self._boot_ms, 0),
            "session_id": self._session.plan.session_id if self._session is not None else None,
            "model": self.role.model,
            "hw": HW,
            "fw": FW,
        }
        carried_ms = None if now else self._radio.carried_until_ms(at_ms)
        if carried_ms is not None:
            envelope["gateway_id"] = f"phone-{self.role.device_id}"[:64]
            envelope["gateway_ts_ms"] = carried_ms
        envelope["samples"] = samples
        self._seq += 1
        flights = (at_ms,) if now else self._radio.flights(at_ms)
        return Message(
            self.role.device_id, self.boot_id, envelope["seq"], stream, orjson.dumps(envelope), len(samples), flights
        )

    def _health(self, at_ms: int) -> Message:
        self._health_ms = at_ms + HEALTH_MS
        self._reported_c = self._head_c
        random = self._random
        sample: dict[str, Any] = {
            "dt_ms": at_ms,
            "battery_mv": round(self._battery_mv, 0),
            "charging": False,
            "temp_head_c": round(self._head_c, 1),
            "temp_pcb_c": round(self._head_c + 2.0 + random.gauss(0.0, 0.1), 1),
            "fault_bits": 0,
            "self_test": SelfTest.PASS,
            "reset_reason": ResetReason.POWER_ON,
            "queued_msgs": 0,
            "rssi_dbm": round(max(min(random.gauss(-60, 5), -30), -95)),
        }
        if self.role.model == LUMABAR:
            sample["lux"] = round(self._lux * random.uniform(0.95, 1.05), 1)
            sample["solar_mv"] = round(random.uniform(1_250, 1_400), 0)
        if self._session is not None:
            sample.update(self._session.health)
        return self._message(Stream.HEALTH, at_ms, [sample])

    def _identity(self, at_ms: int) -> dict[str, Any]:
        return {
            "dt_ms": at_ms,
            "udi_di": f"0990000{zlib.crc32(self.role.model.encode()) % 10**7:07d}",
            "serial": self._serial,
            "lot": self._lot,
            "model": self.role.model,
            "hw_rev": HW,
            "fw_version": FW,
            "fw_sha256": hashlib.sha256(f"{self.role.model} {FW}".encode()).hexdigest(),
            "profile_id": self.profile.id,
            "profile_version": self.profile.version,
            "mfg_date": "2026-03-02",
            "calibration_date": "2026-03-04",
            "attachment_id": f"A-{self._serial}",
            "attachment_cycles": 40,
        }
