"""Alerts, every step of their lives, and what is to be published of them."""

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from ingest.journal.part import Part, where
from schemas.alerts import Alert, AlertState

OVER, ATTENTION = "over", "attention"
_COLUMNS = "id, device_id, session, rule, severity, state, opened_ms, acknowledged, doc, ended_ms, model, fw, assigned_to"
_ATTENTION = "state = 'open' OR (state = 'closed' AND acknowledged = 0 AND severity != 'info')"


class HeldEvent(NamedTuple):
    """An event that is on record and not yet told. `rank` is of the gravest that its alert has been."""

    alert_id: str
    event: str
    rank: int
    payload: bytes


class Alerts(Part):
    def alert(self, alert_id: str) -> Alert | None:
        row = self._db.execute("SELECT doc FROM alert WHERE id = ?", (alert_id,)).fetchone()
        return Alert.model_validate_json(row[0]) if row else None

    def put_alert(self, alert: Alert, session: str) -> None:
        is_open = alert.state == AlertState.OPEN
        ended_ms = None if is_open else alert.updated_ms if alert.closed_ms is None else alert.closed_ms
        self._db.execute(
            f"INSERT OR REPLACE INTO alert ({_COLUMNS}) VALUES ({','.join('?' * 13)})",
            (
                alert.id, alert.device_id, session, alert.rule, alert.severity, alert.state, alert.opened_ms,
                alert.acknowledged is not None, alert.model_dump_json().encode(), ended_ms, alert.model, alert.fw, alert.assigned_to,
            ),  # fmt: skip
        )

    def alerts_of_session(self, device_id: str, session: str) -> list[Alert]:
        rows = self._db.execute("SELECT doc FROM alert WHERE device_id = ? AND session = ?", (device_id, session))
        return [Alert.model_validate_json(doc) for (doc,) in rows]

    def standing_of_session(self, device_id: str, session: str, *others: str) -> list[tuple[str, str]]:
        """Rule and severity of each alert on a session that is not withdrawn; `others` are keys under which such may be too."""
        places = ",".join("?" * len(others))
        return self._db.execute(
            "SELECT rule, severity FROM alert WHERE device_id = ? AND state != ? AND (session = ? OR "
            f"(session IN ({places}) AND json_extract(CAST(doc AS TEXT), '$.session_id') = ?))",
            (device_id, AlertState.WITHDRAWN, session, *others, session),
        ).fetchall()

    def session_of_alert(self, alert_id: str) -> str:
        return self._scalar("SELECT session FROM alert WHERE id = ?", alert_id)

    def alerts(
        self,
        state: str | None = None,
        device_id: str | None = None,
        severity: str | None = None,
        rule: str | None = None,
        most: int = 200,
        *,
        model: str | None = None,
        fw: str | None = None,
        assigned_to: str | None = None,
        unacknowledged: bool = False,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> list[dict]:
        """Alerts as JSON, newest first. `state` may also be OVER (closed or withdrawn) or
        ATTENTION (open, or at least a warning that nobody has acknowledged). Times are of
        the event: an alert is found that was open at some time of the span."""
        exactly = {
            "device_id": device_id, "severity": severity, "rule": rule, "model": model, "fw": fw,
            "assigned_to": assigned_to, "acknowledged": 0 if unacknowledged else None,
            "state": None if state in (OVER, ATTENTION) else state,
        }  # fmt: skip
        clause, values = where(exactly)
        clause = clause or "WHERE true"
        if state == OVER:
            clause += f" AND state != '{AlertState.OPEN}'"
        elif state == ATTENTION:
            clause += f" AND ({_ATTENTION})"
        if since_ms is not None:
            clause, values = f"{clause} AND (ended_ms IS NULL OR ended_ms >= ?)", [*values, since_ms]
        if until_ms is not None:
            clause, values = f"{clause} AND opened_ms <= ?", [*values, until_ms]
        rows = self._db.execute(f"SELECT doc FROM alert {clause} ORDER BY opened_ms DESC, id LIMIT ?", (*values, most))
        return [orjson.loads(doc) for (doc,) in rows]

    def alerts_between(self, device_id: str, from_ms: int, to_ms: int, most: int = 200) -> list[dict]:
        """A device's alerts that were open at some time of a span, newest first."""
        rows = self._db.execute(
            "SELECT doc FROM alert WHERE device_id = ? AND state != ? AND opened_ms <= ? AND coalesce(ended_ms, ?) >= ? "
            "ORDER BY opened_ms DESC LIMIT ?",
            (device_id, AlertState.WITHDRAWN, to_ms, to_ms, from_ms, most),
        )
        return [orjson.loads(doc) for (doc,) in rows]

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

    def severity_said(self, alert_id: str) -> str | None:
        """As how grave the alert was last said to be; None if nothing was said of it."""
        row = self._db.execute("SELECT doc FROM alert_event WHERE alert_id = ? ORDER BY id DESC LIMIT 1", (alert_id,)).fetchone()
        return orjson.loads(row[0])["severity"] if row else None

    def first_said(self, alert_id: str) -> tuple[str | None, str | None]:
        """Model and firmware of an alert as it was first told."""
        row = self._db.execute("SELECT doc FROM alert_event WHERE alert_id = ? ORDER BY id LIMIT 1", (alert_id,)).fetchone()
        said = orjson.loads(row[0])
        return said["model"], said["fw"]

    # -- events that wait to be said together ---------------------------------------------------

    def hold(self, device_id: str, alert_id: str, at_ms: int, event: str, rank: int, payload: bytes) -> None:
        self._db.execute(
            "INSERT INTO held (device_id, alert_id, at_ms, event, rank, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (device_id, alert_id, at_ms, event, rank, payload),
        )

    def held_since(self) -> dict[str, tuple[int, int]]:
        """Device → when the first and the last of its events that are held back was said."""
        rows = self._db.execute("SELECT device_id, min(at_ms), max(at_ms) FROM held GROUP BY 1")
        return {device_id: (first_ms, last_ms) for device_id, first_ms, last_ms in rows}

    def take_held(self, device_id: str) -> list[HeldEvent]:
        """A device's held events, oldest first; they are held no longer."""
        rows = self._db.execute(
            "SELECT alert_id, event, rank, payload FROM held WHERE device_id = ? ORDER BY id", (device_id,)
        ).fetchall()
        self._db.execute("DELETE FROM held WHERE device_id = ?", (device_id,))
        return [HeldEvent(*row) for row in rows]

    # -- what is to be published ----------------------------------------------------------------

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
