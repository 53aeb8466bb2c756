"""Did the fleet say what is true? Compares the alerts raised with the faults injected. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ingest.simulator.truth import Expectation, Truth
from schemas.alerts import AlertState, Severity


class Verdict(StrEnum):
    FOUND = "found"
    MISSED = "missed"
    TOO_MILD = "too-mild"
    FALSE = "false"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Detail:
    """One comparison. `delay_s` is from the fault to the alert in event time, None if unmatched."""

    verdict: Verdict
    device_id: str
    session_id: str | None
    rule: str
    scenario: int | None
    severity: str
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """`expected` are those that are due and required. `raised` are alerts not withdrawn.

    `missed` counts expectations without an alert, or with one milder than the fault; `false`
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
    waiting: dict[tuple[str, str], list[Expectation]] = defaultdict(list)
    for expectation in truth.expectations:
        waiting[expectation.device_id, expectation.rule].append(expectation)
    matched: dict[Expectation, Mapping[str, Any]] = {}
    details: list[Detail] = []
    for alert in raised:
        fitting = [e for e in waiting[alert["device_id"], alert["rule"]] if _same_session(e, alert)]
        free = [e for e in fitting if e not in matched]
        if free:
            matched[min(free, key=lambda e: abs(e.onset_ms - alert["opened_ms"]))] = alert
        else:
            details.append(_unfounded(alert, Verdict.DUPLICATE if fitting else Verdict.FALSE))
    false = len(details)
    expected = missed = 0
    for expectation in truth.expectations:
        due = expectation.required and expectation.by_ms <= until_ms
        detail = _judge(expectation, matched.get(expectation))
        expected += due
        if detail.verdict is not Verdict.FOUND:
            if not due:
                continue
            missed += 1
        details.append(detail)
    return Score(expected, len(raised), missed, false, tuple(details))


def _same_session(expectation: Expectation, alert: Mapping[str, Any]) -> bool:
    return expectation.session_id is None or expectation.session_id == alert["session_id"]


def _judge(expectation: Expectation, alert: Mapping[str, Any] | None) -> Detail:
    delay_s = None
    if alert is None:
        verdict = Verdict.MISSED
    else:
        delay_s = (alert["opened_ms"] - expectation.onset_ms) / 1000
        enough = Severity(alert["severity"]).rank >= expectation.severity.rank
        verdict = Verdict.FOUND if enough else Verdict.TOO_MILD
    return Detail(
        verdict, expectation.device_id, expectation.session_id, expectation.rule, expectation.scenario,
        expectation.severity.value, delay_s,
    )  # fmt: skip


def _unfounded(alert: Mapping[str, Any], verdict: Verdict) -> Detail:
    return Detail(
        verdict, alert["device_id"], alert["session_id"], alert["rule"], None, str(alert["severity"])
    )
