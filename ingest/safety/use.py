"""Rules on how long the device is used, and where."""

from ingest.safety.rule import Limb, Measure, Rule, Scope
from ingest.safety.track import IN_CONTACT, Reading, Track
from schemas.alerts import Severity
from schemas.limits import Limits
from schemas.messages import Mode, Motion, RunState, ZoneSource

STILL_MS, STILL_DC_MS = 60_000, 30_000
OBSERVED = frozenset({ZoneSource.PROGRAM, ZoneSource.INFERRED})
SESSIONS_A_DAY, SESSIONS_MORE_A_WEEK = 3, 2


def _on_s(track: Track, reading: Reading) -> float:
    """A counter that was reset must not hide an overrun, nor must lost samples."""
    if reading.partial:  # a refused message is not taken into the track
        return max(track.output_on_s, reading.sample.output_on_s or 0.0)
    return track.output_on_s


def longer_than_allowed(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    on_s = _on_s(track, reading)
    return Measure(on_s, limits.session_max_s) if on_s > limits.session_max_s else None


def automatic_off_failed(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    on_s = _on_s(track, reading)
    return Measure(on_s, limits.overrun_s) if on_s > limits.overrun_s else None


SESSION_OVERRUN = Rule(
    "session-overrun",
    "runtime current",
    (
        Limb(Severity.CRITICAL, automatic_off_failed, "output time > 1.10·P.session_max + 30 s, though P.auto_off", alone=True),
        Limb(Severity.WARNING, longer_than_allowed, "output time (counter, or sum of windows with output) > P.session_max", alone=True),
    ),
    unit="s",
    source="automatic off after 20 min in K201680; 8 min and 50 min in other labelling",
    says="output has been on for longer than a session may last",
)

DAILY_OVERUSE = Rule(
    "daily-overuse",
    "sessions",
    (
        Limb(Severity.WARNING, None, "output time of the last 24 h > P.daily_max", scope=Scope.HISTORY),
        Limb(
            Severity.INFO, None, "more than 3 sessions in 24 h, or more than P.weekly_sessions + 2 in 7 days", unit="sessions",
            scope=Scope.HISTORY,
        ),
    ),
    unit="s",
    source="engineering judgement around K201680, labelling and protocols",
    says="the device is used for longer, or more often, than the protocol allows",
)  # fmt: skip


def _dwells(track: Track, limits: Limits, reading: Reading, limit: float) -> Measure | None:
    elapsed_s, run_state = reading.sample.zone_elapsed_s, reading.sample.run_state
    if elapsed_s is None or elapsed_s <= limit or (run_state or RunState.RUNNING) != RunState.RUNNING:
        return None
    return Measure(float(elapsed_s), limit)


def _long_in_zone(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _dwells(track, limits, reading, limits.zone_max_s)


def _too_long_in_zone(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _dwells(track, limits, reading, 2 * limits.zone_max_s)


def _still(track: Track, reading: Reading, limits: Limits) -> bool:
    sample = reading.sample
    return (
        sample.motion == Motion.STILL
        and sample.state in IN_CONTACT
        and track.delivering(track.output_enabled)
        and track.program_id not in limits.hold_programs
    )


def _rests(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return Measure(STILL_MS / 1000, STILL_MS / 1000, "head does not move") if _still(track, reading, limits) else None


def _rests_with_direct_current(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if track.mode != Mode.DC or not _still(track, reading, limits):
        return None
    return Measure(STILL_DC_MS / 1000, STILL_DC_MS / 1000, "head does not move, direct current")


def _moved_on(track: Track, reading: Reading, limits: Limits) -> bool:
    return track.zone_elapsed_s <= limits.zone_max_s and track.motion != Motion.STILL


ZONE_DWELL = Rule(
    "zone-dwell",
    "runtime contact",
    (
        Limb(Severity.WARNING, _too_long_in_zone, "zone_elapsed > 2·P.zone_max", alone=True, reads="runtime"),
        Limb(Severity.WARNING, _rests, "in contact, active and not moving, for 60 s", hold_ms=STILL_MS, reads="contact", unit="s at rest"),
        Limb(
            Severity.WARNING, _rests_with_direct_current, "the same in d.c. mode, for 30 s", hold_ms=STILL_DC_MS, reads="contact",
            unit="s at rest",
        ),
        Limb(Severity.INFO, _long_in_zone, "zone_elapsed > P.zone_max", alone=True, reads="runtime"),
    ),
    unit="s",
    source="relocation cues of 5 s (K133823) and 15 s; zone minutes of guides; factors engineering judgement",
    says="too long on one spot",
    clear=_moved_on,
    clears_when="another zone, and moving",
)  # fmt: skip


def _in_forbidden_zone(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    if track.zone not in limits.zones_forbidden or not track.delivering(reading.sample.output_enabled):
        return None
    if track.heard_of_contact(reading.t_ms) and track.contact_state not in IN_CONTACT:
        return None
    return Measure(1.0, 0.0, f"zone {track.zone}, told by {track.zone_source}")


def _driven_into_forbidden_zone(track: Track, reading: Reading, limits: Limits) -> Measure | None:
    return _in_forbidden_zone(track, reading, limits) if track.zone_source in OBSERVED else None


FORBIDDEN_ZONE = Rule(
    "forbidden-zone",
    "current",
    (
        Limb(
            Severity.CRITICAL, _driven_into_forbidden_zone,
            "active and in contact in a zone of P.zones_forbidden, told by program or inferred", hold_ms=2_000,
        ),
        Limb(Severity.WARNING, _in_forbidden_zone, "the same, tapped by the user", hold_ms=2_000),
    ),
    unit="zones",
    source="IEC 60601-2-10 placement; NuFACE manual; the zone is declared, not sensed",
    says="output in a zone where this model must not be used",
    clear=lambda track, reading, limits: _in_forbidden_zone(track, reading, limits) is None,
    clear_ms=2_000,
    clears_when="not so for 2 s",
)  # fmt: skip
