"""What the store has confirmed, read beside the worker: nothing is locked, written or kept in memory."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

from ingest.journal.part import Part


class Confirmed(Part):
    """The messages that were confirmed at the moment of opening, as far as they are still on record."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        # What came after the oldest message that still waits is left out: it may wait too.
        self._before: int = self._scalar(
            "SELECT min(coalesce((SELECT min(raw_id) FROM outbox), waits), coalesce((SELECT min(raw_id) FROM aside), waits)) "
            "FROM (SELECT value + 1 AS waits FROM meta WHERE key = 'processed_upto')"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def keys(self, device_id: str, since_ms: int) -> Iterator[tuple[int, int, int]]:
        """(boot_id, lane, seq) of each message with readings since a time that the store took, in this order."""
        return self._db.execute(
            "SELECT boot_id, lane, seq FROM message WHERE device_id = ? AND lane < 2 AND raw_id < ? AND first_ms >= ? "
            "AND NOT EXISTS (SELECT 1 FROM quarantine WHERE quarantine.raw_id = message.raw_id) ORDER BY boot_id, lane, seq",
            (device_id, self._before, since_ms),
        )
