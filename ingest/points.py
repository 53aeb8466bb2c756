"""From a message on record to rows of the store. Pure; the same record always gives the same rows."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from ingest.safety.figures import symmetry, zone_coverage
from schemas.alerts import FLEET, LINE_RULE_IDS, Alert, AlertState, Severity
from schemas.measurements import (
    ALERT,
    EVERY,
    MEASUREMENTS,
    RULE_FIELDS,
    SESSION,
    STREAM_MEASUREMENTS,
    Kind,
    Measurement,
    Point,
)
from schemas.messages import EndReason
from schemas.profile import Profile
from schemas.sessions import ZONE_FIELDS, SessionRecord
from schemas.topics import Stream

NS_PER_MS = 1_000_000
SPREAD = 2_654_435_761
UNKNOWN = "unknown"
"""The tag of what a device has not told."""


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


def read_back(packed: bytes) -> Point:
    said = orjson.loads(packed)
    return Point(said["measurement"], tuple(said["tags"]), said["fields"], said["time_ns"])


def session_point(record: SessionRecord, profile: Profile | None, alerts: Iterable[tuple[str, str]]) -> Point:
    """A session as it went. `alerts`: rule and severity of each that stands of it."""
    said = record.model_dump(mode="json")
    fields = {name: said[name] for name in SESSION.fields if said.get(name) is not None}
    fields |= {ZONE_FIELDS[zone]: on_s for zone, on_s in record.zone_s.items()}
    fields |= {
        "sessions": 1,
        "completions": int(record.completed),
        "stopped_by_user": int(record.end_reason == EndReason.USER),
    }
    standing = list(alerts)
    fields |= {f"alerts_{severity}": sum(severity == s for _, s in standing) for severity in Severity}
    fields |= Counter(RULE_FIELDS[rule] for rule, _ in standing if rule in RULE_FIELDS)
    fields |= _told(
        zone_coverage=zone_coverage(record.zone_s, profile.zone_targets_s) if profile else None,
        symmetry=symmetry(record.zone_s),
        intensity_part=record.mean_intensity_ua / profile.i_rms_max_ua
        if profile and record.mean_intensity_ua is not None
        else None,
    )
    fields |= {name: float(value) for name, value in fields.items() if SESSION.fields[name] is Kind.FLOAT}
    name = record.session_id.encode()
    return Point(
        SESSION.name,
        (record.device_id, record.model, record.fw),
        fields,
        record.started_ms * NS_PER_MS + crc32(name) % NS_PER_MS,
    )


def in_place_of(before: Point, now: Point) -> Point:
    """A session's point anew, where the store has the one of before: its start or firmware may have become another.

    A store that merges the fields of both would keep what is no longer said: such sums become 0.
    """
    gone = [name for name in before.fields if name in _SUMS and name not in now.fields]
    nothing = {name: 0.0 if SESSION.fields[name] is Kind.FLOAT else 0 for name in gone}
    return Point(SESSION.name, before.tags, now.fields | nothing, before.time_ns)


_SUMS = frozenset({*ZONE_FIELDS.values(), *RULE_FIELDS.values()})


def alert_point(alert: Alert, model: str | None, fw: str | None) -> Point:
    """The alert as it stands; it overwrites its earlier states, for its onset never moves.

    `model`, `fw`: as first said of it; later data may know them better, and its place must not move.
    """
    said = alert.model_dump(mode="json")
    ack = alert.acknowledged
    stands = alert.state != AlertState.WITHDRAWN
    nobody = EVERY if alert.device_id == FLEET or alert.rule in LINE_RULE_IDS else UNKNOWN
    fields = {name: said.get(name) for name in ALERT.fields} | {
        "alert_id": alert.id,
        "acknowledged_by": ack.by if ack else None,
        "acknowledged_ms": ack.at_ms if ack else None,
        "acknowledged_after_s": max(0.0, (ack.at_ms - alert.opened_ms) / 1000) if ack else None,
        "value": float(alert.value),
        "limit": float(alert.limit),
        **{severity.value: int(stands and alert.severity == severity) for severity in Severity},
        "open": int(alert.state == AlertState.OPEN),
        "unacknowledged": int(stands and ack is None),
    }
    return Point(
        ALERT.name,
        (alert.device_id, model or nobody, fw or nobody, alert.rule),
        _told(**fields),
        alert.onset_ms * NS_PER_MS + int(alert.id[:8], 16) % NS_PER_MS,
    )


def _told(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
