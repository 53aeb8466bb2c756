"""The rules on too much current, absolute and against the set-point."""

from typing import Any

import pytest

from ingest.safety.track import Reading
from schemas.messages import RunState
from tests.unit.rules.readings import (
    GELWAVE,
    LUMABAR,
    TIP,
    TONE,
    UNKNOWN,
    above,
    below,
    contact,
    current,
    fires,
    judged,
    limits_of,
    refused,
    runtime,
    seconds,
    spans,
    told,
    touching,
    with_profile,
)

PEAK = [("overcurrent-peak", "critical")]
RMS = [("overcurrent-rms", "critical")]
OVER = [("setpoint-overdelivery", "warning")]

# -- overcurrent-peak -----------------------------------------------------------------------------------

PEAK_LIMITS = {"lumabar-s15": 25.0, "toneduo-400": 600.0, "tonetip-e": 288.0, "ursa-adapt-10": 585.0, "gelwave-multi": 750.0, UNKNOWN: 1000.0}


@pytest.mark.parametrize(("model", "limit"), PEAK_LIMITS.items())
def test_a_peak_is_dangerous_from_just_above_the_limit_of_its_model(model: str, limit: float) -> None:
    def said(peak_ua: float) -> list[Any]:
        return told([current(0, model, i_peak_ua=peak_ua, i_rms_ua=1.0, i_dc_ua=0.0)])

    assert said(below(limit)) == said(limit) == []
    assert said(above(limit)) == [("overcurrent-peak", "critical", above(limit), limit, "µA", "")]


@pytest.mark.parametrize("state", RunState)
def test_a_peak_is_dangerous_whether_or_not_output_was_meant_to_be_on(state: str) -> None:
    assert fires([runtime(0, run_state=state), current(1, i_peak_ua=900.0, i_rms_ua=1.0, output_enabled=False)]) == PEAK


def test_a_peak_clears_after_ten_seconds_at_or_below_the_limit_and_keeps_the_worst() -> None:
    readings = [current(s, i_peak_ua=peak, i_rms_ua=1.0) for s, peak in enumerate([700.0, 900.0, 800.0, *[600.0] * 11])]
    assert spans(readings) == [("overcurrent-peak", "critical", 0, 0, 13, "cleared")]
    assert [a.value for a in judged(readings)] == [900.0]
    assert spans(readings[:-1])[0][4] is None


def test_a_peak_that_comes_back_is_the_same_alert_until_it_has_cleared_and_then_another() -> None:
    def peaks(harmless_s: int) -> list[Reading]:
        said = [700.0, *[200.0] * harmless_s, 650.0, *[200.0] * 11]
        return [current(s, i_peak_ua=peak, i_rms_ua=1.0) for s, peak in enumerate(said)]

    assert [a[2:5] for a in spans(peaks(9))] == [(0, 0, 21)]
    assert [a[2:5] for a in spans(peaks(12))] == [(0, 0, 11), (13, 13, 24)]


def test_a_second_peak_in_a_ten_hertz_burst_confirms_the_first() -> None:
    def confirmed(window_ms: int) -> list[bool]:
        readings = [current(0, i_peak_ua=900.0, i_rms_ua=1.0), current(0.1, i_peak_ua=900.0, i_rms_ua=1.0, window_ms=window_ms)]
        return [a.confirmed for a in judged(readings)]

    assert (confirmed(100), confirmed(200), confirmed(201)) == ([True], [True], [False])


def test_a_peak_in_a_refused_message_is_as_dangerous() -> None:
    (alert,) = judged([refused(0, i_peak_ua=above(600.0))])
    assert (alert.rule, alert.severity, alert.value, alert.limit, alert.from_rejected) == ("overcurrent-peak", "critical", above(600.0), 600.0, True)
    assert judged([refused(0, i_peak_ua=600.0)]) == []


# -- overcurrent-rms ------------------------------------------------------------------------------------

RMS_LIMITS = {
    "lumabar-s15": (20.0, 30.0), "toneduo-400": (353.553, 565.685), "tonetip-e": (169.706, 271.529), "ursa-adapt-10": (218.017, 348.827),
    "gelwave-multi": (441.942, 707.107), UNKNOWN: (1000.0, 1000.0),
}  # fmt: skip


def rms(at_s: float, rms_ua: float, model: str = TONE, **fields: Any) -> Reading:
    """A peak that is itself allowed wherever the duty lets it be."""
    peak_ua = max(rms_ua, min(rms_ua * 1.4, PEAK_LIMITS[model]))
    return current(at_s, model, **{"i_rms_ua": rms_ua, "i_peak_ua": peak_ua, "i_dc_ua": 0.0} | fields)


def only_rms(readings: list[Reading]) -> list[Any]:
    return [a for a in spans(readings) if a[0] == "overcurrent-rms"]


@pytest.mark.parametrize(("model", "expected"), [(m, e) for m, e in RMS_LIMITS.items() if m != UNKNOWN])
def test_an_effective_current_is_dangerous_from_just_above_the_limits_of_its_model(model: str, expected: tuple[float, float]) -> None:
    limit, twice = limits_of(model).rms_limit_ua, limits_of(model).rms_twice_ua
    assert (limit, twice) == pytest.approx(expected, abs=0.2)
    assert only_rms(seconds(30, lambda s: rms(s, limit, model))) == []
    assert only_rms(seconds(2, lambda s: rms(s, above(limit), model))) == [("overcurrent-rms", "critical", 0, 1, None, None)]
    assert only_rms([rms(0, twice, model)]) == []
    assert only_rms([rms(0, above(twice), model)]) == [("overcurrent-rms", "critical", 0, 0, None, None)]


def test_an_effective_current_without_a_profile_is_dangerous_above_one_milliampere() -> None:
    assert only_rms(seconds(5, lambda s: rms(s, 1000.0, UNKNOWN))) == []
    assert only_rms([rms(0, above(1000.0), UNKNOWN)]) == [("overcurrent-rms", "critical", 0, 0, None, None)]


def test_an_effective_current_must_hold_for_two_windows() -> None:
    assert fires([rms(0, 400.0), rms(1, 100.0)]) == []
    assert fires(seconds(20, lambda s: rms(s, 400.0 if s % 2 else 100.0))) == []
    assert told(seconds(2, lambda s: rms(s, 400.0))) == [("overcurrent-rms", "critical", 400.0, limits_of(TONE).rms_limit_ua, "µA", "")]


def test_in_a_ten_hertz_burst_the_hold_is_two_seconds_too() -> None:
    burst = seconds(20, lambda s: rms(s, 400.0, window_ms=100), step_s=0.1)
    assert fires(burst[:18]) == []
    assert fires(burst) == RMS


@pytest.mark.parametrize(("gap_s", "expected"), [(3.0, RMS), (3.001, [])])
def test_a_gap_of_more_than_three_seconds_starts_a_hold_anew(gap_s: float, expected: list[Any]) -> None:
    assert fires([rms(0, 400.0), rms(gap_s, 400.0)]) == expected


@pytest.mark.parametrize(("run_state", "enabled"), [("idle", True), ("armed", True), ("paused", True), ("ended", True), ("running", False)])
def test_an_effective_current_counts_only_while_output_is_meant(run_state: str, enabled: bool) -> None:
    assert fires([runtime(0, run_state=run_state), *seconds(8, lambda s: rms(s, 580.0, output_enabled=enabled), from_s=1)]) == []


def test_before_the_first_word_of_the_run_state_output_counts_as_meant() -> None:
    assert fires(seconds(2, lambda s: rms(s, 400.0))) == RMS


@pytest.mark.parametrize("change", [{"level": 4}, {"mode": "biphasic", "freq_hz": 8.3}, {"boost": True}])
def test_after_a_change_the_hold_begins_when_two_seconds_of_grace_are_over(change: dict[str, Any]) -> None:
    readings = [rms(0, 100.0), *seconds(8, lambda s: rms(s, 400.0, **change), from_s=1)]
    assert [a[2:4] for a in spans(readings)] == [(3, 4)]


def test_a_change_of_run_state_gives_grace_as_well_and_the_first_word_of_it_none() -> None:
    held = seconds(8, lambda s: rms(s, 400.0), from_s=1)
    assert [a[2:4] for a in spans([runtime(0, run_state="armed"), runtime(0.5), *held])] == [(3, 4)]
    assert [a[2:4] for a in spans([runtime(0.5), *held])] == [(1, 2)]


def test_grace_does_not_cover_twice_the_effective_current() -> None:
    assert fires([rms(0, 100.0), rms(1, 570.0, level=4)]) == RMS


def test_an_effective_current_clears_after_five_seconds_below_110_percent() -> None:
    clear, high = limits_of(TONE).rms_clear_ua, seconds(2, lambda s: rms(s, 400.0))
    assert clear == pytest.approx(1.1 * 400 * 0.5**0.5)
    assert [a[4] for a in spans([*high, *seconds(30, lambda s: rms(s, clear), from_s=2)])] == [None]
    assert [a[4:] for a in spans([*high, *seconds(30, lambda s: rms(s, below(clear)), from_s=2)])] == [(7, "cleared")]
    assert [a[4] for a in spans([*high, *seconds(5, lambda s: rms(s, below(clear)), from_s=2)])] == [None]


def test_effective_currents_of_refused_messages_hold_as_those_of_others_do() -> None:
    two = [refused(s, i_rms_ua=400.0, window_ms=1000) for s in (0, 1)]
    assert fires(two[:1]) == []
    assert fires(two) == fires([two[0], rms(1, 400.0)]) == RMS
    assert fires([refused(s, i_rms_ua=400.0, window_ms=1000, output_enabled=False) for s in (0, 1)]) == []


@pytest.mark.parametrize("window_ms", [None, -1e6, 1e15])
def test_a_window_that_cannot_be_believed_neither_makes_nor_breaks_a_hold(window_ms: float | None) -> None:
    """What is out of bounds is also said to be."""

    def opened(count: int) -> list[Any]:
        return only_rms([refused(s, i_rms_ua=400.0, window_ms=window_ms) for s in range(count)])

    assert opened(2) == []
    assert opened(3) == [("overcurrent-rms", "critical", 0, 2, None, None)]


def test_what_is_left_of_a_refused_message_never_ends_a_hold_nor_an_alert() -> None:
    harmless = [refused(s + 0.5, i_rms_ua=1.0) for s in range(20)]
    assert fires([rms(0, 400.0), harmless[0], rms(1, 400.0)]) == RMS
    assert [a[4] for a in spans([rms(0, 400.0), rms(1, 400.0), *harmless])] == [None]


# -- boost ----------------------------------------------------------------------------------------------


def test_boost_allows_no_more_where_the_profile_names_no_boost() -> None:
    assert fires([current(0, i_peak_ua=above(600.0), i_rms_ua=1.0, boost=True)]) == PEAK


def test_boost_has_the_limits_of_its_profile() -> None:
    def said(*readings: Reading) -> list[Any]:
        return fires(with_profile(readings, output={"boost_i_peak_max_ua": 600.0}))

    assert said(current(0, i_peak_ua=900.0, i_rms_ua=1.0, boost=True)) == []
    assert said(current(0, i_peak_ua=above(900.0), i_rms_ua=1.0, boost=True)) == PEAK
    assert said(current(0, i_peak_ua=900.0, i_rms_ua=1.0)) == PEAK
    held = seconds(3, lambda s: rms(s, 520.0, boost=True, i_peak_ua=735.0))
    assert said(*held) == []
    assert said(*(rms(s, 531.0, boost=True, i_peak_ua=751.0) for s in range(3))) == RMS


# -- setpoint-overdelivery ------------------------------------------------------------------------------


def driven(count: int, peak_ua: float, model: str = TONE, from_s: float = 0, **fields: Any) -> list[Reading]:
    """In contact, with a current that was set to 200 µA."""
    fields = {"i_set_ua": 200.0} | fields
    return [*touching(from_s + count, from_s, model), *seconds(count, lambda s: current(s, model, i_peak_ua=peak_ua, **fields), from_s)]


@pytest.mark.parametrize(("model", "set_ua"), [(LUMABAR, 10.0), (TONE, 200.0), (TIP, 100.0), ("ursa-adapt-10", 200.0), (GELWAVE, 200.0), (UNKNOWN, 200.0)])
def test_more_than_125_percent_and_5_microamperes_of_the_set_point_is_too_much_after_five_seconds(model: str, set_ua: float) -> None:
    limit = 1.25 * set_ua + 5
    assert fires(driven(20, limit, model, i_set_ua=set_ua)) == []
    assert fires(driven(4, above(limit), model, i_set_ua=set_ua)) == []
    (alert,) = judged(driven(5, above(limit), model, i_set_ua=set_ua))
    assert (alert.rule, alert.severity, alert.value, alert.limit, alert.unit) == ("setpoint-overdelivery", "warning", above(limit), limit, "µA")


def test_overdelivery_is_judged_only_in_contact_and_while_active() -> None:
    readings = driven(20, 300.0)
    assert fires(readings) == OVER
    assert fires([r for r in readings if r.stream == "current"]) == []
    assert fires([r for r in readings if r.stream == "current" or r.t_ms < readings[0].t_ms + 1_000]) == []
    assert fires([runtime(-1, run_state="paused"), *readings]) == []
    assert fires(driven(20, 300.0, output_enabled=False)) == []


@pytest.mark.parametrize(("state", "expected"), [("good", OVER), ("marginal", OVER), ("poor", []), ("short", [])])
def test_overdelivery_needs_good_or_marginal_contact(state: str, expected: list[Any]) -> None:
    touch = [contact(n / 2, state, z_ohm=8e3) for n in range(40)]
    assert fires([*touch, *seconds(20, lambda s: current(s, i_set_ua=200.0, i_peak_ua=300.0))]) == expected


def test_where_no_set_point_is_told_there_is_no_overdelivery() -> None:
    assert fires(driven(20, 300.0, i_set_ua=0.0)) == []


def test_overdelivery_has_grace_after_a_change_of_level() -> None:
    readings = [*touching(12), current(0, i_set_ua=300.0, i_peak_ua=300.0, level=4)]
    assert [a[2:4] for a in spans([*readings, *seconds(10, lambda s: current(s, i_set_ua=200.0, i_peak_ua=300.0), from_s=1)])] == [(3, 7)]


def test_overdelivery_clears_after_five_seconds_at_the_limit_and_may_come_back() -> None:
    readings = [*driven(5, 300.0), *driven(6, 255.0, from_s=5), *driven(5, 300.0, from_s=11)]
    assert [a[2:5] for a in spans(readings)] == [(0, 4, 10), (11, 15, None)]
    assert [a[4] for a in spans(readings[: len(driven(5, 300.0)) + len(driven(5, 255.0))])] == [None]


def test_overdelivery_is_silent_while_the_absolute_limit_is_broken_and_its_hold_begins_afterwards() -> None:
    high, mild = driven(3, 700.0, i_rms_ua=100.0), driven(17, 300.0, from_s=3)
    assert [a[:4] for a in spans([*high, *mild])] == [("overcurrent-peak", "critical", 0, 0), ("setpoint-overdelivery", "warning", 13, 17)]


def test_an_open_overdelivery_grows_no_worse_while_the_absolute_limit_is_broken() -> None:
    readings = [*driven(5, 300.0), *driven(2, 700.0, from_s=5, i_rms_ua=100.0)]
    assert [(a.rule, a.value) for a in judged(readings)] == [("setpoint-overdelivery", 300.0), ("overcurrent-peak", 700.0)]


def test_the_limit_that_is_told_is_the_one_of_the_worst_value() -> None:
    readings = [*driven(5, 150.0, i_set_ua=100.0), *driven(5, 300.0, from_s=5)]
    assert told(readings) == [("setpoint-overdelivery", "warning", 300.0, 255.0, "µA", "")]
