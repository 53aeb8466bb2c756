"""What a stimulus delivers in one window: r.m.s., mean and charge, from its true pulse pattern.

A burst-alternating device sends ten positive pulses, then ten negative ones. A one-second window
sees mostly one polarity, so its mean swings far from zero in perfect health; only the sum over
whole cycles is balanced. Drawing the pulses, and not a noisy zero, is what makes that visible.
"""

import math
from dataclasses import dataclass

from schemas.messages import Mode

PULSES_PER_BURST = 10


@dataclass(frozen=True, slots=True)
class Waveform:
    """A program's stimulus. `pulse_us` is one phase; `duty` is the part of time with current."""

    mode: Mode
    freq_hz: float
    pulse_us: float
    duty: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """Seconds of positive and of negative current within a window."""

    positive_s: float
    negative_s: float


def _burst_on_s(elapsed_s: float, period_s: float, pulse_s: float) -> float:
    """Time with current in the first `elapsed_s` of a pulse train."""
    pulses = math.floor(elapsed_s / period_s)
    return pulses * pulse_s + min(elapsed_s - pulses * period_s, pulse_s)


def _alternating_on_s(phase_s: float, waveform: Waveform) -> tuple[float, float]:
    """Positive and negative time since phase zero of a burst-alternating train."""
    period_s, pulse_s = 1.0 / waveform.freq_hz, waveform.pulse_us / 1e6
    burst_s = PULSES_PER_BURST * period_s
    cycles = math.floor(phase_s / (2 * burst_s))
    within_s = phase_s - cycles * 2 * burst_s
    whole_s = PULSES_PER_BURST * pulse_s
    positive_s = cycles * whole_s + _burst_on_s(min(within_s, burst_s), period_s, pulse_s)
    negative_s = cycles * whole_s
    if within_s > burst_s:
        negative_s += _burst_on_s(within_s - burst_s, period_s, pulse_s)
    return positive_s, negative_s


def deliver(waveform: Waveform, phase_s: float, length_s: float) -> Delivered:
    """Polarity times of `length_s` of stimulus that begins at `phase_s` of the generator."""
    if waveform.mode == Mode.DC:
        return Delivered(length_s, 0.0)
    if waveform.mode == Mode.BIPHASIC:
        half_s = length_s * waveform.duty / 2
        return Delivered(half_s, half_s)
    positive_0, negative_0 = _alternating_on_s(phase_s, waveform)
    positive_1, negative_1 = _alternating_on_s(phase_s + length_s, waveform)
    return Delivered(max(positive_1 - positive_0, 0.0), max(negative_1 - negative_0, 0.0))
