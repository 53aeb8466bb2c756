"""Names in the time-series store: measurements, tags, fields. The only place that has them."""

import types
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from schemas.messages import SAMPLES
from schemas.sessions import ZONE_FIELDS, SessionRecord
from schemas.topics import Stream

TAGS = ("device_id", "model", "fw")
"""Low cardinality only. `session_id` is a field."""


class Kind(StrEnum):
    """Every measured value is a float, every count an integer."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of the store. `sample` are the names read from each sample of a message."""

    name: str
    fields: dict[str, Kind]
    sample: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the store: `time_ns` is event time in ns since 1970 UTC; tags follow TAGS."""

    measurement: str
    tags: tuple[str, str, str]
    fields: dict[str, Any]
    time_ns: int


def _kind(annotation: Any) -> Kind:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _kind(next(a for a in get_args(annotation) if a is not type(None)))
    if origin is Literal:
        return Kind.STRING
    if issubclass(annotation, bool):
        return Kind.BOOLEAN
    if issubclass(annotation, int):
        return Kind.INTEGER
    if issubclass(annotation, float):
        return Kind.FLOAT
    return Kind.STRING


def kinds(model: type[BaseModel]) -> dict[str, Kind]:
    return {
        name: _kind(field.annotation)
        for name, field in model.model_fields.items()
        if name not in TAGS and get_origin(field.annotation) is not dict
    }


MESSAGE_FIELDS: dict[str, Kind] = {
    "boot_id": Kind.INTEGER,
    "seq": Kind.INTEGER,
    "session_id": Kind.STRING,
    "hw": Kind.STRING,
    "device_ms": Kind.INTEGER,
    "received_ms": Kind.INTEGER,
    "clock_ok": Kind.BOOLEAN,
}
"""What every stored sample says of the message that carried it."""


def _of_stream(stream: Stream) -> Measurement:
    sample = {k: v for k, v in kinds(SAMPLES[stream]).items() if k != "dt_ms"}
    optional = frozenset(n for n, f in SAMPLES[stream].model_fields.items() if not f.is_required())
    return Measurement(
        name=stream.value,
        fields={**sample, **MESSAGE_FIELDS},
        sample=tuple(sample),
        optional=optional | {"session_id"},
    )


STREAM_MEASUREMENTS: dict[Stream, Measurement] = {stream: _of_stream(stream) for stream in Stream}

ALERT = Measurement(
    name="alert",
    fields={
        "alert_id": Kind.STRING,
        "rule": Kind.STRING,
        "severity": Kind.STRING,
        "state": Kind.STRING,
        "session_id": Kind.STRING,
        "onset_ms": Kind.INTEGER,
        "opened_ms": Kind.INTEGER,
        "updated_ms": Kind.INTEGER,
        "closed_ms": Kind.INTEGER,
        "close_reason": Kind.STRING,
        "value": Kind.FLOAT,
        "limit": Kind.FLOAT,
        "unit": Kind.STRING,
        "profile_id": Kind.STRING,
        "profile_version": Kind.INTEGER,
        "rule_version": Kind.INTEGER,
        "retrospective": Kind.BOOLEAN,
        "from_rejected": Kind.BOOLEAN,
        "service": Kind.BOOLEAN,
        "detail": Kind.STRING,
        "acknowledged_by": Kind.STRING,
        "acknowledged_ms": Kind.INTEGER,
        "assigned_to": Kind.STRING,
    },
    optional=frozenset(
        {"session_id", "closed_ms", "close_reason", "profile_id", "profile_version", "acknowledged_by", "acknowledged_ms", "assigned_to"}
    ),
)
"""One point for each alert, at its onset; its later states overwrite it."""

_SESSION_KINDS = kinds(SessionRecord)

SESSION = Measurement(
    name="session",
    fields={**_SESSION_KINDS, **{name: Kind.FLOAT for name in ZONE_FIELDS.values()}},
    optional=frozenset(n for n in _SESSION_KINDS if not SessionRecord.model_fields[n].is_required()) | set(ZONE_FIELDS.values()),
)
"""One point for each session, at its start; late data overwrite it."""

GAP = Measurement(
    name="gap",
    fields={
        "boot_id": Kind.INTEGER,
        "first_seq": Kind.INTEGER,
        "last_seq": Kind.INTEGER,
        "state": Kind.STRING,
        "opened_ms": Kind.INTEGER,
        "closed_ms": Kind.INTEGER,
    },
    optional=frozenset({"closed_ms"}),
)

PIPELINE = Measurement(
    name="pipeline",
    fields={
        "accepted": Kind.INTEGER,
        "pending": Kind.INTEGER,
        "stored": Kind.INTEGER,
        "duplicate": Kind.INTEGER,
        "quarantined": Kind.INTEGER,
        "alerts_open": Kind.INTEGER,
    },
)

MEASUREMENTS: dict[str, Measurement] = {
    m.name: m for m in (*STREAM_MEASUREMENTS.values(), ALERT, SESSION, GAP, PIPELINE)
}
