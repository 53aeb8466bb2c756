"""A session in the store: its derived figures, the alerts said of it, and one place for good."""

from pathlib import Path
from typing import Any

import pytest

from ingest.mqtt import Delivery
from ingest.safety.figures import symmetry, zone_coverage
from schemas.messages import Zone
from schemas.sessions import ZONE_TARGET_S
from schemas.topics import Stream
from tests.agreement import told_agrees
from tests.line import DEVICE, MODEL, PROFILES, START_MS, Line, deliver, message, pulse
from tests.unit.test_sessions import Session, heard, plain

HOUR_S = 3_600
LATE_S = 1_000


def late(deliveries: list[Delivery], by_s: float = LATE_S) -> list[Delivery]:
    return [each._replace(received_ms=START_MS + round(1000 * by_s)) for each in deliveries]


def told(line: Line) -> dict[str, dict[str, Any]]:
    """Session → fields, as a store that merges points has them. No session is there twice."""
    kept = line.kept("session")
    by_session = {fields["session_id"]: fields for fields in kept.values()}
    assert len(by_session) == len(kept)
    told_agrees(line)
    return by_session


def alerts_of(fields: dict[str, Any]) -> dict[str, int]:
    return {name.removeprefix("alerts_"): count for name, count in fields.items() if name.startswith("alerts_")}


NONE = {"critical": 0, "warning": 0, "info": 0}
SURGE = {"i_peak_ua": 900.0, "v_peak_mv": 3_600.0}
SPIKE = {**NONE, "critical": 1, "overcurrent_peak": 1}


def spike(at_s: float, seq: int, late_s: float = 0.1) -> Delivery:
    at_ms = START_MS + round(1000 * at_s)
    payload = message(Stream.CURRENT, seq, at_ms, **SURGE)
    return deliver(Stream.CURRENT, payload, at_ms + round(1000 * late_s))


# -- derived figures ------------------------------------------------------------------------------------


def profile_of(model: str) -> Any:
    return PROFILES.for_model(model)


@pytest.mark.parametrize("profile", PROFILES.all, ids=lambda p: p.id)
def test_a_zone_that_a_model_must_not_treat_is_no_target(profile: Any) -> None:
    assert set(profile.zone_targets_s) == {z for z in ZONE_TARGET_S if z.value not in profile.zones_forbidden}


def test_what_is_forbidden_everywhere_or_only_opted_for_is_nobodys_target() -> None:
    bases = {zone.removesuffix("_l").removesuffix("_r") for zone in ZONE_TARGET_S}
    assert bases == {"forehead", "brow", "cheek", "nasolabial", "jaw", "side_neck"}
    assert Zone.SIDE_NECK_L not in profile_of("ursa-adapt-10").zone_targets_s


@pytest.mark.parametrize(("model", "whole_s"), [(MODEL, 300.0), ("ursa-adapt-10", 180.0), ("lumabar-s15", 1_230.0)])
def test_a_quick_program_scales_all_targets_to_its_length_and_a_long_one_none(model: str, whole_s: float) -> None:
    targets_s = profile_of(model).zone_targets_s
    assert sum(targets_s.values()) == pytest.approx(whole_s)
    assert targets_s[Zone.CHEEK_L] / targets_s[Zone.JAW_R] == pytest.approx(210 / 75)
    assert (targets_s == ZONE_TARGET_S) is (model == "lumabar-s15")


@pytest.mark.parametrize(
    ("zone_s", "expected"),
    [({}, 0.0), ({"cheek_l": 30.0}, 0.25), ({"cheek_l": 500.0}, 0.75), ({"cheek_l": 90.0, "jaw_l": 15.0}, 0.875),
     ({"cheek_l": 90.0, "jaw_l": 30.0, "temple": 500.0, "unassigned": 500.0}, 1.0)],
)  # fmt: skip
def test_zone_coverage_weighs_each_target_by_its_length_and_counts_it_at_most_once(zone_s: dict[str, float], expected: float) -> None:
    assert zone_coverage(zone_s, {Zone.CHEEK_L: 90.0, Zone.JAW_L: 30.0}) == expected
    assert zone_coverage(zone_s, {}) is None


@pytest.mark.parametrize(
    ("zone_s", "expected"),
    [({}, None), ({"cheek_l": 15.0, "cheek_r": 14.999}, None), ({"cheek_l": 15.0, "jaw_r": 15.0}, 1.0), ({"cheek_l": 40.0}, 0.0),
     ({"cheek_l": 30.0, "cheek_r": 10.0}, 0.5), ({"cheek_r": 30.0, "cheek_l": 10.0, "forehead": 900.0}, 0.5)],
)  # fmt: skip
def test_symmetry_compares_left_and_right_of_at_least_thirty_seconds(zone_s: dict[str, float], expected: float | None) -> None:
    assert symmetry(zone_s) == expected


def test_a_session_is_told_with_what_follows_from_its_figures(tmp_path: Path) -> None:
    session = Session().run(0, zone="cheek_l").flow(0, 40).run(40, zone="cheek_r").flow(40, 60).end(60)
    with Line(tmp_path) as line:
        fields = told(heard(line, session))["s-1"]
        assert {name: fields[name] for name in ("sessions", "completions", "stopped_by_user", "zone_coverage", "symmetry", "intensity_part")} == {
            "sessions": 1, "completions": 0, "stopped_by_user": 1, "zone_coverage": pytest.approx((40 + 20) / 300), "symmetry": pytest.approx(1 - 20 / 60),
            "intensity_part": pytest.approx(141 / (400 * 0.5**0.5)),
        }  # fmt: skip
        assert alerts_of(fields) == NONE


def test_a_session_that_was_completed_is_told_as_such(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fields = told(heard(line, plain(300, "completed")))["s-1"]
        assert (fields["completions"], fields["stopped_by_user"]) == (1, 0)


def test_what_is_not_known_of_a_session_is_absent(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 10).end(10)
    session.sent = [d._replace(payload=d.payload.replace(b"toneduo-400", b"unheard-of")) for d in session.sent]
    with Line(tmp_path) as line:
        fields = told(heard(line, session))["s-1"]
        assert {"zone_coverage", "symmetry", "intensity_part"} & set(fields) == set()


# -- alerts ---------------------------------------------------------------------------------------------


def test_the_alerts_of_a_session_are_counted_at_its_end(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 15).flow(15, 16, **SURGE).flow(16, 60).end(60)
    with Line(tmp_path) as line:
        line.run(*session.sent[:-1]).run(pulse(START_MS + 60_000))
        assert (line.alerts() != [], line.points("session")) == (True, [])
        line.run(session.sent[-1]).run(pulse(START_MS + 500_000))
        assert alerts_of(told(line)["s-1"]) == SPIKE


def test_an_alert_that_opens_after_the_session_was_told_is_counted(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        heard(line, plain(60))
        assert alerts_of(told(line)["s-1"]) == NONE
        line.run(spike(30.5, 122, late_s=LATE_S)).run(pulse(START_MS + 2_000_000))
        assert alerts_of(told(line)["s-1"]) == SPIKE


def test_an_alert_on_a_refused_message_counts_for_the_session_that_it_names(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        heard(line, plain(60))
        broken = message(Stream.CURRENT, 500, START_MS + 30_000, i_peak_ua=900.0)[:-1]
        line.run(deliver(Stream.CURRENT, broken, START_MS + 2_000_000)).run(pulse(START_MS + 3_000_000))
        assert alerts_of(told(line)["s-1"]) == SPIKE


def test_an_alert_that_is_taken_back_is_counted_no_longer(tmp_path: Path) -> None:
    """The spike at 4 s came first; one at 2 s makes it part of another alert."""
    with Line(tmp_path) as line:
        running, earlier, spike, end = Session().run(0).say(Stream.CURRENT, 2, **SURGE).say(Stream.CURRENT, 4, **SURGE).end(5).sent
        line.run(running, spike).run(end).run(pulse(START_MS + 100_000))
        assert alerts_of(told(line)["s-1"]) == SPIKE
        line.run(*late([earlier], 120)).run(pulse(START_MS + 2_000_000))
        assert sorted(a["state"] for a in line.alerts()) == ["closed", "withdrawn"]
        assert alerts_of(told(line)["s-1"]) == SPIKE


def test_the_last_alert_of_a_rule_that_is_taken_back_leaves_a_zero_behind(tmp_path: Path) -> None:
    """A store that merges fields would keep what is merely left out. Six of 66 messages never came; then they do."""
    session = plain(30)
    lost, kept = session.sent[20:26], session.sent[:20] + session.sent[26:]
    with Line(tmp_path) as line:
        line.run(*kept).run(pulse(START_MS + 500_000))
        assert alerts_of(told(line)["s-1"]) == {**NONE, "info": 1, "telemetry_gap": 1}
        line.run(*late(lost)).run(pulse(START_MS + 2_000_000))
        assert alerts_of(told(line)["s-1"]) == {**NONE, "telemetry_gap": 0}


def daily(line: Line, sessions: int) -> Line:
    """Sessions of 90 s, an hour apart: the fourth within a day is too many."""
    for n in range(sessions):
        session = Session(f"s-{n}", seq=1_000 * n).run(n * HOUR_S).flow(n * HOUR_S, n * HOUR_S + 90).end(n * HOUR_S + 90)
        line.run(*session.sent)
    return line.run(pulse(START_MS + 1000 * (sessions + 1) * HOUR_S))


def test_an_alert_on_the_devices_history_counts_for_the_session_in_which_it_showed(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        by_session = {name: alerts_of(fields) for name, fields in told(daily(line, 4)).items()}
        assert by_session == {**{f"s-{n}": NONE for n in range(3)}, "s-3": {**NONE, "info": 1, "daily_overuse": 1}}


def test_an_earlier_session_that_comes_late_makes_an_alert_of_a_later_one(tmp_path: Path) -> None:
    first = Session("s-first", boot_id=3).run(-HOUR_S).flow(-HOUR_S, 90 - HOUR_S).end(90 - HOUR_S)
    with Line(tmp_path) as line:
        assert alerts_of(told(daily(line, 3))["s-2"]) == NONE
        line.run(*late(first.sent, 5 * HOUR_S)).run(pulse(START_MS + 6_000 * HOUR_S))
        assert alerts_of(told(line)["s-2"]) == {**NONE, "info": 1, "daily_overuse": 1}


def test_what_happens_outside_of_sessions_counts_for_none(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        idle = spike(-100, 122).payload.replace(b'"session_id":"s-1"', b'"session_id":null')
        line.run(deliver(Stream.CURRENT, idle, START_MS - 100_000), pulse(START_MS))
        heard(line, plain(60))
        assert [(a["rule"], a["session_id"]) for a in line.alerts()] == [("overcurrent-peak", None)]
        assert alerts_of(told(line)["s-1"]) == NONE


# -- one place ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_an_earlier_start_that_shows_late_does_not_make_a_second_session(tmp_path: Path, restarted: bool) -> None:
    session = plain(60)
    first, rest = session.sent[:41], session.sent[41:]
    with Line(tmp_path) as line:
        line.run(*rest).run(pulse(START_MS + 500_000))
        ((tags, time_ns),) = line.kept("session")
        if restarted:
            line.restart()
        line.run(*late(first)).run(pulse(START_MS + 2_000_000))
        (fields,) = told(line).values()
        assert list(line.kept("session")) == [(tags, time_ns)]
        assert time_ns // 10**6 > START_MS == fields["started_ms"]
        assert (fields["sessions"], fields["effective_s"], fields["messages"]) == (1, 60.0, 122)


def test_firmware_that_changes_within_a_session_does_not_make_a_second_one(tmp_path: Path) -> None:
    session = plain(60)
    after = Session(boot_id=8).run(70).flow(70, 90).end(90)
    after.sent = [d._replace(payload=d.payload.replace(b'"fw":"2.3.1"', b'"fw":"2.4.0"')) for d in after.sent]
    with Line(tmp_path) as line:
        line.run(*session.sent).run(pulse(START_MS + 500_000))
        line.run(*late(after.sent)).run(pulse(START_MS + 2_000_000))
        (fields,) = told(line).values()
        assert ([tags for tags, _ in line.kept("session")], fields["effective_s"]) == ([(DEVICE, MODEL, "2.3.1")], 80.0)


def test_time_that_late_data_move_to_another_zone_is_not_counted_in_both(tmp_path: Path) -> None:
    session = Session().flow(0, 30).end(30)
    where = Session(seq=session.seq).run(0, zone="jaw_l")
    with Line(tmp_path) as line:
        line.run(*session.sent).run(pulse(START_MS + 500_000))
        assert told(line)["s-1"]["zone_unassigned_s"] == 30.0
        line.run(*late(where.sent)).run(pulse(START_MS + 2_000_000))
        fields = told(line)["s-1"]
        assert (fields["zone_jaw_l_s"], fields["zone_unassigned_s"]) == (30.0, 0.0)


def test_a_session_that_fell_silent_is_told_anew_when_its_lost_messages_come(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 60)
    with Line(tmp_path) as line:
        line.run(*session.sent[:41], *session.sent[45:]).run(pulse(START_MS + 500_000))
        assert told(line)["s-1"]["effective_s"] == 58.0
        line.run(*late(session.sent[41:45])).run(pulse(START_MS + 2_000_000))
        assert told(line)["s-1"]["effective_s"] == 60.0


def test_a_session_of_which_nothing_has_changed_is_not_told_again(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*plain(60).sent).run(pulse(START_MS + 75_000))
        assert len(line.points("session")) == 1
        line.run(pulse(START_MS + 500_000), *plain(60).sent).run(pulse(START_MS + 600_000)).restart().run(pulse(START_MS + 700_000))
        assert len(line.points("session")) == 1
