"""One treatment session, second by second: what the output, the contact and the program show.

Pure: a session is made of its plan and a random source, and yields samples as plain dicts.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Any

from ingest.simulator.scenario import Scenario, Second
from ingest.simulator.skin import OPEN_OHM, Skin
from ingest.simulator.waveform import Delivered, Waveform, deliver
from schemas.messages import (
    ContactState,
    EndReason,
    Mode,
    RunState,
    Zone,
    ZoneSource,
)
from schemas.profile import Profile

LSB_UA = 0.5
RAMP_S = 4
NOTICED_MS = 20
"""How soon into a second a changed contact that no lift explains is noticed."""
DC_TEST_TONE_HZ = 10.0
"""A direct current has no fundamental to measure impedance at; the device adds a small tone."""

_ZONES = (
    Zone.CHEEK_L, Zone.CHEEK_R, Zone.JAW_L, Zone.JAW_R, Zone.NASOLABIAL_L,
    Zone.NASOLABIAL_R, Zone.FOREHEAD, Zone.SIDE_NECK_L, Zone.SIDE_NECK_R,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Treatment:
    """What the user chose: program, level and how long (s); `session` is its place in the course."""

    session_id: str
    scenario: Scenario
    session: int
    waveform: Waveform
    level: int
    i_set_ua: float
    length_s: int
    end_reason: EndReason
    dwell_s: int


@dataclass(slots=True)
class Counters:
    """Since boot, shared by all sessions of it."""

    makes: int = 0
    breaks: int = 0


@dataclass(slots=True)
class Reading:
    """Samples of one second, each stamped in simulated ms under `dt_ms` until it is enveloped."""

    second: Second
    current: list[dict[str, Any]]
    contact: list[dict[str, Any]]


def zones_for(profile: Profile) -> tuple[Zone, ...]:
    return tuple(zone for zone in _ZONES if zone not in profile.zones_forbidden)


class Session:
    """A running session that began at `began_ms` (simulated)."""

    def __init__(
        self, plan: Treatment, profile: Profile, skin: Skin, counters: Counters, random: Random, began_ms: int
    ) -> None:
        self.plan = plan
        self.began_ms = began_ms
        self.age_s = 0
        self.output_on_s = 0
        self.good_ohm: list[float] = []
        """Impedances in good contact, for what wear does over many sessions."""
        self._profile = profile
        self._zones = zones_for(profile)
        self._zone = 0
        self._zone_since_s = 0
        self._shown = self._show(Second(0, plan.session))
        self._second = Second(0, plan.session)
        self._skin = skin
        self._counters = counters
        self._random = random
        self._touching = False
        self._phase_s = 0.0
        self._ramped_s = 0
        self._rms_ua = 0.0
        electrodes = profile.electrodes
        self._mask = (1 << electrodes.count) - 1
        self._bands = (200.0, electrodes.z_good_max_ohm, 3 * electrodes.z_good_max_ohm, electrodes.z_off_ohm)
        self._z_ohm = skin.ohm(0.0)

    @property
    def at_ms(self) -> int:
        """Now, as far as it has been lived."""
        return self.began_ms + self.age_s * 1000

    def advance(self) -> Reading:
        """Live through one more second."""
        self.age_s += 1
        second = Second(self.age_s, self.plan.session)
        if self.plan.scenario.act is not None:
            self.plan.scenario.act(second)
        self._second = second
        away = self._away(second)
        makes = self._counters.makes
        contact, z_ohm = self._contact(second, away)
        if second.paused:
            self._ramped_s = 0
            return Reading(second, [], contact)
        self._ramped_s += 1
        self.output_on_s += 1
        return Reading(second, self._current(second, away, z_ohm, self._counters.makes > makes), contact)

    def changed(self) -> bool:
        """Whether the program or the user has changed what `runtime` tells, in the last second."""
        if self.age_s and self.age_s % self.plan.dwell_s == 0 and self.age_s < self.plan.length_s:
            self._zone += 1
            self._skin.next_zone()
        shown = self._show(self._second)
        if shown == self._shown:
            return False
        if shown[0] != self._shown[0]:
            self._zone_since_s = self.age_s
        self._shown = shown
        return True

    def _show(self, second: Second) -> tuple[Zone, ZoneSource, RunState, str]:
        waveform = second.waveform or self.plan.waveform
        return (
            second.zone or self._zones[self._zone % len(self._zones)],
            second.zone_source or ZoneSource.PROGRAM,
            RunState.PAUSED if second.paused else RunState.RUNNING,
            f"{waveform.mode.replace('_', '-')}-lift",
        )

    def runtime(self, at_ms: int, run_state: RunState | None = None, end_reason: EndReason | None = None) -> dict[str, Any]:
        """What the session is doing; its own run state where none is given."""
        zone, source, shown_state, program_id = self._shown
        sample = {
            "dt_ms": at_ms,
            "run_state": run_state or shown_state,
            "program_id": program_id,
            "elapsed_s": self.age_s,
            "output_on_s": self.output_on_s,
            "zone": zone,
            "zone_source": source,
            "zone_elapsed_s": self.age_s - self._zone_since_s,
        }
        if self._profile.session.auto_off:
            sample["auto_off_s"] = max(round(self._profile.session.max_s) - self.output_on_s, -60)
        if end_reason is not None:
            sample["end_reason"] = end_reason
        return sample

    # -- contact ----------------------------------------------------------------------------

    def _away(self, second: Second) -> list[tuple[float, float]]:
        """The parts of this second without contact, in session seconds."""
        begin_s, end_s = second.at_s - 1, second.at_s
        natural = self._skin.lifts_in(begin_s, end_s)
        if second.breaks:
            period_s = 1 / second.breaks
            return [(begin_s + (k + 0.2) * period_s, begin_s + (k + 0.7) * period_s) for k in range(second.breaks)]
        if second.lifted is None:
            return [(max(a, begin_s), min(b, end_s)) for a, b in natural]
        return [(begin_s, end_s)] if second.lifted else []

    def _contact(self, second: Second, away: list[tuple[float, float]]) -> tuple[list[dict[str, Any]], float]:
        """Two samples and one for each make and break; and the mean impedance in contact."""
        begin_ms = (second.at_s - 1) * 1000
        samples: list[dict[str, Any]] = []
        touched: list[float] = []
        moments = {begin_ms + NOTICED_MS, begin_ms + 500, begin_ms + 1000}
        if away:
            moments.update(round(edge_s * 1000) for pair in away for edge_s in pair if second.at_s - 1 < edge_s < second.at_s)
        for at_ms in sorted(moments):
            at_s = at_ms / 1000
            on_grid = at_ms % 500 == 0
            lifted = bool(away) and any(a <= at_s < b or b == second.at_s == at_s for a, b in away)
            if on_grid:
                self._z_ohm = self._skin.ohm(at_s)
            z_ohm = second.z_ohm or self._z_ohm * second.z_factor
            if lifted == self._touching:
                self._touching = not lifted
                self._counters.makes += not lifted
                self._counters.breaks += lifted
            elif not on_grid:
                continue
            if not lifted:
                touched.append(z_ohm)
            samples.append(self._contact_sample(at_ms, lifted, z_ohm, second))
        # A touch too short to be sampled is felt all the same.
        return samples, sum(touched) / len(touched) if touched else second.z_ohm or self._z_ohm * second.z_factor

    def _contact_sample(self, at_ms: int, lifted: bool, z_ohm: float, second: Second) -> dict[str, Any]:
        state = ContactState.OFF if lifted else self._state(z_ohm)
        waveform = second.waveform or self.plan.waveform
        sample = {
            "dt_ms": self.began_ms + at_ms,
            "z_ohm": OPEN_OHM if lifted else round(z_ohm, 1),
            "z_hz": waveform.freq_hz or DC_TEST_TONE_HZ,
            "state": state,
            "contact_frac": 0.0 if lifted else round(min(max(self._random.gauss(0.88, 0.06), 0.7), 1.0), 2),
            "electrode_mask": 0 if lifted else self._mask,
            "make_count": self._counters.makes,
            "break_count": self._counters.breaks,
            "motion": second.motion,
        }
        sample.update(second.contact)
        if sample["state"] == ContactState.GOOD:
            self.good_ohm.append(sample["z_ohm"])
        return sample

    def _state(self, z_ohm: float) -> ContactState:
        short, good, marginal, poor = self._bands
        if z_ohm <= good:
            return ContactState.GOOD if z_ohm >= short else ContactState.SHORT
        if z_ohm <= marginal:
            return ContactState.MARGINAL
        return ContactState.POOR if z_ohm <= poor else ContactState.OFF

    # -- output -----------------------------------------------------------------------------

    def _current(self, second: Second, away: list[tuple[float, float]], z_ohm: float, made: bool) -> list[dict[str, Any]]:
        """The windows of this second. Without contact the generator stands still, so that its next
        pulse continues the charge balance where it stopped."""
        off_s = min(sum(b - a for a, b in away), 1.0)
        if not second.ten_hz:
            return [self._window(second, second.at_s * 1000, 1.0, off_s, z_ohm, made)]
        begin_ms = (second.at_s - 1) * 1000
        return [self._window(second, begin_ms + 100 * k, 0.1, off_s / 10, z_ohm, made and k == 1) for k in range(1, 11)]

    def _window(
        self, second: Second, at_ms: int, length_s: float, off_s: float, z_ohm: float, made: bool
    ) -> dict[str, Any]:
        plan, output, random = self.plan, self._profile.output, self._random
        waveform = second.waveform or plan.waveform
        set_ua = (second.set_ua or plan.i_set_ua * second.set_share) * min(1.0, self._ramped_s / RAMP_S)
        peak_ua, clip = (second.peak_ua or set_ua * second.gain) * random.gauss(1.0, 0.02), 0.0
        if off_s >= length_s:
            peak_ua = 0.0
        elif peak_ua * z_ohm > output.v_compliance_mv * 1000:
            peak_ua, clip = output.v_compliance_mv * 1000 / z_ohm, 1.0
        on_s = length_s - off_s
        given = Delivered(on_s, 0.0) if second.stuck else deliver(waveform, self._phase_s, on_s)
        self._phase_s += on_s
        v_mv = peak_ua * z_ohm / 1000
        if off_s and (second.lead_off_live or not self._profile.electrodes.lead_off_mute):
            v_mv, clip = output.v_compliance_mv, off_s / length_s
        measured_ua = _digitised(peak_ua)
        positive_uc = measured_ua * given.positive_s
        negative_uc = measured_ua * given.negative_s * second.negative_gain
        square_s = given.positive_s + given.negative_s * second.negative_gain**2
        zero_ua = random.gauss(0.0, 0.2) if peak_ua and waveform.mode != Mode.DC else 0.0
        if not second.rms_frozen:
            self._rms_ua = _digitised(peak_ua * math.sqrt(square_s / length_s))
        if made and second.surge is not None and peak_ua:
            measured_ua = _digitised(set_ua * second.surge[0] + second.surge[1])
        unit = second.unit_factor
        sample = {
            "dt_ms": self.began_ms + at_ms,
            "window_ms": round(length_s * 1000),
            "i_set_ua": round(set_ua * unit, 1),
            "i_peak_ua": measured_ua * unit,
            "i_rms_ua": self._rms_ua * unit,
            "i_dc_ua": round(((positive_uc - negative_uc) / length_s + zero_ua) * unit, 2),
            "q_pos_uc": round(positive_uc * unit, 2),
            "q_neg_uc": round(negative_uc * unit, 2),
            "v_peak_mv": round(v_mv, 1),
            "clip_frac": round(clip, 3),
            "freq_hz": 0.0 if second.stuck else waveform.freq_hz,
            "pulse_us": waveform.pulse_us,
            "duty": waveform.duty,
            "level": plan.level if second.level is None else second.level,
            "boost": False,
            "output_enabled": True,
            "mode": waveform.mode,
        }
        sample.update(second.current)
        return sample


def _digitised(ua: float) -> float:
    return round(ua / LSB_UA) * LSB_UA
