"""What can still be read from a message that failed validation. Pure.

A dangerous value must raise its alert even when the rest of its message is malformed. So the
fields that one-sample rules need are searched for in anything: a document with wrong types,
unknown keys or duplicate keys, a truncated one, one in another encoding, plain rubbish.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.messages import Mode, RunState, SelfTest, Version
from schemas.topics import is_identifier

_READINGS = frozenset(
    {"i_peak_ua", "i_rms_ua", "i_dc_ua", "v_peak_mv", "freq_hz", "pulse_us", "output_on_s", "zone_elapsed_s",
     "temp_head_c", "temp_pcb_c", "fault_bits", "z_ohm", "attachment_cycles"}
)  # fmt: skip
_LOW_IS_WORSE = frozenset({"z_ohm", "freq_hz", "gel_expiry"})
_VERDICTS = frozenset({"self_test", "gel_expiry"})
NUMBERS = _READINGS | {"i_set_ua", "elapsed_s", "window_ms", "dt_ms", "ts_ms", "uptime_ms", "boot_id", "seq"}
WORDS = frozenset({"model", "hw", "fw", "session_id", "run_state", "state", "mode"}) | _VERDICTS
FLAGS = frozenset({"output_enabled", "boost"})
_WANTED = NUMBERS | WORDS | FLAGS
_SAMPLE_KEYS = _READINGS | _VERDICTS

SEARCHED_BYTES = 1 << 20
DOCUMENT_BYTES = 1 << 16
"""What is larger is searched as text only: a large document of nothing but brackets takes a hundred times as long to read."""

MOST_READINGS = 512
_CEILING = 1e15
_CHOICES = {"run_state": frozenset(RunState), "mode": frozenset(Mode), "self_test": frozenset(SelfTest)}
"""Another word than these says nothing, and must not stand for one that excludes danger."""
_VERSION = TypeAdapter(Version)

_PAIR = re.compile(
    r'["\']?\b(' + "|".join(sorted(_WANTED, key=len, reverse=True)) + r')["\']?\s*[:=]\s*'
    r'(?:"([^"\\]{0,64})"|\'([^\'\\]{0,64})\'|([+-]?(?:[0-9][0-9.eE+-]{0,40}|[Ii]nf(?:inity)?))|([Tt]rue|[Ff]alse))'
)


@dataclass(slots=True)
class Gleaned:
    """The envelope's fields and each partial reading, with only the keys that made sense."""

    envelope: dict[str, Any] = field(default_factory=dict)
    readings: list[dict[str, Any]] = field(default_factory=list)


def glean(payload: bytes) -> Gleaned:
    """Search any bytes; never raises, never looks at more than the first MiB."""
    text = _text(payload[:SEARCHED_BYTES])
    found = Gleaned()
    try:
        document = json.loads(text, object_pairs_hook=_Pairs) if len(payload) <= DOCUMENT_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if document is None:
        _search(text, found)
    else:
        _walk(document, found, top=True)
    return found


class _Pairs(list):
    """An object as its pairs, so that the first of two equal keys is seen as well."""


def _text(payload: bytes) -> str:
    if payload[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return payload.decode("utf-16", errors="replace").replace("\x00", "")  # UTF-32 begins alike
    return payload.replace(b"\x00", b"").decode("utf-8", errors="replace")


def _walk(document: Any, found: Gleaned, top: bool = False) -> None:
    waiting = [(document, top)]
    while waiting:
        node, is_top = waiting.pop()
        if isinstance(node, _Pairs):
            _take(node, found, is_top)
            waiting.extend((value, False) for _, value in reversed(node) if isinstance(value, list))
        elif isinstance(node, list):
            waiting.extend((value, is_top) for value in reversed(node) if isinstance(value, list))


def _take(pairs: _Pairs, found: Gleaned, top: bool) -> None:
    reading: dict[str, Any] = {}
    for key, raw in pairs:
        value = _value(key, raw)
        if value is None:
            continue
        reading[key] = _worse(key, reading[key], value) if key in reading else value
    _close(reading, found)
    if top and not found.envelope:  # of a list of messages the first speaks
        found.envelope.update(reading)


def _search(text: str, found: Gleaned) -> None:
    reading: dict[str, Any] = {}
    for match in _PAIR.finditer(text):
        key, word, quoted, number, flag = match.groups()
        said = quoted if word is None else word
        value = _value(key, said if said is not None else (flag.lower() == "true" if flag else number))
        if value is None:
            continue
        if key in reading and (key == "dt_ms" or key in _SAMPLE_KEYS):
            _close(reading, found)
            reading = {}
        if key not in _SAMPLE_KEYS:
            found.envelope.setdefault(key, value)
        reading[key] = _worse(key, reading[key], value) if key in FLAGS & reading.keys() else value
    _close(reading, found)


def _close(reading: dict[str, Any], found: Gleaned) -> None:
    """Keep a reading; beyond the most that are kept one by one, the worst of each value lives on in the last."""
    if not _SAMPLE_KEYS & reading.keys():
        return
    if len(found.readings) < MOST_READINGS:
        found.readings.append(reading)
        return
    last = found.readings[-1]
    for key in (_SAMPLE_KEYS | FLAGS) & reading.keys():
        last[key] = _worse(key, last[key], reading[key]) if key in last else reading[key]


def _worse(key: str, one: Any, other: Any) -> Any:
    """Of two claims, the more dangerous one counts: more current, output on, no boost that would allow more."""
    if key in _LOW_IS_WORSE:
        return min(one, other)
    if key == "self_test":
        return one if one == SelfTest.FAIL else other
    if key in _SAMPLE_KEYS or key == "output_enabled":
        return max(one, other, key=abs)
    return one and other if key == "boost" else other


def _value(key: str, raw: Any) -> Any:
    if key in NUMBERS:
        return _number(raw)
    if key in _CHOICES:
        return raw if isinstance(raw, str) and raw in _CHOICES[key] else None
    if key in WORDS:
        return raw if isinstance(raw, str) and (_is_version(raw) if key in {"hw", "fw"} else is_identifier(raw)) else None
    if key in FLAGS:
        return raw if isinstance(raw, bool) else None
    return None


def _is_version(text: str) -> bool:
    try:
        _VERSION.validate_python(text)
    except ValidationError:
        return False
    return True


def _number(raw: Any) -> float | None:
    if isinstance(raw, bool) or raw is None:
        return None
    try:
        value = float(raw)
    except (ValueError, TypeError, OverflowError):
        return _CEILING if isinstance(raw, int) and raw > 0 else None
    if math.isnan(value):
        return None
    return max(-_CEILING, min(_CEILING, value))


_ENVELOPE = ("model", "hw", "fw", "session_id", "boot_id", "seq", "ts_ms", "uptime_ms")


def condensed(gleaned: Gleaned, most: int) -> bytes:
    """What was gleaned as a document of at most so many bytes, of which the same can be gleaned.

    Readings beyond that are told as one, with the worst of each value.
    """
    head = json.dumps({key: gleaned.envelope[key] for key in _ENVELOPE if key in gleaned.envelope}, separators=(",", ":"))
    room = most - len(head) - len(',"samples":[]') - _LONGEST_READING
    kept: list[dict[str, Any]] = []
    for reading in gleaned.readings:
        room -= len(json.dumps(reading, separators=(",", ":"))) + 1
        if room >= 0 or not kept:
            kept.append(dict(reading))
            continue
        worst = kept[-1]
        for key in (_SAMPLE_KEYS | FLAGS) & reading.keys():
            worst[key] = _worse(key, worst[key], reading[key]) if key in worst else reading[key]
    samples = json.dumps(kept, separators=(",", ":"))
    return (head[:-1] + ("," if len(head) > 2 else "") + '"samples":' + samples + "}").encode()


_LONGEST_READING = 1_536
"""A reading with every key: so much the last one may grow by taking others in."""
