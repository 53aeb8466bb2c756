"""The rules on the line itself: what it cannot see, what it can no longer hold, who tries to get in. Pure.

One outage is one alert. What is missing are causes of it: they join the alert and leave it, and it ends when
everything could be seen again for a while. Ages are counted by a clock that is never set, onsets by the one on
the wall; both come in as values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ingest.safety.rule import Limb, Rule, Scope
from ingest.voice import Said
from schemas.alerts import Alert, AlertEventKind, AlertState, CloseReason, Severity, alert_id
from schemas.limits import CRITICAL_DAYS, WARN_DAYS

SESSION = "~line"
"""Under this session the alerts of the line are on record."""

HOLD_S = 45.0
"""How long something may stay unseen, unless a setting says otherwise: a restart of broker or worker takes less."""

SAY_AGAIN_S = 10.0
"""Changes of an alert that stands are said at most so often."""

MOST_SPANS = 12
"""Times of causes that an alert tells; of older ones it tells how many there were."""


class Cause(StrEnum):
    """Why something cannot be seen, in the order in which they are told."""

    WORKER_AWAY = "worker-away"
    BROKER_AWAY = "broker-away"
    SUBSCRIPTION_REFUSED = "subscription-refused"
    SESSION_LOST = "session-lost"
    PULSES_LOST = "pulses-lost"
    JUDGING_BEHIND = "judging-behind"
    CANARY_LOST = "canary-lost"
    STORE_AWAY = "store-away"
    STORE_BEHIND = "store-behind"
    FLEET_SILENT = "fleet-silent"


MEANS: Mapping[Cause, str] = {
    Cause.WORKER_AWAY: "no worker watched; what devices sent is judged late",
    Cause.BROKER_AWAY: "not connected to the broker; what devices say is not heard",
    Cause.SUBSCRIPTION_REFUSED: "the broker refused the subscription; what devices say is not heard",
    Cause.SESSION_LOST: "the broker lost the worker's session; messages of this time may be missing",
    Cause.PULSES_LOST: "own messages do not come back through the broker; silence means nothing",
    Cause.JUDGING_BEHIND: "messages wait to be judged; dangers in them are not known",
    Cause.CANARY_LOST: "the canary did not come through; what devices say may go the same way",
    Cause.STORE_AWAY: "the store takes no data; dashboards show the past",
    Cause.STORE_BEHIND: "readings wait for the store; dashboards show the past",
    Cause.FLEET_SILENT: "no device is heard, though several should be",
}

PIPELINE_BLIND = Rule(
    "pipeline-blind",
    "line",
    (
        Limb(
            Severity.CRITICAL, None,
            "for the hold: no connection to the broker, or the subscription refused; own pulses do not come back, or are not judged; "
            "the canary does not come through; the store takes no writes; no worker ran; the fleet fell silent. For five minutes: readings "
            "wait for the store. At once: the broker lost the session",
            hold_ms=int(HOLD_S * 1000), scope=Scope.LINE,
        ),
    ),
    unit="s",
    source="engineering judgement: a silence is no good news; the hold is MICROCURRENT_BLIND_AFTER_S",
    says="something cannot be seen, and silence must not look well",
    clears_when="all could be seen again for the hold",
)  # fmt: skip

STORAGE_PRESSURE = Rule(
    "storage-pressure",
    "line",
    (
        Limb(Severity.WARNING, None, "the journal or its disk is so full that somebody must make room", scope=Scope.LINE),
        Limb(Severity.CRITICAL, None, "so full that nothing more is accepted; brokers and devices keep what they have", scope=Scope.LINE),
    ),
    unit="level",
    source="engineering judgement: nothing is thrown away, so accepting stops; 1 is high, 2 is stopped",
    says="the line is close to what it can hold",
    clears_when="there is room again",
)

SECURITY_EVENT = Rule(
    "security-event",
    "line",
    (
        Limb(Severity.CRITICAL, None, f"another client took the place of the worker; a certificate ends within {CRITICAL_DAYS} days or is not valid", scope=Scope.LINE),
        Limb(
            Severity.WARNING, None,
            "another client took the place of a device; a message names another device than its sender; somebody known tried what they "
            "may not do; tries are throttled; the machine's clock was set by more than 1 s; 10 failed proofs of identity in 10 min; a "
            f"certificate ends within {WARN_DAYS} days (MICROCURRENT_CERTIFICATE_WARN_DAYS)",
            scope=Scope.LINE,
        ),
    ),
    unit="events",
    source="ETSI EN 303 645 5.10-1: what is collected is examined for security anomalies",
    says="somebody tries to get in, or to be somebody else, or what keeps them out is about to end",
    clears_when="15 min without another, and no certificate is about to end",
)  # fmt: skip

LINE_RULES: tuple[Rule, ...] = (PIPELINE_BLIND, STORAGE_PRESSURE, SECURITY_EVENT)


@dataclass(frozen=True, slots=True)
class Missing:
    """A cause as it is found now, for `age_s`. One that is over has `until_ms`; `at_once` ones wait for no hold."""

    cause: Cause
    since_ms: int
    age_s: float
    detail: str = ""
    until_ms: int | None = None
    at_once: bool = False


@dataclass(slots=True)
class Span:
    """A cause within an alert: from when, and until when if it is over."""

    cause: Cause
    from_ms: int
    to_ms: int | None
    detail: str

    def words(self, now_ms: int) -> str:
        told = f" ({self.detail})" if self.detail else ""
        if self.to_ms is None:
            return f"since {clock(self.from_ms, now_ms)} {MEANS[self.cause]}{told}"
        return f"from {clock(self.from_ms, now_ms)} to {clock(self.to_ms, now_ms)} {MEANS[self.cause]}{told}"


class Blindness:
    """The one alert on what cannot be seen. `state` and `restore` carry it over a restart."""

    def __init__(self, device_id: str, hold_s: float = HOLD_S) -> None:
        self.alert: Alert | None = None
        self.spans: list[Span] = []
        self._device_id = device_id
        self.hold_s = hold_s
        self._left_out = 0
        self._clear_since_s: float | None = None
        self._said_s = 0.0
        self._news = False

    @property
    def causes(self) -> list[Span]:
        """What is unseen now, of an alert that stands."""
        return [span for span in self.spans if span.to_ms is None]

    def look(self, now_ms: int, now_s: float, missing: Sequence[Missing]) -> list[Said]:
        """What is to be said, after everything was looked at. `now_s` is of a clock that is never set."""
        ripe = [m for m in missing if m.at_once or m.age_s >= self.hold_s]
        if self.alert is None:
            return self._open(now_ms, now_s, ripe) if ripe else []
        self._join([m for m in missing if m in ripe or self._is_back(m)])
        there = {m.cause for m in missing if m.until_ms is None}
        self._leave(now_ms, there)
        if there:
            self._clear_since_s = None
        elif self._clear_since_s is None:
            self._clear_since_s = now_s
        elif now_s - self._clear_since_s >= self.hold_s:
            return self._close(now_ms)
        if self._news and now_s - self._said_s >= min(SAY_AGAIN_S, self.hold_s):
            return self._say(AlertEventKind.UPDATED, now_ms, now_s)
        return []

    def _open(self, now_ms: int, now_s: float, ripe: Sequence[Missing]) -> list[Said]:
        onset_ms = min(m.since_ms for m in ripe)
        self.spans, self._left_out, self._clear_since_s = [], 0, None
        self._join(ripe)
        self.alert = line_alert(PIPELINE_BLIND, self._device_id, "blind", Severity.CRITICAL, onset_ms, now_ms, limit=self.hold_s)
        return self._say(AlertEventKind.OPENED, now_ms, now_s)

    def _known(self, cause: Cause) -> Span | None:
        return next((span for span in reversed(self.spans) if span.cause is cause), None)

    def _is_back(self, m: Missing) -> bool:
        """A cause that was gone for less than the hold was not gone."""
        known = self._known(m.cause)
        if known is None or m.until_ms is not None:
            return False
        return known.to_ms is None or m.since_ms - known.to_ms < self.hold_s * 1000

    def _join(self, ripe: Iterable[Missing]) -> None:
        for m in ripe:
            if self._is_back(m):
                known = self._known(m.cause)
                self._news |= known.to_ms is not None
                known.to_ms, known.detail = None, m.detail or known.detail
                continue
            self.spans.append(Span(m.cause, m.since_ms, m.until_ms, m.detail))
            self._news = True
        while len(self.spans) > MOST_SPANS and (old := next((s for s in self.spans if s.to_ms is not None), None)):
            self.spans.remove(old)
            self._left_out += 1

    def _leave(self, now_ms: int, there: set[Cause]) -> None:
        for span in self.causes:
            if span.cause not in there:
                span.to_ms = max(span.from_ms, now_ms)
                self._news = True

    def _close(self, now_ms: int) -> list[Said]:
        alert = self.alert
        alert.state, alert.close_reason = AlertState.CLOSED.value, CloseReason.CLEARED.value
        alert.closed_ms = max([alert.opened_ms, *(span.to_ms for span in self.spans)])
        said = self._say(AlertEventKind.CLOSED, now_ms, 0.0)
        self.alert = None
        return said

    def _say(self, event: AlertEventKind, now_ms: int, now_s: float) -> list[Said]:
        alert, self._news, self._said_s = self.alert, False, now_s
        alert.updated_ms = alert.closed_ms or max(alert.opened_ms, now_ms)
        alert.value = max(0.0, (alert.updated_ms - min((span.from_ms for span in self.spans), default=alert.onset_ms)) / 1000)
        alert.detail = self.detail(now_ms)
        return [Said(event, alert.model_copy(deep=True))]

    def detail(self, now_ms: int) -> str:
        """What is unknown since when, and what was."""
        order = list(Cause)
        standing = sorted(self.causes, key=lambda span: (order.index(span.cause), span.from_ms))
        over = sorted((s for s in self.spans if s.to_ms is not None), key=lambda span: (span.from_ms, order.index(span.cause)))
        parts = [f"unseen now: {'; '.join(s.words(now_ms) for s in standing)}"] if standing else ["all is seen again"]
        if over:
            parts.append(f"unseen before: {'; '.join(s.words(now_ms) for s in over)}")
        if self._left_out:
            parts.append(f"and {self._left_out} times before")
        return ". ".join(parts)

    @property
    def state(self) -> dict[str, Any] | None:
        """What a restart has to know; None while nothing is open."""
        if self.alert is None:
            return None
        spans = [[s.cause.value, s.from_ms, s.to_ms, s.detail] for s in self.spans]
        return {"id": self.alert.id, "spans": spans, "left_out": self._left_out}

    def restore(self, alert: Alert, state: Mapping[str, Any]) -> None:
        """Go on with an alert that stood when the worker ended."""
        self.alert = alert
        self.spans = [Span(Cause(cause), from_ms, to_ms, detail) for cause, from_ms, to_ms, detail in state["spans"]]
        self._left_out = state["left_out"]


class Graded:
    """An alert that follows a level: severities by level, None for what is well. It never becomes less grave while it stands."""

    def __init__(self, rule: Rule, device_id: str, alert: Alert | None = None) -> None:
        self.alert = alert
        self._rule = rule
        self._device_id = device_id

    def look(self, now_ms: int, severity: Severity | None, value: float, limit: float, detail: str) -> list[Said]:
        alert = self.alert
        if alert is None:
            if severity is None:
                return []
            self.alert = alert = line_alert(self._rule, self._device_id, self._rule.id, severity, now_ms, now_ms, limit=limit)
            return self._say(AlertEventKind.OPENED, now_ms, value, detail)
        if severity is None:
            alert.state, alert.close_reason, alert.closed_ms = AlertState.CLOSED.value, CloseReason.CLEARED.value, max(alert.opened_ms, now_ms)
            said = self._say(AlertEventKind.CLOSED, now_ms, value, detail)
            self.alert = None
            return said
        if severity.rank > Severity(alert.severity).rank:
            alert.severity, alert.escalated_ms = severity.value, now_ms
            return self._say(AlertEventKind.UPDATED, now_ms, value, detail)
        if detail != alert.detail and now_ms - alert.updated_ms >= SAY_AGAIN_S * 1000:
            return self._say(AlertEventKind.UPDATED, now_ms, value, detail)
        return []

    def _say(self, event: AlertEventKind, now_ms: int, value: float, detail: str) -> list[Said]:
        alert = self.alert
        alert.updated_ms, alert.value, alert.detail = max(alert.opened_ms, now_ms), value, detail
        return [Said(event, alert.model_copy(deep=True))]


def line_alert(rule: Rule, device_id: str, what: str, severity: Severity, onset_ms: int, opened_ms: int, limit: float) -> Alert:
    """A new alert on the line itself; `what` tells it from others of its rule with the same onset."""
    return Alert(
        id=alert_id(rule.id, device_id, what, onset_ms),
        rule=rule.id,
        rule_version=rule.version,
        severity=severity,
        device_id=device_id,
        session_id=None,
        model=None,
        hw=None,
        fw=None,
        profile_id=None,
        profile_version=None,
        state=AlertState.OPEN,
        onset_ms=onset_ms,
        opened_ms=max(onset_ms, opened_ms),
        updated_ms=max(onset_ms, opened_ms),
        value=0.0,
        limit=limit,
        unit=rule.unit,
        source=rule.source,
    )


def clock(at_ms: int, now_ms: int) -> str:
    """A time as people read it, UTC; with its date where that is not today's."""
    at, now = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (at_ms, now_ms))
    return at.strftime("%H:%M:%SZ" if at.date() == now.date() else "%Y-%m-%d %H:%M:%SZ")
