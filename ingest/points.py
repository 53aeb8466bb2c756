"""From a message on record to rows of the store. Pure; the same record always gives the same rows."""

from typing import Any, NamedTuple
from zlib import crc32

import orjson

from schemas.alerts import Alert
from schemas.measurements import (
    ALERT,
    MEASUREMENTS,
    SESSION,
    STREAM_MEASUREMENTS,
    Kind,
    Measurement,
    Point,
)
from schemas.sessions import ZONE_FIELDS, SessionRecord
from schemas.topics import Stream

NS_PER_MS = 1_000_000
SPREAD = 2_654_435_761


class Entry(NamedTuple):
    """What waits to be written: a message on record, or a point made by the line itself.

    `event_ms` is the event time given to the message's `ts_ms`; it was decided once, on arrival.
    """

    id: int
    device_id: str
    raw_id: int | None
    stream: str | None
    event_ms: int
    received_ms: int
    clock_ok: bool
    payload: bytes

    @property
    def is_message(self) -> bool:
        return self.raw_id is not None


class Rows(NamedTuple):
    """The rows of one entry: shared fields once, and each row's own time (ns) and fields."""

    measurement: Measurement
    tags: tuple[str, ...]
    shared: dict[str, Any]
    rows: list[tuple[int, dict[str, Any]]]


def sub_millisecond(boot_id: int, seq: int) -> int:
    """Nanoseconds below one ms that keep readings of different messages apart at the same ms."""
    return (boot_id * SPREAD + seq) % NS_PER_MS


def unpack(entry: Entry) -> Rows:
    """The rows of an entry whose bytes have been validated before."""
    document = orjson.loads(entry.payload)
    if not entry.is_message:
        measurement = MEASUREMENTS[document["measurement"]]
        return Rows(measurement, tuple(document["tags"]), {}, [(document["time_ns"], document["fields"])])
    boot_id, seq = document["boot_id"], document["seq"]
    base_ns = entry.event_ms * NS_PER_MS + sub_millisecond(boot_id, seq)
    shared = {
        "boot_id": boot_id,
        "seq": seq,
        "session_id": document["session_id"],
        "hw": document["hw"],
        "device_ms": document["ts_ms"],
        "received_ms": entry.received_ms,
        "clock_ok": entry.clock_ok,
    }
    return Rows(
        STREAM_MEASUREMENTS[Stream(entry.stream)],
        (entry.device_id, document["model"], document["fw"]),
        shared,
        [(base_ns + s["dt_ms"] * NS_PER_MS, s) for s in document["samples"]],
    )


def is_lasting(entry: Entry) -> bool:
    """Whether its measurement is kept longer than readings. A message never is."""
    return not entry.is_message and MEASUREMENTS[orjson.loads(entry.payload)["measurement"]].lasting


def pack(point: Point) -> bytes:
    """A point of the line's own, as it waits in the outbox."""
    return orjson.dumps(
        {"measurement": point.measurement, "tags": point.tags, "fields": point.fields, "time_ns": point.time_ns}
    )


def session_point(record: SessionRecord) -> Point:
    """A session as it went; it overwrites what was stored of it before, for it begins but once."""
    said = record.model_dump(mode="json")
    fields = {name: said[name] for name in SESSION.fields if said.get(name) is not None}
    fields |= {ZONE_FIELDS[zone]: float(on_s) for zone, on_s in record.zone_s.items()}
    fields |= {name: float(value) for name, value in fields.items() if SESSION.fields[name] is Kind.FLOAT}
    name = record.session_id.encode()
    return Point(
        SESSION.name,
        (record.device_id, record.model, record.fw),
        fields,
        record.started_ms * NS_PER_MS + crc32(name) % NS_PER_MS,
    )


def alert_point(alert: Alert) -> Point:
    """The alert as it stands; it overwrites its earlier states, for its onset never moves."""
    said = alert.model_dump(mode="json")
    ack = said["acknowledged"]
    fields = {name: said.get(name) for name in ALERT.fields}
    fields["alert_id"] = alert.id
    fields["acknowledged_by"] = ack["by"] if ack else None
    fields["acknowledged_ms"] = ack["at_ms"] if ack else None
    fields["value"], fields["limit"] = float(alert.value), float(alert.limit)
    return Point(
        ALERT.name,
        (alert.device_id, alert.model or "unknown", alert.fw or "unknown", alert.rule),
        {name: value for name, value in fields.items() if value is not None},
        alert.onset_ms * NS_PER_MS + int(alert.id[:8], 16) % NS_PER_MS,
    )
