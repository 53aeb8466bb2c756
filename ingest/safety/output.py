"""Rules on the delivered current."""

from ingest.safety.rule import Limb, Measure, Rule
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.profile import MICROCURRENT_CAP_UA


def _within(value_ua: float, highest_ua: float | None) -> bool:
    """The ordinary case, told first and cheaply: every limit lies above the envelope's highest value."""
    return highest_ua is not None and value_ua <= highest_ua


def _peak_limit_ua(reading: Reading) -> float:
    if reading.profile is None:
        return MICROCURRENT_CAP_UA
    output = reading.profile.output
    highest = output.i_peak_max_ua
    if reading.sample.boost and output.boost_i_peak_max_ua:
        highest = max(highest, output.boost_i_peak_max_ua)
    return min(MICROCURRENT_CAP_UA, max(1.5 * highest, highest + 10))


def _rms_max_ua(reading: Reading) -> float:
    profile = reading.profile
    if reading.sample.boost:
        return max(profile.i_rms_max_ua, profile.boost_i_rms_max_ua)
    return profile.i_rms_max_ua


def _rms_limit_ua(reading: Reading) -> float:
    if reading.profile is None:
        return MICROCURRENT_CAP_UA
    highest = _rms_max_ua(reading)
    return min(MICROCURRENT_CAP_UA, max(1.25 * highest, highest + 5))


def peak_above_envelope(track: Track, reading: Reading) -> Measure | None:
    peak = reading.sample.i_peak_ua
    if peak is None or _within(peak, reading.profile and reading.profile.output.i_peak_max_ua):
        return None
    limit = _peak_limit_ua(reading)
    return Measure(peak, limit) if peak > limit else None


def rms_above_envelope(track: Track, reading: Reading) -> Measure | None:
    sample = reading.sample
    if _within(sample.i_rms_ua, reading.profile and reading.profile.i_rms_max_ua):
        return None
    limit = _rms_limit_ua(reading)
    if sample.i_rms_ua > limit and track.delivering(sample.output_enabled):
        return Measure(sample.i_rms_ua, limit)
    return None


def rms_twice_the_envelope(track: Track, reading: Reading) -> Measure | None:
    sample = reading.sample
    if sample.i_rms_ua is None or _within(sample.i_rms_ua, reading.profile and reading.profile.i_rms_max_ua):
        return None
    limit = 2 * _rms_max_ua(reading) if reading.profile else MICROCURRENT_CAP_UA
    if sample.i_rms_ua > limit and track.delivering(sample.output_enabled):
        return Measure(sample.i_rms_ua, limit)
    return None


def _peak_is_clear(track: Track, reading: Reading) -> bool:
    return reading.sample.i_peak_ua <= _peak_limit_ua(reading)


def _rms_is_clear(track: Track, reading: Reading) -> bool:
    limit = 1.10 * _rms_max_ua(reading) if reading.profile else MICROCURRENT_CAP_UA
    return reading.sample.i_rms_ua < limit


OVERCURRENT_RMS = Rule(
    "overcurrent-rms",
    "current",
    (
        Limb(Severity.CRITICAL, rms_twice_the_envelope, settles=False, alone=True, urgent=True),
        Limb(Severity.CRITICAL, rms_above_envelope, hold_ms=2_000),
    ),
    unit="µA",
    source="IEC 60601-2-10 output accuracy ±20 % with measurement margin; microcurrent < 1 mA by definition",
    says="delivered r.m.s. current above what the model can legitimately produce",
    clear=_rms_is_clear,
    clear_ms=5_000,
)

OVERCURRENT_PEAK = Rule(
    "overcurrent-peak",
    "current",
    (Limb(Severity.CRITICAL, peak_above_envelope, settles=False, alone=True, urgent=True),),
    unit="µA",
    source="engineering judgement; motive: MAUDE reports of output surges",
    says="a spike of current, whether or not output was meant to be on",
    clear=_peak_is_clear,
    clear_ms=10_000,
)
