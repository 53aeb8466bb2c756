"""Keep a watch for every live session; say what changes, once.

The judge is pure; this module gives it its readings, compares what it finds with what has been
said before, and hands the difference on. Everything it needs can be rebuilt from the journal.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from typing import Protocol

from ingest.chronicle import LOSSES, Chronicle, SessionStore
from ingest.safety.data import TELEMETRY_GAP
from ingest.safety.history import COUNTED_S
from ingest.safety.judge import Judged, gap_due_ms, losses, silent_tail
from ingest.safety.track import Reading, Track
from ingest.safety.watch import REORDER_MS, Again, Watch
from ingest.voice import Said, Voice
from schemas.alerts import Alert, AlertEventKind, AlertState, CloseReason, Severity
from schemas.limits import GAP_MS, LATENESS_MS
from schemas.profile import Profiles

MOST_WATCHES = 20_000
MOST_OF_ONE = 100
"""So many sessions of a device are watched at once: beyond, the one that was touched least lately is settled as if its time had
passed, and put away. A device is in one session at a time; who begins them without end must not fill the memory."""

MOST_OVER = 2_000
"""So many sessions are kept at hand that are over, or wait for nothing; each takes up to some 50 kB."""

PUT_AWAY_AT_ONCE = 500
"""Watches that a step looks at to find those that can be put away."""

AT_ONCE = 500
"""A session is taken up in one go if no more messages are on record since its last checkpoint."""


class Record(SessionStore, Protocol):
    """What the desk needs of the journal."""

    def track(self, device_id: str, session: str) -> bytes | None: ...
    def put_track(self, device_id: str, session: str, frontier_ms: int, state: bytes) -> None: ...
    def drop_track(self, device_id: str, session: str) -> None: ...
    def is_evidence_kept(self, alert: Alert, session: str) -> bool: ...
    def session_until(self, device_id: str, session: str) -> int: ...
    def spoke_elsewhere(self, device_id: str, session: str, after_ms: int, until_ms: int) -> bool: ...


Replay = Callable[[str, str, int, int], tuple[list[Reading], int | None, int]]
"""(device, session, after_ms, most) → the readings on record of a session with times after that, of about so many messages;
up to when they are all, None if to the end; and how many messages it were."""

Lost = Callable[[str, int, int, int], int]
"""(device, boot, first, last) → how many messages of that range were never received."""


class Desk:
    """All watches of this worker. One thread."""

    def __init__(self, record: Record, replay: Replay, profiles: Profiles, lost: Lost) -> None:
        self._record = record
        self._replay = replay
        self._lost = lost
        self._voice = Voice(record)
        self.chronicle = Chronicle(record, profiles, self._voice)
        self._watches: OrderedDict[tuple[str, str], Watch] = OrderedDict()
        self._of_device: dict[str, OrderedDict[str, None]] = {}
        self._over: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._due: list[tuple[int, tuple[str, str]]] = []
        self._late: dict[tuple[str, str], None] = {}
        self._touched: set[tuple[str, str]] = set()
        self._silent: dict[str, set[str]] = {}
        self._found: list[Said] = []
        self._looked_at: dict[tuple[str, str], bool] = {}
        self._lives: dict[str, int] = {}
        self.wall_ms: int | None = None
        """What the clock on the wall says, if it is a real one: nothing has been received later."""

    def remember_silence(self, device_id: str, session: str) -> None:
        """An open silence, perhaps of before a restart: it ends when the device is heard again."""
        self._silent.setdefault(device_id, set()).add(session)

    def take(self, device_id: str, session: str, readings: list[Reading], hole: bool) -> list[Said]:
        """The readings of one message, in its session."""
        key = (device_id, session)
        watch = self._watch(key)
        late_before_ms = watch.late_from_ms
        watch.add(readings, hole)
        if watch.late_from_ms != late_before_ms:
            self._late[key] = None
            self._record.drop_track(*key)
        elif watch.lacking:
            self._record.drop_track(*key)
        watch.lacking = False
        said = self._settle(watch, watch.advance())
        for alert in watch.announce(readings):
            said += self._voice.compare(alert, session)
        if device_id in self._silent:
            said += self._heard_again(device_id, session, readings[0])
        self._touched.add(key)
        return said

    def finish(self, again_most: int) -> list[Said]:
        """End of a step: judge again what late data touched, of about so many messages; note due times and checkpoints."""
        said, self._found = self._found, []
        for key in list(self._late):
            if again_most <= 0:
                break
            count, news = self._judge_again(key, again_most)
            again_most -= count
            said += news
        for key in self._touched:
            watch = self._watches[key]
            due_ms = watch.next_due_ms()
            if due_ms is not None and (watch.queued_ms is None or due_ms < watch.queued_ms):
                watch.queued_ms = due_ms
                heapq.heappush(self._due, (due_ms, key))
            # What is held back lives in the readings since the last checkpoint: they must be judged again.
            if not watch.is_reloading:
                said += self._note_session(watch)
            if watch.checkpoint_due() and not watch.is_late and not watch.held_back:
                self._record.put_track(*key, watch.track.frontier_ms, watch.checkpoint())
            self._looked_at[key] = watch.unsettled
            self._over.pop(key, None)
            if watch.track.session_id is not None and not watch.unsettled:
                self._over[key] = None
        for device_id in {device_id for device_id, _ in self._touched}:
            if len(self._of_device.get(device_id, ())) > MOST_OF_ONE:
                said += self._settle_surplus(device_id)
        self._touched.clear()
        for device_id, received_ms in self._lives.items():
            said += self.chronicle.life_changed(device_id, received_ms)
        self._lives.clear()
        said += self.chronicle.judge_put_off()
        if any(each.alert.severity == Severity.CRITICAL for each in said):
            self.chronicle.critical_changed()
        self._put_away_most()
        return said

    def _settle_surplus(self, device_id: str) -> list[Said]:
        """A device has too many sessions at once."""
        said: list[Said] = []
        sessions = self._of_device[device_id]
        for _ in range(2 * (len(sessions) - MOST_OF_ONE)):
            key = (device_id, next(iter(sessions)))
            watch = self._watches[key]
            if len(sessions) <= MOST_OF_ONE:
                break
            if watch.unsettled and not watch.is_late:
                said += self._settle(watch, watch.advance(everything=True))
                said += self._time_has_passed(watch, max(watch.received_ms, watch.track.last_received_ms or 0) + GAP_MS + LATENESS_MS)
                self._looked_at[key] = False
            if watch.is_late:
                sessions.move_to_end(key[1])
            else:
                self._put_away(key, watch)
        return said

    def _put_away_most(self) -> None:
        while len(self._over) > MOST_OVER:
            key = next(iter(self._over))
            self._put_away(key, self._watches[key])
        for _ in range(min(PUT_AWAY_AT_ONCE, 2 * max(0, len(self._watches) - MOST_WATCHES))):
            key, watch = next(iter(self._watches.items()))
            if len(self._watches) <= MOST_WATCHES:
                break
            if watch.unsettled:
                self._watches.move_to_end(key)
            else:
                self._put_away(key, watch)

    def _put_away(self, key: tuple[str, str], watch: Watch) -> None:
        """What comes of the session later has it taken up again."""
        self._record.put_track(*key, watch.track.frontier_ms, watch.track.to_json())
        self._over.pop(key, None)
        del self._watches[key], self._of_device[key[0]][key[1]]
        if not self._of_device[key[0]]:
            del self._of_device[key[0]]

    def judge_life(self, device_id: str, received_ms: int) -> None:
        """A device told something that its past sessions are judged by."""
        self._lives[device_id] = received_ms

    def note_sessions(self, device_id: str) -> None:
        """Have the unfinished sessions of a device put on record as they are now."""
        for session in self._of_device.get(device_id, ()):
            watch = self._watches[device_id, session]
            if not watch.track.figures.ended:
                watch.recorded = None
                self._touched.add((device_id, session))

    def _note_session(self, watch: Watch, final: bool = False) -> list[Said]:
        """Put a session on record as its use comes to matter, at its end, and when that changes."""
        track, figures = watch.track, watch.track.figures
        if track.session_id is None or not figures.seqs:
            return []
        over = figures.ended or final
        mark = (over, track.last_ms if over else 0, len(figures.seqs))
        if mark == watch.recorded and (len(figures.minute_ms) == watch.minutes or track.output_on_s < watch.look_again_s):
            return []
        watch.recorded, watch.minutes = mark, len(figures.minute_ms)
        said, spare_s = self.chronicle.note(track, self._missing(track), final, watch.received_ms)
        # Nothing can come of more use before there is so much more; the first minute makes it a session.
        watch.look_again_s = track.output_on_s + spare_s if track.output_on_s >= COUNTED_S else 0.0
        return said

    def _missing(self, track: Track) -> int:
        return sum(self._lost(track.device_id, boot, *span) for boot, span in track.figures.seqs.items())

    def _conclude(self, watch: Watch) -> list[Said]:
        """The session is over, and late data have had their time: how much of it was seen?"""
        track = watch.track
        watch.settled_ms, watch.recorded = track.last_received_ms, None
        said = self._note_session(watch, final=True)
        found = losses(track, self._missing(track))
        known = [a for a in self._record.alerts_of_session(track.device_id, LOSSES) if a.session_id == track.session_id]
        return said + self._voice.agree([found] if found else [], known, LOSSES)

    def is_late(self) -> bool:
        return bool(self._late)

    def is_past(self, device_id: str, session: str, t_ms: int) -> bool:
        """Whether a session has been judged up to this time: what is said of it then comes from the record."""
        return t_ms <= self._watch((device_id, session)).track.frontier_ms

    def looked_at(self) -> list[tuple[tuple[str, str], bool]]:
        """The sessions of the last step, and whether time alone can still change what is said of them."""
        found, self._looked_at = list(self._looked_at.items()), {}
        return found

    def resume(self, device_id: str, session: str) -> None:
        """Take up the watch over a session after a restart."""
        self._watch((device_id, session))

    def clock_set_back(self, now_ms: int) -> None:
        """Our clock was set back: what was received at times that are yet to come was received now."""
        for key, watch in self._watches.items():
            track = watch.track
            settled = watch.is_final
            watch.received_ms = min(watch.received_ms, now_ms)
            if track.last_received_ms is not None:
                track.last_received_ms = min(track.last_received_ms, now_ms)
            if settled:
                watch.settled_ms = track.last_received_ms
            watch.held_back = {i: (min(due_ms, now_ms + LATENESS_MS), alert) for i, (due_ms, alert) in watch.held_back.items()}
            watch.queued_ms = None
            self._touched.add(key)
        self._due.clear()

    def tick(self, observed_until_ms: int, waiting: Container[str] = ()) -> list[Said]:
        """Time has passed: all that devices sent until `observed_until_ms` has been seen, save of devices that are `waiting` for their turn."""
        said: list[Said] = []
        later: list[tuple[int, tuple[str, str]]] = []
        while self._due and self._due[0][0] <= observed_until_ms:
            due_ms, key = heapq.heappop(self._due)
            watch = self._watches.get(key)
            if watch is None:
                continue
            if key[0] in waiting or watch.is_reloading:
                later.append((due_ms, key))
                continue
            if watch.queued_ms == due_ms:
                watch.queued_ms = None
            self._touched.add(key)
            if watch.waiting and observed_until_ms >= watch.received_ms + REORDER_MS:
                said += self._settle(watch, watch.advance(everything=True))
            said += self._time_has_passed(watch, observed_until_ms)
        for each in later:
            heapq.heappush(self._due, each)
        return said + self.chronicle.judge_fleet(observed_until_ms)

    def _time_has_passed(self, watch: Watch, observed_until_ms: int) -> list[Said]:
        """What was held back until then, and what the end of a session says."""
        said: list[Said] = []
        for alert_id, (due_ms, alert) in list(watch.held_back.items()):
            if due_ms <= observed_until_ms:
                del watch.held_back[alert_id]
                said += self._voice.compare(alert, watch.track.session)
        if not watch.waiting:
            said += self._look_at_the_end(watch, observed_until_ms)
        return said

    def _look_at_the_end(self, watch: Watch, observed_until_ms: int) -> list[Said]:
        track = watch.track
        if watch.awaits_the_end and observed_until_ms >= gap_due_ms(track):
            return self._conclude(watch)
        if watch.tail_gap is not None:
            return []
        alert = silent_tail(track, observed_until_ms)
        if alert is None:
            return []
        watch.tail_gap = alert
        said = self._conclude(watch) if track.session_id is not None else []
        if self._record.spoke_elsewhere(track.device_id, track.session, track.last_ms, track.last_ms + GAP_MS):
            return said  # it was interrupted, not silent
        self.remember_silence(track.device_id, track.session)
        return said + self._voice.compare(alert, track.session)

    def _watch(self, key: tuple[str, str]) -> Watch:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = self._load(*key)
            self._of_device.setdefault(key[0], OrderedDict())[key[1]] = None
            self._touched.add(key)
        else:
            self._watches.move_to_end(key)
            self._of_device[key[0]].move_to_end(key[1])
        return watch

    def _load(self, device_id: str, session: str) -> Watch:
        stored = self._record.track(device_id, session)
        track = Track.from_json(stored) if stored else Track(device_id, session)
        watch = Watch(track, newest_ms=track.frontier_ms)
        if stored:
            watch.checkpoints.append((track.frontier_ms, stored))
        after_ms = track.frontier_ms
        readings, upto_ms, _ = self._replay(device_id, session, after_ms, AT_ONCE)
        said_before = self._record.alerts_of_session(device_id, session)
        gaps = [a for a in said_before if a.rule == TELEMETRY_GAP.id]
        if upto_ms is not None:  # much is on record since: it is judged a piece at a time, and nothing beside it
            watch.again = Again(track, reload=True, gaps=gaps)
            watch.track = Track.from_json(track.to_json())
            watch.track.frontier_ms = watch.newest_ms = self._record.session_until(device_id, session)
            self._late[device_id, session] = None
            return watch
        if readings:
            watch.add(sorted(readings, key=lambda r: r.order))
            judged = watch.advance()
            arrived_ms = {gap.onset_ms: min((r.received_ms for r in readings if r.t_ms > gap.onset_ms), default=None) for gap in gaps}
            self._found += self._settle(watch, judged)
            self._found += self._no_longer_true(watch, judged, after_ms, arrived_ms)
        self._remember_said(watch, said_before, track.frontier_ms)
        self._received_by_now(watch)
        return watch

    def _received_by_now(self, watch: Watch) -> None:
        """What is on record as received at a time that is yet to come was received before our clock was set back."""
        now_ms, track = self.wall_ms, watch.track
        if now_ms is None or max(watch.received_ms, track.last_received_ms or 0) <= now_ms:
            return
        watch.received_ms = min(watch.received_ms, now_ms)
        if track.last_received_ms is not None:
            track.last_received_ms = min(track.last_received_ms, now_ms)
        latest_ms = now_ms + GAP_MS + LATENESS_MS
        watch.held_back = {i: (min(due_ms, latest_ms), alert) for i, (due_ms, alert) in watch.held_back.items()}

    def _remember_said(self, watch: Watch, said_before: list[Alert], from_ms: int) -> None:
        """What stands of a session that has just been taken up."""
        for alert in said_before:
            if alert.rule == TELEMETRY_GAP.id and alert.onset_ms == watch.track.last_ms:
                watch.tail_gap = alert
            elif alert.state == AlertState.OPEN and alert.opened_ms > from_ms:
                watch.announced[alert.rule] = alert

    def _settle(self, watch: Watch, judged: Judged) -> list[Said]:
        """Compare what the judge found with what was said."""
        if not judged.alerts and not judged.unconfirmed and watch.tail_gap is None:
            return []
        said: list[Said] = []
        self._hold_back(watch, judged)
        for alert in judged.alerts.values():
            if alert.id not in watch.held_back:
                said += self._voice.compare(alert, watch.track.session)
        for alert_id in judged.unconfirmed:
            said += self._voice.withdraw(self._record.alert(alert_id), watch.track.session)
        said += self._end_tail_gap(watch)
        return said

    def _hold_back(self, watch: Watch, judged: Judged) -> None:
        """A silence is only said once nobody can still fill it."""
        for alert_id, due_ms in judged.due_ms.items():
            if self._record.alert(alert_id) is None:
                watch.held_back[alert_id] = (due_ms, judged.alerts[alert_id])

    def _judge_again(self, key: tuple[str, str], most: int) -> tuple[int, list[Said]]:
        """Late data touched the past: judge the session again from before, about so many messages of it now, and say the
        difference at the end. Sessions take turns. Returns how many it were."""
        watch = self._watches[key]
        del self._late[key]
        if watch.again is None:
            known = self._record.alerts_of_session(*key)
            watch.judge_again(a for a in known if a.rule == TELEMETRY_GAP.id)
        again, done = watch.again, 0
        while done < most:
            until_ms = watch.track.frontier_ms
            readings, upto_ms, count = self._replay(*key, again.upto_ms, most)
            upto_ms = until_ms if upto_ms is None else min(upto_ms, until_ms)
            again.go_on([r for r in readings if r.t_ms <= upto_ms], upto_ms)
            done += max(1, count)
            if upto_ms == until_ms:
                return done, self._judged_again(key, watch)
        self._late[key] = None
        return done, []

    def _judged_again(self, key: tuple[str, str], watch: Watch) -> list[Said]:
        again = watch.has_been_judged_again()
        if watch.late_from_ms is not None:
            self._late[key] = None
        self._touched.add(key)
        said = self._settle(watch, again.judged) + self._no_longer_true(watch, again.judged, again.after_ms, again.arrived_ms)
        if again.reload:
            self._remember_said(watch, self._record.alerts_of_session(*key), watch.track.frontier_ms)
            said += self._settle(watch, watch.advance())
        self._received_by_now(watch)
        return said

    def _no_longer_true(self, watch: Watch, judged: Judged, after_ms: int, arrived_ms: Mapping[int, int | None]) -> list[Said]:
        """What was said of the time that has been judged again, and was not found again."""
        said: list[Said] = []
        for alert in self._record.alerts_of_session(watch.track.device_id, watch.track.session):
            in_question = after_ms < alert.opened_ms <= watch.track.frontier_ms
            if not in_question or alert.id in judged.alerts or alert.state == AlertState.WITHDRAWN:
                continue
            if self._record.is_evidence_kept(alert, watch.track.session):
                said += self._take_back(watch, alert, arrived_ms.get(alert.onset_ms))
        return said

    def _take_back(self, watch: Watch, alert: Alert, arrived_ms: int | None) -> list[Said]:
        if alert.rule == TELEMETRY_GAP.id:
            if alert.close_reason == CloseReason.LATE_ARRIVAL:
                return []
            return self._late_arrival(watch, alert, alert.opened_ms if arrived_ms is None else arrived_ms)
        return self._voice.withdraw(alert, watch.track.session)

    def _forget_tail_gap(self, watch: Watch) -> None:
        watch.tail_gap = None
        self._not_silent(watch.track.device_id, watch.track.session)

    def _not_silent(self, device_id: str, session: str) -> None:
        sessions = self._silent.get(device_id)
        if sessions:
            sessions.discard(session)
            if not sessions:
                del self._silent[device_id]

    def _end_tail_gap(self, watch: Watch) -> list[Said]:
        """The session speaks again: the judge closed the silence, or late data filled it."""
        gap = watch.tail_gap
        if gap is None or watch.track.last_ms is None or watch.track.last_ms <= gap.onset_ms:
            return []
        self._forget_tail_gap(watch)
        current = self._record.alert(gap.id)
        if current is None or current.state != AlertState.OPEN:
            return []
        return self._late_arrival(watch, current, watch.track.last_received_ms)

    def _late_arrival(self, watch: Watch, alert: Alert, arrived_ms: int) -> list[Said]:
        closed = alert.model_copy(
            update={
                "state": AlertState.CLOSED.value,
                "closed_ms": max(alert.opened_ms, arrived_ms),
                "close_reason": CloseReason.LATE_ARRIVAL.value,
            }
        )
        return self._voice.say(closed, watch.track.session, AlertEventKind.CLOSED)

    def _heard_again(self, device_id: str, session: str, reading: Reading) -> list[Said]:
        """The device speaks in another session: the silent one has ended unseen."""
        said: list[Said] = []
        for silent in [s for s in self._silent.get(device_id, ()) if s != session]:
            watch = self._watch((device_id, silent))
            if watch.is_reloading:
                continue
            gap = watch.tail_gap
            gap = gap and self._record.alert(gap.id)
            if gap is not None and reading.t_ms <= gap.onset_ms:
                continue
            self._not_silent(device_id, silent)
            if gap is not None and gap.state == AlertState.OPEN:
                closed = gap.model_copy(
                    update={
                        "state": AlertState.CLOSED.value,
                        "closed_ms": max(gap.opened_ms, reading.t_ms),
                        "close_reason": CloseReason.RESUMED.value,
                    }
                )
                said += self._voice.say(closed, silent, AlertEventKind.CLOSED)
        return said
