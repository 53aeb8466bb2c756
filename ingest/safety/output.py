"""Rules on the delivered current."""

from ingest.safety.rule import Limb, Measure, Rule
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.limits import (
    AC_DENSITY,
    DC_DENSITY,
    NET_CHARGE_MC_CM2,
    POWER_DENSITY_W_CM2,
    Limits,
)
from schemas.messages import ContactState, Mode

EDGE_FRACTION = 0.05
"""A smaller contact than this part of the electrode is taken as this."""

DC_LONG_UA, DC_SHORT_UA, DC_CLEAR_UA = 10.0, 50.0, 5.0


# -- overcurrent -----------------------------------------------------------------------------------------


def peak_above_envelope(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    peak_ua = reading.sample.i_peak_ua
    if peak_ua is None or peak_ua <= limits.peak_max_ua:
        return None
    limit = limits.boost_peak_limit_ua if reading.sample.boost else limits.peak_limit_ua
    return Measure(peak_ua, limit) if peak_ua > limit else None


def _rms_above(track: Track, reading: Reading, limits: Limits, limit: float) -> Measure | None:
    rms_ua = reading.sample.i_rms_ua
    if rms_ua > limit and track.delivering(reading.sample.output_enabled):
        return Measure(rms_ua, limit)
    return None


def rms_above_envelope(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    rms_ua = reading.sample.i_rms_ua
    if rms_ua is None or rms_ua <= limits.rms_max_ua:
        return None
    limit = limits.boost_rms_limit_ua if reading.sample.boost else limits.rms_limit_ua
    return _rms_above(track, reading, limits, limit)


def rms_twice_the_envelope(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    rms_ua = reading.sample.i_rms_ua
    if rms_ua is None or rms_ua <= limits.rms_max_ua:
        return None
    limit = limits.boost_rms_twice_ua if reading.sample.boost else limits.rms_twice_ua
    return _rms_above(track, reading, limits, limit)


def _peak_is_clear(track: Track, reading: Reading, limits: Limits) -> bool:
    return peak_above_envelope(track, reading, limits) is None


def _rms_is_clear(track: Track, reading: Reading, limits: Limits) -> bool:
    sample = reading.sample
    return sample.i_rms_ua < (limits.boost_rms_clear_ua if sample.boost else limits.rms_clear_ua)


OVERCURRENT_RMS = Rule(
    "overcurrent-rms",
    "current",
    (
        Limb(Severity.CRITICAL, rms_twice_the_envelope, "active and i_rms > 2·P.i_rms_max", alone=True, urgent=True),
        Limb(
            Severity.CRITICAL, rms_above_envelope, "active and i_rms > min(1000, max(1.25·P.i_rms_max, P.i_rms_max + 5)) µA",
            hold_ms=2_000, settles=True, alone=True,
        ),
    ),
    unit="µA",
    source="P from 510(k) summaries; IEC 60601-2-10 output accuracy ±20 % with measurement margin; microcurrent is < 1 mA",
    says="delivered r.m.s. current above what the model can legitimately produce",
    clear=_rms_is_clear,
    clear_ms=5_000,
    clears_when="i_rms < 1.10·P.i_rms_max for 5 s",
)  # fmt: skip

OVERCURRENT_PEAK = Rule(
    "overcurrent-peak",
    "current",
    (
        Limb(
            Severity.CRITICAL, peak_above_envelope, "i_peak > max(1.5·P.i_peak_max, P.i_peak_max + 10) or > 1000 µA, active or not",
            alone=True, urgent=True,
        ),
    ),
    unit="µA",
    source="engineering judgement; motive: MAUDE 7812323, 'output surged'",
    says="a spike of current, whether or not output was meant to be on",
    clear=_peak_is_clear,
    clear_ms=10_000,
    clears_when="below for 10 s",
)  # fmt: skip


def _overdelivery(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    limit = 1.25 * sample.i_set_ua + 5
    if sample.i_peak_ua <= limit or not sample.i_set_ua:
        return None
    if track.delivering(sample.output_enabled) and track.touching(reading.t_ms):
        return Measure(sample.i_peak_ua, limit)
    return None


SETPOINT_OVERDELIVERY = Rule(
    "setpoint-overdelivery",
    "current",
    (Limb(Severity.WARNING, _overdelivery, "active, in contact and i_peak > 1.25·i_set + 5 µA", hold_ms=5_000, settles=True),),
    unit="µA",
    source="engineering judgement: regulation drifts before it breaks the absolute limit",
    says="more current than the set-point asks for",
    clear=lambda track, reading, limits: reading.sample.i_peak_ua <= 1.25 * reading.sample.i_set_ua + 5,
    clear_ms=5_000,
    clears_when="not so for 5 s",
    muted_by=("overcurrent-peak",),
)


# -- direct current --------------------------------------------------------------------------------------


def _balanced_by_design(track: Track, reading: Reading, limits: Limits) -> bool:
    """Output that is on and should be balanced; a mean of the past says nothing of output that is off."""
    sample = reading.sample
    return sample.mode != Mode.DC and not limits.dc_by_design and track.delivering(sample.output_enabled)


def _offset_over_60_s(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    mean_ua = track.balance.mean_60_ua()
    if mean_ua is None or -DC_LONG_UA <= mean_ua <= DC_LONG_UA or not _balanced_by_design(track, reading, limits):
        return None
    return Measure(abs(mean_ua), DC_LONG_UA)


def _offset_over_10_s(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    mean_ua = track.balance.mean_10_ua()
    if mean_ua is None or -DC_SHORT_UA <= mean_ua <= DC_SHORT_UA or not _balanced_by_design(track, reading, limits):
        return None
    return Measure(abs(mean_ua), DC_SHORT_UA)


def _offset_is_clear(track: Track, reading: Reading, limits: Limits) -> bool:
    mean_ua = track.balance.mean_60_ua()
    return mean_ua is not None and abs(mean_ua) < DC_CLEAR_UA


DC_OFFSET = Rule(
    "dc-offset",
    "current",
    (
        Limb(
            Severity.CRITICAL, _offset_over_10_s, "a balanced waveform's mean of i_dc over 10 s is beyond ±50 µA", hold_ms=3_000
        ),
        Limb(Severity.WARNING, _offset_over_60_s, "the same over 60 s (at least 55 s of data) is beyond ±10 µA"),
    ),
    unit="µA",
    source="IEC 60601-1 d.c. patient auxiliary current 10 µA normal, 50 µA single fault, by analogy",
    says="a net direct current in a waveform that is declared balanced",
    clear=_offset_is_clear,
    clear_ms=10_000,
    clears_when="mean over 60 s within ±5 µA, for 10 s",
)


def _net_charge(track: Track, limits: Limits, limit: float) -> Measure | None:
    if limits.area_cm2 is None:
        return None
    dose = track.figures.dose_mc_cm2(limits.area_cm2)
    return Measure(dose, limit, _area(limits)) if dose >= limit else None


NET_CHARGE_DOSE = Rule(
    "net-charge-dose",
    "current",
    (
        Limb(
            Severity.CRITICAL, lambda track, reading, limits: _net_charge(track, limits, NET_CHARGE_MC_CM2[1]),
            "|Σ i_dc·dt| / P.area in contact ≥ 180 mC/cm² in a session, less the sensor's offset with output off",
        ),
        Limb(
            Severity.WARNING, lambda track, reading, limits: _net_charge(track, limits, NET_CHARGE_MC_CM2[0]),
            "the same ≥ 90 mC/cm²",
        ),
    ),
    unit="mC/cm²",
    source="Skin Pharmacol 1995;8:229: 0.1–0.2 mA/cm² d.c. tolerated for 30 min; the lower end is critical, half of it a warning",
    says="the electrochemical dose of one session",
)  # fmt: skip


# -- density ---------------------------------------------------------------------------------------------


def _area(limits: Limits) -> str:
    return f"electrode area {limits.area_cm2:g} cm² as the profile says"


def _fraction(track: Track, reading: Reading) -> float | None:
    """Contact fraction that a current reading can be set against; None if it is not measured."""
    if reading.partial or not track.heard_of_contact(reading.t_ms):
        return None
    return track.contact_frac


def _density(track: Track, reading: Reading, limits: Limits, level: int) -> Measure | None:
    rms_ua = reading.sample.i_rms_ua
    if rms_ua is None or limits.area_cm2 is None:
        return None
    fraction = _fraction(track, reading)
    shown = 1.0 if fraction is None else max(fraction, EDGE_FRACTION)
    density = rms_ua / 1000 / (limits.area_cm2 * shown)
    if density <= DC_DENSITY[level]:
        return None
    direct = _mode(track, reading, limits) == Mode.DC or limits.dc_by_design or track.balance.is_direct()
    limit = (DC_DENSITY if direct else AC_DENSITY)[level]
    if density <= limit or (track.contact_state == ContactState.OFF and track.heard_of_contact(reading.t_ms)):
        return None  # what flows without contact is another rule's
    assumed = "; contact fraction not measured, whole electrode assumed" if fraction is None else ""
    return Measure(density, limit, _area(limits) + assumed)


def _density_is_clear(track: Track, reading: Reading, limits: Limits) -> bool:
    if limits.area_cm2 is None:
        return True
    off = track.contact_state == ContactState.OFF and track.heard_of_contact(reading.t_ms)
    if off and track.delivering(reading.sample.output_enabled):
        return False  # a lift between two glides is no relief
    fraction = _fraction(track, reading)
    shown = 1.0 if fraction is None else max(fraction, EDGE_FRACTION)
    direct = reading.sample.mode == Mode.DC or limits.dc_by_design or track.balance.is_direct()
    return reading.sample.i_rms_ua / 1000 / (limits.area_cm2 * shown) < 0.8 * (DC_DENSITY if direct else AC_DENSITY)[0]


CURRENT_DENSITY = Rule(
    "current-density",
    "current",
    (
        Limb(
            Severity.CRITICAL, lambda track, reading, limits: _density(track, reading, limits, 1),
            "i_rms / (P.area · contact fraction) > 2.0 mA/cm², for direct current > 0.5", hold_ms=3_000, alone=True,
        ),
        Limb(
            Severity.WARNING, lambda track, reading, limits: _density(track, reading, limits, 0),
            "the same > 1.5 mA/cm², for direct current > 0.2", hold_ms=5_000, alone=True,
        ),
    ),
    unit="mA/cm²",
    source="IEC 60601-2-10: 2 mA/cm² r.m.s.; d.c. 0.2 tolerated (Skin Pharmacol 1995;8:229), 0.5 iontophoresis ceiling",
    says="too much current through too little skin",
    clear=_density_is_clear,
    clears_when="below 80 % of the warning limit, in contact or paused",
)  # fmt: skip


HARMLESS_UA_MV = POWER_DENSITY_W_CM2 * EDGE_FRACTION / 1.05 * 1e9
"""So little current times voltage, per cm², is below the limit whatever the contact (i_rms ≤ 1.05·i_peak)."""


def _power(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    rms_ua, peak_ua, v_mv = sample.i_rms_ua, sample.i_peak_ua, sample.v_peak_mv
    if rms_ua is None or limits.area_cm2 is None:
        return None
    if v_mv is not None and rms_ua * v_mv <= HARMLESS_UA_MV * limits.area_cm2:
        return None
    z_ohm = v_mv / peak_ua * 1000 if v_mv is not None and peak_ua else None
    if not reading.partial and track.touching(reading.t_ms):
        z_ohm = track.z_ohm if z_ohm is None else min(z_ohm, track.z_ohm)
    if z_ohm is None:
        return None
    fraction = _fraction(track, reading)
    shown = 1.0 if fraction is None else max(fraction, EDGE_FRACTION)
    power = (rms_ua * 1e-6) ** 2 * z_ohm / (limits.area_cm2 * shown)
    return Measure(power, POWER_DENSITY_W_CM2, _area(limits)) if power > POWER_DENSITY_W_CM2 else None


POWER_DENSITY = Rule(
    "power-density",
    "current",
    (Limb(Severity.CRITICAL, _power, "i_rms² · min(z, v/i) / (P.area · contact fraction) > 0.25 W/cm²", alone=True, urgent=True),),
    unit="W/cm²",
    source="FDA guidance for powered muscle stimulators: 0.25 W/cm²",
    says="power enough to heat skin; a back-stop far above anything normal",
    clear=lambda track, reading, limits: _power(track, reading, limits) is None,
    clear_ms=2_000,
    clears_when="not so for 2 s",
)


# -- waveform --------------------------------------------------------------------------------------------


def _mode(track: Track, reading: Reading, limits: Limits) -> str | None:
    """The sample's mode; where it could not be read, the last one known, or the only one the model has."""
    return reading.sample.mode or track.mode or limits.only_mode


def _wrong_frequency(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample, freq_hz = reading.sample, reading.sample.freq_hz
    band = limits.bands.get(sample.mode or _mode(track, reading, limits))
    if band is None or freq_hz is None or band.low_hz <= freq_hz <= band.high_hz:
        return None
    if not track.delivering(sample.output_enabled):
        return None
    return Measure(freq_hz, band.low_hz if freq_hz < band.low_hz else band.high_hz)


def _wrong_pulse(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample, pulse_us = reading.sample, reading.sample.pulse_us
    if pulse_us is None or limits.pulse_low_us <= pulse_us <= limits.pulse_high_us:
        return None
    if _mode(track, reading, limits) not in limits.bands or not track.delivering(sample.output_enabled):
        return None
    return Measure(pulse_us, limits.pulse_low_us if pulse_us < limits.pulse_low_us else limits.pulse_high_us, "pulse width")


def _stuck(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    band = limits.bands.get(sample.mode or _mode(track, reading, limits))
    if band is None or None in (sample.freq_hz, sample.i_dc_ua, sample.i_rms_ua):
        return None
    if sample.freq_hz >= band.stuck_hz or abs(sample.i_dc_ua) <= 0.5 * sample.i_rms_ua:
        return None
    if not track.delivering(sample.output_enabled):
        return None
    return Measure(sample.freq_hz, band.stuck_hz, "half of the waveform stands still")


def _waveform_is_clear(track: Track, reading: Reading, limits: Limits) -> bool:
    return all(condition(track, reading, limits) is None for condition in (_stuck, _wrong_frequency, _wrong_pulse))


WAVEFORM_DRIFT = Rule(
    "waveform-drift",
    "current",
    (
        Limb(
            Severity.CRITICAL, _stuck, "active, not in d.c. mode, freq < 0.1·P.freq and |i_dc| > 0.5·i_rms",
            hold_ms=2_000, settles=True, alone=True,
        ),
        Limb(
            Severity.WARNING, _wrong_frequency, "active, not in d.c. mode, freq off by more than 20 % (of the band, if P gives a range)",
            hold_ms=5_000, settles=True, alone=True,
        ),
        Limb(
            Severity.WARNING, _wrong_pulse, "the same of the pulse width", hold_ms=5_000, settles=True, alone=True, unit="µs",
        ),
    ),
    unit="Hz",
    source="IEC 60601-2-10 accuracy of pulse rate and width ±20 %; the rest engineering judgement",
    says="the waveform is not the one that the program asks for",
    clear=_waveform_is_clear,
    clear_ms=5_000,
    clears_when="as it should be for 5 s",
)  # fmt: skip
