"""When a fleet that says nothing should have spoken, judged by what it usually does. Pure.

Two ways to know that nobody is heard:

* **cut off in use**: in the ten minutes before the silence several devices spoke and said last that they were
  running, and it has lasted ten times as long as their longest pause then, and at least the hold. Devices that
  end their sessions say so, and then run no longer.
* **missed**: for an hour and more there was nobody, and at this hour of the day, and in the hours beside it,
  several devices were heard on this day a week ago and on at least five of the last seven days.

A fleet of one or two never falls silent by these rules: its own devices' silence rules speak. Known to be wrong:
three devices behind one gateway that is switched off in use, and a holiday. Known to be missed: a fleet younger
than a week that is cut off while nobody uses it, and one that is only heard on some days.
"""

from collections import deque
from collections.abc import Iterable, Mapping

LEAST_DEVICES = 3
BEFORE_MS = 600_000
PAUSES = 10.0
HOUR_MS = 3_600_000
DAYS, LEAST_DAYS = 7, 5
KEPT_HOURS = (DAYS + 1) * 24 + 2


class Pauses:
    """How long the fleet was quiet between messages, of the last ten minutes. By a clock that is never set."""

    def __init__(self) -> None:
        self._heard: deque[tuple[float, float]] = deque()
        self.last_s: float | None = None

    def heard(self, now_s: float) -> None:
        if self.last_s is not None:
            self._heard.append((now_s, now_s - self.last_s))
        self.last_s = now_s
        while self._heard and self._heard[0][0] < now_s - BEFORE_MS / 1000:
            self._heard.popleft()

    def too_long_s(self, hold_s: float) -> float:
        """From how long a silence on it is unusual."""
        return max(hold_s, PAUSES * max((pause for _, pause in self._heard), default=0.0))


class Habit:
    """How many devices were heard in each hour of the last days; an hour in which nobody listened is absent."""

    def __init__(self, heard: Mapping[int, int] | None = None) -> None:
        self.heard = dict(heard or {})

    def note(self, now_ms: int, devices: int) -> bool:
        """So many were heard in this hour until now; whether that is news."""
        hour = now_ms // HOUR_MS
        if self.heard.get(hour, -1) >= devices:
            return False
        self.heard[hour] = devices
        for old in [h for h in self.heard if not hour - KEPT_HOURS <= h <= hour]:
            del self.heard[old]
        return True

    def misses(self, now_ms: int, last_heard_ms: int) -> bool:
        """Whether a whole hour and more has passed without anybody, in which the fleet is usually heard."""
        hour = now_ms // HOUR_MS - 1
        if last_heard_ms >= hour * HOUR_MS:
            return False
        usual = [self._was_heard(hour - 24 * day) for day in range(1, DAYS + 1)]
        return usual[-1] and sum(usual) >= LEAST_DAYS

    def _was_heard(self, hour: int) -> bool:
        return all(self.heard.get(h, 0) >= LEAST_DEVICES for h in (hour - 1, hour, hour + 1))


def ran_before(devices: Iterable[tuple[int, bool]], last_heard_ms: int) -> bool:
    """Whether several of the devices, each (last seen ms, said last that it runs), were heard in use before a silence."""
    spoke = sum(running and last_heard_ms - BEFORE_MS <= seen_ms <= last_heard_ms for seen_ms, running in devices)
    return spoke >= LEAST_DEVICES
