"""The ordinary case, told at one look: a current sample that no rule could object to.

Nearly every sample is harmless. `is_calm` may say no too often, and never yes too often: whatever
it lets pass, no condition of a current rule holds. A property test compares the two.
"""

from typing import Any

from ingest.safety.data import MISMATCH, SKEW_MS
from ingest.safety.memory import FROZEN_SAMPLES, LONG_DATA_MS, SHORT_DATA_MS
from ingest.safety.output import DC_LONG_UA, DC_SHORT_UA, EDGE_FRACTION, HARMLESS_UA_MV
from ingest.safety.track import Reading, Track
from schemas.limits import AC_DENSITY, NET_CHARGE_MC_CM2, Limits
from schemas.messages import ContactState

_OFF, _GOOD = ContactState.OFF.value, ContactState.GOOD.value
_AC_UA_CM2 = AC_DENSITY[0] * 1000
_DOSE_UA_MS_CM2 = NET_CHARGE_MC_CM2[0] * 1e6


def is_calm(track: Track, reading: Reading, limits: Limits) -> bool:
    """Whether a current sample, already observed, is far from every limit of the current rules."""
    sample, figures = reading.sample, track.figures
    set_ua, peak_ua, rms_ua, v_mv = sample.i_set_ua, sample.i_peak_ua, sample.i_rms_ua, sample.v_peak_mv
    if peak_ua > limits.peak_max_ua or rms_ua > limits.rms_max_ua or peak_ua > 1.25 * set_ua + 5:
        return False
    state, area_cm2, band = track.contact_state, limits.area_cm2, limits.bands.get(sample.mode)
    if area_cm2 is None or band is None or limits.dc_by_design or limits.solar:
        return False
    if not (band.low_hz <= sample.freq_hz <= band.high_hz and limits.pulse_low_us <= sample.pulse_us <= limits.pulse_high_us):
        return False
    known_ms, dc = track.balance.long()
    if known_ms >= LONG_DATA_MS and not -DC_LONG_UA * known_ms <= dc <= DC_LONG_UA * known_ms:
        return False
    known_ms, dc, rms = track.balance.short()
    if known_ms >= SHORT_DATA_MS and (not -DC_SHORT_UA * known_ms <= dc <= DC_SHORT_UA * known_ms or abs(dc) > 0.5 * rms):
        return False
    fraction = track.contact_frac
    if fraction is not None and fraction < 1.0:
        touched_cm2 = area_cm2 * (fraction if fraction > EDGE_FRACTION else EDGE_FRACTION)
    else:
        touched_cm2 = area_cm2
    if rms_ua > _AC_UA_CM2 * touched_cm2 or rms_ua * v_mv > HARMLESS_UA_MV * area_cm2:
        return False
    if figures.rest_ms or abs(figures.net_charge) >= _DOSE_UA_MS_CM2 * area_cm2:
        return False
    if state == _OFF:
        if rms_ua > 5.0 or v_mv >= limits.v_open_mv:
            return False
    else:
        if peak_ua < 0.8 * set_ua and (sample.clip_frac > 0.5 or v_mv >= limits.v_saturated_mv):
            return False
        if state == _GOOD and abs(v_mv - peak_ua * track.z_ohm / 1000) > MISMATCH * v_mv:
            return False
    return not (
        track.output_on_ms > limits.session_max_s * 1000
        or track.counter_s > limits.session_max_s
        or track.zone in limits.zones_forbidden
        or track.charging
        or (track.frozen.samples >= FROZEN_SAMPLES and track.frozen.is_frozen())
        or reading.skew_ms
        or not -SKEW_MS <= track.clock_step_ms <= SKEW_MS
    )


def may_contradict(track: Track, sample: Any, limits: Limits) -> bool:
    """Whether a current sample is worth asking if it contradicts itself, or Ohm's law."""
    rms_ua, peak_ua, dc_ua = sample.i_rms_ua, sample.i_peak_ua, sample.i_dc_ua
    return (
        rms_ua > 1.05 * peak_ua
        or not -rms_ua - 1 <= dc_ua <= rms_ua + 1
        or peak_ua * (track.z_touch_ohm or 0.0) > limits.v_impossible_mv * 1000
    )
