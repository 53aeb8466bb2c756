"""The embedded store: a DuckDB file that this process owns.

Exactly once without a unique index: each write carries, in its own transaction, the id of the
last outbox entry it holds. A point takes the place of an earlier one of the same tags and time;
readings are only appended. What is too old is deleted in pieces.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson

from ingest import failpoints
from ingest.errors import Mistake, Unavailable
from ingest.points import NS_PER_MS, SPREAD, Entry, unpack
from ingest.pressure import NO_ROOM
from ingest.sink import Held, RefusedEntry
from schemas.measurements import MEASUREMENTS, STREAM_MEASUREMENTS, Kind, Measurement, Point
from schemas.messages import StatusReason
from schemas.topics import Stream

FILE_NAME = "telemetry.duckdb"

_SQL = {Kind.FLOAT: "DOUBLE", Kind.INTEGER: "BIGINT", Kind.BOOLEAN: "BOOLEAN", Kind.STRING: "VARCHAR"}
_ARRAY = {Kind.FLOAT: "f8", Kind.INTEGER: "i8", Kind.BOOLEAN: "?"}
_CONFIG = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": "1",
    "memory_limit": "256MB",
    "checkpoint_threshold": "16MB",
}

FORGET_MOST = 200_000
"""Rows deleted at once: some 30 ms."""

HELD_ROWS, FETCHED = 200_000, 10_000
"""Rows that are grouped, and groups that are read, at once."""

_NO_ROOM = tuple(os.strerror(number) for number in NO_ROOM)
_IS_WILL = f"reason = '{StatusReason.WILL}'"


class DuckDBSink:
    name = "duckdb"

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._uuid = ""
        self._deleted = 0
        self._db: duckdb.DuckDBPyConnection | None = None
        self._why = "the store has not been opened yet"
        self._held_upto = -1

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def open(self, journal_uuid: str) -> int | None:
        self._uuid = journal_uuid
        try:
            self._db = duckdb.connect(self.path, config=_CONFIG)
            self._migrate()
            return self._upto(journal_uuid)
        except duckdb.Error as error:
            if _may_pass(error):
                raise self._give_up(error) from error
            raise Mistake(
                f"{self.path}: cannot open the store: {str(error).splitlines()[0]}; restore it from a backup"
            ) from error

    def _give_up(self, error: duckdb.Error) -> Unavailable:
        """A failure leaves an instance that is good for nothing; the file tells, when it is opened again, what it holds."""
        self._why = f"no room for {self.path}: {str(error).splitlines()[0]}"
        if self._db is not None:
            with suppress(duckdb.Error):
                self._db.close()
            self._db = None
        return Unavailable(self._why)

    def _upto(self, journal_uuid: str) -> int | None:
        """The last outbox entry of this journal that is in the file."""
        (upto,) = self._db.execute("SELECT max(upto) FROM ingest_offset WHERE journal = ?", [journal_uuid]).fetchone()
        if upto is not None:
            self._db.execute("DELETE FROM ingest_offset WHERE journal = ? AND upto < ?", [journal_uuid, upto])
            failpoints.reach("duckdb-trimmed")
            self._db.execute("CHECKPOINT")
        return upto

    def _migrate(self) -> None:
        """Tables and columns that are not there yet; what was written before they were has nulls in them."""
        known: dict[str, set[str]] = {}
        for table, column in self._db.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall():
            known.setdefault(table, set()).add(column)
        statements = [] if "ingest_offset" in known else ["CREATE TABLE ingest_offset (journal VARCHAR, upto BIGINT)"]
        for measurement in MEASUREMENTS.values():
            statements += _changes(measurement, known.get(measurement.name))
        if statements:
            self._db.execute("BEGIN")
            for statement in statements:
                self._db.execute(statement)
            self._db.execute("COMMIT")
            self._db.execute("CHECKPOINT")

    def write(self, entries: list[Entry]) -> list[RefusedEntry]:
        if not self.is_open:
            upto = self.open(self._uuid)
            self._held_upto = -1 if upto is None else upto
        if entries[0].id <= self._held_upto:  # of a write that was in the file after all
            entries = [entry for entry in entries if entry.id > self._held_upto]
        if entries:
            try:
                self._write(entries)
            except duckdb.Error as error:
                if _may_pass(error):
                    raise self._give_up(error) from error
                raise
        return []

    def _write(self, entries: list[Entry]) -> None:
        points: dict[str, dict[tuple, dict[str, Any]]] = {}
        messages: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.is_message:
                messages.setdefault(entry.stream, []).append(entry)
            else:
                rows = unpack(entry)
                ((time_ns, fields),) = rows.rows
                points.setdefault(rows.measurement.name, {})[time_ns, *rows.tags] = fields
        # Whether a write that failed is in the file is uncertain, and the offset tells when it is opened again. A full
        # disk or memory is waited for; any other failure takes the worker down.
        self._db.execute("BEGIN")
        for stream, waiting in messages.items():
            self._insert_messages(stream, waiting)
        for name, latest in points.items():
            self._replace(MEASUREMENTS[name], latest)
        self._db.execute("INSERT INTO ingest_offset VALUES (?, ?)", [self._uuid, entries[-1].id])
        failpoints.reach("duckdb-uncommitted")
        self._db.execute("COMMIT")
        failpoints.reach("duckdb-committed")

    def _insert_messages(self, stream: str, entries: list[Entry]) -> None:
        """DuckDB reads the JSON itself: in half the time, and without holding up the other threads."""
        documents = {
            "device_id": np.array([e.device_id for e in entries], dtype=object),
            "event_ms": np.array([e.event_ms for e in entries], dtype="i8"),
            "received_ms": np.array([e.received_ms for e in entries], dtype="i8"),
            "clock_ok": np.array([e.clock_ok for e in entries], dtype="?"),
            "payload": np.array([e.payload.decode() for e in entries], dtype=object),
        }
        self._db.register("documents", documents)
        self._db.execute(_FROM_JSON[stream])
        self._db.unregister("documents")

    def _replace(self, measurement: Measurement, latest: dict[tuple, dict[str, Any]]) -> None:
        """Points by (time, tags): each instead of what was stored of it. Only a span of time is searched."""
        keys = zip(("time_ns", *measurement.tags), zip(*latest, strict=True), strict=True)
        columns = dict(keys) | {name: [fields.get(name) for fields in latest.values()] for name in measurement.fields}
        arrays = {name: _array(columns[name], kind) for name, kind in _columns(measurement).items()}
        names = ", ".join(f'"{name}"' for name in arrays)
        same = " AND ".join(f'old."{name}" = arrays."{name}"' for name in ("time_ns", *measurement.tags))
        self._db.register("arrays", arrays)
        self._db.execute(
            f'DELETE FROM "{measurement.name}" AS old USING arrays WHERE old.time_ns BETWEEN ? AND ? AND {same}',
            [min(columns["time_ns"]), max(columns["time_ns"])],
        )
        self._db.execute(f'INSERT INTO "{measurement.name}" ({names}) SELECT {names} FROM arrays')
        self._db.unregister("arrays")

    def forget(self, readings_ms: int, lasting_ms: int) -> bool:
        if not self.is_open:
            return False
        try:
            return self._forget(readings_ms, lasting_ms)
        except duckdb.Error as error:
            if not _may_pass(error):
                raise
            self._give_up(error)
            return False

    def _forget(self, readings_ms: int, lasting_ms: int) -> bool:
        for measurement in MEASUREMENTS.values():
            before_ns = (lasting_ms if measurement.lasting else readings_ms) * NS_PER_MS
            (deleted,) = self._db.execute(
                f'DELETE FROM "{measurement.name}" WHERE rowid IN '
                f'(SELECT rowid FROM "{measurement.name}" WHERE time_ns < ? LIMIT {FORGET_MOST})',
                [before_ns],
            ).fetchone()
            self._deleted += deleted
            if deleted == FORGET_MOST:
                return True
        if self._deleted:
            self._db.execute("CHECKPOINT")  # only then is their space used again
            self._deleted = 0
        return False

    def knows_another(self, journal_uuid: str) -> bool:
        (others,) = self._db.execute("SELECT count(*) FROM ingest_offset WHERE journal NOT IN (?, 'check')", [journal_uuid]).fetchone()
        return others > 0

    def probe(self) -> str:
        (version,) = self._db.execute("SELECT version()").fetchone()
        return f"DuckDB {version} at {self.path}"

    def reader(self) -> "DuckDBReader":
        """For one thread, any but the writer's."""
        db = self._db
        return DuckDBReader(db.cursor() if db is not None else None, self._why)

    def holds(self, point: Point) -> bool:
        asked = {**dict(zip(MEASUREMENTS[point.measurement].tags, point.tags, strict=True)), **point.fields, "time_ns": point.time_ns}
        reader = self.reader()
        try:
            conditions = " AND ".join(f'"{name}" = ${name}' for name in asked)
            return bool(reader.rows(f'SELECT 1 FROM "{point.measurement}" WHERE {conditions} LIMIT 1', asked, 1)[1])
        finally:
            reader.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        db = self._db
        if db is None:
            raise Unavailable(self._why)
        return db.cursor()

    def device_ids(self) -> list[str]:
        tables = " UNION ".join(f'SELECT device_id FROM "{stream}"' for stream in Stream)
        return [device_id for (device_id,) in self._cursor().execute(f"{tables} ORDER BY 1").fetchall()]

    def held(self, device_ids: list[str]) -> Iterator[Held]:
        """Each message once. Many rows are grouped in parts, so that the groups of none take much memory."""
        cursor = self._cursor()
        some = {"devices": device_ids}
        counts = " UNION ALL ".join(f'SELECT count(*) AS n FROM "{stream}" WHERE list_contains($devices, device_id)' for stream in Stream)
        (rows,) = cursor.execute(f"SELECT sum(n) FROM ({counts})", some).fetchone()
        parts = max(1, -(-int(rows) // HELD_ROWS))
        readings = " UNION ALL ".join(
            f"SELECT device_id, boot_id, seq, {_IS_WILL if stream is Stream.STATUS else 'false'} AS will, time_ns FROM \"{stream}\" "
            f"WHERE list_contains($devices, device_id) AND (boot_id + seq) % {parts} = $part"
            for stream in Stream
        )
        for part in range(parts):
            cursor.execute(
                f"WITH times AS (SELECT device_id, boot_id, seq, will, count(*) AS n FROM ({readings}) GROUP BY device_id, boot_id, seq, will, time_ns) "
                "SELECT device_id, boot_id, seq, will, max(n) > 1 FROM times GROUP BY 1, 2, 3, 4",
                some | {"part": part},
            )
            while found := cursor.fetchmany(FETCHED):
                yield from found

    def close(self) -> None:
        if self._db is None:
            return
        try:
            self._db.execute("CHECKPOINT")
            self._db.close()
        except duckdb.Error as error:
            if not _may_pass(error):
                raise


class DuckDBReader:
    """Reads beside the writer. `stop` ends what is read, from any thread."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection | None, why: str = "") -> None:
        self._cursor = cursor
        self._why = why
        self._stopped = False

    def rows(self, statement: str, parameters: Mapping[str, Any], most: int) -> tuple[list[str], list[tuple]]:
        """The titles of the columns, and at most so many rows. What cannot be read is Unavailable."""
        if self._cursor is None:
            raise Unavailable(self._why)
        if self._stopped:
            raise Unavailable("what was asked before took too long; choose a shorter time")
        try:
            done = self._cursor.execute(statement, parameters)
            return [column[0] for column in done.description], done.fetchmany(most)
        except duckdb.InterruptException as error:
            raise Unavailable("it took too long; choose a shorter time") from error
        except duckdb.Error as error:
            raise Unavailable(f"the store could not answer: {str(error).splitlines()[0]}") from error

    def stop(self) -> None:
        self._stopped = True
        if self._cursor is not None:
            with suppress(duckdb.ConnectionException):  # it has closed in this moment
                self._cursor.interrupt()

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()


def _may_pass(error: duckdb.Error) -> bool:
    """A disk that is full, for which DuckDB has no error of its own; or reads that have all the memory that it may take."""
    return isinstance(error, duckdb.OutOfMemoryException) or any(words in str(error) for words in _NO_ROOM)


def _columns(measurement: Measurement) -> dict[str, Kind]:
    return {"time_ns": Kind.INTEGER, **dict.fromkeys(measurement.tags, Kind.STRING), **measurement.fields}


def _changes(measurement: Measurement, known: set[str] | None) -> list[str]:
    """The statements that make a table with these columns (None: there is none) one of its measurement."""
    columns = [(name, f'"{name}" {_SQL[kind]}') for name, kind in _columns(measurement).items()]
    table = f'"{measurement.name}"'
    if known is None:
        return [f"CREATE TABLE {table} ({', '.join(column for _, column in columns)})"]
    missing = [column for name, column in columns if name not in known]
    if not missing:
        return []
    changes = []
    if not measurement.sample:  # every state of a point was a row of its own then
        key = ", ".join(f'"{name}"' for name in ("time_ns", *measurement.tags) if name in known)
        changes.append(f"DELETE FROM {table} WHERE rowid NOT IN (SELECT max(rowid) FROM {table} GROUP BY {key})")
    return changes + [f"ALTER TABLE {table} ADD COLUMN {column}" for column in missing]


def _from_json(measurement: Measurement) -> str:
    """The statement that spreads messages into rows; `points.unpack` says the same in Python."""
    envelope = {"boot_id": "BIGINT", "seq": "BIGINT", "session_id": "VARCHAR", "model": "VARCHAR", "hw": "VARCHAR", "fw": "VARCHAR", "ts_ms": "BIGINT"}
    sample = {"dt_ms": "BIGINT", **{name: _SQL[measurement.fields[name]] for name in measurement.sample}}
    shape = orjson.dumps({**envelope, "samples": [sample]}).decode()
    values = {
        # The same number as points.sub_millisecond, within 64 bits.
        "time_ns": f"(event_ms + s.dt_ms) * {NS_PER_MS} + (m.boot_id % {NS_PER_MS} * {SPREAD % NS_PER_MS} + m.seq) % {NS_PER_MS}",
        "device_id": "device_id", "model": "m.model", "fw": "m.fw",
        **{name: f's."{name}"' for name in measurement.sample},
        "boot_id": "m.boot_id", "seq": "m.seq", "session_id": "m.session_id", "hw": "m.hw", "device_ms": "m.ts_ms",
        "received_ms": "received_ms", "clock_ok": "clock_ok",
    }  # fmt: skip
    names = ", ".join(f'"{name}"' for name in values)
    return (
        f'INSERT INTO "{measurement.name}" ({names}) SELECT {", ".join(values.values())} FROM '
        f"(SELECT *, unnest(m.samples) AS s FROM (SELECT * EXCLUDE payload, from_json(payload, '{shape}') AS m FROM documents))"
    )


def _array(values: Sequence[Any], kind: Kind) -> np.ndarray:
    if kind is Kind.STRING:
        return np.array(values, dtype=object)
    if None in values:
        mask = [value is None for value in values]
        return np.ma.masked_array(np.array([0 if v is None else v for v in values], dtype=_ARRAY[kind]), mask=mask)
    return np.array(values, dtype=_ARRAY[kind])


_FROM_JSON = {stream.value: _from_json(measurement) for stream, measurement in STREAM_MEASUREMENTS.items()}
