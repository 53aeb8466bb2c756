"""Labelled behaviour of simulated devices: what goes wrong, which rules must say so, and when.

A scenario is one small function over a second of a session and one row of SCENARIOS.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ingest.simulator.skin import Habit
from schemas.alerts import Severity
from schemas.messages import EndReason

LUMABAR, TONEDUO, TONETIP, URSA, GELWAVE = (
    "lumabar-s15", "toneduo-400", "tonetip-e", "ursa-adapt-10", "gelwave-multi",
)  # fmt: skip
MODELS = (LUMABAR, TONEDUO, TONETIP, URSA, GELWAVE)

LATENESS_S = 120.0
"""How long the fleet waits for late data before it calls silence a gap (DOMAIN rule 25)."""


@dataclass(slots=True)
class Second:
    """One second of a session as a fault may bend it. None leaves the healthy value.

    `at_s` is the session's age at the end of the second. The three dicts replace fields of the
    finished samples, for faults of the reporting and not of the output.
    """

    at_s: int
    peak_ua: float | None = None
    z_ohm: float | None = None
    lifted: bool | None = None
    lead_off_live: bool = False
    end: EndReason | None = None
    current: dict[str, Any] = field(default_factory=dict)
    contact: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)


Act = Callable[[Second], None]


@dataclass(frozen=True, slots=True)
class Expected:
    """A rule that this scenario sets off, `at_s` into the session, raised within `within_s` after.

    `severity` is the highest the alert must reach. One that is not required may fire: the fault
    brushes its limit, or does not, by the chance of its phase.
    """

    rule: str
    severity: Severity
    at_s: int
    within_s: float
    required: bool = True


@dataclass(frozen=True, slots=True)
class Path:
    """What the radio path does beyond its usual loss and delay. Shares are of messages, 0 to 1."""

    duplicated: float = 0.0
    swapped: float = 0.0
    outage_from_s: int | None = None
    outage_s: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`number` is the row of DOMAIN section 5. Session lengths in s; None is the profile's own."""

    number: int
    name: str
    model: str | None
    fires: tuple[Expected, ...] = ()
    never: frozenset[str] = frozenset()
    act: Act | None = None
    length_s: int | None = None
    level_max: bool = True
    habit: Habit | None = None
    path: Path = Path()


HEALTHY = Scenario(0, "healthy", None, level_max=False, habit=Habit(every_s=7.0))


def latch_up(begin_s: int, lasts_s: int = 20) -> Act:
    """The output stage latches at 1400 µA into 8 kΩ; then the device gives up with a fault."""

    def act(second: Second) -> None:
        if begin_s < second.at_s <= begin_s + lasts_s:
            second.peak_ua, second.z_ohm, second.lifted = 1400.0, 8000.0, False
            # full contact: what is shown is too much current, not too little skin
            second.contact["contact_frac"] = 1.0
        elif second.at_s > begin_s + lasts_s:
            second.end = EndReason.FAULT

    return act


def lead_off_not_muted(begin_s: int, lasts_s: int = 40) -> Act:
    """The head leaves the skin and the output stays at its compliance voltage."""

    def act(second: Second) -> None:
        inside = begin_s < second.at_s <= begin_s + lasts_s
        second.lead_off_live = inside
        if inside:
            second.lifted = True
        elif begin_s - 3 < second.at_s <= begin_s + lasts_s + 3:
            second.lifted = False  # no ordinary lift may blur the edges

    return act


def _overcurrent(at_s: int, within_s: float) -> tuple[Expected, ...]:
    return (
        Expected("overcurrent-peak", Severity.CRITICAL, at_s, within_s),
        Expected("overcurrent-rms", Severity.CRITICAL, at_s, within_s),
        # 3.5 times the half-burst charge may pass the one-minute limit, as the phase falls
        Expected("dc-offset", Severity.WARNING, at_s, 90.0, required=False),
    )


_GLIDES = Habit(every_s=7.0)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(1, "healthy two-sphere session with a lift every glide", TONEDUO,
             never=frozenset({"contact-chatter", "contact-lost-output-on"}),
             length_s=300, habit=Habit(every_s=4.3, lift_s=(0.7, 0.7), regular=True)),
    Scenario(2, "healthy alternating burst", TONEDUO,
             never=frozenset({"dc-offset", "net-charge-dose", "waveform-drift"}),
             length_s=300),
    Scenario(3, "healthy solar bar for 45 minutes", LUMABAR,
             never=frozenset({"dc-offset", "net-charge-dose", "session-overrun", "sensor-implausible"}),
             length_s=2700, habit=Habit(every_s=20.0)),
    Scenario(7, "output latch-up", TONEDUO,
             fires=_overcurrent(90, 2.0),
             never=frozenset({"compliance-saturation", "sensor-implausible"}),
             act=latch_up(90), habit=_GLIDES),
    Scenario(11, "lead-off without mute", TONEDUO,
             fires=(Expected("contact-lost-output-on", Severity.CRITICAL, 60, 32.0),),
             never=frozenset({"current-without-contact", "compliance-saturation", "gel-dryout-trend"}),
             act=lead_off_not_muted(60), habit=_GLIDES),
    Scenario(18, "automatic off fails", TONEDUO,
             fires=(Expected("session-overrun", Severity.CRITICAL, 1200, 152.0),),
             never=frozenset({"daily-overuse"}),
             length_s=23 * 60, habit=_GLIDES),
    Scenario(27, "radio outage; the backfill holds a latch-up", TONEDUO,
             fires=(Expected("telemetry-gap", Severity.WARNING, 60, 15.0 + LATENESS_S + 10.0),
                    *_overcurrent(210, 32.0)),
             act=latch_up(210), habit=_GLIDES, path=Path(outage_from_s=60, outage_s=180)),
    Scenario(28, "duplicates and swapped messages", TONEDUO,
             habit=_GLIDES, path=Path(duplicated=0.05, swapped=0.10)),
)  # fmt: skip

BY_NUMBER: dict[int, Scenario] = {scenario.number: scenario for scenario in (HEALTHY, *SCENARIOS)}
