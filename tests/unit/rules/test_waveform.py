"""The rules on density of current and power, and on the waveform."""

from math import sqrt
from typing import Any

import pytest

from ingest.safety.track import Reading
from tests.unit.rules.readings import (
    DIRECT,
    GELWAVE,
    LUMABAR,
    MODELS,
    TIP,
    TONE,
    UNKNOWN,
    URSA,
    above,
    below,
    contact,
    current,
    fires,
    judged,
    limits_of,
    of,
    refused,
    runtime,
    seconds,
    spans,
    touching,
)

# -- current-density ------------------------------------------------------------------------------------

DENSITY = {
    "lumabar-s15": (0.2, 0.5), "toneduo-400": (1.5, 2.0), "tonetip-e": (1.5, 2.0), "ursa-adapt-10": (1.5, 2.0), "gelwave-multi": (1.5, 2.0),
}  # fmt: skip


def dense(density: float, count: int, model: str = TONE, fraction: float | None = 0.1, from_s: float = 0, **fields: Any) -> list[Reading]:
    """So much r.m.s. current per area, through a part of the electrode."""
    rms_ua = density * 1000 * limits_of(model).area_cm2 * (1.0 if fraction is None else max(fraction, 0.05))
    return [
        *touching(from_s + count, from_s, model, contact_frac=fraction),
        *seconds(count, lambda s: current(s, model, **{"i_rms_ua": rms_ua, "i_set_ua": rms_ua, **fields}), from_s),
    ]


def densities(readings: list[Reading]) -> list[Any]:
    return of("current-density", readings)


@pytest.mark.parametrize(("model", "limits"), DENSITY.items())
def test_density_warns_after_five_seconds_and_is_critical_after_three(model: str, limits: tuple[float, float]) -> None:
    warning, critical = limits
    assert densities(dense(below(warning), 30, model)) == []
    assert densities(dense(above(warning), 4, model)) == []
    assert densities(dense(above(warning), 5, model)) == [("warning", 0, 4, None)]
    assert densities(dense(below(critical), 30, model)) == [("warning", 0, 4, None)]
    assert densities(dense(above(critical), 2, model)) == []
    assert densities(dense(above(critical), 3, model)) == [("critical", 0, 2, None)]


def test_at_the_very_limit_density_is_not_beyond_it() -> None:
    assert densities(dense(1.5, 30, fraction=1.0)) == []
    assert densities(dense(2.0, 30, fraction=1.0)) == [("warning", 0, 4, None)]


def test_direct_current_programs_have_the_limits_of_direct_current() -> None:
    assert densities(dense(below(0.2), 30, GELWAVE, **DIRECT | {"i_set_ua": 12.0})) == []
    assert densities(dense(above(0.2), 5, GELWAVE, **DIRECT | {"i_set_ua": 12.0})) == [("warning", 0, 4, None)]
    assert densities(dense(above(0.5), 3, GELWAVE, **DIRECT | {"i_set_ua": 30.0})) == [("critical", 0, 2, None)]


@pytest.mark.parametrize(("share", "expected"), [(0.49, []), (0.51, [("critical", 7, 9, None)])])
def test_current_that_is_mostly_direct_is_judged_as_direct(share: float, expected: list[Any]) -> None:
    """Known from 8 s of data on."""
    readings = dense(1.0, 12, i_rms_ua=100.0, i_dc_ua=100.0 * share)
    assert densities(readings) == expected


def test_density_names_the_area_that_it_assumes() -> None:
    measured, assumed = dense(2.5, 5, TIP), dense(2.5, 5, TIP, fraction=None)
    assert [a.detail for a in judged(measured) if a.rule == "current-density"] == ["electrode area 0.25 cm² as the profile says"]
    ((alert),) = [a for a in judged(assumed) if a.rule == "current-density"]
    assert alert.detail == "electrode area 0.25 cm² as the profile says; contact fraction not measured, whole electrode assumed"
    assert (alert.value, alert.limit, alert.unit, alert.profile_id) == (pytest.approx(2.5), 2.0, "mA/cm²", TIP)


def test_a_smaller_contact_than_a_twentieth_is_taken_as_a_twentieth() -> None:
    assert densities(dense(below(1.5), 30, fraction=0.001)) == []
    assert densities(dense(above(1.5), 5, fraction=0.001)) == [("warning", 0, 4, None)]


def test_edge_contact_while_gliding_is_normal() -> None:
    """Two seconds on the edge, one flat, again and again."""
    edges = [contact(n / 2 - 0.25, contact_frac=0.1 if n // 2 % 3 else 0.9) for n in range(120)]
    assert fires([*edges, *seconds(60, lambda s: current(s, i_rms_ua=250.0))]) == []


def test_a_contact_fraction_of_more_than_three_seconds_ago_is_not_used() -> None:
    readings = [contact(0, contact_frac=0.1), *seconds(20, lambda s: current(s, i_rms_ua=250.0), from_s=1)]
    assert densities(readings) == [("critical", 1, 3, 4)]
    assert densities([contact(0, contact_frac=0.1), *seconds(20, lambda s: current(s, i_rms_ua=250.0), from_s=2)]) == []


def test_without_contact_density_is_another_rules_matter_but_not_on_old_news_of_contact() -> None:
    flowing = seconds(20, lambda s: current(s, TIP, i_rms_ua=800.0, v_peak_mv=100.0))
    off = [contact(n / 2, "off", TIP) for n in range(40)]
    assert densities([*off, *flowing]) == []
    assert densities([*off[:2], *flowing]) == [("critical", 4, 6, None)]


def test_density_clears_below_80_percent_of_the_warning_limit() -> None:
    assert densities([*dense(1.6, 5), *dense(above(1.2), 5, from_s=5)]) == [("warning", 0, 4, None)]
    assert densities([*dense(1.6, 5), *dense(below(1.2), 5, from_s=5)]) == [("warning", 0, 4, 5)]


def test_a_lift_between_two_glides_does_not_clear_density_but_a_pause_does() -> None:
    lift = [contact(4.9, "off"), contact(5.4, "off"), current(5.5, i_rms_ua=0.0, i_peak_ua=0.0)]
    assert [a[3] for a in densities([*dense(1.6, 5), *lift])] == [None]
    paused = [*lift, runtime(5.6, run_state="paused"), current(6.5, i_rms_ua=0.0, i_peak_ua=0.0)]
    assert [a[3] for a in densities([*dense(1.6, 5), *paused])] == [6.5]


def test_density_of_direct_current_clears_below_80_percent_of_its_own_limit() -> None:
    def cleared(model: str, density: float, **fields: Any) -> list[Any]:
        return [a[3] for a in densities([*dense(0.21, 5, model, **fields), *dense(density, 5, model, from_s=5, **fields)])]

    direct = DIRECT | {"i_set_ua": 12.0}
    assert cleared(GELWAVE, above(0.16), **direct) == cleared(LUMABAR, above(0.16)) == [None]
    assert cleared(GELWAVE, below(0.16), **direct) == cleared(LUMABAR, below(0.16)) == [5]


def test_density_becomes_critical_within_one_alert() -> None:
    assert [a[:4] for a in densities([*dense(1.6, 6), *dense(2.2, 6, from_s=6)])] == [("critical", 0, 4, None)]


def test_density_of_refused_messages_is_judged_with_the_whole_electrode() -> None:
    assert fires([refused(s, TIP, i_rms_ua=below(375.0), window_ms=1000, boost=True) for s in range(5)]) != []  # overcurrent
    assert densities([refused(s, TIP, i_rms_ua=below(375.0), window_ms=1000) for s in range(5)]) == []
    assert densities([refused(s, TIP, i_rms_ua=above(375.0), window_ms=1000) for s in range(5)]) == [("warning", 0, 4, None)]
    assert densities([refused(s, TIP, i_rms_ua=above(500.0), window_ms=1000) for s in range(3)]) == [("critical", 0, 2, None)]


def test_without_a_profile_there_is_no_area_to_judge_by() -> None:
    assert fires([*touching(30, contact_frac=0.05), *seconds(30, lambda s: current(s, UNKNOWN, i_peak_ua=900.0, i_set_ua=900.0))]) == []


# -- power-density --------------------------------------------------------------------------------------


def powerful(power: float, z_ohm: float = 8e3, model: str = GELWAVE, **fields: Any) -> Reading:
    rms_ua = sqrt(power * limits_of(model).area_cm2 * 0.05 / z_ohm) * 1e6
    return current(0, model, z_ohm, i_rms_ua=rms_ua, i_peak_ua=rms_ua, **fields)


def powers(readings: list[Reading]) -> list[Any]:
    return [(a.severity, round(a.value, 9), a.limit, a.unit) for a in judged(readings) if a.rule == "power-density"]


@pytest.mark.parametrize("model", MODELS)
def test_a_quarter_of_a_watt_per_square_centimetre_is_dangerous_at_once(model: str) -> None:
    touch = contact(-0.1, model=model, z_ohm=8e3, contact_frac=0.05)
    assert powers([touch, powerful(below(0.25), model=model)]) == []
    assert powers([touch, powerful(0.2501, model=model)]) == [("critical", 0.2501, 0.25, "W/cm²")]


def test_of_two_impedances_the_lower_counts_so_that_bad_data_do_not_burn() -> None:
    touch = contact(-0.1, model=GELWAVE, z_ohm=80e3, contact_frac=0.05)
    assert powers([touch, powerful(0.2501)]) == [("critical", 0.2501, 0.25, "W/cm²")]
    assert powers([contact(-0.1, model=GELWAVE, z_ohm=4e3, contact_frac=0.05), powerful(0.2501)]) == []


def test_power_in_a_refused_message_needs_voltage_and_current_of_its_own() -> None:
    fields = {"i_rms_ua": 5_500.0, "i_peak_ua": 5_500.0, "v_peak_mv": 5.5 * 8_000.0 * 1.3}
    assert powers([refused(0, TONE, **fields)]) == [("critical", pytest.approx(0.3146), 0.25, "W/cm²")]
    assert powers([refused(0, TONE, i_rms_ua=5_500.0, i_peak_ua=5_500.0)]) == []
    assert powers([refused(0, UNKNOWN, **fields)]) == []


def test_power_clears_when_it_was_harmless_for_two_seconds() -> None:
    touch = touching(5, model=GELWAVE, z_ohm=8e3, contact_frac=0.05)
    readings = [*touch, powerful(0.3), *seconds(4, lambda s: current(s, GELWAVE), from_s=1)]
    assert of("power-density", readings) == [("critical", 0, 0, 3)]
    assert of("power-density", readings[:-2]) == [("critical", 0, 0, None)]


# -- waveform-drift -------------------------------------------------------------------------------------

FREQUENCIES = {TONE: (6.64, 9.96), TIP: (6.64, 9.96), URSA: (80.0, 120.0), GELWAVE: (0.4, 180.0)}
PULSES = {TONE: (48_000.0, 72_000.0), TIP: (48_000.0, 72_000.0), URSA: (800.0, 1_200.0)}
DRIFT = [("waveform-drift", "warning")]


def waves(count: int, model: str = TONE, **fields: Any) -> list[Reading]:
    return seconds(count, lambda s: current(s, model, **fields))


@pytest.mark.parametrize(("model", "field", "band"), [
    *((model, "freq_hz", band) for model, band in FREQUENCIES.items()), *((model, "pulse_us", band) for model, band in PULSES.items()),
])  # fmt: skip
def test_a_waveform_more_than_20_percent_off_is_told_after_five_seconds(model: str, field: str, band: tuple[float, float]) -> None:
    unit = "Hz" if field == "freq_hz" else "µs"
    for edge, inside, outside in ((band[0], above, below), (band[1], below, above)):
        wrong = outside(outside(edge))
        assert fires(waves(20, model, **{field: inside(edge)})) == []
        assert fires(waves(4, model, **{field: wrong})) == []
        (alert,) = judged(waves(5, model, **{field: wrong}))
        assert (alert.rule, alert.severity, alert.value, alert.limit, alert.unit) == ("waveform-drift", "warning", wrong, pytest.approx(edge), unit)


@pytest.mark.parametrize(("said", "worst"), [([4.0, 3.0, 5.0], 3.0), ([20.0, 40.0, 30.0], 40.0)])
def test_the_frequency_told_is_the_one_furthest_off(said: list[float], worst: float) -> None:
    readings = [current(s, freq_hz=said[s % 3]) for s in range(9)]
    assert [a.value for a in judged(readings)] == [worst]


def test_only_an_active_waveform_drifts_and_not_in_its_grace() -> None:
    assert fires([runtime(-1, run_state="paused"), *waves(20, freq_hz=20.0)]) == []
    assert fires(waves(20, freq_hz=20.0, output_enabled=False)) == []
    assert fires(waves(20, pulse_us=9.0, output_enabled=False)) == fires(waves(20, pulse_us=9.0, mode="dc", i_set_ua=80.0)) == []
    assert [a[2:4] for a in spans([current(-1, level=4), *waves(20, freq_hz=20.0)])] == [(2, 6)]


@pytest.mark.parametrize(("model", "fields"), [(LUMABAR, {"freq_hz": 50.0}), (GELWAVE, DIRECT), (UNKNOWN, {"freq_hz": 3.0, "pulse_us": 5.0})])
def test_direct_current_and_models_unknown_have_no_frequency(model: str, fields: dict[str, Any]) -> None:
    assert fires(waves(20, model, **fields)) == []


@pytest.mark.parametrize(("model", "stuck"), [(TONE, 0.83), (URSA, 10.0), (GELWAVE, 0.05)])
def test_a_generator_that_stands_still_is_critical_after_two_seconds(model: str, stuck: float) -> None:
    def said(count: int, freq_hz: float, share: float) -> list[Any]:
        return [a for a in fires(waves(count, model, freq_hz=freq_hz, i_rms_ua=60.0, i_dc_ua=60.0 * share)) if a[0] == "waveform-drift"]

    assert said(4, stuck * 1.001, 1.0) == said(4, below(stuck), 0.5) == said(1, below(stuck), 0.51) == []
    assert said(2, below(stuck), 0.51) == [("waveform-drift", "critical")]
    assert said(5, below(stuck), 0.49) == DRIFT


@pytest.mark.parametrize("model", FREQUENCIES)
def test_at_the_very_edges_of_its_bands_a_waveform_is_as_it_should_be(model: str) -> None:
    limits = limits_of(model)
    (band,) = limits.bands.values()
    pulses = [{"pulse_us": us} for us in (limits.pulse_low_us, limits.pulse_high_us) if 0 < us < 1e6]
    for edge in ({"freq_hz": band.low_hz}, {"freq_hz": band.high_hz}, *pulses):
        assert fires(waves(20, model, **edge)) == []
    standing = waves(9, model, freq_hz=band.stuck_hz, i_rms_ua=60.0, i_dc_ua=60.0)
    assert ("waveform-drift", "critical") not in fires(standing)


def test_a_drift_to_above_that_comes_to_a_stand_tells_of_the_stand() -> None:
    readings = [*waves(6, freq_hz=20.0), *seconds(3, lambda s: current(s, freq_hz=0.0, i_rms_ua=60.0, i_dc_ua=60.0), from_s=6)]
    assert [(a.severity, a.value, a.limit) for a in judged(readings)] == [("critical", 0.0, pytest.approx(0.83))]


def test_a_drift_that_comes_to_a_stand_is_one_alert_that_becomes_critical() -> None:
    readings = [*waves(6, freq_hz=5.0), *seconds(3, lambda s: current(s, freq_hz=0.0, i_rms_ua=60.0, i_dc_ua=60.0), from_s=6)]
    (alert,) = judged(readings)
    assert (alert.severity, alert.value, alert.limit, alert.detail) == ("critical", 0.0, pytest.approx(0.83), "half of the waveform stands still")


def test_a_waveform_clears_after_five_seconds_as_it_should_be() -> None:
    readings = [*waves(5, pulse_us=90_000.0), *seconds(6, current, from_s=5)]
    assert of("waveform-drift", readings) == [("warning", 0, 4, 10)]
    assert of("waveform-drift", readings[:-1]) == [("warning", 0, 4, None)]


@pytest.mark.parametrize("fields", [{"freq_hz": 20.0}, {"pulse_us": 90_000.0}, {"freq_hz": 20.0, "mode": "alt_burst"}])
def test_a_waveform_in_refused_messages_is_judged_by_what_could_be_read_of_it(fields: dict[str, Any]) -> None:
    assert fires([refused(s, window_ms=1000, **fields) for s in range(4)]) == []
    assert fires([refused(s, window_ms=1000, **fields) for s in range(5)]) == DRIFT


def test_where_the_mode_could_not_be_read_the_last_one_counts() -> None:
    wrong = [refused(1 + s, GELWAVE, window_ms=1000, freq_hz=0.0) for s in range(5)]
    assert fires([current(0, GELWAVE, **DIRECT), *wrong]) == []
    assert fires([current(0, GELWAVE), *wrong]) == DRIFT
