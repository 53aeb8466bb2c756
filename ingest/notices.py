"""What goes out of an alert's events, and when: at once, or as one digest of what late data raised.

A phone that uploads three hours raises and closes alerts by the hundred. Every event is in the
journal at once; only the telling of them waits, in the journal too, until the flood pauses.
"""

from dataclasses import dataclass
from uuid import uuid4

from ingest import observe
from ingest.journal import Journal
from ingest.journal.alerts import HeldEvent
from schemas import topics
from schemas.alerts import Alert, AlertDigest, AlertEvent, AlertEventKind, AlertState, CloseReason, Severity

LATE_QUIET_MS = 5_000
"""A device's late events go out when none has come for so long, …"""

LATE_MOST_MS = 30_000
"""… or so long after the first of them, whatever still comes."""

DIGEST_MOST = 50
"""Alerts that a digest shows; it counts all."""

_OF_THE_JUDGE = frozenset({AlertEventKind.OPENED, AlertEventKind.UPDATED, AlertEventKind.CLOSED, AlertEventKind.WITHDRAWN})


@dataclass(frozen=True, slots=True)
class WebhookTerms:
    """What a webhook is owed: events of alerts at least this grave, and at most so many at once."""

    min_severity: Severity
    most: int


class Notices:
    """Hands events on to their topic and to the webhook. One thread; inside a step of the journal."""

    def __init__(self, journal: Journal) -> None:
        self.webhook: WebhookTerms | None = None
        self.may_wait = True
        """Whether there may be some that the broker was not handed yet."""

        self._journal = journal
        self._held = journal.held_since()

    def tell(self, said: AlertEvent, rank: int) -> None:
        """Send an event on its way. `rank`: of its alert's severity, or of the one said before if that was higher."""
        alert, payload = said.alert, said.model_dump_json().encode()
        if not _is_late(said):
            self._send(alert.device_id, said.event, rank, payload)
            return
        self._journal.hold(alert.device_id, alert.id, said.at_ms, said.event, rank, payload)
        first_ms, _ = self._held.get(alert.device_id, (said.at_ms, 0))
        self._held[alert.device_id] = (first_ms, said.at_ms)

    def is_due(self, now_ms: int) -> bool:
        return any(_waited_enough(span, now_ms) for span in self._held.values())

    def tell_held(self, now_ms: int) -> None:
        """Of each device whose flood has paused, or lasted too long: one notice."""
        for device_id in [d for d, span in self._held.items() if _waited_enough(span, now_ms)]:
            del self._held[device_id]
            self._tell_together(device_id, now_ms)

    def _tell_together(self, device_id: str, now_ms: int) -> None:
        of_alert: dict[str, list[HeldEvent]] = {}
        for held in self._journal.take_held(device_id):
            of_alert.setdefault(held.alert_id, []).append(held)
        alerts: list[Alert] = []
        for alert_id, events in list(of_alert.items()):
            alert = self._journal.alert(alert_id)
            if alert.state == AlertState.WITHDRAWN and events[0].event == AlertEventKind.OPENED:
                del of_alert[alert_id]  # raised and taken back before anybody heard of it
            else:
                alerts.append(alert)
        if len(alerts) > 1:
            digest = digest_of(device_id, now_ms, alerts)
            rank = max(held.rank for events in of_alert.values() for held in events)
            self._send(device_id, digest.event, rank, digest.model_dump_json().encode())
            return
        for held in (held for events in of_alert.values() for held in events):
            self._send(device_id, held.event, held.rank, held.payload)

    def _send(self, device_id: str, event: str, rank: int, payload: bytes) -> None:
        self._journal.add_notice(topics.alert(device_id), payload)
        self.may_wait = True
        if self.webhook is None or rank < self.webhook.min_severity.rank:
            return
        dropped = self._journal.owe(uuid4().hex, str(event), rank, payload, self.webhook.most)
        if dropped:
            observe.WEBHOOK_DROPPED.inc(dropped)
            observe.log().error("webhook_full", dropped=dropped)


def _is_late(said: AlertEvent) -> bool:
    """Of a flood of late data: what it raised, and the silences that it fills."""
    if said.event not in _OF_THE_JUDGE:
        return False
    return said.alert.retrospective or said.alert.close_reason == CloseReason.LATE_ARRIVAL


def _waited_enough(span: tuple[int, int], now_ms: int) -> bool:
    first_ms, last_ms = span
    set_back = now_ms < last_ms - LATE_MOST_MS  # a clock that was set back must not hold them for hours
    return set_back or now_ms - last_ms >= LATE_QUIET_MS or now_ms - first_ms >= LATE_MOST_MS


def digest_of(device_id: str, now_ms: int, alerts: list[Alert]) -> AlertDigest:
    """The gravest first, and of those the earliest; at most DIGEST_MOST are shown."""
    alerts = sorted(alerts, key=lambda a: (-Severity(a.severity).rank, a.onset_ms, a.id))
    rules = [a.rule for a in alerts]
    return AlertDigest(
        at_ms=now_ms,
        device_id=device_id,
        from_ms=min(a.onset_ms for a in alerts),
        to_ms=max(a.onset_ms for a in alerts),
        by_rule={rule: rules.count(rule) for rule in sorted(set(rules))},
        severity=alerts[0].severity,
        alerts=alerts[:DIGEST_MOST],
    )


def lowered(before: str | None, now: Severity | str) -> str:
    """The note of an event after which an alert is less grave than was said; empty if it is not."""
    if before is None or Severity(now).rank >= Severity(before).rank:
        return ""
    return f"severity lowered from {before} to {now} by later data"
