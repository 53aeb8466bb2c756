"""What is true of a simulation, what follows from much use, and how alerts are scored against it."""

from dataclasses import replace

import pytest

from ingest.simulator.score import RuleScore, Score, Verdict, score, score_by_rule
from ingest.simulator.truth import (
    DeviceMade,
    End,
    Expectation,
    MessageMade,
    Truth,
    TruthFile,
    digest,
    read_truth,
)
from ingest.simulator.use import DAY_MS, Clusters, Follows, Use, Used, Wear
from schemas.alerts import FLEET, Severity
from tests.simulated import START_MS, TONEDUO, profile_of

FACTS = (
    DeviceMade("d", "toneduo-400", 7, "output latch-up"),
    MessageMade("d", 1, 2, "current", START_MS, digest(b"x")),
    Expectation("d", "s", 7, "overcurrent-peak", Severity.CRITICAL, START_MS, START_MS + 1),
    End(START_MS, 1, 5, 1, 0, 0),
)


def test_a_truth_file_reads_back_as_written_and_a_torn_last_line_is_left_out(tmp_path) -> None:
    path = tmp_path / "truth.jsonl"
    truth_file = TruthFile(path)
    truth_file.write(FACTS[0])
    truth_file.message("d", 1, 2, "current", START_MS, b"x")
    truth_file.write(FACTS[2])
    truth_file.write(FACTS[3])
    truth_file.close()
    whole = Truth(devices=(FACTS[0],), messages=(FACTS[1],), expectations=(FACTS[2],), end=FACTS[3])
    assert read_truth(path) == whole
    path.write_bytes(path.read_bytes()[:-5])
    assert read_truth(path) == replace(whole, end=None)


def alert(**changes) -> dict:
    return {
        "id": "a", "rule": "overcurrent-peak", "device_id": "d", "session_id": "s", "severity": "critical",
        "state": "closed", "opened_ms": START_MS + 1_000, **changes,
    }  # fmt: skip


CLUSTER = Expectation(FLEET, None, 7, "fleet-cluster", Severity.CRITICAL, START_MS, START_MS + 1)
EXPECTED = Truth(expectations=(FACTS[2],))
LATER_MS = START_MS + 1_000_000


def counts(result: Score) -> tuple[int, int, int, int]:
    return result.expected, result.raised, result.missed, result.false


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        ([alert()], (1, 1, 0, 0)),
        ([], (1, 0, 1, 0)),
        ([alert(severity="warning")], (1, 1, 1, 0)),
        ([alert(), alert(id="b")], (1, 2, 0, 1)),
        ([alert(state="withdrawn")], (1, 0, 1, 0)),
        ([alert(device_id="other")], (1, 1, 1, 1)),
        ([alert(session_id="other")], (1, 1, 1, 1)),
        ([alert(rule="telemetry-gap")], (1, 1, 1, 1)),
    ],
)
def test_the_score_counts_each_expectation_and_each_alert_once(alerts, expected) -> None:
    assert counts(score(EXPECTED, alerts, LATER_MS)) == expected


def test_what_is_not_yet_due_is_neither_missed_nor_false() -> None:
    assert counts(score(EXPECTED, [], START_MS)) == (0, 0, 0, 0)
    assert counts(score(EXPECTED, [alert()], START_MS)) == (0, 1, 0, 0)


def test_what_is_not_required_may_be_raised_or_not() -> None:
    optional = Truth(expectations=(replace(FACTS[2], required=False),))
    assert counts(score(optional, [], LATER_MS)) == (0, 0, 0, 0)
    assert counts(score(optional, [alert()], LATER_MS)) == (0, 1, 0, 0)


def test_two_expectations_that_are_alike_need_two_alerts() -> None:
    """A lot and a firmware may cluster at the same moment."""
    both = Truth(expectations=(CLUSTER, CLUSTER))
    of_fleet = alert(rule="fleet-cluster", device_id=FLEET, session_id=None)
    assert counts(score(both, [of_fleet, {**of_fleet, "id": "b"}], LATER_MS)) == (2, 2, 0, 0)
    assert counts(score(both, [of_fleet], LATER_MS)) == (2, 1, 1, 0)


def test_an_expectation_without_session_takes_an_alert_of_any_session_or_of_none() -> None:
    anywhere = Truth(expectations=(replace(FACTS[2], session_id=None),))
    for session_id in (None, "s", "other"):
        assert counts(score(anywhere, [alert(session_id=session_id)], LATER_MS)) == (1, 1, 0, 0)


def test_what_is_required_is_matched_before_what_is_only_allowed() -> None:
    required = replace(FACTS[2], session_id=None)
    nearer = replace(required, onset_ms=START_MS + 1_000, required=False)
    assert counts(score(Truth(expectations=(nearer, required)), [alert()], LATER_MS)) == (1, 1, 0, 0)


def test_the_score_by_rule_counts_each_rule_by_itself() -> None:
    other = replace(FACTS[2], rule="dc-offset", severity=Severity.WARNING)
    allowed = replace(FACTS[2], rule="electrode-wear", severity=Severity.INFO, required=False)
    second = replace(FACTS[2], session_id="t")
    truth = Truth(expectations=(FACTS[2], second, other, allowed))
    alerts = [
        alert(), alert(id="b", session_id="t", opened_ms=START_MS + 3_000), alert(id="c", session_id="t"),
        alert(id="d", rule="zone-dwell"), alert(id="e", rule="electrode-wear", severity="info"),
    ]  # fmt: skip
    assert score_by_rule(score(truth, alerts, LATER_MS).details) == [
        RuleScore("dc-offset", expected=1, raised=0, missed=1, false=0, delay_p50_s=None, delay_max_s=None),
        RuleScore("electrode-wear", expected=0, raised=1, missed=0, false=0, delay_p50_s=1.0, delay_max_s=1.0),
        RuleScore("overcurrent-peak", expected=2, raised=3, missed=0, false=1, delay_p50_s=1.0, delay_max_s=1.0),
        RuleScore("zone-dwell", expected=0, raised=1, missed=0, false=1, delay_p50_s=None, delay_max_s=None),
    ]


def test_what_is_only_allowed_may_come_again_and_what_is_required_may_not() -> None:
    allowed = Truth(expectations=(replace(FACTS[2], required=False),))
    assert counts(score(allowed, [alert(), alert(id="b")], LATER_MS)) == (0, 2, 0, 0)
    assert counts(score(EXPECTED, [alert(), alert(id="b")], LATER_MS)) == (1, 2, 0, 1)


def test_the_score_tells_the_delay_from_fault_to_alert() -> None:
    (detail,) = score(EXPECTED, [alert()], LATER_MS).details
    assert (detail.verdict, detail.delay_s, detail.scenario) == (Verdict.FOUND, 1.0, 7)


HOUR_MS = 3_600_000


def used(*sessions: tuple[float, int]) -> list[Follows | None]:
    """What sessions of a device with 2400 s a day and 5 + 2 a week cause: (begin in hours, output in s)."""
    use = Use(profile_of(TONEDUO))
    return [use.ended(Used(begin := round(hours * HOUR_MS), begin + output_s * 1000, output_s)) for hours, output_s in sessions]


def test_more_output_in_a_day_than_allowed_is_a_warning_where_it_is_crossed_and_while_it_lasts() -> None:
    crossed, above = used((0, 1_200), (2, 1_000), (4, 500), (6, 70))[2:]
    assert crossed == Follows("daily-overuse", Severity.WARNING, 4 * HOUR_MS + 200_000, required=True)
    assert above == Follows("daily-overuse", Severity.WARNING, 6 * HOUR_MS, required=True)
    assert used((0, 1_200), (2, 1_000), (27, 500))[2] is None


def test_exactly_the_daily_limit_is_no_over_use_and_a_little_more_is_left_open() -> None:
    assert used((0, 800), (2, 800), (4, 800)) == [None, None, None]
    assert used((0, 800), (2, 800), (4, 830))[2] == Follows("daily-overuse", Severity.WARNING, 4 * HOUR_MS + 800_000, required=False)


def test_the_fourth_session_of_a_day_and_the_eighth_of_a_week_are_told_once_they_last_a_minute() -> None:
    fourth = Follows("daily-overuse", Severity.INFO, 6 * HOUR_MS + 60_000, required=True)
    eighth = Follows("daily-overuse", Severity.INFO, 140 * HOUR_MS + 60_000, required=True)
    assert used((0, 300), (2, 300), (4, 300), (6, 300)) == [None, None, None, fourth]
    assert used((0, 300), (2, 300), (4, 300), (6, 40)) == [None] * 4
    assert used((0, 300), (2, 40), (4, 300), (6, 300)) == [None] * 4
    assert used(*((20 * n, 300) for n in range(8))) == [None] * 7 + [eighth]
    assert used(*((25 * n, 300) for n in range(8)))[7] is None


def test_wear_is_required_once_when_worn_out_dates_from_when_it_showed_and_needs_six_sessions() -> None:
    wear = Wear()
    told = [wear.ended([8_000.0 * 1.02**n] * 3, n) for n in range(30)]
    assert [Follows("electrode-wear", Severity.WARNING, 17, required=True, any_session=True)] == [f for f in told if f and f.required]
    assert [None] * 17 == told[:17]
    assert told[26] is not None and told[26].required and told[25] == Follows("electrode-wear", Severity.INFO, 25, required=False)
    jump = Wear()
    assert [jump.ended([z] * 3, 0) for z in (1.0, 1.0, 1.0, 9.0, 9.0)] == [None] * 5


def clustered(*hits: tuple[str, int], fw_of: dict[str, str] | None = None) -> list[Expectation]:
    """What (device, onset) hits of one critical rule cause in a fleet of 30, ten of them of lot A."""
    clusters = Clusters()
    for n in range(30):
        clusters.add(f"d{n}", TONEDUO, "A" if n < 10 else "B", (fw_of or {}).get(f"d{n}", f"1.{n}"))
    found = []
    for device_id, onset_ms in hits:
        found += clusters.note(replace(FACTS[2], device_id=device_id, onset_ms=onset_ms))
    return found


def test_three_devices_of_a_lot_with_one_critical_rule_in_a_week_are_a_cluster_told_once() -> None:
    (cluster,) = clustered(("d0", 0), ("d1", DAY_MS), ("d2", 6 * DAY_MS), ("d3", 6 * DAY_MS))
    assert (cluster.device_id, cluster.rule, cluster.onset_ms, cluster.required) == (FLEET, "fleet-cluster", 6 * DAY_MS, True)
    assert [] == clustered(("d0", 0), ("d1", DAY_MS), ("d2", 8 * DAY_MS))
    assert [] == clustered(("d0", 0), ("d0", 1), ("d0", 2))
    assert [] == clustered(("d0", 0), ("d1", 0), ("d12", 0))


def test_a_lot_and_a_firmware_may_cluster_at_once() -> None:
    assert 2 == len(clustered(("d0", 0), ("d1", 0), ("d2", 0), fw_of=dict.fromkeys(("d0", "d1", "d2"), "2.0")))
