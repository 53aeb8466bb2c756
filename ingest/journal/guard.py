"""What guards the line: attempts to get in, and what a restart has to know of what could be seen."""

from typing import Any

import orjson

from ingest.journal.part import Part
from ingest.safety.line import SESSION
from ingest.security import SecurityEvent

SAME_MS = 3_600_000
"""The same attempts that follow each other within this time are one row."""

MOST_ROWS = 10_000
"""Beyond, the oldest give way: a flood of attempts must not fill the disk."""


class Guard(Part):
    security_waiting: dict[str, int]
    """Events by kind that the store has not been told of."""

    def note_security(self, event: SecurityEvent) -> None:
        kind = event.kind.value
        self.security_waiting[kind] = self.security_waiting.get(kind, 0) + event.count
        self._put_waiting()
        row = self._db.execute(
            "SELECT id FROM security_event WHERE last_ms >= ? AND kind = ? AND who = ? AND source = ? ORDER BY id DESC LIMIT 1",
            (event.first_ms - SAME_MS, kind, event.who, event.source),
        ).fetchone()
        if row:
            self._db.execute(
                "UPDATE security_event SET last_ms = max(last_ms, ?), times = times + ?, detail = ? WHERE id = ?",
                (event.last_ms, event.count, event.detail, row[0]),
            )
            return
        self._db.execute(
            "INSERT INTO security_event (first_ms, last_ms, kind, who, source, detail, times) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (event.first_ms, event.last_ms, kind, event.who, event.source, event.detail, event.count),
        )
        self._db.execute("DELETE FROM security_event WHERE id <= (SELECT max(id) FROM security_event) - ?", (MOST_ROWS,))

    def take_security_waiting(self) -> dict[str, int]:
        found, self.security_waiting = self.security_waiting, {}
        if found:
            self._put_waiting()
        return found

    def security_events(self, kind: str | None = None, most: int = 200) -> list[dict[str, Any]]:
        """The newest first."""
        chosen = "WHERE kind = ?" if kind else ""
        rows = self._db.execute(
            f"SELECT first_ms, last_ms, kind, who, source, detail, times FROM security_event {chosen} ORDER BY last_ms DESC, id DESC LIMIT ?",
            (*([kind] if kind else []), most),
        )
        names = ("first_ms", "last_ms", "kind", "who", "source", "detail", "times")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def security_by_kind(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT kind, sum(times) FROM security_event GROUP BY kind ORDER BY kind"))

    def forget_line(self, before_ms: int) -> None:
        """Security events, and alerts on the line itself that were over, before a time."""
        self._db.execute("DELETE FROM security_event WHERE last_ms < ?", (before_ms,))
        old = self._db.execute("SELECT id FROM alert WHERE session = ? AND ended_ms < ?", (SESSION, before_ms)).fetchall()
        self._db.executemany("DELETE FROM alert_event WHERE alert_id = ?", old)
        self._db.executemany("DELETE FROM alert WHERE id = ?", old)

    def watch_state(self) -> dict[str, Any]:
        """What was last kept by `put_watch_state`; empty at first."""
        return self._kept("watch") or {}

    def put_watch_state(self, state: dict[str, Any]) -> None:
        self._set("watch", orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS))

    def certificates_told(self) -> dict[str, list[str]]:
        """Of which certificates was told that they end; what was last kept by `put_certificates_told`."""
        return self._kept("certificates") or {}

    def put_certificates_told(self, told: dict[str, list[str]]) -> None:
        self._set("certificates", orjson.dumps(told))

    def outbox_span(self) -> tuple[int | None, int]:
        """The oldest entry that waits for the store, and the newest there ever was."""
        oldest = self._db.execute("SELECT id FROM outbox ORDER BY id LIMIT 1").fetchone()
        newest = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return (oldest[0] if oldest else None), (newest[0] if newest else 0)

    def _read_waiting(self) -> None:
        self.security_waiting = self._kept("security") or {}

    def _put_waiting(self) -> None:
        self._set("security", orjson.dumps(self.security_waiting))

    def _kept(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return orjson.loads(row[0]) if row else None
