"""Which alerts are shown: by state, gravity, rule, model, firmware, device, person and time."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.errors import Mistake
from ingest.filters import WORDS, AlertFilter, read_filter
from ingest.journal import FILE_NAME, Journal
from ingest.journal.tables import SCHEMA_VERSION
from schemas.alerts import Acknowledgement, Alert

NOW_MS = 1_795_298_400_000
"""2026-11-21T22:00:00Z"""

H_MS, DAY_MS = 3_600_000, 86_400_000
V1 = (Path(__file__).parent / "journal-v1.sql").read_text()


def alert(name: str, opened_h: float, ended_h: float | None = None, **fields: Any) -> Alert:
    """An alert that was raised and ended so many hours before now; None is open still."""
    opened_ms = NOW_MS - round(opened_h * H_MS)
    ended_ms = None if ended_h is None else NOW_MS - round(ended_h * H_MS)
    state = "open" if ended_ms is None else "closed"
    return Alert(
        **{
            "id": name, "rule": "overcurrent-peak", "rule_version": 1, "severity": "critical", "device_id": "tone-1", "session_id": "s-1",
            "model": "toneduo-400", "hw": "B", "fw": "2.3.1", "profile_id": None, "profile_version": None, "state": state, "onset_ms": opened_ms,
            "opened_ms": opened_ms, "updated_ms": ended_ms or NOW_MS, "closed_ms": ended_ms, "close_reason": "cleared" if ended_ms else None,
            "value": 900.0, "limit": 600.0, "unit": "µA", "source": "test", **fields,
        }
    )  # fmt: skip


SEEN = Acknowledgement(by="Ada", at_ms=NOW_MS)
ALERTS = [
    alert("open", 1),
    alert("seen", 2, assigned_to="Ben", acknowledged=SEEN),
    alert("old", 50, 49, severity="warning", rule="session-overrun", fw="2.2.0"),
    alert("old-and-seen", 40, 39, device_id="tone-2", model="gelwave-multi", acknowledged=SEEN),
    alert("long", 30, 3, severity="info", assigned_to="Ada"),
    alert("taken-back", 20, None, state="withdrawn", updated_ms=NOW_MS - 19 * H_MS),
]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    opened = Journal(tmp_path_factory.mktemp("journal"))
    with opened.step():
        for each in ALERTS:
            opened.put_alert(each, "s-1")
    yield opened
    opened.close()


def found(journal: Journal, **words: str) -> set[str]:
    wanted = read_filter(words, NOW_MS)
    return {a["id"] for a in journal.alerts(**{name: getattr(wanted, name) for name in wanted.__slots__})}


ALL = {a.id for a in ALERTS}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ({}, ALL),
        ({"state": "all"}, ALL),
        ({"state": "open"}, {"open", "seen"}),
        ({"state": "closed"}, {"old", "old-and-seen", "long"}),
        ({"state": "withdrawn"}, {"taken-back"}),
        ({"state": "over"}, {"old", "old-and-seen", "long", "taken-back"}),
        ({"state": "attention"}, {"open", "seen", "old"}),
        ({"severity": "critical", "state": "open"}, {"open", "seen"}),
        ({"severity": "info"}, {"long"}),
        ({"rule": "session-overrun"}, {"old"}),
        ({"model": "gelwave-multi"}, {"old-and-seen"}),
        ({"fw": "2.2.0"}, {"old"}),
        ({"device": "tone-2"}, {"old-and-seen"}),
        ({"device": "tone"}, set()),
        ({"unacknowledged": "true"}, {"open", "old", "long", "taken-back"}),
        ({"unacknowledged": "false"}, ALL),
        ({"assigned_to": "Ben"}, {"seen"}),
        ({"assigned_to": "Ada", "since": "2h"}, set()),
        ({"since": "2h"}, {"open", "seen"}),
        ({"since": "4h"}, {"open", "seen", "long"}),
        ({"since": "19h"}, {"open", "seen", "long", "taken-back"}),
        ({"since": "18h", "until": "5h"}, {"long"}),
        ({"until": "1d"}, {"old", "old-and-seen", "long"}),
        ({"until": "31h"}, {"old", "old-and-seen"}),
        ({"since": "2026-11-21"}, {"open", "seen", "long", "taken-back"}),
        ({"until": "2026-11-19"}, {"old"}),
        ({"since": "2026-11-20T05:00", "until": "2026-11-20T07:00Z"}, {"old-and-seen"}),
        ({"since": "2026-11-20T06:59:59+00:00", "until": "2026-11-20T08:00:00+01:00"}, {"old-and-seen"}),
        ({"limit": "2"}, {"open", "seen"}),
        ({"state": "", "rule": " ", "since": ""}, ALL),
    ],
)
def test_a_filter_finds_what_it_asks_for(journal: Journal, words: dict[str, str], names: set[str]) -> None:
    assert found(journal, **words) == names


def test_alerts_come_newest_first(journal: Journal) -> None:
    assert [a["id"] for a in journal.alerts()] == ["open", "seen", "taken-back", "long", "old-and-seen", "old"]


def test_what_a_device_shows_of_a_span_are_the_alerts_that_stood_in_it(journal: Journal) -> None:
    spans = [(40, 35), (29, 28), (3, 0), (48, 45)]
    shown = [[a["id"] for a in journal.alerts_between("tone-1", NOW_MS - a * H_MS, NOW_MS - b * H_MS)] for a, b in spans]
    assert shown == [[], ["long"], ["open", "seen", "long"], []]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"state": "opne"}, "state 'opne' is unknown; it is one of open, closed, withdrawn, over, attention, all"),
        ({"severity": "grave"}, "severity 'grave' is unknown; it is one of info, warning, critical"),
        ({"since": "yesterday"}, "since 'yesterday' is no time; write 2026-11-20, 2026-11-20T08:00, or an age such as 90s, 30m, 2h, 7d"),
        ({"until": "-2h"}, "until '-2h' is no time; write 2026-11-20, 2026-11-20T08:00, or an age such as 90s, 30m, 2h, 7d"),
        ({"since": "2026-13-01"}, "since '2026-13-01' is no time; write 2026-11-20, 2026-11-20T08:00, or an age such as 90s, 30m, 2h, 7d"),
        ({"since": "1h", "until": "2h"}, "since 1h is after until 2h; exchange them"),
        ({"unacknowledged": "maybe"}, "unacknowledged is true or false, not 'maybe'"),
        ({"limit": "0"}, "limit '0' is unusable; it is a number from 1 to 10000"),
        ({"limit": "many"}, "limit 'many' is unusable; it is a number from 1 to 10000"),
        ({"limit": "9" * 40}, f"limit '{'9' * 40}' is unusable; it is a number from 1 to 10000"),
        ({"sincee": "2h"}, f"'sincee' is not something alerts are chosen by; known are {', '.join(WORDS)}"),
        ({"rule": "\udcff"}, "what alerts are chosen by is not readable text"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(words: dict[str, str], sentence: str) -> None:
    with pytest.raises(Mistake) as told:
        read_filter(words, NOW_MS)
    assert str(told.value) == sentence


def test_a_filter_that_asks_for_nothing_is_the_empty_one() -> None:
    assert read_filter({}, NOW_MS) == AlertFilter()


# -- journals of before ---------------------------------------------------------------------------------


def old_journal(directory: Path) -> None:
    """A journal of version 1 with an alert, as the program of that time left it."""
    told = orjson.loads(alert("old", 50, 49, severity="warning").model_dump_json())
    for name in ("service", "detail", "devices", "assigned_to"):
        del told[name]
    with sqlite3.connect(directory / FILE_NAME) as db:
        db.executescript(V1)
        meta = {"uuid": "u-1", "running": 0, "processed_upto": 0, "stored": 3, "duplicate": 0, "quarantined": 0}
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        row = ("old", "tone-1", "s-1", "overcurrent-peak", "warning", "closed", told["opened_ms"], 0)
        db.execute("INSERT INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, orjson.dumps(told)))
        open_still = told | {"id": "open", "state": "open", "closed_ms": None, "close_reason": None}
        db.execute("INSERT INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", ("open", *row[1:5], "open", *row[6:], orjson.dumps(open_still)))
        db.execute("INSERT INTO alert_event (alert_id, at_ms, event, doc) VALUES ('old', 1, 'opened', ?)", (orjson.dumps(told),))
        db.execute("PRAGMA user_version = 1")
    db.close()


def shape(journal: Journal) -> dict[str, list[tuple[Any, ...]]]:
    """Tables and indexes with their columns, whatever their text."""
    names = journal._db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 2").fetchall()
    pragma = {"table": "table_info", "index": "index_info"}
    return {name: journal._db.execute(f"PRAGMA {pragma[kind]}({name})").fetchall() for kind, name in names}


def test_a_journal_of_version_1_opens_and_its_alerts_can_be_found_and_assigned(tmp_path: Path) -> None:
    old_journal(tmp_path)
    journal = Journal(tmp_path)
    assert journal.stored == 3
    assert journal.alert("old") == alert("old", 50, 49, severity="warning")
    assert journal.alerts()[0] == orjson.loads(journal.alert(journal.alerts()[0]["id"]).model_dump_json())
    assert found(journal, model="toneduo-400", fw="2.3.1") == {"old", "open"}
    assert found(journal, since="2h") == {"open"}
    assert found(journal, until="2026-11-19", state="closed") == {"old"}
    assert [e["event"] for e in journal.events("old")] == ["opened"]
    with journal.step():
        journal.put_alert(journal.alert("old").model_copy(update={"assigned_to": "Ben"}), "s-1")
    journal.close()
    again = Journal(tmp_path)
    assert found(again, assigned_to="Ben") == {"old"}
    again.close()


def test_an_upgraded_journal_has_the_shape_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old_journal(tmp_path / "old")
    upgraded, new = Journal(tmp_path / "old"), Journal(tmp_path / "new")
    assert shape(upgraded) == shape(new)
    assert upgraded._scalar("PRAGMA user_version") == new._scalar("PRAGMA user_version") == SCHEMA_VERSION
    upgraded.close()
    new.close()


def test_an_upgrade_that_fails_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_journal(tmp_path)
    monkeypatch.setattr("ingest.journal.UPGRADES", {1: "ALTER TABLE alert ADD COLUMN fw TEXT; CREATE TABLE alert (x);"})
    with pytest.raises(Mistake, match=r"journal\.db: not a readable journal"):
        Journal(tmp_path)
    monkeypatch.undo()
    journal = Journal(tmp_path)
    assert found(journal) == {"old", "open"}
    journal.close()
