"""The shape of a rule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ingest.safety.track import Reading, Track
from schemas.alerts import Severity


class Measure(NamedTuple):
    """A value beyond its limit, both in the rule's unit."""

    value: float
    limit: float


Condition = Callable[[Track, Reading], Measure | None]
"""The dangerous value and its limit, or None while the condition does not hold."""


@dataclass(frozen=True, slots=True)
class Limb:
    """One way in which a rule can fire.

    The condition must be true on every reading for `hold_ms` (a gap of more than 3 s starts the
    hold anew); 0 fires on one reading. `settles` conditions start anew in the grace time after a
    change of level, mode, boost or run state. `alone` conditions need one sample and nothing
    else: they are judged on what is left of a message that was refused. `urgent` ones are said on
    arrival, before the sample's turn in event time.
    """

    severity: Severity
    condition: Condition
    hold_ms: int = 0
    settles: bool = True
    alone: bool = False
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    `clear` says whether a reading is back below the clearing threshold; the alert closes when
    that was true for `clear_ms`. Without `clear` the alert closes with its session.
    """

    id: str
    reads: str
    limbs: tuple[Limb, ...]
    unit: str
    source: str
    says: str
    clear: Callable[[Track, Reading], bool] | None = None
    clear_ms: int = 0
    version: int = 1
