"""The journal as somebody else may look at it: nothing is locked and nothing is written.

SQLite reads the file of a running worker through its log (WAL), each query as of one instant. No
transaction stays open between queries, so the worker is never kept from shortening its log.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

from ingest.device import Device
from ingest.errors import Mistake
from ingest.journal import FILE_NAME
from ingest.journal.sessions import Sessions
from ingest.journal.tables import SCHEMA_VERSION


class Span(NamedTuple):
    """From when to when there are readings on record of a session, and in how many messages."""

    session: str
    first_ms: int
    last_ms: int
    messages: int


class Reader(Sessions):
    """An onlooker of a journal, as of the moment of opening: what is accepted later is not seen."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        if not self.path.is_file():
            raise Mistake(f"{directory}: there is no journal; name the data directory of a worker with --data-dir")
        try:
            self._db = sqlite3.connect(f"file:{quote(str(self.path.resolve()))}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise self._mistake(error) from error
        try:
            self._recognise()
            self.upto: int = self._scalar("SELECT coalesce(max(id), 0) FROM raw")
            self.observed_until_ms: int = self._scalar("SELECT coalesce(max(last_ms), 0) FROM message")
        except (Mistake, sqlite3.Error) as error:
            self.__exit__(None, error, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise self._mistake(error) from error

    def _mistake(self, error: sqlite3.Error) -> Mistake:
        """What SQLite cannot do, as a sentence."""
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            return Mistake(
                f"{self.path}: cannot be read ({error}); {self.path.name}-wal and {self.path.name}-shm must be beside it, or this "
                "user be allowed to make them: run this as the worker's user, or copy the directory and name the copy with --data-dir"
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Mistake(f"{self.path}: cannot be read now ({error}); try again")
        return Mistake(f"{self.path}: not a readable journal ({error}); restore it from a backup")

    def _recognise(self) -> None:
        version = self._scalar("PRAGMA user_version")
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"meta", "raw", "message"} <= tables:
            raise Mistake(f"{self.path}: is an SQLite file, but not a journal; choose another data directory")
        if version > SCHEMA_VERSION:
            raise Mistake(f"{self.path}: written by a newer version of this program; install that version")
        if version < SCHEMA_VERSION:
            raise Mistake(f"{self.path}: written by an older version of this program; start its worker once with this one")

    def devices(self) -> list[str]:
        """All devices of which there is a message."""
        return [device_id for (device_id,) in self._db.execute("SELECT device_id FROM device ORDER BY device_id")]

    def device(self, device_id: str) -> Device:
        """What the worker remembers of a device."""
        row = self._db.execute("SELECT state FROM device WHERE device_id = ?", (device_id,)).fetchone()
        return Device.from_json(row[0]) if row else Device(device_id)

    def spans(self, device_id: str) -> list[Span]:
        """The sessions of a device, in order of time."""
        rows = self._db.execute(
            "SELECT session, min(first_ms), max(last_ms), count(*) FROM message "
            "WHERE device_id = ? AND lane != 1 AND raw_id <= ? GROUP BY session ORDER BY 2, 1",
            (device_id, self.upto),
        )
        return [Span(*row) for row in rows]

    def messages(self, device_id: str, session: str) -> Iterator[tuple[int, bytes, bytes, int, int]]:
        """(received_ms, topic, payload, lane, event_ms) of a session's messages, in order of receipt."""
        yield from self._db.execute(
            "SELECT received_ms, topic, payload, lane, event_ms FROM message JOIN raw ON raw.id = message.raw_id "
            "WHERE device_id = ? AND session = ? AND lane != 1 AND raw_id <= ? ORDER BY raw.id",
            (device_id, session, self.upto),
        )

    def first_after(self, device_id: str, session: str, after_ms: int) -> int | None:
        """When a session first speaks after a time."""
        return self._scalar(
            "SELECT min(max(first_ms, ?)) FROM message WHERE device_id = ? AND session = ? AND last_ms > ? AND lane = 0 AND raw_id <= ?",
            after_ms, device_id, session, after_ms, self.upto,
        )  # fmt: skip
