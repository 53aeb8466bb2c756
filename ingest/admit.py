"""What becomes of one delivery: a message to keep, a duplicate, or a rejection. Pure."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from ingest.decode import Decoded, decode
from ingest.dedupe import TooManyGaps
from ingest.device import Device
from ingest.errors import InvalidMessage
from ingest.glean import Gleaned, glean
from ingest.safety.track import Partial, Reading
from schemas import topics
from schemas.profile import Profile, Profiles
from schemas.rejections import Reason

AHEAD_MS = 60_000
"""A device clock further ahead of ours than this is at fault."""

CLOCK_SET_MS = 1_577_836_800_000
"""2020-01-01: an earlier time is a clock that was never set."""

DAY_MS = 86_400_000
LONGEST_UPTIME_MS = 366 * DAY_MS
BACKLOG_MS = 7 * DAY_MS
"""How far back a device without a clock is believed to have waited with its data."""

STORE_MARGIN_MS = 3_600_000

SEQUENCED, WILL, REFUSED = 0, 1, 2
"""Lanes of the table `message`: ordinary messages, last wills, what was read of refused ones."""

NOBODY = "unidentified"
"""Stands for the device when the topic does not name one."""

U32_MAX = 4_294_967_295
MOST_CONTRACT = 65_535
"""A version of the contract beyond this is rubbish."""

Recall = Callable[[str, int, int, int], bytes | None]
"""(device, boot, lane, seq) → the bytes first received under that identity, if still kept."""


class Kept(NamedTuple):
    """A message of the contract, seen for the first time."""

    decoded: Decoded
    lane: int
    event_ms: int
    clock_ok: bool


@dataclass(frozen=True, slots=True)
class Duplicate:
    device_id: str
    boot_id: int
    seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Kept in quarantine; `gleaned` is what can still be judged of it."""

    device_id: str | None
    reason: Reason
    detail: str
    fingerprint: bytes
    boot_id: int | None = None
    seq: int | None = None
    contract: int | None = None
    gleaned: Gleaned = field(default_factory=Gleaned)


Outcome = Kept | Duplicate | Refused


def admit(
    topic: bytes,
    payload: bytes,
    retained: bool,
    received_ms: int,
    device_of: Callable[[str], Device],
    recall: Recall,
    retention_days: int,
    registry: Container[str] | None = None,
    replayed_ms: int | None = None,
) -> Outcome:
    """Decide one delivery. Changes only the sequence record of its device.

    Args:
        topic, payload: as the broker handed them over.
        received_ms: when, ms since 1970 UTC.
        device_of: the record of a device id, made on first sight.
        recall: looks up earlier bytes, to tell a duplicate from a conflict.
        retention_days: how long the store keeps data.
        registry: the known devices; None if there is no list of them.
        replayed_ms: when it was sent through the line again, and for how long the store keeps data counts from then.
    """
    try:
        try:
            name = topic.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidMessage(Reason.TOPIC_INVALID, "the topic is not UTF-8") from error
        if retained:
            raise InvalidMessage(Reason.RETAINED, "a replay of the broker, not a fresh reading")
        if registry is not None:
            _require_known(name, registry)
        decoded = decode(name, payload)
        device = device_of(decoded.device_id)
        return _place(decoded, payload, received_ms, device, recall, retention_days, replayed_ms or received_ms)
    except InvalidMessage as rejection:
        return _refuse(topic, payload, rejection)


def _require_known(topic: str, registry: Container[str]) -> None:
    """Whatever else is wrong with the message of an unknown device, this is what a person can mend."""
    device_id = topics.device_level(topic)
    if device_id is not None and device_id not in registry:
        raise InvalidMessage(Reason.UNKNOWN_DEVICE, "not in the device registry; add it there, then replay")


def _place(
    decoded: Decoded, payload: bytes, received_ms: int, device: Device, recall: Recall, retention_days: int, now_ms: int
) -> Outcome:
    message = decoded.message
    lane = WILL if decoded.is_will else SEQUENCED
    boot = device.boot(message.boot_id)
    seen = boot.wills if lane == WILL else boot.seen
    known = message.seq in seen
    if known or boot.partial:
        first = recall(decoded.device_id, message.boot_id, lane, message.seq)
        known = known or first is not None
    if known:
        if first is not None and first != payload:
            raise InvalidMessage(Reason.CONFLICT, f"boot {message.boot_id} seq {message.seq} came before with another payload")
        return Duplicate(decoded.device_id, message.boot_id, message.seq)
    if lane == WILL:
        event_ms, clock_ok = received_ms, True  # written at connect; it speaks of now
    else:
        event_ms, clock_ok = _event_time(message, boot, received_ms)
        if event_ms < now_ms - retention_days * DAY_MS + STORE_MARGIN_MS:
            raise InvalidMessage(Reason.TOO_OLD, f"older than the {retention_days} days that the store keeps")
    try:
        if lane == SEQUENCED:
            boot.held.add(message.seq)
        seen.add(message.seq)
    except TooManyGaps as error:
        raise InvalidMessage(Reason.STATE_OVERFLOW, f"boot {message.boot_id} has too many gaps") from error
    return Kept(decoded, lane, event_ms, clock_ok)


def _event_time(message: Any, boot: Any, received_ms: int) -> tuple[int, bool]:
    """The device's clock where it can be right; otherwise its uptime, counted from our clock."""
    spans_ms = message.samples[-1].dt_ms
    if CLOCK_SET_MS <= message.ts_ms <= received_ms + AHEAD_MS - spans_ms:
        return message.ts_ms, True
    anchor_ms = received_ms - spans_ms - message.uptime_ms
    if anchor_ms < received_ms - LONGEST_UPTIME_MS:
        return received_ms - spans_ms, False  # no device runs for so long: the uptime is at fault as well
    boot.anchor_ms = anchor_ms if boot.anchor_ms is None else min(boot.anchor_ms, anchor_ms)
    return max(boot.anchor_ms + message.uptime_ms, received_ms - BACKLOG_MS), False


def _refuse(topic: bytes, payload: bytes, rejection: InvalidMessage) -> Refused:
    gleaned = glean(payload)
    return Refused(
        device_id=topics.device_level(topic.decode("utf-8", errors="replace")),
        reason=rejection.reason,
        detail=rejection.detail,
        fingerprint=fingerprint(topic, payload),
        boot_id=_u32(gleaned.envelope.get("boot_id")),
        seq=_u32(gleaned.envelope.get("seq")),
        contract=_contract(payload) if rejection.reason is Reason.VERSION_UNSUPPORTED else None,
        gleaned=gleaned,
    )


def _contract(payload: bytes) -> int | None:
    """The version that a message claims, if it can be one."""
    try:
        version = orjson.loads(payload)["v"]
    except ValueError:
        return None
    return version if type(version) is int and 0 <= version <= MOST_CONTRACT else None


def fingerprint(topic: bytes, payload: bytes) -> bytes:
    """16 bytes that tell one refused delivery from another."""
    return blake2b(payload, digest_size=16, key=blake2b(topic, digest_size=32).digest()).digest()


def _u32(number: float | None) -> int | None:
    return int(number) if number is not None and 0 <= number <= U32_MAX and number == int(number) else None


def session_key(session_id: str | None, boot_id: int) -> str:
    return session_id if session_id is not None else f"~{boot_id}"


def readings(decoded: Decoded, event_ms: int, received_ms: int, profiles: Profiles, replayed: bool = False) -> list[Reading]:
    """The samples of a kept message as the judge takes them."""
    message = decoded.message
    profile = profiles.find(message.model, message.hw, message.fw)
    stream = decoded.stream.value
    skew_ms, epoch_ms = message.ts_ms - event_ms, message.ts_ms - message.uptime_ms
    return [
        Reading(
            event_ms + sample.dt_ms, stream, sample, received_ms,
            message.boot_id, message.seq, message.model, message.hw, message.fw, profile, False, skew_ms, epoch_ms, at == 0,
            replayed,
        )
        for at, sample in enumerate(message.samples)
    ]  # fmt: skip


def partial_readings(gleaned: Gleaned, device: Device | None, received_ms: int, profiles: Profiles) -> list[Reading]:
    """What is left of a refused message, at its own time if that is believable, else at receipt.

    The envelope is the message's where it could be read, else the last that the device told.
    """
    said = gleaned.envelope
    model = said.get("model") or (device.model if device else None)
    hw = said.get("hw") or (device.hw if device else None)
    fw = said.get("fw") or (device.fw if device else None)
    profile = _best_profile(profiles, model, hw, fw)
    if profile is None and device is not None:  # a model that nobody knows is rather a corrupted one
        profile = _best_profile(profiles, device.model, device.hw, device.fw)
    base_ms = said.get("ts_ms")
    if base_ms is None or not received_ms - 30 * DAY_MS <= base_ms <= received_ms + AHEAD_MS:
        base_ms = received_ms
    known = {name: None for name in Partial.__dataclass_fields__}
    samples = [Partial(**{k: v for k, v in raw.items() if k in known}) for raw in gleaned.readings]
    spans_ms = max((sample.dt_ms for sample in samples if 0 <= sample.dt_ms <= AHEAD_MS), default=0)
    if base_ms + spans_ms > received_ms + AHEAD_MS:
        base_ms = received_ms - spans_ms
    found = []
    for sample in samples:
        believed = 0 <= sample.dt_ms <= min(3_600_000, received_ms + AHEAD_MS - base_ms)  # else all that follows until then were late
        dt_ms = sample.dt_ms if believed else 0
        found.append(
            Reading(
                int(base_ms + dt_ms), "partial", sample, received_ms,
                _u32(said.get("boot_id")) or 0, _u32(said.get("seq")) or 0, model, hw, fw, profile, partial=True,
            )  # fmt: skip
        )
    return found


def _best_profile(profiles: Profiles, model: str | None, hw: str | None, fw: str | None) -> Profile | None:
    if model is None:
        return None
    return (profiles.find(model, hw, fw) if hw and fw else None) or profiles.for_model(model)


def session_of_refused(gleaned: Gleaned, device: Device | None) -> str:
    session_id = gleaned.envelope.get("session_id") or (device.session_id if device else None)
    return session_key(session_id, _u32(gleaned.envelope.get("boot_id")) or 0)
