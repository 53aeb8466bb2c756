"""Any bytes on any topic become a message or one rejection, each with the reason the contract gives."""

from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given, settings

from ingest.decode import Decoded, decode
from ingest.errors import InvalidMessage
from schemas.messages import MAX_PAYLOAD_BYTES, MESSAGES
from schemas.rejections import Reason
from schemas.topics import Stream, uplink
from tests.line import CURRENT, DEVICE, START_MS, envelope, message, sample

TOPIC = uplink(DEVICE, Stream.CURRENT)
VALID = message(Stream.CURRENT, 5)
DOCUMENT: dict[str, Any] = orjson.loads(VALID)
FIELDS = sorted(CURRENT)


def verdict(topic: str, payload: bytes) -> Decoded | InvalidMessage:
    try:
        return decode(topic, payload)
    except InvalidMessage as rejection:
        return rejection


def reason(payload: bytes, topic: str = TOPIC) -> str:
    found = verdict(topic, payload)
    return "read" if isinstance(found, Decoded) else found.reason.value


def changed(field: str, raw: str) -> bytes:
    """The valid message with one value, of the envelope or the sample, replaced by the raw text."""
    marked = {**DOCUMENT, field: "@"} if field in DOCUMENT else {**DOCUMENT, "samples": [{**DOCUMENT["samples"][0], field: "@"}]}
    return orjson.dumps(marked).replace(b'"@"', raw.encode("utf-8", errors="surrogatepass"))


def assert_presentable(rejection: InvalidMessage) -> None:
    assert rejection.reason in Reason
    assert 0 < len(rejection.detail) <= 256
    assert rejection.detail.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=80) | st.sampled_from([uplink(DEVICE, stream) for stream in Stream]), st.binary(max_size=400))
def test_any_bytes_on_any_topic_are_a_message_or_one_rejection(topic: str, payload: bytes) -> None:
    found = verdict(topic, payload)
    if isinstance(found, InvalidMessage):
        assert_presentable(found)


@settings(max_examples=300)
@given(st.sampled_from(list(Stream)), st.data())
def test_a_valid_message_with_bytes_changed_is_a_message_or_one_rejection(stream: Stream, data: st.DataObject) -> None:
    payload = bytearray(message(stream, 5))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6) | st.sampled_from((b'"', b",", b":", b"{", b"]", b"\x00", b"\\", b"1e999")))
    found = verdict(uplink(DEVICE, stream), bytes(payload))
    if isinstance(found, InvalidMessage):
        assert_presentable(found)


@settings(max_examples=300)
@given(st.sampled_from(sorted(DOCUMENT) + FIELDS), json_values)
def test_a_valid_message_with_any_value_in_any_place_is_a_message_or_one_rejection(field: str, value: Any) -> None:
    try:
        raw = orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits
        raw = str(value) if isinstance(value, int) else "null"
    found = verdict(TOPIC, changed(field, raw))
    if isinstance(found, InvalidMessage):
        assert_presentable(found)


@given(st.dictionaries(st.text(max_size=300), json_values, min_size=1, max_size=3))
def test_no_key_of_a_device_gets_control_characters_into_a_detail(unknown: dict[str, Any]) -> None:
    try:
        payload = orjson.dumps({**unknown, **DOCUMENT})
    except TypeError:
        return
    found = verdict(TOPIC, payload)
    if isinstance(found, InvalidMessage):
        assert_presentable(found)
        assert found.reason in {Reason.SCHEMA, Reason.NONFINITE, Reason.IDENTITY_MISMATCH}


@pytest.mark.parametrize("stream", list(Stream))
def test_what_a_device_says_is_read_back_whole(stream: Stream) -> None:
    found = decode(uplink(DEVICE, stream), message(stream, 5))
    assert (found.device_id, found.stream, found.is_will) == (DEVICE, stream, False)
    said = MESSAGES[stream].model_validate_json(found.message.model_dump_json())
    assert found.message == said
    assert orjson.loads(message(stream, 5)) == found.message.model_dump(exclude_unset=True)


def test_a_will_is_known_by_its_reason() -> None:
    will = message(Stream.STATUS, 0, state="offline", reason="will")
    assert decode(uplink(DEVICE, Stream.STATUS), will).is_will


REJECTED: dict[str, tuple[bytes, Reason]] = {
    "nothing at all": (b"", Reason.JSON_SYNTAX),
    "null": (b"null", Reason.SCHEMA),
    "a list": (b"[]", Reason.SCHEMA),
    "a number": (b"1", Reason.SCHEMA),
    "a string": (b'"x"', Reason.SCHEMA),
    "a document cut short": (VALID[:-1], Reason.JSON_SYNTAX),
    "trailing garbage": (VALID + b"x", Reason.JSON_SYNTAX),
    "two documents": (VALID + VALID, Reason.JSON_SYNTAX),
    "bytes that are not UTF-8": (VALID.replace(b'"s-1"', b'"s\xff1"'), Reason.ENCODING),
    "an overlong sequence": (VALID.replace(b'"s-1"', b'"\xc0\xaf"'), Reason.ENCODING),
    "UTF-16": (VALID.decode().encode("utf-16"), Reason.ENCODING),
    "a NUL in a string": (changed("session_id", '"a\\u0000"'), Reason.SCHEMA),
    "a bell in a string": (changed("session_id", '"a\\u0007"'), Reason.SCHEMA),
    "a raw control character": (changed("session_id", '"a\x07"'), Reason.JSON_SYNTAX),
    "NaN": (changed("i_rms_ua", "NaN"), Reason.NONFINITE),
    "Infinity": (changed("i_rms_ua", "Infinity"), Reason.NONFINITE),
    "-Infinity": (changed("i_dc_ua", "-Infinity"), Reason.NONFINITE),
    "1e999": (changed("i_rms_ua", "1e999"), Reason.NONFINITE),
    "NaN in words": (changed("i_rms_ua", '"NaN"'), Reason.NONFINITE),
    "true for a number": (changed("i_rms_ua", "true"), Reason.SCHEMA),
    "words for seq": (changed("seq", '"7"'), Reason.SCHEMA),
    "1.0 for seq": (changed("seq", "1.0"), Reason.SCHEMA),
    "1 for a flag": (changed("boost", "1"), Reason.SCHEMA),
    "more than any device can do": (changed("i_peak_ua", "1e308"), Reason.RANGE),
    "a negative duration": (changed("dt_ms", "-1"), Reason.RANGE),
    "seq beyond 32 bits": (changed("seq", "4294967296"), Reason.RANGE),
    "UTF-16 without a mark": (VALID.decode().encode("utf-16-le"), Reason.ENCODING),
    "UTF-32 without a mark": (VALID.decode().encode("utf-32-be"), Reason.ENCODING),
    "seq beyond 64 bits": (changed("seq", "99999999999999999999999"), Reason.RANGE),
    "an unknown key": (changed("seq", '1,"x":1'), Reason.SCHEMA),
    "a key that lacks": (orjson.dumps({k: v for k, v in DOCUMENT.items() if k != "ts_ms"}), Reason.SCHEMA),
    "another version": (changed("v", "2"), Reason.VERSION_UNSUPPORTED),
    "version 0": (changed("v", "0"), Reason.VERSION_UNSUPPORTED),
    "one byte too many": (VALID + b" " * (MAX_PAYLOAD_BYTES + 1 - len(VALID)), Reason.OVERSIZE),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00", Reason.ENCODING),
    "a CBOR map": (b"\xa1\x61\x76\x01", Reason.ENCODING),
    "another device": (changed("v", '1,"device":"tone-2"'), Reason.IDENTITY_MISMATCH),
    "another device_id": (changed("v", '1,"device_id":"tone-2"'), Reason.IDENTITY_MISMATCH),
    "an injection": (changed("session_id", "\"'; DROP TABLE current; --\""), Reason.SCHEMA),
    "HTML": (changed("session_id", '"<script>"'), Reason.SCHEMA),
    "a terminal code": (changed("session_id", '"\\u001b[31m"'), Reason.SCHEMA),
    "a forged line": (changed("session_id", '"a\\r\\nb"'), Reason.SCHEMA),
    "Arabic digits": (changed("session_id", '"s-\u0661"'), Reason.SCHEMA),
    "a homoglyph": (changed("session_id", '"\u0455-1"'), Reason.SCHEMA),
    "a trailing newline": (changed("session_id", '"s-1\\n"'), Reason.SCHEMA),
    "a lone surrogate": (changed("session_id", '"\\ud800"'), Reason.JSON_SYNTAX),
    "lists without end": (b"[" * 10_000, Reason.DEPTH),
    "objects without end": (b'{"a":' * 3_000, Reason.DEPTH),
    "no samples": (orjson.dumps(envelope(0)), Reason.SCHEMA),
    "samples out of order": (orjson.dumps(envelope(0, START_MS, sample(Stream.CURRENT, 5), sample(Stream.CURRENT, 5))), Reason.SCHEMA),
}  # fmt: skip


@pytest.mark.parametrize("why", REJECTED)
def test_a_message_is_refused_with_the_reason_of_the_contract(why: str) -> None:
    payload, expected = REJECTED[why]
    found = verdict(TOPIC, payload)
    assert isinstance(found, InvalidMessage)
    assert found.reason == expected
    assert_presentable(found)


@pytest.mark.parametrize("raw", ["0", "-0.0", "5e-324", "1E2", "200", "100000"])
def test_every_number_within_its_bounds_is_taken(raw: str) -> None:
    found = decode(TOPIC, changed("i_peak_ua", raw))
    assert found.message.samples[0].i_peak_ua == float(raw)


@pytest.mark.parametrize("field", [*sorted(DOCUMENT), *FIELDS, "dt_ms"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_key_said_twice_is_refused_wherever_it_stands(field: str, escaped: bool) -> None:
    value = orjson.dumps(DOCUMENT.get(field, DOCUMENT["samples"][0].get(field))).decode()
    again = f"\\u{ord(field[0]):04x}{field[1:]}" if escaped else field
    assert reason(changed(field, f'{value},"{again}":{value}')) == "dup_keys"


@given(st.integers(1, 5), st.data())
def test_a_key_said_twice_is_refused_in_every_sample(count: int, data: st.DataObject) -> None:
    samples = [orjson.dumps(sample(Stream.CURRENT, 10 * at)) for at in range(count)]
    at, field = data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(FIELDS))
    value = orjson.dumps(CURRENT[field])
    samples[at] = samples[at][:-1] + b',"%s":%s}' % (field.encode(), value)
    head = orjson.dumps(envelope(0)).removesuffix(b"[]}")
    assert reason(head + b"[" + b",".join(samples) + b"]}") == "dup_keys"


def test_a_whole_list_of_samples_said_twice_is_refused() -> None:
    samples = orjson.dumps(DOCUMENT["samples"])
    assert reason(VALID[:-1] + b',"samples":' + samples + b"}") == "dup_keys"


@pytest.mark.parametrize(
    "topic",
    [
        "", "/", "mc/v1", "mc/v1/tone-1", "mc/v1/tone-1/current/x", "mc/v2/tone-1/current", "mc/v1//current", "mc/v1/+/current",
        "mc/v1/#", "$SYS/x", "mc/v1/tone-1/Current", "mc/v1/tone-1/ack", "mc/v1/tone 1/current", "mc/v1/\u0661/current",
        "mc/v1/" + "a" * 65 + "/current", "mc/v1/tone-1\n/current", "mc/v1/tone-1/current\x00", "x" * 65_535,
    ],
)  # fmt: skip
def test_a_topic_that_is_not_of_the_contract_is_refused(topic: str) -> None:
    found = verdict(topic, VALID)
    assert isinstance(found, InvalidMessage)
    assert found.reason == Reason.TOPIC_INVALID
    assert_presentable(found)


@pytest.mark.parametrize(
    "payload",
    [
        b"9" * MAX_PAYLOAD_BYTES, b"[" + b"{}," * 5_000 + b"{}]", b'"' + b"\\u0041" * 2_700 + b'"', b"-" * MAX_PAYLOAD_BYTES,
        VALID[:-2] + b",{}" * 5_000 + b"]}", b'{"samples":[' + b'{"a":1e999},' * 1_300 + b"{}]}",
        b'{"v":1' + b',"v":1' * 2_600 + b"}", b"1e" + b"9" * 16_000, b'{"a":{"b":[' * 1_400,
    ],
)  # fmt: skip
def test_the_most_laborious_payloads_still_come_to_a_rejection(payload: bytes) -> None:
    found = verdict(TOPIC, payload)
    assert isinstance(found, InvalidMessage)
    assert_presentable(found)
