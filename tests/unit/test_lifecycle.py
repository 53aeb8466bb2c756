"""What people say of an alert is added to it, published, and never lost or overwritten."""

from pathlib import Path
from typing import Any

import pytest

from ingest.errors import Mistake
from ingest.mqtt import Delivery
from ingest.views import MOST_NAME, MOST_WORDS, person, words_of
from schemas.alerts import AlertEvent
from schemas.topics import Stream
from tests.line import START_MS, Line, deliver, message, pulse

S = 1_000


def current(s: float, *, late_s: float = 0, **fields: Any) -> Delivery:
    at_ms = START_MS + round(s * S)
    return deliver(Stream.CURRENT, message(Stream.CURRENT, int(s), at_ms, **fields), at_ms + round(late_s * S))


def alarmed(line: Line) -> str:
    """A line on which one alert is open; its id."""
    line.run(current(0, i_peak_ua=900.0))
    (alert,) = line.alerts()
    return alert["id"]


def history(line: Line, alert_id: str) -> list[tuple[Any, ...]]:
    return [(e["event"], e["actor"], e["note"], e["alert"]["assigned_to"]) for e in line.journal.events(alert_id)]


OPENED = ("opened", None, None, None)


def test_an_assignment_is_on_the_alert_in_its_history_and_published(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        line.write(lambda: line.core.acts.assign(alert_id, "Ben", "Ada", "call the user"))
        assert [a["assigned_to"] for a in line.alerts()] == ["Ben"]
        assert [a["id"] for a in line.journal.alerts(assigned_to="Ben")] == [alert_id]
        assert history(line, alert_id) == [OPENED, ("assigned", "Ada", "call the user", "Ben")]
        said = line.feed.said[-1][1]
        assert {name: said[name] for name in ("event", "at_ms", "by", "note")} == {
            "event": "assigned", "at_ms": line.clock.ms, "by": "Ada", "note": "call the user"
        }  # fmt: skip
        assert AlertEvent.model_validate(said).alert == line.journal.alert(alert_id)


def test_a_second_assignment_is_one_more_event_and_the_alert_shows_the_latest(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        for to in ("Ben", "Cleo"):
            line.write(lambda to=to: line.core.acts.assign(alert_id, to, "Ada", ""))
        assert [a["assigned_to"] for a in line.alerts()] == ["Cleo"]
        assert history(line, alert_id) == [OPENED, ("assigned", "Ada", None, "Ben"), ("assigned", "Ada", None, "Cleo")]


def test_a_second_acknowledgement_is_one_more_event_and_the_alert_shows_the_latest(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        for by in ("Ada", "Ben"):
            line.clock.ms += S
            line.write(lambda by=by: line.core.acts.acknowledge(alert_id, by, f"{by} was here"))
        assert [a["acknowledged"] for a in line.alerts()] == [{"by": "Ben", "at_ms": line.clock.ms, "note": "Ben was here"}]
        first, second = line.journal.events(alert_id)[1:]
        assert [(e["event"], e["actor"], e["at_ms"], e["alert"]["acknowledged"]["by"]) for e in (first, second)] == [
            ("acknowledged", "Ada", START_MS + S, "Ada"), ("acknowledged", "Ben", START_MS + 2 * S, "Ben")
        ]  # fmt: skip


def test_a_comment_is_in_the_history_and_leaves_the_alert_as_it_is(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        before = line.alerts()
        line.write(lambda: line.core.acts.comment(alert_id, "Ada", "the head was wet"))
        assert line.alerts() == before
        assert history(line, alert_id) == [OPENED, ("commented", "Ada", "the head was wet", None)]
        assert line.events() == [("opened", "overcurrent-peak"), ("commented", "overcurrent-peak")]


def test_nothing_can_be_said_of_an_alert_that_is_not_there(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        answers = [line.core.acts.acknowledge("0", "Ada", ""), line.core.acts.assign("0", "Ben", "Ada", ""), line.core.acts.comment("0", "Ada", "x")]
        assert (answers, line.feed.said) == ([None] * 3, [])


def test_an_assignment_survives_updates_closing_late_data_and_restarts(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        line.write(lambda: line.core.acts.assign(alert_id, "Ben", "Ada", ""))
        line.one_by_one(current(s, i_peak_ua=950.0) for s in range(1, 70)).restart()
        line.one_by_one(current(s) for s in range(80, 95))
        line.run(current(75, late_s=200, i_peak_ua=990.0), pulse(START_MS + 400 * S)).restart()
        assert [(a["assigned_to"], a["state"], a["value"]) for a in line.alerts()] == [("Ben", "closed", 990.0)]


def test_what_people_do_with_an_alert_is_told_to_the_store_at_its_one_place(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        line.write(lambda: line.core.acts.assign(alert_id, "Ben", "Ada", ""))
        line.clock.ms += 90 * S
        line.restart().write(lambda: line.core.acts.acknowledge(alert_id, "Ada", ""))
        (fields,) = line.kept("alert").values()
        told = ("alert_id", "assigned_to", "acknowledged_by", "acknowledged_after_s", "critical", "open", "unacknowledged")
        assert [fields[name] for name in told] == [alert_id, "Ben", "Ada", 90.0, 1, 1, 0]


def test_an_alert_of_which_more_becomes_known_stays_at_its_place_in_the_store(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        alert_id = alarmed(line)
        known = line.journal.alert(alert_id).model_copy(update={"model": "tonetip-e", "fw": "9.9"})
        line.write(lambda: line.journal.put_alert(known, "s-1")).write(lambda: line.core.acts.comment(alert_id, "Ada", "an ellipse"))
        assert [tags for tags, _ in line.kept("alert")] == [("tone-1", "toneduo-400", "2.3.1", "overcurrent-peak")]
        assert len(line.points("alert")) == 2


@pytest.mark.parametrize("name", ["", "  ", "x" * (MOST_NAME + 1), "a\x1b[2Jb", "a\udcffb"])
def test_a_name_that_cannot_be_kept_is_one_sentence(name: str) -> None:
    with pytest.raises(Mistake, match=r"^[^.\n]+$"):
        person(name)


@pytest.mark.parametrize("text", ["", " \n", "x" * (MOST_WORDS + 1), "a\x07b", "\ud800"])
def test_a_comment_that_cannot_be_kept_is_one_sentence(text: str) -> None:
    with pytest.raises(Mistake, match=r"^[^.\n]+$"):
        words_of(text, needed=True)


def test_names_and_words_are_kept_as_they_were_written() -> None:
    assert (person(" Dr. Özgür "), words_of("two\nlines, 400 µA 👩‍⚕️"), words_of(" ")) == ("Dr. Özgür", "two\nlines, 400 µA 👩‍⚕️", "")
