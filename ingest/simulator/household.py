"""Who uses a device: which program, at which level, for how long, and how often. Pure."""

import math
from collections import deque
from enum import StrEnum
from random import Random

from ingest.simulator.scenarios import HEALTHY, Scenario
from ingest.simulator.session import Treatment, zones_for
from ingest.simulator.waveform import Waveform
from schemas.messages import EndReason, Mode
from schemas.profile import Profile

_DAY_MS, _WEEK_MS = 86_400_000, 7 * 86_400_000
_FAULT_AGAIN = 0.125


class Rhythm(StrEnum):
    """household: never more sessions than the model's daily and weekly use. busy: one after the
    other, for a fleet that is to be seen at work; a rule against over-use will rightly object."""

    HOUSEHOLD = "household"
    BUSY = "busy"


class Household:
    """The user of one device, over all sessions since boot."""

    def __init__(self, scenario: Scenario, profile: Profile, rhythm: Rhythm, random: Random) -> None:
        self._scenario = scenario
        self._profile = profile
        self._rhythm = rhythm
        self._random = random
        self._sessions = 0
        self._used: deque[tuple[int, int]] = deque()  # (began_ms, length_s)

    def choose(self, boot_id: int) -> Treatment:
        """The fault comes first; afterwards the device is mostly well."""
        scenario, random, profile = self._scenario, self._random, self._profile
        if scenario.fires and self._sessions and random.random() >= _FAULT_AGAIN:
            scenario = HEALTHY
        self._sessions += 1
        waveform, top_ua = _program(profile, random)
        levels = profile.output.levels
        level = levels if scenario.level_max else random.randint((levels + 1) // 2, levels)
        nominal_s = round(profile.session.nominal_s)
        length_s, reason = scenario.length_s or nominal_s, EndReason.COMPLETED
        if scenario is HEALTHY and random.random() < 0.1:
            length_s, reason = round(nominal_s * random.uniform(0.4, 0.9)), EndReason.USER
        dwell_s = min(nominal_s // min(len(zones_for(profile)), 6), round(profile.zones.max_s * 0.8))
        return Treatment(
            session_id=f"s-{boot_id:08x}-{self._sessions:03d}",
            scenario=scenario, waveform=waveform, program_id=f"{waveform.mode.replace('_', '-')}-lift",
            level=level, i_set_ua=_set_point_ua(profile, level, top_ua), length_s=length_s,
            end_reason=reason, dwell_s=dwell_s,
        )  # fmt: skip

    def next_begin_ms(self, began_ms: int, length_s: int) -> int:
        """After a pause, and not before daily and weekly use allow another session."""
        ended_ms = began_ms + length_s * 1000
        if self._rhythm is Rhythm.BUSY:
            return ended_ms + round(self._random.uniform(60, 240) * 1000)
        self._used.append((began_ms, length_s))
        begin_ms = ended_ms + round(self._random.uniform(180, 900) * 1000)
        limits = self._profile.session
        while True:
            week = [use for use in self._used if begin_ms - use[0] < _WEEK_MS]
            day = [use for use in week if begin_ms - use[0] < _DAY_MS]
            on_s = sum(used_s for _, used_s in day) + limits.nominal_s
            if len(week) >= limits.weekly_initiation:
                begin_ms = week[0][0] + _WEEK_MS + 60_000
            elif day and (len(day) >= 3 or on_s > 0.9 * limits.daily_max_s):
                begin_ms = day[0][0] + _DAY_MS + 60_000
            else:
                self._used = deque(week)
                return begin_ms


def _program(profile: Profile, random: Random) -> tuple[Waveform, float]:
    """One of the model's programs, and its highest peak current in µA."""
    output = profile.output
    mode = Mode(random.choice(output.modes))
    if mode == Mode.DC:
        top_ua = output.i_dc_max_ua or output.i_peak_max_ua
        return Waveform(mode, 0.0, 0.0, 1.0), top_ua
    band = output.frequency[mode]
    freq_hz = band.low_hz if band.low_hz == band.high_hz else random.choice((10.0, 20.0, 40.0, 80.0))
    freq_hz = math.floor(min(max(freq_hz, band.low_hz), band.high_hz) * 100) / 100
    pulse_us = output.pulse_us or round(output.duty_max / 2 / freq_hz * 1e6, 1)
    return Waveform(mode, freq_hz, pulse_us, output.duty_max), output.i_peak_max_ua


def _set_point_ua(profile: Profile, level: int, top_ua: float) -> float:
    output = profile.output
    if output.levels == 1:
        return top_ua
    if output.i_peak_min_ua == 0.0:
        return top_ua * level / output.levels
    low_ua = min(output.i_peak_min_ua, top_ua)
    return low_ua + (top_ua - low_ua) * (level - 1) / (output.levels - 1)
