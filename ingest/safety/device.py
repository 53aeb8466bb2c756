"""Rules on the condition of the device itself."""

from ingest.safety.rule import Limb, Measure, Rule, Scope
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity
from schemas.limits import PCB_MAX_C, Limits
from schemas.messages import SelfTest

CHARGING_FRESH_MS = 5_000
LIGHT_FRESH_MS = 90_000
DIM_LUX = 100.0
RESETS_A_DAY = 3


def _output_while_charging(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if not track.charging:
        return None
    rms_ua = reading.sample.i_rms_ua
    if rms_ua <= limits.charging_limit_ua:
        return None
    if not track.charging_edge and reading.t_ms - track.charging_ms > CHARGING_FRESH_MS:
        return None
    return Measure(rms_ua, limits.charging_limit_ua)


OUTPUT_WHILE_CHARGING = Rule(
    "output-while-charging",
    "current",
    (
        Limb(
            Severity.CRITICAL, _output_while_charging,
            "charging (seen within 5 s, or seen to begin) and i_rms > max(2 µA, 0.05·P.i_peak_max); not for solar cells",
            hold_ms=2_000,
        ),
    ),
    unit="µA",
    source="output disabled while charging: K201680, K133823, K103031",
    says="the charge interlock has failed",
    clear=lambda track, reading, limits: not track.charging or reading.sample.i_rms_ua <= limits.charging_limit_ua,
    clear_ms=2_000,
    clears_when="no longer charging, or no current, for 2 s",
)  # fmt: skip


def _hotter(celsius: float | None, limit: float, detail: str = "") -> Measure | None:
    return Measure(celsius, limit, detail) if celsius is not None and celsius >= limit else None


def _warm_head(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _hotter(reading.sample.temp_head_c, limits.head_warm_c)


def _hot_head(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _hotter(reading.sample.temp_head_c, limits.head_hot_c)


def _hot_board(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _hotter(reading.sample.temp_pcb_c, PCB_MAX_C, "circuit board")


def _is_cool(track: Track, reading: Reading, limits: Limits) -> bool:
    return _warm_head(track, reading, limits) is None and _hot_board(track, reading, limits) is None


OVERTEMPERATURE = Rule(
    "overtemperature",
    "health",
    (
        Limb(Severity.CRITICAL, _hot_head, "head ≥ P.temp_max (43 °C unless heated)", hold_ms=5_000, alone=True),
        Limb(Severity.CRITICAL, _hot_board, "circuit board ≥ 60 °C", alone=True),
        Limb(Severity.WARNING, _warm_head, "head ≥ P.temp_max − 2 °C", hold_ms=10_000, alone=True),
    ),
    unit="°C",
    source="41 °C: IEC 60601-1 applied parts (CTL DSH-422); 43 °C: IEC 60601-2-37; board: engineering judgement",
    says="too hot to touch skin",
    clear=_is_cool,
    clears_when="below the warning limit",
)


def _fault(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    sample = reading.sample
    bits = int(sample.fault_bits or 0) & limits.critical_faults
    if bits:
        return Measure(float(bits), 0.0, f"fault bits {bits:#x}")
    return Measure(1.0, 0.0, "self-test failed") if sample.self_test == SelfTest.FAIL else None


DEVICE_FAULT = Rule(
    "device-fault",
    "health",
    (
        Limb(Severity.CRITICAL, _fault, "fault_bits ∩ P.critical_faults, or self_test = fail", alone=True, unit="bits"),
        Limb(
            Severity.CRITICAL, None, "the third reset by watchdog, brown-out or panic within a session in 24 h", unit="resets",
            scope=Scope.HISTORY,
        ),
        Limb(Severity.WARNING, None, "such a reset within a session; never one by OTA", unit="resets", scope=Scope.HISTORY),
    ),
    unit="bits",
    source="engineering judgement",
    says="the device reports a fault, or resets in use",
    clear=lambda track, reading, limits: _fault(track, reading, limits) is None,
    clears_when="no longer reported",
)  # fmt: skip


def _dim(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if not limits.solar or track.lux is None or track.lux >= DIM_LUX:
        return None
    sample = reading.sample
    if sample.i_peak_ua >= 0.7 * sample.i_set_ua or reading.t_ms - track.lux_ms > LIGHT_FRESH_MS:
        return None
    return Measure(track.lux, DIM_LUX)


LOW_LIGHT = Rule(
    "low-light",
    "current",
    (Limb(Severity.INFO, _dim, "solar model, i_peak < 0.7·i_set and light < 100 lx", hold_ms=30_000),),
    unit="lx",
    source="engineering judgement; labelling: use in a well-lit area",
    says="a solar device in too little light to work",
    clear=lambda track, reading, limits: _dim(track, reading, limits) is None,
    clear_ms=5_000,
    clears_when="not so for 5 s",
)
