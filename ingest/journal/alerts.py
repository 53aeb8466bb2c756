"""Alerts, every step of their lives, and what is to be published of them."""

from collections.abc import Iterable

import orjson

from ingest.journal.part import Part, where
from schemas.alerts import Alert, AlertState

OVER, ATTENTION = "over", "attention"
_ATTENTION = "state = 'open' OR (state = 'closed' AND acknowledged = 0 AND severity != 'info')"


class Alerts(Part):
    def alert(self, alert_id: str) -> Alert | None:
        row = self._db.execute("SELECT doc FROM alert WHERE id = ?", (alert_id,)).fetchone()
        return Alert.model_validate_json(row[0]) if row else None

    def put_alert(self, alert: Alert, session: str) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                alert.id, alert.device_id, session, alert.rule, alert.severity, alert.state, alert.opened_ms,
                alert.acknowledged is not None, alert.model_dump_json().encode(),
            ),  # fmt: skip
        )

    def alerts_of_session(self, device_id: str, session: str) -> list[Alert]:
        rows = self._db.execute("SELECT doc FROM alert WHERE device_id = ? AND session = ?", (device_id, session))
        return [Alert.model_validate_json(doc) for (doc,) in rows]

    def session_of_alert(self, alert_id: str) -> str:
        return self._scalar("SELECT session FROM alert WHERE id = ?", alert_id)

    def alerts(
        self,
        state: str | None = None,
        device_id: str | None = None,
        severity: str | None = None,
        rule: str | None = None,
        most: int = 200,
    ) -> list[dict]:
        """Alerts as JSON, newest first. `state` may also be OVER (closed or
        withdrawn) or ATTENTION (open, or at least a warning that nobody has acknowledged)."""
        clause, values = where({"device_id": device_id, "severity": severity, "rule": rule})
        if state == OVER:
            clause, values = f"{clause or 'WHERE true'} AND state != ?", [*values, AlertState.OPEN]
        elif state == ATTENTION:
            clause = f"{clause or 'WHERE true'} AND ({_ATTENTION})"
        elif state is not None:
            clause, values = f"{clause or 'WHERE true'} AND state = ?", [*values, state]
        rows = self._db.execute(f"SELECT doc FROM alert {clause} ORDER BY opened_ms DESC, id LIMIT ?", (*values, most))
        return [orjson.loads(doc) for (doc,) in rows]

    def alerts_between(self, device_id: str, from_ms: int, to_ms: int, most: int = 200) -> list[dict]:
        """A device's alerts that were open at some time of a span, newest first."""
        rows = self._db.execute("SELECT doc FROM alert WHERE device_id = ? AND opened_ms <= ? ORDER BY opened_ms DESC", (device_id, to_ms))
        found = (orjson.loads(doc) for (doc,) in rows)
        shown = (a for a in found if a["state"] != AlertState.WITHDRAWN and (a["closed_ms"] or to_ms) >= from_ms)
        return [alert for alert, _ in zip(shown, range(most), strict=False)]

    def alerts_open(self) -> dict[str, dict[str, int]]:
        """Open alerts by device, then severity; `unacknowledged` counts those, open or not, that wait for a person."""
        counts: dict[str, dict[str, int]] = {}
        for device_id, severity, state, acknowledged, number in self._db.execute(
            f"SELECT device_id, severity, state, acknowledged, count(*) FROM alert WHERE {_ATTENTION} GROUP BY 1, 2, 3, 4"
        ):
            of_device = counts.setdefault(device_id, {"critical": 0, "warning": 0, "info": 0, "unacknowledged": 0})
            if state == AlertState.OPEN:
                of_device[severity] += number
            if not acknowledged:
                of_device["unacknowledged"] += number
        return counts

    def add_event(self, alert_id: str, at_ms: int, event: str, actor: str | None, note: str | None, doc: bytes) -> None:
        self._db.execute(
            "INSERT INTO alert_event (alert_id, at_ms, event, actor, note, doc) VALUES (?, ?, ?, ?, ?, ?)",
            (alert_id, at_ms, event, actor, note, doc),
        )

    def events(self, alert_id: str) -> list[dict]:
        rows = self._db.execute(
            "SELECT at_ms, event, actor, note, doc FROM alert_event WHERE alert_id = ? ORDER BY id", (alert_id,)
        )
        return [
            {"at_ms": at, "event": event, "actor": actor, "note": note, "alert": orjson.loads(doc)}
            for at, event, actor, note, doc in rows
        ]

    def add_notice(self, topic: str, payload: bytes) -> None:
        self._db.execute("INSERT INTO notice (topic, payload) VALUES (?, ?)", (topic, payload))

    def notices_after(self, notice_id: int, most: int) -> list[tuple[int, str, bytes]]:
        return self._db.execute(
            "SELECT id, topic, payload FROM notice WHERE id > ? ORDER BY id LIMIT ?", (notice_id, most)
        ).fetchall()

    def notices_waiting(self) -> int:
        return self._scalar("SELECT count(*) FROM notice")

    def drop_notices(self, ids: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM notice WHERE id = ?", [(i,) for i in ids])
