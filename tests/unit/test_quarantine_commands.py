"""`microcurrent quarantine` on a stopped worker: what people choose, what they are told, what cannot be meant."""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from ingest.cli import app
from ingest.errors import Mistake
from ingest.journal.tables import _GUARDED, SCHEMA
from schemas.topics import Stream
from tests.line import DEVICE, START_MS, Line, deliver, message

DAY_MS = 86_400_000


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Fifteen messages that were too old, and one that is none."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "data"
    with Line(directory, retention_days=1) as line:
        for seq in range(15):
            sent_ms = START_MS - 10 * DAY_MS + 1_000 * seq
            line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, seq, sent_ms), START_MS + seq, device=f"d-{seq % 3}"))
        line.run(deliver(Stream.CURRENT, b"\x1b[2J '; DROP TABLE quarantine;--", START_MS + DAY_MS))
    yield directory
    structlog.reset_defaults()  # a command's log goes to a stream that is closed after it


def said(stopped: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["quarantine", *words, "--data-dir", str(stopped)], catch_exceptions=True)
    if isinstance(done.exception, Mistake):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def told(stopped: Path, *words: str) -> Any:
    """What a command says with --json, to programs."""
    code, text = said(stopped, *words, "--json")
    return code, json.loads(text)


def test_people_choose_by_reason_device_time_and_state(stopped: Path) -> None:
    def ids(*words: str) -> list[int]:
        return [entry["id"] for entry in told(stopped, "list", *words)[1]["entries"]]

    assert (ids("--reason", "json_syntax"), ids("--limit", "2"), ids("--device", "d-2")) == ([16], [16, 15], [15, 12, 9, 6, 3])
    assert (ids("--until", _time(START_MS + 1)), ids("--since", _time(START_MS + DAY_MS))) == ([2, 1], [16])
    assert (ids("--state", "discarded"), len(ids("--state", "open")), ids("--device", "'; DROP TABLE quarantine;--")) == ([], 16, [])
    found = told(stopped, "list", "--limit", "1")[1]
    assert (found["messages"], found["by_reason"]) == (16, {"too_old": 15, "json_syntax": 1})
    assert found["by_device"] == {"d-0": 5, "d-1": 5, "d-2": 5, DEVICE: 1}
    some = told(stopped, "list", "--since", _time(START_MS + 12))[1]
    assert (some["messages"], some["by_device"]) == (4, {"d-0": 1, "d-1": 1, "d-2": 1, DEVICE: 1})
    assert r"\x1b[2J '; DROP TABLE" in said(stopped, "show", "16")[1]


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def test_a_dry_run_tells_what_would_come_of_it_and_does_nothing(stopped: Path) -> None:
    assert told(stopped, "replay", "--all", "--dry-run") == (0, {"outcomes": {"kept": 15, "json_syntax": 1}})
    assert told(stopped, "list", "--state", "open")[1]["messages"] == 16


def test_a_stopped_worker_is_left_a_wish_and_what_is_discarded_has_its_actor(stopped: Path) -> None:
    assert said(stopped, "replay", "1", "2", "--by", "Ada") == (3, "0 replayed; 2 wait for the worker; 'quarantine list --state waiting' shows them\n")
    assert said(stopped, "replay", "1")[0] == 0  # it waits already
    assert told(stopped, "replay", "1", "2", "3", "--dry-run")[1] == {"outcomes": {"not_open": 2, "kept": 1}}
    assert said(stopped, "discard", "16", "--by", "Ada", "--note", "noise") == (0, "1 discarded\n")
    assert said(stopped, "discard", "1", "16") == (1, "0 discarded; 2 were not open\n")
    shown = told(stopped, "show", "16")[1]
    assert (shown["state"], shown["actor"], [(e["event"], e["note"]) for e in shown["events"]]) == ("discarded", "Ada", [("discard", "noise")])
    with Line(stopped) as line:
        line.run()
        assert [entry["state"] for entry in line.journal.quarantine()][-2:] == ["replayed", "replayed"]
        assert line.journal.ledger().balanced


@pytest.mark.parametrize(
    "words,code,part",
    [
        (("replay",), 2, "say which refused messages"),
        (("replay", "1", "--all"), 2, "not both"),
        (("replay", "--all"), 2, "that would replay 16 messages; say --yes"),
        (("discard", "--reason", "too_old"), 2, "that would discard 15 messages; say --yes"),
        (("replay", "99"), 1, "1 of these ids name no entry"),
        (("replay", "0"), 2, "ids are numbers from 1"),
        (("show", "99"), 1, "there is none with this id"),
        (("list", "--since", "yesterday"), 2, "since 'yesterday' is no time"),
        (("list", "--since", "1h", "--until", "2h"), 2, "exchange them"),
        (("discard", "1", "--by", "x" * 200), 2, "a person's name"),
        (("discard", "1", "--by", "Ada", "--note", "\x00"), 2, "plain text"),
    ],
)
def test_what_cannot_be_meant_is_told_in_a_sentence_and_nothing_is_done(stopped: Path, words: tuple[str, ...], code: int, part: str) -> None:
    found = said(stopped, *words)
    assert found[0] == code and part in found[1] and "\n" not in found[1]
    assert told(stopped, "list", "--state", "open")[1]["messages"] == 16


def test_a_journal_of_before_keeps_its_refused_messages_with_all_their_bytes(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.executescript(SCHEMA.removesuffix(_GUARDED) + "PRAGMA user_version = 3;")
        facts = {"uuid": "u", "running": 0, "processed_upto": 2, "stored": 0, "duplicate": 0, "quarantined": 2, "raw_pruned_ms": 0}
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(facts.items()))
        for n, device in enumerate((DEVICE, None), start=1):
            payload = message(Stream.CURRENT, n)
            db.execute("INSERT INTO raw VALUES (?, ?, ?, ?, 0)", (n, START_MS, b"mc/v1/%s/current" % DEVICE.encode(), payload))
            db.execute(
                "INSERT INTO quarantine (raw_id, received_ms, topic, payload, reason, detail, device_id, boot_id, seq, fingerprint) "
                "VALUES (?, ?, ?, ?, 'schema', 'x', ?, 7, ?, ?)", (n, START_MS, b"mc/v1/%s/current" % DEVICE.encode(), payload, device, n, b"%d" % n),
            )  # fmt: skip
    db.close()
    with Line(tmp_path) as line:
        entry, payload, _ = line.journal.quarantined_entry(1)
        assert (payload, entry["bytes"], entry["kept"], entry["last_ms"]) == (message(Stream.CURRENT, 1), len(payload), "whole", START_MS)
        assert line.journal.quarantine_by_reason() == {"schema": 2}
        assert line.journal.quarantine_state()["bytes"] == 2 * len(payload)
