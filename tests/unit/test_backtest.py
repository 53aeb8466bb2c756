"""A back-test: the journal judged under other profiles beside a worker, which does not notice.

The worker's part is a real core on a real journal; profiles are files, as a person writes them.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from ingest.backtest import Backtest, Choice, Result, choice_of, moment_ms
from ingest.errors import Mistake
from ingest.journal.reader import Reader
from ingest.mqtt import Delivery
from ingest.safety.difference import Difference
from ingest.safety.replay import End, judge_end, judge_whole
from ingest.safety.track import Reading
from schemas.alerts import Alert
from schemas.messages import SAMPLES
from schemas.profile import Profiles, load_profiles
from schemas.topics import Stream
from tests.line import MODEL, PROFILES, START_MS, Line, copy_files, deliver, message, pulse, sample

DAY_MS = 86_400_000
LONG_AFTER_MS = 400_000


def current(at_s: float, seq: int, device: str = "tone-1", session: str = "s-1", start_ms: int = START_MS, **fields: Any) -> Delivery:
    sent_ms = start_ms + int(at_s * 1000)
    envelope = {"session_id": session, "boot_id": int(session[2:]), "uptime_ms": 60_000 + int(at_s * 1000)}
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, sent_ms, envelope_=envelope, **fields), sent_ms + 50, device)


def runtime(at_s: float, seq: int, device: str = "tone-1", session: str = "s-1", start_ms: int = START_MS, **fields: Any) -> Delivery:
    sent_ms = start_ms + int(at_s * 1000)
    envelope = {"session_id": session, "boot_id": int(session[2:]), "uptime_ms": 60_000 + int(at_s * 1000)}
    said = {"elapsed_s": int(at_s), "output_on_s": int(at_s)} | fields
    return deliver(Stream.RUNTIME, message(Stream.RUNTIME, seq, sent_ms, envelope_=envelope, **said), sent_ms + 50, device)


def session(seconds: int = 30, peaks: dict[int, float] | None = None, **where: Any) -> list[Delivery]:
    """A session with output throughout, and a peak of current at some seconds."""
    found = [runtime(0, 0, **where)]
    found += [current(s, s, i_peak_ua=(peaks or {}).get(s, 200.0), **where) for s in range(1, seconds)]
    return [*found, runtime(seconds, seconds, run_state="ended", end_reason="user", **where)]


def other_profiles(directory: Path, old: str = "i_peak_max_ua = 400.0", new: str = "i_peak_max_ua = 300.0", version: int = 2) -> Profiles:
    """The shipped profiles, with one line of the ToneDuo's changed."""
    directory.mkdir()
    for path in (Path(str(files("schemas"))) / "profiles").glob("*.toml"):
        said = path.read_text("utf-8")
        if path.stem == MODEL:
            assert old in said
            said = said.replace(old, new).replace("version = 1", f"version = {version}", 1)
        (directory / path.name).write_text(said, "utf-8")
    return load_profiles(directory)


def replayed(directory: Path, tried: Profiles = PROFILES, choice: Choice = Choice(), most: int = 100) -> Result:  # noqa: B008
    with Reader(directory) as reader:
        return Backtest(reader, PROFILES, tried, choice, most).run()


def told(result: Result) -> list[tuple[str, str, str | None, tuple[str, ...]]]:
    """(kind, rule, session, fields) of what differs, the gravest first."""
    return [(each.kind.value, each.alert.rule, each.alert.session_id, each.fields) for each in result.gravest]


def contents(directory: Path) -> dict[str, str]:
    """The files of a data directory by their content; SQLite's index of its log (-shm) is no content."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if not path.name.endswith("-shm") and (path.stat().st_size or not path.name.endswith("-wal"))
    }


# -- what differs ----------------------------------------------------------------------------------------


def test_a_lower_limit_adds_alerts_and_changes_the_limit_of_those_that_stay(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(peaks={5: 700.0, 20: 500.0}), pulse(START_MS + LONG_AFTER_MS))
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other"))
    assert [
        ("changed", "overcurrent-peak", "s-1", ("limit", "profile_version")),
        ("added", "overcurrent-peak", "s-1", ()),
    ] == told(result)
    said = result.to_json()
    assert {"devices": 1, "sessions": 1, "messages": 31, "samples": 31, "unreadable": 0} == said["judged"]
    counts = {"before": 1, "after": 2, "added": 1, "removed": 0, "changed": 1}
    assert (counts, [{"rule": "overcurrent-peak", "model": MODEL, "fw": "2.3.1", **counts}]) == (said["totals"], said["groups"])
    assert [("changed", 600.0, 450.0), ("added", None, 450.0)] == [
        (each["difference"], each["before"] and each["before"]["limit"], each["after"]["limit"]) for each in said["alerts"]
    ]


def test_a_higher_limit_removes_alerts(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(peaks={5: 700.0}), pulse(START_MS + LONG_AFTER_MS))
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other", new="i_peak_max_ua = 500.0"))
    assert [("removed", "overcurrent-peak", "s-1", ())] == told(result)


def test_a_profile_that_is_only_called_otherwise_is_told_as_that(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(peaks={5: 700.0}), pulse(START_MS + LONG_AFTER_MS))
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other", "levels = 5", "levels = 6"))
    assert ([("changed", "overcurrent-peak", "s-1", ("profile_version",))], 1) == (told(result), result.in_name_alone)


def test_the_same_profiles_differ_in_nothing(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(peaks={5: 700.0}), pulse(START_MS + LONG_AFTER_MS))
    result = replayed(tmp_path / "data", load_profiles())
    assert ({"before": 1, "after": 1, "added": 0, "removed": 0, "changed": 0}, [], False) == (
        result.to_json()["totals"], result.gravest, result.differs,
    )  # fmt: skip


def test_a_refused_message_counts_as_the_line_counts_it(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(), current(31, 31, i_peak_ua=500.0, level="three"), pulse(START_MS + LONG_AFTER_MS))
        assert [] == line.alerts()
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other"))
    assert [("added", "overcurrent-peak", "s-1", ())] == told(result)
    assert (True, 32) == (result.gravest[0].alert.from_rejected, result.samples)


def test_messages_that_came_twice_or_in_any_order_are_judged_once_and_in_event_time(tmp_path: Path) -> None:
    deliveries = session(peaks={5: 500.0, 20: 500.0}) * 2
    Random(3).shuffle(deliveries)
    with Line(tmp_path / "data") as line:
        line.one_by_one(deliveries).run(pulse(START_MS + LONG_AFTER_MS))
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other"))
    assert [5_050, 20_050] == [each.alert.onset_ms + 50 - START_MS for each in result.gravest]
    assert 31 == result.messages


def test_the_list_of_single_alerts_holds_the_gravest_and_the_counts_hold_all(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        for number in range(1, 5):
            line.run(*session(peaks={5: 500.0}, session=f"s-{number}", start_ms=START_MS + number * DAY_MS))
        line.run(pulse(START_MS + 9 * DAY_MS))
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other"), most=2)
    assert (["s-1", "s-2"], 4) == ([each.alert.session_id for each in result.gravest], result.to_json()["totals"]["added"])


# -- devices and the fleet -------------------------------------------------------------------------------


def test_the_rule_on_the_fleet_is_judged_under_either_set_of_profiles(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        for device in ("tone-1", "tone-2", "tone-3"):
            line.run(*session(peaks={5: 500.0}, device=device))
        line.run(pulse(START_MS + LONG_AFTER_MS))
    result = replayed(tmp_path / "data", other_profiles(tmp_path / "other"))
    assert {"overcurrent-peak": 3, "fleet-cluster": 1} == {g["rule"]: g["added"] for g in result.to_json()["groups"]}


def test_rules_on_history_know_the_sessions_that_are_not_judged(tmp_path: Path) -> None:
    """A fourth session within a day is too many, also when it is the only one that is looked at."""
    with Line(tmp_path / "data") as line:
        for number in range(1, 5):
            line.run(*session(90, session=f"s-{number}", start_ms=START_MS + number * 3_600_000))
        line.run(pulse(START_MS + DAY_MS))
        assert ["daily-overuse"] == [alert["rule"] for alert in line.alerts()]
    tried = other_profiles(tmp_path / "other")
    for choice in (Choice(), Choice(since_ms=START_MS + 4 * 3_600_000)):
        assert [("changed", "daily-overuse", "s-4", ("profile_version",))] == told(replayed(tmp_path / "data", tried, choice))
    assert [] == told(replayed(tmp_path / "data", tried, Choice(until_ms=START_MS + 4 * 3_600_000)))


# -- which sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "sessions"),
    [
        (Choice(), 4),
        (Choice(devices=("tone-2",)), 2),
        (Choice(since_ms=START_MS + 30_000), 4),
        (Choice(since_ms=START_MS + 30_001), 2),
        (Choice(until_ms=START_MS + DAY_MS), 2),
        (Choice(until_ms=START_MS + DAY_MS + 1), 4),
        (Choice(since_ms=START_MS + 10_000, until_ms=START_MS + 20_000, devices=("tone-1",)), 1),
        (Choice(since_ms=START_MS + 2 * DAY_MS), 0),
    ],
)
def test_sessions_that_overlap_the_time_are_judged_whole(tmp_path: Path, choice: Choice, sessions: int) -> None:
    with Line(tmp_path / "data") as line:
        for device in ("tone-1", "tone-2"):
            line.run(*session(device=device), *session(device=device, session="s-2", start_ms=START_MS + DAY_MS))
    result = replayed(tmp_path / "data", choice=choice)
    assert (sessions, 31 * sessions) == (result.sessions, result.samples)


@pytest.mark.parametrize(
    ("said", "ms"),
    [
        ("2h", 1_000_000_000_000 - 7_200_000),
        ("1.5d", 1_000_000_000_000 - 129_600_000),
        ("0s", 1_000_000_000_000),
        ("2026-05-01", 1_777_593_600_000),
        ("2026-05-01T08:30", 1_777_624_200_000),
        ("2026-05-01T08:30:00.5+02:00", 1_777_617_000_500),
        ("2026-05-01T06:30Z", 1_777_617_000_000),
    ],
)
def test_a_time_is_an_iso_date_or_time_in_utc_or_an_age(said: str, ms: int) -> None:
    assert ms == moment_ms(said, 1_000_000_000_000, "--since")


MISTAKES = {
    "no time": (("yesterday", None, None), "--since 'yesterday': no time; write 2026-05-01, 2026-05-01T08:30, or an age such as 90m, 2h or 7d"),
    "an empty time": ((None, "", None), "--until '': no time; write 2026-05-01, 2026-05-01T08:30, or an age such as 90m, 2h or 7d"),
    "the wrong way round": (("1h", "2h", None), "--since 1h does not lie before --until 2h; no session can overlap that time"),
    "no device": ((None, None, " ,"), "--devices ' ,': names no device; write their ids with commas between them"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_choice_that_makes_no_sense_is_one_sentence(case: str) -> None:
    given, sentence = MISTAKES[case]
    with pytest.raises(Mistake) as caught:
        choice_of(*given, now_ms=START_MS)
    assert (sentence, 2) == (str(caught.value), caught.value.exit_code)


# -- the end of a session --------------------------------------------------------------------------------


def ended(last: str, seconds: int = 10, seqs: range | None = None) -> Any:
    """The track of a session of one runtime reading a second, the last one in another state."""
    numbers = list(seqs or range(seconds))
    found = []
    for at, seq in enumerate(numbers):
        fields = {"run_state": last if at == len(numbers) - 1 else "running", "elapsed_s": at, "output_on_s": at}
        said = SAMPLES[Stream.RUNTIME].model_validate_json(orjson.dumps(sample(Stream.RUNTIME, **fields)))
        found.append(Reading(at * 1000, "runtime", said, at * 1000 + 9_999_999, 7, seq, MODEL, "B", "2.3.1", None))
    return judge_whole("tone-1", "s-1", found)[0]


Gap = tuple[str, float, int, int | None, str | None]


@pytest.mark.parametrize(
    ("last", "end", "expected"),
    [
        ("running", End(500_000, None, 0), [("s", 491.0, 9_000, None, None)]),
        ("running", End(500_000, 60_000, 0), [("s", 51.0, 9_000, 60_000, "resumed")]),
        ("running", End(500_000, 24_000, 0), []),
        ("running", End(500_000, 24_001, 0), [("s", 15.001, 9_000, 24_001, "resumed")]),
        ("running", End(143_999, None, 5), []),
        ("running", End(144_000, None, 0), [("s", 135.0, 9_000, None, None)]),
        ("paused", End(500_000, None, 5), []),
        ("ended", End(500_000, None, 0), []),
        ("ended", End(500_000, None, 1), [("share", 0.1, 0, 9_000, "session-ended")]),
        ("running", End(500_000, 20_000, 1), [("share", 0.1, 0, 9_000, "session-ended")]),
    ],
)
def test_silence_at_the_end_is_judged_in_event_time_and_so_is_what_never_came(last: str, end: End, expected: list[Gap]) -> None:
    assert expected == [(a.unit, a.value, a.onset_ms, a.closed_ms, a.close_reason) for a in judge_end(ended(last), end)]


# -- beside the worker -----------------------------------------------------------------------------------


def test_a_stopped_workers_files_are_as_they_were(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(peaks={5: 700.0}), pulse(START_MS + LONG_AFTER_MS))
    before = contents(tmp_path / "data")
    assert 1 == replayed(tmp_path / "data").sessions
    assert before == contents(tmp_path / "data")


def test_the_worker_goes_on_while_a_backtest_runs_and_what_it_takes_in_meanwhile_is_not_judged(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(), *session(device="tone-2"))
        seen = []

        def meanwhile(part: float) -> None:
            seen.append(part)
            at = len(seen) + 1
            line.run(*session(peaks={5: 900.0}, session=f"s-{at}", start_ms=START_MS + at * DAY_MS), *session(device="tone-3"))
            line.run(current(at + 0.5, 90 + at, device="tone-2"))

        before = contents(tmp_path / "data")
        with Reader(tmp_path / "data") as reader:
            assert before == contents(tmp_path / "data")
            result = Backtest(reader, PROFILES, PROFILES, Choice(), 10).run(meanwhile)
        assert ([0.5, 1.0], 2, 62) == (seen, result.sessions, result.samples)
        assert line.journal.ledger().accepted == 62 + 4 * 31 + 2
        assert "overcurrent-peak" in {alert["rule"] for alert in line.alerts()}


def test_a_backtest_keeps_no_transaction_open_so_the_worker_can_shorten_its_log_meanwhile(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session(), *session(device="tone-2"))
        other = sqlite3.connect(tmp_path / "data" / "journal.db", isolation_level=None)
        emptied = []

        def shorten(part: float) -> None:
            line.run(*session(device="tone-3", session=f"s-{len(emptied) + 1}"))
            emptied.append(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())

        with Reader(tmp_path / "data") as reader:
            Backtest(reader, PROFILES, PROFILES, Choice(), 10).run(shorten)
        other.close()
        assert [(0, 0, 0)] * 2 == emptied


UNREADABLE = {
    "no journal": (lambda d: (d / "journal.db").unlink(), "DATA: there is no journal; name the data directory of a worker with --data-dir"),
    "not SQLite": (
        lambda d: (d / "journal.db").write_bytes(b"rubbish" * 1000),
        "DATA/journal.db: not a readable journal (file is not a database); restore it from a backup",
    ),
    "another program's": (
        lambda d: execute(d, "DROP TABLE raw"),
        "DATA/journal.db: is an SQLite file, but not a journal; choose another data directory",
    ),
    "newer": (
        lambda d: execute(d, "PRAGMA user_version = 99"),
        "DATA/journal.db: written by a newer version of this program; install that version",
    ),
    "older": (
        lambda d: execute(d, "PRAGMA user_version = 1"),
        "DATA/journal.db: written by an older version of this program; start its worker once with this one",
    ),
    "empty": (lambda d: execute(d, "DELETE FROM message"), "DATA/journal.db: holds no messages yet; there is nothing to judge"),
}


def execute(directory: Path, statement: str) -> None:
    db = sqlite3.connect(directory / "journal.db", isolation_level=None)
    db.execute(statement)
    db.close()


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_journal_that_cannot_be_judged_is_one_sentence(case: str, tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session())
    spoil, sentence = UNREADABLE[case]
    spoil(tmp_path / "data")
    with pytest.raises(Mistake) as caught:
        replayed(tmp_path / "data")
    assert (sentence, 2) == (str(caught.value).replace(str(tmp_path / "data"), "DATA"), caught.value.exit_code)


def test_a_log_that_cannot_be_opened_or_made_is_one_sentence(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session())
    (tmp_path / "data" / "journal.db-wal").mkdir()
    with pytest.raises(Mistake) as caught:
        replayed(tmp_path / "data")
    assert (
        f"{tmp_path}/data/journal.db: cannot be read (unable to open database file); journal.db-wal and journal.db-shm must be "
        "beside it, or this user be allowed to make them: run this as the worker's user, or copy the directory and name the copy "
        "with --data-dir"
    ) == str(caught.value)


def test_the_log_of_a_worker_that_was_killed_is_read_as_well(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session())
        copy_files(tmp_path / "data", tmp_path / "copy")
    assert (tmp_path / "copy" / "journal.db-wal").stat().st_size > 0
    before = contents(tmp_path / "copy")
    assert 31 == replayed(tmp_path / "copy").messages
    assert before == contents(tmp_path / "copy")


def test_a_device_of_which_nothing_is_on_record_is_one_sentence(tmp_path: Path) -> None:
    with Line(tmp_path / "data") as line:
        line.run(*session())
    with pytest.raises(Mistake) as caught:
        replayed(tmp_path / "data", choice=Choice(devices=("tone-1", "tone-9")))
    assert "--devices tone-9: nothing is on record of it; see the devices on the worker's page" == str(caught.value)


# -- the line agrees -------------------------------------------------------------------------------------

STOOD = (
    "id", "rule", "severity", "device_id", "session_id", "onset_ms", "opened_ms", "closed_ms", "close_reason", "value", "limit",
    "unit", "profile_id", "profile_version", "state", "detail", "service", "devices",
)  # fmt: skip


class Everything(Result):
    """Keeps every alert of the judgement under the profiles in force, the same ones too."""

    def __init__(self) -> None:
        super().__init__(0)
        self.alerts: list[Alert] = []

    def add(self, differences: list[Difference]) -> None:
        self.alerts += [each.before for each in differences if each.before]
        super().add(differences)


def stood(alerts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stands, apart from the rule that speaks of arrival."""
    kept = [{name: a[name] for name in STOOD} for a in alerts if a["state"] != "withdrawn" and a["rule"] != "telemetry-gap"]
    return sorted(kept, key=lambda a: (a["onset_ms"], a["rule"], a["id"]))


def life(device: str, chance: Random) -> Iterator[Delivery]:
    """Five sessions of a device, faults and refused messages among them; the third is cut off by a reset."""
    for number in range(1, 6):
        start_ms = START_MS + number * chance.choice((3_600_000, DAY_MS // 4))
        where = {"device": device, "session": f"s-{number}", "start_ms": start_ms}
        cut, seconds, seq = number == 3, chance.randint(60, 90), 0
        resets = chance.choice(("watchdog", "power_on")) if number == 4 else "power_on"
        faults = {kind: (at := chance.randrange(5, 50), at + chance.randint(1, 14)) for kind in chance.sample(FAULTS, 3)}
        boot = {"session_id": f"s-{number}", "boot_id": number, "uptime_ms": 100}
        yield deliver(Stream.HEALTH, message(Stream.HEALTH, 0, start_ms, envelope_=boot, reset_reason=resets), start_ms, device)
        for s in range(seconds):
            now = {kind for kind, (begins, ends) in faults.items() if begins <= s < ends}
            if s % 5 == 0:
                seq += 1
                yield runtime(s, seq, **where, zone_elapsed_s=s, zone="eyelid_l" if "zone" in now else "cheek_l")
            for half in (0.25, 0.75):
                seq += 1
                off = {"state": "off", "z_ohm": 2e6} if "lead off" in now else {"z_ohm": 8000.0 + chance.random()}
                sent_ms = start_ms + int((s + half) * 1000)
                told = {"envelope_": {**boot, "uptime_ms": 60_000 + int(s * 1000)}, **off}
                yield deliver(Stream.CONTACT, message(Stream.CONTACT, seq, sent_ms, **told), sent_ms + 50, device)
            seq += 1
            fields: dict[str, Any] = {"i_rms_ua": 141.0 + chance.random()}
            fields |= {"i_peak_ua": 620.0 + s} if "peak" in now else {}
            fields |= {"i_rms_ua": 380.0 + s, "i_peak_ua": 500.0} if "rms" in now else {}
            fields |= {"level": "three"} if chance.random() < 0.03 else {}
            yield current(s + 0.9, seq, **where, **fields)
        if not cut:
            yield runtime(seconds, seq + 1, **where, run_state="ended", end_reason="completed")


FAULTS = ("lead off", "peak", "rms", "zone", "nothing")


@pytest.mark.parametrize("seed", range(6))
def test_replayed_under_the_same_profiles_a_messy_delivery_gives_the_alerts_that_the_line_has_on_record(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    deliveries = []
    for device in ("tone-1", "tone-2", "tone-3"):
        for sent in life(device, chance):
            late_ms = int(chance.choice((300, 300, 3_000, 30_000)) * chance.random())
            deliveries += [sent._replace(received_ms=sent.received_ms + late_ms)] * (2 if chance.random() < 0.1 else 1)
    deliveries.sort(key=lambda each: each.received_ms)
    at = 0
    with Line(tmp_path) as line:
        while at < len(deliveries):
            batch = deliveries[at : at + chance.randint(1, 200)]
            at += len(batch)
            line.run(*batch, pulse(batch[-1].received_ms))
        last_ms = deliveries[-1].received_ms
        line.run(pulse(last_ms + LONG_AFTER_MS)).run(pulse(last_ms + 2 * LONG_AFTER_MS))
        expected = stood(line.alerts())
        with Reader(tmp_path) as reader:
            backtest = Backtest(reader, PROFILES, PROFILES, Choice(), 0)
            backtest.result = Everything()
            backtest.run()
    assert expected == stood([alert.model_dump(mode="json") for alert in backtest.result.alerts])
    assert {"overcurrent-peak", "overcurrent-rms"} <= {alert["rule"] for alert in expected}
