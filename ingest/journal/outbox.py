"""What waits for the store."""

import orjson

from ingest.journal.messages import Messages
from ingest.journal.quarantine import BY_LINE, Act, Quarantine, State
from ingest.points import Entry


class Outbox(Messages, Quarantine):
    outbox: int
    points: int
    """Points of the line's own that wait."""
    stored: int
    duplicate: int
    quarantined: int

    def enqueue_messages(self, rows: list[tuple[str, int, str, int, int, bool]]) -> None:
        """Messages to be stored: (device_id, raw_id, stream, event_ms, received_ms, clock_ok)."""
        self._insert("INSERT INTO outbox (device_id, raw_id, stream, event_ms, received_ms, clock_ok) VALUES", rows)
        self.outbox += len(rows)

    def enqueue_point(self, device_id: str, event_ms: int, point: bytes) -> int:
        """A point made by the line itself; returns the number under which it waits."""
        cursor = self._db.execute(
            "INSERT INTO outbox (device_id, event_ms, received_ms, clock_ok, point) VALUES (?, ?, ?, 1, ?)",
            (device_id, event_ms, event_ms, point),
        )
        self.points += 1
        return cursor.lastrowid

    def outbox_after(self, entry_id: int, most: int) -> list[Entry]:
        rows = self._db.execute(
            "SELECT o.id, o.device_id, o.raw_id, o.stream, o.event_ms, o.received_ms, o.clock_ok, "
            "coalesce(o.point, r.payload) FROM outbox o LEFT JOIN raw r ON r.id = o.raw_id "
            "WHERE o.id > ? ORDER BY o.id LIMIT ?",
            (entry_id, most),
        )
        return [Entry(i, d, raw, s, e, r, bool(c), p) for i, d, raw, s, e, r, c, p in rows]

    def last_entry(self) -> int:
        """The highest number that ever waited here."""
        return self._scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)")

    def oldest_outbox_ms(self) -> int | None:
        """When the first of the messages that wait was received."""
        if not self.outbox:
            return None
        row = self._db.execute("SELECT received_ms FROM outbox WHERE raw_id IS NOT NULL ORDER BY id LIMIT 1").fetchone()
        return row[0] if row else None

    def settle(self, entries: list[Entry]) -> None:
        """The store has confirmed these."""
        if entries:  # they follow each other; one that was refused among them leaves the outbox as well
            self._db.execute("DELETE FROM outbox WHERE id BETWEEN ? AND ?", (entries[0].id, entries[-1].id))
        messages = sum(e.is_message for e in entries)
        self.outbox -= messages
        self.points -= len(entries) - messages
        self.stored += messages

    def settle_upto(self, entry_id: int) -> dict[str, int]:
        """The store already held these when the worker died; returns messages by device."""
        by_device = dict(
            self._db.execute(
                "SELECT device_id, count(*) FROM outbox WHERE id <= ? AND raw_id IS NOT NULL GROUP BY device_id", (entry_id,)
            )
        )
        cursor = self._db.execute("DELETE FROM outbox WHERE id <= ?", (entry_id,))
        self.points -= cursor.rowcount - sum(by_device.values())
        self.outbox -= sum(by_device.values())
        self.stored += sum(by_device.values())
        return by_device

    def refused_by_store(self, entry: Entry, reason: str, detail: str, fingerprint: bytes, at_ms: int) -> bool:
        """The store will never take this message: it moves from the outbox to quarantine.

        False if the same bytes are there already, as they are of a replay: the ledger has this one as a duplicate then.
        """
        self._db.execute("DELETE FROM outbox WHERE id = ?", (entry.id,))
        if not entry.is_message:
            self.points -= 1
            return True
        self.outbox -= 1
        raw = self.raw(entry.raw_id)
        document = orjson.loads(entry.payload)
        known = self.entry_by_fingerprint(fingerprint)
        if known is None:
            self.refuse(raw, reason, detail, (entry.device_id, document["boot_id"], document["seq"]), fingerprint)
            self.count_refused(reason)
        else:
            self.move(known, State.OPEN, Act.REFUSED, at_ms, BY_LINE, f"{reason}: {detail}", reason, detail, raw.id)
            self.duplicate += 1
        return known is None
