"""What a webhook is still owed, and what it would not take."""

from typing import NamedTuple

from ingest.journal.part import Part

WAITING, FAILED = "waiting", "failed"


class WebhookEntry(NamedTuple):
    """One request to be made. `key` stays the same however often it is tried."""

    id: int
    key: str
    event: str
    payload: bytes


class Webhook(Part):
    def owe(self, key: str, event: str, rank: int, payload: bytes, most: int) -> int:
        """Put an entry last; returns how many that waited gave way to keep at most so many: what was
        set aside goes first, then the least severe, the oldest of them first."""
        self._db.execute("INSERT INTO webhook (key, event, rank, payload) VALUES (?, ?, ?, ?)", (key, event, rank, payload))
        too_many = self._scalar("SELECT count(*) FROM webhook") - most
        if too_many <= 0:
            return 0
        given_up = self._db.execute(
            "SELECT id, state FROM webhook ORDER BY state = 'waiting', rank, id LIMIT ?", (too_many,)
        ).fetchall()
        self._db.executemany("DELETE FROM webhook WHERE id = ?", [(i,) for i, _ in given_up])
        lost = sum(state == WAITING for _, state in given_up)
        self._add("webhook_dropped", lost)
        return lost

    def owed(self) -> WebhookEntry | None:
        """The entry whose turn it is."""
        row = self._db.execute(
            "SELECT id, key, event, payload FROM webhook WHERE state = 'waiting' ORDER BY id LIMIT 1"
        ).fetchone()
        return WebhookEntry(*row) if row else None

    def webhook_took(self, entry_id: int, at_ms: int) -> None:
        self._db.execute("DELETE FROM webhook WHERE id = ?", (entry_id,))
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('webhook_success_ms', ?)", (at_ms,))

    def webhook_refused(self, entry_id: int, detail: str) -> None:
        """It will not take this one: it is set aside, and the next has its turn."""
        self._db.execute("UPDATE webhook SET state = 'failed', detail = ? WHERE id = ?", (detail, entry_id))

    def webhook_again(self) -> int:
        """What was set aside waits again, in its old place; returns how many."""
        return self._db.execute("UPDATE webhook SET state = 'waiting', detail = '' WHERE state = 'failed'").rowcount

    def webhook_counts(self) -> dict[str, int | None]:
        """`dropped` counts all that ever gave way; `last_success_ms` is None before the first."""
        by_state = dict(self._db.execute("SELECT state, count(*) FROM webhook GROUP BY 1").fetchall())
        meta = dict(self._db.execute("SELECT key, value FROM meta WHERE key IN ('webhook_dropped', 'webhook_success_ms')").fetchall())
        return {
            "waiting": by_state.get(WAITING, 0),
            "failed": by_state.get(FAILED, 0),
            "dropped": meta.get("webhook_dropped", 0),
            "last_success_ms": meta.get("webhook_success_ms"),
        }

    def _add(self, key: str, number: int) -> None:
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value", (key, number)
        )
