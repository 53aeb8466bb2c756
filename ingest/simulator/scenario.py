"""What a scenario is: a device's labelled behaviour, and the alerts that it must cause."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ingest.simulator.skin import Habit
from ingest.simulator.waveform import Waveform
from schemas.alerts import Severity
from schemas.messages import EndReason, Mode, Motion, ResetReason, Zone, ZoneSource

QUICK_S = 3_600
"""The longest session that still counts as quick."""


@dataclass(slots=True)
class Second:
    """One second of a session as a fault or a user may bend it. The defaults are the healthy values.

    `at_s` is the session's age at the end of the second, `session` its place in the scenario's
    course, from 1. `current`, `contact` and `health` replace fields of the finished samples, for
    faults of the reporting and not of the output; a changed `health` is told at once.
    """

    at_s: int
    session: int = 1
    # what the user or the program asks for
    set_share: float = 1.0
    level: int | None = None
    waveform: Waveform | None = None
    set_ua: float | None = None
    paused: bool = False
    zone: Zone | None = None
    zone_source: ZoneSource | None = None
    motion: Motion = Motion.MOVING
    # what the output stage does
    gain: float = 1.0
    peak_ua: float | None = None
    negative_gain: float = 1.0
    stuck: bool = False
    surge: tuple[float, float] | None = None
    """In a window with a make, the peak detector sees this share of the set-point and so many µA more."""
    lead_off_live: bool = False
    # what the contact does
    z_ohm: float | None = None
    z_factor: float = 1.0
    lifted: bool | None = None
    breaks: int = 0
    """Short breaks within this second."""
    # what is reported
    ten_hz: bool = False
    rms_frozen: bool = False
    unit_factor: float = 1.0
    current: dict[str, Any] = field(default_factory=dict)
    contact: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    head_c: float | None = None
    # how it ends
    end: EndReason | None = None
    reset: ResetReason | None = None
    dies: bool = False


Act = Callable[[Second], None]


@dataclass(frozen=True, slots=True)
class Expected:
    """A rule that this scenario sets off, `at_s` into the session, raised within `within_s` after.

    `severity` is the highest that the alert must reach. One that is not required may fire: the
    fault brushes its limit, or does not, by the chance of its phase. `session` counts within the
    course. With `any_session` the alert may stand outside the session, as what a boot says does.
    """

    rule: str
    severity: Severity
    at_s: int
    within_s: float
    required: bool = True
    session: int = 1
    any_session: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """What the radio path does beyond its usual loss and delay. Shares are of messages, 0 to 1.

    `dropped` messages are lost for good: the device forgets them before anybody has them.
    """

    duplicated: float = 0.0
    swapped: float = 0.0
    dropped: float = 0.0
    outage_from_s: int | None = None
    outage_s: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """Several sessions, each beginning `every_s` after the one before; with `charging`, the device
    sits on its charger in between. The first begins within `first_within_s` of the device's start."""

    sessions: int = 1
    every_s: float = 0.0
    first_within_s: float = 45.0
    charging: bool = False


@dataclass(frozen=True, slots=True)
class DeviceClock:
    """How wrong a device's clock is, s; at the beginning of the first session it may be set right."""

    ahead_s: float
    set_right: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """`number` is the row of DOMAIN section 5, or above 100; `key` its name on the command line.

    Session lengths in s; None is the profile's own. `level_share` is the intensity, 1 for the highest;
    None lets the user choose. What accumulated use must cause is not said in `fires`: it follows
    from the sessions themselves.
    """

    number: int
    key: str
    name: str
    model: str | None = None
    fires: tuple[Expected, ...] = ()
    never: frozenset[str] = frozenset()
    act: Act | None = None
    length_s: int | None = None
    dwell_s: int | None = None
    level_share: float | None = 1.0
    mode: Mode | None = None
    habit: Habit | None = None
    path: Path = Path()
    course: Course = Course()
    clock: DeviceClock | None = None
    identity: dict[str, Any] = field(default_factory=dict, hash=False)
    lot: str | None = None
    chronic: bool = False
    """The device is so in every later session too."""

    @property
    def quick(self) -> bool:
        """One session that begins at once."""
        return self.course == Course() and (self.length_s or 0) <= QUICK_S


HEALTHY = Scenario(0, "healthy", "healthy", level_share=None, habit=Habit(every_s=7.0))
