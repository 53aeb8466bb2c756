"""When attempts to get in, or to be somebody else, are told: one alert for each kind, that grows. Pure."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.safety.line import SECURITY_EVENT, line_alert
from ingest.voice import Said
from schemas.alerts import Alert, AlertEventKind, AlertState, CloseReason, Severity
from schemas.security import SECURITY_EXPLAINED, SecurityKind

WINDOW_S = 600.0
QUIET_S = 900.0
SAY_AGAIN_S = 60.0
MOST_NAMED = 5
MOST_COUNTED = 200
"""Names and sources that an alert counts; those beyond are counted together."""

OTHERS = "others"


class Limit(NamedTuple):
    """So many within WINDOW_S are an alert of this severity."""

    severity: Severity
    events: int


LIMITS: Mapping[SecurityKind, Limit] = {
    SecurityKind.TAKEOVER: Limit(Severity.WARNING, 1),
    SecurityKind.IDENTITY_MISMATCH: Limit(Severity.WARNING, 1),
    SecurityKind.FORBIDDEN: Limit(Severity.WARNING, 1),
    SecurityKind.THROTTLED: Limit(Severity.WARNING, 1),
    SecurityKind.AUTH_FAILURE: Limit(Severity.WARNING, 10),
    SecurityKind.CLOCK_STEP: Limit(Severity.WARNING, 1),
    SecurityKind.CERTIFICATE: Limit(Severity.WARNING, 1),
}
"""Kinds that are not here are put on record and counted, and nobody is woken: a credential is made on purpose."""


class Attempt(NamedTuple):
    """`times` the same; `critical` ones are graver than the limit says, such as one that had the worker itself for its aim."""

    kind: SecurityKind
    who: str
    source: str
    detail: str
    times: int
    first_ms: int
    critical: bool = False


@dataclass(slots=True)
class _OfKind:
    recent: deque[tuple[float, int, int]] = field(default_factory=deque)
    """(when by a clock that is never set, how many, since when) within the window."""

    names: Counter[str] = field(default_factory=Counter)
    alert: Alert | None = None
    detail: str = ""
    last_s: float = 0.0
    said_s: float = 0.0
    news: bool = False


class Attacks:
    """What is said of security events. `now_s` is of a clock that is never set."""

    def __init__(self, device_id: str, standing: Iterable[Alert], now_s: float) -> None:
        self._device_id = device_id
        self._kinds = {kind: _OfKind(last_s=now_s) for kind in LIMITS}
        for alert in standing:
            kind = next((k for k in LIMITS if alert.detail.startswith(f"{k}:")), None)
            if kind is not None and self._kinds[kind].alert is None:
                self._kinds[kind].alert = alert

    @property
    def is_open(self) -> bool:
        return any(of_kind.alert is not None for of_kind in self._kinds.values())

    def hold(self, kind: SecurityKind, now_s: float) -> None:
        """What an alert of this kind is about still holds: it is not quiet."""
        self._kinds[kind].last_s = now_s

    def look(self, now_ms: int, now_s: float, attempts: Iterable[Attempt]) -> list[Said]:
        said: list[Said] = []
        for attempt in attempts:
            if attempt.kind in LIMITS:
                said += self._take(attempt, now_ms, now_s)
        for kind, of_kind in self._kinds.items():
            if of_kind.alert is None:
                continue
            if now_s - of_kind.last_s >= QUIET_S:
                said += self._close(kind, now_ms)
            elif of_kind.news and now_s - of_kind.said_s >= SAY_AGAIN_S:
                said += self._say(kind, AlertEventKind.UPDATED, now_ms, now_s)
        return said

    def _take(self, attempt: Attempt, now_ms: int, now_s: float) -> list[Said]:
        of_kind, limit = self._kinds[attempt.kind], LIMITS[attempt.kind]
        severity = Severity.CRITICAL if attempt.critical else limit.severity
        of_kind.recent.append((now_s, attempt.times, attempt.first_ms))
        while of_kind.recent[0][0] <= now_s - WINDOW_S:
            of_kind.recent.popleft()
        if of_kind.alert is None and len(of_kind.recent) == 1:
            of_kind.names.clear()  # what came before is too long ago to belong to it
        name = " from ".join(filter(None, (attempt.who, attempt.source))) or "somebody"
        of_kind.names[name if name in of_kind.names or len(of_kind.names) < MOST_COUNTED else OTHERS] += attempt.times
        of_kind.detail, of_kind.last_s = attempt.detail, now_s
        if of_kind.alert is None:
            events = sum(times for _, times, _ in of_kind.recent)
            if events < limit.events and not attempt.critical:
                return []
            onset_ms = min(first_ms for _, _, first_ms in of_kind.recent)
            of_kind.alert = line_alert(
                SECURITY_EVENT, self._device_id, attempt.kind.value, severity, min(onset_ms, now_ms), now_ms, limit=float(limit.events)
            )
            of_kind.alert.value = float(events)
            return self._say(attempt.kind, AlertEventKind.OPENED, now_ms, now_s)
        of_kind.alert.value += attempt.times
        of_kind.news = True
        if severity.rank <= Severity(of_kind.alert.severity).rank:
            return []
        of_kind.alert.severity, of_kind.alert.escalated_ms = severity.value, now_ms
        return self._say(attempt.kind, AlertEventKind.UPDATED, now_ms, now_s)

    def _close(self, kind: SecurityKind, now_ms: int) -> list[Said]:
        of_kind = self._kinds[kind]
        alert = of_kind.alert
        alert.state, alert.close_reason = AlertState.CLOSED.value, CloseReason.CLEARED.value
        alert.closed_ms = max(alert.opened_ms, now_ms)
        said = self._say(kind, AlertEventKind.CLOSED, now_ms, 0.0)
        of_kind.alert = None
        of_kind.names.clear()
        of_kind.recent.clear()
        return said

    def _say(self, kind: SecurityKind, event: AlertEventKind, now_ms: int, now_s: float) -> list[Said]:
        of_kind = self._kinds[kind]
        alert, of_kind.news, of_kind.said_s = of_kind.alert, False, now_s
        alert.updated_ms = max(alert.opened_ms, now_ms)
        if of_kind.names:
            alert.detail = self._words(kind, of_kind)
        return [Said(event, alert.model_copy(deep=True))]

    @staticmethod
    def _words(kind: SecurityKind, of_kind: _OfKind) -> str:
        named = [f"{name} ({times})" for name, times in of_kind.names.most_common(MOST_NAMED)]
        left = len(of_kind.names) - len(named)
        told = ", ".join(named) + (f" and {left} more" if left else "")
        return f"{kind}: {SECURITY_EXPLAINED[kind]}: {told}" + (f"; last: {of_kind.detail}" if of_kind.detail else "")
