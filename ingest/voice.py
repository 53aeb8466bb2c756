"""Say what has changed in the judgement of a danger, once; never unsay it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from schemas.alerts import Alert, AlertEventKind, AlertState

RENOTIFY_MS = 60_000


class AlertRecord(Protocol):
    """What is on record of alerts."""

    def alert(self, alert_id: str) -> Alert | None: ...
    def put_alert(self, alert: Alert, session: str) -> None: ...
    def alerts_of_session(self, device_id: str, session: str) -> list[Alert]: ...


@dataclass(frozen=True, slots=True)
class Said:
    """One event of an alert's life, ready to be published and recorded."""

    event: AlertEventKind
    alert: Alert


class Voice:
    """Compares what is found with what was said before. `session` is the key of the record."""

    def __init__(self, record: AlertRecord) -> None:
        self._record = record
        self._notified_ms: dict[str, int] = {}

    def compare(self, alert: Alert, session: str) -> list[Said]:
        """Say how this judgement differs from what was said of it before, if it does."""
        before = self._record.alert(alert.id)
        if before is None:
            said = self.say(alert, session, AlertEventKind.OPENED)
            if alert.state == AlertState.CLOSED:
                said += self.say(alert, session, AlertEventKind.CLOSED)
            return said
        kept = {name: getattr(before, name) for name in ("acknowledged", "assigned_to", "retrospective")}
        now = alert.model_copy(update=kept)
        if now == before:
            return []
        if before.state == AlertState.OPEN and now.state == AlertState.CLOSED:
            return self.say(now, session, AlertEventKind.CLOSED)
        news = (
            now.severity != before.severity
            or now.state != before.state
            or now.service != before.service
            or now.closed_ms != before.closed_ms
            or now.opened_ms != before.opened_ms
            or now.updated_ms - self._notified_ms.setdefault(now.id, before.updated_ms) >= RENOTIFY_MS
        )
        if news:
            return self.say(now, session, AlertEventKind.UPDATED)
        self._record.put_alert(now, session)  # kept as it is, without saying it each second
        return []

    def agree(self, found: Iterable[Alert], known: Iterable[Alert], session: str) -> list[Said]:
        """Say the difference between all that is true and all that was said."""
        said: list[Said] = []
        names = set()
        for alert in found:
            names.add(alert.id)
            said += self.compare(alert, session)
        for alert in known:
            if alert.id not in names and alert.state != AlertState.WITHDRAWN:
                said += self.withdraw(alert, session)
        return said

    def withdraw(self, alert: Alert, session: str) -> list[Said]:
        taken_back = alert.model_copy(update={"state": AlertState.WITHDRAWN.value})
        return self.say(taken_back, session, AlertEventKind.WITHDRAWN)

    def say(self, alert: Alert, session: str, event: AlertEventKind) -> list[Said]:
        kept = alert.model_copy(deep=True)
        if kept.state == AlertState.OPEN:
            self._notified_ms[kept.id] = kept.updated_ms
        else:
            self._notified_ms.pop(kept.id, None)
        self._record.put_alert(kept, session)
        return [Said(event, kept)]
