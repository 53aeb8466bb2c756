"""Each scenario does what its name says, and expects what its row says."""

import re
import statistics

import pytest

from ingest.simulator.models import MODELS
from ingest.simulator.scenario import Scenario
from ingest.simulator.scenarios import BY_KEY, BY_NUMBER, SCENARIOS
from ingest.simulator.scenarios_sound import SOUND
from schemas.alerts import Severity
from schemas.messages import MESSAGES
from schemas.topics import Stream
from tests.simulated import START_MS, aged, device_of, during, lived, profile_of, role_of, samples, session_of

HOUR_S = 3_600

RULES = {
    "overcurrent-rms", "overcurrent-peak", "setpoint-overdelivery", "dc-offset", "net-charge-dose", "current-density",
    "power-density", "waveform-drift", "contact-lost-output-on", "current-without-contact", "compliance-saturation",
    "gel-dryout-trend", "contact-chatter", "reconnect-surge", "electrode-short", "electrode-wear", "session-overrun",
    "daily-overuse", "zone-dwell", "forbidden-zone", "output-while-charging", "overtemperature", "device-fault",
    "sensor-implausible", "telemetry-gap", "fleet-cluster", "low-light", "clock-skew",
}  # fmt: skip
FOLLOWS_FROM_USE = {"daily-overuse", "fleet-cluster"}


def current(scenario: int | str, from_s: float, to_s: float) -> list[dict]:
    return during(aged(session_of(scenario)[0], Stream.CURRENT), from_s, to_s)


def contact(scenario: int | str, from_s: float, to_s: float) -> list[dict]:
    return during(aged(session_of(scenario)[0], Stream.CONTACT), from_s, to_s)


def runtime(scenario: int | str) -> list[dict]:
    return aged(session_of(scenario)[0], Stream.RUNTIME)


def health(scenario: int | str) -> list[dict]:
    return aged(session_of(scenario)[0], Stream.HEALTH)


# -- the table ------------------------------------------------------------------------------


def test_numbers_and_keys_are_unique_and_keys_can_be_typed() -> None:
    assert len(BY_NUMBER) == len(BY_KEY) == len(SCENARIOS) + 1
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", key) for key in BY_KEY)


def test_every_rule_has_a_scenario_that_must_set_it_off_and_none_is_unknown() -> None:
    required = {expected.rule for scenario in SCENARIOS for expected in scenario.fires if expected.required}
    assert required | FOLLOWS_FROM_USE == RULES
    assert {rule for scenario in SCENARIOS for rule in scenario.never} <= RULES


def test_no_scenario_forbids_what_it_expects_and_what_is_sound_expects_nothing() -> None:
    assert [] == [s.key for s in SCENARIOS if s.never & {expected.rule for expected in s.fires}]
    assert [] == [s.key for s in SOUND if s.fires or not s.never]


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.quick], ids=lambda scenario: scenario.key)
def test_a_quick_scenario_begins_within_a_minute_and_expects_what_its_row_says(scenario: Scenario) -> None:
    device = device_of(role_of(scenario.number, MODELS[0]))
    messages = lived(device, 3_300)
    first_ms = min(s["t_ms"] for s in samples(messages, Stream.RUNTIME)) if scenario.clock is None else 0
    assert first_ms < START_MS + 60_000
    expected = sorted((e.rule, e.severity, e.required) for e in scenario.fires)
    assert expected == sorted((e.rule, e.severity, e.required) for e in device.injected[: len(expected)])
    assert [] == [e for e in device.injected[len(expected) :] if e.required and not scenario.chronic]
    assert all(e.by_ms > e.onset_ms for e in device.injected)


# -- output ---------------------------------------------------------------------------------


def test_a_latch_up_shows_1400_microampere_for_20_seconds_at_10_hertz_first_and_ends_in_a_fault() -> None:
    messages, injected = session_of("latch-up")
    high = during(aged(messages, Stream.CURRENT), 90, 110)
    assert [1_000] + [100] * 100 + [1_000] * 9 == [s["window_ms"] for s in high]
    assert all(1_250 < s["i_peak_ua"] < 1_550 for s in high)
    assert all(s["i_rms_ua"] > 2 * 283 for s in high if s["window_ms"] == 1_000)
    assert sum(s["v_peak_mv"] for s in high) / len(high) == pytest.approx(11_200, rel=0.05)
    assert [90.0] == sorted({round((e.onset_ms - high[0]["t_ms"]) / 1000 + high[0]["at_s"], 1) for e in injected})
    assert ["fault", "ended"] == [s["run_state"] for s in aged(messages, Stream.RUNTIME)][-2:]


def test_gain_drift_delivers_one_per_cent_more_each_second() -> None:
    found = current("gain-drift", 60, 140)
    assert {240.0} == {s["i_set_ua"] for s in found}
    assert found[39]["i_peak_ua"] / 240 == pytest.approx(1.4, rel=0.08)
    assert found[-1]["i_peak_ua"] / 240 == pytest.approx(1.8, rel=0.08)


def test_weak_negative_pulses_leave_thirty_microampere() -> None:
    found = current("weak-negative", 60, 300)
    assert sum(s["i_dc_ua"] for s in found) / len(found) == pytest.approx(30, abs=5)


def test_a_stuck_generator_gives_direct_current_in_a_mode_that_has_none() -> None:
    found = current("generator-stuck", 60, 120)
    assert {("alt_burst", 0.0)} == {(s["mode"], s["freq_hz"]) for s in found}
    assert all(s["i_dc_ua"] == pytest.approx(s["i_rms_ua"], abs=2) == pytest.approx(400, rel=0.1) for s in found)


def test_a_wrong_frequency_is_off_by_more_than_a_fifth_and_still_balanced() -> None:
    found = current("wrong-frequency", 60, 300)
    assert {11.0} == {s["freq_hz"] for s in found}
    assert abs(sum(s["i_dc_ua"] for s in found[:60]) / 60) < 8


def test_a_shorted_output_gives_more_than_a_quarter_watt() -> None:
    found = current("output-shorted", 90, 100)
    assert min((s["i_rms_ua"] * 1e-6) ** 2 * 500 for s in found if s["window_ms"] == 1_000) > 0.25


def test_a_long_direct_current_program_reaches_ninety_millicoulomb_just_before_it_ends() -> None:
    dose = 0.0
    reached = []
    for sample in current("long-direct-current", 0, 1_190):
        dose += sample["i_dc_ua"] / 1000 / 1.2
        if dose >= 90:
            reached.append(sample["at_s"])
    assert 1_070 < reached[0] < 1_100
    assert reached[-1] - reached[0] > 60


# -- contact --------------------------------------------------------------------------------


def test_gel_that_dries_reaches_the_compliance_voltage_and_starves_the_current() -> None:
    dry = current("gel-dry-out", 190, 230)
    assert all(s["i_peak_ua"] < 0.8 * 400 and s["v_peak_mv"] == pytest.approx(24_000, abs=1) for s in dry if s["clip_frac"] == 1)
    assert sum(s["clip_frac"] == 1 for s in dry) > 30
    late, early = contact("gel-dry-out", 200, 230), contact("gel-dry-out", 10, 60)
    assert median_ohm(late) / median_ohm(early) == pytest.approx(20, rel=0.3)


def median_ohm(found: list[dict]) -> float:
    touching = sorted(s["z_ohm"] for s in found if s["state"] != "off")
    return touching[len(touching) // 2]


def test_a_lead_off_that_is_not_muted_shows_compliance_voltage_and_no_current() -> None:
    off = current("lead-off-live", 60, 100)
    assert {(24_000.0, 0.0, 0.0)} == {(s["v_peak_mv"], s["i_peak_ua"], s["i_rms_ua"]) for s in off}
    assert 40 == len(off)
    assert {"off"} == {s["state"] for s in contact("lead-off-live", 60, 100)}


def test_a_lead_off_that_is_muted_shows_neither() -> None:
    off = current("muted-lead-off", 60, 115)
    assert {(0.0, 0.0, True)} == {(s["v_peak_mv"], s["i_rms_ua"], s["output_enabled"]) for s in off}


def breaks_in(scenario: str, from_s: float, to_s: float) -> int:
    found = contact(scenario, from_s, to_s)
    return found[-1]["break_count"] - found[0]["break_count"]


def test_chatter_breaks_contact_twice_a_second_and_tells_each_edge() -> None:
    assert 18 <= breaks_in("chatter", 65, 75) <= 20
    assert {"good", "off"} == {s["state"] for s in contact("chatter", 65, 75)}
    assert len(contact("chatter", 65, 75)) == 60  # two on the grid and four edges a second
    assert max(breaks_in("rollers-over-stubble", s, s + 10) for s in range(60, 90)) < 10
    assert breaks_in("rollers-over-stubble", 60, 90) >= 18


def test_a_surge_is_seen_only_where_contact_is_made() -> None:
    made = current("surge-at-make", 60, 300)
    surges = [s for s in made if s["i_peak_ua"] > 1.3 * s["i_set_ua"] + 10]
    assert {356.0} == {s["i_peak_ua"] for s in surges}
    assert 20 < len(surges) < len(made) / 3
    assert all(s["i_rms_ua"] < 200 for s in surges)


def test_a_meter_that_fails_open_shows_no_contact_while_current_flows() -> None:
    assert {("off", 20_000_000.0)} == {(s["state"], s["z_ohm"]) for s in contact("contact-meter-open", 60, 80)}
    assert min(s["i_rms_ua"] for s in current("contact-meter-open", 60, 80)) > 200


@pytest.mark.parametrize(
    ("scenario", "stream", "from_s", "to_s", "fields"),
    [
        ("gel-bridge", Stream.CONTACT, 60.1, 90, {"z_ohm": 80.0, "state": "short"}),
        ("edge-contact", Stream.CONTACT, 60, 70, {"contact_frac": 0.2}),
        ("lot-defect", Stream.CONTACT, 60, 70, {"contact_frac": 0.2}),
        ("held-still", Stream.CONTACT, 60, 150, {"motion": "still"}),
        ("direct-current-held-still", Stream.CURRENT, 60, 105, {"mode": "dc"}),
        ("output-on-charger", Stream.HEALTH, 60, 64, {"charging": True}),
        ("board-overheats", Stream.HEALTH, 60, 79, {"temp_pcb_c": 62.0}),
        ("output-stage-fault", Stream.HEALTH, 60, 65, {"fault_bits": 1}),
        ("self-test-fails", Stream.HEALTH, 60, 65, {"self_test": "fail"}),
        ("harmless-fault-bit", Stream.HEALTH, 60, 119, {"fault_bits": 64}),
        ("program-change", Stream.CURRENT, 201, 600, {"mode": "dc", "freq_hz": 0.0, "i_set_ua": 100.0}),
        ("direct-current-program", Stream.CURRENT, 5, 600, {"mode": "dc", "i_set_ua": 100.0}),
    ],
)
def test_a_scenario_shows_this_all_the_while(scenario: str, stream: Stream, from_s: float, to_s: float, fields: dict) -> None:
    role = role_of(scenario)
    messages = lived(device_of(role), 7 * 86_400 if scenario == "lot-defect" else 700)
    first = next(s["session_id"] for s in samples(messages, Stream.RUNTIME))
    of_session = [m for m in messages if f'"{first}"'.encode() in m.payload]
    found = during(aged(of_session, stream), from_s, to_s)
    assert found
    assert [fields] * len(found) == [{name: s[name] for name in fields} for s in found]


# -- runtime and use --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "zone", "source", "lasts_s"),
    [
        ("program-on-eyelid", "eyelid_l", "program", 6),
        ("temple-tapped", "temple_l", "user", 10),
        ("under-the-eye", "under_eye_l", "program", 40),
    ],
)
def test_a_zone_is_told_when_it_is_entered_and_left(scenario: str, zone: str, source: str, lasts_s: int) -> None:
    told = runtime(scenario)
    entered = next(n for n, s in enumerate(told) if s["zone"] == zone)
    left = next(n for n, s in enumerate(told) if n > entered and s["zone"] != zone)
    assert (61.0, source, 0) == (told[entered]["at_s"], told[entered]["zone_source"], told[entered]["zone_elapsed_s"])
    assert lasts_s == pytest.approx(told[left]["at_s"] - told[entered]["at_s"], abs=0.1)
    assert "program" == told[left]["zone_source"]


def test_a_failed_auto_off_runs_for_23_minutes_and_a_zone_that_stays_says_how_long() -> None:
    assert 1_380 == runtime("no-auto-off")[-1]["output_on_s"]
    assert 200 == runtime("zone-not-advanced")[-1]["zone_elapsed_s"]
    assert 300 == runtime("zone-never-advanced")[-1]["zone_elapsed_s"]


def test_a_pause_tells_so_and_stops_the_output_and_its_clock() -> None:
    states = [(s["at_s"], s["run_state"]) for s in runtime("pause-for-gel")]
    assert {"paused"} == {state for at_s, state in states if 91 <= at_s <= 130}
    assert (91.0, "paused") in states and (131.0, "running") in states
    assert [] == current("pause-for-gel", 90, 130)
    assert (340, 300) == (runtime("pause-for-gel")[-1]["elapsed_s"], runtime("pause-for-gel")[-1]["output_on_s"])
    assert {"off"} == {s["state"] for s in contact("pause-for-gel", 93, 127)}


def test_levels_and_adaptation_move_the_set_point_that_is_published() -> None:
    assert [(3, 240.0), (5, 400.0), (1, 80.0), (2, 160.0), (4, 320.0)] == list(
        dict.fromkeys((s["level"], s["i_set_ua"]) for s in current("level-changes", 40, 300))
    )
    assert {195.0} == {s["i_set_ua"] for s in current("adapting", 55, 180)}


def sessions(scenario: str, hours: float) -> list[tuple[str, int]]:
    """(session, output seconds) in order."""
    found: dict[str, int] = {}
    for sample in samples(lived(device_of(role_of(scenario)), hours * HOUR_S), Stream.RUNTIME):
        found[sample["session_id"]] = sample["output_on_s"]
    return list(found.items())


def test_over_use_is_five_times_ten_minutes_and_a_course_keeps_its_hours() -> None:
    assert [600] * 5 == [output_s for _, output_s in sessions("over-use", 8)]
    assert [800] * 3 == [output_s for _, output_s in sessions("shared-to-the-limit", 8)]
    assert 8 == len(sessions("eight-sessions", 7 * 24))


def test_over_use_is_expected_in_the_fourth_and_the_fifth_session() -> None:
    device = device_of(role_of("over-use"))
    lived(device, 20 * HOUR_S)
    assert [("004", Severity.INFO), ("005", Severity.WARNING)] == [(e.session_id[-3:], e.severity) for e in device.injected]


@pytest.mark.parametrize("scenario", ["shared-to-the-limit", "week-to-the-limit", "charged-between"])
def test_use_up_to_the_limit_causes_nothing(scenario: str) -> None:
    device = device_of(role_of(scenario))
    lived(device, 11 * 24 * HOUR_S)
    assert [] == device.injected


# -- device and data --------------------------------------------------------------------------


def test_a_head_that_heats_is_told_each_second_above_38_degrees() -> None:
    hot = [s for s in health("head-heats") if s["temp_head_c"] >= 38]
    steps = [later["at_s"] - earlier["at_s"] for earlier, later in zip(hot, hot[1:], strict=False)]
    assert {1.0} == {round(step, 1) for step in steps}
    assert 44.0 == max(s["temp_head_c"] for s in hot)
    assert 30 < sum(s["temp_head_c"] >= 43 for s in hot) < 40
    assert max(s["temp_head_c"] for s in health("in-the-sun")) == 40.0
    assert 0 < sum(s["temp_head_c"] >= 41 for s in health("head-warms")) < 10


def test_a_dim_room_starves_a_solar_bar_and_is_told() -> None:
    assert {4.0} >= {round(s["i_peak_ua"]) for s in current("dim-room", 66, 300) if s["i_peak_ua"] > 0}
    (edge,) = during(health("dim-room"), 60.5, 61.5)
    assert (40.0, 500.0) == (edge["lux"], edge["solar_mv"])


def test_a_frozen_meter_repeats_itself_while_impedance_moves() -> None:
    assert 1 == len({s["i_rms_ua"] for s in current("rms-frozen", 60, 150)})
    assert len({s["i_peak_ua"] for s in current("rms-frozen", 60, 150)}) > 20
    moving = [s["z_ohm"] for s in contact("rms-frozen", 60, 150)]
    assert max(moving) > 1.2 * min(moving)


def test_a_unit_bug_reports_a_thousandfold_and_is_refused_at_the_door() -> None:
    messages, _ = session_of("unit-bug")
    found = aged(messages, Stream.CURRENT)
    assert 15_000 == found[-1]["i_set_ua"] or found[-1]["i_set_ua"] == 400_000
    assert {Stream.CURRENT} == {m.stream for m in messages if not accepted(m)}


def accepted(message) -> bool:
    try:
        MESSAGES[message.stream].model_validate_json(message.payload)
    except ValueError:
        return False
    return True


def test_an_outage_is_silence_and_then_a_burst_in_order_that_names_its_gateway() -> None:
    carried = [m for m in session_of("outage-then-latch-up")[0] if b"gateway_id" in m.payload]
    arrivals = [m.flights_ms[0] for m in carried]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] - arrivals[0] < 5_000
    assert arrivals[0] - samples(carried, Stream.CURRENT)[0]["t_ms"] > 170_000
    assert any(s["i_peak_ua"] > 1_000 for s in samples(carried, Stream.CURRENT))


def test_brown_outs_break_sessions_off_and_the_next_boot_says_why() -> None:
    messages = lived(device_of(role_of("brown-outs")), 3 * HOUR_S)
    told = [s["reset_reason"] for s in samples(messages, Stream.HEALTH)]
    assert ["power_on", "brownout", "power_on", "brownout", "power_on", "brownout", "power_on", "ota"] == [
        reason for n, reason in enumerate(told) if n == 0 or reason != told[n - 1]
    ]
    assert [] == [s for s in samples(messages, Stream.RUNTIME) if s["run_state"] == "ended"]


def test_a_battery_that_dies_ends_in_silence() -> None:
    messages = lived(device_of(role_of("battery-dies")), 1_200)
    last = samples(messages, Stream.RUNTIME)[-1]
    assert (145, "running") == (last["elapsed_s"], last["run_state"])
    assert max(s["t_ms"] for s in samples(messages, Stream.HEALTH)) <= last["t_ms"]


def test_lost_messages_leave_holes_that_nothing_ever_fills() -> None:
    messages, _ = session_of("messages-lost")
    lost = sum(not m.flights_ms for m in messages)
    assert 0.1 < lost / len(messages) < 0.3


@pytest.mark.parametrize(("scenario", "ahead_s"), [("clock-ahead", 600), ("clock-lost", -25 * 365.25 * 86_400), ("clock-set-right", 0)])
def test_a_wrong_clock_is_wrong_by_so_much_in_a_session(scenario: str, ahead_s: float) -> None:
    device = device_of(role_of(scenario))
    lived(device, 120)
    assert ahead_s * 1000 == pytest.approx(device.device_ms(START_MS + 120_000) - START_MS - 120_000, abs=2_100)


def test_a_clock_that_is_set_right_steps_by_five_minutes_within_its_boot() -> None:
    messages = lived(device_of(role_of("clock-set-right")), 120)
    before = samples(messages, Stream.IDENTITY)[0]
    after = samples(messages, Stream.RUNTIME)[0]
    assert before["boot_id"] == after["boot_id"]
    assert after["t_ms"] - before["t_ms"] > 300_000


def test_wear_raises_impedance_by_two_per_cent_a_session() -> None:
    device = device_of(role_of("electrode-wear"))
    messages = lived(device, 40 * 30 * HOUR_S)
    by_session: dict[str, list[float]] = {}
    for sample in samples(messages, Stream.CONTACT):
        if sample["state"] == "good":
            by_session.setdefault(sample["session_id"], []).append(sample["z_ohm"])
    medians = [sorted(found)[len(found) // 2] for found in by_session.values()]
    assert 40 == len(medians)
    assert sum(medians[35:]) / sum(medians[:5]) == pytest.approx(1.02**35, rel=0.1)
    (required,) = [e for e in device.injected if e.required]
    assert (Severity.WARNING, None) == (required.severity, required.session_id)
    hours = (required.onset_ms - START_MS) / HOUR_S / 1000
    assert 14 * 30 < hours < 22 * 30
    assert 22 * 30 < (required.by_ms - START_MS) / HOUR_S / 1000 < 30 * 30


def test_a_worn_attachment_and_expired_gel_are_told_with_the_identity() -> None:
    (worn,) = samples(lived(device_of(role_of("attachment-worn")), 30), Stream.IDENTITY)
    (expired,) = samples(lived(device_of(role_of("gel-expired")), 30), Stream.IDENTITY)
    assert worn["attachment_cycles"] > (profile_of("toneduo-400").electrodes.attachment_cycles_max or 0)
    assert "2025-01-31" == expired["gel_expiry"]


def test_a_device_on_its_charger_tells_when_it_is_put_on_and_taken_off() -> None:
    told = samples(lived(device_of(role_of("charged-between")), 1.3 * HOUR_S), Stream.HEALTH)
    edges = [s["charging"] for n, s in enumerate(told) if n == 0 or s["charging"] != told[n - 1]["charging"]]
    assert [False, True, False] == edges
    assert {None} == {s["session_id"] for s in told if s["charging"]}


def test_an_update_restarts_and_repeats_and_edges_come_as_their_rows_say() -> None:
    messages = lived(device_of(role_of("update-restart")), 240)
    assert {"power_on", "ota"} == {s["reset_reason"] for s in samples(messages, Stream.HEALTH)}
    repeated = [m for m in session_of("repeats-and-swaps")[0] if len(m.flights_ms) == 2]
    assert 0.01 < len(repeated) / 180 < 0.12
    away = [m for m in session_of("phone-away")[0] if b"gateway_id" in m.payload]
    assert 44_000 < away[0].flights_ms[0] - samples(away, Stream.CURRENT)[0]["t_ms"] < 52_000
    fracs = [s["contact_frac"] for s in contact("edge-moments", 20, 24)]
    assert [0.2] * 4 == fracs[:4] and min(fracs[4:]) > 0.5
    assert 1.1 < statistics.median(bone_over_cheek(seed) for seed in range(1, 10)) < 1.35


def bone_over_cheek(seed: int) -> float:
    """How impedance differs between two places; each place of each face varies by itself."""
    found = aged(session_of("bone-and-cheek", seed)[0], Stream.CONTACT)
    return median_ohm(during(found, 50, 100)) / median_ohm(during(found, 15, 50))
