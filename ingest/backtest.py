"""`microcurrent backtest`: what other profiles would have said of the messages on record.

Every message is decoded once and judged twice, under the profiles in force and under those tried, one
session at a time. The journal is only read; see ingest/journal/reader.py.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from ingest.admit import REFUSED, partial_readings, readings
from ingest.chronicle import attachment_at
from ingest.decode import decode
from ingest.device import Device
from ingest.errors import InvalidMessage, Mistake
from ingest.glean import glean
from ingest.journal.reader import Reader, Span
from ingest.safety.cluster import Danger, Group, find_clusters, groups_of
from ingest.safety.difference import Difference, Kind, compare
from ingest.safety.figures import record_of
from ingest.safety.history import Boot, Past
from ingest.safety.replay import End, dangers, judge_end, judge_history, judge_whole
from ingest.safety.track import Reading, Track
from schemas.alerts import Alert
from schemas.profile import UNKNOWN, Profile, Profiles
from schemas.sessions import SessionRecord
from schemas.topics import Stream

_ORDER = attrgetter("t_ms", "boot_id", "seq", "stream")
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_AGE_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

Progress = Callable[[float], None]
"""Told the part of the work that is done, from 0 to 1."""


def moment_ms(said: str, now_ms: int, option: str) -> int:
    """A time as people give it: a date or time of ISO 8601 (UTC without an offset), or an age such as 2h or 7d."""
    age = _AGE.fullmatch(said)
    if age:
        return now_ms - int(float(age[1]) * _AGE_MS[age[2]])
    try:
        at = datetime.fromisoformat(said)
    except ValueError as error:
        raise Mistake(f"{option} {said!r}: no time; write 2026-05-01, 2026-05-01T08:30, or an age such as 90m, 2h or 7d") from error
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


@dataclass(frozen=True)
class Choice:
    """Which sessions are judged: those of these devices (None: all) that overlap the time, whole."""

    since_ms: int | None = None
    until_ms: int | None = None
    devices: tuple[str, ...] | None = None

    def holds(self, span: Span) -> bool:
        began_in_time = self.until_ms is None or span.first_ms < self.until_ms
        return began_in_time and (self.since_ms is None or span.last_ms >= self.since_ms)


def choice_of(since: str | None, until: str | None, devices: str | None, now_ms: int) -> Choice:
    """The choice as a person gives it."""
    since_ms = None if since is None else moment_ms(since, now_ms, "--since")
    until_ms = None if until is None else moment_ms(until, now_ms, "--until")
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise Mistake(f"--since {since} does not lie before --until {until}; no session can overlap that time")
    names = None if devices is None else tuple(name for part in devices.split(",") if (name := part.strip()))
    if names == ():
        raise Mistake(f"--devices {devices!r}: names no device; write their ids with commas between them")
    return Choice(since_ms, until_ms, names)


@dataclass
class Result:
    """The differences of two judgements: `counts` by (rule, model, firmware), and the gravest one by one."""

    most: int
    devices: int = 0
    sessions: int = 0
    messages: int = 0
    samples: int = 0
    unreadable: int = 0
    counts: dict[tuple[str, str, str], Counter[Kind]] = field(default_factory=lambda: defaultdict(Counter))
    fields: Counter[str] = field(default_factory=Counter)
    in_name_alone: int = 0
    gravest: list[Difference] = field(default_factory=list)

    def add(self, differences: Iterable[Difference]) -> None:
        for each in differences:
            about = each.before or each.after
            self.counts[about.rule, about.model or "?", about.fw or "?"][each.kind] += 1
            if each.kind is not Kind.SAME:
                self.fields.update(each.fields)
                self.in_name_alone += each.in_name_alone
                self.gravest.append(each)
        if len(self.gravest) > 20 * self.most:
            self.trim()

    def trim(self) -> None:
        """The list stays short, however much differs."""
        self.gravest = sorted(self.gravest, key=lambda each: each.gravity)[: self.most]

    @property
    def differs(self) -> bool:
        return any(number for of in self.counts.values() for kind, number in of.items() if kind is not Kind.SAME)

    def to_json(self) -> dict[str, Any]:
        return {
            "judged": {name: getattr(self, name) for name in ("devices", "sessions", "messages", "samples", "unreadable")},
            "totals": _counted(sum(self.counts.values(), Counter())),
            "changed_in_name_alone": self.in_name_alone,
            "changed_fields": dict(sorted(self.fields.items())),
            "groups": [
                {"rule": rule, "model": model, "fw": fw, **_counted(of)} for (rule, model, fw), of in sorted(self.counts.items())
            ],
            "alerts": [
                {
                    "difference": each.kind.value,
                    "fields": list(each.fields),
                    "before": each.before and each.before.model_dump(mode="json"),
                    "after": each.after and each.after.model_dump(mode="json"),
                }
                for each in self.gravest
            ],
        }


def _counted(kinds: Counter[Kind]) -> dict[str, int]:
    """`before` are the alerts under the profiles in force, `after` those under the profiles tried."""
    both = kinds[Kind.SAME] + kinds[Kind.CHANGED]
    numbers = {"before": both + kinds[Kind.REMOVED], "after": both + kinds[Kind.ADDED]}
    return numbers | {kind.value: kinds[kind] for kind in (Kind.ADDED, Kind.REMOVED, Kind.CHANGED)}


@dataclass
class _Judgement:
    """What is found under one set of profiles: of the device at hand, and for the rule on the fleet."""

    profiles: Profiles
    alerts: list[Alert] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    dangers: list[Danger] = field(default_factory=list)
    exposure: dict[Group, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    of_fleet: list[tuple[int, float]] = field(default_factory=list)

    def keep(self, record: SessionRecord, first_boot: int) -> None:
        profile = self.profiles.find(record.model, record.hw, record.fw)
        self.past.append(Past(record, first_boot, profile.limits if profile else UNKNOWN))

    def clusters(self, observed_until_ms: int) -> list[Alert]:
        return find_clusters(self.dangers, lambda: (self.exposure, self.of_fleet), observed_until_ms)


class Backtest:
    """One replay of a journal under two sets of profiles."""

    def __init__(self, reader: Reader, in_force: Profiles, tried: Profiles, choice: Choice, most: int) -> None:
        self._reader = reader
        self._before, self._after = _Judgement(in_force), _Judgement(tried)
        self._choice = choice
        self._same = _Sameness()
        self.result = Result(most)

    def run(self, progress: Progress = lambda part: None) -> Result:
        reader, result = self._reader, self.result
        if not reader.observed_until_ms:
            raise Mistake(f"{reader.path}: holds no messages yet; there is nothing to judge")
        devices = self._devices()
        lots = reader.lots()
        for at, device_id in enumerate(devices):
            self._judge_device(device_id, lots.get(device_id), lambda part, at=at: progress((at + part) / len(devices)))
        until_ms = reader.observed_until_ms
        result.add(compare(self._before.clusters(until_ms), self._after.clusters(until_ms)))
        result.trim()
        return result

    def _devices(self) -> list[str]:
        known = self._reader.devices()
        for device_id in self._choice.devices or ():
            if device_id not in known:
                raise Mistake(f"--devices {device_id}: nothing is on record of it; see the devices on the worker's page")
        return known if self._choice.devices is None else sorted(set(self._choice.devices))

    def _judge_device(self, device_id: str, lot: str | None, progress: Progress) -> None:
        spans = self._reader.spans(device_id)
        chosen = [span for span in spans if self._choice.holds(span)]
        if not chosen:
            return
        device, sides = self._reader.device(device_id), (self._before, self._after)
        attachments = self._reader.attachments(device_id)
        total, done = sum(span.messages for span in chosen), 0
        for span in chosen:
            self._judge_session(device, span, spans, attachments)
            done += span.messages
            progress(done / total)
        judged = {span.session for span in chosen}
        boots = [Boot(*boot) for boot in self._reader.boots(device_id)]
        others = [each for each in self._reader.sessions(device_id, 0, 2**62) if each[0].session_id not in judged]
        for side in sides:
            for record, first_boot in others:
                attached = record.model_copy(update={"attachment_id": attachment_at(attachments, record.started_ms)})
                side.keep(attached, first_boot)
            side.alerts += judge_history(side.past, boots, judged)
            side.dangers += dangers(side.alerts, lot)
            for past in side.past:
                if past.record.session_id in judged:
                    self._expose(side, past, lot)
        self.result.devices += 1
        self.result.add(compare(self._before.alerts, self._after.alerts))
        for side in sides:
            side.alerts, side.past = [], []

    def _expose(self, side: _Judgement, past: Past, lot: str | None) -> None:
        record = past.record
        exposed = (record.started_ms, record.output_s)
        side.of_fleet.append(exposed)
        for group in groups_of(record.model, record.fw, lot):
            side.exposure[group].append(exposed)

    def _judge_session(self, device: Device, span: Span, spans: list[Span], attachments: list[tuple[int, str]]) -> None:
        found = list(self._messages(device, span.session))
        judged = [reading for of_message, _ in found for reading in of_message]
        if not judged:
            return
        judged.sort(key=_ORDER)
        self.result.sessions += 1
        self.result.messages += len(found)
        self.result.samples += len(judged)
        track, alerts = judge_whole(device.device_id, span.session, judged)
        end = self._end(device, track, spans)
        alerts += judge_end(track, end)
        self._take(self._before, track, alerts, end.lost, attachments)
        if not all(self._same(of_message[0].profile, other) for of_message, other in found):
            for of_message, other in found:
                for reading in of_message:
                    reading.profile = other
            track, alerts = judge_whole(device.device_id, span.session, judged)
            alerts += judge_end(track, end)
        self._take(self._after, track, alerts, end.lost, attachments)

    def _messages(self, device: Device, session: str) -> Iterator[tuple[list[Reading], Profile | None]]:
        """The readings of each message under the profiles in force, and the profile that is tried on them."""
        before, after = self._before.profiles, self._after.profiles
        for received_ms, topic, payload, lane, event_ms in self._reader.messages(device.device_id, session):
            if lane == REFUSED:
                gleaned = glean(payload)
                found = partial_readings(gleaned, device, received_ms, before)
                if found:
                    yield found, partial_readings(gleaned, device, received_ms, after)[0].profile
                continue
            try:
                decoded = decode(topic.decode(), payload)
            except InvalidMessage:
                self.result.unreadable += 1  # the contract has become stricter since
                continue
            if decoded.stream is not Stream.STATUS:
                message = decoded.message
                yield readings(decoded, event_ms, received_ms, before), after.find(message.model, message.hw, message.fw)

    def _end(self, device: Device, track: Track, spans: list[Span]) -> End:
        lost = sum(
            device.boots[boot_id].held.missing_within(*numbers) for boot_id, numbers in track.figures.seqs.items() if boot_id in device.boots
        )
        heard = []
        for span in spans:
            if span.session == track.session or track.last_ms is None or span.last_ms <= track.last_ms:
                continue
            if span.first_ms > track.last_ms:
                heard.append(span.first_ms)
            else:
                heard.append(self._reader.first_after(track.device_id, span.session, track.last_ms))
        return End(self._reader.observed_until_ms, min((t_ms for t_ms in heard if t_ms is not None), default=None), lost)

    def _take(self, side: _Judgement, track: Track, alerts: list[Alert], lost: int, attachments: list[tuple[int, str]]) -> None:
        side.alerts += alerts
        if track.session_id is None or not track.figures.seqs:
            return
        profile = side.profiles.find(track.model, track.hw, track.fw)
        record = record_of(track, profile, lost, attachment_at(attachments, track.figures.started_ms))
        side.keep(record, next(iter(track.figures.seqs)))


class _Sameness:
    """Whether two profiles judge alike and are called the same; looked up, for each message asks."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}

    def __call__(self, one: Profile | None, other: Profile | None) -> bool:
        key = (id(one), id(other))
        if key not in self._known:
            self._known[key] = one is other or (one is not None and other is not None and _judged(one) == _judged(other))
        return self._known[key]


def _judged(profile: Profile) -> tuple:
    return profile.id, profile.version, profile.limits
