"""Why a message was not stored. A closed list: each message refused carries exactly one of these."""

from enum import StrEnum


class Reason(StrEnum):
    TOPIC_INVALID = "topic_invalid"
    IDENTITY_MISMATCH = "identity_mismatch"
    UNKNOWN_DEVICE = "unknown_device"
    OVERSIZE = "oversize"
    ENCODING = "encoding"
    JSON_SYNTAX = "json_syntax"
    DEPTH = "depth"
    DUP_KEYS = "dup_keys"
    SCHEMA = "schema"
    NONFINITE = "nonfinite"
    RANGE = "range"
    VERSION_UNSUPPORTED = "version_unsupported"
    TOO_OLD = "too_old"
    CONFLICT = "conflict"
    STATE_OVERFLOW = "state_overflow"
    RETAINED = "retained"
    CRASH_SUSPECT = "crash_suspect"
    SINK_REJECTED_400 = "sink_rejected_400"
    SINK_REJECTED_422 = "sink_rejected_422"


EXPLAINED: dict[Reason, str] = {
    Reason.TOPIC_INVALID: "the topic is not mc/v1/{device_id}/{stream}",
    Reason.IDENTITY_MISMATCH: "the payload names another device than the topic",
    Reason.UNKNOWN_DEVICE: "the device is not in the registry",
    Reason.OVERSIZE: "the payload is larger than 16 KiB",
    Reason.ENCODING: "the payload is not UTF-8",
    Reason.JSON_SYNTAX: "the payload is not one JSON document",
    Reason.DEPTH: "the JSON is nested too deeply",
    Reason.DUP_KEYS: "an object holds the same key twice",
    Reason.SCHEMA: "a field is missing, unknown or of the wrong type",
    Reason.NONFINITE: "a number is NaN or infinite",
    Reason.RANGE: "a number is outside its physical bounds",
    Reason.VERSION_UNSUPPORTED: "the message's version is not 1",
    Reason.TOO_OLD: "the reading is older than the store keeps data",
    Reason.CONFLICT: "the same (device, boot, seq) arrived before with another payload",
    Reason.STATE_OVERFLOW: "the device has more boots or gaps than are tracked",
    Reason.RETAINED: "the broker replayed it as a retained message",
    Reason.CRASH_SUSPECT: "the worker died three times while handling it",
    Reason.SINK_REJECTED_400: "the database refused it as unreadable (400)",
    Reason.SINK_REJECTED_422: "the database refused it as unacceptable (422)",
}
