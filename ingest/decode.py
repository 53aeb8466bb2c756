"""Bytes on a topic become a message of the contract, or one rejection. Pure."""

import math
from typing import NamedTuple

from pydantic import ValidationError

from ingest.errors import InvalidMessage
from schemas import topics
from schemas.messages import MAX_PAYLOAD_BYTES, MESSAGES, Message, StatusReason
from schemas.rejections import Reason
from schemas.topics import Stream, TopicInvalid

_READ = {stream: model.__pydantic_validator__.validate_json for stream, model in MESSAGES.items()}

_RANGE_ERRORS = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "int_parsing_size"}
)
_NONFINITE_WORDS = frozenset({"nan", "inf", "infinity", "-inf", "-infinity", "+infinity"})

_PRECEDENCE = (
    Reason.VERSION_UNSUPPORTED,
    Reason.IDENTITY_MISMATCH,
    Reason.NONFINITE,
    Reason.SCHEMA,
    Reason.RANGE,
)


class Decoded(NamedTuple):
    device_id: str
    stream: Stream
    message: Message

    @property
    def is_will(self) -> bool:
        """A last will was written at connect time and stands outside the sequence."""
        return self.stream is Stream.STATUS and self.message.samples[0].reason == StatusReason.WILL


def decode(topic: str, payload: bytes) -> Decoded:
    """Read one delivery strictly; raise InvalidMessage with its reason if it is not of the contract."""
    try:
        device_id, stream = topics.parse_uplink(topic)
    except TopicInvalid as error:
        raise InvalidMessage(Reason.TOPIC_INVALID, str(error)) from error
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidMessage(Reason.OVERSIZE, f"{len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")
    try:
        message = _READ[stream](payload)
    except ValidationError as error:
        raise _rejection(error, payload, device_id) from error
    # No string of the contract can hold a colon, so each colon in the bytes belongs to one key.
    keys = len(message.__pydantic_fields_set__)
    for sample in message.samples:
        keys += len(sample.__pydantic_fields_set__)
    if payload.count(b":") != keys:
        raise InvalidMessage(Reason.DUP_KEYS, "an object holds the same key twice")
    return Decoded(device_id, stream, message)


def _rejection(error: ValidationError, payload: bytes, device_id: str) -> InvalidMessage:
    found: dict[Reason, str] = {}
    for each in error.errors(include_url=False, include_context=False):
        if each["type"] == "json_invalid":
            return _unreadable(payload, each["msg"])
        reason = _reason(each, device_id)
        if reason not in found:
            where = ".".join(str(part) for part in each["loc"]) or "the payload"
            found[reason] = f"{where}: {each['msg'].removeprefix('Value error, ')}"
    first = next(reason for reason in _PRECEDENCE if reason in found)
    return InvalidMessage(first, _printable(found[first]))


def _unreadable(payload: bytes, message: str) -> InvalidMessage:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError as error:
        return InvalidMessage(Reason.ENCODING, f"not UTF-8 at byte {error.start}")
    if b"\x00" in payload[:2]:
        return InvalidMessage(Reason.ENCODING, "UTF-16 or UTF-32, not UTF-8")
    if "recursion limit" in message:
        return InvalidMessage(Reason.DEPTH, "nested too deeply")
    return InvalidMessage(Reason.JSON_SYNTAX, _printable(message.removeprefix("Invalid JSON: ")))


def _reason(each: dict, device_id: str) -> Reason:
    kind, loc, value = each["type"], each["loc"], each["input"]
    if loc == ("v",) and kind in _RANGE_ERRORS:
        return Reason.VERSION_UNSUPPORTED
    if kind == "extra_forbidden" and loc in {("device",), ("device_id",)} and value != device_id:
        return Reason.IDENTITY_MISMATCH
    if kind == "finite_number" or _is_nonfinite(value):
        return Reason.NONFINITE
    if kind in _RANGE_ERRORS:
        return Reason.RANGE
    return Reason.SCHEMA


def _is_nonfinite(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, str) and value.strip().lower() in _NONFINITE_WORDS


def _printable(text: str) -> str:
    """Keep a device's bytes from forging log lines or terminal codes."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
