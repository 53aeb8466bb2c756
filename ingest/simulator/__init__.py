"""Simulated devices that obey the contract, with labelled faults and the truth about them."""

from ingest.simulator.devices import Role
from ingest.simulator.fleet import chosen, fleet, wish
from ingest.simulator.household import Rhythm
from ingest.simulator.offline import Arrival, generate
from ingest.simulator.run import Plan, Progress, Report, run_simulation

__all__ = [
    "Arrival",
    "Plan",
    "Progress",
    "Report",
    "Rhythm",
    "Role",
    "chosen",
    "fleet",
    "generate",
    "run_simulation",
    "wish",
]
