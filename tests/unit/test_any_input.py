"""Any bytes, wherever bytes come in: an outcome, never an exception, and work in proportion to their number.

The targets are those of `make fuzz`; what it found before stands in tests/fuzz/cases/.
"""

import time
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import example, given, settings

from ingest.admit import admit
from ingest.device import Device
from ingest.glean import glean
from schemas.messages import MAX_PAYLOAD_BYTES
from schemas.topics import Stream
from tests.fuzz.run import CASES, SHARE, seeds
from tests.fuzz.targets import NOW_MS, SCRATCH, STREAMS, TARGETS, a_message, a_rest
from tests.line import envelope, message, sample

NEAR_MISSES = (
    b'"', b",", b":", b"{", b"}", b"]", b"[", b"\x00", b"\\", b"\\u0000", b"\\ud800", b"1e999", b"-", b"NaN", b"null", b"true", b"9" * 400, b"9" * 5_000, b"-0.0", b"5e-324",
    b'"v":1,', b'"seq":0,', b'"samples":[{}],', b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf", "\u0661".encode(), "\u202e".encode(), b"[" * 300, b'{"a":' * 300, b"Infinity", b"1.0", b"'",
)  # fmt: skip
EXAMPLES = {target: seeds(target) for target in SHARE}
characters = st.characters(codec="utf-8")
"""Of every category of Unicode."""


@st.composite
def changed(draw: st.DrawFn, target: str) -> bytes:
    """Something that the target takes, changed in a few places."""
    text = bytearray(draw(st.sampled_from(EXAMPLES[target])))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 8))] = draw(st.sampled_from(NEAR_MISSES) | st.binary(max_size=8) | st.text(characters, max_size=6).map(str.encode))
    return bytes(text)


def teardown_module() -> None:
    for path in SCRATCH.iterdir():
        path.unlink()
    SCRATCH.rmdir()


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40)
@given(st.data())
def test_any_bytes_come_to_an_outcome(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(st.binary(max_size=300) | changed(target)))


@pytest.mark.parametrize("path", sorted(CASES.iterdir()), ids=lambda path: path.name)
def test_what_was_found_once_comes_to_an_outcome(path: Path) -> None:
    TARGETS[path.name.partition("-")[0]](path.read_bytes())


@settings(max_examples=100)
@given(st.sampled_from(STREAMS), st.text(characters, max_size=40), st.text(characters, max_size=40))
def test_no_text_in_a_message_escapes_its_place(stream: Stream, key: str, value: str) -> None:
    document = orjson.loads(message(stream, 3))
    for spoilt in ({**document, "session_id": value}, {**document, key: value}, {**document, "samples": [{**document["samples"][0], key: value}]}):
        a_message(bytes([STREAMS.index(stream)]) + orjson.dumps(spoilt))


@example(["i_peak_ua", [[[["1400"]]]]], 2)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(characters, max_size=10) | st.sampled_from(["i_peak_ua", "NaN", "tone-1", "inf"]),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["i_peak_ua", "session_id", "dt_ms", "boost", "mode", "v", "samples", "x"]), inner, max_size=6),
        max_leaves=30,
    ),
    st.integers(0, 50),
)
def test_any_document_is_searched_however_it_is_nested(document: object, depth: int) -> None:
    try:
        text = orjson.dumps(document)
    except TypeError:  # a number beyond 64 bits
        text = str(document).encode()
    a_rest(b"[" * depth + text + b"]" * depth)


# -- work ---------------------------------------------------------------------------------------------

FULL = orjson.dumps(envelope(5, NOW_MS, *(sample(Stream.CURRENT, 10 * at) for at in range(55))))
LABORIOUS: dict[str, Callable[[int], bytes]] = {
    "digits": lambda size: b"9" * size,
    "objects in a list": lambda size: b"[" + b"{}," * (size // 3) + b"{}]",
    "lists in a list": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
    "escapes": lambda size: b'"' + b"\\u0041" * (size // 6) + b'"',
    "the same key": lambda size: b'{"v":1' + b',"v":1' * (size // 6) + b"}",
    "nested": lambda size: b'{"a":[' * (size // 6),
    "readings that are cut": lambda size: b'{"i_peak_ua":1,' * (size // 15),
    "readings": lambda size: b'{"samples":[' + b'{"i_peak_ua":1e999},' * (size // 20) + b"{}]}",
    "a key and blanks": lambda size: b'"i_peak_ua"' + b" " * size,
    "keys and blanks": lambda size: (b'"i_peak_ua"' + b" " * 500) * (size // 511),
    "a key, a colon and blanks": lambda size: b'"i_peak_ua":' + b" " * size + b"x",
    "quotes": lambda size: b'"' * size,
    "keys that begin alike": lambda size: b"i_peak_u" * (size // 8),
    "not UTF-8": lambda size: b"\xff" * size,
    "UTF-16": lambda size: b"\xff\xfe" + b"\x00\xd8" * (size // 2),
    "unknown keys": lambda size: b"{" + b",".join(b'"%d":0' % at for at in range(size // 9)) + b"}",
}


def cost_s(work: Callable[[], object]) -> float:
    """The least processor time of a few tries."""
    found = []
    for _ in range(4):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return min(found)


def admitted(payload: bytes) -> object:
    return admit(b"mc/v1/tone-1/current", payload, False, NOW_MS, Device, lambda *key: None, 90)


@pytest.mark.parametrize("shape", LABORIOUS)
def test_the_most_laborious_payload_costs_no_more_than_some_sound_ones(shape: str) -> None:
    """Of a sound message with 55 readings, which is as large as one may be, admitting takes about a third of a millisecond."""
    payload = LABORIOUS[shape](MAX_PAYLOAD_BYTES)
    assert cost_s(lambda: admitted(payload)) < 100 * cost_s(lambda: admitted(FULL))


@pytest.mark.parametrize("shape", LABORIOUS)
def test_searching_a_larger_message_takes_no_more_than_in_proportion(shape: str) -> None:
    small, large = LABORIOUS[shape](70_000), LABORIOUS[shape](280_000)
    assert cost_s(lambda: glean(large)) < 4 * 4 * max(cost_s(lambda: glean(small)), 1e-3)
