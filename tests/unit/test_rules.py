"""Each rule at its limits: just below, at, just above; held too briefly, long enough; its clearing."""

from collections.abc import Iterable
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from ingest.safety.judge import Judged, judge
from ingest.safety.rules import OF_STREAM, RULE, RULES
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.messages import SAMPLES
from schemas.profile import MICROCURRENT_CAP_UA, Profile
from schemas.topics import Stream
from tests.line import DEVICE, MODEL, PROFILES, START_MS, sample

TONE = PROFILES.for_model(MODEL)
assert TONE is not None
RMS_LIMIT = 1.25 * TONE.i_rms_max_ua
RMS_TWICE = 2 * TONE.i_rms_max_ua


def reading(stream: Stream, at_s: float, profile: Profile | None = TONE, **fields: Any) -> Reading:
    model = profile.applies.model if profile else "unheard-of"
    said = SAMPLES[stream].model_validate_json(orjson.dumps(sample(stream, **fields)))
    t_ms = START_MS + round(at_s * 1000)
    return Reading(t_ms, stream.value, said, t_ms, 7, round(at_s * 10), model, "B", "2.3.1", profile)


def current(at_s: float, profile: Profile | None = TONE, **fields: Any) -> Reading:
    return reading(Stream.CURRENT, at_s, profile, **fields)


def contact(at_s: float, state: str = "good") -> Reading:
    return reading(Stream.CONTACT, at_s, state=state, z_ohm=2e6 if state == "off" else 8e3)


def runtime(at_s: float, profile: Profile | None = TONE, **fields: Any) -> Reading:
    fields = {"elapsed_s": fields.get("output_on_s", 0)} | fields
    return reading(Stream.RUNTIME, at_s, profile, **fields)


def rms(at_s: float, i_rms_ua: float, **fields: Any) -> Reading:
    return current(at_s, i_rms_ua=i_rms_ua, i_peak_ua=590.0, **fields)


def alerts(readings: Iterable[Reading], track: Track | None = None) -> list[tuple[Any, ...]]:
    """(rule, severity, onset, opened, closed, reason, value), times in s since the start."""
    track, into = track or Track(DEVICE, "s-1"), Judged()
    for one in sorted(readings, key=lambda r: r.order):
        judge(track, one, into)
    return [
        (a.rule, a.severity, seconds(a.onset_ms), seconds(a.opened_ms), seconds(a.closed_ms), a.close_reason, a.value)
        for a in sorted(into.alerts.values(), key=lambda a: (a.onset_ms, a.rule))
        if a.rule != "telemetry-gap"
    ]


def seconds(t_ms: int | None) -> float | None:
    return None if t_ms is None else (t_ms - START_MS) / 1000


def fires(readings: Iterable[Reading]) -> list[tuple[str, str]]:
    return [(rule, severity) for rule, severity, *_ in alerts(readings)]


def just_above(value: float) -> float:
    return value * (1 + 1e-9)


# -- overcurrent-peak -----------------------------------------------------------------------------------

PEAK_LIMITS = {"lumabar-s15": 25.0, "toneduo-400": 600.0, "tonetip-e": 288.0, "ursa-adapt-10": 585.0, "gelwave-multi": 750.0}


@pytest.mark.parametrize("model", PEAK_LIMITS)
def test_a_peak_is_dangerous_from_just_above_the_limit_of_its_model(model: str) -> None:
    profile, limit = PROFILES.for_model(model), PEAK_LIMITS[model]
    assert alerts([current(0, profile, i_peak_ua=limit, i_rms_ua=1.0)]) == []
    assert alerts([current(0, profile, i_peak_ua=just_above(limit), i_rms_ua=1.0)]) == [
        ("overcurrent-peak", "critical", 0, 0, None, None, just_above(limit))
    ]


def test_a_peak_without_a_profile_is_dangerous_above_one_milliampere() -> None:
    assert fires([current(0, None, i_peak_ua=MICROCURRENT_CAP_UA)]) == []
    assert fires([current(0, None, i_peak_ua=just_above(MICROCURRENT_CAP_UA))]) == [("overcurrent-peak", "critical")]


@pytest.mark.parametrize("run_state", ["idle", "paused", "ended", "running"])
def test_a_peak_is_dangerous_whether_or_not_output_was_meant_to_be_on(run_state: str) -> None:
    readings = [runtime(0, run_state=run_state), current(1, i_peak_ua=900.0, output_enabled=False)]
    assert fires(readings) == [("overcurrent-peak", "critical")]


def test_a_peak_clears_after_ten_seconds_at_or_below_the_limit_and_keeps_the_worst() -> None:
    peaks = [700.0, 900.0, 800.0, *[600.0] * 11]
    assert alerts(current(s, i_peak_ua=peak) for s, peak in enumerate(peaks)) == [
        ("overcurrent-peak", "critical", 0, 0, 13, "cleared", 900.0)
    ]
    assert alerts(current(s, i_peak_ua=peak) for s, peak in enumerate(peaks[:-1]))[0][4] is None


def test_a_peak_that_comes_back_before_it_has_cleared_is_the_same_alert() -> None:
    peaks = [700.0, *[200.0] * 9, 650.0, *[200.0] * 11]
    assert alerts(current(s, i_peak_ua=peak) for s, peak in enumerate(peaks)) == [
        ("overcurrent-peak", "critical", 0, 0, 21, "cleared", 700.0)
    ]


def test_a_peak_that_comes_back_after_it_has_cleared_is_another_alert() -> None:
    peaks = [700.0, *[200.0] * 12, 650.0]
    assert [a[2:5] for a in alerts(current(s, i_peak_ua=peak) for s, peak in enumerate(peaks))] == [(0, 0, 11), (13, 13, None)]


@given(st.floats(600.01, 100_000), st.floats(1, 100))
def test_further_out_of_range_is_never_less_severe(peak: float, factor: float) -> None:
    worse = min(100_000.0, peak * factor)
    assert set(fires([current(0, i_peak_ua=peak)])) <= set(fires([current(0, i_peak_ua=worse)]))


# -- overcurrent-rms ------------------------------------------------------------------------------------


def test_an_effective_current_at_its_limit_is_allowed_for_ever() -> None:
    assert alerts(rms(s, RMS_LIMIT) for s in range(30)) == []


def test_an_effective_current_above_its_limit_is_dangerous_after_two_windows() -> None:
    above = just_above(RMS_LIMIT)
    assert alerts([rms(0, above), rms(1, 100.0)]) == []
    assert alerts([rms(0, above), rms(1, above)]) == [("overcurrent-rms", "critical", 0, 1, None, None, above)]


def test_in_a_ten_hertz_burst_the_hold_is_two_seconds_too() -> None:
    burst = [rms(n / 10, just_above(RMS_LIMIT), window_ms=100) for n in range(20)]
    assert fires(burst[:18]) == []
    assert fires(burst) == [("overcurrent-rms", "critical")]


@pytest.mark.parametrize(("gap_s", "expected"), [(3.0, [("overcurrent-rms", "critical")]), (3.001, [])])
def test_a_gap_of_more_than_three_seconds_starts_a_hold_anew(gap_s: float, expected: list[Any]) -> None:
    assert fires([rms(0, 400.0), rms(gap_s, 400.0)]) == expected


def test_one_harmless_window_starts_a_hold_anew() -> None:
    assert fires(rms(s, 400.0 if s % 2 else 100.0) for s in range(20)) == []


def test_twice_the_effective_current_is_dangerous_at_once() -> None:
    assert fires([rms(0, RMS_TWICE)]) == []
    assert fires([rms(0, just_above(RMS_TWICE))]) == [("overcurrent-rms", "critical")]


@pytest.mark.parametrize(("run_state", "enabled"), [("idle", True), ("paused", True), ("ended", True), ("running", False)])
def test_an_effective_current_counts_only_while_output_is_meant(run_state: str, enabled: bool) -> None:
    assert fires([runtime(0, run_state=run_state), *(rms(s, 500.0, output_enabled=enabled) for s in range(1, 9))]) == []


def test_before_the_first_word_of_the_run_state_output_counts_as_meant() -> None:
    assert fires([rms(0, 400.0), rms(1, 400.0)]) == [("overcurrent-rms", "critical")]


def test_after_a_change_of_level_the_hold_begins_when_two_seconds_of_grace_are_over() -> None:
    readings = [rms(0, 100.0, level=3), *(rms(s, 400.0, level=4) for s in range(1, 9))]
    assert alerts(readings) == [("overcurrent-rms", "critical", 3, 4, None, None, 400.0)]


@pytest.mark.parametrize("change", [{"mode": "biphasic"}, {"boost": True}])
def test_a_change_of_mode_or_boost_gives_grace_as_well(change: dict[str, Any]) -> None:
    readings = [rms(0, 100.0), *(rms(s, 400.0, **change) for s in range(1, 9))]
    assert [a[2] for a in alerts(readings)] == [3]


def test_a_change_of_run_state_gives_grace_as_well() -> None:
    readings = [runtime(0, run_state="armed"), runtime(0.5), *(rms(s, 400.0) for s in range(1, 9))]
    assert [a[2] for a in alerts(readings)] == [3]


def test_grace_does_not_cover_twice_the_effective_current() -> None:
    assert fires([rms(0, 100.0, level=3), rms(1, 570.0, level=4)]) == [("overcurrent-rms", "critical")]


def test_an_effective_current_clears_after_five_seconds_below_110_percent() -> None:
    clear, high = 1.1 * TONE.i_rms_max_ua, [rms(0, 400.0), rms(1, 400.0)]
    assert [a[4] for a in alerts([*high, *(rms(s, clear) for s in range(2, 30))])] == [None]
    assert [a[4:6] for a in alerts([*high, *(rms(s, clear - 0.01) for s in range(2, 30))])] == [(7, "cleared")]


def test_an_effective_current_without_a_profile_is_dangerous_above_one_milliampere() -> None:
    at, above = ([current(s, None, i_rms_ua=i, i_peak_ua=900.0) for s in range(5)] for i in (1000.0, 1000.1))
    assert fires(at) == []
    assert fires(above) == [("overcurrent-rms", "critical")]


# -- current-without-contact ----------------------------------------------------------------------------


def lead_off(seconds_: int, i_rms_ua: float = 100.0, **fields: Any) -> list[Reading]:
    off = [contact(n / 2, "off") for n in range(2 * seconds_)]
    return [*off, *(current(s, i_rms_ua=i_rms_ua, **fields) for s in range(seconds_))]


@pytest.mark.parametrize(("i_set_ua", "limit"), [(0.0, 5.0), (50.0, 5.0), (200.0, 20.0)])
def test_current_without_contact_is_dangerous_above_a_tenth_of_the_set_point_or_five_microamperes(i_set_ua: float, limit: float) -> None:
    assert fires(lead_off(12, limit, i_set_ua=i_set_ua)) == []
    assert fires(lead_off(12, just_above(limit), i_set_ua=i_set_ua)) == [("current-without-contact", "critical")]


def test_the_half_second_around_a_break_is_left_out_and_then_two_seconds_must_pass() -> None:
    assert alerts(lead_off(12)) == [("current-without-contact", "critical", 2, 3, None, None, 100.0)]
    assert alerts(lead_off(3)) == []


@pytest.mark.parametrize("state", ["good", "marginal", "poor", "short"])
def test_with_any_contact_current_may_flow(state: str) -> None:
    assert fires([*(contact(n / 2, state) for n in range(30)), *(current(s) for s in range(15))]) == []


def test_a_contact_reading_of_long_ago_says_nothing_of_now() -> None:
    assert fires([contact(0, "off"), contact(0.5, "off"), *(current(s) for s in range(2, 15))]) == []


def test_current_without_contact_clears_two_seconds_after_contact_is_made() -> None:
    back = [*(contact(5 + n / 2) for n in range(10)), *(current(5 + s, i_rms_ua=100.0) for s in range(6))]
    assert [a[2:6] for a in alerts([*lead_off(5), *back])] == [(2, 3, 7, "cleared")]


# -- session-overrun ------------------------------------------------------------------------------------

OVERRUN = {"lumabar-s15": (3000, None), "toneduo-400": (1200, 1350), "tonetip-e": (1200, 1350), "ursa-adapt-10": (480, 558), "gelwave-multi": (1200, 1350)}


@pytest.mark.parametrize("model", OVERRUN)
def test_a_session_is_too_long_from_just_beyond_its_limits(model: str) -> None:
    profile, (most_s, critical_s) = PROFILES.for_model(model), OVERRUN[model]

    def said(on_s: int) -> list[tuple[str, str]]:
        return fires([runtime(0, profile, output_on_s=on_s, elapsed_s=on_s)])

    assert said(most_s) == []
    assert said(most_s + 1) == [("session-overrun", "warning")]
    if critical_s is None:
        assert said(14_400) == [("session-overrun", "warning")]
    else:
        assert said(critical_s) == [("session-overrun", "warning")]
        assert said(critical_s + 1) == [("session-overrun", "critical")]


def test_severity_rises_within_one_alert_and_never_falls() -> None:
    track, into = Track(DEVICE, "s-1"), Judged()
    for s, on_s in enumerate((1_200, 1_201, 1_351, 1_210)):
        judge(track, runtime(5 * s, output_on_s=on_s, elapsed_s=on_s), into)
    (alert,) = into.alerts.values()
    assert (alert.severity, alert.value, alert.limit, alert.onset_ms, alert.opened_ms, alert.escalated_ms) == (
        Severity.CRITICAL, 1_351.0, pytest.approx(1_350.0), START_MS + 5_000, START_MS + 5_000, START_MS + 10_000,
    )  # fmt: skip


def test_without_a_profile_no_session_may_last_longer_than_fifty_minutes() -> None:
    assert fires([runtime(0, None, output_on_s=3_000)]) == []
    assert fires([runtime(0, None, output_on_s=3_001)]) == [("session-overrun", "warning")]


def test_a_counter_that_was_reset_does_not_hide_an_overrun() -> None:
    readings = [r for s in range(1_300) for r in ([runtime(s, output_on_s=s % 600)] if s % 5 == 0 else []) + [current(s)]]
    assert alerts(readings) == [("session-overrun", "warning", 1_200, 1_200, None, None, 1_300.0)]


def test_an_overrun_ends_with_its_session() -> None:
    assert alerts([runtime(0, output_on_s=1_300), runtime(5, run_state="ended", output_on_s=1_300)]) == [
        ("session-overrun", "warning", 0, 0, 5, "session-ended", 1_300.0)
    ]


@pytest.mark.parametrize("state", ["ended", "idle", "fault"])
def test_the_end_of_a_session_closes_what_is_open(state: str) -> None:
    assert [a[4:6] for a in alerts([current(0, i_peak_ua=900.0), runtime(1, run_state=state)])] == [(1, "session-ended")]


@pytest.mark.parametrize("state", ["paused", "armed", "running"])
def test_a_pause_closes_nothing(state: str) -> None:
    assert [a[4] for a in alerts([current(0, i_peak_ua=900.0), runtime(1, run_state=state)])] == [None]


# -- all of them ----------------------------------------------------------------------------------------

NOMINAL: dict[str, list[dict[str, Any]]] = {
    "lumabar-s15": [{"mode": "dc", "i_set_ua": 15, "i_peak_ua": 15, "i_rms_ua": 15, "i_dc_ua": 15, "freq_hz": 0, "duty": 1, "level": 1}],
    "toneduo-400": [{"i_set_ua": i, "i_peak_ua": 1.02 * i, "i_rms_ua": 0.7072 * i, "level": n} for n, i in enumerate((80, 160, 240, 320, 400))],
    "tonetip-e": [{"i_set_ua": i, "i_peak_ua": 1.02 * i, "i_rms_ua": 0.7072 * i, "level": n} for n, i in enumerate((53, 120, 192))],
    "ursa-adapt-10": [{"i_set_ua": i, "i_peak_ua": 1.02 * i, "i_rms_ua": 0.4473 * i, "level": n, "mode": "biphasic"} for n, i in enumerate((0, 190, 390))],
    "gelwave-multi": [
        {"i_set_ua": 500, "i_peak_ua": 510, "i_rms_ua": 354, "mode": "biphasic", "level": 10},
        {"i_set_ua": 100, "i_peak_ua": 102, "i_rms_ua": 100, "i_dc_ua": 100, "mode": "dc", "level": 4},
    ],
}  # fmt: skip


@pytest.mark.parametrize("model", NOMINAL)
def test_a_device_in_nominal_operation_raises_nothing(model: str) -> None:
    """Its longest session, each level in turn, the electrodes lifted for 0.7 s every 5 s."""
    profile = PROFILES.for_model(model)
    assert profile is not None
    most_s, levels = int(profile.session.max_s), NOMINAL[model]
    readings = [runtime(s, profile, output_on_s=s, elapsed_s=s) for s in range(0, most_s, 5)]
    for s in range(most_s):
        lifted = s % 5 == 4
        fields = levels[s * len(levels) // most_s] | ({"i_peak_ua": 0.5, "i_rms_ua": 0.5, "i_dc_ua": 0.0} if lifted else {})
        readings += [current(s, profile, **fields), contact(s + 0.1, "off" if lifted else "good"), contact(s + 0.6)]
    assert alerts([*readings, runtime(most_s, profile, run_state="ended", output_on_s=most_s)]) == []


def test_the_table_has_each_rule_once_and_reads_streams_of_the_contract() -> None:
    assert len(RULE) == len(RULES) == len({rule.says for rule in RULES})
    assert {stream for rule in RULES for stream in rule.reads.split()} <= {*OF_STREAM, "any"}
    assert set(OF_STREAM) == set(Stream)


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from((100.0, 340.0, 400.0, 600.0)), st.sampled_from((3, 4))), max_size=40))
def test_a_track_put_away_and_taken_up_again_at_any_point_judges_the_same(said: list[tuple[int, float, int]]) -> None:
    readings = {s: rms(s, i, level=level, i_set_ua=200.0) for s, i, level in said}
    whole, parted, alerts_of = Track(DEVICE, "s-1"), Track(DEVICE, "s-1"), (Judged(), Judged())
    for s in sorted(readings):
        judge(whole, readings[s], alerts_of[0])
        parted = Track.from_json(parted.to_json())
        judge(parted, readings[s], alerts_of[1])
    ends = [{i: a.model_dump(mode="json") for i, a in judged.alerts.items()} for judged in alerts_of]
    assert ends[0] == ends[1]
