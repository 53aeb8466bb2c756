"""The order of events. One thread, the core, owns the journal and everything decided from it.

    take → commit → acknowledge → admit → judge → commit (outbox, alerts, counters) → say
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import orjson

from ingest import observe
from ingest.admit import (
    NOBODY,
    REFUSED,
    SEQUENCED,
    Duplicate,
    Kept,
    Refused,
    admit,
    partial_readings,
    readings,
    session_key,
    session_of_refused,
)
from ingest.clock import Clock
from ingest.decode import decode
from ingest.device import Device
from ingest.errors import InvalidMessage
from ingest.glean import glean
from ingest.journal import Journal, Raw
from ingest.judgement import Desk, Said
from ingest.points import Entry, alert_point, pack
from ingest.safety.data import TELEMETRY_GAP
from ingest.safety.track import Reading
from ingest.sink import RefusedEntry
from schemas import topics
from schemas.alerts import Acknowledgement, Alert, AlertEvent, AlertEventKind
from schemas.measurements import PIPELINE, Point
from schemas.messages import DurableAck
from schemas.profile import Profiles
from schemas.rejections import Reason
from schemas.topics import Stream

ACCEPT_MOST = 500
PROCESS_MOST = 200
TURN_S = 0.002
MOST_ATTEMPTS = 3
READ_MOST = 2_000
BEHIND, BEHIND_MOST = 5_000, 1_000
"""With so many waiting, more are processed in a turn than can be accepted: the backlog shrinks."""
LATE_PATIENCE_S = 0.5
NOTICES_MOST = 200
PIPELINE_POINT_MS = 10_000
PRUNE_MOST = 2_000
DAY_MS = 86_400_000

T = TypeVar("T")


class Source(Protocol):
    """Where deliveries come from, and where the line's own messages go."""

    published: deque[int]

    def take(self, most: int) -> list: ...
    def has_messages(self) -> bool: ...
    def ack(self, deliveries: list) -> None: ...
    def publish(self, topic: str, payload: bytes, token: int | None = None) -> None: ...


class Core:
    """Runs the line. `run` is its thread; `ask` lets others have something done on it."""

    def __init__(
        self,
        journal: Journal,
        profiles: Profiles,
        clock: Clock,
        *,
        worker_id: str,
        retention_days: int,
        raw_retention_days: int,
        durable_ack_interval_s: float,
        only_answers: bool = False,
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.profiles = profiles
        self.devices = {i: Device.from_json(state) for i, state in journal.devices().items()}
        self.observed_until_ms: int | None = None
        self.outbox_bell = threading.Event()
        self.source: Source | None = None
        self.beat = time.monotonic()
        self.worker_id = worker_id
        self._retention_days = retention_days
        self._raw_retention_days = raw_retention_days
        self._ack_interval_s = durable_ack_interval_s
        self._only_answers = only_answers
        self._desk = Desk(journal, self._replay)
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._asked: deque[tuple[Callable[[], Any], Future, bool]] = deque()
        self._inbox: deque[Raw] = deque()
        self._inbox_read = journal.processed_upto
        self._suspects = PROCESS_MOST if journal.unclean else 0
        self._to_resume = [(d.device_id, s) for d in self.devices.values() for s in d.watching]
        self._touched: set[Device] = set()
        self._acks: dict[str, int] = {}
        self._acks_due = 0.0
        self._notice_sent = 0
        self._late_since: float | None = None
        self._pulses: deque[tuple[int, int]] = deque()
        self._ticked_ms: int | None = None
        self._turned = 0.0
        self._notices_may_wait = True
        self._next_pipeline_ms = 0
        for silent in journal.alerts(state="open", rule=TELEMETRY_GAP.id, most=100_000):
            self._desk.remember_silence(silent["device_id"], journal.session_of_alert(silent["id"]))

    # -- from other threads ---------------------------------------------------------------------

    def wake(self) -> None:
        self._bell.set()

    def ask(self, work: Callable[[], T], write: bool = False, timeout_s: float = 30.0) -> T:
        """Have `work` done on the core's thread; with `write`, inside a transaction."""
        future: Future = Future()
        self._asked.append((work, future, write))
        self._bell.set()
        return future.result(timeout_s)

    def stop(self) -> None:
        self._stopping.set()
        self._bell.set()

    # -- the thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Until stopped: whatever is there, in turn. An exception here is a defect and ends the process."""
        while not self._stopping.is_set():
            busy = self._turn()
            self.beat = time.monotonic()
            if not busy:
                self._bell.wait(self._patience_s())
                self._bell.clear()
        while self._turn():  # what has been taken in is finished before the end
            pass

    def _answer(self) -> bool:
        """For a journal that is only looked at: nothing moves but what is asked."""
        writes = self._take_asked()
        for work, future, _ in writes:
            with self.journal.step():
                answer = work()
                self._put_devices()
            future.set_result(answer)
        return bool(writes)

    def _patience_s(self) -> float:
        if self._acks:
            return max(0.001, min(0.1, self._acks_due - time.monotonic()))
        return 0.1

    def _turn(self) -> bool:
        if self._only_answers:
            return self._answer()
        self._gather()
        busy = self._accept()
        if self._suspects:
            busy |= self._process_suspects()
        else:
            busy |= self._process()
        self._say()
        return busy

    def _gather(self) -> None:
        """Turns follow each other at a distance, so that a batch is worth its commits. The first
        message after a pause does not wait."""
        early_s = self._turned + TURN_S - time.monotonic()
        if early_s > 0 and len(self._inbox) < PROCESS_MOST:
            time.sleep(early_s)
        self._turned = time.monotonic()

    def _accept(self) -> bool:
        source = self.source
        if source is None or not source.has_messages():
            return False
        deliveries = source.take(ACCEPT_MOST)
        messages = [d for d in deliveries if d.pulse_ms is None]
        if messages:
            began = time.perf_counter()
            before = self.journal.accepted
            rows = self.journal.accept([(d.received_ms, d.topic, d.payload, d.retained) for d in messages])
            if self._inbox_read == before:  # nothing older is still on disk only, so they may be taken from memory
                self._inbox.extend(rows)
                self._inbox_read = rows[-1].id
            observe.COMMIT_SECONDS.observe(time.perf_counter() - began)
            observe.ACCEPTED.inc(len(messages))
        source.ack(deliveries)
        pulses = [d.pulse_ms for d in deliveries if d.pulse_ms is not None and d.pulse_ms >= 0]
        if pulses:
            self._pulses.append((pulses[-1], self.journal.accepted))
        return True

    def _observe(self) -> None:
        """A pulse has come back: everything that devices sent before it has been taken in."""
        while self._pulses and self._pulses[0][1] <= self.journal.processed_upto:
            pulse_ms, _ = self._pulses.popleft()
            self.observed_until_ms = max(self.observed_until_ms or 0, pulse_ms)

    def _next_inbox(self, most: int) -> list[Raw]:
        if not self._inbox and self._inbox_read < self.journal.accepted:
            self._inbox.extend(self.journal.inbox(self._inbox_read, READ_MOST))
            self._inbox_read = self._inbox[-1].id
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def _process_suspects(self) -> bool:
        """After a death: what may have caused it goes one by one, counted on disk, and not for ever."""
        batch = self._next_inbox(1)
        if not batch:
            self._suspects = 0
            self.journal.forget_attempts()
            return True
        (raw,) = batch
        self._suspects -= 1
        if self.journal.attempts(raw.id) >= MOST_ATTEMPTS:
            with self.journal.step():
                device_id = topics.device_level(raw.topic.decode("utf-8", errors="replace"))
                self._refuse(raw, Refused(device_id, Reason.CRASH_SUSPECT, "the worker died three times on it", b"%d" % raw.id))
                self.journal.processed_upto = raw.id
                self._put_devices()
        else:
            self._process(batch)
        if not self._suspects:
            self.journal.forget_attempts()
        return True

    def _process(self, batch: list[Raw] | None = None) -> bool:
        if batch is None:
            behind = self.journal.accepted - self.journal.processed_upto > BEHIND
            batch = self._next_inbox(BEHIND_MOST if behind else PROCESS_MOST)
        writes = [asked for asked in self._take_asked()]
        resume, self._to_resume = self._to_resume[:20], self._to_resume[20:]
        self._observe()
        tick = self._tick_due()
        if not (batch or writes or resume or tick or self._desk.is_late() or self._points_due()):
            return False
        answers: list[tuple[Future, Any]] = []
        with self.journal.step():
            said = self._admit_batch(batch)
            for key in resume:
                self._desk.resume(*key)
            said += self._desk.finish(self._time_to_rejudge(bool(self._inbox)))
            if tick:
                said += self._desk.tick(self.observed_until_ms)
                said += self._desk.finish(False)
            self._ticked_ms = self.observed_until_ms
            self._record(said)
            for work, future, _ in writes:
                answers.append((future, work()))
            self._pipeline_point()
            self._put_devices()
            published = self.source.published if self.source else ()
            if published:
                self.journal.drop_notices([published.popleft() for _ in range(len(published))])
        for future, answer in answers:
            future.set_result(answer)
        if self.journal.outbox:
            self.outbox_bell.set()
        return bool(batch or resume or self._asked)

    def _tick_due(self) -> bool:
        return self.observed_until_ms is not None and self.observed_until_ms != self._ticked_ms and not self._to_resume

    def _take_asked(self) -> list[tuple[Callable[[], Any], Future, bool]]:
        """Answer the questions; return what must be done inside the transaction."""
        writes = []
        for _ in range(len(self._asked)):
            work, future, write = self._asked.popleft()
            if write:
                writes.append((work, future, write))
                continue
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
        return writes

    def _time_to_rejudge(self, more_waiting: bool) -> bool:
        """Late data come in floods; a session is judged again when the flood pauses, or soon."""
        if not self._desk.is_late():
            self._late_since = None
            return False
        now = time.monotonic()
        self._late_since = self._late_since or now
        if more_waiting and now - self._late_since < LATE_PATIENCE_S:
            return False
        self._late_since = None
        return True

    # -- one batch ------------------------------------------------------------------------------

    def _admit_batch(self, batch: list[Raw]) -> list[Said]:
        if not batch:
            return []
        said: list[Said] = []
        messages: list[tuple] = []
        outbox: list[tuple] = []
        fresh: dict[tuple[str, int, int, int], bytes] = {}

        def recall(device_id: str, boot_id: int, lane: int, seq: int) -> bytes | None:
            key = (device_id, boot_id, lane, seq)
            return fresh.get(key) or self.journal.payload_of(*key)

        for raw in batch:
            outcome = admit(
                raw.topic, raw.payload, raw.retained, raw.received_ms, self._device, recall, self._retention_days
            )
            if type(outcome) is Kept:
                decoded, message = outcome.decoded, outcome.decoded.message
                fresh[(decoded.device_id, message.boot_id, outcome.lane, message.seq)] = raw.payload
                outbox.append(
                    (decoded.device_id, raw.id, decoded.stream.value, outcome.event_ms, raw.received_ms, outcome.clock_ok)
                )
                said += self._keep(raw, outcome, messages)
            elif type(outcome) is Duplicate:
                self._count_duplicate(self._device(outcome.device_id), raw)
            else:
                said += self._refuse(raw, outcome, messages)
        self.journal.add_messages(messages)
        self.journal.enqueue_messages(outbox)
        self.journal.processed_upto = batch[-1].id
        return said

    def _device(self, device_id: str) -> Device:
        device = self.devices.get(device_id)
        if device is None:
            device = self.devices[device_id] = Device(device_id)
        return device

    def _keep(self, raw: Raw, kept: Kept, messages: list[tuple]) -> list[Said]:
        decoded, message = kept.decoded, kept.decoded.message
        device = self._device(decoded.device_id)
        device.accepted += 1
        self._touched.add(device)
        found = readings(decoded, kept.event_ms, raw.received_ms, self.profiles)
        session = session_key(message.session_id, message.boot_id)
        messages.append(
            (
                device.device_id, message.boot_id, kept.lane, message.seq, raw.id, session,
                found[0].t_ms, found[-1].t_ms, kept.event_ms, kept.clock_ok,
            )  # fmt: skip
        )
        _remember(device, decoded.stream, kept, found[-1], raw.received_ms)
        self._acks[device.device_id] = message.boot_id
        if kept.lane != SEQUENCED or decoded.stream is Stream.STATUS:
            return []  # a will speaks of the connection, not of the session
        hole = device.boots[message.boot_id].recent_hole(message.seq)
        said = self._desk.take(device.device_id, session, found, hole)
        unsettled = self._desk.unsettled(device.device_id, session)
        if unsettled != (session in device.watching):
            (device.watching.append if unsettled else device.watching.remove)(session)
        return said

    def _count_duplicate(self, device: Device, raw: Raw) -> None:
        device.accepted += 1
        device.duplicate += 1
        device.last_seen_ms = max(device.last_seen_ms, raw.received_ms)
        self.journal.duplicate += 1
        observe.DUPLICATE.inc()
        self._touched.add(device)
        if device.boots:
            self._acks[device.device_id] = next(reversed(device.boots))

    def _refuse(self, raw: Raw, refused: Refused, messages: list[tuple] | None = None) -> list[Said]:
        """Keep it in quarantine, and judge what can still be read of it."""
        device = self._device(refused.device_id or NOBODY)
        identity = (refused.device_id, refused.boot_id, refused.seq)
        if not self.journal.refuse(raw, refused.reason, refused.detail, identity, refused.fingerprint):
            self._count_duplicate(device, raw)
            return []
        device.accepted += 1
        device.quarantined += 1
        device.last_seen_ms = max(device.last_seen_ms, raw.received_ms)
        self.journal.quarantined += 1
        observe.QUARANTINED.labels(refused.reason).inc()
        observe.log().info("quarantined", reason=refused.reason.value, device_id=refused.device_id, detail=refused.detail)
        self._touched.add(device)
        if refused.device_id and refused.boot_id is not None and refused.seq is not None:
            self._hold_refused(device, refused)
        found = partial_readings(refused.gleaned, device, raw.received_ms, self.profiles)
        if not found or messages is None:
            return []
        session = session_of_refused(refused.gleaned, device)
        found.sort(key=lambda reading: reading.order)
        messages.append(
            (device.device_id, 0, REFUSED, raw.id, raw.id, session, found[0].t_ms, found[-1].t_ms, raw.received_ms, False)
        )
        return self._desk.take(device.device_id, session, found, hole=False)

    def _hold_refused(self, device: Device, refused: Refused) -> None:
        """It is on our disk: the device need not send it for ever."""
        boot = device.boots.get(refused.boot_id)
        if boot is None or refused.reason in (Reason.STATE_OVERFLOW, Reason.CONFLICT, Reason.IDENTITY_MISMATCH):
            return
        if refused.seq <= boot.held.highest + 1_000:
            boot.held.add(refused.seq)
            self._acks[device.device_id] = refused.boot_id

    def _replay(self, device_id: str, session: str, after_ms: int) -> list[Reading]:
        """The readings on record of a session, as they were first judged."""
        found: list[Reading] = []
        for raw, lane, event_ms in self.journal.session_messages(device_id, session, after_ms):
            if lane == REFUSED:
                found += partial_readings(glean(raw.payload), self.devices.get(device_id), raw.received_ms, self.profiles)
                continue
            try:
                decoded = decode(raw.topic.decode(), raw.payload)
            except InvalidMessage:
                continue  # the contract has become stricter since; it was judged when it came
            if lane == SEQUENCED and decoded.stream is not Stream.STATUS:
                found += readings(decoded, event_ms, raw.received_ms, self.profiles)
        return [reading for reading in found if reading.t_ms > after_ms]

    # -- what follows ---------------------------------------------------------------------------

    def _record(self, said: list[Said]) -> None:
        for each in said:
            self._record_event(each.alert, each.event, None, None)

    def _record_event(self, alert: Alert, event: AlertEventKind, actor: str | None, note: str | None) -> None:
        now_ms = self.clock.now_ms()
        doc = alert.model_dump_json().encode()
        self.journal.add_event(alert.id, now_ms, event, actor, note, doc)
        published = AlertEvent(event=event, at_ms=now_ms, alert=alert).model_dump_json().encode()
        self.journal.add_notice(topics.alert(alert.device_id), published)
        self._notices_may_wait = True
        self.journal.enqueue_point(alert.device_id, alert.opened_ms, pack(alert_point(alert)))
        observe.ALERT_EVENTS.labels(alert.rule, event).inc()
        observe.log().warning(
            "alert", step=event.value, rule=alert.rule, severity=alert.severity, device_id=alert.device_id,
            alert_id=alert.id, value=round(alert.value, 3), limit=round(alert.limit, 3), unit=alert.unit,
        )  # fmt: skip

    def acknowledge(self, alert_id: str, by: str, note: str) -> Alert | None:
        """A person has seen this alert. To be asked with `write`."""
        alert = self.journal.alert(alert_id)
        if alert is None:
            return None
        alert.acknowledged = Acknowledgement(by=by, at_ms=self.clock.now_ms(), note=note)
        self.journal.put_alert(alert, self.journal.session_of_alert(alert_id))
        self._record_event(alert, AlertEventKind.ACKNOWLEDGED, by, note)
        return alert

    def settle(self, entries: list[Entry], refused: list[RefusedEntry], fingerprint: Callable[[bytes, bytes], bytes]) -> None:
        """The store has these, save those it refused. To be asked with `write`."""
        lost = {r.entry.id for r in refused}
        stored = [e for e in entries if e.id not in lost]
        self.journal.settle(stored)
        for entry in stored:
            if entry.is_message:
                self._devices_stored(entry.device_id, 1)
        observe.STORED.inc(sum(e.is_message for e in stored))
        for each in refused:
            raw = self.journal.raw(each.entry.raw_id) if each.entry.is_message else None
            mark = fingerprint(raw.topic, raw.payload) if raw else b""
            self.journal.refused_by_store(each.entry, each.reason, each.detail, mark)
            if raw:
                device = self._device(each.entry.device_id)
                device.quarantined += 1
                self._touched.add(device)
                observe.QUARANTINED.labels(each.reason).inc()
            observe.log().error("store_refused", device_id=each.entry.device_id, detail=each.detail)

    def settle_upto(self, entry_id: int) -> None:
        """The store told at the start that it holds these. To be asked with `write`."""
        for device_id, count in self.journal.settle_upto(entry_id).items():
            self._devices_stored(device_id, count)

    def _devices_stored(self, device_id: str, count: int) -> None:
        device = self._device(device_id)
        device.stored += count
        self._touched.add(device)

    def _put_devices(self) -> None:
        if self._touched:
            self.journal.put_devices([(d.device_id, d.to_json()) for d in self._touched])
            self._touched.clear()

    def _points_due(self) -> bool:
        return self.clock.now_ms() >= self._next_pipeline_ms

    def _pipeline_point(self) -> None:
        """The ledger, every ten seconds, into the store."""
        now_ms = self.clock.now_ms()
        if now_ms < self._next_pipeline_ms:
            return
        self._next_pipeline_ms = now_ms + PIPELINE_POINT_MS
        ledger = self.journal.ledger()
        opened = self.journal.alerts_open().values()
        fields = {name: getattr(ledger, name) for name in PIPELINE.fields if hasattr(ledger, name)}
        fields["alerts_open"] = sum(c["critical"] + c["warning"] + c["info"] for c in opened)
        point = Point(PIPELINE.name, (self.worker_id, "ingest", "v1"), fields, now_ms * 1_000_000)
        self.journal.enqueue_point(self.worker_id, now_ms, pack(point))
        self.journal.prune_raw(now_ms - self._raw_retention_days * DAY_MS, PRUNE_MOST)

    def _say(self) -> None:
        """After the commit: durable acknowledgements and alerts go out."""
        source = self.source
        if source is None:
            return
        now = time.monotonic()
        if self._acks and now >= self._acks_due:
            self._acks_due = now + self._ack_interval_s
            for device_id, boot_id in self._acks.items():
                boot = self.devices[device_id].boots.get(boot_id)
                if boot is not None:
                    upto, missing = boot.durable()
                    ack = DurableAck.model_construct(boot_id=boot_id, upto=upto, missing=missing)
                    source.publish(topics.durable_ack(device_id), orjson.dumps(ack.__dict__))
            self._acks.clear()
        if self._notices_may_wait:
            waiting = self.journal.notices_after(self._notice_sent, NOTICES_MOST)
            for notice_id, topic, payload in waiting:
                source.publish(topic, payload, token=notice_id)
                self._notice_sent = notice_id
            self._notices_may_wait = len(waiting) == NOTICES_MOST


def _remember(device: Device, stream: Stream, kept: Kept, last: Reading, received_ms: int) -> None:
    """What the fleet view shows of a device: the latest by event time."""
    message = kept.decoded.message
    device.last_seen_ms = max(device.last_seen_ms, received_ms)
    sample = last.sample
    if stream is Stream.STATUS:
        device.online = sample.state == "online"
        if kept.lane != SEQUENCED:
            return
    elif device.online is not True and received_ms - last.t_ms < 60_000:
        device.online = True
    if last.t_ms < device.last_event_ms:
        return
    device.last_event_ms = last.t_ms
    device.model, device.hw, device.fw = message.model, message.hw, message.fw
    device.session_id = message.session_id
    live = device.live
    if stream is Stream.CURRENT:
        live["i_set_ua"], live["i_peak_ua"], live["i_rms_ua"] = sample.i_set_ua, sample.i_peak_ua, sample.i_rms_ua
    elif stream is Stream.CONTACT:
        live["contact_state"], live["z_ohm"] = sample.state, sample.z_ohm
    elif stream is Stream.RUNTIME:
        live["run_state"], live["zone"] = sample.run_state, sample.zone
    elif stream is Stream.HEALTH:
        live["temp_head_c"], live["battery_mv"] = sample.temp_head_c, sample.battery_mv
        live["charging"] = sample.charging
