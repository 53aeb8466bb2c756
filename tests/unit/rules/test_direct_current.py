"""The rules on direct current: a mean that should be none, and the charge of a session."""

from typing import Any

import pytest

from ingest.safety.track import Reading
from tests.unit.rules.readings import (
    DIRECT,
    GELWAVE,
    LUMABAR,
    MODELS,
    TONE,
    UNKNOWN,
    contact,
    current,
    fires,
    judged,
    limits_of,
    of,
    runtime,
    seconds,
    told,
)

# -- dc-offset ------------------------------------------------------------------------------------------


def offset(count: int, dc_ua: float, from_s: float = 0, **fields: Any) -> list[Reading]:
    return seconds(count, lambda s: current(s, i_set_ua=200.0, i_dc_ua=dc_ua, **fields), from_s)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_beyond_ten_microamperes_over_a_minute_is_an_offset(sign: int) -> None:
    assert fires(offset(200, sign * 10.0)) == []
    assert told(offset(100, sign * 10.5)) == [("dc-offset", "warning", 10.5, 10.0, "µA", "")]


def test_less_than_55_seconds_of_data_say_nothing_of_a_minute() -> None:
    assert fires(offset(54, 30.0)) == []
    assert of("dc-offset", offset(55, 30.0)) == [("warning", 54, 54, None)]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_beyond_fifty_microamperes_over_ten_seconds_is_critical_after_three(sign: int) -> None:
    assert fires(offset(50, sign * 50.0)) == []
    assert fires(offset(9, sign * 51.0)) == []  # 8 s of data, and not yet 3 s of hold
    assert told(offset(10, sign * 51.0)) == [("dc-offset", "critical", 51.0, 50.0, "µA", "")]


def test_the_mean_of_ten_seconds_is_over_ten_seconds() -> None:
    """85 µA are a mean of 51 with the sixth second; two more, and it has held."""
    assert of("dc-offset", [*offset(60, 0.0), *offset(8, 85.0, from_s=60)]) == [("critical", 65, 67, None)]


def test_an_offset_that_grows_is_one_alert_that_becomes_critical() -> None:
    (alert,) = judged([*offset(60, 20.0), *offset(20, 80.0, from_s=60)])
    assert (alert.severity, alert.limit, alert.unit, alert.value) == ("critical", 50.0, "µA", 80.0)
    assert alert.onset_ms < alert.escalated_ms == alert.onset_ms + 13_000


def test_bursts_that_alternate_are_balanced_in_any_phase() -> None:
    for phase in range(0, 24, 3):
        waves = [208.0 if int((10 * s + phase) / 12) % 2 else -208.0 for s in range(300)]
        assert fires([current(s, i_dc_ua=dc) for s, dc in enumerate(waves)]) == []


def test_an_offset_clears_when_the_mean_over_a_minute_is_below_five_microamperes() -> None:
    def closed(rest_ua: float) -> list[Any]:
        return of("dc-offset", [*offset(60, 20.0), *offset(120, rest_ua, from_s=60)])

    assert closed(5.0) == [("warning", 54, 54, None)]
    ((_, _, _, end),) = closed(4.0)
    assert end == 126  # (4·57 + 20·3) / 60 < 5 at 116 s, and for 10 s


def test_an_offset_comes_back_as_another_alert() -> None:
    assert len(of("dc-offset", [*offset(60, 20.0), *offset(70, 0.0, from_s=60), *offset(70, 20.0, from_s=130)])) == 2


@pytest.mark.parametrize(("model", "fields"), [(LUMABAR, {}), (GELWAVE, DIRECT)])
def test_direct_current_by_design_or_by_program_is_no_offset(model: str, fields: dict[str, Any]) -> None:
    assert fires(seconds(150, lambda s: current(s, model, **fields))) == []


def test_a_change_of_mode_begins_the_means_anew() -> None:
    readings = seconds(60, lambda s: current(s, GELWAVE, **DIRECT)) + seconds(54, lambda s: current(s, GELWAVE, i_dc_ua=8.0), from_s=60)
    assert fires(readings) == []


@pytest.mark.parametrize("without", [{"output_enabled": False}, {}])
def test_the_mean_of_before_says_nothing_once_output_is_off(without: dict[str, Any]) -> None:
    """One window short of the hold, and then output stops, by itself or by a pause."""
    rest = offset(30, 0.0, from_s=9, **without)
    pause = [] if without else [runtime(8.5, run_state="paused")]
    assert fires([*offset(9, 60.0), *pause, *rest]) == []


def test_a_silence_ages_the_means() -> None:
    assert fires([*offset(54, 30.0), *offset(1, 30.0, from_s=120)]) == []


def test_sums_that_run_for_an_hour_do_not_drift() -> None:
    swings = [100.1 * (1 + s // 2 % 7 / 10) * (-1) ** s for s in range(3_600)]
    readings = [current(s, i_dc_ua=dc) for s, dc in enumerate(swings)]
    assert of("dc-offset", [*readings, *seconds(61, lambda s: current(s, i_dc_ua=9.999999), from_s=3_600)]) == []
    assert len(of("dc-offset", [*readings, *seconds(61, lambda s: current(s, i_dc_ua=10.000001), from_s=3_600)])) == 1


def test_windows_that_overlap_are_not_data_twice() -> None:
    assert fires(seconds(30, lambda s: current(s, i_dc_ua=30.0, window_ms=2_400))) == []


# -- net-charge-dose ------------------------------------------------------------------------------------


def dosed(count: int, dc_ua: float = 1_000.0, **fields: Any) -> list[Reading]:
    """Long windows in contact, 10 s each."""
    model = fields.pop("model", TONE)
    readings = []
    for n in range(1, count + 1):
        flowing = {"i_dc_ua": dc_ua, "i_rms_ua": abs(dc_ua), "i_peak_ua": abs(dc_ua), "window_ms": 10_000}
        readings += [contact(10 * n - 0.5, model=model, z_ohm=500.0), current(10 * n, model, z_ohm=500.0, **flowing, **fields)]
    return readings


def doses(readings: list[Reading]) -> list[tuple[str, float, float]]:
    return [(a.severity, round(a.value, 6), a.limit) for a in judged(readings) if a.rule == "net-charge-dose"]


@pytest.mark.parametrize("sign", [1, -1])
def test_ninety_millicoulombs_a_square_centimetre_are_a_warning_and_twice_as_much_critical(sign: int) -> None:
    assert doses(dosed(8, sign * 1_000.0)) == []
    assert doses(dosed(9, sign * 1_000.0)) == [("warning", 90.0, 90.0)]
    assert doses(dosed(17, sign * 1_000.0)) == [("warning", 170.0, 90.0)]
    assert doses(dosed(18, sign * 1_000.0)) == [("critical", 180.0, 180.0)]


@pytest.mark.parametrize("model", MODELS)
def test_the_dose_is_per_area_of_the_electrode(model: str) -> None:
    area = limits_of(model).area_cm2
    assert doses(dosed(9, 1_000.0 * area * 0.999, model=model)) == []
    (alert,) = [a for a in judged(dosed(9, 1_000.0 * area * 1.001, model=model)) if a.rule == "net-charge-dose"]
    assert (alert.severity, alert.unit, alert.detail) == ("warning", "mC/cm²", f"electrode area {area:g} cm² as the profile says")


def test_only_charge_in_contact_and_with_output_on_counts_and_without_an_area_none() -> None:
    readings = dosed(20)
    assert doses([r for r in readings if r.stream == "current"]) == []
    assert doses(dosed(20, output_enabled=False)) == []
    assert doses(dosed(20, model=UNKNOWN)) == []


def test_charge_that_goes_back_is_taken_off() -> None:
    there_and_back = dosed(8) + [r for r in dosed(40, -1_000.0) if r.t_ms > dosed(8)[-1].t_ms][:16]
    assert doses(there_and_back) == []


def test_the_offset_of_the_sensor_at_rest_is_taken_off_but_never_more_than_an_offset_can_be() -> None:
    rest = [current(s / 10 - 2, i_peak_ua=4.0, i_rms_ua=4.0, i_dc_ua=4.0, window_ms=100, output_enabled=False) for s in range(10)]
    leak = [current(-1, i_peak_ua=500.0, i_rms_ua=500.0, i_dc_ua=500.0, window_ms=500, output_enabled=False)]
    assert doses([*rest, *dosed(9, 1_003.0)]) == []
    assert doses([*rest, *dosed(9, 1_005.0)]) == [("warning", 90.09, 90.0)]
    assert doses([*leak, *dosed(10)]) == [("warning", 99.5, 90.0)]


def test_the_dose_stays_until_the_session_ends() -> None:
    assert of("net-charge-dose", [*dosed(9), *seconds(60, current, from_s=91), runtime(200, run_state="ended")]) == [("warning", 90, 90, 200)]
