"""Rules on electrode contact."""

from datetime import UTC, datetime

from ingest.safety.memory import CHATTER_MS
from ingest.safety.rule import Limb, Measure, Rule, Scope
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.limits import SHORT_CLEAR_OHM, SHORT_OHM, Limits
from schemas.messages import ContactState

ALIGNMENT_MS = 500
"""Around a make or break, contact (2 Hz) and current (1 Hz) cannot be set against each other."""

CONTACT_FRESH_MS = 1_000
"""At 2 Hz an older contact reading says nothing of now."""

SERVICE_SURGES = 3
CHATTER_BREAKS, CHATTER_CLEAR = 10, 5
DRYING, DRIED, MOIST = 2.0, 3.0, 1.8
WORN, WORN_OUT, AS_NEW = 1.3, 1.5, 1.2


# -- no skin ---------------------------------------------------------------------------------------------


def _open_at_compliance(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if track.contact_state != ContactState.OFF:
        return None
    sample = reading.sample
    if sample.v_peak_mv < limits.v_open_mv or not track.delivering(sample.output_enabled):
        return None
    if reading.t_ms - track.contact_ms > CONTACT_FRESH_MS:
        return None
    return Measure(sample.v_peak_mv / 1000, limits.v_open_mv / 1000)


def _muted_or_back(track: Track, reading: Reading, limits: Limits) -> bool:
    """Known, and not merely unheard of: without contact readings an open head stays open."""
    sample = reading.sample
    off = track.contact_state == ContactState.OFF
    return not off or sample.v_peak_mv < limits.v_open_mv or not track.delivering(sample.output_enabled)


def _mute_failed(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _open_at_compliance(track, reading, limits) if limits.lead_off_mute else None


CONTACT_LOST_OUTPUT_ON = Rule(
    "contact-lost-output-on",
    "current",
    (
        Limb(Severity.CRITICAL, _mute_failed, "active, contact off and v_peak ≥ 0.8·P.v_compliance, though P.lead_off_mute", hold_ms=30_000),
        Limb(Severity.WARNING, _open_at_compliance, "the same, whatever P.lead_off_mute", hold_ms=3_000),
    ),
    unit="V",
    source="engineering judgement: output left at compliance without skin zaps at the next touch",
    says="the head is off the skin and output is still on",
    clear=_muted_or_back,
    clear_ms=2_000,
    clears_when="contact again, or output below it, for 2 s",
)


def _limit_ua(reading: Reading) -> float:
    return max(5.0, 0.1 * reading.sample.i_set_ua)


def current_while_off(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if track.contact_state != ContactState.OFF:
        return None
    sample = reading.sample
    limit = _limit_ua(reading)
    if sample.i_rms_ua <= limit:
        return None
    if reading.t_ms - track.contact_ms > CONTACT_FRESH_MS:
        return None
    window_began_ms = reading.t_ms - sample.window_ms
    if track.contact_since_ms > window_began_ms - ALIGNMENT_MS:
        return None
    return Measure(sample.i_rms_ua, limit)


CURRENT_WITHOUT_CONTACT = Rule(
    "current-without-contact",
    "current",
    (
        Limb(
            Severity.CRITICAL, current_while_off,
            "contact off and i_rms > max(5 µA, 0.1·i_set), save 500 ms around make and break", hold_ms=2_000,
        ),
    ),
    unit="µA",
    source="engineering judgement: contact says off, yet current flows",
    says="current flows although the electrodes report no skin",
    clear=lambda track, reading, limits: track.contact_state != ContactState.OFF or reading.sample.i_rms_ua <= _limit_ua(reading),
    clear_ms=2_000,
    clears_when="not so for 2 s",
)  # fmt: skip


# -- poor skin -------------------------------------------------------------------------------------------


def _saturated(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    limit = 0.8 * sample.i_set_ua
    if sample.i_peak_ua >= limit or track.contact_state in (None, ContactState.OFF):
        return None
    if sample.clip_frac <= 0.5 and sample.v_peak_mv < limits.v_saturated_mv:
        return None
    return Measure(sample.i_peak_ua, limit) if track.delivering(sample.output_enabled) else None


COMPLIANCE_SATURATION = Rule(
    "compliance-saturation",
    "current",
    (
        Limb(
            Severity.WARNING, _saturated,
            "active, contact not off, clipped for half the window or v_peak ≥ 0.95·P.v_compliance, and i_peak < 0.8·i_set",
            hold_ms=5_000, settles=True,
        ),
    ),
    unit="µA",
    source="engineering judgement; under-delivery preceded burns in MDR 944",
    says="the device cannot push the current that it is set to",
    clear=lambda track, reading, limits: _saturated(track, reading, limits) is None,
    clear_ms=5_000,
    clears_when="not so for 5 s",
    muted_by=("contact-lost-output-on",),
)  # fmt: skip


def _drier(track: Track, factor: float) -> Measure | None:
    drying = track.drying
    if not drying.baselines or drying.smoothed_ohm < factor * min(drying.baselines.values()):
        return None
    base_ohm = drying.baseline_ohm
    if drying.smoothed_ohm < factor * base_ohm:
        return None
    return Measure(drying.smoothed_ohm / base_ohm, factor, f"{drying.smoothed_ohm / 1000:.1f} kΩ, {base_ohm / 1000:.1f} kΩ at the start")


def _drying(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _drier(track, DRYING)


def _dried(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    measure = _drier(track, DRIED)
    return measure if measure is not None and track.drying.smoothed_ohm > limits.z_good_max_ohm else None


def _is_moist(track: Track, reading: Reading, limits: Limits) -> bool:
    base_ohm = track.drying.baseline_ohm
    return base_ohm is None or track.drying.smoothed_ohm < MOIST * base_ohm


GEL_DRYOUT_TREND = Rule(
    "gel-dryout-trend",
    "contact",
    (
        Limb(Severity.WARNING, _dried, "impedance (smoothed over 5 s) ≥ 3× the baseline of its zone, and above P.z_good_max", hold_ms=10_000),
        Limb(
            Severity.INFO, _drying, "the same ≥ 2×",
            hold_ms=10_000,
        ),
    ),
    unit="×",
    source="conductive gel must stay wet (labelling); factors engineering judgement",
    says="the contact becomes worse as gel dries",
    clear=_is_moist,
    clear_ms=5_000,
    clears_when="below 1.8× for 5 s",
    muted_by=("contact-lost-output-on",),
)  # fmt: skip


def _chatters(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    breaks = track.chatter.breaks()
    if breaks < CHATTER_BREAKS or not track.delivering(track.output_enabled):
        return None
    return Measure(float(breaks), float(CHATTER_BREAKS))


CONTACT_CHATTER = Rule(
    "contact-chatter",
    "contact",
    (Limb(Severity.WARNING, _chatters, f"active and ≥ {CHATTER_BREAKS} breaks of contact in {CHATTER_MS // 1000} s"),),
    unit="breaks",
    source="engineering judgement; normal gliding lifts 2–4 times in 10 s",
    says="contact comes and goes",
    clear=lambda track, reading, limits: track.chatter.breaks() < CHATTER_CLEAR,
    clears_when="fewer than 5 in 10 s; not again in this session",
    once=True,
)


def _surges(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    made_ms = track.made_ms
    sample = reading.sample
    if made_ms is None or made_ms <= reading.t_ms - 2 * sample.window_ms:
        return None
    limit = 1.3 * sample.i_set_ua + 10
    if sample.i_peak_ua <= limit or not sample.i_set_ua:
        return None
    if track.surged_ms != made_ms:
        track.surged_ms = made_ms
        track.surges += 1
    often = track.surges >= SERVICE_SURGES
    return Measure(sample.i_peak_ua, limit, f"{track.surges} times in this session" if often else "", often)


RECONNECT_SURGE = Rule(
    "reconnect-surge",
    "current",
    (Limb(Severity.WARNING, _surges, "i_peak > 1.3·i_set + 10 µA in the window of a make or the next; the third asks for service"),),
    unit="µA",
    source="engineering judgement; users report zaps at touching",
    says="a surge as the head touches the skin",
    muted_by=("overcurrent-peak",),
)


def _shorted(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    z_ohm = reading.sample.z_ohm
    if z_ohm is None or z_ohm >= SHORT_OHM or not track.delivering(track.output_enabled):
        return None
    return Measure(z_ohm, SHORT_OHM)


ELECTRODE_SHORT = Rule(
    "electrode-short",
    "contact",
    (Limb(Severity.WARNING, _shorted, "active and impedance < 200 Ω", hold_ms=3_000, alone=True),),
    unit="Ω",
    source="FDA test loads begin at 500 Ω: less is no skin",
    says="the electrodes are bridged",
    clear=lambda track, reading, limits: reading.sample.z_ohm > SHORT_CLEAR_OHM,
    clears_when="above 500 Ω",
)


def _past_its_life(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    cycles = reading.sample.attachment_cycles
    if cycles is not None and cycles > limits.attachment_cycles_max:
        return Measure(float(cycles), limits.attachment_cycles_max)
    return None


def _past_its_date(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    expiry = reading.sample.gel_expiry
    if expiry is None:
        return None
    days = _days_after(expiry, reading.t_ms)
    return Measure(days, 0.0, f"gel expired on {expiry}") if days > 0 else None


def _days_after(date: str, t_ms: int) -> float:
    """Days from the end of a date (UTC) to a time; negative before, and 0 for a date that is none."""
    try:
        ends_ms = (datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() + 86_400) * 1000
    except ValueError:
        return 0.0
    return (t_ms - ends_ms) / 86_400_000


ELECTRODE_WEAR = Rule(
    "electrode-wear",
    "identity",
    (
        Limb(
            Severity.WARNING, None, "median good-contact impedance of the last 5 ended sessions ≥ 1.5× that of the attachment's first 5",
            scope=Scope.HISTORY,
        ),
        Limb(Severity.INFO, None, "the same ≥ 1.3×", scope=Scope.HISTORY),
        Limb(Severity.INFO, _past_its_life, "attachment_cycles > P.attachment_cycles_max", alone=True, unit="cycles"),
        Limb(Severity.INFO, _past_its_date, "gel_expiry has passed", alone=True, unit="days"),
    ),
    unit="×",
    source="engineering judgement; expired electrode in MDR 8197646",
    says="electrodes or gel are past their life",
    clear=lambda track, reading, limits: (
        _past_its_life(track, reading, limits) is None and _past_its_date(track, reading, limits) is None
    ),
    clears_when="below 1.2×, below the number again, or another attachment",
)  # fmt: skip

