"""What single rules remember of a session: sums over windows, a baseline, the last changes."""

import math
from array import array
from base64 import b64decode, b64encode
from dataclasses import dataclass, field

from schemas.messages import ContactState

BUCKET_MS = 1_000
LONG_S, SHORT_S = 60, 10
LONG_DATA_MS, SHORT_DATA_MS = 55_000, 8_000
"""How much of a window must be known before its mean says anything."""

SETTLING_MS, BASELINE_MS = 10_000, 20_000
SMOOTHING_MS = 5_000.0
ZONE_FACTOR = 1.6 / 0.7
"""How much higher the impedance of one healthy zone may be than that of another."""

LONGEST_STEP_MS = 1_000
CHATTER_MS = 10_000
FROZEN_SAMPLES = 60


@dataclass(slots=True)
class Balance:
    """Means of direct and r.m.s. current over the last 60 s and 10 s of output.

    `known_ms`, `dc` and `rms` (µA·ms) are totals; each mark is four numbers in a row: a second, and
    the totals as it began. What a window holds is the total less the mark at its begin. A window
    begins on a whole second, so that the same readings always fall alike.
    """

    known_ms: float = 0
    dc: float = 0.0
    rms: float = 0.0
    marks: array = field(default_factory=lambda: array("d"))
    long_at: int = 0
    short_at: int = 0

    def add(self, t_ms: int, window_ms: float, i_dc_ua: float, i_rms_ua: float) -> None:
        second = (t_ms - 1) // BUCKET_MS
        marks = self.marks
        if not marks or marks[-4] != second:
            marks.extend((second, self.known_ms, self.dc, self.rms))
            while marks[self.short_at] <= second - SHORT_S:
                self.short_at += 4
            while marks[self.long_at] <= second - LONG_S:
                self.long_at += 4
            if self.long_at >= 4 * LONG_S:
                del marks[: self.long_at]
                self.short_at -= self.long_at
                self.long_at = 0
        self.known_ms += window_ms
        self.dc += i_dc_ua * window_ms
        self.rms += i_rms_ua * window_ms

    def long(self) -> tuple[float, float]:
        """Of the last 60 s: known ms, Σ direct·ms."""
        marks, at = self.marks, self.long_at
        return (self.known_ms - marks[at + 1], self.dc - marks[at + 2]) if marks else (0.0, 0.0)

    def short(self) -> tuple[float, float, float]:
        """Of the last 10 s: known ms, Σ direct·ms, Σ r.m.s.·ms."""
        marks, at = self.marks, self.short_at
        if not marks:
            return 0.0, 0.0, 0.0
        return self.known_ms - marks[at + 1], self.dc - marks[at + 2], self.rms - marks[at + 3]

    def mean_60_ua(self) -> float | None:
        """Mean direct current over 60 s, µA; None with less than 55 s of data."""
        known_ms, dc = self.long()
        return dc / known_ms if known_ms >= LONG_DATA_MS else None

    def mean_10_ua(self) -> float | None:
        """The same over 10 s; None with less than 8 s of data."""
        known_ms, dc, _ = self.short()
        return dc / known_ms if known_ms >= SHORT_DATA_MS else None

    def is_direct(self) -> bool:
        """Whether more than half of the last 10 s of current was direct current."""
        known_ms, dc, rms = self.short()
        return known_ms >= SHORT_DATA_MS and abs(dc) > 0.5 * rms

    def to_json(self) -> dict:
        marks = b64encode(self.marks[self.long_at :].tobytes()).decode()
        return {"known_ms": self.known_ms, "dc": self.dc, "rms": self.rms, "marks": marks, "short_at": self.short_at - self.long_at}

    @classmethod
    def from_json(cls, stored: dict) -> "Balance":
        return cls(**(stored | {"marks": array("d", b64decode(stored["marks"]))}))


@dataclass(slots=True)
class Drying:
    """Impedance in contact, smoothed over 5 s, against the baseline of the zone it is measured in.

    The first baseline is the median of 20 s of good contact after 10 s of settling; every further
    zone has its own, but none above what bone may differ from cheek: so drying that goes on while
    the zone changes is not taken for the new zone. An impedance at another frequency begins anew.
    """

    smoothed_ohm: float | None = None
    z_hz: float | None = None
    zone: str | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    good_ms: float = 0.0
    gathered: list[float] = field(default_factory=list)

    @property
    def baseline_ohm(self) -> float | None:
        """What the impedance is compared with; None before the first baseline is known."""
        if not self.baselines:
            return None
        own = self.baselines.get(self.zone or "")
        highest = ZONE_FACTOR * min(self.baselines.values())
        return highest if own is None else min(own, highest)

    def add(self, t_ms: int, sample: object, step_ms: int, zone: str | None) -> None:
        state, z_ohm = sample.state, sample.z_ohm
        if state == ContactState.OFF:
            return
        if self.z_hz is None or abs(sample.z_hz - self.z_hz) > 0.2 * self.z_hz:
            self.z_hz, self.baselines, self.smoothed_ohm = sample.z_hz, {}, None
            self.gathered, self.good_ms = [], 0.0
        if zone != self.zone:
            self.zone, self.gathered, self.good_ms = zone, [], 0.0
        if self.smoothed_ohm is None or step_ms == 0:
            self.smoothed_ohm = z_ohm
        else:
            self.smoothed_ohm += (1.0 - math.exp(-step_ms / SMOOTHING_MS)) * (z_ohm - self.smoothed_ohm)
        if state == ContactState.GOOD and (zone or "") not in self.baselines:
            self._gather(z_ohm, step_ms)

    def _gather(self, z_ohm: float, step_ms: int) -> None:
        settling_ms = 0 if self.baselines else SETTLING_MS
        self.good_ms += min(step_ms, LONGEST_STEP_MS)
        if self.good_ms <= settling_ms:
            return
        self.gathered.append(z_ohm)
        if self.good_ms >= settling_ms + BASELINE_MS:
            self.baselines[self.zone or ""] = sorted(self.gathered)[len(self.gathered) // 2]
            self.gathered = []

    @classmethod
    def from_json(cls, stored: dict) -> "Drying":
        return cls(**stored)


@dataclass(slots=True)
class Chatter:
    """The count of broken contacts as it was at its changes within the last 10 s."""

    changes: list[list[int]] = field(default_factory=list)

    def add(self, t_ms: int, break_count: int, fresh: bool) -> None:
        """`fresh`: what came before is too old, or of another boot."""
        changes = self.changes
        if fresh or not changes or break_count < changes[-1][1]:
            changes[:] = [[t_ms, break_count]]
            return
        if break_count > changes[-1][1]:
            changes.append([t_ms, break_count])
        while len(changes) > 1 and changes[1][0] <= t_ms - CHATTER_MS:
            changes.pop(0)

    def breaks(self) -> int:
        """How often contact broke within 10 s."""
        return self.changes[-1][1] - self.changes[0][1] if len(self.changes) > 1 else 0

    @classmethod
    def from_json(cls, stored: dict) -> "Chatter":
        return cls(**stored)


@dataclass(slots=True)
class Frozen:
    """For how many samples in a row the r.m.s. current has been the same to the bit."""

    i_rms_ua: float | None = None
    samples: int = 0
    z_low_ohm: float = math.inf
    z_high_ohm: float = 0.0

    def add(self, i_rms_ua: float, active: bool, touching: bool, z_ohm: float | None) -> None:
        if i_rms_ua != self.i_rms_ua or not active or not i_rms_ua:
            self.i_rms_ua = i_rms_ua
            if self.samples:
                self.samples, self.z_low_ohm, self.z_high_ohm = 0, math.inf, 0.0
            if not (active and i_rms_ua):
                return
        self.samples += 1
        if not touching or z_ohm is None:
            return
        if z_ohm < self.z_low_ohm:
            self.z_low_ohm = z_ohm
        if z_ohm > self.z_high_ohm:
            self.z_high_ohm = z_ohm

    def is_frozen(self) -> bool:
        return self.samples >= FROZEN_SAMPLES and self.z_high_ohm > 1.05 * self.z_low_ohm

    @classmethod
    def from_json(cls, stored: dict) -> "Frozen":
        if stored["z_low_ohm"] is None:  # JSON has no infinity
            stored["z_low_ohm"] = math.inf
        return cls(**stored)
