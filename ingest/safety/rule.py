"""The shape of a rule."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.limits import Limits


class Measure(NamedTuple):
    """A value beyond its limit, both in the unit of the limb, and what else a person should know."""

    value: float
    limit: float
    detail: str = ""
    service: bool = False


Condition = Callable[[Track, Reading, Limits], Measure | None]
"""The dangerous value and its limit, or None while the condition does not hold."""


class Scope(StrEnum):
    """What a limb looks at: one session's readings, a device's sessions, all devices, silence, or the line itself."""

    SESSION = "session"
    HISTORY = "history"
    FLEET = "fleet"
    ABSENCE = "absence"
    LINE = "line"


@dataclass(frozen=True, slots=True)
class Limb:
    """One way in which a rule can fire. `when` says it in words; `P` is the profile.

    The condition must be true on every reading for `hold_ms` (a gap of more than 3 s starts the
    hold anew); 0 fires on one reading. `settles` conditions start anew in the grace time after a
    change of level, mode, boost or run state. `alone` conditions need one message and nothing
    else: they are judged on what is left of one that was refused. `urgent` ones are said on
    arrival, before the sample's turn in event time. `reads` and `unit` default to the rule's.
    A limb without a condition is judged elsewhere, as its scope says.
    """

    severity: Severity
    condition: Condition | None
    when: str
    hold_ms: int = 0
    settles: bool = False
    alone: bool = False
    urgent: bool = False
    reads: str | None = None
    unit: str | None = None
    scope: Scope = Scope.SESSION


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    `clear` says whether a reading is back below the clearing threshold; the alert closes when
    that was true for `clear_ms`. Without `clear` the alert closes with its session. While an
    alert of a rule in `muted_by` is open, this rule neither opens nor worsens. A `once` rule
    opens at most one alert in a session.
    """

    id: str
    reads: str
    limbs: tuple[Limb, ...]
    unit: str
    source: str
    says: str
    clear: Callable[[Track, Reading, Limits], bool] | None = None
    clear_ms: int = 0
    clears_when: str = "the session ends"
    clear_reads: str | None = None
    muted_by: tuple[str, ...] = ()
    once: bool = False
    version: int = 1

    def unit_of(self, limb: Limb) -> str:
        return limb.unit or self.unit
