"""What is said of a session over time: silence and its end, updates, acknowledgement."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest import judgement
from ingest.mqtt import Delivery
from ingest.voice import RENOTIFY_MS
from schemas.topics import Stream
from tests.line import DEVICE, START_MS, Line, deliver, message, pulse

S = 1_000


def at(s: float) -> int:
    return START_MS + round(s * S)


def current(s: float, *, seq: int | None = None, late_s: float = 0, session: str = "s-1", **fields: Any) -> Delivery:
    payload = message(Stream.CURRENT, int(s) if seq is None else seq, at(s), envelope_={"session_id": session}, **fields)
    return deliver(Stream.CURRENT, payload, at(s + late_s))


def runtime(s: float, *, seq: int, state: str = "running", late_s: float = 0, session: str = "s-1") -> Delivery:
    payload = message(Stream.RUNTIME, seq, at(s), envelope_={"session_id": session}, run_state=state)
    return deliver(Stream.RUNTIME, payload, at(s + late_s))


def heard(s: float) -> Delivery:
    """Everything that devices sent until then has been taken in."""
    return pulse(at(s))


def gaps(line: Line) -> list[tuple[str, float, float, float | None, str | None]]:
    """(state, onset, opened, closed, reason) of each alert on silence, in s since the start; losses are told in shares."""
    return [
        (a["state"], (a["onset_ms"] - START_MS) / S, (a["opened_ms"] - START_MS) / S, a["closed_ms"] and (a["closed_ms"] - START_MS) / S, a["close_reason"])
        for a in line.alerts(rule="telemetry-gap")
        if a["unit"] == "s"
    ]  # fmt: skip


def until_silence(line: Line) -> Line:
    """Running for ten seconds, the last reading at 10 s."""
    line.run(runtime(0, seq=0))
    return line.one_by_one(current(s) for s in range(1, 11))


SILENCE = ("open", 10, 25, None, None)


def test_silence_is_said_when_fifteen_seconds_and_the_lateness_allowed_have_passed_and_been_heard(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        until_silence(line).run(heard(144.999))
        assert gaps(line) == []
        line.run(heard(145))
        assert gaps(line) == [SILENCE]
        line.run(heard(500), heard(900))
        assert gaps(line) == [SILENCE]
        assert line.events() == [("opened", "telemetry-gap")]


def test_while_the_line_itself_cannot_hear_nothing_is_called_silence(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        until_silence(line)
        line.clock.ms = at(86_400)
        line.run()
        assert gaps(line) == []


def test_data_that_waited_at_the_broker_are_no_silence(tmp_path: Path) -> None:
    """The pulse counts only after everything accepted before it has been judged."""
    with Line(tmp_path) as line:
        until_silence(line).run(*(current(s, late_s=200 - s) for s in range(11, 190)), heard(200))
        assert gaps(line) == []


@pytest.mark.parametrize("state", ["paused", "ended", "idle", "fault", "armed"])
def test_a_device_that_was_not_running_may_be_silent(tmp_path: Path, state: str) -> None:
    with Line(tmp_path) as line:
        until_silence(line).run(runtime(11, seq=11, state=state), heard(10_000))
        assert gaps(line) == []


def test_a_silence_that_is_filled_in_time_is_never_said(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        until_silence(line).run(*(current(s, late_s=100) for s in range(11, 40)), heard(145))
        line.one_by_one(current(s) for s in range(141, 150))
        line.run(*(current(s, late_s=160) for s in range(40, 141)), heard(285))
        line.run(runtime(150, seq=150, state="ended", late_s=100), heard(10_000))
        assert [s for s in line.events() if s[1] == "telemetry-gap"] == []


def test_a_silence_within_a_session_is_said_when_nobody_can_fill_it_any_more(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        until_silence(line).one_by_one(current(s) for s in range(40, 140))
        line.run(heard(140))
        assert gaps(line) == []
        line.one_by_one(current(s) for s in range(140, 146)).run(heard(146))
        assert gaps(line) == [("closed", 10, 25, 40, "resumed")]
        assert line.events() == [("opened", "telemetry-gap"), ("closed", "telemetry-gap")]


def test_fifteen_seconds_are_no_silence(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        until_silence(line).one_by_one(current(s) for s in range(25, 40))
        line.run(runtime(40, seq=40, state="ended"), heard(1_000))
        assert gaps(line) == []


def silent(line: Line) -> Line:
    until_silence(line).run(heard(145))
    assert gaps(line) == [SILENCE]
    return line


def test_a_silence_ends_as_late_arrival_when_the_data_come_after_all(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).run(*(current(s, late_s=200 - s) for s in range(11, 190)), heard(200))
        assert gaps(line) == [("closed", 10, 25, 200, "late-arrival")]


def test_a_silence_ends_as_resumed_when_data_simply_go_on(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).run(current(180)).run(heard(190))
        assert gaps(line) == [("closed", 10, 25, 180, "resumed")]


def test_a_silence_that_has_ended_becomes_late_arrival_once_it_is_filled(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).one_by_one(current(s) for s in range(180, 195))
        line.run(heard(195)).run(*(current(s, late_s=300) for s in range(11, 180)), heard(600))
        assert [g[:1] + g[4:] for g in gaps(line)[:1]] == [("closed", "late-arrival")]


def test_a_silence_ends_as_resumed_when_its_device_speaks_in_another_session(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).run(current(300, session="s-2"))
        assert gaps(line) == [("closed", 10, 25, 300, "resumed")]


def test_a_silence_ended_by_another_session_stays_ended(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).run(current(300, session="s-2")).run(heard(2_000))
        assert gaps(line)[0] == ("closed", 10, 25, 300, "resumed")
        line.restart().run(heard(3_000), heard(4_000))
        assert gaps(line)[0] == ("closed", 10, 25, 300, "resumed")


def test_an_older_message_of_another_session_does_not_end_a_silence(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).run(current(5, seq=500, late_s=300, session="s-0"))
        assert gaps(line) == [SILENCE]


@pytest.mark.parametrize("end", ["restart", "death"])
def test_a_silence_is_still_said_after_the_worker_has_come_back(tmp_path: Path, end: str) -> None:
    with Line(tmp_path / "first") as line:
        until_silence(line)
        later = line.restart() if end == "restart" else line.die(tmp_path / "second")
        later.run(heard(144)).run(heard(146))
        assert gaps(later) == [SILENCE]
        if later is not line:
            later.journal.close()


@pytest.mark.parametrize("late", [False, True], ids=["nothing more is heard", "late data come"])
def test_a_silence_is_said_in_its_time_though_the_clock_was_set_back_while_no_worker_ran(tmp_path: Path, late: bool) -> None:
    """The machine had come up with a clock that was an hour ahead: what the first worker received lies in the time to come."""
    ahead_s = 3_600
    with Line(tmp_path) as line:
        line.clock.ms = at(10 + ahead_s)
        line.run(runtime(0, seq=0, late_s=ahead_s)).one_by_one(current(s, late_s=ahead_s) for s in range(1, 11))
        line.journal.close()
        line.clock.ms = at(20)
        line._open()
        line.core.lookout.wall_ms, line.core.lookout.now_s = line.clock.now_ms, lambda: line.clock.ms / S
        line.run(heard(20))
        assert line.core.devices[DEVICE].last_seen_ms == at(20)
        if late:
            line.run(current(5.5, seq=11, late_s=14.5))
        line.clock.ms = at(155)
        line.run(heard(154))
        assert gaps(line) == []
        line.run(heard(155))
        assert gaps(line) == [SILENCE]


@pytest.mark.parametrize("end", ["restart", "death"])
def test_a_silence_within_a_session_is_still_said_after_the_worker_has_come_back(tmp_path: Path, end: str) -> None:
    with Line(tmp_path / "first") as line:
        until_silence(line).one_by_one(current(s) for s in range(60, 100))
        later = line.restart() if end == "restart" else line.die(tmp_path / "second")
        later.one_by_one(current(s) for s in range(100, 146)).run(heard(400))
        assert gaps(later)[0] == ("closed", 10, 25, 60, "resumed")
        if later is not line:
            later.journal.close()


def test_a_silence_ends_with_the_reading_that_ended_it_though_a_checkpoint_of_its_millisecond_lacks_it(tmp_path: Path) -> None:
    """A refused message is judged alone, and noted; a whole one of the same time comes later, and then the worker dies."""
    with Line(tmp_path / "first") as line:
        until_silence(line).run(current(65, level="three")).run(heard(76))
        line.run(current(65, seq=66, late_s=12)).run(heard(88))
        with line.die(tmp_path / "second") as later:
            later.one_by_one(current(s, seq=s + 1, late_s=12) for s in range(66, 100)).run(heard(400))
            assert [("closed", 10, 25, 65, "resumed")] == [gap for gap in gaps(later) if gap[0] == "closed"]


def test_a_silence_that_was_said_ends_after_the_worker_has_come_back(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).restart().run(current(300, session="s-2"))
        assert gaps(line) == [("closed", 10, 25, 300, "resumed")]


def test_what_was_told_of_a_silence_is_told_once(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line).run(current(180)).restart().run(heard(181)).run(current(180), current(181)).run(heard(190))
        assert line.events() == [("opened", "telemetry-gap"), ("closed", "telemetry-gap")]


def test_a_session_that_has_ended_is_watched_no_longer(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(runtime(0, seq=0), *(current(s) for s in range(1, 30)))
        assert list(line.core.devices[DEVICE].watching) == ["s-1"]
        line.run(runtime(30, seq=30, state="ended")).run(heard(60)).run(current(100, session="s-2"), runtime(101, seq=101, state="ended", session="s-2"))
        line.run(heard(300))
        assert list(line.core.devices[DEVICE].watching) == []


# -- updates, acknowledgement ---------------------------------------------------------------------------


def peaks(*values: float, start_s: int = 0) -> list[Delivery]:
    return [current(start_s + s, i_peak_ua=value) for s, value in enumerate(values)]


def test_a_spike_is_said_on_arrival_and_closed_when_it_has_cleared(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one(peaks(900.0, *[200.0] * 12))
        assert line.events() == [("opened", "overcurrent-peak"), ("closed", "overcurrent-peak")]


@pytest.mark.parametrize(
    ("stream", "fields", "rule"),
    [
        (Stream.CURRENT, {"i_peak_ua": 900.0}, "overcurrent-peak"),
        (Stream.CURRENT, {"i_rms_ua": 580.0, "i_peak_ua": 590.0}, "overcurrent-rms"),
    ],
)
def test_urgent_danger_is_said_before_its_turn(tmp_path: Path, stream: Stream, fields: dict[str, Any], rule: str) -> None:
    """The other streams of the session lag behind."""
    with Line(tmp_path) as line:
        line.run(runtime(0, seq=0), current(1)).run(deliver(stream, message(stream, 5, at(5), **fields), at(5)))
        assert line.events() == [("opened", rule)]


def test_going_on_is_said_again_after_a_minute_and_not_before(tmp_path: Path) -> None:
    seconds = 2 * RENOTIFY_MS // S + 5
    with Line(tmp_path) as line:
        line.one_by_one(peaks(*(900.0 + s for s in range(seconds))))
        assert line.events() == [("opened", "overcurrent-peak"), ("updated", "overcurrent-peak"), ("updated", "overcurrent-peak")]
        (alert,) = line.alerts()
        assert alert["value"] == 900.0 + seconds - 1


def test_a_rise_in_severity_is_said_at_once(tmp_path: Path) -> None:
    def session(n: int, on_s: int) -> Delivery:
        return deliver(Stream.RUNTIME, message(Stream.RUNTIME, n, at(5 * n), output_on_s=on_s, elapsed_s=on_s), at(5 * n))

    with Line(tmp_path) as line:
        line.one_by_one([session(0, 1_201), session(1, 1_300), session(2, 1_351), session(3, 1_352)])
        said = [(s["event"], s["alert"]["severity"]) for topic, s in line.feed.said if topic.endswith("/alert")]
        assert said == [("opened", "warning"), ("updated", "critical")]


def acknowledge(line: Line) -> dict[str, Any]:
    (alert,) = line.alerts()
    line.write(lambda: line.core.acts.acknowledge(alert["id"], "Ada", "called the user"))
    return {"by": "Ada", "at_ms": line.clock.ms, "note": "called the user"}


def test_an_acknowledgement_survives_updates_closing_late_data_and_restarts(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one(peaks(*[900.0] * 5))
        expected = acknowledge(line)
        line.one_by_one(peaks(*[950.0] * 70, start_s=6)).restart()
        assert [a["acknowledged"] for a in line.alerts()] == [expected]
        line.one_by_one(peaks(*[200.0] * 12, start_s=80))
        line.run(current(5, late_s=200, i_peak_ua=990.0), heard(300)).restart()
        assert [(a["acknowledged"], a["state"], a["value"]) for a in line.alerts()] == [(expected, "closed", 990.0)]


def test_an_acknowledgement_is_said_and_recorded(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*peaks(900.0))
        acknowledge(line)
        assert line.events() == [("opened", "overcurrent-peak"), ("acknowledged", "overcurrent-peak")]
        (alert,) = line.alerts()
        told = [(e["event"], e["actor"], e["note"]) for e in line.journal.events(alert["id"])]
        assert told == [("opened", None, None), ("acknowledged", "Ada", "called the user")]


def test_an_acknowledgement_of_a_silence_survives_its_end(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        silent(line)
        expected = acknowledge(line)
        line.run(current(300, session="s-2"))
        assert [(a["acknowledged"], a["state"]) for a in line.alerts()] == [(expected, "closed")]


def test_an_alert_on_data_that_came_late_says_so(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(current(1, late_s=120, i_peak_ua=900.0), current(50), current(62), current(70, late_s=120.001, i_peak_ua=900.0))
        line.run(heard(300))
        assert [a["retrospective"] for a in line.alerts()] == [False, True]


def test_an_alert_taken_back_is_said_to_be(tmp_path: Path) -> None:
    """The spike came first; an earlier one makes it part of another alert."""
    with Line(tmp_path) as line:
        line.run(runtime(0, seq=0), current(4, i_peak_ua=900.0))
        line.run(current(2, i_peak_ua=800.0), heard(30))
        assert line.events() == [("opened", "overcurrent-peak"), ("opened", "overcurrent-peak"), ("withdrawn", "overcurrent-peak")]
        assert line.standing() == [("overcurrent-peak", "critical", "open", 2 * S, None)]


def test_a_device_that_begins_sessions_without_end_is_judged_in_each_and_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "MOST_OF_ONE", 20)
    begun = 80
    with Line(tmp_path) as line:
        until_silence(line)
        for n in range(begun):
            session = f"endless-{n}"
            peak_ua = 900.0 if n % 20 == 7 else 200.0
            told = message(Stream.RUNTIME, 2 * n, at(11 + n / 100), envelope_={"session_id": session}, run_state="running")
            said = message(Stream.CURRENT, 2 * n + 1, at(11 + n / 100), envelope_={"session_id": session}, i_peak_ua=peak_ua)
            line.run(deliver(Stream.RUNTIME, told, at(11 + n / 100), "endless"), deliver(Stream.CURRENT, said, at(11 + n / 100), "endless"))
        watched = Counter(device_id for device_id, _ in line.core._desk._watches)
        assert {"tone-1": 1, "endless": 20} == watched
        assert len(line.core.devices["endless"].watching) <= 20
        line.run(heard(400))
        assert begun // 20 == len(line.alerts(rule="overcurrent-peak"))
        assert [("tone-1", "s-1"), ("endless", f"endless-{begun - 1}")] == [(a["device_id"], a["session_id"]) for a in line.alerts(rule="telemetry-gap") if a["unit"] == "s"]


def test_all_watches_are_bounded_though_the_oldest_still_wait_for_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "MOST_WATCHES", 50)
    with Line(tmp_path) as line:
        until_silence(line)
        for n in range(100):
            said = message(Stream.RUNTIME, 0, at(11), envelope_={"session_id": None}, run_state="idle")
            line.run(deliver(Stream.RUNTIME, said, at(11), f"idle-{n}"), heard(30))
        assert len(line.core._desk._watches) <= 51
        line.run(heard(400))
        assert ["tone-1"] == [a["device_id"] for a in line.alerts(rule="telemetry-gap") if a["unit"] == "s"]


def test_sessions_that_are_over_are_put_away_and_late_data_take_them_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "MOST_OVER", 5)
    with Line(tmp_path) as line:
        for n in range(30):
            line.run(*(deliver(Stream.CURRENT, message(Stream.CURRENT, s, at(s)), at(s), f"dev-{n}") for s in (0, 2)), heard(15 + n))
        assert 5 == len(line.core._desk._watches)
        line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 1, at(1), i_peak_ua=900.0), at(60), "dev-3"), heard(80))
        assert [("dev-3", at(1))] == [(a["device_id"], a["opened_ms"]) for a in line.alerts(rule="overcurrent-peak")]
        assert 5 == len(line.core._desk._watches)
