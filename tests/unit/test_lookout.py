"""What the core sees of the line itself, with its real journal: each cause, what mutes it, and what is put on record."""

from pathlib import Path
from typing import Any

import pytest

from ingest.backlog import Backlog
from ingest.canary import Canary, Stage, look_at, message
from ingest.errors import Unavailable
from ingest.lookout import LOOK_S, STORE_BEHIND_S, Lag, Sight
from ingest.mqtt import Delivery
from ingest.pressure import Level, Pressure
from ingest.pulse import CANARY_PREFIX
from ingest.safety.line import HOLD_S, Cause
from ingest.sink import NotReadable
from schemas import topics
from schemas.limits import GAP_MS, LATENESS_MS
from schemas.measurements import Point
from schemas.security import SecurityKind
from schemas.topics import Stream
from tests.line import PROFILES, START_MS, Line, deliver, pulse
from tests.line import message as said

S = 1_000
WELL = Sight(True, "", False, None, True, "")
OWN = topics.uplink("ingest-test", Stream.RUNTIME).encode()


class Seeing:
    """A line whose time passes second by second, with a pulse in each that can be heard. `sight` is what it is shown."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.sight = WELL
        self.pulses = True
        self.base_s = line.core.lookout.now_s()
        self.passed_s = 0.0
        self.wall_ms: int | None = None
        self.open_eyes()

    def open_eyes(self) -> None:
        lookout = self.line.core.lookout
        lookout.now_s = lambda: self.base_s + self.passed_s
        lookout.see = lambda: self.sight
        lookout._awake_s = self.base_s + self.passed_s

    def wait(self, seconds: float, pace_s: float = 1.0) -> "Seeing":
        end_s = self.passed_s + seconds
        while self.passed_s < end_s:
            self.passed_s = min(end_s, self.passed_s + pace_s)
            self.line.clock.ms += round(pace_s * S)
            self.line.run(*([pulse(self.line.clock.ms)] if self.pulses else []))
            self.store()
        return self

    def store(self) -> None:
        if self.sight.store_ok:
            entries = self.line.journal.outbox_after(0, 100_000)
            if entries:
                self.line.settle(entries)

    def lose(self, **how: Any) -> "Seeing":
        self.sight = self.sight._replace(**how)
        return self

    @property
    def blind(self) -> list[tuple[str, str]]:
        """(event, state) of what was said of blindness."""
        return [
            (event["event"], event["alert"]["state"])
            for alert in self.line.alerts(rule="pipeline-blind")
            for event in self.line.journal.events(alert["id"])
        ]

    @property
    def causes(self) -> set[Cause]:
        return {span.cause for span in self.line.core.lookout.blindness.causes}


@pytest.fixture
def seeing(tmp_path: Path) -> Any:
    with Line(tmp_path) as line:
        yield Seeing(line)


# -- causes -------------------------------------------------------------------------------------------


def test_a_line_that_sees_says_nothing_however_long(seeing: Seeing) -> None:
    seeing.wait(300)
    assert seeing.line.alerts() == []


@pytest.mark.parametrize(
    ("lost", "cause"),
    [
        ({"broker_connected": False}, Cause.BROKER_AWAY),
        ({"broker_connected": False, "subscription_refused": True}, Cause.SUBSCRIPTION_REFUSED),
        ({"store_ok": False}, Cause.STORE_AWAY),
    ],
    ids=str,
)
def test_what_a_neighbour_does_not_do_is_one_cause_and_all_that_follows_from_it_is_none(seeing: Seeing, lost: dict, cause: Cause) -> None:
    seeing.wait(5)
    seeing.pulses = "broker_connected" not in lost
    seeing.lose(**lost).wait(HOLD_S - 1)
    assert seeing.blind == []
    seeing.wait(600)
    assert (seeing.blind, seeing.causes) == ([("opened", "open")], {cause})
    seeing.sight, seeing.pulses = WELL, True
    seeing.wait(2 * HOLD_S)
    assert (seeing.blind[-1], seeing.causes) == (("closed", "closed"), set())
    assert [event for event, _ in seeing.blind].count("opened") == 1


def test_own_messages_that_do_not_come_back_are_a_cause(seeing: Seeing) -> None:
    seeing.wait(5)
    seeing.pulses = False
    seeing.wait(HOLD_S + 4)
    assert seeing.causes == {Cause.PULSES_LOST}


def test_a_backlog_that_is_not_judged_is_a_cause(seeing: Seeing) -> None:
    seeing.wait(5)
    core = seeing.line.core
    core._take_own = lambda deliveries: setattr(core, "_pulse", (core.clock.now_ms(), core.lookout.now_s()))  # they come, and wait
    seeing.wait(HOLD_S + 4)
    assert seeing.causes == {Cause.JUDGING_BEHIND}


def test_a_device_whose_messages_wait_for_their_turn_too_long_is_named(seeing: Seeing, monkeypatch: pytest.MonkeyPatch) -> None:
    seeing.wait(5)
    with monkeypatch.context() as patch:
        patch.setattr(Backlog, "_of_aside", lambda *_: [])  # there is always more to accept
        seeing.line.feed.waiting.extend(deliver(Stream.CURRENT, said(Stream.CURRENT, seq), device="noisy") for seq in range(500))
        seeing.wait(HOLD_S - 2)
        assert seeing.blind == []
        seeing.wait(4)
    assert seeing.causes == {Cause.JUDGING_BEHIND}
    (alert,) = seeing.line.alerts(rule="pipeline-blind")
    assert "dangers in them are not known (480 of noisy wait)" in alert["detail"]
    seeing.wait(2 * HOLD_S)
    assert (seeing.blind[-1], seeing.line.journal.aside) == (("closed", "closed"), 0)


def test_a_broker_that_lost_the_session_is_told_once_with_the_time_of_which_messages_may_be_missing(seeing: Seeing) -> None:
    seeing.wait(5)
    heard_ms = seeing.line.clock.ms
    seeing.pulses = False
    seeing.lose(broker_connected=False).wait(10)
    seeing.pulses = True
    seeing.lose(broker_connected=True, session_lost_ms=seeing.line.clock.ms).wait(200)
    (alert,) = seeing.line.alerts(rule="pipeline-blind")
    assert (alert["onset_ms"], alert["state"], alert["closed_ms"] - heard_ms) == (heard_ms, "closed", 11 * S)
    assert [event for event, _ in seeing.blind] == ["opened", "closed"]


def test_a_store_that_falls_behind_is_a_cause_though_it_takes_writes(seeing: Seeing) -> None:
    seeing.wait(5)
    seeing.store = lambda: None
    seeing.wait(STORE_BEHIND_S - 2)
    assert seeing.blind == []
    seeing.wait(15)
    assert seeing.causes == {Cause.STORE_BEHIND}


def test_while_the_disk_is_full_pressure_speaks_and_pulses_that_stay_away_are_no_cause(seeing: Seeing) -> None:
    seeing.wait(5)
    seeing.pulses = False
    seeing.line.core.disk.pressure = Pressure(level=Level.STOPPED, detail="the disk is full")
    seeing.wait(100)
    assert [(a["rule"], a["severity"], a["state"], a["value"], a["detail"]) for a in seeing.line.alerts()] == [
        ("storage-pressure", "critical", "open", 2.0, "the disk is full")
    ]
    seeing.line.core.disk.pressure, seeing.pulses = Pressure(level=Level.HIGH), True
    seeing.wait(5)
    seeing.line.core.disk.pressure = Pressure()
    seeing.wait(60)
    assert [(a["rule"], a["severity"], a["state"]) for a in seeing.line.alerts()] == [("storage-pressure", "critical", "closed")]


def test_a_worker_that_stood_still_says_so_and_begins_to_count_anew(seeing: Seeing) -> None:
    seeing.wait(5)
    seeing.wait(100, pace_s=100)
    assert [(event, state) for event, state in seeing.blind] == [("opened", "open")]
    assert seeing.causes == set()
    (alert,) = seeing.line.alerts()
    assert "no worker watched" in alert["detail"] and alert["value"] == 100.0
    seeing.wait(HOLD_S + 2)
    assert seeing.blind[-1] == ("closed", "closed")


@pytest.mark.parametrize("away_s", [HOLD_S - 11, HOLD_S + 1, 3_600])
def test_after_a_restart_the_time_without_a_worker_is_told(tmp_path: Path, away_s: float) -> None:
    with Line(tmp_path) as line:
        seeing = Seeing(line).wait(30)
        before_ms = line.clock.ms
        line.clock.ms += round(away_s * S)
        line.journal.close()
        line._open()
        seeing.open_eyes()
        line.core.lookout.wall_ms = line.clock.now_ms
        line.core.lookout._offset_ms = None
        seeing.wait(3)
        told = [(a["state"], "it had been stopped" in a["detail"]) for a in line.alerts(rule="pipeline-blind")]
        assert told == ([("open", True)] if away_s > HOLD_S else [])
        if told:
            (alert,) = line.alerts()
            assert 0 <= before_ms - alert["onset_ms"] <= 10 * S


def test_an_alert_that_stood_at_the_end_of_a_worker_is_closed_by_the_next(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        seeing = Seeing(line).wait(5)
        seeing.pulses = False
        seeing.lose(broker_connected=False).wait(HOLD_S + 5)
        line.journal.close()
        line._open()
        seeing.open_eyes()
        seeing.sight, seeing.pulses = WELL, True
        seeing.wait(HOLD_S + 5)
        (alert,) = line.alerts(rule="pipeline-blind")
        assert (alert["state"], [event for event, _ in seeing.blind]) == ("closed", ["opened", "updated", "closed"])


def test_what_a_person_said_of_it_stays_when_it_goes_on(seeing: Seeing) -> None:
    seeing.lose(store_ok=False).wait(HOLD_S + 5)
    (alert,) = seeing.line.alerts()
    seeing.line.write(lambda: seeing.line.core.acts.acknowledge(alert["id"], "Dr. Ohm", "the store is being moved"))
    seeing.sight = WELL
    seeing.wait(HOLD_S + 20)
    (alert,) = seeing.line.alerts()
    assert (alert["state"], alert["acknowledged"]["by"]) == ("closed", "Dr. Ohm")


def test_it_is_told_like_any_alert(seeing: Seeing) -> None:
    """On its topic, to the store, in the counts; and it is no device's."""
    seeing.store = lambda: None
    seeing.lose(store_ok=False).wait(HOLD_S + 12)
    line, name = seeing.line, seeing.line.core.name
    assert [(t, e["event"], e["alert"]["rule"]) for t, e in line.feed.said if t.endswith("/alert")] == [
        (topics.alert(name), "opened", "pipeline-blind")
    ]
    (point,) = line.points("alert")
    assert point.tags == (name, "all", "all", "pipeline-blind")
    assert [p.fields["blind"] for p in line.points("pipeline")][-1] == 1
    assert line.points("fleet") == [] and name not in line.core.devices


# -- the fleet ----------------------------------------------------------------------------------------


def speak(seeing: Seeing, devices: int, run_state: str = "running", seq: list[int] = [0]) -> None:  # noqa: B006
    seq[0] += 1
    now_ms = seeing.line.clock.ms
    device_ms = START_MS + round(seeing.passed_s * S)  # its clock is not ours
    for n in range(devices):
        payload = said(Stream.RUNTIME, seq[0], device_ms, run_state=run_state, envelope_={"session_id": f"s-{n}"})
        seeing.line.run(deliver(Stream.RUNTIME, payload, now_ms, f"tone-{n}"))


@pytest.mark.parametrize(("devices", "run_state", "told"), [(3, "running", True), (2, "running", False), (3, "ended", False)])
def test_several_devices_in_use_that_fall_silent_together_are_a_cause(seeing: Seeing, devices: int, run_state: str, told: bool) -> None:
    for _ in range(20):
        seeing.wait(5)
        speak(seeing, devices, run_state)
    seeing.wait(49)
    assert seeing.causes == set()
    seeing.wait(5)
    assert seeing.causes == ({Cause.FLEET_SILENT} if told else set())
    seeing.wait(60)
    if told:
        speak(seeing, 1)
        seeing.wait(HOLD_S + 15)
        (alert,) = seeing.line.alerts(rule="pipeline-blind")
        assert (alert["state"], "no device is heard" in alert["detail"]) == ("closed", True)


# -- what waits for the store -------------------------------------------------------------------------


def test_the_age_of_what_waits_needs_no_clock_on_the_wall() -> None:
    lag = Lag()
    assert [lag.age_s(0.0, None, 5), lag.age_s(1.0, 6, 6), lag.age_s(2.0, 6, 9), lag.age_s(3.0, 7, 9), lag.age_s(9.0, 10, 10)] == [0.0, 0.0, 1.0, 1.0, 0.0]
    for n in range(10_000):
        lag.age_s(10.0 + n, 11, 11 + n)
    assert lag.age_s(10_010.0, 11, 10_011) == 10_000.0
    assert len(lag._marks) <= 2_000 + 1


# -- security -----------------------------------------------------------------------------------------


def identity_mismatch(seeing: Seeing, seq: int = 1) -> None:
    payload = said(Stream.RUNTIME, seq, seeing.line.clock.ms, envelope_={"device_id": "tone-9"})
    seeing.line.run(deliver(Stream.RUNTIME, payload, seeing.line.clock.ms))


def test_a_message_that_names_another_device_is_on_record_counted_and_told_in_the_same_step(seeing: Seeing) -> None:
    identity_mismatch(seeing)
    assert seeing.line.reasons() == ["identity_mismatch"]
    (event,) = seeing.line.journal.security_events()
    assert (event["kind"], event["who"], event["times"]) == ("identity_mismatch", "tone-1", 1)
    (alert,) = seeing.line.alerts()
    assert (alert["rule"], alert["severity"], alert["device_id"]) == ("security-event", "warning", seeing.line.core.name)
    seeing.store = lambda: None
    seeing.wait(12)
    assert [(p.tags, p.fields) for p in seeing.line.points("security")] == [((seeing.line.core.name, "all", "all", "identity_mismatch"), {"events": 1})]


def test_events_are_on_record_by_who_and_hour_and_bounded(seeing: Seeing) -> None:
    log, journal = seeing.line.core.security, seeing.line.journal
    for n in range(3):
        log.note(SecurityKind.AUTH_FAILURE, START_MS + n * S, "dev-1", "10.0.0.1", "wrong password")
        log.note(SecurityKind.AUTH_FAILURE, START_MS + n * S, "dev-2", "10.0.0.1", "wrong password")
        seeing.wait(2)
    log.note(SecurityKind.AUTH_FAILURE, START_MS + 2 * 3_600 * S, "dev-1", "10.0.0.1", "again")
    seeing.wait(2)
    assert [(e["who"], e["times"], e["detail"]) for e in journal.security_events()] == [("dev-1", 1, "again"), ("dev-2", 3, "wrong password"), ("dev-1", 3, "wrong password")]
    assert journal.security_by_kind() == {"auth_failure": 7}


def test_the_workers_own_name_at_the_broker_is_not_told(seeing: Seeing) -> None:
    seeing.line.core.security.note(SecurityKind.TAKEOVER, START_MS, "ingest-test", "10.0.0.1", "ingest-test was connected twice")
    seeing.wait(2)
    (alert,), (event,) = seeing.line.alerts(), seeing.line.journal.security_events()
    assert alert["severity"] == "critical"
    assert "ingest-test" not in str(alert) + str(event)


def test_what_was_said_of_the_line_is_forgotten_when_it_is_old_and_over(seeing: Seeing) -> None:
    journal = seeing.line.journal
    identity_mismatch(seeing)
    seeing.lose(store_ok=False).wait(HOLD_S + 2)
    seeing.line.write(lambda: journal.forget_line(seeing.line.clock.ms + 10 * S))
    assert journal.security_events() == []
    assert len(seeing.line.alerts()) == 2  # both stand
    seeing.sight = WELL
    seeing.wait(HOLD_S + 20)
    seeing.line.write(lambda: journal.forget_line(seeing.line.clock.ms + 10 * S))
    assert [a["rule"] for a in seeing.line.alerts()] == ["security-event"]


def test_a_worker_whose_place_was_taken_says_so_each_time(seeing: Seeing) -> None:
    seeing.wait(2).lose(times_taken_over=2).wait(3)
    (alert,), (event,) = seeing.line.alerts(), seeing.line.journal.security_events()
    assert (alert["rule"], alert["severity"], event["kind"], event["times"]) == ("security-event", "critical", "takeover", 2)


# -- the clock ----------------------------------------------------------------------------------------


def test_a_clock_that_is_set_is_a_security_event_and_one_that_drifts_is_none(seeing: Seeing) -> None:
    seeing.line.core.lookout.wall_ms = lambda: seeing.line.clock.ms
    for _ in range(30):
        seeing.line.clock.ms += 900
        seeing.wait(LOOK_S)
    assert seeing.line.alerts() == []
    seeing.line.clock.ms += 3_600 * S
    seeing.wait(2)
    (alert,) = seeing.line.alerts()
    assert (alert["rule"], "set forward by 3600.0 s" in alert["detail"]) == ("security-event", True)


@pytest.mark.parametrize("step_s", [3_600, -3_600])
def test_a_clock_that_is_set_by_an_hour_ends_no_silence_early_and_none_late(seeing: Seeing, step_s: int) -> None:
    """A device that goes on is not called silent, and one that falls silent is, in its usual time."""
    seeing.line.core.lookout.wall_ms = lambda: seeing.line.clock.ms
    for _ in range(10):
        seeing.wait(5)
        speak(seeing, 2)
    seeing.line.clock.ms += step_s * S
    for _ in range(60):
        seeing.wait(5)
        speak(seeing, 1)
        assert [a["device_id"] for a in seeing.line.alerts(rule="telemetry-gap", severity="warning") if a["device_id"] == "tone-0"] == []
    silent = [a["device_id"] for a in seeing.line.alerts(rule="telemetry-gap", severity="warning")]
    assert silent == ["tone-1"], (GAP_MS, LATENESS_MS)


def test_a_pulse_of_another_hour_is_not_believed_before_the_clock_was_looked_at(seeing: Seeing) -> None:
    """It comes before the next look of the lookout is due."""
    seeing.line.core.lookout.wall_ms = lambda: seeing.line.clock.ms
    for _ in range(5):
        seeing.wait(5)
        speak(seeing, 2)
    seeing.wait(1)
    seeing.line.clock.ms += 3_600 * S
    seeing.line.run(pulse(seeing.line.clock.ms))
    assert seeing.line.alerts(rule="telemetry-gap") == []


def test_after_a_step_of_days_nothing_is_deleted(seeing: Seeing) -> None:
    line = seeing.line
    line.core.lookout.wall_ms = lambda: line.clock.ms
    speak(seeing, 1)
    seeing.wait(20)
    line.clock.ms += 400 * 86_400 * S
    seeing.wait(30)
    assert line.journal.kept_since_ms() is not None and line.journal._scalar("SELECT count(*) FROM raw") == 1


def test_after_a_step_of_years_nothing_is_forgotten_that_is_kept_for_years(seeing: Seeing) -> None:
    line = seeing.line
    line.core.lookout.wall_ms = lambda: line.clock.ms
    line.run(deliver(Stream.CURRENT, said(Stream.CURRENT, 0, line.clock.ms, i_peak_ua=900.0, level="three"), line.clock.ms))
    line.run(deliver(Stream.CURRENT, said(Stream.CURRENT, 1, line.clock.ms + 30_000, i_peak_ua=900.0), line.clock.ms + 30_000))
    line.run(deliver(Stream.CURRENT, said(Stream.CURRENT, 2, line.clock.ms + 90_000), line.clock.ms + 90_000))
    seeing.wait(120)
    known = line.reasons(), {alert["id"] for alert in line.alerts(device_id="tone-1")}
    assert all(known)
    line.clock.ms += 4 * 366 * 86_400 * S
    seeing.wait(30)
    line.sum_up()
    assert known == (line.reasons(), {alert["id"] for alert in line.alerts(device_id="tone-1")})


@pytest.mark.parametrize("days", [20, 400])
def test_a_worker_that_starts_by_a_clock_of_another_year_deletes_nothing(tmp_path: Path, days: int) -> None:
    with Line(tmp_path, raw_retention_days=10) as line:
        seeing = Seeing(line).wait(15)
        speak(seeing, 2)
        seeing.wait(15)
        line.journal.close()
        line.clock.ms += days * 86_400 * S
        line._open()
        line.core.doubt_a_long_absence()
        seeing.open_eyes()
        seeing.wait(30)
        assert line.core.clock_doubted == (days == 400)
        assert line.journal._scalar("SELECT count(*) FROM raw") == (2 if days == 400 else 1)  # the last one always stays


# -- the canary ---------------------------------------------------------------------------------------


class Air:
    """A broker that gives back what it is given, if it does."""

    def __init__(self, line: Line) -> None:
        self.line, self.connected, self.returns = line, True, True

    def is_connected(self) -> bool:
        return self.connected

    def say(self, payload: bytes) -> None:
        assert payload.startswith(CANARY_PREFIX)
        if self.returns:
            self.line.run(Delivery(1, 1, 1, self.line.clock.ms, OWN, payload, False, -1, True))


def flown(seeing: Seeing, read_back: Any = lambda point: True) -> tuple[Canary, Air]:
    air = Air(seeing.line)
    canary = Canary(air, seeing.line.clock, seeing.line.core.name, 7, 60.0, read_back)
    seeing.line.core.lookout.canary = canary
    return canary, air


def test_a_canary_goes_through_judge_and_outbox_and_is_read_back(seeing: Seeing) -> None:
    asked: list[Point] = []
    canary, _ = flown(seeing, lambda point: asked.append(point) or True)
    flight = canary.send()
    (point,) = seeing.line.points("canary")
    assert (flight.stage, point.tags, point.fields["seq"], canary.look()) == (Stage.JUDGED, (seeing.line.core.name, "all", "all"), 1, False)
    seeing.store()
    assert (flight.stage, canary.look(), canary.missing_since, canary.ends_at) == (Stage.WRITTEN, True, None, "read back")
    assert [(p.tags, p.time_ns, p.fields["seq"]) for p in asked] == [(point.tags, point.time_ns, 1)]


def test_a_canary_is_in_no_count_of_messages_or_devices(seeing: Seeing) -> None:
    canary, _ = flown(seeing)
    canary.send()
    seeing.wait(12)
    line = seeing.line
    assert (line.journal.ledger().accepted, dict(line.core.devices), line.alerts(), line.points("device")) == (0, {}, [], [])


@pytest.mark.parametrize("stuck", ["broker", "store", "reading"])
def test_a_canary_that_is_stuck_says_where(seeing: Seeing, stuck: str) -> None:
    seeing.wait(3)
    canary, air = flown(seeing, lambda point: stuck != "reading")
    air.returns = stuck != "broker"
    if stuck == "store":
        seeing.store = lambda: None
    canary.send()
    canary.missing_since = (seeing.line.core.lookout.now_s(), seeing.line.clock.ms)
    for _ in range(50):
        seeing.wait(1)
        canary.look()
    assert seeing.causes == {Cause.CANARY_LOST}
    (alert,) = seeing.line.alerts()
    words = {"broker": "did not come back from the broker", "store": "waits for the store", "reading": "does not give it back"}
    assert words[stuck] in alert["detail"]


def test_while_the_store_is_known_to_be_away_the_canary_that_waits_for_it_is_no_cause_of_its_own(seeing: Seeing) -> None:
    seeing.wait(3)
    canary, _ = flown(seeing)
    seeing.lose(store_ok=False)
    canary.send()
    canary.missing_since = (seeing.line.core.lookout.now_s(), seeing.line.clock.ms)
    seeing.wait(100)
    assert seeing.causes == {Cause.STORE_AWAY}


def test_where_the_store_may_not_be_asked_the_check_ends_at_the_write_and_says_so(seeing: Seeing) -> None:
    def refuse(point: Point) -> bool:
        raise NotReadable("401 unauthorized")

    canary, _ = flown(seeing, refuse)
    canary.send()
    seeing.store()
    assert (canary.look(), canary.ends_at) == (True, "the write: 401 unauthorized")


def test_a_store_that_does_not_answer_now_is_asked_again(seeing: Seeing) -> None:
    answers = iter([Unavailable("busy"), True])

    def ask(point: Point) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    canary, _ = flown(seeing, ask)
    canary.send()
    seeing.store()
    assert [canary.look(), canary.look()] == [False, True]


def test_the_judge_must_find_the_danger_that_a_canary_carries() -> None:
    now = message(7, 3, START_MS)
    assert look_at(OWN, now, START_MS, PROFILES) == (3, True)
    assert look_at(OWN, now.replace(b'"output_on_s":14400', b'"output_on_s":0'), START_MS, PROFILES) == (3, False)
    assert look_at(OWN, now[:-5], START_MS, PROFILES) == (None, False)


def test_a_canary_in_which_no_danger_is_found_is_stuck_at_the_judge(seeing: Seeing) -> None:
    canary, air = flown(seeing)
    air.returns = False
    flight = canary.send()
    harmless = message(7, 1, flight.sent_ms).replace(b'"output_on_s":14400', b'"output_on_s":0')
    assert (canary.judged(OWN, harmless, START_MS, PROFILES), flight.stage) == (None, Stage.UNFOUND)
    assert canary.words == "the judge did not find the danger in it"


def test_a_canary_is_written_when_the_store_has_its_own_entry_and_not_an_earlier_one(seeing: Seeing) -> None:
    canary, _ = flown(seeing)
    flight = canary.send()
    canary.settled(flight.entry_id - 1)
    assert flight.stage is Stage.JUDGED
    canary.settled(flight.entry_id)
    assert flight.stage is Stage.WRITTEN


def test_another_canary_than_the_one_that_flies_is_not_carried_on(seeing: Seeing) -> None:
    canary, air = flown(seeing)
    air.returns = False
    canary.send()
    stranger = message(7, 99, START_MS)
    seeing.line.run(Delivery(1, 1, 1, START_MS, OWN, stranger, False, -1, True))
    assert seeing.line.points("canary") == []


def test_the_first_canary_that_comes_back_is_seen_through_however_late(seeing: Seeing) -> None:
    canary, air = flown(seeing)
    air.returns = False
    first = canary.send()
    for _ in range(5):
        canary.send()
    for seq in (1, 2, 6):
        seeing.line.run(Delivery(1, 1, 1, START_MS, OWN, message(7, seq, START_MS), False, -1, True))
    assert [point.fields["seq"] for point in seeing.line.points("canary")] == [1]
    seeing.store()
    assert (canary.look(), first.stage, canary.missing_since) == (True, Stage.THROUGH, None)


def test_of_canaries_that_never_come_back_few_are_remembered(seeing: Seeing) -> None:
    canary, air = flown(seeing)
    air.returns = False
    for _ in range(100):
        canary.send()
    assert len(canary._flying) == 10
