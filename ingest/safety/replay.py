"""A session judged as a whole, from everything that is on record of it. Pure.

This is the definition that the line comes to message by message: all readings of a session in event
time, then the silence at its end, then the history of the device, then the fleet. When a message
arrived plays no role.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.safety.cluster import Danger
from ingest.safety.history import Boot, Past, overuse, resets, wear
from ingest.safety.judge import Judged, judge, losses, silent_tail
from ingest.safety.track import Reading, Track
from schemas.alerts import Alert, AlertState, CloseReason, Severity
from schemas.limits import GAP_MS, LATENESS_MS
from schemas.messages import RunState


@dataclass(frozen=True, slots=True)
class End:
    """What is known of the time after a session's last reading.

    `observed_until_ms` is the latest event time on record; `heard_ms` when the device next spoke, in
    another session; `lost` how many of the session's messages never came.
    """

    observed_until_ms: int
    heard_ms: int | None
    lost: int


def judge_whole(device_id: str, session: str, readings: Iterable[Reading]) -> tuple[Track, list[Alert]]:
    """Judge the readings of a session, given in event order; the alerts, and the track as it then is."""
    track, judged = Track(device_id, session), Judged()
    for reading in readings:
        judge(track, reading, judged)
    return track, list(judged.alerts.values())


def judge_end(track: Track, end: End) -> list[Alert]:
    """Whether the session fell silent while running, and whether too much of it is missing."""
    if track.last_ms is None or end.observed_until_ms < track.last_ms + GAP_MS + LATENESS_MS:
        return []  # what is missing may still come
    found: list[Alert] = []
    running = track.run_state == RunState.RUNNING
    interrupted = end.heard_ms is not None and end.heard_ms <= track.last_ms + GAP_MS
    if running and not interrupted:
        track.last_received_ms = track.last_ms
        gap = silent_tail(track, end.observed_until_ms)
        if end.heard_ms is not None:
            gap.value = (end.heard_ms - track.last_ms) / 1000
            gap.state, gap.closed_ms, gap.close_reason = AlertState.CLOSED.value, end.heard_ms, CloseReason.RESUMED.value
        found.append(gap)
    if track.session_id is not None and (running or track.figures.ended):
        missing = losses(track, end.lost)
        found += [missing] if missing else []
    return found


def judge_history(past: Iterable[Past], boots: Iterable[Boot], sessions: set[str]) -> list[Alert]:
    """What a device's sessions and boots say together, as far as it is about some of the sessions."""
    known = list(past)
    return [alert for alert in (*overuse(known), *wear(known), *resets(known, boots)) if alert.session_id in sessions]


def dangers(alerts: Iterable[Alert], lot: str | None) -> list[Danger]:
    """The critical alerts of a device as the rule on the fleet takes them."""
    return [
        Danger(alert.onset_ms, alert.id, alert.device_id, alert.rule, alert.model or "?", alert.fw or "?", lot)
        for alert in alerts
        if alert.severity == Severity.CRITICAL
    ]
