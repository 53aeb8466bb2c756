"""What the journal forgets changes no judgement."""

import random
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ingest import forget
from ingest.forget import judged_from
from ingest.rollup import week_of, weeks_of
from ingest.safety.history import DAY_MS, WEEK_MS
from schemas.alerts import FLEET, Alert, alert_id
from schemas.measurements import WEEK
from schemas.sessions import SessionRecord
from tests.line import DEVICE, IN_MEMORY, MODEL, START_MS, Line, deliver, pulse
from tests.unit.test_rollup import PROFILES, current, points

YEAR = 365
Z_OHM = 8e3


def session(day: float, z_ohm: float = Z_OHM, device: str = DEVICE, output_s: float = 300.0, completed: bool = True) -> SessionRecord:
    """One that began so many days before START_MS; use is spread over its five minutes."""
    started_ms = START_MS - round(day * DAY_MS)
    minutes = {started_ms // 60_000 + n: output_s / 5 for n in range(5)}
    return SessionRecord.model_construct(
        device_id=device, model=MODEL, hw="B", fw="2.3.1", session_id=f"s{started_ms}", profile_id=MODEL, profile_version=1,
        program_id=None, attachment_id=None, started_ms=started_ms, last_ms=started_ms + 300_000, ended=True, end_reason="completed",
        running_s=output_s, observed_s=output_s, unobserved_s=0.0, coverage=1.0, messages=10, lost_messages=0, clock_ok=True,
        output_s=output_s, active_s=output_s, effective_s=output_s, planned_s=300.0, completion=1.0, completed=completed,
        contact_efficiency=1.0, delivery_ratio=1.0, charge_mc=42.3, net_charge_mc_cm2=0.0, mean_intensity_ua=141.0, i_peak_max_ua=200.0,
        i_rms_max_ua=141.0, z_median_ohm=z_ohm, temp_head_max_c=None, level_max=3, level_downs=0, reconnects=0, zone_s={}, minutes=minutes,
    )  # fmt: skip


def lived(line: Line, *sessions: SessionRecord) -> Line:
    """The device has had these sessions, and was judged."""
    line.run(current(0, START_MS))  # it is known

    def go_on() -> None:
        chronicle = line.core._desk.chronicle
        for each in sorted(sessions, key=lambda s: s.started_ms):
            line.journal.put_session(each, 7)
            chronicle._judge_use(each, each.last_ms)
        chronicle.judge_life(DEVICE, START_MS)

    return line.write(go_on)


def judged_again(line: Line, latest: SessionRecord) -> list[Any]:
    said: list[Any] = []
    chronicle = line.core._desk.chronicle
    line.write(lambda: said.extend([*chronicle.judge_life(DEVICE, START_MS), *chronicle._judge_use(latest, START_MS)[0]]))
    return said


def forgotten(line: Line, now_ms: int = START_MS) -> Line:
    return line.run(pulse(now_ms)).sum_up()


def starts(line: Line) -> list[int]:
    """Days before START_MS at which sessions on record began, oldest first."""
    return [round((START_MS - r.started_ms) / DAY_MS) for r, _ in line.journal.sessions(DEVICE, 0, 2**62)]


UNTIL_DAYS = (START_MS - week_of(START_MS - (730 + 14 + 9) * DAY_MS)) / DAY_MS
"""Two years, what late data can touch, what rules look back at, and the rest of the week."""


def test_sessions_and_what_was_over_are_forgotten_after_their_time_and_no_sooner(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        often = [session(day + n / 10) for day in (1_200, 745, 3) for n in range(5)]  # five in a day: too often
        lived(line, *often, *(session(day) for day in range(0, 1_100, 20)))
        assert {(START_MS - a["onset_ms"]) // DAY_MS for a in line.alerts()} == {1_200, 745, 3}
        forgotten(line)
        days = [day for day in range(1_080, -1, -20)]
        measures = [1_200] * 5 + [day for day in days if day > UNTIL_DAYS][-5:]  # what wear is measured by
        assert starts(line) == sorted([0, *measures, *[745] * 5, *[3] * 5, *(day for day in days if day <= UNTIL_DAYS)], reverse=True)
        assert {(START_MS - a["onset_ms"]) // DAY_MS for a in line.alerts()} == {745, 3}
        gone = line.journal._db.execute("SELECT count(*) FROM alert_event WHERE alert_id NOT IN (SELECT id FROM alert)").fetchone()
        assert gone == (0,)


def test_an_alert_that_was_forgotten_is_neither_raised_again_nor_one_on_record_withdrawn(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        sessions = [session(day, Z_OHM * (1 + (1_100 - day) / 1_100)) for day in range(1_100, 0, -4)]
        lived(line, *sessions, *(session(900 - n / 10) for n in range(5)))
        before = line.alerts()
        assert {"electrode-wear", "daily-overuse"} == {a["rule"] for a in before}
        forgotten(line)
        assert judged_again(line, sessions[-1]) == []
        assert line.alerts() == [a for a in before if a in line.alerts()]
        assert [a for a in before if a["state"] == "open"] == line.alerts(state="open")


def test_an_alert_of_the_days_that_are_only_looked_back_at_stays_as_it_is(tmp_path: Path) -> None:
    """It was over before judging begins, and its sessions are still there."""
    with Line(tmp_path) as line:
        fresh = [session(1_000 + n) for n in range(5)]
        worn, cleaned = [session(752 - n / 2, 2 * Z_OHM) for n in range(5)], [session(748 - n / 2) for n in range(5)]
        lived(line, *fresh, *(session(900 - n) for n in range(5)), *worn, *cleaned)
        (alert,) = line.alerts(rule="electrode-wear")
        assert alert["state"] == "closed"
        forgotten(line)
        assert judged_again(line, cleaned[-1]) == []
        assert line.alerts(rule="electrode-wear") == [alert]


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_a_life_is_judged_as_if_nothing_had_been_forgotten(chance: random.Random) -> None:
    days = sorted(chance.sample(range(3, 1_500), 110), reverse=True)
    worn, sessions = 1.0, []
    for day in days:
        worn = 1.0 if chance.random() < 0.02 else worn * chance.choice([1.0, 1.0, 1.02, 1.05, 0.97])
        sessions += [session(day + n / 24, Z_OHM * worn) for n in range(chance.choice([1, 1, 1, 1, 5]))]
    later = [session(day / 10, Z_OHM * worn * chance.choice([0.5, 1, 1.6])) for day in range(25, 0, -1)]
    swaps = chance.sample(days, 2)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        found = []
        for forgets in (False, True):
            with Line(Path(root) / str(forgets)) as line:
                for n, day in enumerate(swaps):
                    line.write(lambda n=n, day=day: line.journal.put_identity(DEVICE, START_MS - day * DAY_MS, "L-1", f"A-{n}"))
                lived(line, *sessions)
                if forgets:
                    forgotten(line)
                lived(line, *later)
                since = line.journal.judged_from(DEVICE) if forgets else 0
                found.append((line.alerts(), since))
        (whole, _), (some, since) = found
        assert since > 0
        assert [a for a in whole if a["onset_ms"] >= since] == [a for a in some if a["onset_ms"] >= since]
        assert [a for a in some if a["onset_ms"] < since] == [a for a in whole if a["onset_ms"] < since and a in some]


def test_what_is_open_is_not_forgotten_nor_what_it_rests_on(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        worn = [session(1_500 - day, Z_OHM) for day in range(5)] + [session(1_490 - day, 4 * Z_OHM) for day in range(20)]
        lived(line, *worn)
        (alert,) = line.alerts()
        assert alert["state"] == "open"
        forgotten(line)
        assert line.alerts() == [alert]
        assert judged_again(line, worn[-1]) == []
        fresh = session(1, Z_OHM)
        line.write(lambda: line.journal.put_identity(DEVICE, START_MS - 2 * DAY_MS, "L-1", "A-2"))
        lived(line, fresh)
        assert judged_again(line, fresh) == []


def cluster_alert(device: str, day: float, rule: str = "overtemperature") -> Alert:
    onset_ms = START_MS - round(day * DAY_MS)
    return Alert(
        id=alert_id(rule, device, "s", onset_ms), rule=rule, rule_version=1, severity="critical", device_id=device, session_id="s",
        model=MODEL, hw="B", fw="2.3.1", profile_id=None, profile_version=None, state="closed", onset_ms=onset_ms, opened_ms=onset_ms,
        updated_ms=onset_ms, closed_ms=onset_ms + 1_000, close_reason="cleared", value=44, limit=43, unit="°C", source="a test",
    )  # fmt: skip


def judge_fleet(line: Line) -> list[Any]:
    said: list[Any] = []
    chronicle = line.core._desk.chronicle

    def judge() -> None:
        chronicle.critical_changed()
        chronicle._fleet_ms = None
        said.extend(chronicle.judge_fleet(START_MS))

    line.write(judge)
    return said


@pytest.mark.parametrize("end_day", [600, 740, 744, 748, 755, 800])
def test_a_cluster_that_reaches_over_the_limit_stays_as_it_is(tmp_path: Path, end_day: int) -> None:
    """Dangers on three devices, one every three days from long before: one cluster."""
    with Line(tmp_path) as line:
        days = range(1_000, end_day, -3)
        line.run(*(deliver(current(0, START_MS).topic.decode().replace(DEVICE, f"tone-{n}"), current(0, START_MS).payload) for n in range(3)))
        for n, day in enumerate(days):
            line.write(lambda n=n, day=day: line.journal.put_alert(cluster_alert(f"tone-{n % 3}", day), "s"))
        judge_fleet(line)
        before = [a for a in line.alerts() if a["device_id"] == FLEET]
        assert len(before) == 1
        forgotten(line)
        assert judge_fleet(line) == []
        assert [a for a in line.alerts() if a["device_id"] == FLEET] == (before if end_day < 765 else [])


def test_weeks_go_on_counting_what_was_forgotten(tmp_path: Path) -> None:
    sessions = [session(day) for day in range(2, 1_000, 2)]
    with Line(tmp_path / "whole") as whole, Line(tmp_path / "some") as some:
        for line in (whole, some):
            lived(line, *sessions)
        forgotten(some)
        assert len(starts(some)) < 400
        for line in (whole, some):
            lived(line, session(0.5))
        everything = [record for record, _ in whole.journal.sessions(DEVICE, 0, 2**62)]
        expected = weeks_of(DEVICE, everything, PROFILES.find)[-1]
        assert expected.fields["course_sessions"] == 500
        assert points(forgotten(some, START_MS + 60_000), WEEK)[-1][1] == expected.fields


def test_refused_messages_are_kept_as_long_as_what_lasts(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        for day in (731, 729):
            line.run(deliver("mc/v1/tone-1/current", b"broken %d" % day, START_MS - day * DAY_MS))
        assert len(line.reasons()) == 2
        ledger = line.journal.ledger()
        forgotten(line)
        assert len(line.reasons()) == 1
        assert line.journal.ledger() == ledger


def test_forgetting_goes_in_steps_and_outlives_a_death_between_any_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "STEP_MS", 4 * WEEK_MS)
    with Line(tmp_path / "0") as line:
        lived(line, *(session(day) for day in range(1_100, 0, -3)))
        counts, at = [len(starts(line))], 0
        line.part(1, pulse(START_MS))
        while line.core.sums_due():
            line.core._turn()
            if len(starts(line)) != counts[-1]:
                counts.append(len(starts(line)))
                with line.die(tmp_path / f"copy-{at}") as later:
                    left = starts(forgotten(later))
                at += 1
        assert max(a - b for a, b in zip(counts, counts[1:], strict=False)) <= 10
        assert len(counts) > 5
        assert left == starts(line)


@given(st.lists(st.tuples(st.integers(0, 100), st.one_of(st.none(), st.integers(0, 60))), max_size=12))
def test_nothing_stood_when_judging_begins(alerts: list[tuple[int, int | None]]) -> None:
    stood = [(onset, None if lasts is None else onset + lasts) for onset, lasts in alerts]
    from_ms = judged_from(90, stood)
    assert from_ms <= 90
    assert [a for a in stood if a[0] < from_ms and (a[1] is None or a[1] >= from_ms)] == []
