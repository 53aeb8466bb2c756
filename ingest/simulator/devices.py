"""A device that obeys the contract, in simulated time: it boots, idles, treats, switches off, and
batches what it measures into messages. Pure: no socket, no clock; the same seed and start give the
same bytes.
"""

import hashlib
import zlib
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from ingest.simulator.envelope import Envelopes, Message
from ingest.simulator.household import Household, Rhythm
from ingest.simulator.models import LUMABAR, base_ohm
from ingest.simulator.radio import DELIVERY_S
from ingest.simulator.scenario import HEALTHY, Expected, Path, Scenario
from ingest.simulator.session import Counters, Reading, Session
from ingest.simulator.skin import Skin
from ingest.simulator.truth import Expectation
from ingest.simulator.use import Follows, Use, Used, Wear
from schemas.messages import EndReason, Online, ResetReason, RunState, SelfTest, StatusReason
from schemas.profile import Profile
from schemas.topics import Stream

BATCH_S = 5
FULL_BATCH = 30
"""Current samples that are sent at once, however young: a message has a largest size."""
HEALTH_MS = 60_000
HOT_C = 38.0
IDLE_LONGEST_MS = 600_000
"""A device that is not used for longer than this is switched off."""
SWITCHED_OFF_AFTER_MS = 90_000
BOOT_LEAD_MS = 8_000
RESTART_MS = 4_000
CHARGER_MS = 60_000
HW = "B"


@dataclass(frozen=True, slots=True)
class Role:
    """Which device this is and what happens to it. The id is stable over runs."""

    device_id: str
    model: str
    scenario: Scenario
    lot: str = "L00-26"
    fw: str = "2.3.1"


class Device:
    """Call `step` whenever simulated time has reached `next_ms`; it returns the messages due.

    Whenever `boot_id` has changed since the last step, its birth comes first: see `status`.
    `injected` collects the alerts that its faults and its use must cause.
    """

    def __init__(self, role: Role, profile: Profile, seed: int, start_ms: int,
                 rhythm: Rhythm = Rhythm.HOUSEHOLD, first_within_s: float = 240.0) -> None:  # fmt: skip
        """A healthy device's first session begins within `first_within_s`; a scenario says its own."""
        self.role = role
        self.profile = profile
        self.injected: list[Expectation] = []
        scenario = role.scenario
        key = f"{seed}/{role.device_id}"
        body = Random(key)  # what stays the same over boots
        self._serial = f"SN{body.randrange(10**8):08d}"
        self._base_ohm = base_ohm(role.model) * body.uniform(0.92, 1.08)
        self._random = Random(f"{key}/ways")
        self._envelopes = Envelopes(f"{key}/clock", start_ms, role.device_id, role.model, HW, role.fw, scenario.clock)
        self._household = Household(scenario, profile, rhythm, self._random)
        self._use, self._wear = Use(profile), Wear()
        self._session: Session | None = None
        self._batch: dict[Stream, list[dict[str, Any]]] = {
            Stream.CURRENT: [], Stream.CONTACT: [], Stream.RUNTIME: [], Stream.HEALTH: [],
        }  # fmt: skip
        self._battery_mv = self._random.uniform(3_800, 4_100)
        self._head_c = self._room_c = self._random.uniform(28.0, 30.0)
        self._lux = self._random.uniform(300.0, 800.0)
        self._bent: dict[str, Any] = {}
        within_s = first_within_s if scenario is HEALTHY else scenario.course.first_within_s
        self._begin_ms = start_ms + round(self._random.uniform(5.0, within_s) * 1000)
        self._charger: tuple[int, int] | None = None
        self._boot(start_ms, ResetReason.POWER_ON)

    @property
    def boot_id(self) -> int:
        return self._envelopes.boot_id

    def device_ms(self, at_ms: int) -> int:
        """What this device's clock shows at a simulated moment."""
        return self._envelopes.device_ms(at_ms)

    def status(self, state: Online, reason: StatusReason, at_ms: int, oldest_seq: int | None = None) -> Message:
        """Birth or goodbye; `oldest_seq` is the oldest message still held, None if there is no other."""
        sample: dict[str, Any] = {
            "dt_ms": at_ms, "state": state, "reason": reason,
            "oldest_seq": self._envelopes.seq if oldest_seq is None else oldest_seq,
        }  # fmt: skip
        return self._envelopes.message(Stream.STATUS, at_ms, [sample], self._session_id, at_once=True)

    def will(self, birth: Message) -> bytes:
        """The last will that belongs to a birth: the same envelope, `seq` and all."""
        will = orjson.loads(birth.payload)
        will["samples"] = [{"dt_ms": 0, "state": Online.OFFLINE, "reason": StatusReason.WILL}]
        return orjson.dumps(will)

    def step(self) -> list[Message]:
        """Everything that this device makes at `next_ms`."""
        now_ms = self.next_ms
        if not self.on:
            return self._hello(now_ms)
        if self._session is not None:
            messages = self._treat(self._session, BATCH_S)
        elif now_ms >= self._begin_ms:
            messages = self._begin(now_ms)
        else:
            messages = self._idle(now_ms)
        if self.on:
            self.next_ms = self._next_ms(now_ms)
        return messages

    def stop(self, at_ms: int) -> list[Message]:
        """The user switches off: a running session is lived up to now and ended."""
        session = self._session
        if session is None:
            return []
        whole_s = (at_ms - session.at_ms) // 1000
        messages = self._treat(session, max(min(whole_s, BATCH_S), 0))
        if self._session is not None:
            messages += self._end(session, EndReason.USER)
        return messages

    # -- on and off -------------------------------------------------------------------------

    def _boot(self, at_ms: int, reason: ResetReason) -> None:
        """From `at_ms` on this is another boot, which has yet to say hello."""
        self._envelopes.restart(at_ms)
        self.on = False
        self._reset_reason = reason
        self._counters = Counters()
        self._off_ms = at_ms + SWITCHED_OFF_AFTER_MS
        self.next_ms = at_ms

    def _hello(self, at_ms: int) -> list[Message]:
        """What a boot says first, apart from its birth: who it is and how it is."""
        self.on = True
        said = [self._envelopes.message(Stream.IDENTITY, at_ms, [self._identity(at_ms)], None)]
        self._batch[Stream.HEALTH].append(self._health(at_ms))
        self.next_ms = self._next_ms(at_ms)
        return said + self._flush(at_ms)

    def _idle(self, now_ms: int) -> list[Message]:
        self._head_c += (self._room_c - self._head_c) * 0.3
        if self._charger is not None:
            if now_ms >= self._charger[1]:
                self._charger, self._health_ms = None, now_ms
            elif now_ms == self._charger[0]:
                self._health_ms = now_ms
        elif now_ms >= self._off_ms and self._begin_ms - now_ms > IDLE_LONGEST_MS:
            goodbye = self.status(Online.OFFLINE, StatusReason.SHUTDOWN, now_ms)
            self._boot(self._begin_ms - BOOT_LEAD_MS, ResetReason.POWER_ON)
            return [goodbye]
        if now_ms >= self._health_ms:
            self._batch[Stream.HEALTH].append(self._health(now_ms))
        return self._flush(now_ms)

    def _next_ms(self, now_ms: int) -> int:
        if self._session is not None:
            return self._session.at_ms + BATCH_S * 1000
        moments = [self._begin_ms, self._health_ms]
        if self._charger is not None:
            moments += [edge_ms for edge_ms in self._charger if edge_ms > now_ms]
        elif self._begin_ms - self._off_ms > IDLE_LONGEST_MS:
            moments.append(self._off_ms)
        return max(min(moments), now_ms + 1)

    # -- sessions ---------------------------------------------------------------------------

    @property
    def _session_id(self) -> str | None:
        return None if self._session is None else self._session.plan.session_id

    def _begin(self, at_ms: int) -> list[Message]:
        plan = self._household.choose(self.boot_id)
        session = self._session = Session(
            plan, self.profile, Skin(self._random, self._base_ohm, plan.scenario.habit),
            self._counters, self._random, at_ms,
        )  # fmt: skip
        if plan.scenario.clock is not None and plan.scenario.clock.set_right:
            self._envelopes.set_clock_right()
        path = self._envelopes.radio.path = plan.scenario.path
        if path.outage_from_s is not None:
            from_ms = at_ms + path.outage_from_s * 1000
            self._envelopes.radio.fail(from_ms, from_ms + path.outage_s * 1000)
        self._batch[Stream.RUNTIME] += [
            session.runtime(at_ms - 1_500, RunState.ARMED),
            session.runtime(at_ms, RunState.RUNNING),
        ]
        return self._flush(at_ms)

    def _treat(self, session: Session, seconds: int) -> list[Message]:
        """Live `seconds` of the session, or less if it ends; send what was gathered."""
        batch, plan = self._batch, session.plan
        messages: list[Message] = []
        for _ in range(seconds):
            reading = session.advance()
            batch[Stream.CURRENT] += reading.current
            batch[Stream.CONTACT] += reading.contact
            self._warm(session, reading)
            self._inject(session)
            second = reading.second
            if second.reset is not None or second.dies:
                self._break_off(session, second.reset)
                return messages
            if second.end is not None:
                return messages + self._end(session, second.end)
            if session.age_s >= plan.length_s:
                return messages + self._end(session, plan.end_reason)
            if session.changed():
                batch[Stream.RUNTIME].append(session.runtime(session.at_ms))
            if len(batch[Stream.CURRENT]) >= FULL_BATCH:
                messages += self._flush(session.at_ms)
        heartbeat = batch[Stream.RUNTIME]
        if seconds and not (heartbeat and heartbeat[-1]["dt_ms"] == session.at_ms):
            heartbeat.append(session.runtime(session.at_ms))
        self._battery_mv -= 0.1 * seconds
        return messages + self._flush(session.at_ms)

    def _warm(self, session: Session, reading: Reading) -> None:
        """The head's temperature; and whatever of the device's health must be told now."""
        second, at_ms = reading.second, session.at_ms
        if second.head_c is not None:
            self._head_c = second.head_c
        elif session.age_s % BATCH_S == 0:
            self._head_c += (self._room_c + 4.0 - self._head_c) * 0.02 + self._random.gauss(0.0, 0.02)
        edge = second.health.keys() != self._bent.keys() or any(second.health[k] != self._bent[k] for k in second.health)
        self._bent = second.health
        if edge or at_ms >= self._health_ms or self._head_c >= HOT_C or abs(self._head_c - self._reported_c) >= 0.5:
            self._batch[Stream.HEALTH].append(self._health(at_ms))

    def _end(self, session: Session, reason: EndReason) -> list[Message]:
        at_ms = session.at_ms
        runtime = self._batch[Stream.RUNTIME]
        if reason == EndReason.FAULT:
            runtime.append(session.runtime(at_ms, RunState.FAULT))
            at_ms += 10
        elif runtime and runtime[-1]["dt_ms"] == at_ms:
            runtime.pop()
        runtime.append(session.runtime(at_ms, RunState.ENDED, reason))
        messages = self._flush(at_ms)
        self._follow(session, self._wear.ended(session.good_ohm, session.at_ms))
        self._over(session)
        return messages

    def _break_off(self, session: Session, reason: ResetReason | None) -> None:
        """The device is gone from one moment to the next, and with it what it had not sent yet."""
        for samples in self._batch.values():
            samples.clear()
        at_ms = session.at_ms
        self._over(session)
        if reason is None:
            self._boot(self._begin_ms - BOOT_LEAD_MS, ResetReason.POWER_ON)
        else:
            self._boot(at_ms + RESTART_MS, reason)

    def _over(self, session: Session) -> None:
        used = Used(session.began_ms, session.at_ms, session.output_on_s)
        self._follow(session, self._use.ended(used))
        charging = session.plan.scenario.course.charging and self._household.course_left
        self._session, self._bent = None, {}
        self._envelopes.radio.path = Path()
        self._begin_ms = self._household.next_begin_ms(used)
        self._off_ms = session.at_ms + SWITCHED_OFF_AFTER_MS
        if charging:
            self._charger = session.at_ms + CHARGER_MS, self._begin_ms - CHARGER_MS

    # -- what must be noticed ---------------------------------------------------------------

    def _inject(self, session: Session) -> None:
        for expected in session.plan.scenario.fires:
            if expected.at_s + 1 == session.age_s:
                again = session.plan.scenario.chronic and session.plan.session > 1
                if again or expected.session == session.plan.session:
                    # What is said of a boot may be said only once, however many sessions there are.
                    required = expected.required and not (again and expected.any_session)
                    self._expect(session, expected, required)

    def _expect(self, session: Session, expected: Expected, required: bool) -> None:
        onset_ms = session.began_ms + expected.at_s * 1000
        self.injected.append(Expectation(
            device_id=self.role.device_id, session_id=None if expected.any_session else session.plan.session_id,
            scenario=session.plan.scenario.number, rule=expected.rule, severity=expected.severity,
            onset_ms=self._envelopes.event_ms(onset_ms),
            by_ms=onset_ms + round((expected.within_s + DELIVERY_S) * 1000), required=required,
        ))  # fmt: skip

    def _follow(self, session: Session, follows: Follows | None) -> None:
        if follows is not None:
            session_id = None if follows.any_session else session.plan.session_id
            self.injected.append(Expectation(
                device_id=self.role.device_id, session_id=session_id,
                scenario=session.plan.scenario.number, rule=follows.rule, severity=follows.severity,
                onset_ms=self._envelopes.event_ms(follows.onset_ms),
                by_ms=session.at_ms + round((60.0 + DELIVERY_S) * 1000), required=follows.required,
            ))  # fmt: skip

    # -- messages ---------------------------------------------------------------------------

    def _flush(self, at_ms: int) -> list[Message]:
        session_id, batch = self._session_id, self._batch
        made = []
        for stream, samples in batch.items():
            if samples:
                made.append(self._envelopes.message(stream, at_ms, samples, session_id))
                batch[stream] = []
        return made

    def _health(self, at_ms: int) -> dict[str, Any]:
        self._health_ms = at_ms + HEALTH_MS
        self._reported_c = self._head_c
        random = self._random
        sample: dict[str, Any] = {
            "dt_ms": at_ms,
            "battery_mv": round(self._battery_mv, 0),
            "charging": self._charger is not None and at_ms >= self._charger[0],
            "temp_head_c": round(self._head_c, 1),
            "temp_pcb_c": round(self._head_c + 2.0 + random.gauss(0.0, 0.1), 1),
            "fault_bits": 0,
            "self_test": SelfTest.PASS,
            "reset_reason": self._reset_reason,
            "queued_msgs": 0,
            "rssi_dbm": round(max(min(random.gauss(-60, 5), -30), -95)),
        }
        if self.role.model == LUMABAR:
            sample["lux"] = round(self._lux * random.uniform(0.95, 1.05), 1)
            sample["solar_mv"] = round(random.uniform(1_250, 1_400), 0)
        sample.update(self._bent)
        return sample

    def _identity(self, at_ms: int) -> dict[str, Any]:
        return {
            "dt_ms": at_ms,
            "udi_di": f"0990000{zlib.crc32(self.role.model.encode()) % 10**7:07d}",
            "serial": self._serial,
            "lot": self.role.lot,
            "model": self.role.model,
            "hw_rev": HW,
            "fw_version": self.role.fw,
            "fw_sha256": hashlib.sha256(f"{self.role.model} {self.role.fw}".encode()).hexdigest(),
            "profile_id": self.profile.id,
            "profile_version": self.profile.version,
            "mfg_date": "2026-03-02",
            "calibration_date": "2026-03-04",
            "attachment_id": f"A-{self._serial}",
            "attachment_cycles": 40,
            **self.role.scenario.identity,
        }
