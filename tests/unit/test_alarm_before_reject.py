"""Alarm before reject: whichever field of a dangerous message is spoilt, its danger is told.

For every limb that is judged alone there is a message with readings enough for its hold. Any other
field of it, in the envelope or in one sample, is spoilt so that the message is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given, settings

from ingest.admit import AHEAD_MS, partial_readings
from ingest.glean import glean
from ingest.intake import Intake
from ingest.safety.rules import ALONE, RULE
from schemas.topics import Stream
from tests.line import PROFILES, START_MS, Line, deliver, envelope, message, sample
from tests.unit.refusing import Bench, write

BENCH = Bench()


@pytest.fixture(scope="module", autouse=True)
def _bench() -> Iterator[None]:
    yield
    BENCH.close()


@dataclass(frozen=True)
class Danger:
    """`said` is what every sample must say for the danger; `beside` is what goes with it."""

    limb: str
    stream: Stream
    rule: str
    severity: str
    said: dict[str, Any]
    beside: dict[str, Any] = field(default_factory=dict)
    samples: int = 1
    step_ms: int = 1_000

    def __str__(self) -> str:
        return f"{self.rule} {self.limb}"

    def document(self) -> tuple[list[tuple[str, Any]], list[list[tuple[str, Any]]]]:
        """The envelope and the samples as pairs."""
        samples = [sample(self.stream, n * self.step_ms, **self.beside, **self.said) for n in range(self.samples)]
        head = envelope(9, START_MS + 1_000, *samples)
        samples = head.pop("samples")
        return list(head.items()), [list(each.items()) for each in samples]


C, K, R, H, I = Stream.CURRENT, Stream.CONTACT, Stream.RUNTIME, Stream.HEALTH, Stream.IDENTITY  # noqa: E741
DANGERS = (
    Danger("twice", C, "overcurrent-rms", "critical", {"i_rms_ua": 1_200.0}, {"i_peak_ua": 1_700.0, "v_peak_mv": 13_600.0}),
    Danger("held", C, "overcurrent-rms", "critical", {"i_rms_ua": 400.0}, {"i_peak_ua": 560.0, "v_peak_mv": 4_480.0}, 5),
    Danger("peak", C, "overcurrent-peak", "critical", {"i_peak_ua": 1_400.0}, {"v_peak_mv": 11_200.0}),
    Danger("critical", C, "current-density", "critical", {"i_rms_ua": 2_100.0}, {"i_peak_ua": 2_970.0, "v_peak_mv": 23_760.0}, 6),
    Danger("warning", C, "current-density", "warning", {"i_rms_ua": 1_600.0}, {"i_peak_ua": 2_263.0, "v_peak_mv": 18_104.0}, 8),
    Danger("power", C, "power-density", "critical", {"i_rms_ua": 16_000.0, "i_peak_ua": 16_000.0, "v_peak_mv": 16_000.0}),
    Danger("stuck", C, "waveform-drift", "critical", {"freq_hz": 0.0, "i_dc_ua": 90.0, "i_rms_ua": 100.0}, {}, 5),
    Danger("frequency", C, "waveform-drift", "warning", {"freq_hz": 20.0}, {}, 8),
    Danger("pulse", C, "waveform-drift", "warning", {"pulse_us": 90_000.0}, {}, 8),
    Danger("bridge", K, "electrode-short", "warning", {"z_ohm": 80.0}, {"state": "short"}, 10, 500),
    Danger("cycles", I, "electrode-wear", "info", {"attachment_cycles": 501}),
    Danger("gel", I, "electrode-wear", "info", {"gel_expiry": "2026-01-01"}),
    Danger("warning", R, "session-overrun", "warning", {"output_on_s": 1_201}, {"elapsed_s": 1_201}),
    Danger("critical", R, "session-overrun", "critical", {"output_on_s": 1_351}, {"elapsed_s": 1_351}),
    Danger("info", R, "zone-dwell", "info", {"zone_elapsed_s": 241}, {"elapsed_s": 241}),
    Danger("warning", R, "zone-dwell", "warning", {"zone_elapsed_s": 481}, {"elapsed_s": 481}),
    Danger("warm", H, "overtemperature", "warning", {"temp_head_c": 42.0}, {}, 14),
    Danger("hot", H, "overtemperature", "critical", {"temp_head_c": 44.0}, {}, 9),
    Danger("board", H, "overtemperature", "critical", {"temp_pcb_c": 61.0}),
    Danger("fault", H, "device-fault", "critical", {"fault_bits": 1}),
    Danger("self-test", H, "device-fault", "critical", {"self_test": "fail"}),
    Danger("itself", C, "sensor-implausible", "warning", {"i_rms_ua": 250.0, "i_peak_ua": 200.0}),
    Danger("ohm", C, "sensor-implausible", "warning", {"i_peak_ua": 5_000.0}, {"v_peak_mv": 24_000.0}),
    Danger("bounds", K, "sensor-implausible", "warning", {"z_ohm": 3e7}),
)
OPTIONAL = {"contact_frac", "motion", "auto_off_s", "end_reason", "lux", "solar_mv"}
NO_VALUES = ("?", None, [], {"a": 1}, [[1]], True, "1,5", "\u00b5")
"""None of these is a value of any field that danger depends on."""


def assert_alarm(danger: Danger, payload: bytes) -> None:
    alerts, reasons, balanced = BENCH.judged(danger.stream, payload)
    assert (danger.rule, danger.severity) in alerts
    assert len(reasons) == 1
    assert balanced


def spoilable(danger: Danger, head: list[Any], samples: list[list[Any]]) -> list[tuple[list[Any], int]]:
    """(pairs, place) of every field that is not the danger itself."""
    found = [(head, at) for at in range(len(head))]
    return found + [(pairs, at) for pairs in samples for at, (key, _) in enumerate(pairs) if key not in danger.said]


each = pytest.mark.parametrize("danger", DANGERS, ids=str)
spoilt = settings(max_examples=25)


def test_every_limb_that_is_judged_alone_has_its_danger_here() -> None:
    count = {rule.id: len(limbs) for rule, limbs in ALONE}
    here = {rule_id: sum(d.rule == rule_id for d in DANGERS) for rule_id in count}
    assert all(here[rule_id] >= count[rule_id] > 0 for rule_id in count)
    assert all(d.severity in {limb.severity for limb in RULE[d.rule].limbs} for d in DANGERS)


@each
@spoilt
@given(st.data())
def test_another_value_has_the_wrong_type(danger: Danger, data: st.DataObject) -> None:
    head, samples = danger.document()
    pairs, at = data.draw(st.sampled_from(spoilable(danger, head, samples)))
    key, value = pairs[at]
    wrong = [each for each in NO_VALUES if not (isinstance(value, bool) and each is True)]
    if value is None or key in OPTIONAL | {"session_id"}:
        wrong.remove(None)
    pairs[at] = key, data.draw(st.sampled_from(wrong))
    assert_alarm(danger, write(head, *samples))


@each
@spoilt
@given(st.data())
def test_another_field_is_missing(danger: Danger, data: st.DataObject) -> None:
    head, samples = danger.document()
    pairs, at = data.draw(st.sampled_from([(p, n) for p, n in spoilable(danger, head, samples) if p[n][0] not in OPTIONAL]))
    del pairs[at]
    assert_alarm(danger, write(head, *samples))


@each
@spoilt
@given(st.data())
def test_another_key_comes_twice(danger: Danger, data: st.DataObject) -> None:
    head, samples = danger.document()
    pairs, at = data.draw(st.sampled_from(spoilable(danger, head, samples)))
    pairs.insert(data.draw(st.integers(0, len(pairs))), (pairs[at][0], data.draw(st.sampled_from(NO_VALUES))))
    assert_alarm(danger, write(head, *samples))


@each
@spoilt
@given(st.data())
def test_a_key_is_unknown(danger: Danger, data: st.DataObject) -> None:
    head, samples = danger.document()
    pairs = data.draw(st.sampled_from([head, *samples]))
    pairs.insert(data.draw(st.integers(0, len(pairs))), ("x" + data.draw(st.text(max_size=8)), data.draw(st.sampled_from(NO_VALUES))))
    assert_alarm(danger, write(head, *samples))


@each
@spoilt
@given(st.data())
def test_the_message_is_cut_off_after_the_danger(danger: Danger, data: st.DataObject) -> None:
    payload = write(*(lambda head, samples: (head, *samples))(*danger.document()))
    ends = [payload.rindex(told := b'"%s":%s' % (key.encode(), orjson.dumps(value))) + len(told) for key, value in danger.said.items()]
    assert_alarm(danger, payload[: data.draw(st.integers(max(ends) + 1, len(payload) - 1))])


@each
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_the_message_is_in_another_encoding(danger: Danger, encoding: str) -> None:
    head, samples = danger.document()
    assert_alarm(danger, write(head, *samples).decode().encode(encoding))


def test_a_refused_message_of_a_time_to_come_does_not_make_all_that_follows_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each message of the next hour would have its whole session judged again."""
    read = []
    replay = Intake._replay
    monkeypatch.setattr(Intake, "_replay", lambda *asked: read.append(found := replay(*asked)) or found)
    spoilt = orjson.dumps(envelope(999, START_MS, sample(C, 3_500_000, level="three", i_peak_ua=900.0)))
    with Line(tmp_path) as line:
        line.run(deliver(C, spoilt, START_MS)).one_by_one(
            deliver(C, message(C, n, START_MS + 1_000 * n), START_MS + 1_000 * n) for n in range(1, 40)
        )
        assert [alert["from_rejected"] for alert in line.alerts(rule="overcurrent-peak")] == [True]
        assert sum(messages for _, _, messages in read) < 10


@pytest.mark.parametrize("ahead_ms", [0, 55_000, 59_000, 90_000])
def test_the_samples_of_a_refused_message_keep_their_distances_though_its_clock_is_ahead(ahead_ms: int) -> None:
    gleaned = glean(orjson.dumps(envelope(9, START_MS + ahead_ms, *(sample(C, 1_000 * n) for n in range(8)))))
    times = [reading.t_ms for reading in partial_readings(gleaned, None, START_MS, PROFILES)]
    assert [t_ms - times[0] for t_ms in times] == [1_000 * n for n in range(8)]
    assert times[-1] <= START_MS + AHEAD_MS
