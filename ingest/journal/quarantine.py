"""Refused messages: each once, with its reason and all its bytes."""

from ingest.journal.part import Part, where
from ingest.journal.tables import Raw

_NAMES = ("id", "received_ms", "topic", "device_id", "boot_id", "seq", "reason", "detail", "bytes", "times", "state")
_COLUMNS = ", ".join(_NAMES).replace("bytes", "length(payload)")


class Quarantine(Part):
    quarantined: int
    refused: dict[str, int]
    """Messages by reason that are quarantined, and of which the store has not been told."""

    def count_refused(self, reason: str) -> None:
        self.quarantined += 1
        name = str(reason)  # of a StrEnum too: it becomes a key in JSON
        self.refused[name] = self.refused.get(name, 0) + 1

    def refuse(self, raw: Raw, reason: str, detail: str, identity: tuple, fingerprint: bytes) -> bool:
        """Quarantine a message; False if the very same one is there already (it is counted there)."""
        known = self._db.execute("SELECT id FROM quarantine WHERE fingerprint = ?", (fingerprint,)).fetchone()
        if known:
            self._db.execute("UPDATE quarantine SET times = times + 1 WHERE id = ?", known)
            return False
        self._db.execute(
            "INSERT INTO quarantine (raw_id, received_ms, topic, payload, reason, detail, device_id, boot_id, seq, fingerprint) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (raw.id, raw.received_ms, raw.topic, raw.payload, reason, detail, *identity, fingerprint),
        )
        return True

    def quarantine(self, reason: str | None = None, device_id: str | None = None, most: int = 100) -> list[dict]:
        """Refused messages without their bytes, newest first."""
        clause, values = where({"reason": reason, "device_id": device_id})
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM quarantine {clause} ORDER BY id DESC LIMIT ?", (*values, most))
        return [_entry(row) for row in rows]

    def quarantined_entry(self, entry_id: int) -> tuple[dict, bytes] | None:
        """One refused message and its bytes."""
        row = self._db.execute(f"SELECT {_COLUMNS}, payload FROM quarantine WHERE id = ?", (entry_id,)).fetchone()
        return (_entry(row[:-1]), row[-1]) if row else None

    def quarantine_by_reason(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT reason, count(*) FROM quarantine GROUP BY reason ORDER BY 2 DESC"))


def _entry(row: tuple) -> dict:
    entry = dict(zip(_NAMES, row, strict=True))
    entry["topic"] = entry["topic"].decode("utf-8", errors="backslashreplace")
    return entry
