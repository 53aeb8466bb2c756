"""The rules on the condition of the device itself; its resets are in test_history."""

from typing import Any

import pytest

from ingest.safety.track import Reading
from tests.unit.rules.readings import (
    LUMABAR,
    MODELS,
    TONE,
    UNKNOWN,
    above,
    below,
    current,
    fires,
    health,
    judged,
    limits_of,
    of,
    refused,
    runtime,
    seconds,
    spans,
    told,
    with_profile,
)

CHARGING = [("output-while-charging", "critical")]

# -- output-while-charging ------------------------------------------------------------------------------

CHARGING_LIMITS = {"toneduo-400": 20.0, "tonetip-e": 9.6, "ursa-adapt-10": 19.5, "gelwave-multi": 25.0}


def flowing(count: int, rms_ua: float, model: str = TONE, from_s: float = 0, **fields: Any) -> list[Reading]:
    return seconds(count, lambda s: current(s, model, i_rms_ua=rms_ua, i_set_ua=rms_ua / 0.7, **fields), from_s)


def charged(count: int, rms_ua: float = 100.0, model: str = TONE) -> list[Reading]:
    """Seen to begin just before."""
    return [health(-10, model), health(-0.5, model, charging=True), *flowing(count, rms_ua, model)]


@pytest.mark.parametrize(("model", "limit"), CHARGING_LIMITS.items())
def test_more_than_a_twentieth_of_the_highest_peak_while_charging_is_critical_after_two_seconds(model: str, limit: float) -> None:
    assert fires(charged(20, limit, model)) == []
    assert fires(charged(1, above(limit), model)) == []
    assert told(charged(2, above(limit), model)) == [("output-while-charging", "critical", above(limit), pytest.approx(limit), "µA", "")]


@pytest.mark.parametrize("model", [LUMABAR, UNKNOWN])
def test_solar_cells_do_not_charge_and_what_is_unknown_has_no_limit(model: str) -> None:
    assert fires(charged(20, 14.0, model)) == []


@pytest.mark.parametrize("run_state", ["idle", "armed", "paused", "running"])
def test_current_while_charging_counts_whether_or_not_output_was_meant(run_state: str) -> None:
    assert fires([runtime(-2, run_state=run_state), *charged(3)]) == CHARGING


def test_charging_that_was_not_seen_to_begin_counts_for_five_seconds() -> None:
    def seen(at_s: float) -> list[Any]:
        return fires([health(at_s, charging=True), *flowing(2, 100.0, from_s=100)])

    assert seen(99.5) == seen(96) == CHARGING
    assert seen(95.999) == []


def test_charging_that_was_seen_to_begin_counts_until_it_is_seen_to_end() -> None:
    begun = [health(0), health(1, charging=True)]
    assert fires([*begun, *flowing(3, 100.0, from_s=59)]) == CHARGING
    assert fires([*begun, health(58, charging=False), *flowing(3, 100.0, from_s=59)]) == []


def test_charging_clears_after_two_seconds_without_it_and_not_for_want_of_news() -> None:
    readings = [health(-0.5, charging=True), *flowing(40, 100.0)]
    assert of("output-while-charging", readings) == [("critical", 0, 1, None)]
    assert of("output-while-charging", [*readings, health(10.5)]) == [("critical", 0, 1, 13)]
    assert of("output-while-charging", [*charged(3), *flowing(3, 1.0, from_s=3)]) == [("critical", 0, 1, 5)]


# -- overtemperature ------------------------------------------------------------------------------------


def heads(count: int, celsius: float, from_s: float = 0, model: str = TONE) -> list[Reading]:
    return seconds(count, lambda s: health(s, model, temp_head_c=celsius), from_s)


@pytest.mark.parametrize("model", [*MODELS, UNKNOWN])
def test_a_head_of_41_degrees_warns_after_ten_seconds_and_of_43_is_critical_after_five(model: str) -> None:
    assert fires(heads(60, below(41.0), model=model)) == []
    assert fires(heads(10, 41.0, model=model)) == []
    assert told(heads(11, 41.0, model=model)) == [("overtemperature", "warning", 41.0, 41.0, "°C", "")]
    assert fires(heads(60, below(43.0), model=model)) == [("overtemperature", "warning")]
    assert fires(heads(5, 43.0, model=model)) == []
    assert told(heads(6, 43.0, model=model)) == [("overtemperature", "critical", 43.0, 43.0, "°C", "")]


def test_a_circuit_board_of_60_degrees_is_critical_at_once() -> None:
    assert fires([health(0, temp_pcb_c=below(60.0))]) == []
    assert told([health(0, temp_pcb_c=60.0)]) == [("overtemperature", "critical", 60.0, 60.0, "°C", "circuit board")]


def test_a_head_that_grows_hotter_is_one_alert_that_becomes_critical() -> None:
    readings = seconds(120, lambda s: health(s, temp_head_c=33.0 + s / 10))
    (alert,) = judged(readings)
    assert (alert.severity, alert.value, alert.limit) == ("critical", 44.9, 43.0)
    assert spans(readings) == [("overtemperature", "critical", 80, 90, None, None)]
    assert alert.escalated_ms == alert.onset_ms + 25_000


def test_a_heated_model_has_the_limits_of_its_profile() -> None:
    def heated(count: int, celsius: float) -> list[Any]:
        return fires(with_profile(heads(count, celsius), device={"temp_max_c": 46.0}))

    assert heated(60, below(44.0)) == heated(10, 44.0) == heated(5, 46.0) == []
    assert heated(60, below(46.0)) == heated(11, 44.0) == [("overtemperature", "warning")]
    assert heated(6, 46.0) == [("overtemperature", "critical")]


def test_readings_a_minute_apart_cannot_hold() -> None:
    assert fires(seconds(10, lambda s: health(s, temp_head_c=50.0), step_s=60)) == []
    assert fires(seconds(4, lambda s: health(s, temp_head_c=50.0), step_s=3)) == [("overtemperature", "critical")]


def test_a_head_clears_at_once_below_the_warning_limit_and_may_come_back() -> None:
    readings = [*heads(11, 42.0), *heads(1, below(41.0), 11), *heads(11, 42.0, 12)]
    assert of("overtemperature", readings) == [("warning", 0, 10, 11), ("warning", 12, 22, None)]
    assert of("overtemperature", [*heads(11, 42.0), *heads(10, 41.0, 11)]) == [("warning", 0, 10, None)]


def test_head_and_board_must_both_be_cool() -> None:
    readings = [health(0, temp_pcb_c=61.0), health(1, temp_pcb_c=60.0), health(2, temp_head_c=41.0), health(3)]
    assert of("overtemperature", readings) == [("critical", 0, 0, 3)]
    assert of("overtemperature", readings[:-1]) == [("critical", 0, 0, None)]


def test_heat_in_refused_messages_is_told() -> None:
    assert fires([refused(s, temp_head_c=43.0) for s in range(5)]) == []
    assert fires([refused(s, temp_head_c=43.0) for s in range(6)]) == [("overtemperature", "critical")]
    assert fires([refused(s, temp_head_c=41.0) for s in range(11)]) == [("overtemperature", "warning")]
    assert fires([refused(0, temp_pcb_c=60.0)]) == [("overtemperature", "critical")]


# -- device-fault ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_critical_fault_bit_of_the_profile_is_critical_and_another_is_not(model: str) -> None:
    assert limits_of(model).critical_faults == 7
    assert fires([health(0, model, fault_bits=0xFFFFFFF8)]) == []
    assert told([health(0, model, fault_bits=0xFFFFFFF8 | 4)]) == [("device-fault", "critical", 4.0, 0.0, "bits", "fault bits 0x4")]


def test_without_a_profile_every_fault_bit_counts() -> None:
    assert fires([health(0, UNKNOWN, fault_bits=0x80000000)]) == [("device-fault", "critical")]


@pytest.mark.parametrize(("said", "expected"), [("pass", []), ("not_run", []), ("fail", [("device-fault", "critical")])])
def test_a_self_test_that_failed_is_critical(said: str, expected: list[Any]) -> None:
    assert fires([health(0, self_test=said)]) == fires([refused(0, self_test=said)]) == expected


def test_a_fault_clears_when_it_is_no_longer_reported() -> None:
    assert of("device-fault", [health(0, fault_bits=1), health(60, fault_bits=1), health(120)]) == [("critical", 0, 0, 120)]
    assert of("device-fault", [health(0, fault_bits=1), current(1), runtime(2)]) == [("critical", 0, 0, None)]


def test_fault_bits_in_a_refused_message_are_told() -> None:
    assert fires([refused(0, fault_bits=8.0)]) == []
    assert fires([refused(0, fault_bits=2.0)]) == [("device-fault", "critical")]


# -- low-light ------------------------------------------------------------------------------------------


def dim(count: int, lux: float = 40.0, share: float = 0.5, model: str = LUMABAR) -> list[Reading]:
    set_ua = 15.0 if model == LUMABAR else 200.0
    lights = [health(60 * n - 0.5, model, lux=lux, solar_mv=500.0) for n in range(count // 60 + 1)]
    return [*lights, *seconds(count, lambda s: current(s, model, i_set_ua=set_ua, i_peak_ua=share * set_ua))]


def test_a_solar_device_in_less_than_100_lux_with_too_little_current_is_told_after_half_a_minute() -> None:
    assert fires(dim(120, 100.0)) == fires(dim(120, share=0.7)) == fires(dim(29)) == []
    assert told(dim(30, below(100.0), below(0.7))) == [("low-light", "info", below(100.0), 100.0, "lx", "")]
    assert fires(dim(120, model=TONE)) == []


def test_the_darkest_is_the_worst() -> None:
    assert [a.value for a in judged([*dim(40, 40.0), health(20, LUMABAR, lux=20.0), health(35, LUMABAR, lux=60.0)])] == [20.0]


def test_light_of_more_than_ninety_seconds_ago_says_nothing() -> None:
    once = [r for r in dim(200) if r.stream == "current" or r.t_ms < dim(1)[-1].t_ms]
    assert spans(once) == [("low-light", "info", 0, 29, 95, "cleared")]


def test_it_clears_after_five_seconds_of_light() -> None:
    readings = [*dim(40), health(39.5, LUMABAR, lux=500.0), *seconds(6, lambda s: current(s, LUMABAR), 40)]
    assert of("low-light", readings) == [("info", 0, 29, 45)]
    assert of("low-light", readings[:-1]) == [("info", 0, 29, None)]
