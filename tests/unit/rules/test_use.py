"""The rules on how long a device is used in one session, and where."""

from typing import Any

import pytest

from ingest.safety.judge import Judged, judge
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.messages import Zone
from schemas.profile import ALWAYS_FORBIDDEN, base_zone
from tests.line import DEVICE, START_MS
from tests.unit.rules.readings import (
    DIRECT,
    GELWAVE,
    LUMABAR,
    MODELS,
    TIP,
    TONE,
    UNKNOWN,
    URSA,
    contact,
    current,
    fires,
    judged,
    of,
    refused,
    runtime,
    seconds,
    spans,
    told,
    touching,
    with_profile,
)

OVERRUN = {"lumabar-s15": (3000, None), "toneduo-400": (1200, 1350), "tonetip-e": (1200, 1350), "ursa-adapt-10": (480, 558), "gelwave-multi": (1200, 1350)}

# -- session-overrun ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", OVERRUN)
def test_a_session_is_too_long_from_just_beyond_its_limits(model: str) -> None:
    most_s, critical_s = OVERRUN[model]

    def said(on_s: int) -> list[Any]:
        return told([runtime(0, model, output_on_s=on_s)])

    assert said(most_s) == []
    assert said(most_s + 1) == [("session-overrun", "warning", most_s + 1.0, float(most_s), "s", "")]
    if critical_s is None:
        assert [a[1] for a in said(14_400)] == ["warning"]
    else:
        assert [a[1] for a in said(critical_s)] == ["warning"]
        assert said(critical_s + 1) == [("session-overrun", "critical", critical_s + 1.0, pytest.approx(critical_s), "s", "")]


def test_severity_rises_within_one_alert_and_never_falls() -> None:
    track, into = Track(DEVICE, "s-1"), Judged()
    for s, on_s in enumerate((1_200, 1_201, 1_351, 1_352)):
        judge(track, runtime(5 * s, output_on_s=on_s), into)
    judge(track, runtime(20, boot_id=8, output_on_s=0), into)
    (alert,) = into.alerts.values()
    assert (alert.severity, alert.value, alert.limit, alert.onset_ms, alert.opened_ms, alert.escalated_ms, alert.state) == (
        Severity.CRITICAL, 1_352.0, pytest.approx(1_350.0), START_MS + 5_000, START_MS + 5_000, START_MS + 10_000, "open",
    )  # fmt: skip


def test_without_a_profile_no_session_may_last_longer_than_fifty_minutes() -> None:
    assert fires([runtime(0, UNKNOWN, output_on_s=3_000)]) == []
    assert fires([runtime(0, UNKNOWN, output_on_s=14_400)]) == [("session-overrun", "warning")]


@pytest.mark.parametrize("counter", [lambda s: {"output_on_s": int(s % 600), "elapsed_s": 1_300}, lambda s: {"output_on_s": 0, "elapsed_s": int(s)}])
def test_a_counter_that_was_reset_does_not_hide_an_overrun(counter: Any) -> None:
    readings = [*seconds(260, lambda s: runtime(s, **counter(s)), step_s=5), *seconds(1_300, current)]
    assert of("session-overrun", readings) == [("warning", 1_200, 1_200, None)]


def test_lost_readings_do_not_hide_an_overrun_that_the_counter_tells() -> None:
    assert of("session-overrun", [runtime(0), current(1), runtime(1_300, output_on_s=1_201)]) == [("warning", 1_300, 1_300, None)]


def test_time_with_output_off_does_not_count() -> None:
    assert fires(seconds(2_000, lambda s: current(s, output_enabled=False))) == []


def test_windows_that_overlap_are_not_time_twice() -> None:
    assert fires(seconds(1_198, lambda s: current(s, window_ms=2_400))) == []
    assert fires(seconds(1_201, lambda s: current(s, window_ms=2_400))) == [("session-overrun", "warning")]


def test_an_overrun_ends_with_its_session() -> None:
    readings = [runtime(0, output_on_s=1_300), *seconds(9, current, 1), runtime(10, run_state="ended", output_on_s=1_300)]
    assert spans(readings) == [("session-overrun", "warning", 0, 0, 10, "session-ended")]


def test_an_overrun_in_a_refused_message_is_told() -> None:
    assert fires([refused(0, output_on_s=1_200.0)]) == []
    assert fires([refused(0, output_on_s=1_201.0)]) == [("session-overrun", "warning")]
    assert fires([refused(0, output_on_s=1_351.0)]) == [("session-overrun", "critical")]


# -- zone-dwell -----------------------------------------------------------------------------------------

ZONE_MAX = {"lumabar-s15": 900, "toneduo-400": 240, "tonetip-e": 120, "ursa-adapt-10": 240, "gelwave-multi": 240}
REST = ("zone-dwell", "warning", 60.0, 60.0, "s at rest", "head does not move")


@pytest.mark.parametrize("model", ZONE_MAX)
def test_a_zone_is_treated_for_too_long_from_just_beyond_its_limits(model: str) -> None:
    most_s = ZONE_MAX[model]

    def said(zone_s: int) -> list[Any]:
        return told([runtime(0, model, zone_elapsed_s=zone_s)])

    assert said(most_s) == []
    assert said(most_s + 1) == [("zone-dwell", "info", most_s + 1.0, float(most_s), "s", "")]
    assert [a[1] for a in said(2 * most_s)] == ["info"]
    assert said(2 * most_s + 1) == [("zone-dwell", "warning", 2 * most_s + 1.0, 2.0 * most_s, "s", "")]


@pytest.mark.parametrize("state", ["idle", "armed", "paused", "ended", "fault"])
def test_only_a_running_device_dwells(state: str) -> None:
    assert fires([runtime(0, run_state=state, zone_elapsed_s=14_000)]) == []


def test_without_a_profile_no_zone_has_a_limit() -> None:
    assert fires([runtime(0, UNKNOWN, zone_elapsed_s=14_400)]) == []


def test_dwelling_clears_in_another_zone_once_the_head_moves() -> None:
    dwelling = [runtime(0, zone_elapsed_s=241), runtime(5, zone_elapsed_s=246)]
    assert of("zone-dwell", [*dwelling, runtime(10, elapsed_s=251, zone_elapsed_s=240)]) == [("info", 0, 0, 10)]
    resting = [*dwelling, contact(9, motion="still"), runtime(10, elapsed_s=251, zone_elapsed_s=0)]
    assert of("zone-dwell", resting) == [("info", 0, 0, None)]
    assert of("zone-dwell", [*resting, contact(11, motion="moving")]) == [("info", 0, 0, 11)]


def test_dwelling_in_a_refused_message_is_told() -> None:
    assert fires([refused(0, zone_elapsed_s=240.0)]) == fires([refused(0, zone_elapsed_s=500.0, run_state="paused")]) == []
    assert fires([refused(0, zone_elapsed_s=241.0)]) == [("zone-dwell", "info")]
    assert fires([refused(0, zone_elapsed_s=481.0, run_state="running")]) == [("zone-dwell", "warning")]


def resting(until_s: float, from_s: float = 0, state: str = "good", motion: str | None = "still") -> list[Reading]:
    return [contact(from_s + n / 2, state, z_ohm=8e3, motion=motion) for n in range(int(2 * (until_s - from_s)) + 1)]


def test_a_head_that_rests_on_the_skin_for_a_minute_is_told() -> None:
    assert fires(resting(59.5)) == []
    assert told(resting(60)) == [REST]
    assert of("zone-dwell", resting(60)) == [("warning", 0, 60, None)]


def test_with_direct_current_half_a_minute_is_enough() -> None:
    direct = [current(-1, GELWAVE, **DIRECT)]
    assert fires([*direct, *resting(29.5)]) == []
    assert told([*direct, *resting(30)]) == [("zone-dwell", "warning", 30.0, 30.0, "s at rest", "head does not move, direct current")]


@pytest.mark.parametrize("between", [{"motion": "moving"}, {"motion": "unknown"}, {"motion": None}, {"state": "off"}, {"state": "poor"}])
def test_movement_or_a_lift_begins_the_rest_anew(between: dict[str, Any]) -> None:
    interruption = [contact(50.1, between.get("state", "good"), motion=between.get("motion", "still"))]
    assert fires([*resting(50), *interruption, *resting(110, 50.5)]) == []
    assert fires([*resting(50), *interruption, *resting(110.5, 50.5)]) == [("zone-dwell", "warning")]


def test_a_silence_of_more_than_three_seconds_begins_the_rest_anew() -> None:
    assert fires([*resting(40), *resting(80, 43)]) == [("zone-dwell", "warning")]
    assert fires([*resting(40), *resting(80, 43.5)]) == []


def test_a_head_may_rest_while_output_is_off() -> None:
    assert fires([runtime(-1, run_state="paused"), *resting(200)]) == []
    assert fires([current(-1, output_enabled=False), *resting(200)]) == []


def test_other_streams_do_not_disturb_a_rest() -> None:
    beats = [*seconds(12, lambda s: runtime(s, elapsed_s=int(s)), 0.2, 5), *seconds(60, current, 0.3)]
    assert of("zone-dwell", [*resting(60), *beats]) == [("warning", 0, 60, None)]


def test_a_programs_rest_is_meant_where_the_profile_says_so() -> None:
    def said(program_id: str) -> list[Any]:
        return fires(with_profile([runtime(-1, program_id=program_id), *resting(100)], zones={"hold_programs": ["dwell"]}))

    assert (said("dwell"), said("lift")) == ([], [("zone-dwell", "warning")])


def test_dwelling_becomes_a_warning_when_the_head_rests_and_says_why() -> None:
    readings = [runtime(-1, zone_elapsed_s=250), *resting(60)]
    assert told(readings) == [REST]
    (alert,) = judged(readings)
    assert alert.escalated_ms == START_MS + 60_000


# -- forbidden-zone -------------------------------------------------------------------------------------

FORBIDDEN = {
    LUMABAR: {"temple", "orbit", "mouth"}, TONE: {"temple", "orbit", "mouth"}, TIP: {"temple", "mouth"},
    URSA: {"temple", "orbit", "mouth", "side_neck"}, GELWAVE: {"temple", "orbit", "mouth"}, UNKNOWN: set(),
}  # fmt: skip


def driven(zone: str, count: int, model: str = TONE, source: str = "program", from_s: float = 0, **fields: Any) -> list[Reading]:
    return [
        runtime(from_s - 0.9, model, zone=zone, zone_source=source),
        *touching(from_s + count, from_s, model), *seconds(count, lambda s: current(s, model, **fields), from_s),
    ]  # fmt: skip


@pytest.mark.parametrize("model", [*MODELS, UNKNOWN])
def test_each_model_has_its_forbidden_zones_and_all_have_those_that_no_profile_can_allow(model: str) -> None:
    found = {base_zone(zone) for zone in Zone if ("forbidden-zone", "critical") in fires(driven(zone, 5, model))}
    assert found == FORBIDDEN[model] | ALWAYS_FORBIDDEN


@pytest.mark.parametrize(("source", "severity"), [("program", "critical"), ("inferred", "critical"), ("user", "warning")])
def test_a_forbidden_zone_is_told_after_two_seconds_and_less_grave_if_the_user_may_have_mistapped(source: str, severity: str) -> None:
    assert fires(driven("eyelid_l", 1, source=source)) == []
    assert told(driven("eyelid_l", 2, source=source)) == [("forbidden-zone", severity, 1.0, 0.0, "zones", f"zone eyelid_l, told by {source}")]


def test_a_forbidden_zone_tapped_and_then_confirmed_by_the_program_is_one_alert() -> None:
    (alert,) = judged([*driven("mouth", 4, source="user"), *driven("mouth", 4, from_s=4)])
    assert (alert.severity, alert.detail) == ("critical", "zone mouth, told by program")
    assert alert.escalated_ms == START_MS + 5_000


@pytest.mark.parametrize("fields", [{"output_enabled": False}])
def test_a_forbidden_zone_needs_output(fields: dict[str, Any]) -> None:
    assert fires(driven("mouth", 20, **fields)) == []
    paused = driven("mouth", 20)
    assert fires([*paused, runtime(-0.8, run_state="paused", zone="mouth")]) == []


@pytest.mark.parametrize(("state", "expected"), [("good", 1), ("marginal", 1), ("poor", 0), ("off", 0), ("short", 0)])
def test_a_forbidden_zone_needs_contact(state: str, expected: int) -> None:
    touch = [contact(n / 2 - 0.25, state, z_ohm=8e3) for n in range(10)]
    found = fires([runtime(-1, zone="mouth"), *touch, *seconds(5, lambda s: current(s, i_peak_ua=4.0, i_set_ua=100.0))])
    assert len([a for a in found if a[0] == "forbidden-zone"]) == expected


def test_where_contact_was_never_told_or_long_ago_it_counts_as_made() -> None:
    flowing = [runtime(-1, zone="mouth"), *seconds(8, current)]
    assert of("forbidden-zone", flowing) == [("critical", 0, 1, None)]
    assert of("forbidden-zone", [*flowing, contact(-0.5, "off")]) == [("critical", 3, 4, None)]


def test_a_forbidden_zone_clears_after_two_seconds_in_another() -> None:
    readings = [*driven("mouth", 5), *driven("cheek_l", 3, from_s=5), *driven("mouth", 2, from_s=8)]
    assert of("forbidden-zone", readings) == [("critical", 0, 1, 7), ("critical", 8, 9, None)]
    brief = [*driven("mouth", 5), *driven("cheek_l", 2, from_s=5), *driven("mouth", 2, from_s=7)]
    assert of("forbidden-zone", brief) == [("critical", 0, 1, None)]


# -- the end of a session -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ended", "idle", "fault"])
def test_the_end_of_a_session_closes_what_is_open(state: str) -> None:
    readings = [current(0, i_peak_ua=900.0, i_rms_ua=100.0), runtime(1, run_state=state)]
    assert [a[4:] for a in spans(readings)] == [(1, "session-ended")]


@pytest.mark.parametrize("state", ["paused", "armed", "running"])
def test_a_pause_closes_nothing(state: str) -> None:
    assert [a[4] for a in spans([current(0, i_peak_ua=900.0, i_rms_ua=100.0), runtime(1, run_state=state)])] == [None]


def test_outside_sessions_the_first_word_that_a_device_is_idle_ends_nothing() -> None:
    idle, used = Track(DEVICE, "~7"), Track(DEVICE, "~7")
    spike = current(0, i_peak_ua=900.0, i_rms_ua=100.0)
    assert [a[4] for a in spans([spike, runtime(1, run_state="idle")], idle)] == [None]
    assert [a[4] for a in spans([runtime(-1), spike, runtime(1, run_state="idle")], used)] == [1]
