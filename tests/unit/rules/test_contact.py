"""The rules on electrode contact; gel and wear are in test_gel."""

from typing import Any

import pytest

from ingest.safety.track import Reading
from tests.unit.rules.readings import (
    LUMABAR,
    MODELS,
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
    of,
    refused,
    runtime,
    seconds,
    spans,
    told,
    touching,
)

OPEN = "contact-lost-output-on"
NOWHERE = [("current-without-contact", "critical")]
SATURATED = [("compliance-saturation", "warning")]
CHATTER = [("contact-chatter", "warning")]
SHORT = [("electrode-short", "warning")]


def lifted(until_s: float, from_s: float = 0, model: str = TONE) -> list[Reading]:
    return [contact(from_s - 0.25 + n / 2, "off", model) for n in range(int(2 * (until_s - from_s)) + 1)]


# -- contact-lost-output-on -----------------------------------------------------------------------------


def at_compliance(count: int, model: str = TONE, share: float = 1.0, from_s: float = 0, **fields: Any) -> list[Reading]:
    """Off the skin, no current, and so much of the compliance voltage at the electrodes."""
    v_mv = share * (limits_of(model).v_compliance_mv if model != UNKNOWN else 24_000.0)
    open_ = {"i_peak_ua": 0.0, "v_peak_mv": v_mv, "clip_frac": 1.0, **fields}
    return [*lifted(from_s + count, from_s, model), *seconds(count, lambda s: current(s, model, **open_), from_s)]


@pytest.mark.parametrize("model", MODELS)
def test_an_open_head_at_80_percent_of_compliance_warns_after_three_seconds(model: str) -> None:
    limit_v = 0.8 * limits_of(model).v_compliance_mv / 1000
    assert of(OPEN, at_compliance(20, model, below(0.8))) == []
    assert of(OPEN, at_compliance(2, model, above(0.8))) == []
    assert of(OPEN, at_compliance(3, model, above(0.8))) == [("warning", 0, 2, None)]
    (alert,) = judged(at_compliance(3, model))
    assert (alert.value, alert.limit, alert.unit) == (pytest.approx(limit_v / 0.8), pytest.approx(limit_v), "V")


@pytest.mark.parametrize("model", MODELS)
def test_after_thirty_seconds_it_is_critical_where_the_model_declares_a_mute(model: str) -> None:
    assert of(OPEN, at_compliance(29, model)) == [("warning", 0, 2, None)]
    expected = "warning" if model == LUMABAR else "critical"
    (alert,) = judged(at_compliance(30, model))
    assert (alert.rule, alert.severity) == (OPEN, expected)
    assert alert.escalated_ms == (None if model == LUMABAR else alert.onset_ms + 29_000)


def test_an_open_head_without_a_profile_has_no_voltage_to_be_judged_by() -> None:
    assert fires(at_compliance(60, UNKNOWN)) == []


@pytest.mark.parametrize("fields", [{"output_enabled": False}, {"v_peak_mv": 0.0}])
def test_a_head_that_is_muted_may_be_lifted(fields: dict[str, Any]) -> None:
    assert fires(at_compliance(60, **fields)) == []


def test_a_pause_to_put_on_gel_raises_nothing() -> None:
    assert fires([runtime(-1, run_state="paused"), *at_compliance(60)]) == []
    lifts = [r for s in range(0, 60, 5) for r in [*touching(s + 3, s), *at_compliance(2, from_s=s + 3), *seconds(3, current, s)]]
    assert fires(lifts) == []


def test_contact_readings_of_more_than_a_second_ago_do_not_open_a_head() -> None:
    heads = [contact(-0.5, "off"), *seconds(20, lambda s: current(s, i_peak_ua=0.0, v_peak_mv=24_000.0))]
    assert fires(heads) == []


def test_an_open_head_clears_two_seconds_after_it_touches_or_is_muted_and_may_open_again() -> None:
    touched = [*at_compliance(5), *touching(9, 5), *seconds(4, current, 5)]
    assert of(OPEN, touched) == [("warning", 0, 2, 7)]
    assert of(OPEN, [r for r in touched if r.t_ms < touched[-1].t_ms - 1_000]) == [("warning", 0, 2, None)]
    muted = [*at_compliance(5), *at_compliance(4, from_s=5, share=0.1), *at_compliance(4, from_s=9)]
    assert of(OPEN, muted) == [("warning", 0, 2, 7), ("warning", 9, 11, None)]


def test_an_open_head_does_not_close_because_nothing_more_is_heard_of_contact() -> None:
    unheard = seconds(20, lambda s: current(s, i_peak_ua=0.0, v_peak_mv=24_000.0), from_s=5)
    assert of(OPEN, [*at_compliance(5), *unheard]) == [("warning", 0, 2, None)]


# -- current-without-contact ----------------------------------------------------------------------------


def lead_off(count: int, i_rms_ua: float = 100.0, **fields: Any) -> list[Reading]:
    return [*lifted(count), *seconds(count, lambda s: current(s, **{"i_rms_ua": i_rms_ua, "v_peak_mv": 1_600.0, "i_set_ua": 200.0, **fields}))]


@pytest.mark.parametrize(("i_set_ua", "limit"), [(0.0, 5.0), (49.0, 5.0), (50.0, 5.0), (51.0, 5.1), (200.0, 20.0)])
def test_current_without_contact_is_dangerous_above_a_tenth_of_the_set_point_or_five_microamperes(i_set_ua: float, limit: float) -> None:
    assert fires(lead_off(12, below(limit), i_set_ua=i_set_ua)) == []
    assert told(lead_off(12, above(limit), i_set_ua=i_set_ua)) == [
        ("current-without-contact", "critical", pytest.approx(limit), pytest.approx(limit), "µA", "")
    ]


@pytest.mark.parametrize("model", [*MODELS, UNKNOWN])
def test_current_without_contact_needs_no_profile(model: str) -> None:
    readings = [*lifted(8, model=model), *seconds(8, lambda s: current(s, model, i_peak_ua=14.0, v_peak_mv=1.0, i_set_ua=15.0))]
    assert fires(readings) == NOWHERE


def test_the_half_second_around_a_break_is_left_out_and_then_two_seconds_must_pass() -> None:
    """Off since -0.25 s: the window that ends at 2 s is the first that lies beyond."""
    assert spans(lead_off(4)) == [("current-without-contact", "critical", 2, 3, None, None)]
    assert spans(lead_off(3)) == []
    edge = [contact(0.5 + n / 2, "off") for n in range(20)]
    assert of("current-without-contact", [*edge, *seconds(9, lambda s: current(s, i_rms_ua=100.0))]) == [("critical", 2, 3, None)]
    late = [contact(0.501 + n / 2, "off") for n in range(20)]
    assert of("current-without-contact", [*late, *seconds(9, lambda s: current(s, i_rms_ua=100.0))]) == [("critical", 3, 4, None)]


def test_current_without_contact_counts_whether_or_not_output_was_meant() -> None:
    assert fires([runtime(-1, run_state="idle"), *lead_off(9, output_enabled=False)]) == NOWHERE


@pytest.mark.parametrize("state", ["good", "marginal", "poor", "short"])
def test_with_any_contact_current_may_flow(state: str) -> None:
    touch = [contact(n / 2 - 0.25, state, z_ohm=8e3) for n in range(30)]
    assert fires([*touch, *seconds(15, lambda s: current(s, i_set_ua=200.0))]) == []


def test_a_contact_reading_of_long_ago_says_nothing_of_now() -> None:
    readings = lead_off(20)
    assert fires([r for r in readings if r.stream == "current"]) == []
    assert fires([r for r in readings if r.stream == "current" or r.t_ms <= readings[1].t_ms]) == []


def test_gliding_with_short_lifts_raises_nothing() -> None:
    lifts = [contact(n / 2 - 0.25, "off" if n % 10 in (0, 1) else "good") for n in range(600)]
    assert fires([*lifts, *seconds(300, current)]) == []


def test_current_without_contact_clears_after_two_seconds_with_contact_or_without_current() -> None:
    back = [*touching(9, 5), *seconds(4, current, 5)]
    assert spans([*lead_off(5), *back])[0][2:] == (2, 3, 7, "cleared")
    assert spans([*lead_off(5), *back[:-2]])[0][4] is None
    still = [*lifted(9, 5), *seconds(4, lambda s: current(s, i_peak_ua=0.0), 5)]
    assert spans([*lead_off(5), *still])[0][2:] == (2, 3, 7, "cleared")


# -- compliance-saturation ------------------------------------------------------------------------------


def saturated(count: int, share: float = 0.5, model: str = TONE, state: str = "poor", from_s: float = 0, **fields: Any) -> list[Reading]:
    """At compliance, with such a share of the set current."""
    v_mv = limits_of(model).v_compliance_mv if model != UNKNOWN else 24_000.0
    touch = [contact(from_s - 0.25 + n / 2, state, model) for n in range(2 * count)]
    set_ua = {LUMABAR: 15.0}.get(model, 200.0)
    fields = {"i_set_ua": set_ua, "i_peak_ua": share * set_ua, "v_peak_mv": v_mv, **fields}
    return [*touch, *seconds(count, lambda s: current(s, model, **fields), from_s)]


@pytest.mark.parametrize("model", MODELS)
def test_less_than_80_percent_of_the_set_current_at_compliance_is_told_after_five_seconds(model: str) -> None:
    assert of("compliance-saturation", saturated(20, above(0.8), model)) == []
    assert of("compliance-saturation", saturated(4, below(0.8), model)) == []
    assert of("compliance-saturation", saturated(5, below(0.8), model)) == [("warning", 0, 4, None)]
    v_mv = 0.95 * limits_of(model).v_compliance_mv
    assert of("compliance-saturation", saturated(20, model=model, v_peak_mv=below(v_mv))) == []
    assert of("compliance-saturation", saturated(20, model=model, v_peak_mv=above(v_mv))) == [("warning", 0, 4, None)]


def test_clipping_for_more_than_half_of_the_window_is_saturation_as_well_even_without_a_profile() -> None:
    for model in (TONE, UNKNOWN):
        assert fires(saturated(20, model=model, v_peak_mv=100.0, clip_frac=0.5)) == []
        assert fires(saturated(20, model=model, v_peak_mv=100.0, clip_frac=0.51)) == SATURATED


def test_the_lowest_current_is_the_worst() -> None:
    readings = [*saturated(5, 0.5), *saturated(3, 0.3, from_s=5), *saturated(3, 0.6, from_s=8)]
    assert told(readings) == [("compliance-saturation", "warning", 60.0, 160.0, "µA", "")]


@pytest.mark.parametrize(
    ("state", "expected"), [("short", SATURATED), ("good", SATURATED), ("marginal", SATURATED), ("poor", SATURATED), ("off", [])]
)
def test_saturation_needs_some_contact(state: str, expected: list[Any]) -> None:
    found = fires(saturated(8, state=state, v_peak_mv=100.0, clip_frac=1.0, output_enabled=True, i_peak_ua=2.0))
    assert [a for a in found if a[0] == "compliance-saturation"] == expected


def test_saturation_is_judged_only_while_active_with_contact_known_and_a_set_point_and_after_grace() -> None:
    assert fires(saturated(20, output_enabled=False)) == []
    assert fires([r for r in saturated(20) if r.stream == "current"]) == []
    assert fires(saturated(20, i_set_ua=0.0, i_peak_ua=20.0)) == []
    assert [a[1:3] for a in of("compliance-saturation", [current(-1, level=4), *saturated(20)])] == [(2, 6)]


def test_saturation_clears_after_five_seconds() -> None:
    after = [*saturated(5), *touching(12, 5), *seconds(6, current, 5)]
    assert of("compliance-saturation", after) == [("warning", 0, 4, 10)]
    assert of("compliance-saturation", after[:-1]) == [("warning", 0, 4, None)]


def test_an_open_head_mutes_saturation() -> None:
    """The head touches again, saturated, before the open head has cleared."""
    readings = [*at_compliance(5), *saturated(10, from_s=5)]
    assert [a[:4] for a in spans(readings)] == [(OPEN, "warning", 0, 2), ("compliance-saturation", "warning", 7, 11)]


# -- contact-chatter ------------------------------------------------------------------------------------


def breaking(times: list[float], until_s: float, boot_id: int = 7, **fields: Any) -> list[Reading]:
    """Contact at 2 Hz, with breaks counted at the given times."""
    counts = [(n / 2, sum(t <= n / 2 for t in times)) for n in range(int(2 * until_s) + 1)]
    return [contact(at_s, break_count=count, **fields) for at_s, count in counts]


def test_ten_breaks_in_ten_seconds_are_chatter_and_nine_are_not() -> None:
    assert fires(breaking([1 + n for n in range(9)], 30)) == []
    assert told(breaking([1 + n for n in range(10)], 30)) == [("contact-chatter", "warning", 10.0, 10.0, "breaks", "")]


def test_breaks_count_within_ten_seconds_to_the_sample() -> None:
    assert fires(breaking([*[1.0] * 9, 11.0], 30)) == []
    assert fires(breaking([*[1.0] * 9, 10.5], 30)) == CHATTER


def test_gliding_with_a_lift_every_two_and_a_half_seconds_is_normal() -> None:
    assert fires(breaking([2.5 * n for n in range(1, 120)], 300)) == []


def test_chatter_is_told_once_in_a_session_and_clears_below_five() -> None:
    readings = breaking([*[1 + n / 2 for n in range(10)], *[40 + n / 2 for n in range(20)]], 80)
    assert spans(readings) == [("contact-chatter", "warning", 5.5, 5.5, 13.5, "cleared")]


def test_chatter_is_judged_only_while_active() -> None:
    chattering = breaking([1 + n / 2 for n in range(15)], 20)
    assert fires([runtime(-1, run_state="paused"), *chattering]) == []
    assert fires([current(-1, output_enabled=False), *chattering]) == []


def test_breaks_of_another_boot_or_across_a_silence_are_not_counted() -> None:
    assert fires([contact(0, break_count=0), contact(3.1, break_count=20), contact(3.6, break_count=20)]) == []
    assert fires([contact(0, break_count=0), contact(0.5, boot_id=8, break_count=20), contact(1, boot_id=8, break_count=21)]) == []


def test_the_count_that_a_session_begins_with_is_no_chatter() -> None:
    assert fires([contact(n / 2, break_count=500) for n in range(40)]) == []


# -- reconnect-surge ------------------------------------------------------------------------------------


def made(at_s: float, peak_ua: float, count: int = 1, after_s: float = 0.4, **fields: Any) -> list[Reading]:
    """A contact made, and the peak of a window that ends some time after it."""
    fields = {"i_set_ua": 200.0, "i_rms_ua": 100.0, **fields}
    touch = [contact(at_s - 0.5, make_count=count - 1, z_ohm=2e3), contact(at_s, make_count=count, z_ohm=2e3)]
    return [*touch, current(at_s + after_s, z_ohm=2e3, i_peak_ua=peak_ua, **fields)]


def test_a_peak_above_130_percent_and_10_microamperes_at_a_make_is_a_surge() -> None:
    assert fires(made(1, 270.0)) == []
    assert told(made(1, above(270.0))) == [("reconnect-surge", "warning", above(270.0), 270.0, "µA", "")]
    assert fires(made(1, 500.0, i_set_ua=0.0)) == []


@pytest.mark.parametrize(("after_s", "expected"), [(0.0, 1), (0.999, 1), (1.999, 1), (2.0, 0), (5.0, 0)])
def test_a_surge_belongs_to_the_window_of_the_make_or_the_next(after_s: float, expected: int) -> None:
    assert len(fires(made(1, 300.0, after_s=after_s))) == expected


def test_no_surge_without_a_make() -> None:
    no_make = [contact(0.5, make_count=3), contact(1, make_count=3), current(1.4, i_set_ua=200.0, i_peak_ua=300.0)]
    assert fires(no_make) == []
    assert fires([contact(1, make_count=3), current(1.4, i_set_ua=200.0, i_peak_ua=300.0)]) == []


def test_the_third_surge_of_a_session_asks_for_service_and_two_windows_of_one_make_are_one() -> None:
    def surges(count: int) -> list[Reading]:
        return [r for n in range(count) for r in [*made(1 + 5 * n, 300.0, n + 1), current(2.4 + 5 * n, i_set_ua=200.0, i_peak_ua=300.0, z_ohm=2e3)]]

    assert [(a.service, a.detail) for a in judged(surges(2))] == [(False, "")]
    assert [(a.service, a.value) for a in judged(surges(3))] == [(True, 300.0)]


def test_what_is_above_the_absolute_limit_is_that_rules_and_counts_as_no_surge() -> None:
    """Muted for as long as the other is open, whether or not a surge was told before."""
    spikes = [r for n in range(3) for r in made(1 + 3 * n, 700.0, n + 1)]
    assert fires(spikes) == [("overcurrent-peak", "critical")]
    muted = [r for n in range(2) for r in made(5 + 3 * n, 300.0, n + 2)]
    later = [*seconds(20, lambda s: current(s, i_set_ua=200.0), from_s=10), *made(41, 300.0, 4)]
    (spike, surge) = judged([*made(1, 700.0), *muted, *later])
    assert (spike.rule, surge.rule, surge.service) == ("overcurrent-peak", "reconnect-surge", False)


def test_a_surge_ends_with_its_session() -> None:
    readings = [*made(1, 300.0), *seconds(60, lambda s: current(s, i_set_ua=200.0), from_s=3), runtime(70, run_state="ended")]
    assert of("reconnect-surge", readings) == [("warning", 1.4, 1.4, 70)]


# -- electrode-short ------------------------------------------------------------------------------------


def bridged(count: int, z_ohm: float, from_s: float = 0, **fields: Any) -> list[Reading]:
    return [contact(from_s + n / 2, "short", z_ohm=z_ohm, **fields) for n in range(count)]


def test_less_than_200_ohms_for_three_seconds_are_a_bridge() -> None:
    assert fires(bridged(40, 200.0)) == []
    assert fires(bridged(6, below(200.0))) == []
    assert spans(bridged(7, below(200.0))) == [("electrode-short", "warning", 0, 3, None, None)]
    assert told([*bridged(8, 150.0), *bridged(2, 80.0, 4), *bridged(2, 120.0, 5)]) == [("electrode-short", "warning", 80.0, 200.0, "Ω", "")]


def test_a_silence_of_more_than_three_seconds_begins_the_hold_of_a_bridge_anew() -> None:
    assert fires([*bridged(1, 80.0), *bridged(1, 80.0, 3)]) == SHORT
    assert fires([*bridged(1, 80.0), *bridged(1, 80.0, 3.001)]) == []


def test_a_bridge_counts_only_while_active_and_clears_above_500_ohms() -> None:
    assert fires([runtime(-1, run_state="idle"), *bridged(40, 80.0)]) == []
    assert of("electrode-short", [*bridged(7, 80.0), contact(4, z_ohm=500.0)]) == [("warning", 0, 3, None)]
    assert of("electrode-short", [*bridged(7, 80.0), contact(4, z_ohm=above(500.0))]) == [("warning", 0, 3, 4)]


def test_a_bridge_in_refused_messages_is_told() -> None:
    assert fires([refused(n / 2, TIP, z_ohm=below(200.0)) for n in range(6)]) == []
    assert fires([refused(n / 2, TIP, z_ohm=below(200.0)) for n in range(7)]) == SHORT
