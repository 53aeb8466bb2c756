"""The figures of a session, summed up reading by reading; what its record is made from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.messages import EndReason, RunState
from schemas.profile import Profile
from schemas.sessions import SessionRecord

MINUTE_MS = 60_000
RATIO_STEP = 0.01
IMPEDANCE_STEP = 0.01
"""Medians are read from counts in steps: of 0.01 for ratios, of 1 % for impedances."""

MOST_OFFSET_UA = 5.0
"""More than this with output off is a current, and no offset of the sensor: it must not hide a dose."""

_RUNNING = RunState.RUNNING.value
OVER = frozenset({RunState.ENDED, RunState.IDLE, RunState.FAULT})
BY_ITSELF = frozenset({EndReason.COMPLETED, EndReason.AUTO_OFF})
COMPLETE = 0.8
SIDES_S = 30.0


@dataclass(slots=True)
class Figures:
    """Sums over one session. Charges in µA·ms; `seqs` holds the range of numbers of each boot."""

    started_ms: int | None = None
    messages: int = 0
    seqs: dict[int, list[int]] = field(default_factory=dict)
    clock_ok: bool = True
    running_ms: int = 0
    observed_ms: float = 0
    active_ms: float = 0
    effective_ms: float = 0
    rms_charge: float = 0.0
    touching_ms: float = 0
    touching_charge: float = 0.0
    net_charge: float = 0.0
    rest_ms: float = 0
    rest_charge: float = 0.0
    ratios: dict[int, int] = field(default_factory=dict)
    impedances: dict[int, int] = field(default_factory=dict)
    peak_max_ua: float | None = None
    rms_max_ua: float | None = None
    temp_max_c: float | None = None
    level_max: int | None = None
    level_downs: int = 0
    reconnects: int = 0
    zone_ms: dict[str, float] = field(default_factory=dict)
    minute_ms: dict[int, float] = field(default_factory=dict)
    ended: bool = False
    end_reason: str | None = None

    @classmethod
    def from_json(cls, stored: dict) -> "Figures":
        for name in ("seqs", "ratios", "impedances", "minute_ms"):
            stored[name] = {int(key): value for key, value in stored[name].items()}
        return cls(**stored)

    def message(self, t_ms: int, boot_id: int, seq: int, skew_ms: int) -> None:
        if self.started_ms is None:
            self.started_ms = t_ms
        self.messages += 1
        if skew_ms:
            self.clock_ok = False
        known = self.seqs.get(boot_id)
        if known is None:
            self.seqs[boot_id] = [seq, seq]
        elif seq > known[1]:
            known[1] = seq
        elif seq < known[0]:
            known[0] = seq

    def output(self, t_ms: int, window_ms: float) -> None:
        minute = (t_ms - 1) // MINUTE_MS
        self.minute_ms[minute] = self.minute_ms.get(minute, 0) + window_ms

    def current(self, sample: Any, window_ms: float, run_state: str | None, touching: bool, zone: str | None) -> None:
        peak_ua, rms_ua, dc_ua = sample.i_peak_ua, sample.i_rms_ua, sample.i_dc_ua
        running = run_state == _RUNNING
        if running:
            self.observed_ms += window_ms
        if not sample.output_enabled:
            self.rest_ms += window_ms
            self.rest_charge += dc_ua * window_ms
            return
        self.rms_charge += rms_ua * window_ms
        if self.peak_max_ua is None or peak_ua > self.peak_max_ua:
            self.peak_max_ua = peak_ua
        if self.rms_max_ua is None or rms_ua > self.rms_max_ua:
            self.rms_max_ua = rms_ua
        if self.level_max is None or sample.level > self.level_max:
            self.level_max = sample.level
        if touching:
            self.touching_ms += window_ms
            self.touching_charge += rms_ua * window_ms
            self.net_charge += dc_ua * window_ms
        if not (running or run_state is None):
            return
        self.active_ms += window_ms
        set_ua = sample.i_set_ua
        if touching and set_ua > 0:
            ratio = int(peak_ua / set_ua / RATIO_STEP + 0.5)
            self.ratios[ratio] = self.ratios.get(ratio, 0) + 1
            if peak_ua >= 0.5 * set_ua:
                self.effective_ms += window_ms
                zone = zone or "unassigned"
                self.zone_ms[zone] = self.zone_ms.get(zone, 0) + window_ms

    def impedance(self, z_ohm: float) -> None:
        if z_ohm > 0:
            step = int(math.log(z_ohm) / IMPEDANCE_STEP + 0.5)
            self.impedances[step] = self.impedances.get(step, 0) + 1

    def temperature(self, temp_head_c: float) -> None:
        if self.temp_max_c is None or temp_head_c > self.temp_max_c:
            self.temp_max_c = temp_head_c

    def state(self, sample: Any) -> None:
        self.ended = sample.run_state in OVER
        self.end_reason = sample.end_reason if self.ended else None

    def dose_mc_cm2(self, area_cm2: float) -> float:
        """Net charge in contact per electrode area, less the sensor's offset at rest, mC/cm²."""
        offset_ua = self.rest_charge / self.rest_ms if self.rest_ms else 0.0
        offset_ua = max(-MOST_OFFSET_UA, min(MOST_OFFSET_UA, offset_ua))
        return abs(self.net_charge - offset_ua * self.touching_ms) / 1e6 / area_cm2

    def z_median_ohm(self) -> float | None:
        step = _median(self.impedances)
        return None if step is None else math.exp(step * IMPEDANCE_STEP)


def record_of(track: Any, profile: Profile | None, lost_messages: int, attachment_id: str | None) -> SessionRecord:
    """The record of a session as its track knows it; DOMAIN's usage formulas in their order."""
    f: Figures = track.figures
    running_ms = max(f.running_ms, f.observed_ms)
    planned_s = profile.session.nominal_s if profile else None
    effective_s = f.effective_ms / 1000
    completion = min(1.0, effective_s / planned_s) if planned_s else None
    ratio = _median(f.ratios)
    return SessionRecord.model_construct(  # of our own making: there is nothing to validate
        device_id=track.device_id,
        model=track.model,
        fw=track.fw,
        hw=track.hw,
        session_id=track.session_id,
        profile_id=track.profile_id,
        profile_version=track.profile_version,
        program_id=track.program_id,
        attachment_id=attachment_id,
        started_ms=f.started_ms,
        last_ms=track.last_ms,
        ended=f.ended,
        end_reason=f.end_reason,
        running_s=running_ms / 1000,
        observed_s=f.observed_ms / 1000,
        unobserved_s=(running_ms - f.observed_ms) / 1000,
        coverage=f.observed_ms / running_ms if running_ms else 0.0,
        messages=f.messages,
        lost_messages=lost_messages,
        clock_ok=f.clock_ok,
        output_s=track.output_on_s,
        active_s=f.active_ms / 1000,
        effective_s=effective_s,
        planned_s=planned_s,
        completion=completion,
        completed=completion is not None
        and (completion >= 1.0 or (completion >= COMPLETE and f.end_reason in BY_ITSELF)),
        contact_efficiency=min(1.0, f.effective_ms / f.active_ms) if f.active_ms else None,
        delivery_ratio=None if ratio is None else round(ratio * RATIO_STEP, 2),
        charge_mc=f.rms_charge / 1e6,
        net_charge_mc_cm2=f.dose_mc_cm2(profile.electrodes.area_cm2) if profile else None,
        mean_intensity_ua=f.touching_charge / f.effective_ms if f.effective_ms else None,
        i_peak_max_ua=f.peak_max_ua,
        i_rms_max_ua=f.rms_max_ua,
        z_median_ohm=f.z_median_ohm(),
        temp_head_max_c=f.temp_max_c,
        level_max=f.level_max,
        level_downs=f.level_downs,
        reconnects=f.reconnects,
        zone_s={zone: ms / 1000 for zone, ms in f.zone_ms.items()},
        minutes={minute: ms / 1000 for minute, ms in f.minute_ms.items()},
    )


def zone_coverage(zone_s: Mapping[str, float], targets_s: Mapping[str, float]) -> float | None:
    """How much of the targets (s) was reached, 0 to 1: each zone counts as much as it is long."""
    whole_s = sum(targets_s.values())
    if not whole_s:
        return None
    return sum(min(zone_s.get(zone, 0.0), target_s) for zone, target_s in targets_s.items()) / whole_s


def symmetry(zone_s: Mapping[str, float]) -> float | None:
    """How alike left and right were treated, 0 to 1; None for less than SIDES_S of both together."""
    left_s = sum(on_s for zone, on_s in zone_s.items() if zone.endswith("_l"))
    right_s = sum(on_s for zone, on_s in zone_s.items() if zone.endswith("_r"))
    both_s = left_s + right_s
    return 1 - abs(left_s - right_s) / both_s if both_s >= SIDES_S else None


def _median(counts: dict[int, int]) -> int | None:
    """The median of values given as counts by step."""
    middle = sum(counts.values()) / 2
    passed = 0
    for step in sorted(counts):
        passed += counts[step]
        if passed >= middle:
            return step
    return None
