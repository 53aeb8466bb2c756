"""Which roll-ups are to be made again, and what they are made from."""

from collections.abc import Iterable

from ingest.journal.part import Part
from ingest.rollup import SLOT_MS

LONGEST_MESSAGE_MS = 3_600_000
"""No sample is further after its message's first."""

_OF_SLOT = """
WITH RECURSIVE spoken (session) AS (
    SELECT min(session) FROM message WHERE device_id = :device
    UNION ALL
    SELECT (SELECT min(session) FROM message WHERE device_id = :device AND session > spoken.session) FROM spoken
    WHERE spoken.session IS NOT NULL
)
SELECT raw_id, event_ms FROM spoken CROSS JOIN message
WHERE device_id = :device AND message.session = spoken.session AND last_ms >= :from AND last_ms < :until + :longest
    AND first_ms < :until AND lane = 0
"""
"""Goes from session to session through the index that is there for judging; another on time would cost every message."""


class Rollups(Part):
    def mark_trends(self, slots: Iterable[tuple[str, int]]) -> None:
        """(device, slot) whose messages have changed."""
        self._db.executemany("INSERT OR IGNORE INTO trend_due VALUES (?, ?)", slots)

    def trends_due(self, after: tuple[str, int], most: int) -> list[tuple[str, int]]:
        """What is marked, in order, from after a mark on."""
        return self._db.execute(
            "SELECT device_id, slot_ms FROM trend_due WHERE (device_id, slot_ms) > (?, ?) ORDER BY 1, 2 LIMIT ?", (*after, most)
        ).fetchall()

    def trend_done(self, device_id: str, slot_ms: int) -> None:
        self._db.execute("DELETE FROM trend_due WHERE device_id = ? AND slot_ms = ?", (device_id, slot_ms))

    def messages_of_slot(self, device_id: str, slot_ms: int) -> list[tuple[int, int]]:
        """(raw id, event_ms) of the messages of a device with samples in a slot, and of a few around it."""
        return self._db.execute(
            _OF_SLOT, {"device": device_id, "from": slot_ms, "until": slot_ms + SLOT_MS, "longest": LONGEST_MESSAGE_MS}
        ).fetchall()

    def raws(self, ids: list[int]) -> dict[int, tuple[bytes, bytes]]:
        """Raw id → (topic, payload), of those that are still kept."""
        rows = self._db.execute(f"SELECT id, topic, payload FROM raw WHERE id IN ({','.join('?' * len(ids))})", ids)
        return {raw_id: (topic, payload) for raw_id, topic, payload in rows}

    def week_due(self) -> str | None:
        """A device whose sessions have changed."""
        row = self._db.execute("SELECT device_id FROM week_due LIMIT 1").fetchone()
        return row[0] if row else None

    def weeks_done(self, device_id: str) -> None:
        self._db.execute("DELETE FROM week_due WHERE device_id = ?", (device_id,))

    def weeks_told(self, device_id: str) -> dict[int, bytes]:
        """Week ms → its point, as it was last made."""
        return dict(self._db.execute("SELECT week_ms, point FROM week WHERE device_id = ?", (device_id,)))

    def tell_week(self, device_id: str, week_ms: int, point: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO week VALUES (?, ?, ?)", (device_id, week_ms, point))
