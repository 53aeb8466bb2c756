"""Who uses a device: which program, at which level, for how long, and how often. Pure."""

import math
from collections import deque
from enum import StrEnum
from random import Random

from ingest.simulator.scenario import HEALTHY, Scenario
from ingest.simulator.session import Treatment, zones_for
from ingest.simulator.use import DAY_MS, WEEK_MS, Used
from ingest.simulator.waveform import Waveform
from schemas.messages import EndReason, Mode
from schemas.profile import Profile

PAUSE_S = (0.5 * 3_600, 3 * 3_600)
BUSY_PAUSE_S = (60, 240)
SPARE_MS = 600_000
"""How far a household stays from the edges of a day and a week."""
EARLY_END = 0.1
"""Share of sessions that a user ends before the program does."""


class Rhythm(StrEnum):
    """household: never more sessions than the model's daily and weekly use. busy: one after the
    other, to load a pipeline; it is over-use, and the truth says so."""

    HOUSEHOLD = "household"
    BUSY = "busy"


class Household:
    """The user of one device, over all of its sessions."""

    def __init__(self, scenario: Scenario, profile: Profile, rhythm: Rhythm, random: Random) -> None:
        self._scenario = scenario
        self._profile = profile
        self._rhythm = rhythm
        self._random = random
        self._sessions = 0
        self._used: deque[Used] = deque()

    @property
    def course_left(self) -> int:
        """Sessions of the scenario that are still to come."""
        return max(self._scenario.course.sessions - self._sessions, 0)

    def choose(self, boot_id: int) -> Treatment:
        """The scenario comes first; afterwards the device is well, unless its fault is chronic."""
        scenario, random, profile = self._scenario, self._random, self._profile
        if not self.course_left and not scenario.chronic:
            scenario = HEALTHY
        self._sessions += 1
        waveform, top_ua = _program(profile, scenario.mode, random)
        most = profile.output.levels
        level = random.randint((most + 1) // 2, most) if scenario.level_share is None else math.ceil(scenario.level_share * most)
        nominal_s = round(profile.session.nominal_s)
        length_s, reason = scenario.length_s or nominal_s, EndReason.COMPLETED
        if scenario is HEALTHY and random.random() < EARLY_END:
            length_s, reason = round(nominal_s * random.uniform(0.4, 0.9)), EndReason.USER
        dwell_s = min(nominal_s // min(len(zones_for(profile)), 6), round(profile.zones.max_s * 0.8))
        return Treatment(
            session_id=f"s-{boot_id:08x}-{self._sessions:03d}",
            scenario=scenario, session=self._sessions, waveform=waveform,
            level=level, i_set_ua=_set_point_ua(profile, level, top_ua), length_s=length_s,
            end_reason=reason, dwell_s=scenario.dwell_s or dwell_s,
        )  # fmt: skip

    def next_begin_ms(self, session: Used) -> int:
        """When the session after this one begins."""
        self._used.append(session)
        if self.course_left:
            return session.began_ms + round(self._scenario.course.every_s * 1000)
        if self._rhythm is Rhythm.BUSY:
            return session.ended_ms + round(self._random.uniform(*BUSY_PAUSE_S) * 1000)
        return self._allowed_ms(session.ended_ms + round(self._random.uniform(*PAUSE_S) * 1000))

    def _allowed_ms(self, begin_ms: int) -> int:
        """Not before daily and weekly use allow another session."""
        limits = self._profile.session
        while True:
            week = [used for used in self._used if begin_ms < used.ended_ms + WEEK_MS + SPARE_MS]
            day = [used for used in week if begin_ms < used.ended_ms + DAY_MS + SPARE_MS]
            on_s = sum(used.output_s for used in day) + limits.nominal_s
            if len(week) >= limits.weekly_initiation:
                begin_ms = week[0].ended_ms + WEEK_MS + SPARE_MS
            elif day and (len(day) >= 3 or on_s > 0.9 * limits.daily_max_s):
                begin_ms = day[0].ended_ms + DAY_MS + SPARE_MS
            else:
                self._used = deque(week)
                return begin_ms


def _program(profile: Profile, mode: Mode | None, random: Random) -> tuple[Waveform, float]:
    """One of the model's programs, and its highest peak current in µA."""
    output = profile.output
    mode = mode or Mode(random.choice(output.modes))
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
