"""Every scenario there is, by number and by key."""

from ingest.simulator.scenario import HEALTHY, Scenario
from ingest.simulator.scenarios_added import ADDED
from ingest.simulator.scenarios_domain import DOMAIN
from ingest.simulator.scenarios_sound import SOUND

SCENARIOS: tuple[Scenario, ...] = (*DOMAIN, *ADDED, *SOUND)

BY_NUMBER: dict[int, Scenario] = {scenario.number: scenario for scenario in (HEALTHY, *SCENARIOS)}
BY_KEY: dict[str, Scenario] = {scenario.key: scenario for scenario in (HEALTHY, *SCENARIOS)}


def find(name: str) -> Scenario:
    """A scenario by its number or key; ValueError tells which there are."""
    scenario = BY_NUMBER.get(int(name)) if name.isdecimal() else BY_KEY.get(name)
    if scenario is None:
        known = ", ".join(f"{s.number} {s.key}" for s in BY_NUMBER.values())
        raise ValueError(f"no scenario {name}; known are {known}")
    return scenario
