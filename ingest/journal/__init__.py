"""The journal: one SQLite file that holds everything the line has promised. One owner.

Raw messages are committed (WAL, fsync) before they are acknowledged to the broker. What follows
from a message (its place in the sequence, alerts, rejection, outbox row, counters) is written in
one transaction with the mark that it has been processed. Nothing else is state: a worker that
dies starts again from here.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import orjson

from ingest import failpoints
from ingest.errors import Mistake, NoRoom
from ingest.journal.alerts import Alerts
from ingest.journal.forget import Forget
from ingest.journal.guard import Guard
from ingest.journal.outbox import Outbox
from ingest.journal.rollups import Rollups
from ingest.journal.sessions import Sessions
from ingest.journal.tables import SCHEMA, SCHEMA_VERSION, UPGRADES, Ledger, Raw
from ingest.journal.webhook import Webhook
from ingest.lock import own

__all__ = ["FILE_NAME", "Journal", "Ledger", "Raw"]

FILE_NAME = "journal.db"
PAGE_BYTES = 4096
BUSY_MS = 5_000
_OS_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Journal(Outbox, Alerts, Sessions, Rollups, Forget, Webhook, Guard):
    """The open journal. All methods belong to one thread; changes need `with journal.step():`."""

    def __init__(self, directory: Path, wait_for_lock_s: float = 0.0, only_look: bool = False) -> None:
        self._only_look = only_look
        self.directory = directory
        self.path = directory / FILE_NAME
        self._lock = own(directory / "journal.lock", wait_for_lock_s, "worker")
        failpoints.reach("journal-locked")
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            self._lock.close()
            raise self._unusable(error) from error
        try:
            version = self._recognise()
            self._configure()
            if version == 0:
                self._create()
            else:
                self._upgrade(version)
        except sqlite3.DatabaseError as error:
            self._db.close()
            self._lock.close()
            raise self._unusable(error) from error
        except Mistake:
            self._db.close()
            self._lock.close()
            raise
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.uuid: str = meta["uuid"]
        self.unclean = bool(meta["running"])
        try:
            self._check_after_power_cut(meta)
            if not only_look:
                with self._transaction():
                    self._set("running", 1)
                    self._set("os_boot", _os_boot())
                failpoints.reach("journal-running")
        except BaseException:
            self._db.close()
            self._lock.close()
            raise
        self.read_again()

    def _unusable(self, error: sqlite3.Error) -> Exception:
        """What it means that the file cannot be opened. A disk that fails may work at the next start."""
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            return NoRoom(f"{self.path}: {error}")
        if code & 0xFF == sqlite3.SQLITE_IOERR:
            return error
        return Mistake(
            f"{self.path}: not a readable journal ({error}); restore it from a backup, or move it aside to start an empty one"
        )

    def read_again(self) -> None:
        """What is kept in memory of the file, from the file: at the start, and when a step could not be committed."""
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.processed_upto: int = meta["processed_upto"]
        self.aside: int = self._scalar("SELECT count(*) FROM aside")
        self.aside_last: str = meta["aside_last"]
        self.accepted: int = self._scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name='raw'), 0)")
        self.raw_pruned_ms: int = meta["raw_pruned_ms"]
        self.stored: int = meta["stored"]
        self.duplicate: int = meta["duplicate"]
        self.quarantined: int = meta["quarantined"]
        waiting, self.outbox = self._db.execute("SELECT count(*), count(raw_id) FROM outbox").fetchone()
        self.points: int = waiting - self.outbox
        self._refused: bytes | None = meta.get("refused")
        self.refused: dict[str, int] = orjson.loads(self._refused) if self._refused else self.quarantine_by_reason()
        self._read_waiting()

    def _configure(self) -> None:
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=4000",
            "mmap_size=0",
            "cache_size=-16384",
            "temp_store=MEMORY",
            "foreign_keys=OFF",
        ):
            self._db.execute(f"PRAGMA {pragma}")

    def _recognise(self) -> int:
        """The version of the file, 0 for a new one. Looks only: a file of another program stays as it is."""
        version = self._scalar("PRAGMA user_version")
        if version > SCHEMA_VERSION:
            raise Mistake(
                f"{self.path}: written by a newer version of this program (journal version {version}, "
                f"this program knows {SCHEMA_VERSION}); install that version, or choose another data directory"
            )
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"meta", "raw", "outbox"} <= tables:
            raise Mistake(f"{self.path}: is an SQLite file, but not a journal; choose another data directory")
        return version

    def _create(self) -> None:
        self._db.executescript("BEGIN IMMEDIATE;" + SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")
        start = {"uuid": uuid4().hex, "running": 0, "processed_upto": 0, "stored": 0, "duplicate": 0, "quarantined": 0, "raw_pruned_ms": 0}
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", list(start.items()))
        self._db.execute("COMMIT")

    def _upgrade(self, version: int) -> None:
        """An older journal becomes one of this version, step by step; each step happens whole or not at all."""
        for older in range(version, SCHEMA_VERSION):
            try:
                self._db.executescript(f"BEGIN IMMEDIATE;{UPGRADES[older]}PRAGMA user_version={older + 1};")
                failpoints.reach("upgrade-uncommitted")
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            failpoints.reach("upgraded")

    def _check_after_power_cut(self, meta: dict) -> None:
        """SQLite survives a killed process by itself; after the machine went down, look at the file."""
        if self.unclean and meta.get("os_boot") != _os_boot():
            verdict = self._scalar("PRAGMA quick_check(1)")
            if verdict != "ok":
                self._db.close()
                self._lock.close()
                raise Mistake(f"{self.path}: damaged ({' '.join(verdict.split())}); restore it from a backup before starting")

    def close(self) -> None:
        """An orderly end: the next start need not suspect the last one."""
        with suppress(NoRoom):  # the next start then suspects this end, and is none the worse
            if not self._only_look:
                with self._transaction():
                    self._set("running", 0)
            failpoints.reach("stop-clean")
            self.shorten_log()
        failpoints.reach("stop-checkpointed")
        self._db.close()
        self._lock.close()

    # -- its place on the disk --------------------------------------------------------------------

    def sizes(self) -> tuple[int, int]:
        """(bytes in use, those of the log included, bytes of the log). What was deleted is not in use; its place is taken again."""
        pages = self._scalar("PRAGMA page_count") - self._scalar("PRAGMA freelist_count")
        log = _length(self._log_path)
        return pages * PAGE_BYTES + log, log

    def work_in_log_at(self, log_bytes: int) -> None:
        """Work the log into the file whenever it has become so long."""
        self._db.execute(f"PRAGMA wal_autocheckpoint={max(1, log_bytes // PAGE_BYTES)}")

    def shorten_log(self) -> None:
        """Work the log into the file and give its place back, unless somebody reads in it. NoRoom if the file cannot grow."""
        try:
            self._shorten_log()
        except sqlite3.OperationalError as error:
            if self._is_full(error):
                raise NoRoom(str(error)) from error
            raise

    def _shorten_log(self) -> None:
        self._db.execute("PRAGMA busy_timeout=0")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.execute(f"PRAGMA busy_timeout={BUSY_MS}")

    @property
    def _log_path(self) -> Path:
        return self.path.with_name(FILE_NAME + "-wal")

    def _longest_file(self) -> int:
        return max(_length(self.path), _length(self._log_path))

    @contextmanager
    def step(self) -> Iterator[None]:
        """One transaction; on any failure nothing of it has happened."""
        with self._transaction():
            yield
            self._db.executemany(
                "UPDATE meta SET value = ? WHERE key = ?",
                (
                    (self.processed_upto, "processed_upto"),
                    (self.aside_last, "aside_last"),
                    (self.stored, "stored"),
                    (self.duplicate, "duplicate"),
                    (self.quarantined, "quarantined"),
                ),
            )
            refused = orjson.dumps(self.refused)
            if refused != self._refused:
                self._set("refused", refused)
                self._refused = refused

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """A step of which nothing stays on disk. What it has changed in memory is put right by `read_again`."""
        try:
            with self._transaction():
                yield
                raise _Rehearsed
        except _Rehearsed:
            pass

    def _set(self, key: str, value: object) -> None:
        self._db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    # -- devices, tracks, the ledger ------------------------------------------------------------

    def devices(self) -> dict[str, bytes]:
        return {d: s for d, s in self._db.execute("SELECT device_id, state FROM device")}

    def put_devices(self, rows: list[tuple[str, bytes]]) -> None:
        self._insert("INSERT OR REPLACE INTO device VALUES", rows)

    def track(self, device_id: str, session: str) -> bytes | None:
        row = self._db.execute(
            "SELECT state FROM track WHERE device_id = ? AND session = ?", (device_id, session)
        ).fetchone()
        return row[0] if row else None

    def drop_track(self, device_id: str, session: str) -> None:
        """Late data have made the kept state untrue: the next start begins the session anew."""
        self._db.execute("DELETE FROM track WHERE device_id = ? AND session = ?", (device_id, session))

    def put_track(self, device_id: str, session: str, frontier_ms: int, state: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO track VALUES (?, ?, ?, ?)", (device_id, session, frontier_ms, state))

    def told(self) -> dict[str, tuple[int, bytes]]:
        """Device → when its standing was last told to the store, and what."""
        return {d: (told_ms, standing) for d, told_ms, standing in self._db.execute("SELECT device_id, told_ms, standing FROM told")}

    def put_told(self, rows: list[tuple[str, int, bytes]]) -> None:
        self._insert("INSERT OR REPLACE INTO told VALUES", rows)

    def groups_told(self) -> list[tuple[str, str]]:
        """Models and firmware of which the store was last told that there are devices."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'groups_told'").fetchone()
        return [(model, fw) for model, fw in orjson.loads(row[0])] if row else []

    def put_groups_told(self, groups: list[tuple[str, str]]) -> None:
        self._set("groups_told", orjson.dumps(groups))

    @property
    def unprocessed_count(self) -> int:
        return self.accepted - self.processed_upto + self.aside

    def ledger(self) -> Ledger:
        return Ledger(
            accepted=self.accepted,
            inbox=self.unprocessed_count,
            outbox=self.outbox,
            stored=self.stored,
            duplicate=self.duplicate,
            quarantined=self.quarantined,
        )


class _Rehearsed(Exception):
    """Ends a rehearsal."""


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _os_boot() -> str:
    try:
        return _OS_BOOT_ID.read_text().strip()
    except OSError:
        return ""
