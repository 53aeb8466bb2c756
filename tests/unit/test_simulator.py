"""Simulated devices obey the contract, and healthy ones are healthy."""

import math
from collections import defaultdict
from random import Random

import orjson
import pytest

from ingest.simulator.devices import Role
from ingest.simulator.household import Rhythm
from ingest.simulator.models import MODELS
from ingest.simulator.radio import LONGEST_DELAY_S, Radio
from ingest.simulator.scenario import HEALTHY, Path
from ingest.simulator.waveform import Waveform, deliver
from schemas.messages import MAX_PAYLOAD_BYTES, MESSAGES, Mode, Online, StatusReason
from schemas.topics import Stream
from tests.simulated import START_MS, device_of, everyone, lived, profile_of, role_of, samples, session_of

DAY_S = 86_400


def named(role: Role) -> str:
    return f"{role.scenario.key}-{role.model}"


@pytest.mark.parametrize("role", [role for role in everyone() if role.scenario.key != "unit-bug"], ids=named)
def test_every_message_of_every_device_is_valid_and_small_enough(role: Role) -> None:
    device = device_of(role)
    messages = lived(device, 3_700)
    for message in messages:
        MESSAGES[message.stream].model_validate_json(message.payload)
    assert max(len(message.payload) for message in messages) <= MAX_PAYLOAD_BYTES


def test_seq_rises_by_one_for_each_message_of_a_boot_across_streams() -> None:
    boots = defaultdict(list)
    for message in lived(device_of(role_of("brown-outs")), 3 * 3_600):
        boots[message.boot_id].append(message.seq)
        assert orjson.loads(message.payload)["seq"] == message.seq
    assert len(boots) > 4
    assert all(seqs == list(range(len(seqs))) for seqs in boots.values())


def test_a_boot_begins_with_birth_identity_and_health() -> None:
    first: dict[int, list[Stream]] = defaultdict(list)
    for message in lived(device_of(role_of("over-use")), 4 * 3_600):
        first[message.boot_id].append(message.stream)
    assert {(Stream.STATUS, Stream.IDENTITY, Stream.HEALTH)} == {tuple(streams[:3]) for streams in first.values()}


def test_the_same_seed_and_start_give_the_same_bytes_and_another_start_is_another_boot() -> None:
    role = role_of(7)
    assert lived(device_of(role), 600) == lived(device_of(role), 600)
    assert device_of(role, start_ms=START_MS + 60_000).boot_id != device_of(role).boot_id


def test_a_will_is_a_valid_status_that_carries_the_seq_of_its_birth() -> None:
    device = device_of(role_of(1))
    birth = device.status(Online.ONLINE, StatusReason.BIRTH, START_MS)
    will = MESSAGES[Stream.STATUS].model_validate_json(device.will(birth))
    assert (will.boot_id, will.seq) == (birth.boot_id, birth.seq)
    assert will.samples[0].reason == StatusReason.WILL


def test_a_device_that_nobody_uses_for_long_says_goodbye_and_boots_before_its_next_session() -> None:
    messages = lived(device_of(role_of("four-sessions")), 2.02 * 3_600)
    statuses = samples(messages, Stream.STATUS)
    assert [s["reason"] for s in statuses] == ["birth", "shutdown", "birth"]
    assert statuses[2]["t_ms"] - statuses[1]["t_ms"] > 3_600_000
    off = [m for m in messages if statuses[1]["t_ms"] < orjson.loads(m.payload)["ts_ms"] < statuses[2]["t_ms"]]
    assert [] == off
    assert {"power_on"} == {sample["reset_reason"] for sample in samples(messages, Stream.HEALTH)}


def test_current_comes_once_a_second_and_contact_twice_for_the_whole_session() -> None:
    messages, _ = session_of(2)
    session = samples(messages, Stream.CURRENT)
    times = [sample["t_ms"] for sample in session]
    assert len(session) == 300
    assert all(999 <= later - earlier <= 1001 for earlier, later in zip(times, times[1:], strict=False))
    assert len(samples(messages, Stream.CONTACT)) == 601  # and one make at the start


def test_sample_times_of_a_stream_never_go_back_within_a_boot() -> None:
    for role in everyone():
        if role.scenario.clock is None:
            messages = lived(device_of(role), 1_500)
            for stream in (Stream.CURRENT, Stream.CONTACT, Stream.RUNTIME, Stream.HEALTH):
                times = [sample["t_ms"] for sample in samples(messages, stream)]
                assert times == sorted(times), (role, stream)


def test_contact_counters_only_rise_within_a_boot() -> None:
    for role in everyone():
        by_boot: dict[int, list[int]] = defaultdict(list)
        for sample in samples(lived(device_of(role), 600), Stream.CONTACT):
            by_boot[sample["boot_id"]].append(sample["make_count"] + sample["break_count"])
        assert all(values == sorted(values) for values in by_boot.values()), role


def test_a_session_is_never_silent_for_two_seconds_and_says_that_it_ended() -> None:
    messages, _ = session_of(1)
    made = [sample for stream in (Stream.CURRENT, Stream.RUNTIME) for sample in samples(messages, stream)]
    times = sorted(sample["t_ms"] for sample in made)
    assert max(later - earlier for earlier, later in zip(times, times[1:], strict=False)) < 2_000
    states = [sample["run_state"] for sample in samples(messages, Stream.RUNTIME)]
    assert (states[0], states[1], states[-1]) == ("armed", "running", "ended")


def test_an_alternating_burst_swings_each_second_and_balances_over_a_minute() -> None:
    dc = [sample["i_dc_ua"] for sample in samples(session_of(2)[0], Stream.CURRENT)]
    minutes = [sum(dc[i : i + 60]) / 60 for i in range(len(dc) - 60)]
    assert max(abs(mean) for mean in minutes) < 5
    assert max(dc) > 180 and min(dc) < -180


def test_a_lift_costs_no_charge_balance_for_the_generator_stands_still_in_it() -> None:
    """Half a burst is 240 µC; more than that can never stand open, save for what noise adds."""
    for seed in range(5):
        charge_uc = worst_uc = 0.0
        for sample in samples(session_of(28, seed)[0], Stream.CURRENT):
            charge_uc += sample["i_dc_ua"]
            worst_uc = max(worst_uc, abs(charge_uc))
        assert worst_uc < 400


def test_a_window_of_whole_cycles_delivers_no_net_charge() -> None:
    burst = Waveform(Mode.ALT_BURST, 8.3, 60_000.0, 0.5)
    cycle_s = 20 / 8.3
    for phase_s in (0.0, 0.3, 1.9, 100.7):
        given = deliver(burst, phase_s, 3 * cycle_s)
        assert math.isclose(given.positive_s, 1.8, abs_tol=1e-6)
        assert math.isclose(given.negative_s, 1.8, abs_tol=1e-6)
    assert deliver(burst, 0.0, 0.06) == deliver(burst, 0.0, 0.1)


MISREPORTING = {"unit-bug", "rms-frozen"}


@pytest.mark.parametrize("role", [role for role in everyone() if role.scenario.key not in MISREPORTING], ids=named)
def test_readings_obey_physics(role: Role) -> None:
    profile = profile_of(role.model)
    for sample in samples(lived(device_of(role, rhythm=Rhythm.BUSY), 3_000), Stream.CURRENT):
        assert sample["i_rms_ua"] <= 1.05 * sample["i_peak_ua"]
        assert abs(sample["i_dc_ua"]) <= 1.05 * sample["i_rms_ua"] + 1
        assert sample["v_peak_mv"] <= profile.output.v_compliance_mv
        net_uc = sample["q_pos_uc"] - sample["q_neg_uc"]
        assert abs(net_uc - sample["i_dc_ua"] * sample["window_ms"] / 1000) < 2


def test_healthy_devices_stay_inside_their_envelope() -> None:
    for model in MODELS:
        profile = profile_of(model)
        messages = lived(device_of(Role(f"sim-{model}", model, HEALTHY), rhythm=Rhythm.BUSY), 6_000)
        current = samples(messages, Stream.CURRENT)
        assert max(sample["i_peak_ua"] for sample in current) < 1.25 * profile.output.i_peak_max_ua
        assert max(sample["i_rms_ua"] for sample in current) < 1.15 * profile.i_rms_max_ua
        for sample in samples(messages, Stream.RUNTIME):
            assert sample["output_on_s"] <= profile.session.max_s
            assert sample["zone_elapsed_s"] <= profile.zones.max_s
            assert sample["zone"] not in profile.zones_forbidden
        for sample in samples(messages, Stream.CONTACT):
            assert sample["state"] in {"good", "marginal", "off"}
        for sample in samples(messages, Stream.HEALTH):
            assert sample["temp_head_c"] < 38


@pytest.mark.parametrize("model", MODELS)
def test_a_household_never_uses_a_device_more_than_its_model_allows(model: str) -> None:
    device = device_of(Role(f"sim-{model}", model, HEALTHY))
    messages = lived(device, 10 * DAY_S)
    sessions = {sample["session_id"] for sample in samples(messages, Stream.RUNTIME)}
    assert len(sessions) >= 4
    assert [] == device.injected


def test_busy_devices_are_over_used_and_the_truth_says_so() -> None:
    device = device_of(Role("sim-busy", "toneduo-400", HEALTHY), rhythm=Rhythm.BUSY)
    lived(device, 2 * 3_600)
    assert {"daily-overuse"} == {expectation.rule for expectation in device.injected}
    severities = [expectation.severity for expectation in device.injected]
    assert ("info", "warning") == (severities[0], severities[-1])


def test_a_fault_that_never_happened_is_never_expected() -> None:
    device = device_of(role_of(7))
    lived(device, 60)
    device.stop(START_MS + 60_000)
    assert device.injected == []


def test_a_stopped_device_ends_its_session_by_the_user() -> None:
    device = device_of(role_of(2))
    lived(device, 120)
    end = samples(device.stop(START_MS + 120_000), Stream.RUNTIME)[-1]
    assert (end["run_state"], end["end_reason"]) == ("ended", "user")
    assert device.stop(START_MS + 121_000) == []


def test_no_message_is_delayed_beyond_the_longest_delay() -> None:
    radio = Radio(Random(1), Path())
    delays = sorted(radio.flights(START_MS)[0] - START_MS for _ in range(20_000))
    assert 300 < delays[10_000] < 500
    assert delays[-1] <= LONGEST_DELAY_S * 1000
    assert sum(delay > 10_000 for delay in delays) > 100


def test_noise_is_as_large_as_it_is_in_real_devices() -> None:
    """Current 2 %; impedance log-normal with a spread of 0.15 that forgets within seconds."""
    messages, _ = session_of(2)
    settled = [s for s in samples(messages, Stream.CURRENT)[10:] if s["i_peak_ua"]]
    ratios = [s["i_peak_ua"] / s["i_set_ua"] for s in settled]
    mean = sum(ratios) / len(ratios)
    assert 0.016 < math.sqrt(sum((r - mean) ** 2 for r in ratios) / len(ratios)) < 0.024
    assert {0.0} == {s["i_peak_ua"] % 0.5 for s in settled}
    logs = [math.log(s["z_ohm"]) for s in samples(messages, Stream.CONTACT)[40:140]]
    steps = [b - a for a, b in zip(logs, logs[1:], strict=False)]
    assert 0.05 < math.sqrt(sum(step**2 for step in steps) / len(steps)) < 0.12
