"""Whether the line itself can see: looked at every second, told as alerts of the worker.

The judgement is in `ingest.safety`; here is what it is given. All ages are counted by a clock that runs on whatever
is done to the one on the wall, and that counts the sleep of the machine. Nothing is written while nothing changes.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ingest import observe
from ingest.canary import Canary
from ingest.clock import steady_s
from ingest.device import Device
from ingest.journal import Journal
from ingest.pressure import Level, Pressure
from ingest.safety.attacks import Attacks, Attempt
from ingest.safety.expiry import Expiry, Reading
from ingest.safety.line import HOLD_S, PIPELINE_BLIND, SECURITY_EVENT, SESSION, STORAGE_PRESSURE, Blindness, Cause, Graded, Missing
from ingest.safety.quiet import BEFORE_MS, HOUR_MS, Habit, Pauses, ran_before
from ingest.security import SecurityEvent, SecurityLog
from ingest.standing import says_running
from ingest.voice import Said
from schemas.alerts import Alert, Severity
from schemas.security import SecurityKind

LOOK_S = 1.0
HABIT_S = 60.0
KEEP_S = 10.0
"""How often it is put on record that somebody watches."""

CANARY_S = 10.0
"""A canary that flies is not missing before."""

STORE_BEHIND_S = 300.0
CERTIFICATES_S = 60.0
STEP_MS = 1_000
"""The clock on the wall is said to be set when it moves so much against the other one between two looks."""

MOST_MARKS = 2_000

PRESSURE_GRAVE = {Level.NORMAL: None, Level.HIGH: Severity.WARNING, Level.STOPPED: Severity.CRITICAL}


class Sight(NamedTuple):
    """What the worker knows of its neighbours at a moment."""

    broker_connected: bool
    broker_detail: str
    subscription_refused: bool
    session_lost_ms: int | None
    store_ok: bool
    store_detail: str
    times_taken_over: int = 0


class Judged(NamedTuple):
    """How far the worker has come: `pulse_s` is when the last of its own messages came back, `seen_s` when the one did
    up to which everything has been judged; both by `steady_s`. `pulse_ms` is the wall's time of the first. `aside` is the
    oldest message that waits though later ones have been judged, None if there is none, and `of_whom` says whose those are."""

    accepted: int
    waiting: int
    pulse_s: float | None
    pulse_ms: int | None
    seen_s: float | None
    aside: int | None = None
    of_whom: str = ""


class Lag:
    """How long the oldest of numbered entries has waited, without asking what time it was then."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def age_s(self, now_s: float, oldest: int | None, newest: int) -> float:
        """`oldest` entry that waits (None: none does), and the `newest` there ever was."""
        if not self._marks or self._marks[-1][1] < newest:
            self._marks.append((now_s, newest))
            if len(self._marks) > MOST_MARKS:
                self._marks = deque(mark for n, mark in enumerate(self._marks) if not n % 2)
        if oldest is None:
            return 0.0
        while len(self._marks) > 1 and self._marks[0][1] < oldest:
            self._marks.popleft()
        return now_s - self._marks[0][0]


class Lookout:
    """One thread, the core's. `look` may be called at any time; `say` inside a step of the journal; `said` after it."""

    def __init__(
        self, journal: Journal, security: SecurityLog, name: str, worker_id: str, devices: dict[str, Device], hold_s: float = HOLD_S
    ) -> None:
        self.see: Callable[[], Sight] | None = None
        """None while there is nobody to look at: then only security events and pressure are told."""

        self.wall_ms: Callable[[], int] | None = None
        """The clock on the wall, if it is a real one."""

        self.now_s = steady_s
        """The clock by which ages are counted."""

        self.pulse_s = 1.0
        """How often a pulse is sent."""

        self.canary: Canary | None = None
        self.certificates: Callable[[], Reading | None] = lambda: None
        """What certificates were last seen; None before the first look."""

        self._journal = journal
        self._security = security
        self._name = name
        self._hold_s = hold_s
        self._worker_id = worker_id
        self.devices = devices
        now_s = self._awake_s = self.now_s()
        standing = [Alert.model_validate(doc) for doc in journal.alerts(state="open", device_id=name)]
        state = journal.watch_state()
        self.blindness = Blindness(name, hold_s)
        blind = next((a for a in standing if a.rule == PIPELINE_BLIND.id), None)
        if blind is not None:
            kept = state.get("blind") or {}
            self.blindness.restore(blind, kept if kept.get("id") == blind.id else {"spans": [], "left_out": 0})
        self._pressure = Graded(STORAGE_PRESSURE, name, next((a for a in standing if a.rule == STORAGE_PRESSURE.id), None))
        self._attacks = Attacks(name, [a for a in standing if a.rule == SECURITY_EVENT.id], now_s)
        self.expiry = Expiry(journal.certificates_told())
        self._habit = Habit({int(hour): devices for hour, devices in (state.get("heard") or {}).items()})
        self._pauses = Pauses()
        self._lag, self._aside_lag = Lag(), Lag()
        self._watched_ms: int | None = state.get("watched_ms")
        self._kept_s = -KEEP_S
        self._looked_s: float | None = None
        self._next_s = 0.0
        self._habit_s = 0.0
        self._offset_ms: int | None = None
        self._certificates: Reading | None = None
        self._certificates_s = self._doubted_s = now_s
        self._untold = False
        self._since: dict[Cause, tuple[float, int]] = {}
        self._ready_s: dict[str, float] = {}
        self._session_lost_ms: int | None = None
        self._taken_over = 0
        self._seen_ms: int | None = None
        self._accepted: int | None = None
        self._heard_ms = 0
        self._in_use: bool | None = None
        self._waiting: list[Said] = []
        self._unkept = False
        self._events: list[SecurityEvent] = []
        self.store_lag_s = 0.0
        self.stepped_ms = 0
        """By how much the clock on the wall was set, forward or back, since somebody last took it to heart."""

    # -- looking --------------------------------------------------------------------------------

    def is_due(self) -> bool:
        return self.now_s() >= self._next_s

    @property
    def has_news(self) -> bool:
        """Whether there is something to write."""
        return bool(self._waiting or self._unkept or self._security.is_waiting)

    @property
    def waiting(self) -> list[Said]:
        """What will be said in the next step."""
        return self._waiting

    def look(self, now_ms: int, judged: Judged, pressure: Pressure) -> None:
        now_s = self.now_s()
        self._next_s = now_s + LOOK_S
        self._waiting += self._pressure.look(now_ms, PRESSURE_GRAVE[pressure.level], float(pressure.level.rank), 1.0, pressure.detail)
        if self.see is not None:
            self._look_around(now_ms, now_s, self.see(), judged, pressure)
        self._looked_s = now_s
        self._look_at_certificates(now_ms, now_s)
        self._waiting += self._attacks.look(now_ms, now_s, ())

    def _look_around(self, now_ms: int, now_s: float, sight: Sight, judged: Judged, pressure: Pressure) -> None:
        if sight.times_taken_over > self._taken_over:
            times = sight.times_taken_over - self._taken_over
            self._security.note(SecurityKind.TAKEOVER, now_ms, self._name, detail="another client came to the broker under the worker's name", count=times)
            self._taken_over = sight.times_taken_over
        missing = self._slept(now_ms, now_s)
        missing += self._what_is_missing(now_ms, now_s, sight, judged, pressure)
        before = self.blindness.state
        self._waiting += self.blindness.look(now_ms, now_s, missing)
        self._unkept |= self.blindness.state != before  # what joined and left is kept though it is not said at once
        observe.BLIND.set(len(self.blindness.causes))
        if now_s - self._kept_s >= KEEP_S:
            self._kept_s, self._watched_ms, self._unkept = now_s, now_ms, True

    def _look_at_certificates(self, now_ms: int, now_s: float) -> None:
        """A clock that was just set is not believed for the hold."""
        if self.expiry.told:
            self._attacks.hold(SecurityKind.CERTIFICATE, now_s)
        seen = self.certificates()
        if seen is None or now_s < self._doubted_s or (seen is self._certificates and now_s < self._certificates_s):
            return
        self._certificates, self._certificates_s = seen, now_s + CERTIFICATES_S
        before = self.expiry.told
        for each, severity in self.expiry.look(now_ms, seen.found, seen.unread):
            self._security.note(SecurityKind.CERTIFICATE, now_ms, each.name, each.place, each.told(now_ms), critical=severity is Severity.CRITICAL)
        self._untold |= self.expiry.told != before

    def _slept(self, now_ms: int, now_s: float) -> list[Missing]:
        """Nobody looked for longer than the hold: no worker ran, or it stood still, or the machine slept."""
        if self._looked_s is not None:
            age_s = now_s - self._looked_s
            if age_s < self._hold_s:
                return []
            since_ms, detail = now_ms - round(age_s * 1000), "the worker or its machine stood still"
            self._awake_s = now_s
        elif self._watched_ms is not None and self.wall_ms is not None:
            since_ms, age_s = self._watched_ms, (now_ms - self._watched_ms) / 1000
            detail = "it had died" if self._journal.unclean else "it had been stopped"
            if age_s < self._hold_s:
                return []
        else:
            return []
        return [Missing(Cause.WORKER_AWAY, since_ms, age_s, detail, until_ms=now_ms)]

    def _what_is_missing(self, now_ms: int, now_s: float, sight: Sight, judged: Judged, pressure: Pressure) -> list[Missing]:
        """All causes that hold now. What follows from another is counted from when that was over, and not beside it."""
        refused = sight.subscription_refused and not sight.broker_connected
        found = [
            self._while(Cause.BROKER_AWAY, not sight.broker_connected and not refused, now_ms, now_s, sight.broker_detail),
            self._while(Cause.SUBSCRIPTION_REFUSED, refused, now_ms, now_s, sight.broker_detail),
            self._while(Cause.STORE_AWAY, not sight.store_ok, now_ms, now_s, sight.store_detail),
            self._session_lost(sight),
        ]
        self.store_lag_s = self._lag.age_s(now_s, *self._journal.outbox_span())
        stores_s = self._ready("store", sight.store_ok, now_s)
        if stores_s is not None and self.store_lag_s >= STORE_BEHIND_S:
            found.append(Missing(Cause.STORE_BEHIND, now_ms - round(self.store_lag_s * 1000), self.store_lag_s))
        hears_s = self._ready("broker", sight.broker_connected and pressure.level is not Level.STOPPED, now_s)
        if hears_s is not None:
            found += self._of_pulses(now_ms, now_s, hears_s, judged)
        self._listen(now_ms, now_s, judged)
        if hears_s is not None:
            found.append(self._of_canary(now_s, sight, max(hears_s, stores_s or 0.0)))
        if hears_s is not None and not any(m and m.cause is Cause.PULSES_LOST for m in found):
            found.append(self._of_fleet(now_ms, now_s, hears_s))
        self._seen_ms = judged.pulse_ms
        return [m for m in found if m is not None]

    def _while(self, cause: Cause, holds: bool, now_ms: int, now_s: float, detail: str) -> Missing | None:
        if not holds:
            self._since.pop(cause, None)
            return None
        since_s, since_ms = self._since.setdefault(cause, (now_s, now_ms))
        return Missing(cause, since_ms, now_s - max(since_s, self._awake_s), detail)

    def _ready(self, what: str, holds: bool, now_s: float) -> float | None:
        """Since when something is as it should be; None while it is not."""
        if not holds:
            self._ready_s.pop(what, None)
            return None
        return max(self._ready_s.setdefault(what, now_s), self._awake_s)

    def _session_lost(self, sight: Sight) -> Missing | None:
        lost_ms, before_ms = sight.session_lost_ms, self._session_lost_ms
        self._session_lost_ms = lost_ms
        if lost_ms is None or lost_ms == before_ms:
            return None
        since_ms = self._seen_ms if self._seen_ms is not None else self._watched_ms
        since_ms = lost_ms if since_ms is None else min(since_ms, lost_ms)
        return Missing(Cause.SESSION_LOST, since_ms, (lost_ms - since_ms) / 1000, until_ms=lost_ms, at_once=True)

    def _of_pulses(self, now_ms: int, now_s: float, hears_s: float, judged: Judged) -> list[Missing]:
        aside_s = self._aside_lag.age_s(now_s, judged.aside, judged.accepted)
        age_s = now_s - max(judged.pulse_s or 0.0, hears_s)
        if age_s > 2 * LOOK_S + self.pulse_s:
            return [Missing(Cause.PULSES_LOST, now_ms - round(age_s * 1000), age_s)]
        behind_s = now_s - max(judged.seen_s or 0.0, hears_s)
        if behind_s > 2 * LOOK_S + self.pulse_s:
            return [Missing(Cause.JUDGING_BEHIND, now_ms - round(behind_s * 1000), behind_s, f"{judged.waiting} wait")]
        if aside_s >= self._hold_s:
            return [Missing(Cause.JUDGING_BEHIND, now_ms - round(aside_s * 1000), aside_s, judged.of_whom)]
        return []

    def _of_canary(self, now_s: float, sight: Sight, ready_s: float) -> Missing | None:
        canary = self.canary
        since = canary.missing_since if canary is not None else None  # another thread's
        if since is None or (canary.waits_for_the_store and not sight.store_ok):
            return None
        since_s, since_ms = since
        age_s = now_s - max(since_s, ready_s)
        return Missing(Cause.CANARY_LOST, since_ms, age_s, canary.words) if age_s >= min(CANARY_S, self._hold_s) else None

    # -- the fleet ------------------------------------------------------------------------------

    def _listen(self, now_ms: int, now_s: float, judged: Judged) -> None:
        if self._accepted is None:
            self._heard_ms = max((d.last_seen_ms for d in self.devices.values()), default=0)
        elif judged.accepted > self._accepted:
            self._pauses.heard(now_s)
            self._heard_ms, self._in_use = now_ms, None
        self._accepted = judged.accepted
        if now_s >= self._habit_s:
            self._habit_s = now_s + HABIT_S
            hour_ms = now_ms - now_ms % HOUR_MS
            self._unkept |= self._habit.note(now_ms, sum(d.last_seen_ms >= hour_ms for d in self.devices.values()))

    def _of_fleet(self, now_ms: int, now_s: float, hears_s: float) -> Missing | None:
        if not self._heard_ms:
            return None
        last_s = self._pauses.last_s
        quiet_s = now_s - max(last_s, hears_s) if last_s is not None else 0.0
        if quiet_s > 0 and last_s is not None and quiet_s >= self._pauses.too_long_s(self._hold_s):
            if self._in_use is None:
                heard_ms = self._heard_ms
                recent = (d for d in self.devices.values() if d.last_seen_ms >= heard_ms - BEFORE_MS)
                self._in_use = ran_before(((min(d.last_seen_ms, heard_ms), says_running(d)) for d in recent), heard_ms)
            if self._in_use:
                return Missing(Cause.FLEET_SILENT, self._heard_ms, quiet_s, "several were in use and all fell silent")
        if now_s - hears_s >= self._hold_s and self._habit.misses(now_ms, self._heard_ms):
            age_s = max(self._hold_s, (now_ms - self._heard_ms) / 1000)
            return Missing(Cause.FLEET_SILENT, self._heard_ms, age_s, "at this time of day it is usually heard")
        return None

    # -- the clock ------------------------------------------------------------------------------

    def check_clock(self) -> None:
        """Find out whether the clock on the wall was set since the last time; it runs a little faster or slower always."""
        if self.wall_ms is None:
            return
        wall_ms, now_s = self.wall_ms(), self.now_s()
        offset_ms = wall_ms - round(now_s * 1000)
        before_ms, self._offset_ms = self._offset_ms, offset_ms
        if before_ms is None or abs(offset_ms - before_ms) <= STEP_MS:
            return
        by_ms = offset_ms - before_ms
        self.stepped_ms += by_ms
        self._doubted_s = now_s + self._hold_s
        way = "forward" if by_ms > 0 else "back"
        observe.log().warning("host_clock_step", by_s=by_ms / 1000)
        self._security.note(SecurityKind.CLOCK_STEP, wall_ms, detail=f"the machine's clock was set {way} by {abs(by_ms) / 1000:.1f} s")

    # -- saying ---------------------------------------------------------------------------------

    def say(self, now_ms: int) -> list[Said]:
        """What is to be recorded now. Inside a step; if that fails, the same is said again in the next."""
        fresh = self._security.take()
        if fresh:
            named = [self._without_secret(event) for event in fresh]
            self._events += named
            self._waiting += self._attacks.look(now_ms, self.now_s(), [self._attempt(event) for event in named])
        for event in self._events:
            self._journal.note_security(event)
        if self._unkept:
            self._journal.put_watch_state(
                {"watched_ms": self._watched_ms, "blind": self.blindness.state, "heard": self._habit.heard}
            )
        if self._untold:
            self._journal.put_certificates_told(self.expiry.told)
        for each in self._waiting:
            known = self._journal.alert(each.alert.id)
            if known is not None:
                each.alert.acknowledged, each.alert.assigned_to = known.acknowledged, known.assigned_to
            self._journal.put_alert(each.alert, SESSION)
        return self._waiting

    def said(self) -> None:
        """The step is on disk."""
        for event in self._events:
            observe.SECURITY_EVENTS.labels(event.kind).inc(event.count)
        self._events, self._waiting, self._unkept, self._untold = [], [], False, False
        self._security.kept()

    def _without_secret(self, event: SecurityEvent) -> SecurityEvent:
        """The worker under the name that may be known: its own at the broker is a secret."""
        who, detail = (text.replace(self._worker_id, self._name) for text in (event.who, event.detail))
        return event._replace(who=who, detail=detail)

    def _attempt(self, event: SecurityEvent) -> Attempt:
        on_worker = event.kind is SecurityKind.TAKEOVER and event.who == self._name
        return Attempt(event.kind, event.who, event.source, event.detail, event.count, event.first_ms, on_worker or event.critical)
