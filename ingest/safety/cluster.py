"""The rule on the fleet: one danger on several devices that have something in common. Pure.

A group is the devices of one model with the same lot, or with the same firmware. A cluster begins
with the third device of a group on which the same critical rule fired within 7 days, or with the third
alert on two, if the group's rate is more than five times that of the rest of the fleet. It lasts
until 7 days without another alert. A worker knows only the devices that it serves.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ingest.safety.rule import Limb, Rule, Scope
from schemas.alerts import FLEET, Alert, AlertState, CloseReason, Severity, alert_id

WEEK_MS = 604_800_000
LEAST_DEVICES = LEAST_ALERTS = 3
RATE_FACTOR = 5.0
LEAST_REST_H = 20.0
"""With less output of the rest of the fleet, its rate says nothing."""

MOST_NAMED = 100

FLEET_CLUSTER = Rule(
    "fleet-cluster",
    "alerts",
    (
        Limb(
            Severity.CRITICAL, None,
            "the same critical rule within 7 days on 3 devices of one model's lot or firmware; or 3 alerts on two, at more than 5 times "
            "the rest of the fleet's rate per hour of output",
            scope=Scope.FLEET,
        ),
    ),
    unit="devices",
    source="engineering judgement; 21 CFR 803.53: awareness may come from trend analysis",
    says="one danger on several devices that have a lot or a firmware in common",
    clears_when="7 days without another",
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Danger:
    """One critical alert, with what its device may have in common with others."""

    onset_ms: int
    alert_id: str
    device_id: str
    rule: str
    model: str
    fw: str
    lot: str | None


@dataclass(frozen=True, slots=True)
class Group:
    kind: str
    model: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of {self.model}"


Exposure = Mapping[Group, Sequence[tuple[int, float]]]
"""For each group (start ms, output s) of its sessions."""

Exposures = Callable[[], tuple[Exposure, Sequence[tuple[int, float]]]]
"""Looks up the exposure of all groups, and of the whole fleet; only called where a rate matters."""


def groups_of(model: str, fw: str, lot: str | None) -> list[Group]:
    found = [Group("firmware", model, fw)]
    return [Group("lot", model, lot), *found] if lot else found


def find_clusters(dangers: Iterable[Danger], exposures: Exposures, now_ms: int) -> list[Alert]:
    """All clusters among the dangers; those of which nothing was added for 7 days by `now_ms` are over."""
    members: dict[tuple[str, Group], list[Danger]] = defaultdict(list)
    by_rule: dict[str, list[Danger]] = defaultdict(list)
    for danger in sorted(set(dangers)):
        by_rule[danger.rule].append(danger)
        for group in groups_of(danger.model, danger.fw, danger.lot):
            members[danger.rule, group].append(danger)
    found = []
    known = cache(exposures)
    for (rule, group), of_group in sorted(members.items(), key=lambda each: (each[0][0], str(each[0][1]))):
        if len(of_group) >= min(LEAST_DEVICES, LEAST_ALERTS):
            found += _episodes(rule, group, of_group, _Rate(group, of_group, by_rule[rule], known), now_ms)
    return found


@dataclass(frozen=True)
class _Rate:
    """Alerts per hour of output in the 7 days before a time: the group's, and the rest of the fleet's."""

    group: Group
    of_group: list[Danger]
    of_fleet: list[Danger]
    exposures: Exposures

    def is_high(self, at_ms: int) -> bool:
        from_ms = at_ms - WEEK_MS
        mine = sum(from_ms < d.onset_ms <= at_ms for d in self.of_group)
        if mine < LEAST_ALERTS:
            return False
        others = sum(from_ms < d.onset_ms <= at_ms for d in self.of_fleet) - mine
        by_group, fleet = self.exposures()
        mine_h = sum(s for t, s in by_group.get(self.group, ()) if from_ms < t <= at_ms) / 3600
        rest_h = sum(s for t, s in fleet if from_ms < t <= at_ms) / 3600 - mine_h
        return rest_h >= LEAST_REST_H and mine_h > 0 and mine / mine_h > RATE_FACTOR * others / rest_h


def _episodes(rule: str, group: Group, dangers: list[Danger], rate: _Rate, now_ms: int) -> list[Alert]:
    found: list[Alert] = []
    cluster: Alert | None = None
    recent: Counter[str] = Counter()
    oldest = 0
    for danger in dangers:
        recent[danger.device_id] += 1
        while dangers[oldest].onset_ms <= danger.onset_ms - WEEK_MS:
            gone = dangers[oldest].device_id
            recent[gone] -= 1
            if not recent[gone]:
                del recent[gone]
            oldest += 1
        if cluster is not None and danger.onset_ms - cluster.updated_ms > WEEK_MS:
            _close(cluster)
            cluster = None
        if cluster is None:
            several = len(recent) >= LEAST_DEVICES or (len(recent) > 1 and rate.is_high(danger.onset_ms))
            if not several:
                continue
            cluster = _new(rule, group, danger, sorted(recent))
            found.append(cluster)
        elif danger.device_id not in cluster.devices and len(cluster.devices) < MOST_NAMED:
            cluster.devices.append(danger.device_id)
        cluster.updated_ms = danger.onset_ms
        cluster.value = float(max(cluster.value, len(recent)))
    if cluster is not None and now_ms - cluster.updated_ms > WEEK_MS:
        _close(cluster)
    return found


def _close(cluster: Alert) -> None:
    cluster.state, cluster.closed_ms = AlertState.CLOSED.value, cluster.updated_ms + WEEK_MS
    cluster.close_reason = CloseReason.CLEARED.value


def _new(rule: str, group: Group, danger: Danger, devices: list[str]) -> Alert:
    return Alert(
        id=alert_id(FLEET_CLUSTER.id, FLEET, f"{rule}|{group}", danger.onset_ms),
        rule=FLEET_CLUSTER.id,
        rule_version=FLEET_CLUSTER.version,
        severity=Severity.CRITICAL,
        device_id=FLEET,
        session_id=None,
        model=group.model,
        hw=None,
        fw=group.name if group.kind == "firmware" else None,
        profile_id=None,
        profile_version=None,
        state=AlertState.OPEN,
        onset_ms=danger.onset_ms,
        opened_ms=danger.onset_ms,
        updated_ms=danger.onset_ms,
        value=float(len(devices)),
        limit=float(LEAST_DEVICES),
        unit=FLEET_CLUSTER.unit,
        source=FLEET_CLUSTER.source,
        detail=f"{rule} on devices of {group}",
        devices=devices[:MOST_NAMED],
    )
