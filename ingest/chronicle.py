"""The sessions of each device on record, and what they say taken together.

A session's record follows from its track. When one changes, the rules on a device's history are
applied to the sessions that it can concern; when critical alerts or exposures change, so is the
rule on the fleet. Both are functions of what is on record, whatever the order in which it came.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from ingest.points import in_place_of, pack, read_back, session_point
from ingest.safety.cluster import Danger, Exposure, Group, find_clusters, groups_of
from ingest.safety.figures import record_of
from ingest.safety.history import COUNTED_S, DAY_MS, WEEK_MS, Boot, Past, overuse, resets, spare_s, wear
from ingest.safety.judge import RETROSPECTIVE_MS
from ingest.safety.track import Track
from ingest.voice import AlertRecord, Said, Voice
from schemas.alerts import FLEET, Alert, AlertState
from schemas.profile import UNKNOWN, Profiles
from schemas.sessions import SessionRecord

HISTORY, CLUSTER, LOSSES = "~history", "~cluster", "~losses"
"""Under these sessions the alerts of a device's history, of the fleet, and on lost messages are on record."""

FLEET_EVERY_MS = 5_000
MANY, REST = 100, 50.0
"""A device with more sessions and boots than these to look back at is looked at again after so many times as long as that took:
one that begins a session with every message would else have the line do nothing but look back."""

LIFE_RULES = frozenset({"electrode-wear", "device-fault"})


class SessionStore(AlertRecord, Protocol):
    """What is on record of sessions and devices."""

    def put_session(self, record: SessionRecord, first_boot: int) -> tuple[bool, bool]: ...
    def session(self, device_id: str, session: str) -> tuple[SessionRecord, bytes | None] | None: ...
    def put_session_point(self, device_id: str, session: str, point: bytes) -> None: ...
    def standing_of_session(self, device_id: str, session: str, *others: str) -> list[tuple[str, str]]: ...
    def sessions(self, device_id: str, from_ms: int, to_ms: int) -> list[tuple[SessionRecord, int]]: ...
    def judged_from(self, device_id: str) -> int: ...
    def boots(self, device_id: str) -> list[tuple[int, int, str]]: ...
    def attachments(self, device_id: str) -> list[tuple[int, str]]: ...
    def dangers(self) -> list[tuple[int, str, str, str, str, str]]: ...
    def lots(self) -> dict[str, str]: ...
    def exposure(self) -> list[tuple[str, str, str, int, float]]: ...
    def history_owed(self) -> dict[str, list]: ...
    def owe_history(self, owed: dict[str, list]) -> None: ...


class Chronicle:
    def __init__(self, store: SessionStore, profiles: Profiles, voice: Voice) -> None:
        self._store = store
        self._profiles = profiles
        self._voice = voice
        self._fleet_dirty = True
        self._fleet_ms: int | None = None
        self._over: set[tuple[str, str]] = set()
        self._spoken_of: set[tuple[str, str]] = set()
        self.steady_s: Callable[[], float] = lambda: 0.0
        """By it is seen how long a look takes; where nobody gives a clock, none takes long."""

        self._rests_until_s: dict[str, float] = {}
        self._put_off = store.history_owed()
        """Device → what of its history is to be judged when it has rested: [from_ms, last_ms, received_ms, whether all of its life]."""

    def note(self, track: Track, lost_messages: int, final: bool, received_ms: int) -> tuple[list[Said], float]:
        """Take a session's figures on record as they are now; judge what follows from them.

        Also says how much more output (s) the device may have before it is used too much.
        """
        profile = self._profiles.find(track.model, track.hw, track.fw)
        attachments = self._store.attachments(track.device_id)
        record = record_of(track, profile, lost_messages, attachment_at(attachments, track.figures.started_ms))
        changed, told = self._store.put_session(record, next(iter(track.figures.seqs)))
        if record.ended or final or (changed and told):
            self._over.add((record.device_id, record.session_id))
            self._fleet_dirty |= changed
        over = record.ended or final
        if self._rests(record.device_id):
            self._put_off_for(record.device_id, record.started_ms, record.last_ms, received_ms, over)
            return [], COUNTED_S
        said, spare_s = self._judge_use(record, received_ms)
        if over:
            said += self.judge_life(track.device_id, received_ms)
        return said, spare_s

    def heed(self, alert: Alert) -> None:
        """Something was said of an alert: its session may have to be told anew."""
        if alert.session_id is not None:
            self._spoken_of.add((alert.device_id, alert.session_id))

    def take_points(self) -> list[tuple[SessionRecord, bytes]]:
        """The sessions that are over and of which the store must be told something else than before."""
        found = []
        for key in sorted(self._over | self._spoken_of):
            kept = self._store.session(*key)
            if kept is None or not (key in self._over or kept[1] is not None or kept[0].ended):
                continue  # it is under way; at its end all is told
            record, before = kept
            point = session_point(
                record,
                self._profiles.find(record.model, record.hw, record.fw),
                self._store.standing_of_session(*key, HISTORY, LOSSES),
            )
            packed = pack(in_place_of(read_back(before), point) if before else point)
            if packed != before:
                self._store.put_session_point(*key, packed)
                found.append((record, packed))
        self._over.clear()
        self._spoken_of.clear()
        return found

    def _judge_use(self, record: SessionRecord, received_ms: int) -> tuple[list[Said], float]:
        said, sessions = self._judge_span(record.device_id, record.started_ms, record.last_ms, received_ms)
        return said, spare_s(sessions, record)

    def _judge_span(self, device_id: str, from_ms: int, last_ms: int, received_ms: int) -> tuple[list[Said], list[Past]]:
        """How much the sessions are used that began within a span; also returns those that this was seen from."""
        began_s = self.steady_s()
        mine = [a for a in self._known(device_id) if a.rule == "daily-overuse"]
        # What is still open of an earlier session may be over now that this one has begun.
        from_ms = min([from_ms, *(a.onset_ms for a in mine if a.state == AlertState.OPEN)])
        sessions = self._past(device_id, from_ms - WEEK_MS - DAY_MS, last_ms + WEEK_MS + DAY_MS)
        until_ms = last_ms + WEEK_MS
        found = [a for a in overuse(sessions) if from_ms <= a.onset_ms <= until_ms]
        known = [a for a in mine if from_ms <= a.onset_ms <= until_ms]
        said = self._agree(found, known, received_ms)
        self._rest(device_id, len(sessions), began_s)
        return said, sessions

    def judge_life(self, device_id: str, received_ms: int) -> list[Said]:
        """What all sessions and boots of a device say."""
        began_s = self.steady_s()
        sessions = self._past(device_id, 0, 2**62)
        boots = [Boot(*boot) for boot in self._store.boots(device_id)]
        from_ms = self._store.judged_from(device_id)
        found = [a for a in (*wear(sessions), *resets(sessions, boots)) if a.onset_ms >= from_ms]
        known = [a for a in self._known(device_id) if a.rule in LIFE_RULES and a.onset_ms >= from_ms]
        said = self._agree(found, known, received_ms)
        self._rest(device_id, len(sessions) + len(boots), began_s)
        return said

    # -- a device with very much history ----------------------------------------------------------

    def life_changed(self, device_id: str, received_ms: int) -> list[Said]:
        """A device told something by which all of its life is judged: now, or when it has rested."""
        if not self._rests(device_id):
            return self.judge_life(device_id, received_ms)
        self._put_off_for(device_id, None, None, received_ms, True)
        return []

    def _rest(self, device_id: str, looked_at: int, began_s: float) -> None:
        if looked_at > MANY:
            now_s = self.steady_s()
            self._rests_until_s[device_id] = max(self._rests_until_s.get(device_id, 0.0), now_s + REST * (now_s - began_s))

    def _rests(self, device_id: str) -> bool:
        until_s = self._rests_until_s.get(device_id)
        if until_s is None or self.steady_s() < until_s:
            return until_s is not None
        del self._rests_until_s[device_id]
        return False

    def _put_off_for(self, device_id: str, from_ms: int | None, last_ms: int | None, received_ms: int, life: bool) -> None:
        before = self._put_off.get(device_id, [None, None, received_ms, False])
        starts, lasts = ([ms for ms in pair if ms is not None] for pair in ((before[0], from_ms), (before[1], last_ms)))
        now = [min(starts, default=None), max(lasts, default=None), max(before[2], received_ms), before[3] or life]
        if now != self._put_off.get(device_id):
            self._put_off[device_id] = now
            self._store.owe_history(self._put_off)

    def judge_put_off(self) -> list[Said]:
        """What was put off of devices that have rested."""
        said: list[Said] = []
        for device_id in [d for d in self._put_off if not self._rests(d)]:
            from_ms, last_ms, received_ms, life = self._put_off.pop(device_id)
            self._store.owe_history(self._put_off)
            if from_ms is not None:
                said += self._judge_span(device_id, from_ms, last_ms, received_ms)[0]
            if life:
                said += self.judge_life(device_id, received_ms)
        return said

    def judge_fleet(self, observed_ms: int) -> list[Said]:
        """Whether critical alerts cluster; at most every few seconds, and only after a change."""
        if not self._fleet_dirty or (self._fleet_ms is not None and observed_ms - self._fleet_ms < FLEET_EVERY_MS):
            return []
        self._fleet_dirty, self._fleet_ms = False, observed_ms
        lots = self._store.lots()
        dangers = [
            Danger(onset, alert_id, device, rule, model, fw, lots.get(device))
            for onset, alert_id, device, rule, model, fw in self._store.dangers()
        ]
        from_ms = self._store.judged_from(FLEET)
        known = [a for a in self._store.alerts_of_session(FLEET, CLUSTER) if a.onset_ms >= from_ms]
        if not dangers and not known:
            return []
        found = [a for a in find_clusters(dangers, lambda: self._exposure(lots), observed_ms) if a.onset_ms >= from_ms]
        return self._voice.agree(found, known, CLUSTER)

    def critical_changed(self) -> None:
        self._fleet_dirty = True

    def _known(self, device_id: str) -> list[Alert]:
        return self._store.alerts_of_session(device_id, HISTORY)

    def _agree(self, found: list[Alert], known: list[Alert], received_ms: int) -> list[Said]:
        for alert in found:
            alert.retrospective = received_ms - alert.opened_ms > RETROSPECTIVE_MS
        return self._voice.agree(found, known, HISTORY) if found or known else []

    def _past(self, device_id: str, from_ms: int, to_ms: int) -> list[Past]:
        attachments = self._store.attachments(device_id)
        found = []
        for record, first_boot in self._store.sessions(device_id, from_ms, to_ms):
            record.attachment_id = attachment_at(attachments, record.started_ms)
            profile = self._profiles.find(record.model, record.hw, record.fw)
            found.append(Past(record, first_boot, profile.limits if profile else UNKNOWN))
        return found

    def _exposure(self, lots: dict[str, str]) -> tuple[Exposure, list[tuple[int, float]]]:
        of_group: dict[Group, list[tuple[int, float]]] = defaultdict(list)
        fleet = []
        for device_id, model, fw, started_ms, output_s in self._store.exposure():
            fleet.append((started_ms, output_s))
            for group in groups_of(model, fw, lots.get(device_id)):
                of_group[group].append((started_ms, output_s))
        return of_group, fleet


def attachment_at(attachments: list[tuple[int, str]], t_ms: int) -> str | None:
    """The attachment in use at a time: the last told before it, else the first told after it."""
    if not attachments:
        return None
    at = bisect_right(attachments, t_ms, key=lambda told: told[0])
    return attachments[max(0, at - 1)][1]
