"""Rules on how long the device is used."""

from ingest.safety.rule import Limb, Measure, Rule
from ingest.safety.track import Reading, Track
from schemas.alerts import Severity

NO_PROFILE_MAX_S = 3_000.0
"""The longest session of any known model stands in for a device that no profile covers."""


def _on_s(track: Track, reading: Reading) -> float:
    """A counter that was reset must not hide an overrun, nor must lost samples."""
    if reading.partial:  # a refused message is not taken into the track
        return max(track.output_on_s, reading.sample.output_on_s or 0.0)
    return track.output_on_s


def _max_s(reading: Reading) -> float:
    return reading.profile.session.max_s if reading.profile else NO_PROFILE_MAX_S


def longer_than_allowed(track: Track, reading: Reading) -> Measure | None:
    on_s = _on_s(track, reading)
    limit = _max_s(reading)
    return Measure(on_s, limit) if on_s > limit else None


def automatic_off_failed(track: Track, reading: Reading) -> Measure | None:
    if reading.profile is None or not reading.profile.session.auto_off:
        return None
    on_s = _on_s(track, reading)
    limit = 1.10 * _max_s(reading) + 30
    return Measure(on_s, limit) if on_s > limit else None


SESSION_OVERRUN = Rule(
    "session-overrun",
    "runtime current",
    (
        Limb(Severity.CRITICAL, automatic_off_failed, settles=False, alone=True),
        Limb(Severity.WARNING, longer_than_allowed, settles=False, alone=True),
    ),
    unit="s",
    source="automatic off after 20 min in K201680; 8 min and 50 min in other labelling",
    says="output has been on for longer than a session may last",
)
