"""What holds for all rules: nothing harmless raises anything, worse is never milder, state survives."""

from collections.abc import Callable
from math import sin
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ingest.safety.judge import Judged, judge
from ingest.safety.rule import Scope
from ingest.safety.rules import ALONE, OF_STREAM, RULE, RULES
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from tests.line import DEVICE
from tests.unit.rules.readings import (
    DIRECT,
    GELWAVE,
    LUMABAR,
    MODELS,
    TONE,
    contact,
    current,
    fires,
    health,
    identity,
    judged,
    limits_of,
    profile_of,
    refused,
    runtime,
    seconds,
    touching,
)

# -- harmless -------------------------------------------------------------------------------------------

LEVELS: dict[str, list[dict[str, Any]]] = {
    "lumabar-s15": [{"i_set_ua": 15.0}],
    "toneduo-400": [{"i_set_ua": i} for i in (80.0, 160.0, 240.0, 320.0, 400.0)],
    "tonetip-e": [{"i_set_ua": i} for i in (53.0, 88.0, 123.0, 158.0, 192.0)],
    "ursa-adapt-10": [{"i_set_ua": 39.0 * n} for n in range(11)],
    "gelwave-multi": [{"i_set_ua": 50.0 * n, "freq_hz": f} for n, f in zip(range(1, 11), (0.5, 1, 5, 8, 10, 30, 60, 100, 120, 150), strict=True)]
    + [{**DIRECT, "i_set_ua": i} for i in (50.0, 100.0)],
}


def nominal(model: str, level: int, noise: float, at_s: float, lifted: bool, swing: float) -> Reading:
    said = LEVELS[model][level]
    peak_ua = 0.0 if lifted else said["i_set_ua"] * noise
    dc = {"i_dc_ua": swing * 0.5 * peak_ua} if model in (TONE, "tonetip-e") else {}
    z_ohm = 30e3 if model == LUMABAR else 8e3
    return current(at_s, model, z_ohm, **said, i_peak_ua=peak_ua, level=level, **dc)


@pytest.mark.parametrize("model", MODELS)
def test_a_device_in_nominal_operation_raises_nothing(model: str) -> None:
    """Its longest session, each level in turn, bursts alternating, the electrodes lifted for half a second every 5 s."""
    profile = profile_of(model)
    assert profile is not None
    most_s, levels = int(profile.session.max_s), len(LEVELS[model])
    readings = [identity(-1, model), runtime(-0.5, model, run_state="armed")]
    lifts = 0
    for s in range(most_s):
        noise = 1 + 0.02 * sin(1.7 * s)
        if s % 5 == 0:
            zone = ("cheek_l", "jaw_l", "forehead", "cheek_r")[s // 60 % 4]
            readings.append(runtime(s, model, output_on_s=s, elapsed_s=s, zone=zone, zone_elapsed_s=s % 60))
            lifts += 1
        if s % 60 == 0:
            readings.append(health(s + 0.01, model, temp_head_c=36.0, lux=300.0 if model == LUMABAR else None))
        readings.append(nominal(model, s * levels // most_s, noise, s + 0.02, False, 1.0 if int(s / 1.2) % 2 else -1.0))
        wet = {"make_count": lifts, "break_count": lifts, "z_ohm": (30e3 if model == LUMABAR else 8e3) * (1 + 0.15 * sin(0.3 * s))}
        readings += [
            contact(s + 0.1, model=model, **wet),
            contact(s + 0.6, "off" if s % 5 == 4 else "good", model, **(wet | ({"z_ohm": 2e6, "break_count": lifts + 1} if s % 5 == 4 else {}))),
        ]
    ended = runtime(most_s, model, run_state="ended", output_on_s=most_s, end_reason="auto_off")
    assert fires([*readings, ended]) == []


@given(st.sampled_from(MODELS), st.data())
def test_harmless_readings_raise_nothing(model: str, data: st.DataObject) -> None:
    """Any level, noise, lift, zone, pause and swing of bursts within what the model may do.

    Lifts begin at least 5 s apart, as glides do: three in ten seconds, each in a window of the same sign, would leave
    a direct current on the skin, and are told as one.
    """
    limits, count = limits_of(model), data.draw(st.integers(1, 40))
    level = data.draw(st.integers(0, len(LEVELS[model]) - 1))
    zones = [z for z in ("cheek_l", "jaw_r", "forehead", "nasolabial_l", "unassigned") if z not in limits.zones_forbidden]
    readings = [runtime(-1, model, zone=data.draw(st.sampled_from(zones)), run_state=data.draw(st.sampled_from(("running", "paused"))))]
    z_ohm = limits.z_good_max_ohm * data.draw(st.floats(0.05, 0.3))
    makes, state, lifted_s = 1, "good", -5
    for s in range(count):
        now = data.draw(st.sampled_from(("good", "good", "good", "off"))) if state == "off" or s - lifted_s >= 5 else "good"
        lifted_s = s if now == "off" and state == "good" else lifted_s
        makes += now == "good" and state == "off"
        state = now
        noise = data.draw(st.floats(0.95, 1.05))
        off = state == "off"
        readings.append(contact(s - 0.6, state, model, z_ohm=20e6 if off else z_ohm, make_count=makes, break_count=makes))
        one = nominal(model, level, noise, s, off, 1.0 if s % 2 else -1.0)
        one.sample = one.sample.model_copy(update={"v_peak_mv": one.sample.i_peak_ua * z_ohm / 1000})
        readings.append(one)
        if data.draw(st.booleans()):
            readings.append(health(s + 0.1, model, temp_head_c=data.draw(st.floats(-40, 40.9)), temp_pcb_c=data.draw(st.floats(-40, 59.9))))
    assert fires(readings) == []


# -- worse is never milder ------------------------------------------------------------------------------


Danger = Callable[[float, float], list[Reading]]

SCALARS: dict[str, Danger] = {
    "overcurrent-peak": lambda s, x: [current(s, i_peak_ua=min(1e5, 400.0 * x), i_rms_ua=100.0, v_peak_mv=1e5)],
    "overcurrent-rms": lambda s, x: [current(s, i_rms_ua=min(7e4, 280.0 * x))],
    "setpoint-overdelivery": lambda s, x: [contact(s - 0.2, z_ohm=500.0), current(s, z_ohm=500.0, i_set_ua=40.0, i_peak_ua=min(590.0, 40.0 * x))],
    "dc-offset": lambda s, x: [current(s, i_dc_ua=min(282.0, 8.0 * x))],
    "net-charge-dose": lambda s, x: [
        contact(s - 0.2, z_ohm=100.0), current(s, z_ohm=100.0, i_rms_ua=2e4, i_peak_ua=3e4, i_dc_ua=min(2e4, 1_000.0 * x)),
    ],
    "current-density": lambda s, x: [contact(s - 0.2, contact_frac=min(1.0, 0.9 / x)), current(s)],
    "power-density": lambda s, x: [current(s, GELWAVE, 2e3, i_peak_ua=min(9e4, 5_000.0 * x))],
    "waveform-drift": lambda s, x: [current(s, pulse_us=min(2e6, 60_000.0 * x))],
    "contact-lost-output-on": lambda s, x: [contact(s - 0.2, "off"), current(s, i_peak_ua=0.0, v_peak_mv=min(1e6, 15_000.0 * x))],
    "current-without-contact": lambda s, x: [contact(s - 0.2, "off"), current(s, i_rms_ua=min(350.0, 30.0 * x))],
    "compliance-saturation": lambda s, x: [contact(s - 0.2, "poor"), current(s, i_peak_ua=390.0 / x, clip_frac=1.0)],
    "contact-chatter": lambda s, x: [contact(s, break_count=min(10**9, int(0.9 * s * x)))],
    "electrode-short": lambda s, x: [contact(s, "short", z_ohm=250.0 / x)],
    "electrode-wear": lambda s, x: [identity(s, attachment_cycles=min(2**32 - 1, int(400 * x)))],
    "session-overrun": lambda s, x: [runtime(s, output_on_s=min(14_400, int(1_000 * x)))],
    "zone-dwell": lambda s, x: [runtime(s, zone_elapsed_s=min(14_400, int(200 * x)))],
    "output-while-charging": lambda s, x: [health(s - 0.2, charging=True), current(s, i_rms_ua=min(350.0, 15.0 * x))],
    "overtemperature": lambda s, x: [health(s, temp_head_c=min(125.0, 39.0 * x))],
    "sensor-implausible": lambda s, x: [current(s, i_peak_ua=100.0, i_rms_ua=min(1e5, 100.0 * x))],
    "low-light": lambda s, x: [health(s - 0.2, LUMABAR, lux=120.0 / x), current(s, LUMABAR, i_peak_ua=9.0, i_set_ua=15.0)],
}
"""For each rule with a scalar danger the readings of one second, so many times as bad."""


def gravest(rule: str, readings: list[Reading]) -> int:
    return max((Severity(a.severity).rank for a in judged(readings) if a.rule == rule), default=-1)


@settings(max_examples=30)
@given(st.floats(1, 60), st.floats(1, 60))
@pytest.mark.parametrize("rule", SCALARS)
def test_further_out_of_range_is_never_milder(rule: str, one: float, factor: float) -> None:
    make = SCALARS[rule]
    mild, worse = ([r for s in range(35) for r in make(s, x)] for x in (one, one * factor))
    assert gravest(rule, mild) <= gravest(rule, worse)


@pytest.mark.parametrize("rule", SCALARS)
def test_far_out_of_range_each_of_them_fires_and_in_range_none(rule: str) -> None:
    assert gravest(rule, [r for s in range(70) for r in SCALARS[rule](s, 1.0)]) == -1
    assert gravest(rule, [r for s in range(70) for r in SCALARS[rule](s, 50.0)]) >= 0


# -- the table ------------------------------------------------------------------------------------------


def test_the_table_has_each_rule_once_and_reads_streams_of_the_contract() -> None:
    assert len(RULE) == len(RULES) == len({rule.says for rule in RULES}) == 28
    of_session = {limb.reads or rule.reads for rule in RULES for limb in rule.limbs if limb.condition is not None}
    assert {stream for reads in of_session for stream in reads.split()} == set(OF_STREAM)
    assert all((limb.condition is None) == (limb.scope is not Scope.SESSION) for rule in RULES for limb in rule.limbs)


def test_the_graver_limbs_of_a_rule_come_first_and_what_is_urgent_is_alone() -> None:
    for rule in RULES:
        of_a_unit = [[limb.severity.rank for limb in rule.limbs if rule.unit_of(limb) == unit] for unit in {rule.unit_of(x) for x in rule.limbs}]
        assert all(ranks == sorted(ranks, reverse=True) for ranks in of_a_unit)
        assert all(limb.alone and not limb.hold_ms for limb in rule.limbs if limb.urgent)


def test_what_is_judged_alone_needs_no_field_and_raises_nothing_on_nothing() -> None:
    assert {rule.id for rule, _ in ALONE} == {
        "overcurrent-rms", "overcurrent-peak", "current-density", "power-density", "waveform-drift", "electrode-short", "electrode-wear",
        "session-overrun", "zone-dwell", "overtemperature", "device-fault", "sensor-implausible",
    }  # fmt: skip
    assert fires(seconds(30, refused)) == []


# -- state ----------------------------------------------------------------------------------------------

seconds_of_life = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.0, 0.0, 2.0, 40.0)),  # silence before it
        st.sampled_from((0.0, 60.0, -250.0)),  # direct current
        st.sampled_from((100.0, 360.0, 360.0, 600.0)),  # r.m.s.
        st.sampled_from(("good", "good", "good", "off", "short")),
        st.sampled_from((8e3, 30e3, 90e3)),
        st.sampled_from((0, 0, 1, 7)),  # breaks
        st.sampled_from(("cheek_l", "cheek_l", "cheek_l", "mouth")),
        st.sampled_from((31.0, 44.0)),
        st.sampled_from((3, 3, 3, 4)),  # level
    ),
    max_size=90,
)


def life(said: list[tuple[Any, ...]]) -> list[Reading]:
    at_s, breaks, found = 0.0, 0, []
    for silence_s, dc_ua, rms_ua, state, z_ohm, more, zone, celsius, level in said:
        at_s += 1 + silence_s
        breaks += more
        found += [
            runtime(at_s - 0.5, zone=zone, elapsed_s=int(at_s)),
            contact(at_s - 0.4, state, z_ohm=z_ohm if state == "good" else 100.0 if state == "short" else 2e6, break_count=breaks, motion="still"),
            health(at_s - 0.3, temp_head_c=celsius),
            current(at_s, i_rms_ua=rms_ua, i_dc_ua=max(-rms_ua, min(rms_ua, dc_ua)), level=level, i_set_ua=200.0, v_peak_mv=20_000.0),
        ]
    return found


@settings(max_examples=40)
@given(seconds_of_life, st.integers(0, 400))
def test_a_track_put_away_and_taken_up_again_at_any_point_judges_the_same(said: list[tuple[Any, ...]], at: int) -> None:
    readings = life(said)
    whole, parted, of = Track(DEVICE, "s-1"), Track(DEVICE, "s-1"), (Judged(), Judged())
    for n, one in enumerate(readings):
        judge(whole, one, of[0])
        if n == at or n % 37 == 0:
            parted = Track.from_json(parted.to_json())
        judge(parted, one, of[1])
    ends = [{i: a.model_dump(mode="json") for i, a in each.alerts.items()} for each in of]
    assert ends[0] == ends[1]
    assert whole.to_json() == parted.to_json()


def test_all_memory_of_a_rich_session_is_kept() -> None:
    """Baseline, sums, changes, counts and figures are there, and the same after a round trip."""
    readings = [runtime(0), *touching(60), *seconds(60, lambda s: current(s, i_set_ua=200.0)), contact(61, break_count=3)]
    track = Track(DEVICE, "s-1")
    for one in sorted(readings, key=lambda r: r.order):
        judge(track, one, Judged())
    again = Track.from_json(track.to_json())
    assert (again, again.to_json()) == (track, track.to_json())
    kept = (track.drying.baseline_ohm, len(track.balance.marks), track.balance.short_at, len(track.chatter.changes), track.frozen.samples)
    assert kept == (8e3, 4 * 60, 4 * 50, 2, 60)
    fresh = Track(DEVICE, "s-2")
    assert Track.from_json(fresh.to_json()) == fresh
