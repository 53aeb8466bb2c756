"""Which devices a simulated fleet has, and what happens to each. The same over all runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingest.simulator.devices import Role
from ingest.simulator.models import MODELS
from ingest.simulator.scenario import HEALTHY, Scenario
from ingest.simulator.scenarios import SCENARIOS, find
from ingest.simulator.scenarios_sound import SOUND

LOTS = tuple(f"L{number:02d}-26" for number in range(6))
FIRMWARES = ("2.3.1", "2.3.0", "2.2.4", "2.1.7")

QUICK: tuple[Scenario, ...] = tuple(scenario for scenario in SCENARIOS if scenario.quick)
"""Every scenario of one session that begins at once."""

FAULTS: tuple[Scenario, ...] = tuple(scenario for scenario in QUICK if scenario not in SOUND)


@dataclass(frozen=True, slots=True)
class Wish:
    """`count` healthy devices, or all of a lot or of a firmware, shall have a scenario instead."""

    scenario: Scenario
    count: int | None = None
    lot: str | None = None
    fw: str | None = None

    def fits(self, role: Role) -> bool:
        return (self.lot is None or role.lot == self.lot) and (self.fw is None or role.fw == self.fw)

    def __str__(self) -> str:
        whom = f"lot:{self.lot}" if self.lot else f"fw:{self.fw}" if self.fw else f"{self.count}"
        return f"{whom}:{self.scenario.key}"


def wish(text: str) -> Wish:
    """Read `3:gel-dry-out`, `lot:L03-26:unit-bug` or `fw:2.3.0:11`; ValueError says what is wrong."""
    whom, _, name = text.rpartition(":")
    if not whom or not name:
        raise ValueError("write how many, lot:<lot> or fw:<firmware>, a colon and the scenario, e.g. 3:gel-dry-out")
    scenario = find(name)
    kind, _, group = whom.partition(":")
    if kind == "lot" and group:
        return Wish(scenario, lot=group)
    if kind == "fw" and group:
        return Wish(scenario, fw=group)
    if whom.isdecimal() and int(whom) > 0:
        return Wish(scenario, count=int(whom))
    raise ValueError(f"'{whom}' is neither a number of devices nor lot:<lot> nor fw:<firmware>")


def fleet(
    devices: int, scenarios: Sequence[Scenario] = QUICK, wishes: Sequence[Wish] = (), models: Sequence[str] = MODELS
) -> list[Role]:
    """The first `devices` of the fleet: each scenario once, then what is wished for, the rest healthy.

    ValueError tells of a model, lot or firmware that is not there, or of too few devices for a wish.
    """
    unknown = [model for model in models if model not in MODELS]
    if unknown:
        raise ValueError(f"no model {unknown[0]}; known are {', '.join(MODELS)}")
    roles = []
    for index in range(devices):
        scenario = scenarios[index] if index < len(scenarios) else HEALTHY
        model = scenario.model or models[index % len(models)]
        lot, fw = LOTS[index // 5 % len(LOTS)], FIRMWARES[index % len(FIRMWARES)]
        roles.append(Role(_name(model, index), model, scenario, scenario.lot or lot, fw))
    for asked in sorted(wishes, key=lambda wish: wish.count is not None):
        _grant(roles, asked)
    return roles


def _grant(roles: list[Role], asked: Wish) -> None:
    """Groups come before counts, so that a count does not use up a group's members."""
    _known(asked.lot, "lot", [role.lot for role in roles])
    _known(asked.fw, "firmware", [role.fw for role in roles])
    fitting = [index for index, role in enumerate(roles) if role.scenario is HEALTHY and asked.fits(role)]
    if len(fitting) < (asked.count or 1):
        raise ValueError(f"{asked} needs {asked.count or 1} healthy devices and {len(fitting)} are left; add devices")
    for index in fitting[: asked.count]:
        scenario, role = asked.scenario, roles[index]
        model = scenario.model or role.model
        roles[index] = replace(
            role, device_id=_name(model, index), model=model, scenario=scenario, lot=scenario.lot or role.lot
        )


def _known(name: str | None, kind: str, there: list[str]) -> None:
    if name is not None and name not in there:
        raise ValueError(f"no {kind} {name} in a fleet of {len(there)}; there are {', '.join(sorted(set(there)))}")


def _name(model: str, index: int) -> str:
    return f"sim-{model.split('-')[0]}-{index + 1:03d}"


WORDS: dict[str, tuple[Scenario, ...]] = {"all": QUICK, "faults": FAULTS, "none": ()}


def chosen(text: str) -> tuple[Scenario, ...]:
    """Read `all`, `faults`, `none`, or numbers and keys with commas; ValueError names an unknown one."""
    if text in WORDS:
        return WORDS[text]
    return tuple(find(part.strip()) for part in text.split(","))
