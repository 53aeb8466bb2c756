"""What enters the record with a name: the events of alerts, and what people do with alerts and with refused messages.

All of it runs inside a step of the journal, on the core's thread: `Core.ask` with `write`.
"""

from collections import Counter
from typing import Any

from ingest import observe
from ingest.clock import Clock
from ingest.intake import Intake
from ingest.journal import Journal
from ingest.journal.quarantine import Act, Extent, RefusedFilter, State
from ingest.notices import Notices, lowered
from ingest.points import alert_point, pack
from ingest.reports import Reports
from schemas.alerts import Acknowledgement, Alert, AlertEvent, AlertEventKind, Severity


class Acts:
    """By the rules of the line, or by a person."""

    def __init__(self, journal: Journal, clock: Clock, intake: Intake, notices: Notices, reports: Reports) -> None:
        self._journal = journal
        self._clock = clock
        self._intake = intake
        self._notices = notices
        self._reports = reports

    def record(self, alert: Alert, event: AlertEventKind, actor: str | None = None, note: str | None = None) -> None:
        """An alert has come to this: for its history, for whoever is to be told, and for the store."""
        now_ms = self._clock.now_ms()
        before = self._journal.severity_said(alert.id)
        note = note or lowered(before, alert.severity) or None
        self._journal.add_event(alert.id, now_ms, event, actor, note, alert.model_dump_json().encode())
        rank = max(Severity(s).rank for s in (alert.severity, before or alert.severity))
        self._notices.tell(AlertEvent(event=event, at_ms=now_ms, by=actor, note=note or "", alert=alert), rank)
        point = alert_point(alert, *self._journal.first_said(alert.id))
        self._journal.enqueue_point(alert.device_id, alert.onset_ms, pack(point))
        self._reports.alerts_changed(alert.device_id)
        observe.ALERT_EVENTS.labels(alert.rule, event).inc()
        observe.log().warning(
            "alert", step=event.value, rule=alert.rule, severity=alert.severity, device_id=alert.device_id,
            alert_id=alert.id, value=round(alert.value, 3), limit=round(alert.limit, 3), unit=alert.unit,
        )  # fmt: skip

    def acknowledge(self, alert_id: str, by: str, note: str) -> Alert | None:
        """A person has seen this alert."""
        alert = self._journal.alert(alert_id)
        if alert is None:
            return None
        alert.acknowledged = Acknowledgement(by=by, at_ms=self._clock.now_ms(), note=note)
        self._journal.put_alert(alert, self._journal.session_of_alert(alert_id))
        self.record(alert, AlertEventKind.ACKNOWLEDGED, by, note)
        return alert

    def assign(self, alert_id: str, to: str, by: str, note: str) -> Alert | None:
        """A person gives this alert to somebody."""
        alert = self._journal.alert(alert_id)
        if alert is None:
            return None
        alert.assigned_to = to
        self._journal.put_alert(alert, self._journal.session_of_alert(alert_id))
        self.record(alert, AlertEventKind.ASSIGNED, by, note)
        return alert

    def comment(self, alert_id: str, by: str, text: str) -> Alert | None:
        """A person says something of this alert, which itself stays as it is."""
        alert = self._journal.alert(alert_id)
        if alert is not None:
            self.record(alert, AlertEventKind.COMMENTED, by, text)
        return alert

    def replay(self, wanted: RefusedFilter, most: int, by: str, note: str) -> dict[str, Any]:
        """Refused messages go into the line again, oldest first.

        Those on their way already, and those of which not all bytes are kept, stay as they are. Returns the ids that were
        `sent`, how many could not be, the last `entry` looked at, and the last `raw` message: they are through with it.
        """
        now_ms = self._clock.now_ms()
        entries = self._journal.chosen(wanted, most)
        can = [entry for entry in entries if entry["kept"] == Extent.WHOLE and entry["state"] in (State.OPEN, State.DISCARDED)]
        for entry in can:
            self._journal.move(entry, State.WAITING, Act.REPLAY, now_ms, by, note)
        self._journal.accept_again([(entry["received_ms"], *self._journal.delivered(entry["id"]), entry["id"]) for entry in can])
        observe.ACCEPTED.inc(len(can))
        return {
            "sent": [entry["id"] for entry in can],
            "not_whole": sum(entry["kept"] != Extent.WHOLE for entry in entries),
            "not_open": sum(entry["state"] in (State.WAITING, State.REPLAYED) for entry in entries),
            "last": entries[-1]["id"] if len(entries) == most else None,
            "raw": self._journal.accepted,
        }

    def would_replay(self, wanted: RefusedFilter, most: int) -> dict[str, Any]:
        """What would come of it, without doing it: a count of each outcome, and the last entry looked at if there may be more."""
        entries = self._journal.chosen(wanted, most)
        found: Counter[str] = Counter(self._intake.would_become(entry, self._clock.now_ms()) for entry in entries)
        return {"outcomes": dict(found), "last": entries[-1]["id"] if len(entries) == most else None}

    def discard(self, wanted: RefusedFilter, most: int, by: str, note: str) -> dict[str, Any]:
        """A person wants no more of these messages; that they came, and their heads, stay."""
        entries = self._journal.chosen(wanted, most)
        can = [entry for entry in entries if entry["state"] == State.OPEN]
        for entry in can:
            self._journal.move(entry, State.DISCARDED, Act.DISCARD, self._clock.now_ms(), by, note)
        return {"discarded": len(can), "not_open": len(entries) - len(can), "last": entries[-1]["id"] if len(entries) == most else None}
