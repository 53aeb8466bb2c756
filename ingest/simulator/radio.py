"""The way from a device through a phone to the broker: when a message is really handed over."""

import math
from collections.abc import Callable
from random import Random

from ingest.simulator.scenario import Path

LOSS = 0.005
TAIL = 0.01
MEDIAN_DELAY_S = 0.4
LONGEST_DELAY_S = 60.0
BACKFILL_GAP_MS = 20
"""Between two messages of a burst that a phone uploads after an outage."""

DELIVERY_S = LONGEST_DELAY_S + 5.0 + 10.0
"""The longest a reading may take from being taken to being judged: delay, batch, some slack."""


class Radio:
    """Delay, loss, duplication, reordering and outage of one device. Times are simulated ms."""

    def __init__(self, random: Random, path: Path) -> None:
        self._random = random
        self.path = path
        self._outage = (0, 0)
        self._backfilled = 0

    def fail(self, from_ms: int, until_ms: int) -> None:
        self._outage = (from_ms, until_ms)
        self._backfilled = 0

    def carried_until_ms(self, made_ms: int) -> int | None:
        """When the phone will upload what was made now, or None while the path is open."""
        from_ms, until_ms = self._outage
        return until_ms if from_ms <= made_ms < until_ms else None

    def flights(self, made_ms: int) -> tuple[int, ...]:
        """When a message made now reaches the broker: once, or twice where the path repeats it.

        A lost transmission is sent again by the device some seconds later: this protocol knows no
        lost messages, only late ones, unless the device itself forgets them.
        """
        if self.path.dropped and self._random.random() < self.path.dropped:
            return ()
        uploaded_ms = self.carried_until_ms(made_ms)
        if uploaded_ms is not None:
            self._backfilled += 1
            return (uploaded_ms + self._backfilled * BACKFILL_GAP_MS,)
        first_ms = made_ms + self._delay_ms()
        if self._random.random() < self.path.swapped:
            first_ms += round(self._random.uniform(1_000, 5_000))
        if self._random.random() < self.path.duplicated:
            return first_ms, first_ms + round(self._random.uniform(0, 5_000))
        return (first_ms,)

    def _delay_ms(self) -> int:
        random: Callable[[], float] = self._random.random
        if random() < TAIL:
            delay_s = self._random.uniform(2.0, LONGEST_DELAY_S)
        else:
            delay_s = min(MEDIAN_DELAY_S * math.exp(self._random.gauss(0.0, 0.5)), 4.0)
        if random() < LOSS:
            delay_s = min(delay_s + self._random.uniform(3.0, 6.0), LONGEST_DELAY_S)
        return round(delay_s * 1000)
