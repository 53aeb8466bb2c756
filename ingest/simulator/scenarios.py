"""Every scenario there is, by number and by key."""

from difflib import get_close_matches

from ingest.simulator.scenario import HEALTHY, Scenario
from ingest.simulator.scenarios_added import ADDED
from ingest.simulator.scenarios_domain import DOMAIN
from ingest.simulator.scenarios_sound import SOUND

SCENARIOS: tuple[Scenario, ...] = (*DOMAIN, *ADDED, *SOUND)

BY_NUMBER: dict[int, Scenario] = {scenario.number: scenario for scenario in (HEALTHY, *SCENARIOS)}
BY_KEY: dict[str, Scenario] = {scenario.key: scenario for scenario in (HEALTHY, *SCENARIOS)}


def find(name: str) -> Scenario:
    """A scenario by its number or key; ValueError names the nearest, if there is one."""
    scenario = BY_NUMBER.get(int(name)) if name.isdecimal() else BY_KEY.get(name)
    if scenario is None:
        near = get_close_matches(name, BY_KEY, 1)
        hint = f"did you mean {near[0]}" if near else "'microcurrent simulate --list' names them"
        raise ValueError(f"no scenario {name}; {hint}")
    return scenario
