"""The rules on the data themselves: what cannot be, what is missing, and by which clock."""

from dataclasses import replace
from typing import Any

import pytest

from ingest.safety.judge import Judged, judge, losses, silent_tail
from ingest.safety.track import Reading, Track
from tests.line import DEVICE, START_MS
from tests.unit.rules.readings import (
    DIRECT,
    GELWAVE,
    LUMABAR,
    MODELS,
    TONE,
    UNKNOWN,
    above,
    below,
    contact,
    current,
    fires,
    health,
    identity,
    judged,
    limits_of,
    of,
    refused,
    runtime,
    seconds,
    spans,
    told,
    touching,
)

DOUBT = [("sensor-implausible", "warning")]

# -- sensor-implausible, at once ------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_more_voltage_than_one_and_a_half_supplies_cannot_have_been(model: str) -> None:
    limit_mv, peak_ua = 1.5 * limits_of(model).v_compliance_mv, limits_of(model).peak_max_ua

    def said(needed_mv: float) -> list[Any]:
        touch = contact(-0.5, "marginal", model, z_ohm=needed_mv / peak_ua * 1000)
        return told([touch, current(0, model, i_peak_ua=peak_ua, i_dc_ua=0.0, v_peak_mv=0.5 * limit_mv)])

    assert said(below(limit_mv)) == []
    volts = f"i_peak · z needs {limit_mv / 1000:.3g} V of a supply of {limit_mv / 1500:.3g} V"
    assert said(above(limit_mv)) == [("sensor-implausible", "warning", pytest.approx(1.0), 1.0, "× limit", volts)]


def test_ohms_law_needs_contact_within_the_window_and_a_second() -> None:
    wrong = current(0, i_peak_ua=590.0, i_rms_ua=100.0, v_peak_mv=20_000.0)
    assert fires([contact(-2, z_ohm=100e3), wrong]) == DOUBT
    assert fires([contact(-2.001, z_ohm=100e3), wrong]) == []
    assert fires([contact(-0.5, "off", z_ohm=20e6), wrong]) == []
    assert fires([contact(-0.5, model=UNKNOWN, z_ohm=20e6), current(0, UNKNOWN, i_peak_ua=590.0)]) == []


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"i_peak_ua": 100.0, "i_rms_ua": above(105.0)}, "r.m.s. current above its own peak"),
        ({"i_rms_ua": 20.0, "i_dc_ua": above(22.0)}, "mean current above its own r.m.s."),
        ({"i_rms_ua": 20.0, "i_dc_ua": -above(22.0)}, "mean current above its own r.m.s."),
        ({"i_peak_ua": 0.0, "i_rms_ua": above(1.0)}, "r.m.s. current above its own peak"),
    ],
)
def test_a_current_that_contradicts_itself_is_told_at_once(fields: dict[str, float], detail: str) -> None:
    for readings in ([current(0, **fields)], [refused(0, **fields)]):
        assert told(readings) == [("sensor-implausible", "warning", pytest.approx(1.0), 1.0, "× limit", detail)]


@pytest.mark.parametrize(
    "fields", [{"i_peak_ua": 100.0, "i_rms_ua": 105.0}, {"i_rms_ua": 20.0, "i_dc_ua": -22.0}, {"i_peak_ua": 0.0, "i_rms_ua": 1.0}]
)
def test_at_the_edge_of_its_tolerance_a_current_is_believed(fields: dict[str, float]) -> None:
    assert fires([current(0, **fields)]) == fires([refused(0, **fields)]) == []


def test_a_contradictory_sample_feeds_no_other_rule() -> None:
    """It would be an open head, a stuck generator and dense direct current."""
    wrong = {"i_peak_ua": 90.0, "i_rms_ua": 100.0, "i_dc_ua": 100.0, "freq_hz": 0.0, "v_peak_mv": 24_000.0}
    off = [contact(n / 2 - 0.25, "off") for n in range(100)]
    assert fires([*off, *seconds(50, lambda s: current(s, **wrong))]) == DOUBT


def test_but_its_time_counts_so_that_it_cannot_hide_an_overrun() -> None:
    readings = seconds(1_201, lambda s: current(s, i_peak_ua=90.0, i_rms_ua=100.0))
    assert fires([*readings, runtime(1_201)]) == [("sensor-implausible", "warning"), ("session-overrun", "warning")]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"i_peak_ua": 700.0, "i_rms_ua": 100.0, "i_dc_ua": 200.0}, "overcurrent-peak"),
        ({"i_peak_ua": 300.0, "i_rms_ua": 570.0}, "overcurrent-rms"),
        ({"i_peak_ua": 50_000.0, "i_rms_ua": 60_000.0, "v_peak_mv": 20_000.0}, "power-density"),
    ],
)
def test_too_much_current_is_told_although_the_sample_contradicts_itself(fields: dict[str, float], rule: str) -> None:
    found = fires([current(0, **fields)])
    assert ("sensor-implausible", "warning") in found
    assert (rule, "critical") in found


def test_contradictory_samples_hold_too_much_current_and_do_not_end_a_hold() -> None:
    wrong = {"i_peak_ua": 300.0, "i_rms_ua": 400.0}
    assert ("overcurrent-rms", "critical") in fires(seconds(2, lambda s: current(s, **wrong)))
    contradictory_harmless = current(1, i_peak_ua=50.0, i_rms_ua=60.0)
    high = [current(0, i_rms_ua=400.0), contradictory_harmless, current(2, i_rms_ua=400.0)]
    assert ("overcurrent-rms", "critical") in fires(high)


@pytest.mark.parametrize(("v_peak_mv", "expected"), [(below(8_000.0), False), (8_000.0, True)])
def test_a_unit_mistaken_is_no_overcurrent(v_peak_mv: float, expected: bool) -> None:
    """40 mA through 40 kΩ would need 1,600 V: with a voltage told for less than 200 Ω it is µA taken for mA."""
    found = fires([contact(-0.5, z_ohm=40e3), current(0, i_peak_ua=40_000.0, i_rms_ua=28_000.0, v_peak_mv=v_peak_mv)])
    assert ("sensor-implausible", "warning") in found
    assert (("overcurrent-peak", "critical") in found) == expected


def test_counters_that_go_back_within_a_boot_are_told_and_at_a_reboot_not() -> None:
    back = "a contact counter went back within a boot"
    assert [a[5] for a in told([contact(0, make_count=5), contact(0.5, make_count=4)])] == [back]
    assert [a[5] for a in told([contact(0, break_count=5), contact(0.5, break_count=4)])] == [back]
    assert fires([contact(0, make_count=5), contact(0.5, boot_id=8, make_count=0)]) == []
    timed = "a time counter went back within a session"
    assert [a[5] for a in told([runtime(0, elapsed_s=9), runtime(5, elapsed_s=8)])] == [timed]
    assert [a[5] for a in told([runtime(0, output_on_s=9), runtime(5, output_on_s=8, elapsed_s=9)])] == [timed]
    assert fires([runtime(0, output_on_s=9), runtime(5, boot_id=8)]) == []


@pytest.mark.parametrize("field", ["output_on_s", "zone_elapsed_s"])
def test_a_part_that_is_longer_than_the_whole_is_told(field: str) -> None:
    assert fires([runtime(0, elapsed_s=100, **{field: 101})]) == []
    assert [a[5] for a in told([runtime(0, elapsed_s=100, **{field: 102})])] == [f"{field} 102 above elapsed_s 100"]


@pytest.mark.parametrize(("field", "value"), [("z_ohm", 20_000_001.0), ("temp_head_c", -41.0), ("i_set_ua", 2_001.0), ("freq_hz", -1.0)])
def test_a_physical_bound_that_is_broken_is_told_of_the_refused_message(field: str, value: float) -> None:
    (alert,) = judged([refused(0, **{field: value})])
    assert (alert.rule, alert.detail, alert.from_rejected) == ("sensor-implausible", f"{field} is physically impossible", True)


# -- sensor-implausible, over time ----------------------------------------------------------------------


def mismatched(count: int, share: float, from_s: float = 0, **fields: Any) -> list[Reading]:
    """In good contact of 8 kΩ, with a voltage that is off by such a share of itself."""
    fields = {"v_peak_mv": 3_200.0 / (1 - share), **fields}
    return [*touching(from_s + count, from_s), *seconds(count, lambda s: current(s, **fields), from_s)]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_voltage_that_is_off_by_more_than_35_percent_is_told_after_ten_seconds(sign: int) -> None:
    assert fires(mismatched(30, sign * 0.349)) == []
    assert fires(mismatched(9, sign * 0.351)) == []
    assert spans(mismatched(10, sign * 0.351)) == [("sensor-implausible", "warning", 0, 9, None, None)]


@pytest.mark.parametrize(
    "fields", [{"clip_frac": 0.01}, {"freq_hz": 0.0, "mode": "dc", "i_set_ua": 100.0}, {"i_peak_ua": 5.0, "v_peak_mv": 49.0}]
)
def test_a_voltage_is_not_compared_when_clipped_with_direct_current_or_in_the_noise(fields: dict[str, Any]) -> None:
    assert fires(mismatched(30, 0.5, **fields)) == []


@pytest.mark.parametrize(("z_hz", "expected"), [(8.3 * 1.19, DOUBT), (8.3 * 1.21, []), (8.3 * 0.79, []), (10_000.0, [])])
def test_a_voltage_is_not_compared_with_an_impedance_at_another_frequency(z_hz: float, expected: list[Any]) -> None:
    touch = [contact(n / 2 - 0.25, z_hz=z_hz) for n in range(60)]
    assert fires([*touch, *[r for r in mismatched(30, 0.5) if r.stream == "current"]]) == expected


@pytest.mark.parametrize("state", ["marginal", "poor", "short", "off"])
def test_a_voltage_is_compared_only_in_good_contact(state: str) -> None:
    readings = [*[contact(n / 2 - 0.25, state, z_ohm=8e3) for n in range(60)], *[r for r in mismatched(30, 0.5) if r.stream == "current"]]
    assert ("sensor-implausible", "warning") not in fires(readings)


def frozen(count: int, spread: float = 1.06, from_s: float = 0, **fields: Any) -> list[Reading]:
    """The same current to the bit while the impedance varies."""
    touch = [contact(from_s - 0.25 + n / 2, z_ohm=8e3 * (spread if n % 40 < 20 else 1.0)) for n in range(2 * count)]
    return [*touch, *seconds(count, lambda s: current(s, **fields), from_s)]


def test_a_current_that_is_the_same_to_the_bit_for_sixty_samples_while_impedance_varies_is_told() -> None:
    assert fires(frozen(59)) == []
    assert told(frozen(60)) == [("sensor-implausible", "warning", 1.0, 1.0, "× limit", "i_rms the same for 60 samples while impedance varies")]


def test_one_bit_of_difference_a_steady_impedance_and_a_pause_of_output_are_no_frozen_sensor() -> None:
    assert fires(frozen(300, 1.05)) == []
    assert fires([*frozen(50), current(50, i_rms_ua=above(400 * 0.5**0.5)), *frozen(50, from_s=51)]) == []
    assert fires([*frozen(50), current(50, output_enabled=False), *frozen(59, from_s=51)]) == []
    assert fires(frozen(100, i_peak_ua=0.0, i_set_ua=0.0)) == []


def test_a_frozen_sensor_stays_frozen_over_lifts() -> None:
    lifts = [contact(n / 2 - 0.25, "off" if n % 10 == 0 else "good", z_ohm=20e6 if n % 10 == 0 else 8e3 * (1.06 if n % 40 < 20 else 1)) for n in range(120)]
    assert fires([*lifts, *seconds(60, current)]) == DOUBT


def test_direct_current_may_be_the_same_for_ever() -> None:
    solar = [contact(n / 2 - 0.25, model=LUMABAR, z_ohm=30e3 * (2 if n % 40 < 20 else 1)) for n in range(400)]
    assert fires([*solar, *seconds(200, lambda s: current(s, LUMABAR))]) == []
    dc = [contact(n / 2 - 0.25, model=GELWAVE, z_ohm=8e3 * (1.5 if n % 40 < 20 else 1)) for n in range(400)]
    assert fires([*dc, *seconds(200, lambda s: current(s, GELWAVE, **DIRECT))]) == []


def test_doubt_clears_after_ten_plausible_seconds_of_any_stream() -> None:
    wrong = current(0, i_peak_ua=90.0, i_rms_ua=100.0)
    assert of("sensor-implausible", [wrong, *seconds(11, current, 1)]) == [("warning", 0, 0, 11)]
    assert of("sensor-implausible", [wrong, *seconds(10, current, 1)]) == [("warning", 0, 0, None)]
    assert of("sensor-implausible", [wrong, *seconds(3, lambda s: runtime(s, run_state="idle"), 1, 5)])[0][3] == 1  # the session is over
    assert of("sensor-implausible", [refused(0, z_ohm=1e9), health(60), health(120)]) == [("warning", 0, 0, 120)]


def test_doubt_does_not_clear_while_another_stream_still_gives_reason() -> None:
    wrong = seconds(40, lambda s: current(s, i_peak_ua=90.0, i_rms_ua=100.0))
    assert of("sensor-implausible", [*wrong, *touching(40), *seconds(8, lambda s: runtime(s, elapsed_s=int(s)), 0.1, 5)]) == [("warning", 0, 0, None)]


# -- telemetry-gap --------------------------------------------------------------------------------------


def after(*readings: Reading) -> tuple[Track, Judged]:
    track, into = Track(DEVICE, "s-1"), Judged()
    for one in readings:
        judge(track, one, into)
    return track, into


@pytest.mark.parametrize(("silent_s", "expected"), [(15.0, []), (15.001, [("warning", "closed", 15.001, 15.0, "s", "resumed")])])
def test_more_than_fifteen_seconds_between_readings_of_a_running_session_are_a_silence(silent_s: float, expected: list[Any]) -> None:
    _, into = after(runtime(0), current(silent_s))
    assert [(a.severity, a.state, a.value, a.limit, a.unit, a.close_reason) for a in into.alerts.values()] == expected
    assert list(into.due_ms.values()) == [START_MS + 135_000] * len(expected)


@pytest.mark.parametrize("state", ["idle", "armed", "paused", "ended", "fault"])
def test_a_device_that_does_not_run_may_be_silent(state: str) -> None:
    track, into = after(runtime(0, run_state=state), current(500))
    assert (into.alerts, silent_tail(track, START_MS + 10**7)) == ({}, None)


def test_the_last_word_of_a_running_session_is_a_silence_135_seconds_after_its_receipt() -> None:
    track, _ = after(runtime(0, late_s=50))
    assert silent_tail(track, START_MS + 184_999) is None
    alert = silent_tail(track, START_MS + 185_000)
    assert alert is not None
    assert (alert.state, alert.onset_ms, alert.opened_ms, alert.value) == ("open", START_MS, START_MS + 15_000, 135.0)


@pytest.mark.parametrize(("lost", "expected"), [(0, False), (5, False), (6, True)])
def test_more_than_a_twentieth_of_an_ended_sessions_messages_lost_is_told(lost: int, expected: bool) -> None:
    track, _ = after(*(replace(r, seq=n) for n, r in enumerate([runtime(0), *seconds(98, current, 1), runtime(99, run_state="ended")])))
    alert = losses(track, lost)
    assert (alert is not None) == expected
    if alert is not None:
        assert (alert.severity, alert.value, alert.limit, alert.unit, alert.detail, alert.state) == (
            "info", 0.06, 0.05, "share", "6 of 100 messages missing", "closed",
        )  # fmt: skip


# -- clock-skew -----------------------------------------------------------------------------------------


def by_clock(at_s: float, skew_ms: int = 0, set_s: float = 0, boot_id: int = 7) -> Reading:
    """`set_s`: by how much the device has set its clock since boot."""
    return replace(health(at_s, boot_id=boot_id), skew_ms=skew_ms, epoch_ms=START_MS - 60_000 + round(1000 * set_s))


@pytest.mark.parametrize(("skew_ms", "detail"), [(61_000, "ahead of our clock"), (-900_000_000_000, "not set")])
def test_a_clock_that_is_not_believed_is_told(skew_ms: int, detail: str) -> None:
    assert told([by_clock(0, skew_ms)]) == [("clock-skew", "info", abs(skew_ms) / 1000, 60.0, "s", detail)]


@pytest.mark.parametrize(("set_s", "expected"), [(60.0, []), (-60.0, []), (60.001, ["set while running"]), (-60.001, ["set while running"])])
def test_a_clock_that_is_set_by_more_than_a_minute_within_a_boot_is_told(set_s: float, expected: list[str]) -> None:
    assert [a[5] for a in told([by_clock(0), by_clock(1, set_s=set_s)])] == expected
    assert told([by_clock(0), by_clock(1, set_s=set_s, boot_id=8)]) == []


def test_a_clock_is_right_again_after_a_minute() -> None:
    readings = [by_clock(0, 90_000), *seconds(61, by_clock, 1)]
    assert of("clock-skew", readings) == [("info", 0, 0, 61)]
    assert of("clock-skew", readings[:-1]) == [("info", 0, 0, None)]


def test_every_stream_of_readings_tells_of_its_clock() -> None:
    for one in (current(0), contact(0), runtime(0), health(0), identity(0)):
        assert fires([replace(one, skew_ms=90_000)]) == [("clock-skew", "info")]


# -- what an alert says of its origin -------------------------------------------------------------------


def test_an_alert_names_its_rule_its_source_its_device_and_the_profile_it_was_judged_by() -> None:
    (known,), (unknown,) = judged([current(0, TONE, i_peak_ua=1_200.0)])[:1], judged([current(0, UNKNOWN, i_peak_ua=1_200.0, i_rms_ua=9.0)])
    assert (known.device_id, known.session_id, known.model, known.hw, known.fw) == (DEVICE, "s-1", TONE, "B", "2.3.1")
    assert (known.profile_id, known.profile_version, unknown.profile_id, unknown.profile_version) == (TONE, 1, None, None)
    assert (unknown.source, unknown.rule_version) == ("engineering judgement; motive: MAUDE 7812323, 'output surged'", 1)
    assert [(ref.boot_id, ref.seq) for ref in unknown.evidence] == [(7, 10_000)]


@pytest.mark.parametrize(("late_s", "expected"), [(120.0, False), (120.001, True)])
def test_an_alert_on_late_data_says_so(late_s: float, expected: bool) -> None:
    (alert,) = judged([current(0, i_peak_ua=900.0, i_rms_ua=9.0, late_s=late_s)])
    assert alert.retrospective == expected
