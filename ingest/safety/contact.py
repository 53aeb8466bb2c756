"""Rules on electrode contact."""

from ingest.safety.rule import Limb, Measure, Rule
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.messages import ContactState

ALIGNMENT_MS = 500
"""Around a make or break, contact (2 Hz) and current (1 Hz) cannot be set against each other."""

CONTACT_FRESH_MS = 1_000
"""At 2 Hz an older contact reading says nothing of now."""


def _limit_ua(reading: Reading) -> float:
    return max(5.0, 0.1 * reading.sample.i_set_ua)


def current_while_off(track: Track, reading: Reading) -> Measure | None:
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


def _is_clear(track: Track, reading: Reading) -> bool:
    return track.contact_state != ContactState.OFF or reading.sample.i_rms_ua <= _limit_ua(reading)


CURRENT_WITHOUT_CONTACT = Rule(
    "current-without-contact",
    "current",
    (Limb(Severity.CRITICAL, current_while_off, hold_ms=2_000, settles=False),),
    unit="µA",
    source="engineering judgement: contact says off, yet current flows",
    says="current flows although the electrodes report no skin",
    clear=_is_clear,
    clear_ms=2_000,
)
