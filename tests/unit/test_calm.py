"""What is passed at one look is harmless: no condition of a current rule holds on it."""

from array import array
from functools import cache
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import event, given, settings

from ingest.safety.calm import is_calm
from ingest.safety.data import against_itself, against_ohm
from ingest.safety.judge import Judged, judge
from ingest.safety.memory import Balance
from ingest.safety.rules import OF_STREAM
from ingest.safety.track import Reading, Track
from schemas.messages import SAMPLES
from schemas.profile import UNKNOWN
from schemas.topics import Stream
from tests.line import DEVICE, PROFILES, START_MS, sample

NOMINAL: dict[str, dict[str, Any]] = {
    "toneduo-400": {"i_set_ua": 400, "i_peak_ua": 400, "i_rms_ua": 282, "v_peak_mv": 3_200},
    "tonetip-e": {"i_set_ua": 150, "i_peak_ua": 150, "i_rms_ua": 106, "v_peak_mv": 1_200},
    "ursa-adapt-10": {"mode": "biphasic", "i_set_ua": 300, "i_peak_ua": 300, "i_rms_ua": 134, "freq_hz": 100, "pulse_us": 1_000, "v_peak_mv": 2_400},
    "gelwave-multi": {"mode": "biphasic", "i_set_ua": 400, "i_peak_ua": 400, "i_rms_ua": 282, "freq_hz": 40, "v_peak_mv": 3_200},
}  # fmt: skip
BOUND_TO_LOOK_CLOSER: dict[str | None, dict[str, Any]] = {
    "lumabar-s15": {"mode": "dc", "i_set_ua": 15, "i_peak_ua": 15, "i_rms_ua": 15, "i_dc_ua": 15, "freq_hz": 0, "duty": 1, "v_peak_mv": 120},
    None: {},
}
"""Direct current by design, and no profile: these never take the short way."""

ORDINARY = NOMINAL | BOUND_TO_LOOK_CLOSER


def near(*values: float) -> st.SearchStrategy[float]:
    """Values about the given ones, where limits may lie."""
    return st.sampled_from(values).flatmap(lambda v: st.floats(0.9, 1.1).map(lambda part: v * part))


SAMPLE_ODD = {
    "window_ms": st.sampled_from((100, 5_000)),
    "i_set_ua": near(150, 240, 270, 330),
    "i_peak_ua": near(15, 150, 187, 192, 300, 390, 500, 505, 600),
    "i_rms_ua": near(5, 141, 174, 283, 354),
    "v_peak_mv": near(50, 1_600, 2_400, 3_200, 19_200, 22_800, 24_000, 40_000),
    "clip_frac": st.sampled_from((0.4, 0.6, 1.0)),
    "freq_hz": near(0.4, 6.6, 8.3, 10, 80, 120, 180),
    "pulse_us": near(48_000, 60_000, 72_000, 800, 1_200),
    "output_enabled": st.just(False),
    "mode": st.sampled_from(("alt_burst", "biphasic", "dc", "off")),
}
TRACK_ODD = {
    "contact_state": st.sampled_from(("off", "short", "marginal", "poor")),
    "contact_frac": st.none() | near(0.1, 0.2, 0.3) | st.floats(0, 1),
    "z_ohm": near(100, 5_000, 13_000, 20_000),
    "made_ms": st.just(START_MS + 119_500),
    "output_on_ms": near(480_000, 1_200_000),
    "counter_s": near(480, 1_200, 1_350),
    "zone": st.sampled_from(("eyelid_l", "temple", "orbit", "side_neck_l")),
    "charging": st.just(True),
    "clock_step_ms": st.sampled_from((60_001, -60_001, 60_000)),
    "balance": st.tuples(near(-60, -50, -10, 10, 50, 60), near(-60, -10, 10, 50, 60, 150)),
    "net_charge": near(22.5e6, 90e6, 108e6, -90e6),
    "rest": near(10, 100),
    "frozen": st.sampled_from((59, 60, 61)),
    "skew_ms": st.sampled_from((1, 70_000)),
}
ODD = {**SAMPLE_ODD, **TRACK_ODD}
odd = st.sampled_from(list(ODD)).flatmap(lambda name: st.tuples(st.just(name), ODD[name]))


def reading(model: str | None, stream: Stream, at_ms: int, **fields: Any) -> Reading:
    profile = PROFILES.for_model(model) if model else None
    said = SAMPLES[stream].model_validate_json(orjson.dumps(sample(stream, **fields)))
    return Reading(START_MS + at_ms, stream.value, said, START_MS + at_ms, 7, at_ms, model, "B", "2.3.1", profile, False, 0, START_MS)


@cache
def two_quiet_minutes(model: str | None) -> bytes:
    track = Track(DEVICE, "s-1")
    for s in range(120):
        if s % 5 == 0:
            judge(track, reading(model, Stream.RUNTIME, s * 1000 + 1, elapsed_s=s, output_on_s=s), Judged())
        judge(track, reading(model, Stream.CONTACT, s * 1000 + 500, z_ohm=8_000.0 + s), Judged())
        judge(track, reading(model, Stream.CURRENT, s * 1000 + 999, **ORDINARY[model]), Judged())
    return track.to_json()


def lived(model: str | None, **last: Any) -> tuple[Track, Reading]:
    """A track after two quiet minutes, and one more reading with some fields unlike the others."""
    return Track.from_json(two_quiet_minutes(model)), reading(model, Stream.CURRENT, 120_000, **(ORDINARY[model] | last))


def set_odd(track: Track, reading: Reading, name: str, value: Any) -> None:
    """Bring a track into a state that the rules may object to."""
    if name == "balance":
        long, short = value
        begun, before = (0, 0.0, 0.0, 0.0), (50, 50_000.0, long * 60_000 - short * 10_000, 282 * 50_000.0)
        track.balance = Balance(60_000.0, long * 60_000, 282 * 60_000.0, array("d", (*begun, *before)), 0, 4)
    elif name == "net_charge":
        track.figures.net_charge = value
    elif name == "rest":
        track.figures.rest_ms, track.figures.rest_charge = 1_000, value * -1_000
        track.figures.touching_ms = 1_200_000
    elif name == "frozen":
        track.frozen.samples, track.frozen.z_low_ohm, track.frozen.z_high_ohm = value, 8_000, 9_000
    elif name == "skew_ms":
        reading.skew_ms = value
    else:
        setattr(track, name, value)


def conditions_met(track: Track, reading: Reading) -> list[str]:
    limits = reading.profile.limits if reading.profile else UNKNOWN
    return [
        limb.when
        for _, limbs in OF_STREAM["current"]
        for _, limb in limbs
        if limb.condition not in (against_ohm, against_itself) and limb.condition(track, reading, limits) is not None
    ]


@settings(max_examples=1_500)
@given(st.sampled_from([*NOMINAL, *BOUND_TO_LOOK_CLOSER]), st.lists(odd, max_size=3, unique_by=lambda each: each[0]))
def test_a_sample_that_is_called_calm_meets_no_condition(model: str | None, oddities: list[tuple[str, Any]]) -> None:
    track, last = lived(model, **{name: value for name, value in oddities if name in SAMPLE_ODD})
    for name, value in oddities:
        if name in TRACK_ODD:
            set_odd(track, last, name, value)
    if is_calm(track, last, last.profile.limits if last.profile else UNKNOWN):
        event("calm")
        assert conditions_met(track, last) == []


@pytest.mark.parametrize("model", NOMINAL)
def test_ordinary_use_takes_the_short_way(model: str) -> None:
    track, last = lived(model)
    assert is_calm(track, last, last.profile.limits)
