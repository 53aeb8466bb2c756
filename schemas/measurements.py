"""Names in the time-series store: measurements, tags, fields. The only place that has them."""

import types
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from schemas.alerts import RULE_IDS
from schemas.messages import SAMPLES
from schemas.sessions import ZONE_FIELDS, SessionRecord
from schemas.topics import Stream

TAGS = ("device_id", "model", "fw")
"""Every measurement has these. Low cardinality only: `session_id` is a field."""

EVERY = "all"
"""The tag of what is not of one model or firmware."""


class Kind(StrEnum):
    """Every measured value is a float, every count an integer."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of the store.

    `sample` are the names read from each sample of a message. `labels` are tags beside TAGS. Points of a
    measurement that is `lasting` are kept longer than readings, and a later point of the same tags and time
    takes an earlier one's place.
    """

    name: str
    fields: dict[str, Kind]
    sample: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    lasting: bool = False

    @property
    def tags(self) -> tuple[str, ...]:
        return TAGS + self.labels


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the store: `time_ns` is event time in ns since 1970 UTC; tags follow its measurement's."""

    measurement: str
    tags: tuple[str, ...]
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

def _counts(*names: str) -> dict[str, Kind]:
    return dict.fromkeys(names, Kind.INTEGER)


ALERT = Measurement(
    name="alert",
    fields={
        "alert_id": Kind.STRING,
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
        **_counts("critical", "warning", "info", "open", "unacknowledged"),
        "acknowledged_after_s": Kind.FLOAT,
    },
    optional=frozenset(
        {
            "session_id", "closed_ms", "close_reason", "profile_id", "profile_version", "acknowledged_by",
            "acknowledged_ms", "assigned_to", "acknowledged_after_s",
        }  # fmt: skip
    ),
    labels=("rule",),
    lasting=True,
)
"""One point for each alert, at its onset; its later states overwrite it.

`critical`, `warning` and `info` are 1 for its severity and else 0, all 0 once it is withdrawn, so that their
sums count alerts; so are `open` and, for what is neither withdrawn nor acknowledged, `unacknowledged`.
"""

RULE_FIELDS: dict[str, str] = {rule: f"alerts_{rule.replace('-', '_')}" for rule in RULE_IDS}
"""The fields of a session that count its alerts by rule; absent if there is none."""

_SESSION_KINDS = kinds(SessionRecord)

SESSION = Measurement(
    name="session",
    fields={
        **_SESSION_KINDS,
        **{name: Kind.FLOAT for name in ZONE_FIELDS.values()},
        **_counts("sessions", "completions", "stopped_by_user", "alerts_critical", "alerts_warning", "alerts_info"),
        **{name: Kind.INTEGER for name in RULE_FIELDS.values()},
        "zone_coverage": Kind.FLOAT,
        "symmetry": Kind.FLOAT,
        "intensity_part": Kind.FLOAT,
    },
    optional=frozenset(n for n in _SESSION_KINDS if not SessionRecord.model_fields[n].is_required())
    | set(ZONE_FIELDS.values())
    | set(RULE_FIELDS.values())
    | {"zone_coverage", "symmetry", "intensity_part"},
    lasting=True,
)
"""One point for each session that is over, at the start that was first told of it; late data overwrite it there.

`sessions` is 1; `completions` and `stopped_by_user` are 1 or 0. `zone_coverage` and `symmetry` are 0 to 1;
`intensity_part` is the mean intensity as a part of the most that the profile allows. `alerts_…` count what was
said of the session and not withdrawn.
"""

WEEK = Measurement(
    name="week",
    fields={
        **_counts("sessions", "completions", "prescribed", "streak_weeks", "course_sessions"),
        "adherence": Kind.FLOAT,
        "output_s": Kind.FLOAT,
        "effective_s": Kind.FLOAT,
        "charge_mc": Kind.FLOAT,
    },
    lasting=True,
)
"""How a device was used in a week: one point, at Monday 00:00 UTC, of firmware EVERY.

`adherence` is completed sessions over prescribed ones, at most 1; `course_sessions` counts all completed
sessions until the week's end; `streak_weeks` the weeks in a row, this one included, of 0.8 adherence or more.
"""

TREND = Measurement(
    name="trend",
    fields={
        **_counts("messages", "current_samples", "contact_samples"),
        "output_s": Kind.FLOAT,
        "i_rms_mean_ua": Kind.FLOAT,
        "i_rms_max_ua": Kind.FLOAT,
        "i_peak_max_ua": Kind.FLOAT,
        "v_peak_max_mv": Kind.FLOAT,
        "z_mean_ohm": Kind.FLOAT,
        "z_max_ohm": Kind.FLOAT,
        "contact_part": Kind.FLOAT,
        "temp_head_max_c": Kind.FLOAT,
        "battery_min_mv": Kind.FLOAT,
    },
    optional=frozenset(
        {
            "i_rms_mean_ua", "i_rms_max_ua", "i_peak_max_ua", "v_peak_max_mv", "z_mean_ohm", "z_max_ohm",
            "contact_part", "temp_head_max_c", "battery_min_mv",
        }  # fmt: skip
    ),
    lasting=True,
)
"""What remains of a device's readings when they are deleted: one point for each TREND_S with messages.

A device that changed its firmware in that time has one for each. A message counts where it begins, a sample where
it lies. The mean current is over samples with output enabled; impedances are of samples in good or marginal
contact, and `contact_part` is their part of all.
"""

TREND_S = 600

DRAWN_LIMITS = ("rms_limit_ua", "peak_limit_ua", "z_good_max_ohm", "head_warm_c", "head_hot_c", "session_max_s")
"""Fields of schemas.limits.Limits that are drawn beside a device's readings."""

DEVICE = Measurement(
    name="device",
    fields={
        "state": Kind.STRING,
        **_counts("rank", "online", "running", "open_critical", "open_warning", "open_info", "missing", "quarantined", "contract"),
        "last_seen_ms": Kind.INTEGER,
        "last_event_ms": Kind.INTEGER,
        "hw": Kind.STRING,
        "lot": Kind.STRING,
        "profile": Kind.STRING,
        "battery_mv": Kind.FLOAT,
        **dict.fromkeys(DRAWN_LIMITS, Kind.FLOAT),
    },
    optional=frozenset({"last_seen_ms", "last_event_ms", "hw", "lot", "profile", "battery_mv", "contract", *DRAWN_LIMITS}),
)
"""What the worker thinks of a device: a point at each change, and one every hour.

`state` is one of STATES and `rank` its place among them; `online` and `running` are 1 or 0. `contract` is the
version of the contract it last spoke, understood or not. `missing` are numbers skipped in its sequence. `profile` is the
id of the one in force; DRAWN_LIMITS are its own, or what no device may exceed; what is unbounded is absent. Devices that
never sent a message of the contract have no points.
"""

STATES = ("ok", "idle", "off", "unknown", "silent", "warning", "critical")
"""`idle` is there and not in use, `off` is away and was not in use; `silent` was in use when it was last heard."""

FLEET = Measurement(
    name="fleet",
    fields=_counts("devices", "online", "running", "silent", "unknown", "in_warning", "in_critical", "old_contract"),
)
"""How many devices of a model and firmware are in which state, every ten seconds; `device_id` is the worker's name.

The states are those of `device`. Models and firmware beyond MOST_GROUPS are told together, under EVERY. A group
that the last device has left is told once more, with zeros.
"""

MOST_GROUPS = 200

PIPELINE = Measurement(
    name="pipeline",
    fields={
        **_counts("accepted", "inbox", "outbox", "pending", "stored", "duplicate", "quarantined"),
        **_counts("open_critical", "open_warning", "open_info", "unacknowledged", "notices_waiting"),
        **_counts("missing", "devices_missing", "clock_doubted", "broker_connected", "broker_session_lost", "store_ok"),
        **_counts("blind", "pressure", "certificate_level"),
        "rate_per_s": Kind.FLOAT,
        "outbox_age_s": Kind.FLOAT,
        "delay_mean_s": Kind.FLOAT,
        "delay_max_s": Kind.FLOAT,
        "unseen_s": Kind.FLOAT,
        "rss_mb": Kind.FLOAT,
        "blind_s": Kind.FLOAT,
        "canary_s": Kind.FLOAT,
        "canary_age_s": Kind.FLOAT,
        "journal_mb": Kind.FLOAT,
        "free_mb": Kind.FLOAT,
        "certificate_s": Kind.FLOAT,
    },
    optional=frozenset(
        {"delay_mean_s", "delay_max_s", "unseen_s", "rss_mb", "canary_s", "canary_age_s", "journal_mb", "free_mb", "certificate_s"}
    ),
)
"""The worker's own state, every ten seconds; `device_id` is its name.

The ledger's counts are totals since the journal began. `rate_per_s`, `delay_…_s` (receipt after event time) and
`clock_doubted` (messages whose own time was not believed) are of the time since the point before. `unseen_s` is how far
back the moment lies up to which the worker is sure to have seen everything. `blind` counts the causes of a
`pipeline-blind` that stands, and is 1 while it stands without; `blind_s` is how long ago the first of them began. `canary_s` is how long the last canary
that came through took, `canary_age_s` how long ago it was sent. `pressure` is 0 for normal, 1 for high, 2 for stopped.
`certificate_s` is how long until the first certificate that the worker knows of ends; below 0 it has ended. `certificate_level` is 0 while
none ends soon, 1 for a warning, 2 for critical.
"""

QUARANTINE = Measurement(
    name="quarantine",
    fields=_counts("messages"),
    labels=("reason",),
)
"""Messages refused for a reason since the point before; `device_id` is the worker's name."""

SECURITY = Measurement(
    name="security",
    fields=_counts("events"),
    labels=("kind",),
)
"""Security events of a kind since the point before; `device_id` is the worker's name. Who and where are in the journal alone."""

CANARY = Measurement(
    name="canary",
    fields=_counts("boot_id", "seq", "received_ms"),
)
"""Messages of our own that came through the whole path, at the time they were sent; `device_id` is the worker's name."""

MEASUREMENTS: dict[str, Measurement] = {
    m.name: m for m in (*STREAM_MEASUREMENTS.values(), ALERT, SESSION, WEEK, TREND, DEVICE, FLEET, PIPELINE, QUARANTINE, SECURITY, CANARY)
}
