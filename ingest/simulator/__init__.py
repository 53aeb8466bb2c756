"""Simulated devices that obey the contract, with labelled faults and the truth about them."""

from ingest.simulator.devices import Role
from ingest.simulator.fleet import EVERY_SCENARIO, fleet
from ingest.simulator.household import Rhythm
from ingest.simulator.run import (
    IMPLEMENTED_RULES,
    Plan,
    Progress,
    Report,
    run_simulation,
)

__all__ = [
    "EVERY_SCENARIO",
    "IMPLEMENTED_RULES",
    "Plan",
    "Progress",
    "Report",
    "Rhythm",
    "Role",
    "fleet",
    "run_simulation",
]
