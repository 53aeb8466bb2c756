"""Alarm before reject: a dangerous value is judged whatever has become of the rest of its message."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given, settings

from ingest.glean import MOST_READINGS, glean
from schemas.topics import Stream
from tests.line import CURRENT, MODEL, RUNTIME, START_MS, Line, deliver, envelope, message, sample
from tests.unit.refusing import Bench, write

DANGERS: dict[str, tuple[Stream, str, float, str]] = {
    "peak": (Stream.CURRENT, "i_peak_ua", 1400.0, "overcurrent-peak"),
    "rms": (Stream.CURRENT, "i_rms_ua", 1200.0, "overcurrent-rms"),
    "overrun": (Stream.RUNTIME, "output_on_s", 3600, "session-overrun"),
}
BESIDE: dict[str, dict[str, float]] = {
    "peak": {"v_peak_mv": 11_200.0},
    "rms": {"i_peak_ua": 1700.0, "v_peak_mv": 13_600.0},
    "overrun": {"elapsed_s": 3600},
}
"""What goes with each danger in a message that is true: 8 kΩ, an alternating burst, a session as long."""

DATA_RULES = {"sensor-implausible", "clock-skew"}
ENVELOPE = ("v", "boot_id", "seq", "ts_ms", "uptime_ms", "session_id", "model", "hw", "fw")
dangers = st.sampled_from(sorted(DANGERS))

garbage = st.one_of(
    st.text(max_size=40),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.none(),
    st.just([]),
    st.just({"a": [1, {"b": 2}]}),
    st.sampled_from(["2 3", "", " ", "\x1b[31m", "-1", "NaN", "tone duo", "\ud800".encode("utf-8", "replace").decode()]),
)


def dangerous(kind: str, **fields: Any) -> tuple[Stream, list[tuple[str, Any]], list[tuple[str, Any]]]:
    """The stream, the envelope and the sample of a dangerous message, as pairs."""
    stream, field, value, _ = DANGERS[kind]
    document = envelope(9, START_MS + 1_000, sample(stream, **{field: value}, **BESIDE[kind], **fields))
    (only,) = document.pop("samples")
    return stream, list(document.items()), list(only.items())


BENCH = Bench()
judged = BENCH.judged


@pytest.fixture(scope="module", autouse=True)
def _bench() -> Iterator[None]:
    yield
    BENCH.close()


def assert_alarm(kind: str, payload: bytes, refused: bool = True) -> None:
    stream, _, _, rule = DANGERS[kind]
    alerts, reasons, balanced = judged(stream, payload)
    assert (rule, "critical") in alerts
    assert balanced
    assert not refused or len(reasons) == 1


@given(dangers, st.data())
def test_danger_is_judged_when_any_other_value_is_garbage(kind: str, data: st.DataObject) -> None:
    stream, head, body = dangerous(kind)
    danger = DANGERS[kind][1]
    for _ in range(data.draw(st.integers(1, 3))):
        pairs = data.draw(st.sampled_from((head, body)))
        at = data.draw(st.integers(0, len(pairs) - 1))
        value = data.draw(garbage | st.binary(max_size=8))
        if pairs[at][0] in {danger, "output_enabled", "boost", "i_peak_ua"}:  # of these, a valid value changes what is said
            value = pairs[at][1] if pairs[at][0] == danger else "?"
        if pairs[at][0] == "model" and isinstance(value, str | bytes):
            value = "not a model"
        pairs[at] = pairs[at][0], value
    assert_alarm(kind, write(head, body), refused=False)


@given(dangers, st.data())
def test_danger_is_judged_when_the_message_is_cut_off_after_it(kind: str, data: st.DataObject) -> None:
    _, head, body = dangerous(kind)
    payload = write(head, body)
    _, field, value, _ = DANGERS[kind]
    told = b'"%s":%s' % (field.encode(), orjson.dumps(value))
    end = payload.index(told) + len(told) + 1
    assert_alarm(kind, payload[: data.draw(st.integers(end, len(payload) - 1))])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"])
@pytest.mark.parametrize("kind", DANGERS)
def test_danger_is_judged_in_another_encoding(kind: str, encoding: str) -> None:
    _, head, body = dangerous(kind)
    assert_alarm(kind, write(head, body).decode().encode(encoding))


@given(dangers, st.dictionaries(st.text(max_size=12), garbage, min_size=1, max_size=3), st.booleans())
def test_danger_is_judged_beside_unknown_keys(kind: str, unknown: dict[str, Any], in_sample: bool) -> None:
    _, head, body = dangerous(kind)
    extra = [(f"x{key}", value) for key, value in unknown.items()]
    assert_alarm(kind, write(head, extra + body) if in_sample else write(extra + head, body))


@given(dangers, st.data())
def test_danger_is_judged_when_another_key_comes_twice(kind: str, data: st.DataObject) -> None:
    _, head, body = dangerous(kind)
    pairs = data.draw(st.sampled_from((head, body)))
    key, value = data.draw(st.sampled_from([p for p in pairs if p[0] != "model"]))
    pairs.insert(data.draw(st.integers(0, len(pairs))), (key, value if key == DANGERS[kind][1] else data.draw(garbage)))
    assert_alarm(kind, write(head, body))


@pytest.mark.parametrize("kind", DANGERS)
@pytest.mark.parametrize("harmless_first", [True, False])
def test_of_two_claims_the_dangerous_one_counts(kind: str, harmless_first: bool) -> None:
    _, head, body = dangerous(kind)
    body.insert(0 if harmless_first else len(body), (DANGERS[kind][1], 0))
    assert_alarm(kind, write(head, body))


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("off_first", [True, False])
def test_output_that_is_said_to_be_on_and_off_counts_as_on(off_first: bool, cut: int) -> None:
    _, head, body = dangerous("rms")
    body.insert(0 if off_first else len(body), ("output_enabled", False))
    payload = write(head, body)
    assert_alarm("rms", payload[: len(payload) - cut])


@given(dangers, st.data())
def test_danger_is_judged_when_bytes_elsewhere_are_destroyed(kind: str, data: st.DataObject) -> None:
    _, head, body = dangerous(kind)
    at = next(i for i, (key, _) in enumerate(body) if key == DANGERS[kind][1])
    danger = body.pop(at)
    front, back = write(head, body[:at])[:-3], write([], body[at:])[len(b'{,"samples":[{') :]
    told = b',"%s":%s,' % (danger[0].encode(), orjson.dumps(danger[1]))
    parts = [bytearray(front), bytearray(back)]
    part = parts[data.draw(st.integers(0, 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(part) - 1))
        part[where] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 0x5C))
    payload = bytes(parts[0]) + told + bytes(parts[1])
    model_intact = f'"model":"{MODEL}"'.encode() in payload
    output_intact = b'"output_enabled":true' in payload
    if (model_intact or kind != "overrun") and output_intact | (kind != "rms"):
        assert_alarm(kind, payload, refused=False)


@pytest.mark.parametrize("at", [0, 255, MOST_READINGS - 1, MOST_READINGS, 800])
def test_danger_is_judged_wherever_it_stands_in_a_message_far_too_long(at: int) -> None:
    samples = [sample(Stream.CURRENT, dt_ms) for dt_ms in range(900)]
    samples[at]["i_peak_ua"] = 5000.0
    assert_alarm("peak", orjson.dumps(envelope(9, START_MS, *samples)))


@pytest.mark.parametrize("field", [*ENVELOPE, "dt_ms", *CURRENT])
def test_danger_is_judged_when_one_field_is_lacking(field: str) -> None:
    _, head, body = dangerous("peak")
    payload = write([p for p in head if p[0] != field], [p for p in body if p[0] != field])
    if field == "i_peak_ua":
        assert judged(Stream.CURRENT, payload) == (set(), ["schema"], True)
    else:
        assert_alarm("peak", payload)


@pytest.mark.parametrize("raw", [b"1e999", b"Infinity", b"1.4e3", b'"5000"', b"9" * 5_000, b"100001", b"5000.", b"1e308"])
def test_danger_that_is_itself_no_valid_number_is_judged(raw: bytes) -> None:
    _, head, body = dangerous("peak")
    body = [(key, raw if key == "i_peak_ua" else value) for key, value in body]
    assert_alarm("peak", write(head, body), refused=raw != b"1.4e3")


@pytest.mark.parametrize("topic", ["mc/v1/tone-1/nonsense", "mc/v1/tone-1", "elsewhere", "mc/v1/!/current", "\udcff"])
def test_danger_on_any_topic_is_judged(topic: str, tmp_path: Path) -> None:
    payload = message(Stream.CURRENT, 0, i_peak_ua=5000.0)
    with Line(tmp_path) as line:
        line.run(deliver(topic, payload))
        assert line.standing() == [("overcurrent-peak", "critical", "open", 0, None)]
        assert line.reasons() == ["topic_invalid"]


@given(st.binary(max_size=600))
def test_harmless_bytes_raise_nothing_and_are_never_too_much(payload: bytes) -> None:
    assert judged(Stream.CURRENT, payload)[0] == set()


@settings(max_examples=200)
@given(st.sampled_from((Stream.CURRENT, Stream.RUNTIME)), st.data())
def test_a_harmless_message_with_any_other_value_destroyed_raises_no_more_than_doubt_of_the_data(
    stream: Stream, data: st.DataObject
) -> None:
    document = envelope(9, START_MS + 1_000, sample(stream))
    (only,) = document.pop("samples")
    body = list(only.items())
    at = data.draw(st.integers(0, len(body) - 1))
    if body[at][0] not in {"i_peak_ua", "i_rms_ua", "v_peak_mv", "output_on_s", "zone_elapsed_s"}:  # dangers by themselves
        body[at] = body[at][0], data.draw(garbage | st.binary(max_size=8).filter(lambda raw: b"ua" not in raw))
    assert {rule for rule, _ in judged(stream, write(list(document.items()), body))[0]} <= DATA_RULES


@given(st.binary(max_size=2_000) | st.text().map(lambda text: text.encode("utf-16")))
def test_gleaning_never_fails(payload: bytes) -> None:
    found = glean(payload)
    assert len(found.readings) <= MOST_READINGS


def test_nothing_below_the_first_mebibyte_is_searched() -> None:
    assert glean(b" " * (1 << 20) + b'"i_peak_ua":5000').readings == []


def test_what_runs_out_of_depth_is_searched_as_text() -> None:
    payload = b'{"a":' * 100_000 + b'"i_peak_ua":5000,'
    assert glean(payload).readings == [{"i_peak_ua": 5000.0}]


def test_each_sample_of_a_broken_message_is_its_own_reading() -> None:
    samples = [sample(Stream.CURRENT, 100 * at, i_peak_ua=1000.0 + at) for at in range(3)]
    whole, broken = orjson.dumps(envelope(9, START_MS, *samples)) + b"?", orjson.dumps(envelope(9, START_MS, *samples) | {"x": 1})
    expected = [(0.0, 1000.0), (100.0, 1001.0), (200.0, 1002.0)]
    for payload in (whole, broken):
        assert [(r["dt_ms"], r["i_peak_ua"]) for r in glean(payload).readings] == expected


def test_runtime_says_no_more_than_its_words() -> None:
    assert RUNTIME["output_on_s"] == 0
    found = glean(orjson.dumps({"run_state": "running", "output_on_s": 3}))
    assert found.readings == [{"run_state": "running", "output_on_s": 3.0}]


@pytest.mark.parametrize("size", [1_000, 60_000, 70_000, 1_000_000])
def test_danger_is_found_in_a_message_however_large(size: int) -> None:
    _, head, body = dangerous("peak")
    payload = write(head, body)
    found = glean(payload[:-1] + b',"ballast":"' + b"x" * (size - len(payload)) + b'"}')
    assert ([1400.0], "s-1") == ([reading["i_peak_ua"] for reading in found.readings], found.envelope["session_id"])


@pytest.mark.parametrize("change", [lambda text: text.replace(b'"', b"'"), lambda text: text.replace(b'"', b"'").replace(b"false", b"False").replace(b"true", b"True")], ids=["quotes", "Python"])
def test_a_message_in_single_quotes_keeps_its_envelope(change) -> None:
    _, head, body = dangerous("peak", boost=False)
    found = glean(change(write(head, body)))
    (reading,) = found.readings
    assert ("s-1", MODEL) == (found.envelope["session_id"], found.envelope["model"])
    assert (1400.0, False, True, "alt_burst") == tuple(reading[key] for key in ("i_peak_ua", "boost", "output_enabled", "mode"))


def test_in_a_list_of_messages_the_first_tells_the_envelope() -> None:
    _, head, body = dangerous("peak")
    payload = write(head, body)
    found = glean(b"[" + payload + b"," + payload.replace(b'"s-1"', b'"s-2"') + b"]")
    assert (["s-1"], 2) == ([found.envelope["session_id"]], len(found.readings))


@pytest.mark.parametrize("raw", [b"NaN", b'"NaN"', b'"nan"', b"null", b'"-"'])
def test_what_is_no_number_is_no_danger(raw: bytes) -> None:
    assert [] == glean(b'{"i_peak_ua": ' + raw + b"}").readings
