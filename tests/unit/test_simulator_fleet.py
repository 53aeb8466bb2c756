"""Fleets made to order, and what they send without a broker."""

from collections import defaultdict

import orjson
import pytest

from ingest.simulator.fleet import FAULTS, QUICK, Wish, chosen, fleet, wish
from ingest.simulator.household import Rhythm
from ingest.simulator.models import MODELS, TONEDUO
from ingest.simulator.offline import generate
from ingest.simulator.scenario import HEALTHY
from ingest.simulator.scenarios import BY_KEY, find
from ingest.simulator.truth import Truth, digest
from schemas.alerts import FLEET
from schemas.topics import Stream, parse_uplink
from tests.simulated import PROFILES, START_MS

DAY_S = 86_400.0


# -- who is in it -----------------------------------------------------------------------------


def test_a_fleet_has_each_scenario_once_and_keeps_its_ids_when_it_grows() -> None:
    roles = fleet(100)
    assert list(QUICK) == [role.scenario for role in roles[: len(QUICK)]]
    assert {HEALTHY} == {role.scenario for role in roles[len(QUICK) :]}
    assert set(MODELS) == {role.model for role in roles}
    assert roles[:60] == fleet(60)
    assert 400 == len({role.device_id for role in fleet(400)})
    assert {6} == {len({role.lot for role in fleet(60, ())})}


def test_a_wish_gives_healthy_devices_a_scenario() -> None:
    roles = fleet(200, (), [wish("3:gel-dry-out"), wish("lot:L03-26:unit-bug"), wish("fw:2.1.7:7")])
    by_key = defaultdict(list)
    for role in roles:
        by_key[role.scenario.key].append(role)
    assert 3 == len(by_key["gel-dry-out"])
    assert {"L03-26"} == {role.lot for role in by_key["unit-bug"]}
    assert [] == [role for role in by_key["healthy"] if role.lot == "L03-26" or role.fw == "2.1.7"]
    assert {TONEDUO} == {role.model for role in by_key["latch-up"]}
    assert 200 == len(roles) == len({role.device_id for role in roles})


def test_only_the_models_asked_for_are_there_save_where_a_scenario_needs_another() -> None:
    roles = fleet(20, chosen("4,7"), [wish("2:edge-contact")], models=("ursa-adapt-10",))
    assert {"lumabar-s15": 1, "toneduo-400": 1, "tonetip-e": 2, "ursa-adapt-10": 16} == {
        model: sum(role.model == model for role in roles) for model in sorted({role.model for role in roles})
    }


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("3:gel-dry-out", Wish(BY_KEY["gel-dry-out"], count=3)),
        ("12:5", Wish(BY_KEY["gel-dry-out"], count=12)),
        ("lot:L03-26:unit-bug", Wish(BY_KEY["unit-bug"], lot="L03-26")),
        ("fw:2.3.1:latch-up", Wish(BY_KEY["latch-up"], fw="2.3.1")),
    ],
)
def test_a_wish_is_read_from_words(text: str, read: Wish) -> None:
    assert read == wish(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("gel-dry-out", "a colon and the scenario"),
        ("3:", "a colon and the scenario"),
        ("3:gel-dryout", "no scenario gel-dryout; did you mean gel-dry-out"),
        ("0:gel-dry-out", "'0' is neither a number of devices"),
        ("lot::gel-dry-out", "'lot:' is neither a number of devices"),
        ("3:999", "no scenario 999"),
    ],
)
def test_a_wish_that_cannot_be_read_says_why(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        wish(text)


@pytest.mark.parametrize(
    ("devices", "words", "models", "wrong"),
    [
        (10, "lot:L09-26:unit-bug", MODELS, "no lot L09-26 in a fleet of 10; there are L00-26, L01-26"),
        (10, "fw:9.9:unit-bug", MODELS, "no firmware 9.9 in a fleet of 10"),
        (10, "11:unit-bug", MODELS, "11:unit-bug needs 11 healthy devices and 10 are left"),
        (10, "1:unit-bug", ("toneduo",), "no model toneduo; known are lumabar-s15"),
    ],
)
def test_a_fleet_that_cannot_be_made_says_why(devices: int, words: str, models: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        fleet(devices, (), [wish(words)], models)


def test_scenarios_are_chosen_by_word_number_or_key() -> None:
    assert (QUICK, FAULTS, ()) == (chosen("all"), chosen("faults"), chosen("none"))
    assert (find("7"), find("gel-dry-out")) == chosen("7, gel-dry-out")
    with pytest.raises(ValueError, match="no scenario 99;"):
        chosen("1,99")
    with pytest.raises(ValueError, match="no scenario x;"):
        chosen("1,x")


# -- what it sends ------------------------------------------------------------------------------


def test_arrivals_come_in_order_of_arrival_each_message_complete_and_repeated_only_by_the_path() -> None:
    life = generate(fleet(70), PROFILES, start_ms=START_MS, duration_s=900, digests=True)
    arrivals = list(life)
    times = [arrival.received_ms for arrival in arrivals]
    assert times == sorted(times)
    seen: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for arrival in arrivals:
        assert (arrival.device_id, arrival.stream) == parse_uplink(arrival.topic)
        envelope = orjson.loads(arrival.payload)
        seen[arrival.device_id, envelope["boot_id"], envelope["seq"]].add(digest(arrival.payload))
    truth = life.truth
    assert {(m.device_id, m.boot_id, m.seq): {m.sha256} for m in truth.messages} == seen
    assert truth.end is not None
    assert (truth.end.messages, truth.end.messages + truth.end.resent) == (len(seen), len(arrivals))
    assert truth.end.resent > 0


def test_nothing_but_what_a_device_forgets_is_lost() -> None:
    gaps: dict[str, int] = defaultdict(int)
    seqs: dict[tuple[str, int], set[int]] = defaultdict(set)
    for arrival in generate(fleet(70), PROFILES, start_ms=START_MS, duration_s=600):
        envelope = orjson.loads(arrival.payload)
        seqs[arrival.device_id, envelope["boot_id"]].add(envelope["seq"])
    for (device_id, _), found in seqs.items():
        gaps[device_id] += max(found) + 1 - len(found)
    losing = {role.device_id for role in fleet(70) if role.scenario.path.dropped}
    assert losing == {device_id for device_id, lost in gaps.items() if lost}


def test_a_birth_is_the_first_message_of_each_boot_to_arrive() -> None:
    first: dict[tuple[str, int], tuple[Stream, int]] = {}
    for arrival in generate([*fleet(1, [find("brown-outs")])], PROFILES, start_ms=START_MS, duration_s=3 * 3_600):
        envelope = orjson.loads(arrival.payload)
        first.setdefault((arrival.device_id, envelope["boot_id"]), (arrival.stream, envelope["seq"]))
    assert len(first) > 4
    assert {(Stream.STATUS, 0)} == set(first.values())


def test_the_same_seed_gives_the_same_bytes_and_the_same_truth() -> None:
    def lived(seed: int) -> tuple[list, Truth]:
        life = generate(fleet(70), PROFILES, seed, start_ms=START_MS, duration_s=400, digests=True)
        return list(life), life.truth

    assert lived(1) == lived(1)
    assert lived(1)[0] != lived(2)[0]


def test_a_week_of_idle_devices_takes_few_messages() -> None:
    arrivals = list(generate(fleet(20, ()), PROFILES, start_ms=START_MS, duration_s=7 * DAY_S))
    idle = [arrival for arrival in arrivals if b'"session_id":null' in arrival.payload]
    sessions = {orjson.loads(arrival.payload)["session_id"] for arrival in arrivals} - {None}
    assert len(sessions) > 60
    assert len(idle) < 14 * len(sessions)


def test_a_defect_of_a_lot_is_a_cluster_of_that_lot_and_of_no_firmware() -> None:
    roles = fleet(200, (), [wish("6:lot-defect")])
    defect = [role for role in roles if role.scenario.key == "lot-defect"]
    assert ({"L77-26"}, 6) == ({role.lot for role in defect}, len(defect))
    life = generate(defect + roles[30:60], PROFILES, start_ms=START_MS, duration_s=6.5 * DAY_S)
    for _ in life:
        pass
    found = life.truth.expectations
    assert 6 == sum(e.rule == "current-density" for e in found)
    of_fleet = [e for e in found if e.device_id == FLEET]
    assert [("fleet-cluster", True)] == [(e.rule, e.required) for e in of_fleet]
    third = sorted(e.onset_ms for e in found if e.rule == "current-density")[2]
    assert abs(of_fleet[0].onset_ms - third) < 5_000


def test_a_busy_fleet_expects_the_over_use_that_it_causes() -> None:
    life = generate(fleet(10, ()), PROFILES, start_ms=START_MS, duration_s=5_400, rhythm=Rhythm.BUSY)
    for _ in life:
        pass
    assert {"daily-overuse"} == {e.rule for e in life.truth.expectations}
    assert len({e.device_id for e in life.truth.expectations}) > 5
