"""What single rules remember of a session: sums over windows, a baseline, the last changes."""

import math
from dataclasses import dataclass, field

from schemas.messages import ContactState

BUCKET_MS = 1_000
LONG_MS, SHORT_MS = 60_000, 10_000
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

    Each bucket is [second, known ms, Σ direct·ms, Σ r.m.s.·ms]; the sums are over the buckets of
    each window. A window begins on a whole second, so that the same readings always fall alike.
    """

    buckets: list[list[float]] = field(default_factory=list)
    short_from: int = 0
    long: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    short: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def add(self, t_ms: int, window_ms: float, i_dc_ua: float, i_rms_ua: float) -> None:
        second = (t_ms - 1) // BUCKET_MS
        dc, rms = i_dc_ua * window_ms, i_rms_ua * window_ms
        buckets, long, short = self.buckets, self.long, self.short
        if buckets and buckets[-1][0] == second:
            last = buckets[-1]
            last[1] += window_ms
            last[2] += dc
            last[3] += rms
        else:
            buckets.append([second, window_ms, dc, rms])
        long[0] += window_ms
        long[1] += dc
        long[2] += rms
        short[0] += window_ms
        short[1] += dc
        short[2] += rms
        oldest = second - SHORT_MS // BUCKET_MS
        while buckets[self.short_from][0] <= oldest:
            _, known, dc, rms = buckets[self.short_from]
            short[0] -= known
            short[1] -= dc
            short[2] -= rms
            self.short_from += 1
        oldest = second - LONG_MS // BUCKET_MS
        while buckets[0][0] <= oldest:
            _, known, dc, rms = buckets.pop(0)
            long[0] -= known
            long[1] -= dc
            long[2] -= rms
            self.short_from -= 1

    def mean_60_ua(self) -> float | None:
        """Mean direct current over 60 s, µA; None with less than 55 s of data."""
        return self.long[1] / self.long[0] if self.long[0] >= LONG_DATA_MS else None

    def mean_10_ua(self) -> float | None:
        """The same over 10 s; None with less than 8 s of data."""
        return self.short[1] / self.short[0] if self.short[0] >= SHORT_DATA_MS else None

    def is_direct(self) -> bool:
        """Whether more than half of the last 10 s of current was direct current."""
        return self.short[0] >= SHORT_DATA_MS and abs(self.short[1]) > 0.5 * self.short[2]

    @classmethod
    def from_json(cls, stored: dict) -> "Balance":
        return cls(**stored)


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
