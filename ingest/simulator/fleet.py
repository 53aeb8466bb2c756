"""Which devices a simulated fleet has, and what happens to each. The same over all runs."""

from collections.abc import Sequence

from ingest.simulator.devices import Role
from ingest.simulator.scenarios import BY_NUMBER, HEALTHY, MODELS, SCENARIOS

BLOCK = 25
"""In each block of this many devices every scenario happens once; the others are healthy."""

EVERY_SCENARIO: tuple[int, ...] = tuple(scenario.number for scenario in SCENARIOS)


def fleet(devices: int, scenarios: Sequence[int] = EVERY_SCENARIO) -> list[Role]:
    """The first `devices` of the fleet: scenarios first, then healthy ones of all five models."""
    unknown = [number for number in scenarios if number not in BY_NUMBER]
    if unknown:
        raise ValueError(f"no scenario {unknown[0]}; known are {', '.join(map(str, sorted(BY_NUMBER)))}")
    block = max(BLOCK, len(scenarios))
    roles = []
    for index in range(devices):
        place = index % block
        scenario = BY_NUMBER[scenarios[place]] if place < len(scenarios) else HEALTHY
        model = scenario.model or MODELS[index % len(MODELS)]
        roles.append(Role(f"sim-{model.split('-')[0]}-{index + 1:03d}", model, scenario))
    return roles
