"""What cannot be seen is one alert: when it opens, what joins and leaves it, when it closes, and what it then says."""

from typing import Any

import pytest

from ingest.safety.line import MOST_SPANS, STORAGE_PRESSURE, Blindness, Cause, Graded, Missing
from ingest.voice import Said
from schemas.alerts import Alert, AlertEventKind, Severity
from tests.line import START_MS

S = 1_000
HOLD_S = 45.0
WORKER = "~worker-1"


class Watched:
    """A line that is looked at every second; `unseen` are causes with the second they began."""

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self.blindness = Blindness(WORKER, hold_s)
        self.at_s = 0.0
        self.unseen: dict[Cause, float] = {}
        self.said: list[Said] = []

    def look(self, *more: Missing) -> "Watched":
        missing = [Missing(c, START_MS + round(s * S), self.at_s - s, f"{c} detail") for c, s in self.unseen.items()]
        self.said += self.blindness.look(START_MS + round(self.at_s * S), self.at_s, [*missing, *more])
        return self

    def wait(self, seconds: float) -> "Watched":
        for _ in range(round(seconds)):
            self.at_s += 1
            self.look()
        return self

    def lose(self, *causes: Cause) -> "Watched":
        self.unseen |= dict.fromkeys(causes, self.at_s)
        return self

    def find(self, *causes: Cause) -> "Watched":
        for cause in causes:
            del self.unseen[cause]
        return self

    @property
    def events(self) -> list[str]:
        return [str(each.event) for each in self.said]

    @property
    def last(self) -> Alert:
        return self.said[-1].alert

    def at(self, ms: int) -> float:
        return (ms - START_MS) / S


@pytest.mark.parametrize(("seconds", "raised"), [(44, False), (45, True), (46, True)])
def test_it_is_raised_once_something_was_unseen_for_the_hold(seconds: int, raised: bool) -> None:
    line = Watched().wait(3).lose(Cause.BROKER_AWAY).wait(seconds)
    assert line.events == ["opened"] * raised


def test_a_restart_of_the_broker_is_no_alert() -> None:
    line = Watched().lose(Cause.BROKER_AWAY, Cause.PULSES_LOST).wait(30).find(Cause.BROKER_AWAY, Cause.PULSES_LOST).wait(200)
    assert line.said == []


def test_it_says_what_is_unknown_since_when_and_afterwards_until_when() -> None:
    line = Watched().wait(10).lose(Cause.BROKER_AWAY).wait(60)
    opened = line.said[0].alert
    assert (opened.rule, opened.device_id, opened.severity, opened.session_id) == ("pipeline-blind", WORKER, "critical", None)
    assert (line.at(opened.onset_ms), line.at(opened.opened_ms), opened.value, opened.limit, opened.unit) == (10, 55, 45.0, HOLD_S, "s")
    assert opened.detail.startswith("unseen now: since ") and "not connected to the broker" in opened.detail and "broker-away detail" in opened.detail
    line.find(Cause.BROKER_AWAY).wait(46)
    assert line.events == ["opened", "updated", "closed"]
    closed = line.last
    assert (closed.id, closed.state, closed.close_reason, line.at(closed.closed_ms), closed.value) == (opened.id, "closed", "cleared", 71, 61.0)
    assert closed.detail.startswith("all is seen again. unseen before: from ")


def test_causes_of_one_outage_join_one_alert_and_leave_it_one_by_one() -> None:
    line = Watched().lose(Cause.STORE_AWAY).wait(20).lose(Cause.BROKER_AWAY).wait(30)
    assert [c.cause for c in line.blindness.causes] == [Cause.STORE_AWAY]  # the other has not held yet
    line.wait(20)
    assert {c.cause for c in line.blindness.causes} == {Cause.STORE_AWAY, Cause.BROKER_AWAY}
    line.find(Cause.STORE_AWAY).wait(20)
    assert [c.cause for c in line.blindness.causes] == [Cause.BROKER_AWAY]
    assert "unseen before: from" in line.last.detail and "the store takes no data" in line.last.detail
    line.find(Cause.BROKER_AWAY).wait(60)
    assert (line.events[0], line.events[-1], len({each.alert.id for each in line.said})) == ("opened", "closed", 1)
    assert line.events.count("opened") == line.events.count("closed") == 1


def test_the_order_of_causes_is_theirs_and_not_of_their_coming() -> None:
    line = Watched().lose(Cause.STORE_AWAY).wait(3).lose(Cause.BROKER_AWAY).wait(70)
    assert line.last.detail.index("broker") < line.last.detail.index("the store")


def test_it_closes_only_when_all_was_seen_for_the_hold() -> None:
    line = Watched().lose(Cause.BROKER_AWAY).wait(50).find(Cause.BROKER_AWAY).wait(45)
    assert "closed" not in line.events
    assert "closed" in line.wait(1).events


def test_it_does_not_close_while_something_else_has_just_gone() -> None:
    line = Watched().lose(Cause.BROKER_AWAY).wait(50).find(Cause.BROKER_AWAY).wait(30).lose(Cause.STORE_AWAY).wait(30)
    assert "closed" not in line.events
    assert line.find(Cause.STORE_AWAY).wait(46).events[-1] == "closed"


def test_a_connection_that_comes_and_goes_is_one_alert_and_few_words() -> None:
    line = Watched().lose(Cause.BROKER_AWAY).wait(50)
    for _ in range(10):
        line.find(Cause.BROKER_AWAY).wait(5).lose(Cause.BROKER_AWAY).wait(50)
    assert line.events.count("opened") == 1 and "closed" not in line.events
    assert len(line.blindness.spans) == 1  # short ends within the hold are one time
    assert len(line.events) <= 1 + 10 * 2


def test_changes_are_said_at_most_every_ten_seconds() -> None:
    line = Watched().lose(Cause.BROKER_AWAY, Cause.STORE_AWAY).wait(46)
    line.find(Cause.STORE_AWAY).wait(5)
    assert line.events == ["opened"]
    assert line.wait(5).events == ["opened", "updated"]


def test_what_is_over_when_it_is_found_out_is_told_at_once() -> None:
    lost = Missing(Cause.SESSION_LOST, START_MS - 3 * S, 3.0, until_ms=START_MS, at_once=True)
    line = Watched().look(lost)
    assert line.events == ["opened"]
    assert (line.at(line.last.onset_ms), line.blindness.causes) == (-3, [])
    assert "messages of this time may be missing" in line.last.detail
    line.wait(46)
    assert line.events == ["opened", "closed"]
    assert (line.last.value, line.last.closed_ms) == (3.0, START_MS)


def test_a_death_that_was_shorter_than_the_hold_is_no_alert() -> None:
    for age_s, events in ((44.0, []), (45.0, ["opened"])):
        away = Missing(Cause.WORKER_AWAY, START_MS - round(age_s * S), age_s, until_ms=START_MS)
        assert Watched().look(away).events == events


def test_an_alert_that_stood_goes_on_in_the_next_worker() -> None:
    line = Watched().lose(Cause.BROKER_AWAY).wait(50)
    state: dict[str, Any] = line.blindness.state
    again = Watched()
    again.at_s, again.unseen = line.at_s, line.unseen
    again.blindness.restore(line.last, state)
    again.wait(20).find(Cause.BROKER_AWAY).wait(60)
    assert (again.events[-1], again.last.id, again.at(again.last.closed_ms)) == ("closed", line.last.id, 71)
    assert "opened" not in again.events
    assert again.blindness.state is None


def test_an_alert_of_which_nothing_else_is_kept_can_still_close() -> None:
    line = Watched().lose(Cause.BROKER_AWAY).wait(50)
    again = Watched()
    again.blindness.restore(line.last, {"spans": [], "left_out": 0})
    assert again.wait(50).events == ["closed"]


def test_what_it_tells_is_bounded() -> None:
    line = Watched(hold_s=2.0)
    line.lose(Cause.STORE_AWAY).wait(3)
    for _ in range(3 * MOST_SPANS):
        line.lose(Cause.BROKER_AWAY).wait(4).find(Cause.BROKER_AWAY).wait(5)
    assert len(line.blindness.spans) == MOST_SPANS
    assert f"and {1 + 3 * MOST_SPANS - MOST_SPANS} times before" in line.last.detail
    assert [c.cause for c in line.blindness.causes] == [Cause.STORE_AWAY]


# -- what has a level ---------------------------------------------------------------------------------


def test_pressure_opens_as_a_warning_rises_and_never_falls_until_it_is_over() -> None:
    graded = Graded(STORAGE_PRESSURE, WORKER)
    levels = [None, Severity.WARNING, Severity.WARNING, Severity.CRITICAL, Severity.WARNING, None, None]
    said = [each for n, level in enumerate(levels) for each in graded.look(START_MS + n * S, level, 100.0, 0.0, "the disk")]
    assert [(e.event, e.alert.severity, e.alert.state) for e in said] == [
        (AlertEventKind.OPENED, "warning", "open"), (AlertEventKind.UPDATED, "critical", "open"), (AlertEventKind.CLOSED, "critical", "closed"),
    ]  # fmt: skip
    assert (said[1].alert.escalated_ms, said[2].alert.closed_ms) == (START_MS + 3 * S, START_MS + 5 * S)
