"""MQTT topics. The only place that knows where the slashes are."""

import re
from enum import StrEnum

ROOT = "mc/v1"

IDENTIFIER = r"^[A-Za-z0-9_-]{1,64}$"
"""What a device, session, program or gateway may be called: safe in topics, tags and file names."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Stream(StrEnum):
    """What a device publishes, one topic level each."""

    CURRENT = "current"
    CONTACT = "contact"
    RUNTIME = "runtime"
    HEALTH = "health"
    IDENTITY = "identity"
    STATUS = "status"


STREAMS = frozenset(Stream)


class TopicInvalid(ValueError):
    """The topic is not `mc/v1/{device_id}/{stream}`."""


def is_identifier(text: str) -> bool:
    return _IDENTIFIER.fullmatch(text) is not None


def uplink(device_id: str, stream: Stream) -> str:
    """Where a device publishes one of its streams."""
    return f"{ROOT}/{device_id}/{stream}"


def durable_ack(device_id: str) -> str:
    """Where the fleet tells a device what is safely on disk."""
    return f"{ROOT}/{device_id}/ack"


def alert(device_id: str) -> str:
    """Where a device, or the app beside it, hears of its alerts."""
    return f"{ROOT}/{device_id}/alert"


def uplink_filters() -> tuple[str, ...]:
    """The subscriptions of an ingest worker: one for each stream, none overlapping."""
    return tuple(f"{ROOT}/+/{stream}" for stream in Stream)


def parse_uplink(topic: str) -> tuple[str, Stream]:
    """Split a topic into its device and stream; raise TopicInvalid for anything else."""
    levels = topic.split("/")
    if len(levels) != 4 or f"{levels[0]}/{levels[1]}" != ROOT:
        raise TopicInvalid(f"expected {ROOT}/{{device_id}}/{{stream}}")
    _, _, device_id, stream = levels
    if not is_identifier(device_id):
        raise TopicInvalid("the device id must be 1 to 64 of A-Z a-z 0-9 _ -")
    if stream not in STREAMS:
        raise TopicInvalid(f"unknown stream; known are {', '.join(Stream)}")
    return device_id, Stream(stream)


def device_level(topic: str) -> str | None:
    """The device named by a topic that is otherwise wrong, or None."""
    levels = topic.split("/")
    if len(levels) >= 3 and f"{levels[0]}/{levels[1]}" == ROOT and is_identifier(levels[2]):
        return levels[2]
    return None
