"""Attempts to get in: which are told at once, which above a rate, and that they are one alert for each kind."""

import pytest

from ingest.safety.attacks import LIMITS, MOST_COUNTED, QUIET_S, SAY_AGAIN_S, WINDOW_S, Attacks, Attempt
from ingest.voice import Said
from schemas.security import SecurityKind
from tests.line import START_MS

WORKER = "~worker-1"
S = 1_000


class Watched:
    def __init__(self) -> None:
        self.attacks = Attacks(WORKER, [], 0.0)
        self.at_s = 0.0
        self.said: list[Said] = []

    def see(self, kind: SecurityKind, who: str = "dev-1", source: str = "10.0.0.1", times: int = 1, critical: bool = False) -> "Watched":
        now_ms = START_MS + round(self.at_s * S)
        self.said += self.attacks.look(now_ms, self.at_s, [Attempt(kind, who, source, "said so", times, now_ms, critical)])
        return self

    def wait(self, seconds: float) -> "Watched":
        self.at_s += seconds
        self.said += self.attacks.look(START_MS + round(self.at_s * S), self.at_s, [])
        return self

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(str(e.event), e.alert.severity) for e in self.said]


@pytest.mark.parametrize("kind", [k for k, limit in LIMITS.items() if limit.events == 1])
def test_what_nobody_does_by_mistake_is_told_at_once(kind: SecurityKind) -> None:
    line = Watched().see(kind)
    assert line.events == [("opened", "warning")]
    alert = line.said[0].alert
    assert (alert.rule, alert.device_id, alert.value, alert.limit) == ("security-event", WORKER, 1.0, 1.0)
    assert alert.detail.startswith(f"{kind}: ") and "dev-1 from 10.0.0.1 (1)" in alert.detail


def test_who_takes_the_place_of_the_worker_is_critical() -> None:
    assert Watched().see(SecurityKind.TAKEOVER, critical=True).events == [("opened", "critical")]


def test_an_alert_becomes_graver_when_the_worker_itself_is_aimed_at() -> None:
    assert Watched().see(SecurityKind.TAKEOVER).see(SecurityKind.TAKEOVER, critical=True).events == [("opened", "warning"), ("updated", "critical")]


def test_a_credential_that_is_made_wakes_nobody() -> None:
    assert Watched().see(SecurityKind.CREDENTIALS).events == []


@pytest.mark.parametrize(("failures", "raised"), [(9, False), (10, True), (11, True)])
def test_failed_proofs_of_identity_are_told_above_a_rate(failures: int, raised: bool) -> None:
    line = Watched()
    for n in range(failures):
        line.see(SecurityKind.AUTH_FAILURE, who=f"dev-{n}").wait(1)
    assert bool(line.said) == raised


def test_failures_that_are_far_between_are_not_told() -> None:
    line = Watched()
    for _ in range(30):
        line.see(SecurityKind.AUTH_FAILURE).wait(WINDOW_S / 9 + 1)
    assert line.said == []


def test_a_flood_is_one_alert_that_grows_and_is_said_again_each_minute() -> None:
    line = Watched()
    for n in range(300):
        line.see(SecurityKind.AUTH_FAILURE, who=f"dev-{n}", times=100).wait(1)
    opened, *updates = line.said
    assert opened.alert.value == 100
    assert {e.alert.id for e in updates} == {opened.alert.id} and {str(e.event) for e in updates} == {"updated"}
    assert len(updates) == 300 // SAY_AGAIN_S - 1 or len(updates) == 300 // SAY_AGAIN_S
    assert line.wait(SAY_AGAIN_S).said[-1].alert.value == 30_000


def test_what_it_remembers_of_a_flood_is_bounded() -> None:
    line = Watched()
    for n in range(10 * MOST_COUNTED):
        line.see(SecurityKind.FORBIDDEN, who=f"dev-{n}")
    assert len(line.attacks._kinds[SecurityKind.FORBIDDEN].names) == MOST_COUNTED + 1
    assert len(line.wait(SAY_AGAIN_S).said[-1].alert.detail) < 600


def test_it_closes_after_quiet_and_the_next_one_is_another_alert() -> None:
    line = Watched().see(SecurityKind.IDENTITY_MISMATCH).wait(QUIET_S - 1)
    assert len(line.said) == 1
    line.wait(1)
    assert line.events == [("opened", "warning"), ("closed", "warning")]
    line.wait(5).see(SecurityKind.IDENTITY_MISMATCH)
    assert line.events[2:] == [("opened", "warning")]
    assert line.said[0].alert.id != line.said[2].alert.id


def test_each_kind_is_an_alert_of_its_own() -> None:
    line = Watched().see(SecurityKind.FORBIDDEN).see(SecurityKind.CLOCK_STEP, who="", source="")
    assert len({e.alert.id for e in line.said}) == 2


def test_an_alert_that_stood_goes_on_in_the_next_worker() -> None:
    line = Watched().see(SecurityKind.FORBIDDEN, times=3)
    again = Watched()
    again.attacks = Attacks(WORKER, [line.said[-1].alert.model_copy(deep=True)], 0.0)
    again.see(SecurityKind.FORBIDDEN, times=2).wait(SAY_AGAIN_S)
    assert [(str(e.event), e.alert.id, e.alert.value) for e in again.said] == [("updated", line.said[-1].alert.id, 5.0)]
    assert [str(e.event) for e in again.wait(QUIET_S).said[1:]] == ["closed"]
