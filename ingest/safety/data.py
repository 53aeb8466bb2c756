"""Rules on the data themselves: what cannot be, what is missing, and by which clock."""

from ingest.safety.contact import CONTACT_FRESH_MS
from ingest.safety.rule import Limb, Measure, Rule, Scope
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.limits import Limits
from schemas.messages import SAMPLES, ContactState, Mode
from schemas.topics import Stream

LOST_SHARE = 0.05
SKEW_MS = 60_000
NOISE_UA = 1.0
"""An r.m.s. current up to this is noise of the converter, whatever the peak."""

WINDOW_MS = 1_000
"""The window of a current reading that does not tell."""

MISMATCH = 0.35
LEAST_MV = 50.0

_BOUNDS: dict[str, tuple[float, float]] = {}
for _stream in (Stream.CURRENT, Stream.CONTACT, Stream.RUNTIME, Stream.HEALTH):
    for _name, _field in SAMPLES[_stream].model_fields.items():
        _low = next((m.ge for m in _field.metadata if getattr(m, "ge", None) is not None), None)
        _high = next((m.le for m in _field.metadata if getattr(m, "le", None) is not None), None)
        if _low is not None and _high is not None and _name != "dt_ms":
            _BOUNDS[_name] = (float(_low), float(_high))

MOST_CURRENT_UA = _BOUNDS["i_peak_ua"][1]


# -- sensor-implausible ----------------------------------------------------------------------------------


def against_ohm(track: Track, reading: Reading, limits: Limits, within_ms: int | None = None) -> Measure | None:
    """More voltage than the device has would have been needed for this current.

    The impedance is the last one in contact during the current's window, or `within_ms` before.
    """
    sample = reading.sample
    needed_mv = (sample.i_peak_ua or 0.0) * (track.z_touch_ohm or 0.0) / 1000
    if needed_mv <= limits.v_impossible_mv:
        return None
    if reading.t_ms - track.z_touch_ms > (within_ms or (sample.window_ms or WINDOW_MS) + CONTACT_FRESH_MS):
        return None
    said = f"i_peak · z needs {needed_mv / 1000:.3g} V of a supply of {limits.v_compliance_mv / 1000:.3g} V"
    return Measure(needed_mv / limits.v_impossible_mv, 1.0, said)


def against_itself(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    """The r.m.s. above the peak, or the mean above the r.m.s."""
    sample = reading.sample
    rms_ua, dc_ua = sample.i_rms_ua, sample.i_dc_ua
    if rms_ua is None:
        return None
    if sample.i_peak_ua is not None and rms_ua > 1.05 * sample.i_peak_ua and rms_ua > NOISE_UA:
        return Measure(rms_ua / max(1.05 * sample.i_peak_ua, NOISE_UA), 1.0, "r.m.s. current above its own peak")
    if dc_ua is not None and abs(dc_ua) > 1.05 * rms_ua + 1:
        return Measure(abs(dc_ua) / (1.05 * rms_ua + 1), 1.0, "mean current above its own r.m.s.")
    return None


def set_back(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    """A counter that goes back within a boot."""
    return Measure(2.0, 1.0, track.set_back) if track.set_back else None


def _against_time(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    for name in ("output_on_s", "zone_elapsed_s"):
        value = getattr(sample, name)
        if value > sample.elapsed_s + 1:
            return Measure(value / (sample.elapsed_s + 1), 1.0, f"{name} {value} above elapsed_s {sample.elapsed_s}")
    return None


def _out_of_bounds(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    """Only in refused messages: what the contract lets in is within."""
    if not reading.partial:
        return None
    for name, (low, high) in _BOUNDS.items():
        value = getattr(reading.sample, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not low <= value <= high:
            beyond = value / high if value > high and high > 0 else 2.0
            return Measure(min(beyond, 1e9), 1.0, f"{name} is physically impossible")
    return None


def _against_voltage(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    if track.contact_state != ContactState.GOOD or sample.clip_frac:
        return None
    expected_mv = sample.i_peak_ua * track.z_ohm / 1000
    difference_mv = abs(sample.v_peak_mv - expected_mv)
    if difference_mv <= MISMATCH * sample.v_peak_mv or max(expected_mv, sample.v_peak_mv) < LEAST_MV:
        return None
    if abs(track.z_hz - sample.freq_hz) > 0.2 * sample.freq_hz or not track.touching(reading.t_ms):
        return None
    beyond = difference_mv / max(MISMATCH * sample.v_peak_mv, 1.0)
    return Measure(beyond, 1.0, f"v_peak {sample.v_peak_mv / 1000:.3g} V, i_peak · z {expected_mv / 1000:.3g} V")


def _frozen(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if track.frozen.samples < 60 or reading.sample.mode == Mode.DC or not track.frozen.is_frozen():
        return None
    return Measure(track.frozen.samples / 60, 1.0, f"i_rms the same for {track.frozen.samples} samples while impedance varies")


def _is_plausible(track: Track, reading: Reading, limits: Limits) -> bool:
    if reading.stream == Stream.CURRENT:
        return all(c(track, reading, limits) is None for c in (against_ohm, against_itself, _against_voltage, _frozen))
    return not track.set_back and (reading.stream != Stream.RUNTIME or _against_time(track, reading, limits) is None)


SENSOR_IMPLAUSIBLE = Rule(
    "sensor-implausible",
    "current contact runtime health",
    (
        Limb(Severity.WARNING, against_ohm, "in contact and i_peak · z > 1.5·P.v_compliance", reads="current", alone=True),
        Limb(Severity.WARNING, against_itself, "i_rms > 1.05·i_peak, or |i_dc| > 1.05·i_rms + 1 µA", reads="current", alone=True),
        Limb(Severity.WARNING, _out_of_bounds, "a physical bound of the contract is broken (message refused)", alone=True),
        Limb(Severity.WARNING, set_back, "a counter goes back within a boot", reads="contact runtime"),
        Limb(Severity.WARNING, _against_time, "output_on or zone_elapsed > elapsed + 1 s", reads="runtime"),
        Limb(
            Severity.WARNING, _against_voltage,
            "good contact, not clipping, z at the stimulus's frequency and |v_peak − i_peak·z| > 0.35·v_peak",
            hold_ms=10_000, reads="current",
        ),
        Limb(
            Severity.WARNING, _frozen, "i_rms the same to the bit for 60 samples while active and z varies by more than 5 %; not d.c.",
            reads="current",
        ),
    ),
    unit="× limit",
    source="physics; factors engineering judgement",
    says="the readings contradict each other or physics",
    clear=_is_plausible,
    clear_ms=10_000,
    clears_when="plausible for 10 s",
)  # fmt: skip


# -- absence ---------------------------------------------------------------------------------------------

TELEMETRY_GAP = Rule(
    "telemetry-gap",
    "any",
    (
        Limb(
            Severity.WARNING, None, "running, then silent for 15 s of event time; said 120 s later unless data arrive",
            scope=Scope.ABSENCE,
        ),
        Limb(
            Severity.INFO, None, "more than 5 % of an ended session's messages missing 120 s after its last", unit="share",
            scope=Scope.ABSENCE,
        ),
    ),
    unit="s",
    source="engineering judgement: 15 s of silence while running, 120 s allowed for late data",
    says="the device was running and then said nothing",
    clears_when="heard again, or filled by late data",
)  # fmt: skip


# -- clock -----------------------------------------------------------------------------------------------


def _clock_is_wrong(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if reading.skew_ms:
        return Measure(abs(reading.skew_ms) / 1000, SKEW_MS / 1000, "ahead of our clock" if reading.skew_ms > 0 else "not set")
    step_ms = track.clock_step_ms
    return Measure(abs(step_ms) / 1000, SKEW_MS / 1000, "set while running") if abs(step_ms) > SKEW_MS else None


CLOCK_SKEW = Rule(
    "clock-skew",
    "current contact runtime health identity",
    (
        Limb(
            Severity.INFO, _clock_is_wrong,
            "the device's clock is more than 60 s ahead of ours, was never set, or was set by more than 60 s within a boot",
        ),
    ),
    unit="s",
    source="engineering judgement; event times then rest on the device's uptime",
    says="the device's clock is wrong",
    clear=lambda track, reading, limits: _clock_is_wrong(track, reading, limits) is None,
    clear_ms=60_000,
    clears_when="right for 60 s",
)  # fmt: skip
