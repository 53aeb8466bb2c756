"""Did the fleet say what is true? Compares the alerts raised with the faults injected. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from ingest.simulator.truth import Expectation, Truth
from schemas.alerts import AlertState, Severity


class Verdict(StrEnum):
    FOUND = "found"
    MISSED = "missed"
    TOO_MILD = "too-mild"
    LATE = "late"
    FALSE = "false"
    DUPLICATE = "duplicate"


CLOCK_MS = 3_000
"""How far a device's clock, by which alerts are dated, may be off while it is believed."""


@dataclass(frozen=True, slots=True)
class Detail:
    """One comparison. `delay_s` is from the fault to the alert in event time, None if unmatched;
    `due` means that the alert was required by now."""

    verdict: Verdict
    device_id: str
    session_id: str | None
    rule: str
    scenario: int | None
    severity: str
    delay_s: float | None = None
    due: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """`expected` are those that are due and required. `raised` are alerts not withdrawn.

    `missed` counts expectations without an alert, or with one milder or later than it must be; `false`
    counts alerts without a fault, and every second alert for the same one.
    """

    expected: int
    raised: int
    missed: int
    false: int
    details: tuple[Detail, ...]


def score(truth: Truth, alerts: Iterable[Mapping[str, Any]], until_ms: int) -> Score:
    """Judge the alerts known at `until_ms` (simulated). What may still come is not yet missed."""
    raised = sorted(
        (alert for alert in alerts if alert["state"] != AlertState.WITHDRAWN),
        key=lambda alert: (alert["opened_ms"], alert["id"]),
    )
    # By place, not by value: a lot and a firmware may cluster at once, and be expected twice alike.
    waiting: dict[tuple[str, str], list[tuple[int, Expectation]]] = defaultdict(list)
    for place, expectation in enumerate(truth.expectations):
        waiting[expectation.device_id, expectation.rule].append((place, expectation))
    matched: dict[int, Mapping[str, Any]] = {}
    details: list[Detail] = []
    for alert in raised:
        fitting = [(at, e) for at, e in waiting[alert["device_id"], alert["rule"]] if _same_session(e, alert)]
        free = [(at, e) for at, e in fitting if at not in matched]
        if free:
            # What is required is matched first, so that what may be raised as well cannot hide it.
            at, _ = min(free, key=lambda pair: (not pair[1].required, abs(pair[1].onset_ms - alert["opened_ms"])))
            matched[at] = alert
        elif all(e.required for _, e in fitting):  # what is only allowed may come again and again
            details.append(_unfounded(alert, Verdict.DUPLICATE if fitting else Verdict.FALSE))
    false = len(details)
    expected = missed = 0
    for place, expectation in enumerate(truth.expectations):
        due = expectation.required and expectation.by_ms <= until_ms
        detail = _judge(expectation, matched.get(place), due)
        expected += due
        if detail.verdict is not Verdict.FOUND:
            if not due:
                continue
            missed += 1
        details.append(detail)
    return Score(expected, len(raised), missed, false, tuple(details))


def _same_session(expectation: Expectation, alert: Mapping[str, Any]) -> bool:
    return expectation.session_id is None or expectation.session_id == alert["session_id"]


def _judge(expectation: Expectation, alert: Mapping[str, Any] | None, due: bool) -> Detail:
    delay_s = None
    if alert is None:
        verdict = Verdict.MISSED
    else:
        delay_s = (alert["opened_ms"] - expectation.onset_ms) / 1000
        if Severity(alert["severity"]).rank < expectation.severity.rank:
            verdict = Verdict.TOO_MILD
        else:
            verdict = Verdict.FOUND if _reached_ms(alert, expectation) <= expectation.by_ms + CLOCK_MS else Verdict.LATE
    return Detail(
        verdict, expectation.device_id, expectation.session_id, expectation.rule, expectation.scenario,
        expectation.severity.value, delay_s, due,
    )  # fmt: skip


def _reached_ms(alert: Mapping[str, Any], expectation: Expectation) -> int:
    """When the alert had the severity that is expected of it, in event time."""
    rose_to_it = alert["severity"] == expectation.severity.value and alert.get("escalated_ms") is not None
    return alert["escalated_ms"] if rose_to_it else alert["opened_ms"]


def _unfounded(alert: Mapping[str, Any], verdict: Verdict) -> Detail:
    return Detail(
        verdict, alert["device_id"], alert["session_id"], alert["rule"], None, str(alert["severity"])
    )


@dataclass(frozen=True, slots=True)
class RuleScore:
    """One row of a scoreboard. Delays are from the fault to the alert in event time, s; None without any."""

    rule: str
    expected: int
    raised: int
    missed: int
    false: int
    delay_p50_s: float | None
    delay_max_s: float | None


def score_by_rule(details: Iterable[Detail]) -> list[RuleScore]:
    """The same comparison, rule by rule, in alphabetical order.

    `expected` counts what is required and due, `raised` the alerts: an alert that is allowed but
    not required is raised and neither expected nor false.
    """
    by_rule: dict[str, list[Detail]] = defaultdict(list)
    for detail in details:
        by_rule[detail.rule].append(detail)
    return [_row(rule, by_rule[rule]) for rule in sorted(by_rule)]


def _row(rule: str, details: list[Detail]) -> RuleScore:
    verdicts = [detail.verdict for detail in details]
    delays_s = [detail.delay_s for detail in details if detail.delay_s is not None]
    false = sum(verdict in (Verdict.FALSE, Verdict.DUPLICATE) for verdict in verdicts)
    return RuleScore(
        rule=rule,
        expected=sum(detail.due for detail in details),
        raised=false + len(delays_s),
        missed=sum(verdict in (Verdict.MISSED, Verdict.TOO_MILD) for verdict in verdicts),
        false=false,
        delay_p50_s=median(delays_s) if delays_s else None,
        delay_max_s=max(delays_s, default=None),
    )
