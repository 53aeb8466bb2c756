"""Small stands for the trials: a webhook that takes everything, a clock that can be set, a journal of the last version."""

import mmap
import sqlite3
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

LOOPBACK = "127.0.0.1"
_MS = struct.Struct("<q")


class Webhook:
    """Counts what is posted to it, by idempotency key."""

    def __init__(self) -> None:
        self.keys: Counter[str] = Counter()

    def __enter__(self) -> Self:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hook.keys[self.headers["Idempotency-Key"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """It only counts."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class SetClock:
    """A clock file for a worker to follow: true time, and what it has been put ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ahead_ms = 0
        path.write_bytes(_MS.pack(time.time_ns() // 1_000_000))
        self._file = path.open("r+b")
        self._page = mmap.mmap(self._file.fileno(), _MS.size)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(5)
        self._page.close()
        self._file.close()

    def put_ahead(self, seconds: float) -> None:
        self._ahead_ms += int(seconds * 1000)

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            _MS.pack_into(self._page, 0, time.time_ns() // 1_000_000 + self._ahead_ms)


VERSION_3 = {
    "quarantine": {
        "id", "raw_id", "received_ms", "topic", "payload", "reason", "detail", "device_id", "boot_id", "seq", "fingerprint", "times", "state",
    },
    "raw": {"id", "received_ms", "topic", "payload", "retained"},
}  # fmt: skip
TABLES_3 = {
    "meta", "raw", "message", "quarantine", "outbox", "device", "track", "alert", "alert_event", "notice", "attempt", "session", "boot",
    "identity", "held", "webhook", "told", "trend_due", "week_due", "week", "life", "sqlite_sequence",
}  # fmt: skip
INDEXES_3 = {"quarantine_fingerprint", "quarantine_raw"}


def make_version_3(journal: Path) -> None:
    """Take from a stopped worker's journal what version 4 has added, so that the next start upgrades it."""
    db = sqlite3.connect(journal, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ALTER TABLE quarantine ADD COLUMN payload BLOB NOT NULL DEFAULT x''")
        db.execute("UPDATE quarantine SET payload = (SELECT p.payload FROM quarantine_payload p WHERE p.entry_id = quarantine.id)")
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if table not in TABLES_3:
                db.execute(f'DROP TABLE "{table}"')
        for table, kept in VERSION_3.items():
            indexes = db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,))
            for (index,) in indexes.fetchall():
                if index not in INDEXES_3:
                    db.execute(f'DROP INDEX "{index}"')
            for column in [row[1] for row in db.execute(f"PRAGMA table_info({table})").fetchall()]:
                if column not in kept:
                    db.execute(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
        db.execute("PRAGMA user_version = 3")
        db.execute("COMMIT")
    finally:
        db.close()
