"""Sessions as they went, and what devices have told of themselves."""

import orjson

from ingest.journal.part import Part
from schemas.alerts import FLEET
from schemas.sessions import SessionRecord


class Sessions(Part):
    def put_session(self, record: SessionRecord, first_boot: int) -> tuple[bool, bool]:
        """Keep a session's record; whether it differs from the one that was kept, and whether the store was told of that."""
        doc = orjson.dumps(record.__dict__, option=orjson.OPT_NON_STR_KEYS)
        kept = self._db.execute(
            "SELECT doc, point IS NOT NULL FROM session WHERE device_id = ? AND session = ?", (record.device_id, record.session_id)
        ).fetchone()
        if kept is not None and kept[0] == doc:
            return False, bool(kept[1])
        self._db.execute(
            "INSERT INTO session (device_id, session, started_ms, last_ms, model, fw, output_s, first_boot, doc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET started_ms = excluded.started_ms, "
            "last_ms = excluded.last_ms, model = excluded.model, fw = excluded.fw, output_s = excluded.output_s, "
            "first_boot = excluded.first_boot, doc = excluded.doc",
            (
                record.device_id, record.session_id, record.started_ms, record.last_ms, record.model, record.fw,
                record.output_s, first_boot, doc,
            ),
        )  # fmt: skip
        self._db.execute("INSERT OR IGNORE INTO week_due VALUES (?)", (record.device_id,))
        return True, kept is not None and bool(kept[1])

    def sessions(self, device_id: str, from_ms: int, to_ms: int) -> list[tuple[SessionRecord, int]]:
        """A device's sessions that began within a span, with the boot that each began in, oldest first."""
        rows = self._db.execute(
            "SELECT doc, first_boot FROM session WHERE device_id = ? AND started_ms BETWEEN ? AND ? ORDER BY started_ms, session",
            (device_id, from_ms, to_ms),
        )
        return [(_record(doc), boot) for doc, boot in rows]

    def session(self, device_id: str, session: str) -> tuple[SessionRecord, bytes | None] | None:
        """A session's record, and its point as it was last told to the store."""
        row = self._db.execute(
            "SELECT doc, point FROM session WHERE device_id = ? AND session = ?", (device_id, session)
        ).fetchone()
        return (_record(row[0]), row[1]) if row else None

    def put_session_point(self, device_id: str, session: str, point: bytes) -> None:
        self._db.execute("UPDATE session SET point = ? WHERE device_id = ? AND session = ?", (point, device_id, session))

    def history_owed(self) -> dict[str, list]:
        """What of the history of devices is still to be judged, as it was last kept."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'history_owed'").fetchone()
        return orjson.loads(row[0]) if row else {}

    def owe_history(self, owed: dict[str, list]) -> None:
        self._set("history_owed", orjson.dumps(owed))

    def exposure(self) -> list[tuple[str, str, str, int, float]]:
        """(device, model, firmware, start, output s) of every session."""
        return self._db.execute("SELECT device_id, model, fw, started_ms, output_s FROM session").fetchall()

    def dangers(self) -> list[tuple[int, str, str, str, str, str]]:
        """(onset, alert, device, rule, model, firmware) of every critical alert that stands."""
        return self._db.execute(
            "SELECT json_extract(CAST(doc AS TEXT), '$.onset_ms'), id, device_id, rule, coalesce(model, '?'), coalesce(fw, '?') "
            "FROM alert WHERE severity = 'critical' AND state != 'withdrawn' AND device_id != ?",
            (FLEET,),
        ).fetchall()

    def put_boot(self, device_id: str, boot_id: int, booted_ms: int, reset_reason: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO boot VALUES (?, ?, ?, ?)", (device_id, boot_id, booted_ms, reset_reason))

    def boots(self, device_id: str) -> list[tuple[int, int, str]]:
        """(boot, when, why) of every boot that told why."""
        return self._db.execute("SELECT boot_id, booted_ms, reset_reason FROM boot WHERE device_id = ?", (device_id,)).fetchall()

    def put_identity(self, device_id: str, told_ms: int, lot: str, attachment_id: str) -> bool:
        """Note what a device said it is; whether that was not known."""
        cursor = self._db.execute("INSERT OR IGNORE INTO identity VALUES (?, ?, ?, ?)", (device_id, told_ms, lot, attachment_id))
        return cursor.rowcount > 0

    def attachments(self, device_id: str) -> list[tuple[int, str]]:
        """(when told, attachment), in order of time."""
        return self._db.execute(
            "SELECT told_ms, attachment_id FROM identity WHERE device_id = ? ORDER BY told_ms", (device_id,)
        ).fetchall()

    def lot(self, device_id: str) -> str | None:
        """The lot of a device, as it told last."""
        row = self._db.execute(
            "SELECT lot FROM identity WHERE device_id = ? ORDER BY told_ms DESC LIMIT 1", (device_id,)
        ).fetchone()
        return row[0] if row else None

    def lots(self) -> dict[str, str]:
        """The lot of each device, as it told last."""
        rows = self._db.execute("SELECT device_id, lot, max(told_ms) FROM identity GROUP BY device_id")
        return {device_id: lot for device_id, lot, _ in rows}


def _record(doc: bytes) -> SessionRecord:
    said = orjson.loads(doc)
    said["minutes"] = {int(minute): on_s for minute, on_s in said["minutes"].items()}
    return SessionRecord.model_construct(**said)
