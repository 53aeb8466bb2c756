"""What the journal no longer keeps, and what remains of it."""

from ingest.journal.part import Part
from ingest.rollup import Before


class Forget(Part):
    def judged_from(self, device_id: str) -> int:
        """Alerts of a device, or of the fleet, with an onset before this time stay as they are."""
        row = self._db.execute("SELECT judged_from_ms FROM life WHERE device_id = ?", (device_id,)).fetchone()
        return row[0] if row else 0

    def before(self, device_id: str) -> Before:
        """What the forgotten weeks of a device leave to those on record."""
        row = self._db.execute(
            "SELECT until_ms, first_ms, completions, streak_weeks FROM life WHERE device_id = ?", (device_id,)
        ).fetchone()
        return Before(*row) if row else Before()

    def put_before(self, device_id: str, judged_from_ms: int, before: Before) -> None:
        self._db.execute(
            "INSERT INTO life VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET "
            "judged_from_ms = max(judged_from_ms, excluded.judged_from_ms), until_ms = excluded.until_ms, "
            "first_ms = excluded.first_ms, completions = excluded.completions, streak_weeks = excluded.streak_weeks",
            (device_id, judged_from_ms, before.until_ms, before.first_ms, before.completions, before.streak_weeks),
        )

    def stood(self, device_id: str) -> list[tuple[int, int | None]]:
        """(onset, end or None while it is open) of a device's alerts."""
        return self._db.execute(
            "SELECT json_extract(CAST(doc AS TEXT), '$.onset_ms'), ended_ms FROM alert WHERE device_id = ?", (device_id,)
        ).fetchall()

    def device_ids(self, after: str, most: int) -> list[str]:
        rows = self._db.execute("SELECT device_id FROM device WHERE device_id > ? ORDER BY device_id LIMIT ?", (after, most))
        return [device_id for (device_id,) in rows]

    def first_session_ms(self, device_id: str, from_ms: int) -> int | None:
        return self._scalar("SELECT min(started_ms) FROM session WHERE device_id = ? AND started_ms >= ?", device_id, from_ms)

    def forget_sessions(self, device_id: str, sessions: list[str], until_ms: int) -> None:
        """These sessions of a device, and its boots and weeks before a time."""
        self._db.executemany("DELETE FROM session WHERE device_id = ? AND session = ?", [(device_id, s) for s in sessions])
        self._db.execute("DELETE FROM boot WHERE device_id = ? AND booted_ms < ?", (device_id, until_ms))
        self._db.execute("DELETE FROM week WHERE device_id = ? AND week_ms < ?", (device_id, until_ms))

    def forget_alerts(self, device_id: str, before_ms: int) -> None:
        """A device's alerts that were over before a time, and all that was said of them."""
        old = self._db.execute("SELECT id FROM alert WHERE device_id = ? AND ended_ms < ?", (device_id, before_ms)).fetchall()
        self._db.executemany("DELETE FROM alert_event WHERE alert_id = ?", old)
        self._db.executemany("DELETE FROM alert WHERE id = ?", old)
