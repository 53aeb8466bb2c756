"""What differs between two judgements of the same readings. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from schemas.alerts import FLEET, Alert, Severity

TOLERANCE_MS = 1_000
"""Times that differ by less are the same: it is one sample at 1 Hz."""

TIMES = ("onset_ms", "opened_ms", "closed_ms")
VALUES = ("severity", "value", "limit", "unit", "profile_id", "profile_version")
NAMES = frozenset({"profile_id", "profile_version"})


class Kind(StrEnum):
    SAME = "same"
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One danger as each judgement has it; None where it has none. `fields` are those that differ."""

    kind: Kind
    before: Alert | None
    after: Alert | None
    fields: tuple[str, ...] = ()

    @property
    def alert(self) -> Alert:
        """The later judgement's view, or the only one."""
        return self.after or self.before  # type: ignore[return-value]

    @property
    def in_name_alone(self) -> bool:
        """Only the profile is called otherwise."""
        return bool(self.fields) and set(self.fields) <= NAMES

    @property
    def gravity(self) -> tuple:
        """Sorts the gravest first, then by time; what differs in name alone comes last."""
        worst = max(Severity(each.severity).rank for each in (self.before, self.after) if each)
        return (self.in_name_alone, -worst, self.alert.onset_ms, self.alert.rule, self.alert.device_id, self.alert.id, self.kind)


def compare(before: Iterable[Alert], after: Iterable[Alert]) -> list[Difference]:
    """Pair each alert of one judgement with the one of the other that is about the same danger.

    That is the one of the same id; else, of one rule, device and session, the first not yet paired
    whose time overlaps. So an onset that moves, which makes another id, is a change.
    """
    ours, theirs = _by_subject(before), _by_subject(after)
    return [difference for subject in {**ours, **theirs} for difference in _pair(ours.get(subject, []), theirs.get(subject, []))]


def _by_subject(alerts: Iterable[Alert]) -> dict[tuple, list[Alert]]:
    found: dict[tuple, list[Alert]] = defaultdict(list)
    for alert in alerts:
        about = (alert.detail, alert.model, alert.fw) if alert.device_id == FLEET else alert.session_id
        found[alert.rule, alert.device_id, about].append(alert)
    return {subject: sorted(of, key=lambda alert: (alert.onset_ms, alert.id)) for subject, of in found.items()}


def _pair(before: list[Alert], after: list[Alert]) -> list[Difference]:
    by_id = {alert.id: alert for alert in after}
    pairs = [(alert, by_id.pop(alert.id)) for alert in before if alert.id in by_id]
    known = {alert.id for alert, _ in pairs}
    waiting = list(by_id.values())
    found = []
    for alert in before:
        if alert.id in known:
            continue
        other = next((each for each in waiting if _overlap(alert, each)), None)
        if other is None:
            found.append(Difference(Kind.REMOVED, alert, None))
        else:
            waiting.remove(other)
            pairs.append((alert, other))
    found += [Difference(Kind.ADDED, None, alert) for alert in waiting]
    for alert, other in pairs:
        fields = differing(alert, other)
        found.append(Difference(Kind.CHANGED if fields else Kind.SAME, alert, other, fields))
    return found


def _overlap(one: Alert, other: Alert) -> bool:
    return one.onset_ms <= _end_ms(other) and other.onset_ms <= _end_ms(one)


def _end_ms(alert: Alert) -> float:
    return inf if alert.closed_ms is None else max(alert.closed_ms, alert.opened_ms)


def differing(before: Alert, after: Alert) -> tuple[str, ...]:
    """The fields in which two alerts on one danger differ: in times by more than TOLERANCE_MS."""
    return tuple(name for name in TIMES if _moved(getattr(before, name), getattr(after, name))) + tuple(
        name for name in VALUES if getattr(before, name) != getattr(after, name)
    )


def _moved(before: int | None, after: int | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > TOLERANCE_MS
