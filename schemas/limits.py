"""The numbers that rules, panels and documents compare with, worked out once from a profile.

Currents µA, voltages mV, areas cm², times s, temperatures °C. What a device without a profile
may do is bounded by what microcurrent is, and by what holds for every device.
"""

import math
from dataclasses import dataclass, field

MICROCURRENT_CAP_UA = 1000.0
"""Microcurrent is by definition below 1 mA; the ceiling for a device that no profile covers."""

AC_DENSITY = (1.5, 2.0)
"""Warning and critical, mA/cm² r.m.s. (IEC 60601-2-10: 2 mA/cm²; three quarters of it as warning)."""

DC_DENSITY = (0.2, 0.5)
"""The same for direct current (tolerated 0.2 for 30 min in volunteers; iontophoresis ceiling 0.5)."""

NET_CHARGE_MC_CM2 = (90.0, 180.0)
POWER_DENSITY_W_CM2 = 0.25
SHORT_OHM, SHORT_CLEAR_OHM = 200.0, 500.0
PCB_MAX_C = 60.0
HEAD_MARGIN_C = 2.0
HEAD_MAX_C = 43.0

NO_PROFILE_MAX_S = 3_000.0
"""The longest session of any known model stands in for a device that no profile covers."""

GAP_MS = 15_000
"""A running device that says nothing for so long has left a gap."""

LATENESS_MS = 120_000
"""How long a gap may fill before anybody is told."""

WARN_DAYS, CRITICAL_DAYS = 30, 7
"""So long before a certificate ends it is an alert, unless a setting says otherwise for the first."""


@dataclass(frozen=True, slots=True)
class Band:
    """Where a mode's frequency may lie, Hz, tolerance included; below `stuck_hz` the generator stands."""

    low_hz: float
    high_hz: float
    stuck_hz: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of one profile; `plain` and `boost` limits of current differ."""

    known: bool = False
    rms_max_ua: float = MICROCURRENT_CAP_UA
    rms_limit_ua: float = MICROCURRENT_CAP_UA
    rms_twice_ua: float = MICROCURRENT_CAP_UA
    rms_clear_ua: float = MICROCURRENT_CAP_UA
    peak_max_ua: float = MICROCURRENT_CAP_UA
    peak_limit_ua: float = MICROCURRENT_CAP_UA
    boost_rms_limit_ua: float = MICROCURRENT_CAP_UA
    boost_rms_twice_ua: float = MICROCURRENT_CAP_UA
    boost_rms_clear_ua: float = MICROCURRENT_CAP_UA
    boost_peak_limit_ua: float = MICROCURRENT_CAP_UA
    charging_limit_ua: float = math.inf
    dc_by_design: bool = False
    only_mode: str | None = None
    bands: dict[str, Band] = field(default_factory=dict)
    pulse_low_us: float = 0.0
    pulse_high_us: float = math.inf
    area_cm2: float | None = None
    v_compliance_mv: float = math.inf
    v_open_mv: float = math.inf
    v_saturated_mv: float = math.inf
    v_impossible_mv: float = math.inf
    z_good_max_ohm: float = math.inf
    lead_off_mute: bool = False
    attachment_cycles_max: float = math.inf
    session_max_s: float = NO_PROFILE_MAX_S
    overrun_s: float = math.inf
    daily_max_s: float = 2 * NO_PROFILE_MAX_S
    sessions_per_week: float = math.inf
    zone_max_s: float = math.inf
    zones_forbidden: frozenset[str] = frozenset()
    hold_programs: frozenset[str] = frozenset()
    solar: bool = False
    head_warm_c: float = HEAD_MAX_C - HEAD_MARGIN_C
    head_hot_c: float = HEAD_MAX_C
    critical_faults: int = 0xFFFFFFFF
    """Without a profile nobody says which fault bits are harmless."""


def rms_limit_ua(rms_max_ua: float) -> float:
    return min(MICROCURRENT_CAP_UA, max(1.25 * rms_max_ua, rms_max_ua + 5))


def peak_limit_ua(peak_max_ua: float) -> float:
    return min(MICROCURRENT_CAP_UA, max(1.5 * peak_max_ua, peak_max_ua + 10))
