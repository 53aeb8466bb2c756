"""The electrodes on a face: an impedance that wanders, and lifts from glide to glide."""

import math
from dataclasses import dataclass
from random import Random

OPEN_OHM = 20_000_000.0
"""What the impedance meter shows without contact: its end of scale."""

STEP_S = 0.5
SPREAD = 0.15
_KEEP = math.exp(-STEP_S / 3.0)
_KICK = SPREAD * math.sqrt(1 - _KEEP * _KEEP)


@dataclass(frozen=True, slots=True)
class Habit:
    """How a user glides: a lift begins every `every_s` (mean) and lasts within `lift_s`."""

    every_s: float
    lift_s: tuple[float, float] = (0.3, 1.2)
    regular: bool = False


class Skin:
    """Impedance and lifts of one session. Times are seconds since it began."""

    def __init__(self, random: Random, base_ohm: float, habit: Habit | None) -> None:
        self._random = random
        self._base_ohm = base_ohm
        self._habit = habit
        self._wander = random.gauss(0.0, SPREAD)
        self.zone_factor = 1.0
        self.lift = (math.inf, math.inf)
        self._plan_lift(0.0)

    def _plan_lift(self, after_s: float) -> None:
        habit = self._habit
        if habit is None:
            return
        shortest, longest = habit.lift_s
        length_s = self._random.uniform(shortest, longest)
        # Glides shorter than two seconds would look like chatter, which is a fault.
        wait_s = habit.every_s if habit.regular else max(2.0, self._random.gauss(habit.every_s, habit.every_s / 4))
        begin_s = round(after_s + wait_s, 3)
        self.lift = (begin_s, round(begin_s + length_s, 3))

    def lifts_in(self, begin_s: float, end_s: float) -> list[tuple[float, float]]:
        """Lifts that overlap (begin, end]; those that ended are over for good."""
        found = []
        while self.lift[0] < end_s:
            found.append(self.lift)
            if self.lift[1] > end_s:
                break
            self._plan_lift(self.lift[1])
        return found

    def ohm(self, at_s: float) -> float:
        """Impedance in contact, half a second after the last one read."""
        self._wander = _KEEP * self._wander + _KICK * self._random.gauss(0.0, 1.0)
        settling = 1.0 + 0.3 * math.exp(-at_s / 4.0)  # impedance falls as stimulation sets in
        return self._base_ohm * self.zone_factor * settling * math.exp(self._wander)

    def next_zone(self) -> None:
        # Bone against cheek. The catalogue allows x0.7 to x1.6; a healthy face stays well inside
        # the factor of two that means drying gel.
        self.zone_factor = self._random.uniform(0.88, 1.20)
