"""Simulated sessions, faults and all, give the same alerts however they travel.

What a calm delivery of a device's life gives is compared with the same messages delayed by seconds
or hours, doubled, shuffled into other batches, to workers that stop or are killed in between.
`telemetry-gap` speaks of arrival itself and has its own tests.
"""

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings

from ingest import backlog, judgement, pipeline
from ingest.mqtt import Delivery
from ingest.simulator.devices import Role
from ingest.simulator.offline import generate
from ingest.simulator.scenario import Scenario
from ingest.simulator.scenarios import SCENARIOS
from tests.agreement import told_agrees
from tests.line import PROFILES, START_MS, Line, deliver, pulse
from tests.unit.test_watch import LONG_AFTER_MS, lines, stood

SEEDS = 3
LONGEST_S = 330.0

LIVES = [s for s in SCENARIOS if s.quick and s.clock is None and (s.length_s or 300) <= LONGEST_S and not s.path.outage_s]
"""One short session each. A wrong clock makes event time depend on receipt, as it must."""

SEVERAL = [s for s in SCENARIOS if s.key in ("brown-outs", "over-use")]
"""Several sessions and boots, whose alerts depend on each other."""

TRAVELS = {
    "seconds late": ((0.3, 3.0),),
    "a minute late": ((0.05, 70.0), (0.2, 12.0)),
    "half of it minutes late": ((0.5, 300.0),),
    "an upload hours later": ((0.8, 10_000.0),),
}


@cache
def life(key: str, seed: int) -> tuple[tuple[Any, ...], ...]:
    """Everything one device says, as it arrives on a good day."""
    (scenario,) = [s for s in SCENARIOS if s.key == key]
    model = scenario.model or "toneduo-400"
    seconds = scenario.course.sessions * max(scenario.course.every_s, (scenario.length_s or 300) + 120.0)
    roles = [Role("dev-1", model, scenario, scenario.lot or "L00-26", "2.3.1")]
    made = generate(roles, PROFILES, seed, start_ms=START_MS, duration_s=seconds, first_within_s=30.0)
    return tuple((a.received_ms, a.stream, a.payload) for a in made)


@cache
def calm(key: str, seed: int) -> list[dict[str, Any]]:
    with lines() as make:
        sent = life(key, seed)
        line = make()
        for at in range(0, len(sent), 40):
            line.run(*(deliver(stream, payload, at_ms, "dev-1") for at_ms, stream, payload in sent[at : at + 40]))
        return stood(line.run(pulse(sent[-1][0] + LONG_AFTER_MS)))


def travelled(key: str, seed: int, travel: str, doubled: float, chance: Random) -> list[Delivery]:
    found = []
    for at_ms, stream, payload in life(key, seed):
        for _ in range(2 if chance.random() < doubled else 1):
            late_s = next((s for share, s in TRAVELS[travel] if chance.random() < share), 0.5)
            found.append(deliver(stream, payload, at_ms + int(1000 * late_s * chance.random()), "dev-1"))
    return sorted(found, key=lambda delivery: delivery.received_ms)


def batches(deliveries: list[Delivery], chance: Random) -> Iterator[list[Delivery]]:
    at = 0
    while at < len(deliveries):
        batch = deliveries[at : at + chance.choice((1, 5, 40, 200))]
        at += len(batch)
        yield [*batch, pulse(batch[-1].received_ms)] if chance.random() < 0.3 else batch


def lived_through(make: Any, deliveries: list[Delivery], chance: Random, fates: float) -> Line:
    """The line after all of it; now and then its worker is stopped or killed."""
    line = make()
    for batch in batches(deliveries, chance):
        fate = chance.random()
        if fate < fates / 2:
            line.part(chance.randint(1, 4), *batch)
            line = line.die(make.root / f"after-{len(make.made)}")
            make.made.append(line)
        elif fate < fates:
            line.run(*batch).restart()
        else:
            line.run(*batch)
    return line.run(pulse(deliveries[-1].received_ms + LONG_AFTER_MS))


CASES = settings(suppress_health_check=[HealthCheck.too_slow], phases=[Phase.explicit, Phase.generate])


def check(scenario: Scenario, seed: int, travel: str, doubled: float, fates: float, dice: int) -> None:
    chance = Random(dice)
    with lines() as make, pytest.MonkeyPatch.context() as patch:
        if fates or chance.random() < 0.5:  # so that a death can fall between two turns, and much is set aside
            patch.setattr(backlog, "TURN_MOST", 10)
            patch.setattr(backlog, "SHARE", chance.choice((1, 3, 10)))
        if chance.random() < 0.5:  # the past is judged again in small pieces
            patch.setattr(pipeline, "AGAIN_MOST", chance.choice((1, 7, 50)))
            patch.setattr(pipeline, "AGAIN_BUSY", chance.choice((1, 7, 50)))
            patch.setattr(pipeline, "LATE_PATIENCE_S", 0.0)  # and while more comes
            patch.setattr(judgement, "AT_ONCE", chance.choice((1, 20, 100)))
        line = lived_through(make, travelled(scenario.key, seed, travel, doubled, chance), chance, fates)
        expected = calm(scenario.key, seed)
        event(f"{len(expected)} alerts")
        assert stood(line) == expected
        assert line.journal.ledger().balanced
        told_agrees(line)


@settings(CASES, max_examples=260)
@given(
    st.sampled_from(LIVES), st.integers(1, SEEDS), st.sampled_from(list(TRAVELS)), st.sampled_from((0.0, 0.1, 0.5)),
    st.sampled_from((0.0, 0.0, 0.1)), st.integers(0, 2**32),
)  # fmt: skip
def test_a_simulated_session_gives_the_same_alerts_however_it_travels(
    scenario: Scenario, seed: int, travel: str, doubled: float, fates: float, dice: int
) -> None:
    check(scenario, seed, travel, doubled, fates, dice)


@settings(CASES, max_examples=10)
@given(st.sampled_from(SEVERAL), st.integers(1, 2), st.sampled_from(list(TRAVELS)), st.sampled_from((0.0, 0.05)), st.integers(0, 2**32))
def test_sessions_that_are_judged_together_give_the_same_alerts_however_they_travel(
    scenario: Scenario, seed: int, travel: str, fates: float, dice: int
) -> None:
    check(scenario, seed, travel, 0.1, fates, dice)
