"""What the worker tells the store of itself and its devices, every ten seconds.

Devices that nothing has happened to are not looked at: what is due by time alone (silence, the
hourly point) waits in a queue, and the fleet's counts follow from each change. A round over many
devices is spread over turns, so that no message waits for it.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable
from hashlib import blake2s
from pathlib import Path
from resource import getpagesize
from typing import NamedTuple
from zlib import crc32

import orjson

from ingest import observe
from ingest.device import Device
from ingest.intake import Intake
from ingest.journal import Journal
from ingest.points import NS_PER_MS, pack
from ingest.standing import NO_ALERTS, Standing, silent_from_ms, standing_of
from schemas.limits import Limits
from schemas.measurements import DEVICE, DRAWN_LIMITS, EVERY, FLEET, MOST_GROUPS, PIPELINE, QUARANTINE, SECURITY, STATES, Point
from schemas.messages import VERSION
from schemas.profile import UNKNOWN, Profiles

EVERY_MS = 10_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
DEVICES_A_TURN = 200
BATTERY_STEP_MV = 50.0
"""A battery that has changed by less is told within the hour."""

MOST_WAITING = 50_000
"""While more points of the line's own wait for the store, those on devices, fleet and worker are left out."""

_STATM = Path("/proc/self/statm")
_LEDGER = ("accepted", "inbox", "outbox", "pending", "stored", "duplicate", "quarantined")

Group = tuple[str, str]
"""Model and firmware."""


class Links(NamedTuple):
    """What the worker knows of its neighbours at a moment. A session that was lost since the start stays lost."""

    broker_connected: bool = False
    broker_session_lost: bool = False
    store_ok: bool = False


class Guarded(NamedTuple):
    """How the line is, as fields of `pipeline`; what is not known is None."""

    blind: int = 0
    blind_s: float = 0.0
    pressure: int = 0
    canary_s: float | None = None
    canary_age_s: float | None = None
    journal_mb: float | None = None
    free_mb: float | None = None
    certificate_s: float | None = None
    certificate_level: int = 0


class Figures(NamedTuple):
    """What changes often, and is told at most once a minute for its own sake."""

    missing: int
    quarantined: int
    battery_mv: float | None


class Told(NamedTuple):
    """What the store was last told of a device, and when."""

    at_ms: int
    standing: Standing
    figures: Figures


class Counted(NamedTuple):
    """What a device adds to the fleet's counts; `counts` in the order of FLEET's fields."""

    group: Group
    counts: tuple[int, ...]
    missing: int


class Reports:
    """One thread; `step` runs inside a step of the journal."""

    def __init__(self, journal: Journal, intake: Intake, profiles: Profiles, worker_id: str, now_ms: int) -> None:
        self.links: Callable[[], Links] = Links
        self.guarded: Callable[[], Guarded] = Guarded
        self._journal = journal
        self._intake = intake
        self._profiles = profiles
        self._name = worker_name(worker_id)
        self._started_ms = now_ms
        self._next_ms = 0
        self._told = {d: _told(at_ms, standing) for d, (at_ms, standing) in journal.told().items()}
        self._groups_told = journal.groups_told()
        self._round: list[Device] | None = None
        self._alerted: set[str] = set()
        self._open: dict[str, dict[str, int]] | None = None
        self._planned: dict[str, int] = {}
        self._due: list[tuple[int, str]] = []
        self._counted: dict[str, Counted] = {}
        self._groups: dict[Group, list[int]] = defaultdict(lambda: [0] * len(FLEET.fields))
        self._missing = self._devices_missing = 0
        self._last = (now_ms, journal.accepted)
        self._held_back = False
        intake.changed.update(intake.devices.values())

    def alerts_changed(self, device_id: str) -> None:
        self._alerted.add(device_id)

    @property
    def is_under_way(self) -> bool:
        return self._round is not None

    def is_due(self, now_ms: int) -> bool:
        """A clock that was set back must not silence the worker."""
        return self.is_under_way or not self._next_ms - EVERY_MS <= now_ms < self._next_ms

    def step(self, now_ms: int, observed_until_ms: int | None) -> bool:
        """A part of the round that is due; whether it was the last."""
        if self._round is None:
            self._next_ms = now_ms + EVERY_MS
            self._started_ms = min(self._started_ms, now_ms)
            if self._is_too_much():
                self._tell_refused(now_ms)
                return True
            self._begin(now_ms)
        self._look_at_devices(now_ms)
        if self._round:
            return False
        self._round = None
        self._tell_fleet(now_ms)
        self._tell_worker(now_ms, observed_until_ms)
        self._tell_refused(now_ms)
        return True

    def _is_too_much(self) -> bool:
        held_back = self._journal.points > MOST_WAITING
        if held_back != self._held_back:
            self._held_back = held_back
            observe.log().warning("reports_held_back" if held_back else "reports_resumed", waiting=self._journal.points)
        return held_back

    # -- devices --------------------------------------------------------------------------------

    def _begin(self, now_ms: int) -> None:
        """Who must be looked at: whoever spoke, whose alerts changed, whose time has come."""
        devices, changed = self._intake.devices, self._intake.changed
        if self._alerted or self._open is None:
            self._open = self._journal.alerts_open()
        changed.update(devices[d] for d in self._alerted if d in devices)
        self._alerted.clear()
        if now_ms < self._last[0]:  # the clock was set back: nothing that was planned holds
            self._planned.clear()
            self._due.clear()
            changed.update(devices.values())
        while self._due and self._due[0][0] <= now_ms:
            due_ms, device_id = heapq.heappop(self._due)
            if self._planned.get(device_id) == due_ms:
                del self._planned[device_id]
                changed.add(devices[device_id])
        self._round = [device for device in changed if device.model is not None]
        changed.clear()

    def _look_at_devices(self, now_ms: int) -> None:
        some, self._round = self._round[:DEVICES_A_TURN], self._round[DEVICES_A_TURN:]
        rows = []
        for device in some:
            told = self._look_at(device, now_ms)
            if told is not None:
                profile = self._profiles.find(device.model, device.hw, device.fw)
                point = device_point(device, told, profile.limits if profile else UNKNOWN)
                self._journal.enqueue_point(device.device_id, now_ms, pack(point))
                rows.append((device.device_id, now_ms, orjson.dumps([*told.standing, *told.figures])))
        self._journal.put_told(rows)

    def _look_at(self, device: Device, now_ms: int) -> Told | None:
        """What is to be told of a device now, if anything."""
        device_id = device.device_id
        profile = self._profiles.find(device.model, device.hw, device.fw)
        standing = standing_of(device, self._open.get(device_id, NO_ALERTS), profile, now_ms)
        figures = Figures(device.missing, device.quarantined, device.live.get("battery_mv"))
        self._count(device_id, Counted((device.model, device.fw), counts_of(standing), figures.missing))
        before = self._told.get(device_id)
        if is_news(before, standing, figures, now_ms) or now_ms >= self._hourly_ms(device_id, before.at_ms):
            before = told = self._told[device_id] = Told(now_ms, standing, figures)
        else:
            told = None
        self._plan(device, before, figures, now_ms)
        return told

    def _hourly_ms(self, device_id: str, told_ms: int) -> int:
        """When a device is told of again though nothing changes: each at its own minute of the hour.

        What fell due while no worker ran is not told all at once.
        """
        after_ms = max(told_ms, self._started_ms)
        return after_ms + HOUR_MS - (after_ms - crc32(device_id.encode()) % HOUR_MS) % HOUR_MS

    def _plan(self, device: Device, told: Told, figures: Figures, now_ms: int) -> None:
        """When to look at a device again though it says nothing."""
        due_ms = self._hourly_ms(device.device_id, told.at_ms)
        silent_ms = silent_from_ms(device)
        if silent_ms is not None and now_ms < silent_ms:
            due_ms = min(due_ms, silent_ms)
        if _differ(figures, told.figures):
            due_ms = min(due_ms, told.at_ms + MINUTE_MS)
        planned_ms = self._planned.get(device.device_id)
        if planned_ms is None or due_ms < planned_ms:
            self._planned[device.device_id] = due_ms
            heapq.heappush(self._due, (due_ms, device.device_id))

    # -- the fleet ------------------------------------------------------------------------------

    def _count(self, device_id: str, now: Counted) -> None:
        before = self._counted.get(device_id)
        if before == now:
            return
        self._counted[device_id] = now
        if before is not None:
            self._add(before, -1)
        self._add(now, 1)

    def _add(self, counted: Counted, sign: int) -> None:
        group = self._groups[counted.group]
        group[:] = [n + sign * m for n, m in zip(group, counted.counts, strict=True)]
        if not group[0]:
            del self._groups[counted.group]
        self._missing += sign * counted.missing
        self._devices_missing += sign * (counted.missing > 0)

    def _tell_fleet(self, now_ms: int) -> None:
        groups = within_most(self._groups)
        for model, fw in self._groups_told:
            if (model, fw) not in groups:
                self._tell(FLEET.name, (model, fw), dict.fromkeys(FLEET.fields, 0), now_ms)
        for group, counts in groups.items():
            self._tell(FLEET.name, group, dict(zip(FLEET.fields, counts, strict=True)), now_ms)
        if sorted(groups) != self._groups_told:
            self._groups_told = sorted(groups)
            self._journal.put_groups_told(self._groups_told)

    # -- the worker -----------------------------------------------------------------------------

    def _tell_worker(self, now_ms: int, observed_until_ms: int | None) -> None:
        ledger, opened = self._journal.ledger(), self._open.values()
        oldest_ms = self._journal.oldest_outbox_ms()
        (last_ms, last_accepted), self._last = self._last, (now_ms, ledger.accepted)
        fields = {name: getattr(ledger, name) for name in _LEDGER}
        fields |= {f"open_{severity}": sum(c[severity] for c in opened) for severity in NO_ALERTS}
        fields |= {
            "unacknowledged": sum(c["unacknowledged"] for c in opened),
            "notices_waiting": self._journal.notices_waiting(),
            "missing": self._missing,
            "devices_missing": self._devices_missing,
            **{name: int(value) for name, value in self.links()._asdict().items()},
            "rate_per_s": 1000 * (ledger.accepted - last_accepted) / (now_ms - last_ms) if now_ms > last_ms else 0.0,
            "outbox_age_s": max(0.0, (now_ms - oldest_ms) / 1000) if oldest_ms is not None else 0.0,
            **self._intake.delays.take(),
            **{name: value for name, value in self.guarded()._asdict().items() if value is not None},
        }
        if observed_until_ms is not None:
            fields["unseen_s"] = max(0.0, (now_ms - observed_until_ms) / 1000)
        rss_mb = _rss_mb()
        if rss_mb is not None:
            fields["rss_mb"] = rss_mb
        self._tell(PIPELINE.name, (EVERY, EVERY), fields, now_ms)

    def _tell_refused(self, now_ms: int) -> None:
        for kind, events in self._journal.take_security_waiting().items():
            self._tell(SECURITY.name, (EVERY, EVERY, kind), {"events": events}, now_ms)
        for reason, messages in self._journal.refused.items():
            self._tell(QUARANTINE.name, (EVERY, EVERY, reason), {"messages": messages}, now_ms)
        self._journal.refused = {}

    def _tell(self, measurement: str, tags: tuple[str, ...], fields: dict, now_ms: int) -> None:
        point = Point(measurement, (self._name, *tags), fields, now_ms * NS_PER_MS)
        self._journal.enqueue_point(self._name, now_ms, pack(point))


def worker_name(worker_id: str) -> str:
    """The worker in the store: its id at the broker is a secret."""
    return f"~worker-{blake2s(worker_id.encode(), digest_size=4).hexdigest()}"


def is_news(before: Told | None, standing: Standing, figures: Figures, now_ms: int) -> bool:
    """Whether the store must be told of a device now. A clock that was set back begins anew."""
    if before is None or before.standing != standing or before.at_ms > now_ms:
        return True
    return now_ms - before.at_ms >= MINUTE_MS and _differ(figures, before.figures)


def _differ(one: Figures, other: Figures) -> bool:
    if one[:2] != other[:2] or (one.battery_mv is None) != (other.battery_mv is None):
        return True
    return one.battery_mv is not None and abs(one.battery_mv - other.battery_mv) >= BATTERY_STEP_MV


def counts_of(standing: Standing) -> tuple[int, ...]:
    """What a device adds to each of FLEET's fields."""
    state, contract = standing.state, standing.contract
    return (
        1, standing.online, standing.running, int(state == "silent"), int(state == "unknown"), int(state == "warning"),
        int(state == "critical"), int(contract is not None and contract < VERSION),
    )  # fmt: skip


def within_most(groups: dict[Group, list[int]]) -> dict[Group, list[int]]:
    """The groups that are told: beyond MOST_GROUPS, the smallest ones are one, so that the sum stays right."""
    if len(groups) <= MOST_GROUPS:
        return dict(groups)
    by_size = sorted(groups, key=lambda group: (-groups[group][0], group))
    rest = [sum(counts) for counts in zip(*(groups[g] for g in by_size[MOST_GROUPS - 1 :]), strict=True)]
    return {g: groups[g] for g in by_size[: MOST_GROUPS - 1]} | {(EVERY, EVERY): rest}


def device_point(device: Device, told: Told, limits: Limits) -> Point:
    known = told.standing._asdict() | told.figures._asdict()
    known |= {name: limit if math.isfinite(limit := getattr(limits, name)) else None for name in DRAWN_LIMITS}
    known["rank"] = STATES.index(told.standing.state)
    known["last_seen_ms"] = device.last_seen_ms or None
    known["last_event_ms"] = device.last_event_ms or None
    fields = {name: known[name] for name in DEVICE.fields if known[name] is not None}
    return Point(DEVICE.name, (device.device_id, device.model, device.fw), fields, told.at_ms * NS_PER_MS)


def _told(at_ms: int, kept: bytes) -> Told:
    said = orjson.loads(kept)
    return Told(at_ms, Standing(*said[: len(Standing._fields)]), Figures(*said[len(Standing._fields) :]))


def _rss_mb() -> float | None:
    """Memory that is in use, where the system tells it."""
    try:
        return int(_STATM.read_text().split()[1]) * getpagesize() / 1e6
    except OSError:
        return None
