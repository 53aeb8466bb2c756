"""How things go wrong: each function makes an `Act`, which bends one second of a session after another.

`begin_s` and `lasts_s` are in seconds of the session. Where a fault must be seen without a break,
the head stays on the skin: an ordinary lift would only blur when it began.
"""

from typing import Any

from ingest.simulator.scenario import Act, Second
from ingest.simulator.skin import OPEN_OHM
from ingest.simulator.waveform import Waveform
from schemas.messages import ContactState, EndReason, Mode, Motion, ResetReason, Zone, ZoneSource

TRIP_RECORDED_S = 10
"""After a trip the device records its output at 10 Hz for so long."""


def during(begin_s: int, lasts_s: int, bend: Act) -> Act:
    """Bend the seconds after `begin_s`, `lasts_s` of them."""

    def act(second: Second) -> None:
        if begin_s < second.at_s <= begin_s + lasts_s:
            bend(second)

    return act


def steadily(begin_s: int, lasts_s: int, bend: Act) -> Act:
    """The same, with the head on the skin from a little before until a little after."""

    def act(second: Second) -> None:
        if begin_s - 3 < second.at_s <= begin_s + lasts_s + 3:
            second.lifted = False
        if begin_s < second.at_s <= begin_s + lasts_s:
            bend(second)

    return act


def then_fault(act: Act, at_s: int) -> Act:
    """The device gives up in the end."""

    def ending(second: Second) -> None:
        act(second)
        if second.at_s > at_s:
            second.end = EndReason.FAULT

    return ending


def run_away(begin_s: int, peak_ua: float, z_ohm: float, lasts_s: int = 20) -> Act:
    """The output stage latches at `peak_ua`; the device records it and gives up with a fault."""

    def bend(second: Second) -> None:
        second.peak_ua, second.z_ohm, second.lifted = peak_ua, z_ohm, False
        # full contact: what is shown is too much current, not too little skin
        second.contact["contact_frac"] = 1.0
        second.ten_hz = 1 < second.at_s - begin_s <= 1 + TRIP_RECORDED_S

    return then_fault(during(begin_s, lasts_s, bend), begin_s + lasts_s)


def lead_off_not_muted(begin_s: int, lasts_s: int = 40) -> Act:
    """The head leaves the skin and the output stays at its compliance voltage."""

    def bend(second: Second) -> None:
        second.lead_off_live = second.lifted = True

    return steadily(begin_s, lasts_s, bend)


def gain_drift(begin_s: int, per_s: float, most: float) -> Act:
    """The regulation drifts: more and more than the set-point is delivered."""

    def bend(second: Second) -> None:
        second.gain = min(1.0 + per_s * (second.at_s - begin_s), most)

    return steadily(begin_s, 3_600, bend)


def weak_negative(begin_s: int, gain: float) -> Act:
    """The negative pulses are weaker than the positive ones."""

    def bend(second: Second) -> None:
        second.negative_gain = gain

    return during(begin_s, 3_600, bend)


def generator_stuck(begin_s: int, lasts_s: int) -> Act:
    """The generator stands still with its output on: direct current; then the user switches off."""

    def bend(second: Second) -> None:
        second.stuck = True
        second.contact["contact_frac"] = 1.0
        if second.at_s == begin_s + lasts_s:
            second.end = EndReason.USER

    return steadily(begin_s, lasts_s, bend)


def wrong_frequency(begin_s: int, freq_hz: float) -> Act:
    """The generator runs too fast or too slowly, and is as balanced as ever."""
    waveform = Waveform(Mode.ALT_BURST, freq_hz, round(0.5e6 / freq_hz), 0.5)

    def bend(second: Second) -> None:
        second.waveform = waveform

    return during(begin_s, 3_600, bend)


def gel_dries(begin_s: int, times: float, over_s: float) -> Act:
    """Impedance grows to `times` what it was, exponentially, and stays there."""

    def bend(second: Second) -> None:
        second.z_factor = times ** min((second.at_s - begin_s) / over_s, 1.0)

    return during(begin_s, 3_600, bend)


def chatter(begin_s: int, lasts_s: int, breaks: int = 2, every_s: int = 1) -> Act:
    """So many short breaks in every `every_s`-th second."""

    def bend(second: Second) -> None:
        if second.at_s % every_s == 0:
            second.breaks = breaks

    return steadily(begin_s, lasts_s, bend)


def surge_at_make(begin_s: int, share: float, more_ua: float) -> Act:
    def bend(second: Second) -> None:
        second.surge = (share, more_ua)

    return during(begin_s, 3_600, bend)


def gel_bridge(begin_s: int, lasts_s: int) -> Act:
    def bend(second: Second) -> None:
        second.z_ohm = 80.0

    return steadily(begin_s, lasts_s, bend)


def edge_contact(begin_s: int, lasts_s: int, frac: float = 0.2, every_s: int | None = None) -> Act:
    """Only the electrode's edge touches; with `every_s`, again and again."""

    def act(second: Second) -> None:
        since_s = second.at_s - begin_s
        if every_s is not None and since_s > 0:
            since_s %= every_s
        if -3 < since_s <= lasts_s + 3:
            second.lifted = False
        if 0 < since_s <= lasts_s:
            second.contact["contact_frac"] = frac

    return act


def meter_open(begin_s: int, lasts_s: int) -> Act:
    """The contact meter has failed: it shows no contact while current flows."""

    def bend(second: Second) -> None:
        second.contact.update(z_ohm=OPEN_OHM, state=ContactState.OFF, contact_frac=0.0, electrode_mask=0)

    return steadily(begin_s, lasts_s, bend)


def rms_meter_frozen(begin_s: int, lasts_s: int) -> Act:
    def bend(second: Second) -> None:
        second.rms_frozen = True

    return steadily(begin_s, lasts_s, bend)


def wrong_unit(factor: float) -> Act:
    """Every current and charge is reported in a unit `factor` times too small."""

    def act(second: Second) -> None:
        # The sum contradicts Ohm's law only where the skin's impedance is known.
        second.lifted, second.unit_factor = False, factor

    return act


def dim_room(begin_s: int, lux: float, to_share: float) -> Act:
    """Light goes, and with it the current of a solar cell, within five seconds."""

    def bend(second: Second) -> None:
        second.gain = max(1.0 - (1.0 - to_share) * (second.at_s - begin_s) / 5, to_share)
        second.health.update(lux=lux, solar_mv=500.0)

    return during(begin_s, 3_600, bend)


def heating(begin_s: int, from_c: float, to_c: float, per_s: float = 0.1, holds_s: int = 20) -> Act:
    """The head warms up, stays hot and cools down again."""
    hot_s = begin_s + (to_c - from_c) / per_s

    def act(second: Second) -> None:
        if second.at_s > begin_s:
            cooled_c = max(second.at_s - hot_s - holds_s, 0.0) * 2 * per_s
            second.head_c = max(min(from_c + per_s * (second.at_s - begin_s), to_c) - cooled_c, from_c)

    return act


def says(begin_s: int, lasts_s: int, **health: Any) -> Act:
    """The device's own health tells of it."""

    def bend(second: Second) -> None:
        second.health.update(health)

    return steadily(begin_s, lasts_s, bend)


def in_zone(begin_s: int, lasts_s: int, zone: Zone, source: ZoneSource) -> Act:
    def bend(second: Second) -> None:
        second.zone, second.zone_source = zone, source

    return steadily(begin_s, lasts_s, bend)


def held_still(begin_s: int, lasts_s: int) -> Act:
    def bend(second: Second) -> None:
        second.motion = Motion.STILL

    return steadily(begin_s, lasts_s, bend)


def resets(*planned: tuple[int, ResetReason]) -> Act:
    """The first session of the course ends in the first of these resets (second, reason), and so on."""

    def act(second: Second) -> None:
        if second.session <= len(planned):
            at_s, reason = planned[second.session - 1]
            if second.at_s == at_s:
                second.reset = reason

    return act


def battery_dies(at_s: int) -> Act:
    def act(second: Second) -> None:
        second.dies = second.at_s == at_s

    return act


def wearing(per_session: float) -> Act:
    """Electrodes wear out: impedance rises from session to session."""

    def act(second: Second) -> None:
        second.z_factor = (1.0 + per_session) ** (second.session - 1)

    return act


# -- what users and sound devices do -----------------------------------------------------------


def paused(begin_s: int, lasts_s: int) -> Act:
    """The user pauses, takes the head off, puts on gel and goes on."""

    def act(second: Second) -> None:
        if begin_s < second.at_s <= begin_s + lasts_s:
            second.paused = True
            second.lifted = begin_s + 3 < second.at_s <= begin_s + lasts_s - 3
        elif begin_s - 3 < second.at_s <= begin_s + lasts_s + 3:
            second.lifted = False

    return act


def head_off(begin_s: int, lasts_s: int) -> Act:
    """The head is put down; a device that mutes then shows neither voltage nor current."""

    def bend(second: Second) -> None:
        second.lifted = True

    return steadily(begin_s, lasts_s, bend)


def levels(*steps: tuple[int, int, float]) -> Act:
    """(from second, level, share of the set-point), in order."""

    def act(second: Second) -> None:
        for from_s, level, share in steps:
            if second.at_s > from_s:
                second.level, second.set_share = level, share

    return act


def adapting(begin_s: int, share: float, over_s: float) -> Act:
    """An adaptive device lowers its own set-point, and publishes the lowered one."""

    def bend(second: Second) -> None:
        second.set_share = max(1.0 - (1.0 - share) * (second.at_s - begin_s) / over_s, share)

    return during(begin_s, 3_600, bend)


def program_change(at_s: int, waveform: Waveform, set_ua: float) -> Act:
    def bend(second: Second) -> None:
        second.waveform, second.set_ua = waveform, set_ua

    return during(at_s, 3_600, bend)


def bone_and_cheek(cheek: float, bone: float, every_s: int) -> Act:
    """Impedance differs from place to place."""

    def act(second: Second) -> None:
        second.z_factor = bone if (second.at_s - 1) // every_s % 2 else cheek

    return act
