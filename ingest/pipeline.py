"""The order of events. One thread, the core, owns the journal and everything decided from it.

    take → commit → acknowledge → admit → judge → commit (outbox, alerts, counters) → say
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from ingest import failpoints, observe
from ingest.acts import Acts
from ingest.admit import Refused
from ingest.backlog import Backlog, Turn, device_of
from ingest.clock import Clock
from ingest.disk import Disk
from ingest.errors import NoRoom
from ingest.intake import Intake
from ingest.journal import Journal
from ingest.lookout import Judged, Lookout
from ingest.notices import Notices
from ingest.points import Entry, pack
from ingest.pressure import Level
from ingest.reports import Guarded, Reports, worker_name
from ingest.safety.data import TELEMETRY_GAP
from ingest.safety.line import HOLD_S
from ingest.security import SecurityLog
from ingest.sink import RefusedEntry
from ingest.voice import Said
from schemas import topics
from schemas.alerts import AlertEvent
from schemas.limits import GAP_MS, LATENESS_MS
from schemas.messages import DurableAck
from schemas.profile import Profiles
from schemas.rejections import Reason

ACCEPT_MOST = 500
TURN_S = 0.002
FEW = 20
"""With more in a turn the line is busy, and what can wait does."""

SUMS_S = 0.01
MOST_ATTEMPTS = 3
BEHIND, BEHIND_MOST = 5_000, 1_000
"""With so many waiting, more are processed in a turn than can be accepted: the backlog shrinks."""

FLOOD = 100
"""With so many there again right after a batch was accepted, what is set aside waits: those behind it may not be late."""

LATE_PATIENCE_S = 0.5
AGAIN_MOST, AGAIN_BUSY = 500, 100
"""So many messages of the past are judged again in a turn; fewer while others wait."""

END_S = 5.0
"""How long an end waits for what can as well go on at the next start."""

NOTICES_MOST = 200
PRUNE_MOST = 500
COMMIT_WEIGHT = 0.1
"""What the last commit counts for among those of late."""

FULL_MOST = 20
"""While the disk is full so few messages are tried at once: a small step fits where a large one does not."""

REHEARSE_MOST = 5_000
"""So many can be judged before SQLite needs the disk."""

UNRECORDED = "told before it could be recorded: the worker's disk is full"
DAY_MS = 86_400_000

T = TypeVar("T")


class Source(Protocol):
    """Where deliveries come from, and where the line's own messages go."""

    published: deque[int]
    held: bool
    """Nothing more is taken for now: what is unacknowledged stays so."""

    def take(self, most: int) -> list: ...
    def arrived(self) -> int: ...
    def ack(self, deliveries: list) -> None: ...
    def publish(self, topic: str, payload: bytes, token: int | None = None) -> None: ...


class Asked(NamedTuple):
    """Work for the core's thread."""

    work: Callable[[], Any]
    future: Future
    write: bool
    insist: bool


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
        summary_retention_days: int,
        durable_ack_interval_s: float,
        blind_after_s: float = HOLD_S,
        only_answers: bool = False,
        registry: Container[str] | None = None,
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.profiles = profiles
        self.security = SecurityLog()
        self.disk = Disk(journal, clock, only_answers)
        self.commit_s = 0.0
        """How long it takes to put a batch on disk, of late."""

        self.name = worker_name(worker_id)
        self._registry = registry
        self.observed_until_ms: int | None = None
        self.outbox_bell = threading.Event()
        self.webhook_bell = threading.Event()
        self.source: Source | None = None
        self.beat = time.monotonic()
        self.worker_id = worker_id
        self._retention_days = (retention_days, summary_retention_days, raw_retention_days)
        self._ack_interval_s = durable_ack_interval_s
        self._only_answers = only_answers
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._asked: deque[Asked] = deque()
        self._taken: list = []
        self._suspicious = journal.unclean
        self._tried = 0, 0
        self._is_flooded = False
        self._rehearsed = False
        self._told_unrecorded: set[tuple[str, str]] = set()
        self._published: list[int] = []
        self._prunes = False
        self._acks_due = 0.0
        self._notice_sent = 0
        self._late_since: float | None = None
        self._pulses: deque[tuple[int, int, float]] = deque()
        self._pulse: tuple[int, float] | None = None
        self._seen_s: float | None = None
        self._canaries: deque[tuple[Any, int]] = deque()
        self._ticked_ms: int | None = None
        self._ticks_from_s = 0.0
        self.clock_doubted = False
        """The machine's clock was set by so much that nothing is deleted by it any more."""

        self._turned = 0.0
        self._load()
        self.lookout = Lookout(journal, self.security, self.name, worker_id, self.devices, blind_after_s)

    def _load(self) -> None:
        """All that follows from the journal, from the journal."""
        journal = self.journal
        self._intake = Intake(journal, self.profiles, *self._retention_days, self.security)
        self._intake.registry = self._registry
        self.devices = self._intake.devices
        self.notices = Notices(journal)
        self._desk = self._intake.desk
        self._summaries = self._intake.summaries
        self.backlog = Backlog(journal)
        self._to_resume = [(d.device_id, s) for d in self.devices.values() for s in d.watching]
        self.reports = Reports(journal, self._intake, self.profiles, self.worker_id, self.clock.now_ms())
        self.reports.guarded = self.guarded
        self.acts = Acts(journal, self.clock, self._intake, self.notices, self.reports)
        for silent in journal.alerts(state="open", rule=TELEMETRY_GAP.id, most=100_000):
            self._desk.remember_silence(silent["device_id"], journal.session_of_alert(silent["id"]))

    # -- from other threads ---------------------------------------------------------------------

    def wake(self) -> None:
        self._bell.set()

    def request(self, work: Callable[[], T], write: bool = False, insist: bool = True) -> "Future[T]":
        """Have `work` done on the core's thread; with `write`, inside a transaction. While the disk is full,
        what is insisted on waits for room, and all else is refused (NoRoom)."""
        future: Future = Future()
        self._asked.append(Asked(work, future, write, insist))
        self._bell.set()
        return future

    def ask(self, work: Callable[[], T], write: bool = False, timeout_s: float = 30.0) -> T:
        """Have `work` done on the core's thread, and wait for its answer."""
        return self.request(work, write, insist=False).result(timeout_s)

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
        until_s = time.monotonic() + END_S
        while self._turn() and not (self._may_end() and time.monotonic() >= until_s):
            pass

    def _may_end(self) -> bool:
        """What has been taken in is finished before the end. What is set aside, and what is to be judged again, may be long:
        what is not done of it by then goes on at the next start."""
        arrived = self.source is not None and self.source.arrived()
        return self.journal.processed_upto == self.journal.accepted and not self._asked and not arrived

    def _answer(self) -> bool:
        """For a journal that is only looked at: nothing moves but what is asked."""
        writes = self._take_asked()
        for asked in writes:
            try:
                with self.journal.step():
                    answer = asked.work()
                    self._intake.put_devices()
            except NoRoom as error:
                self.journal.read_again()
                self._load_again()
                asked.future.set_exception(error)
            else:
                asked.future.set_result(answer)
        return bool(writes)

    def _patience_s(self) -> float:
        if self._intake.acks:
            return max(0.001, min(0.1, self._acks_due - time.monotonic()))
        return SUMS_S if self.sums_due() else 0.1

    def sums_due(self) -> bool:
        """Whether a roll-up waits to be made again."""
        return self._summaries.is_due(self.observed_until_ms)

    def _turn(self) -> bool:
        if self._only_answers:
            return self._answer()
        self._gather()
        if self.disk.is_due():
            self.look_at_room()
        try:
            busy = not self._suspicious and self._accept()
            if not self.disk.can_write:
                busy |= self._wait_for_room()
            elif self._suspicious:
                busy |= self._suspect()
            elif self.backlog.suspect is not None:
                busy |= self._process_suspect()
            else:
                busy |= self._process()
        except NoRoom as error:
            self._fill_up(error)
            busy = False
        self._say()
        return busy

    def _gather(self) -> None:
        """Turns follow each other at a distance, so that a batch is worth its commits. The first
        message after a pause does not wait."""
        early_s = self._turned + TURN_S - time.monotonic()
        if early_s > 0 and not self.backlog.is_long:
            time.sleep(early_s)
        self._turned = time.monotonic()

    def _accept(self) -> bool:
        source = self.source
        if source is None or self.disk.pressure.level is Level.STOPPED or not (self._taken or source.arrived()):
            self._is_flooded = False
            return False
        self._taken = deliveries = self._taken or source.take(ACCEPT_MOST)
        messages = [d for d in deliveries if d.pulse_ms is None]
        if messages:
            failpoints.reach("taken")
            began = time.perf_counter()
            before = self.journal.accepted
            rows = self.journal.accept([(d.received_ms, d.topic, d.payload, d.retained) for d in messages])
            self.backlog.add(rows, before)
            took_s = time.perf_counter() - began
            self.commit_s += (took_s - self.commit_s) * COMMIT_WEIGHT
            observe.COMMIT_SECONDS.observe(took_s)
            observe.ACCEPTED.inc(len(messages))
            failpoints.reach("accepted")
        self._taken = []
        source.ack(deliveries)
        self._is_flooded = source.arrived() > FLOOD and self.disk.pressure.level is Level.NORMAL
        if messages:
            failpoints.reach("acks-handed")
        if len(messages) < len(deliveries):
            self._take_own([d for d in deliveries if d.pulse_ms is not None])
        return True

    def _take_own(self, deliveries: list) -> None:
        """Pulses and canaries wait until everything that came before them has been judged."""
        pulses = [d.pulse_ms for d in deliveries if d.pulse_ms >= 0]
        if pulses:
            self._pulse = (pulses[-1], self.lookout.now_s())
            self._pulses.append((pulses[-1], self.journal.accepted, self._pulse[1]))
        self._canaries.extend((d, self.journal.accepted) for d in deliveries if d.canary)

    def _observe(self) -> None:
        """A pulse has come back: everything that devices sent before it has been taken in."""
        while self._pulses and self._pulses[0][1] <= self.journal.processed_upto:
            pulse_ms, _, self._seen_s = self._pulses.popleft()
            self.observed_until_ms = max(self.observed_until_ms or 0, pulse_ms)

    def _carry_canaries(self) -> None:
        """Those whose turn has come are judged and wait for the store. Inside a step."""
        while self._canaries and self._canaries[0][1] <= self.journal.processed_upto:
            delivery, _ = self._canaries.popleft()
            canary = self.lookout.canary
            point = canary and canary.judged(delivery.topic, delivery.payload, delivery.received_ms, self.profiles)
            if point is not None:
                canary.enqueued(self.journal.enqueue_point(self.name, delivery.received_ms, pack(point)))

    def _look_out(self) -> bool:
        """See whether the line can see, every second; whether there is something to write of it."""
        lookout = self.lookout
        if self._pulses or lookout.is_due():  # before a pulse is believed: it may be of another hour
            lookout.check_clock()
            if lookout.stepped_ms:
                by_ms, lookout.stepped_ms = lookout.stepped_ms, 0
                self._clock_was_set(by_ms)
        if lookout.is_due():
            pulse_ms, pulse_s = self._pulse or (None, None)
            aside = self.journal.first_unprocessed() if self.backlog.aside else None
            judged = Judged(
                self.journal.accepted, self.journal.unprocessed_count, pulse_s, pulse_ms, self._seen_s, aside, self.backlog.of_whom
            )  # fmt: skip
            lookout.look(self.clock.now_ms(), judged, self.disk.pressure)
        return lookout.has_news or bool(self._canaries and self._canaries[0][1] <= self.journal.processed_upto)

    def guarded(self) -> Guarded:
        """How the line is, for the store and for people."""
        lookout, pressure = self.lookout, self.disk.pressure
        causes, canary = lookout.blindness.causes, lookout.canary
        began_ms = min((span.from_ms for span in causes), default=None)
        measured = pressure.used_bytes or pressure.free_bytes
        read = lookout.certificates()
        ends_ms = min((each.ends_ms for each in read.found), default=None) if read else None
        return Guarded(
            blind=len(causes) or int(lookout.blindness.alert is not None),
            blind_s=max(0.0, (self.clock.now_ms() - began_ms) / 1000) if began_ms is not None else 0.0,
            pressure=pressure.level.rank,
            canary_s=canary.took_s if canary else None,
            canary_age_s=canary.age_s if canary else None,
            journal_mb=pressure.used_bytes / 1e6 if measured else None,
            free_mb=pressure.free_bytes / 1e6 if measured else None,
            certificate_level=lookout.expiry.worst,
            certificate_s=(ends_ms - self.clock.now_ms()) / 1000 if ends_ms is not None else None,
        )

    def _clock_was_set(self, by_ms: int) -> None:
        """The clock on the wall was set: what waits for a time of it must not end too early, nor an hour too late.

        Set forward, the last words of every device look old: silence is judged again once all had their time to
        speak. Set back, what was received at times that are yet to come was received now.
        """
        now_ms = self.clock.now_ms()
        self.clock_doubted |= abs(by_ms) >= DAY_MS
        self._ticks_from_s = self.lookout.now_s() + (GAP_MS + LATENESS_MS) / 1000 if by_ms > 0 else 0.0
        if by_ms > 0:
            return
        self.observed_until_ms = None
        self._pulses = deque((min(pulse_ms, now_ms), accepted, back_s) for pulse_ms, accepted, back_s in self._pulses)
        self._desk.clock_set_back(now_ms)
        for device in self.devices.values():
            if device.last_seen_ms > now_ms:
                device.last_seen_ms = now_ms
                self._intake.touched.add(device)

    def _suspect(self) -> bool:
        """After a death: what may have caused it is set aside, to go one by one."""
        if self.backlog.suspect is None:  # else the last worker died among those of the one before
            turn, before = self.backlog.next(), self.journal.processed_upto
            with self.journal.step():
                new = [(device_of(raw), raw.id) for raw in turn.rows if raw.id > before]
                self.journal.take_turn(turn.upto, turn.put_off + new)
                self.journal.suspect([raw.id for raw in turn.rows])
            self.backlog = Backlog(self.journal)
        self._suspicious = False
        return True

    def _process_suspect(self) -> bool:
        """Counted on disk, and not for ever."""
        raw = self.backlog.suspect
        if raw.id != self._tried[0]:  # a full disk has it tried again in the same life, and that is no death
            self._tried = raw.id, self.journal.attempts(raw.id)
            failpoints.reach("suspect-counted")
        turn = self.backlog.next_suspect()
        if self._tried[1] >= MOST_ATTEMPTS:
            with self.journal.step():
                died = Refused(raw.device_level, Reason.CRASH_SUSPECT, "the worker died three times on it", b"%d" % raw.id)
                self._intake.refuse(raw, died, self.clock.now_ms())
                self._turn_taken(turn)
                self._intake.put_devices()
        else:
            self._process(turn)
        failpoints.reach("suspect-passed")
        return True

    def _turn_taken(self, turn: Turn) -> None:
        """Of what has been accepted, this is done. Inside a step."""
        self.journal.take_turn(turn.upto, turn.put_off)
        for device_id, received_ms in turn.heard.items():
            self._intake.heard(device_id, received_ms)
        if turn.taken_up:
            self.journal.take_up(turn.taken_up, self.backlog.last)

    def _process(self, turn: Turn | None = None) -> bool:
        if turn is None:
            behind = self.journal.accepted - self.journal.processed_upto > BEHIND
            most = FULL_MOST if self.disk.is_full else BEHIND_MOST if behind else None
            turn = self.backlog.next(most, sharing=not self.disk.is_full, hurry=self._is_flooded)
        batch = turn.rows
        writes = self._take_asked()
        resume, self._to_resume = self._to_resume[:20], self._to_resume[20:]
        news = self._look_out() or self._prunes
        self._observe()
        tick = self._tick_due()
        more = self.backlog.is_long or len(self.backlog) > 0
        waits = more or len(batch) > FEW
        sums = self._summaries.is_due(self.observed_until_ms, waits)
        report = self.reports.is_due(self.clock.now_ms())
        if not (batch or turn.put_off or writes or resume or tick or sums or report or news or self._desk.is_late() or self._notices_due()):
            return False
        answers: list[tuple[Future, Any]] = []
        with self._step_of(writes):
            self._turn_taken(turn)
            said = self._intake.admit(batch, self.observed_until_ms, self.clock.now_ms())
            if batch:
                failpoints.reach("admitted")
            for key in resume:
                self._desk.resume(*key)
            if resume:
                failpoints.reach("resumed")
            said += self._intake.finish(self._may_judge_again(more))
            if tick:
                said += self._desk.tick(self.observed_until_ms, self.backlog.aside)
                said += self._intake.finish(0)
            self._ticked_ms = None if self.backlog.aside else self.observed_until_ms
            self._carry_canaries()
            said += self.lookout.say(self.clock.now_ms())
            self._record(said)
            if self._notices_due():
                self.notices.tell_held(self.clock.now_ms())
            for asked in writes:
                answers.append((asked.future, asked.work()))
            if sums:
                self._summaries.work(self.observed_until_ms, waits)
                failpoints.reach("summed")
            self._intake.put_devices()
            self._report()
            if self.source:
                self._published += [self.source.published.popleft() for _ in range(len(self.source.published))]
            if self._published:
                self.journal.drop_notices(self._published)
                failpoints.reach("notices-dropped")
            if batch:
                failpoints.reach("process-uncommitted")
        self._published = []
        if batch:
            failpoints.reach("processed")
        self.lookout.said()
        for future, answer in answers:
            future.set_result(answer)
        if self.journal.outbox:
            self.outbox_bell.set()
        if self.notices.may_wait:
            self.webhook_bell.set()
        return bool(batch or turn.put_off or resume or self._asked or self.reports.is_under_way or self._desk.is_late())

    def _tick_due(self) -> bool:
        if self.observed_until_ms is None or self.observed_until_ms == self._ticked_ms or self._to_resume:
            return False
        return self.lookout.now_s() >= self._ticks_from_s

    def _take_asked(self) -> list[Asked]:
        """Answer the questions; return what must be done inside the transaction."""
        writes = []
        for _ in range(len(self._asked)):
            asked = self._asked.popleft()
            if asked.write:
                writes.append(asked)
                continue
            try:
                asked.future.set_result(asked.work())
            except Exception as error:
                asked.future.set_exception(error)
        return writes

    @contextmanager
    def _step_of(self, writes: list[Asked]) -> Iterator[None]:
        """A step of the journal. If there is no room for it, what others asked of it has not been done."""
        try:
            with self.journal.step():
                yield
        except NoRoom as error:
            self._put_off(writes, error)
            raise

    def _put_off(self, writes: list[Asked], error: NoRoom) -> None:
        for asked in writes:
            if not asked.insist:
                asked.future.set_exception(error)
        self._asked.extendleft(asked for asked in reversed(writes) if asked.insist)

    def _may_judge_again(self, more_waiting: bool) -> int:
        """Late data come in floods; a session is judged again when the flood pauses, or soon. And it may be long: how many of
        its messages may be looked at in this turn."""
        if not self._desk.is_late():
            self._late_since = None
            return 0
        now = time.monotonic()
        self._late_since = self._late_since or now
        if not more_waiting:
            return AGAIN_MOST
        return AGAIN_BUSY if now - self._late_since >= LATE_PATIENCE_S else 0

    # -- the disk -------------------------------------------------------------------------------

    def look_at_room(self) -> None:
        """How full is the disk, and what follows for accepting."""
        self.disk.look()
        if self.source is not None:
            self.source.held = self.disk.pressure.level is Level.STOPPED

    def _fill_up(self, error: NoRoom) -> None:
        """There was no room for a step: everything is as it is on disk."""
        self._rehearsed = False
        self.disk.fill_up(error)
        self._load_again()
        self.look_at_room()

    def _load_again(self) -> None:
        terms, links = self.notices.webhook, self.reports.links
        self.journal.read_again()
        self._load()
        self.notices.webhook, self.reports.links = terms, links
        self.lookout.devices = self.devices
        self._ticked_ms = self._late_since = None

    def _wait_for_room(self) -> bool:
        """Nothing can be written. Questions are answered, and what waits is judged once, without record."""
        self._put_off(self._take_asked(), NoRoom("the disk is full; make room on it, and try again"))
        self._look_out()
        for each in self.lookout.waiting:
            self._tell_unrecorded(each)
        if self._rehearsed:
            return False
        self._rehearsed = True
        said: list[Said] = []
        with suppress(NoRoom), self.journal.rehearsal():
            said += self._intake.admit(self.journal.unprocessed(REHEARSE_MOST), self.observed_until_ms, self.clock.now_ms())
            said += self._intake.finish(REHEARSE_MOST)
        self._load_again()
        for each in said:
            self._tell_unrecorded(each)
        return False

    def _tell_unrecorded(self, said: Said) -> None:
        """It is told again, with its record, when there is room."""
        alert = said.alert
        if self.source is None or (alert.id, said.event) in self._told_unrecorded:
            return
        self._told_unrecorded.add((alert.id, said.event))
        event = AlertEvent(event=said.event, at_ms=self.clock.now_ms(), by=None, note=UNRECORDED, alert=alert)
        self.source.publish(topics.alert(alert.device_id), event.model_dump_json().encode())
        observe.log().warning("alert_unrecorded", step=said.event.value, rule=alert.rule, device_id=alert.device_id, alert_id=alert.id)

    # -- what follows ---------------------------------------------------------------------------

    def _record(self, said: list[Said]) -> None:
        for each in said:
            self.acts.record(each.alert, each.event)
            self._desk.chronicle.heed(each.alert)
        for session, point in self._desk.chronicle.take_points():
            self.journal.enqueue_point(session.device_id, session.started_ms, point)

    def settle(self, entries: list[Entry], refused: list[RefusedEntry], fingerprint: Callable[[bytes, bytes], bytes]) -> None:
        """The store has these, save those it refused. To be asked with `write`."""
        lost = {r.entry.id for r in refused}
        stored = [e for e in entries if e.id not in lost]
        self.journal.settle(stored)
        if entries and self.lookout.canary is not None:
            self.lookout.canary.settled(entries[-1].id)
        for entry in stored:
            if entry.is_message:
                self._devices_stored(entry.device_id, 1)
        observe.STORED.inc(sum(e.is_message for e in stored))
        for each in refused:
            raw = self.journal.raw(each.entry.raw_id) if each.entry.is_message else None
            mark = fingerprint(raw.topic, raw.payload) if raw else b""
            is_new = self.journal.refused_by_store(each.entry, each.reason, each.detail, mark, self.clock.now_ms())
            if raw:
                device = self._intake.device(each.entry.device_id)
                self._intake.touched.add(device)
                if is_new:
                    device.quarantined += 1
                    observe.QUARANTINED.labels(each.reason).inc()
                else:
                    device.duplicate += 1
                    observe.DUPLICATE.inc()
            observe.log().error("store_refused", device_id=each.entry.device_id, detail=each.detail)
        failpoints.reach("settle-uncommitted")

    def settle_upto(self, entry_id: int) -> None:
        """The store told at the start that it holds these. To be asked with `write`, or within a step."""
        for device_id, count in self.journal.settle_upto(entry_id).items():
            self._devices_stored(device_id, count)
        self._intake.put_devices()  # at the start there is no turn of the line around this

    def _devices_stored(self, device_id: str, count: int) -> None:
        device = self._intake.device(device_id)
        device.stored += count
        self._intake.touched.add(device)

    def _notices_due(self) -> bool:
        return self.notices.is_due(self.clock.now_ms())

    def _report(self) -> None:
        """Devices, the fleet and the ledger, every ten seconds, into the store."""
        now_ms = self.clock.now_ms()
        if self.reports.is_due(now_ms) and self.reports.step(now_ms, self.observed_until_ms):
            failpoints.reach("reported")
            self._prunes = True
        if self.clock_doubted:
            self._prunes = False
        if self._prunes:
            before_ms = now_ms - self._retention_days[2] * DAY_MS
            self._prunes = self.journal.prune_raw(before_ms, PRUNE_MOST) == PRUNE_MOST

    def _say(self) -> None:
        """After the commit: durable acknowledgements and alerts go out."""
        source = self.source
        if source is None:
            return
        now = time.monotonic()
        if self._intake.acks and now >= self._acks_due:
            self._acks_due = now + self._ack_interval_s
            for (device_id, boot_id), heard in self._intake.acks.items():
                boot = self.devices[device_id].boots.get(boot_id)
                for upto, missing in boot.durable(heard) if boot is not None else ():
                    ack = DurableAck.model_construct(boot_id=boot_id, upto=upto, missing=missing)
                    source.publish(topics.durable_ack(device_id), orjson.dumps(ack.__dict__))
                    failpoints.reach("durable-ack-said")
            self._intake.acks.clear()
        if self.notices.may_wait:
            waiting = self.journal.notices_after(self._notice_sent, NOTICES_MOST)
            for notice_id, topic, payload in waiting:
                source.publish(topic, payload, token=notice_id)
                self._notice_sent = notice_id
                failpoints.reach("notice-said")
            self.notices.may_wait = len(waiting) == NOTICES_MOST
