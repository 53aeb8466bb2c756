"""The journal: one SQLite file that holds everything the line has promised. One owner.

Raw messages are committed (WAL, fsync) before they are acknowledged to the broker. What follows
from a message (its place in the sequence, alerts, rejection, outbox row, counters) is written in
one transaction with the mark that it has been processed. Nothing else is state: a worker that
dies starts again from here.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import orjson

from ingest.errors import Mistake
from ingest.lock import own
from ingest.points import Entry
from schemas.alerts import Alert, AlertState
from schemas.topics import device_level

SCHEMA_VERSION = 1
FILE_NAME = "journal.db"
OVER, ATTENTION = "over", "attention"
_ATTENTION = "state = 'open' OR (state = 'closed' AND acknowledged = 0 AND severity != 'info')"
_OS_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE raw (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_ms INTEGER NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL, retained INTEGER NOT NULL
);
CREATE TABLE message (
    device_id TEXT NOT NULL, boot_id INTEGER NOT NULL, lane INTEGER NOT NULL, seq INTEGER NOT NULL,
    raw_id INTEGER NOT NULL, session TEXT NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    event_ms INTEGER NOT NULL, clock_ok INTEGER NOT NULL,
    PRIMARY KEY (device_id, boot_id, lane, seq)
) WITHOUT ROWID;
CREATE INDEX message_of_session ON message (device_id, session, last_ms);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    raw_id INTEGER NOT NULL, received_ms INTEGER NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, device_id TEXT, boot_id INTEGER, seq INTEGER,
    fingerprint BLOB NOT NULL, times INTEGER NOT NULL DEFAULT 1, state TEXT NOT NULL DEFAULT 'open'
);
CREATE INDEX quarantine_fingerprint ON quarantine (fingerprint);
CREATE INDEX quarantine_raw ON quarantine (raw_id);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, raw_id INTEGER, stream TEXT, event_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL, clock_ok INTEGER NOT NULL, point BLOB
);
CREATE TABLE device (device_id TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE track (
    device_id TEXT NOT NULL, session TEXT NOT NULL, frontier_ms INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (device_id, session)
) WITHOUT ROWID;
CREATE TABLE alert (
    id TEXT PRIMARY KEY, device_id TEXT NOT NULL, session TEXT NOT NULL, rule TEXT NOT NULL,
    severity TEXT NOT NULL, state TEXT NOT NULL, opened_ms INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL, doc BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX alert_of_session ON alert (device_id, session);
CREATE INDEX alert_by_time ON alert (state, opened_ms);
CREATE TABLE alert_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL, at_ms INTEGER NOT NULL, event TEXT NOT NULL, actor TEXT, note TEXT, doc BLOB NOT NULL
);
CREATE INDEX alert_event_of_alert ON alert_event (alert_id);
CREATE TABLE notice (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE attempt (raw_id INTEGER PRIMARY KEY, times INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Raw:
    """A delivery on record. `topic` and `payload` are what the broker handed over."""

    id: int
    received_ms: int
    topic: bytes
    payload: bytes
    retained: bool


@dataclass(slots=True)
class Ledger:
    """Every message that was acknowledged, and where it is: valid at any instant."""

    accepted: int
    inbox: int
    outbox: int
    stored: int
    duplicate: int
    quarantined: int

    @property
    def pending(self) -> int:
        return self.inbox + self.outbox

    @property
    def balanced(self) -> bool:
        return self.accepted == self.pending + self.stored + self.duplicate + self.quarantined

    def to_json(self) -> dict[str, int]:
        return {
            "accepted": self.accepted,
            "inbox": self.inbox,
            "outbox": self.outbox,
            "pending": self.pending,
            "stored": self.stored,
            "duplicate": self.duplicate,
            "quarantined": self.quarantined,
        }


class Journal:
    """The open journal. All methods belong to one thread; changes need `with journal.step():`."""

    def __init__(self, directory: Path, wait_for_lock_s: float = 0.0) -> None:
        self.directory = directory
        self.path = directory / FILE_NAME
        self._lock = own(directory / "journal.lock", wait_for_lock_s, "worker")
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._configure()
            self._migrate()
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise Mistake(
                f"{self.path}: not a readable journal ({error}); restore it from a backup, "
                "or move it aside to start an empty one"
            ) from error
        except Mistake:
            self._db.close()
            self._lock.close()
            raise
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        self.uuid: str = meta["uuid"]
        self.unclean = bool(meta["running"])
        self._check_after_power_cut(meta)
        self._set("running", 1)
        self._set("os_boot", _os_boot())
        self.processed_upto: int = meta["processed_upto"]
        self.accepted: int = self._scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name='raw'), 0)")
        self.stored: int = meta["stored"]
        self.duplicate: int = meta["duplicate"]
        self.quarantined: int = meta["quarantined"]
        self.outbox: int = self._scalar("SELECT count(*) FROM outbox WHERE raw_id IS NOT NULL")

    def _configure(self) -> None:
        for pragma in (
            "page_size=4096",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=4000",
            "mmap_size=0",
            "cache_size=-65536",
            "temp_store=MEMORY",
            "foreign_keys=OFF",
        ):
            self._db.execute(f"PRAGMA {pragma}")

    def _migrate(self) -> None:
        version = self._scalar("PRAGMA user_version")
        if version > SCHEMA_VERSION:
            raise Mistake(
                f"{self.path}: written by a newer version of this program (journal version {version}, "
                f"this program knows {SCHEMA_VERSION}); install that version, or choose another data directory"
            )
        if version == SCHEMA_VERSION:
            return
        if self._scalar("SELECT count(*) FROM sqlite_master") > 0:
            raise Mistake(f"{self.path}: is an SQLite file, but not a journal; choose another data directory")
        self._db.executescript("BEGIN IMMEDIATE;" + _SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")
        start = {"uuid": uuid4().hex, "running": 0, "processed_upto": 0, "stored": 0, "duplicate": 0, "quarantined": 0}
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", list(start.items()))
        self._db.execute("COMMIT")

    def _check_after_power_cut(self, meta: dict) -> None:
        """SQLite survives a killed process by itself; after the machine went down, look at the file."""
        if self.unclean and meta.get("os_boot") != _os_boot():
            verdict = self._scalar("PRAGMA quick_check(1)")
            if verdict != "ok":
                raise Mistake(f"{self.path}: damaged ({verdict}); restore it from a backup before starting")

    def close(self) -> None:
        """An orderly end: the next start need not suspect the last one."""
        self._set("running", 0)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._lock.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """One transaction; on any failure nothing of it has happened."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.executemany(
                "UPDATE meta SET value = ? WHERE key = ?",
                (
                    (self.processed_upto, "processed_upto"),
                    (self.stored, "stored"),
                    (self.duplicate, "duplicate"),
                    (self.quarantined, "quarantined"),
                ),
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _set(self, key: str, value: object) -> None:
        self._db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    def _scalar(self, query: str, *parameters: object):
        return self._db.execute(query, parameters).fetchone()[0]

    # -- accept -----------------------------------------------------------------------------------

    def accept(self, deliveries: Iterable[tuple[int, bytes, bytes, bool]]) -> list[Raw]:
        """Put deliveries (received_ms, topic, payload, retained) on disk; they may be acknowledged then."""
        rows = [Raw(self.accepted + at, *delivery) for at, delivery in enumerate(deliveries, start=1)]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO raw VALUES (?, ?, ?, ?, ?)",
                [(raw.id, raw.received_ms, raw.topic, raw.payload, raw.retained) for raw in rows],
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if rows:
            self.accepted = rows[-1].id
        return rows

    def inbox(self, after: int, most: int) -> list[Raw]:
        """Accepted messages that have not been processed, oldest first."""
        rows = self._db.execute(
            "SELECT id, received_ms, topic, payload, retained FROM raw WHERE id > ? ORDER BY id LIMIT ?",
            (after, most),
        )
        return [Raw(i, r, t, p, bool(f)) for i, r, t, p, f in rows]

    def attempts(self, raw_id: int) -> int:
        """Note, on disk, that this message is about to be handled; returns how often it was before."""
        with self.step():
            row = self._db.execute("SELECT times FROM attempt WHERE raw_id = ?", (raw_id,)).fetchone()
            self._db.execute(
                "INSERT INTO attempt VALUES (?, 1) ON CONFLICT (raw_id) DO UPDATE SET times = times + 1", (raw_id,)
            )
        return row[0] if row else 0

    def forget_attempts(self) -> None:
        self._db.execute("DELETE FROM attempt")

    def prune_raw(self, before_ms: int, most: int) -> None:
        """Forget messages received before a time, at most so many at once, never an unstored one."""
        row = self._db.execute("SELECT raw_id FROM outbox WHERE raw_id IS NOT NULL ORDER BY id LIMIT 1").fetchone()
        first_needed = row[0] if row else self.processed_upto
        old = self._db.execute(
            "SELECT id, topic, payload FROM raw WHERE id < ? AND received_ms < ? ORDER BY id LIMIT ?",
            (first_needed, before_ms, most),
        ).fetchall()
        self._db.executemany("DELETE FROM message WHERE device_id = ? AND boot_id = ? AND seq = ? AND raw_id = ?", _keys(old))
        self._db.executemany("DELETE FROM raw WHERE id = ?", [(raw_id,) for raw_id, _, _ in old])

    # -- messages ---------------------------------------------------------------------------------

    def add_messages(self, rows: list[tuple]) -> None:
        """Rows of the table `message`, in its order of columns."""
        self._db.executemany("INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def payload_of(self, device_id: str, boot_id: int, lane: int, seq: int) -> bytes | None:
        """The bytes first received under this identity, if they are still kept."""
        row = self._db.execute(
            "SELECT raw.payload FROM message JOIN raw ON raw.id = message.raw_id "
            "WHERE device_id = ? AND boot_id = ? AND lane = ? AND seq = ?",
            (device_id, boot_id, lane, seq),
        ).fetchone()
        return row[0] if row else None

    def session_messages(self, device_id: str, session: str, after_ms: int) -> list[tuple]:
        """What is on record of a session with readings after a time: (raw, lane, event_ms)."""
        rows = self._db.execute(
            "SELECT raw.id, received_ms, topic, payload, retained, lane, event_ms FROM message "
            "JOIN raw ON raw.id = message.raw_id WHERE device_id = ? AND session = ? AND last_ms > ? "
            "ORDER BY raw.id",
            (device_id, session, after_ms),
        )
        return [(Raw(i, r, t, p, bool(f)), lane, event_ms) for i, r, t, p, f, lane, event_ms in rows]

    # -- quarantine -------------------------------------------------------------------------------

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
        where, values = _where({"reason": reason, "device_id": device_id})
        rows = self._db.execute(
            "SELECT id, received_ms, topic, device_id, boot_id, seq, reason, detail, length(payload), times, state "
            f"FROM quarantine {where} ORDER BY id DESC LIMIT ?",
            (*values, most),
        )
        names = ("id", "received_ms", "topic", "device_id", "boot_id", "seq", "reason", "detail", "bytes", "times", "state")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        for entry in found:
            entry["topic"] = entry["topic"].decode("utf-8", errors="backslashreplace")
        return found

    def quarantined_entry(self, entry_id: int) -> tuple[dict, bytes] | None:
        row = self._db.execute("SELECT device_id, payload FROM quarantine WHERE id = ?", (entry_id,)).fetchone()
        if row is None:
            return None
        rows = self._db.execute(
            "SELECT id, received_ms, topic, device_id, boot_id, seq, reason, detail, length(payload), times, state "
            "FROM quarantine WHERE id = ?",
            (entry_id,),
        ).fetchall()
        names = ("id", "received_ms", "topic", "device_id", "boot_id", "seq", "reason", "detail", "bytes", "times", "state")
        entry = dict(zip(names, rows[0], strict=True))
        entry["topic"] = entry["topic"].decode("utf-8", errors="backslashreplace")
        return entry, row[1]

    def quarantine_by_reason(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT reason, count(*) FROM quarantine GROUP BY reason ORDER BY 2 DESC"))

    # -- outbox -----------------------------------------------------------------------------------

    def enqueue_messages(self, rows: list[tuple[str, int, str, int, int, bool]]) -> None:
        """Messages to be stored: (device_id, raw_id, stream, event_ms, received_ms, clock_ok)."""
        self._db.executemany(
            "INSERT INTO outbox (device_id, raw_id, stream, event_ms, received_ms, clock_ok) VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
        self.outbox += len(rows)

    def enqueue_point(self, device_id: str, event_ms: int, point: bytes) -> None:
        """A point made by the line itself."""
        self._db.execute(
            "INSERT INTO outbox (device_id, event_ms, received_ms, clock_ok, point) VALUES (?, ?, ?, 1, ?)",
            (device_id, event_ms, event_ms, point),
        )

    def outbox_after(self, entry_id: int, most: int) -> list[Entry]:
        rows = self._db.execute(
            "SELECT o.id, o.device_id, o.raw_id, o.stream, o.event_ms, o.received_ms, o.clock_ok, "
            "coalesce(o.point, r.payload) FROM outbox o LEFT JOIN raw r ON r.id = o.raw_id "
            "WHERE o.id > ? ORDER BY o.id LIMIT ?",
            (entry_id, most),
        )
        return [Entry(i, d, raw, s, e, r, bool(c), p) for i, d, raw, s, e, r, c, p in rows]

    def oldest_outbox_ms(self) -> int | None:
        row = self._db.execute("SELECT received_ms FROM outbox WHERE raw_id IS NOT NULL ORDER BY id LIMIT 1").fetchone()
        return row[0] if row else None

    def settle(self, entries: list[Entry]) -> None:
        """The store has confirmed these."""
        self._db.executemany("DELETE FROM outbox WHERE id = ?", [(e.id,) for e in entries])
        messages = sum(e.is_message for e in entries)
        self.outbox -= messages
        self.stored += messages

    def settle_upto(self, entry_id: int) -> dict[str, int]:
        """The store already held these when the worker died; returns messages by device."""
        by_device = dict(
            self._db.execute(
                "SELECT device_id, count(*) FROM outbox WHERE id <= ? AND raw_id IS NOT NULL GROUP BY device_id", (entry_id,)
            )
        )
        self._db.execute("DELETE FROM outbox WHERE id <= ?", (entry_id,))
        self.outbox -= sum(by_device.values())
        self.stored += sum(by_device.values())
        return by_device

    def refused_by_store(self, entry: Entry, reason: str, detail: str, fingerprint: bytes) -> None:
        """The store will never take this message: it moves from the outbox to quarantine."""
        self._db.execute("DELETE FROM outbox WHERE id = ?", (entry.id,))
        if not entry.is_message:
            return
        raw = self.raw(entry.raw_id)
        document = orjson.loads(entry.payload)
        self.refuse(raw, reason, detail, (entry.device_id, document["boot_id"], document["seq"]), fingerprint)
        self.outbox -= 1
        self.quarantined += 1

    def raw(self, raw_id: int) -> Raw:
        i, r, t, p, f = self._db.execute(
            "SELECT id, received_ms, topic, payload, retained FROM raw WHERE id = ?", (raw_id,)
        ).fetchone()
        return Raw(i, r, t, p, bool(f))

    # -- devices and tracks -----------------------------------------------------------------------

    def devices(self) -> dict[str, bytes]:
        return {d: s for d, s in self._db.execute("SELECT device_id, state FROM device")}

    def put_devices(self, rows: list[tuple[str, bytes]]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO device VALUES (?, ?)", rows)

    def track(self, device_id: str, session: str) -> bytes | None:
        row = self._db.execute(
            "SELECT state FROM track WHERE device_id = ? AND session = ?", (device_id, session)
        ).fetchone()
        return row[0] if row else None

    def put_track(self, device_id: str, session: str, frontier_ms: int, state: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO track VALUES (?, ?, ?, ?)", (device_id, session, frontier_ms, state))

    # -- alerts -----------------------------------------------------------------------------------

    def alert(self, alert_id: str) -> Alert | None:
        row = self._db.execute("SELECT doc FROM alert WHERE id = ?", (alert_id,)).fetchone()
        return Alert.model_validate_json(row[0]) if row else None

    def put_alert(self, alert: Alert, session: str) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                alert.id, alert.device_id, session, alert.rule, alert.severity, alert.state, alert.opened_ms,
                alert.acknowledged is not None, alert.model_dump_json().encode(),
            ),  # fmt: skip
        )

    def alerts_of_session(self, device_id: str, session: str) -> list[Alert]:
        rows = self._db.execute("SELECT doc FROM alert WHERE device_id = ? AND session = ?", (device_id, session))
        return [Alert.model_validate_json(doc) for (doc,) in rows]

    def session_of_alert(self, alert_id: str) -> str:
        return self._scalar("SELECT session FROM alert WHERE id = ?", alert_id)

    def alerts(
        self,
        state: str | None = None,
        device_id: str | None = None,
        severity: str | None = None,
        rule: str | None = None,
        most: int = 200,
    ) -> list[dict]:
        """Alerts as JSON, newest first. `state` may also be OVER (closed or
        withdrawn) or ATTENTION (open, or at least a warning that nobody has acknowledged)."""
        where, values = _where({"device_id": device_id, "severity": severity, "rule": rule})
        if state == OVER:
            where, values = f"{where or 'WHERE true'} AND state != ?", [*values, AlertState.OPEN]
        elif state == ATTENTION:
            where = f"{where or 'WHERE true'} AND ({_ATTENTION})"
        elif state is not None:
            where, values = f"{where or 'WHERE true'} AND state = ?", [*values, state]
        rows = self._db.execute(f"SELECT doc FROM alert {where} ORDER BY opened_ms DESC, id LIMIT ?", (*values, most))
        return [orjson.loads(doc) for (doc,) in rows]

    def alerts_between(self, device_id: str, from_ms: int, to_ms: int, most: int = 200) -> list[dict]:
        """A device's alerts that were open at some time of a span, newest first."""
        rows = self._db.execute("SELECT doc FROM alert WHERE device_id = ? AND opened_ms <= ? ORDER BY opened_ms DESC", (device_id, to_ms))
        found = (orjson.loads(doc) for (doc,) in rows)
        shown = (a for a in found if a["state"] != AlertState.WITHDRAWN and (a["closed_ms"] or to_ms) >= from_ms)
        return [alert for alert, _ in zip(shown, range(most), strict=False)]

    def alerts_open(self) -> dict[str, dict[str, int]]:
        """Open alerts by device, then severity; `unacknowledged` counts those, open or not, that wait for a person."""
        counts: dict[str, dict[str, int]] = {}
        for device_id, severity, state, acknowledged, number in self._db.execute(
            f"SELECT device_id, severity, state, acknowledged, count(*) FROM alert WHERE {_ATTENTION} GROUP BY 1, 2, 3, 4"
        ):
            of_device = counts.setdefault(device_id, {"critical": 0, "warning": 0, "info": 0, "unacknowledged": 0})
            if state == AlertState.OPEN:
                of_device[severity] += number
            if not acknowledged:
                of_device["unacknowledged"] += number
        return counts

    def add_event(self, alert_id: str, at_ms: int, event: str, actor: str | None, note: str | None, doc: bytes) -> None:
        self._db.execute(
            "INSERT INTO alert_event (alert_id, at_ms, event, actor, note, doc) VALUES (?, ?, ?, ?, ?, ?)",
            (alert_id, at_ms, event, actor, note, doc),
        )

    def events(self, alert_id: str) -> list[dict]:
        rows = self._db.execute(
            "SELECT at_ms, event, actor, note, doc FROM alert_event WHERE alert_id = ? ORDER BY id", (alert_id,)
        )
        return [
            {"at_ms": at, "event": event, "actor": actor, "note": note, "alert": orjson.loads(doc)}
            for at, event, actor, note, doc in rows
        ]

    # -- notices (what is to be published) ----------------------------------------------------------

    def add_notice(self, topic: str, payload: bytes) -> None:
        self._db.execute("INSERT INTO notice (topic, payload) VALUES (?, ?)", (topic, payload))

    def notices_after(self, notice_id: int, most: int) -> list[tuple[int, str, bytes]]:
        return self._db.execute(
            "SELECT id, topic, payload FROM notice WHERE id > ? ORDER BY id LIMIT ?", (notice_id, most)
        ).fetchall()

    def notices_waiting(self) -> int:
        return self._scalar("SELECT count(*) FROM notice")

    def drop_notices(self, ids: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM notice WHERE id = ?", [(i,) for i in ids])

    # -- the ledger -------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        return Ledger(
            accepted=self.accepted,
            inbox=self.accepted - self.processed_upto,
            outbox=self.outbox,
            stored=self.stored,
            duplicate=self.duplicate,
            quarantined=self.quarantined,
        )

    def message_keys(self, device_id: str) -> Iterator[tuple[int, int, int]]:
        """(boot_id, lane, seq) of every message of a device that the store has confirmed.

        What came after the oldest message that still waits is left out: it may wait too.
        """
        row = self._db.execute("SELECT raw_id FROM outbox WHERE raw_id IS NOT NULL ORDER BY id LIMIT 1").fetchone()
        before = row[0] if row else self.processed_upto + 1
        yield from self._db.execute(
            "SELECT boot_id, lane, seq FROM message WHERE device_id = ? AND lane < 2 AND raw_id < ? "
            "AND NOT EXISTS (SELECT 1 FROM quarantine WHERE quarantine.raw_id = message.raw_id)",
            (device_id, before),
        )


def _keys(rows: list[tuple[int, bytes, bytes]]) -> Iterator[tuple[str, int, int, int]]:
    """Under which keys the table `message` may know these raw messages."""
    for raw_id, topic, payload in rows:
        device_id = device_level(topic.decode("utf-8", errors="replace"))
        if device_id is None:
            continue
        yield device_id, 0, raw_id, raw_id
        try:
            document = orjson.loads(payload)
            yield device_id, document["boot_id"], document["seq"], raw_id
        except (ValueError, TypeError, KeyError):
            continue


def _where(filters: dict[str, object | None]) -> tuple[str, list[object]]:
    given = {name: value for name, value in filters.items() if value is not None}
    if not given:
        return "", []
    return "WHERE " + " AND ".join(f"{name} = ?" for name in given), list(given.values())


def _os_boot() -> str:
    try:
        return _OS_BOOT_ID.read_text().strip()
    except OSError:
        return ""
