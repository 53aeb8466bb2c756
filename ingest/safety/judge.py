"""Apply the rules to one reading after another, in event time."""

from dataclasses import dataclass, field
from hashlib import blake2s

from ingest.safety.data import GAP_MS, LATENESS_MS, TELEMETRY_GAP
from ingest.safety.rule import Limb, Measure, Rule
from ingest.safety.rules import OF_STREAM, RULES, URGENT, URGENT_STREAMS
from ingest.safety.track import Reading, Track, observe
from schemas.alerts import Alert, AlertState, CloseReason, MessageRef, Severity
from schemas.messages import RunState

HOLD_GAP_MS = 3_000
"""A longer silence between readings starts a hold anew."""

SAMPLING_JITTER_MS = 50
"""How far a hold may fall short because windows are not cut to the millisecond."""

RETROSPECTIVE_MS = 120_000
BURST_WINDOW_MS = 200
MOST_EVIDENCE = 8
VALUE_CEILING = 1e9
OVER = frozenset({RunState.ENDED, RunState.IDLE, RunState.FAULT})

_CONDITIONS = {
    stream: tuple((rule, tuple(limb.condition for limb in rule.limbs)) for rule in rules)
    for stream, rules in OF_STREAM.items()
}


@dataclass(slots=True)
class Judged:
    """The alerts that a run of readings opened or changed; `due_ms` holds some back till then.

    `unconfirmed` were announced on one sample, but in order another onset was found.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    due_ms: dict[str, int] = field(default_factory=dict)
    unconfirmed: list[str] = field(default_factory=list)


def alert_id(rule: str, device_id: str, session: str, onset_ms: int) -> str:
    """The same judgement always has the same name."""
    return blake2s(f"{rule}|{device_id}|{session}|{onset_ms}".encode(), digest_size=8).hexdigest()


def judge(track: Track, reading: Reading, into: Judged) -> None:
    """Take one reading, later than all before it, into the track; note what it opens or changes."""
    if reading.partial:
        for rule in RULES:
            _judge_alone(track, rule, reading, into)
    else:
        _silence_before(track, reading, into)
        observe(track, reading)
        for rule, conditions in _CONDITIONS[reading.stream]:
            if track.open or track.holds:
                _apply(track, rule, reading, into)
                continue
            for condition in conditions:  # almost every reading is harmless, and ends here
                if condition(track, reading) is not None:
                    _apply(track, rule, reading, into)
                    break
        if reading.stream == "runtime" and track.run_state in OVER:
            for rule_id in list(track.open):
                _close(track, rule_id, reading.t_ms, CloseReason.SESSION_ENDED, into)
    track.frontier_ms = reading.t_ms


def urgent_alerts(track: Track, reading: Reading) -> list[Alert]:
    """What one sample says by itself, before its turn has come; the judgement in order confirms it."""
    found = []
    if reading.partial or reading.stream in URGENT_STREAMS:
        for rule, limb in URGENT:
            measure = limb.condition(track, reading) if rule.id not in track.open else None
            if measure is not None:
                found.append(_new(track, rule, limb, measure, reading.t_ms, reading))
    return found


def silent_tail(track: Track, observed_until_ms: int) -> Alert | None:
    """The alert of a session that was running and has said nothing more, once that is sure."""
    if track.run_state != RunState.RUNNING or track.last_ms is None:
        return None
    if observed_until_ms < gap_due_ms(track):
        return None
    silent_s = (observed_until_ms - track.last_received_ms) / 1000
    return _gap(track, track.last_ms + GAP_MS, silent_s)


def gap_due_ms(track: Track) -> int:
    """When silence after the last reading becomes an alert: counted from its receipt, so that
    data uploaded hours late are not mistaken for silence."""
    return track.last_received_ms + GAP_MS + LATENESS_MS


def _silence_before(track: Track, reading: Reading, into: Judged) -> None:
    if track.run_state != RunState.RUNNING or track.last_ms is None:
        return
    if reading.t_ms - track.last_ms <= GAP_MS:
        return
    alert = _gap(track, reading.t_ms, (reading.t_ms - track.last_ms) / 1000)
    alert.state, alert.closed_ms = AlertState.CLOSED, reading.t_ms
    alert.close_reason = CloseReason.RESUMED
    into.alerts[alert.id] = alert
    into.due_ms[alert.id] = gap_due_ms(track)


def _gap(track: Track, updated_ms: int, silent_s: float) -> Alert:
    return Alert(
        id=alert_id(TELEMETRY_GAP.id, track.device_id, track.session, track.last_ms),
        rule=TELEMETRY_GAP.id,
        rule_version=TELEMETRY_GAP.version,
        severity=Severity.WARNING,
        device_id=track.device_id,
        session_id=track.session_id,
        model=track.model,
        hw=track.hw,
        fw=track.fw,
        profile_id=track.profile_id,
        profile_version=track.profile_version,
        state=AlertState.OPEN,
        onset_ms=track.last_ms,
        opened_ms=track.last_ms + GAP_MS,
        updated_ms=updated_ms,
        value=silent_s,
        limit=GAP_MS / 1000,
        unit=TELEMETRY_GAP.unit,
        source=TELEMETRY_GAP.source,
        evidence=[MessageRef(boot_id=track.boot_id, seq=track.seq)],
    )


def _apply(track: Track, rule: Rule, reading: Reading, into: Judged) -> None:
    t_ms = reading.t_ms
    fired: tuple[Limb, Measure, int] | None = None
    hot: tuple[Limb, Measure, int] | None = None
    for at, limb in enumerate(rule.limbs):
        measure = limb.condition(track, reading)
        if measure is None:
            if track.holds and limb.hold_ms:
                track.holds.pop(f"{rule.id}/{at}", None)
            continue
        if not limb.hold_ms:
            fired = fired or (limb, measure, t_ms)
            continue
        key = f"{rule.id}/{at}"
        if limb.settles and t_ms < track.grace_until_ms:
            track.holds.pop(key, None)
            continue
        hold = track.holds.get(key)
        if hold is None or t_ms - hold[1] > HOLD_GAP_MS:
            hold = track.holds[key] = [t_ms, t_ms, getattr(reading.sample, "window_ms", 0)]
        hold[1] = t_ms
        hot = hot or (limb, measure, int(hold[0]))
        if t_ms - hold[0] + hold[2] >= limb.hold_ms - SAMPLING_JITTER_MS and fired is None:
            fired = limb, measure, int(hold[0])
    if fired is not None or (hot is not None and rule.id in track.open):
        _raise(track, rule, *(fired or hot), reading, into)
    elif rule.id in track.open:
        _maybe_clear(track, rule, reading, into)


def _judge_alone(track: Track, rule: Rule, reading: Reading, into: Judged) -> None:
    for limb in rule.limbs:
        measure = limb.condition(track, reading) if limb.alone else None
        if measure is not None:
            _raise(track, rule, limb, measure, reading.t_ms, reading, into)
            return


def _raise(
    track: Track, rule: Rule, limb: Limb, measure: Measure, onset_ms: int, reading: Reading, into: Judged
) -> None:
    track.clears.pop(rule.id, None)
    alert = track.open.get(rule.id)
    if alert is None:
        alert = track.open[rule.id] = _new(track, rule, limb, measure, onset_ms, reading)
    else:
        _worsen(alert, limb, measure, reading)
    into.alerts[alert.id] = alert


def _new(track: Track, rule: Rule, limb: Limb, measure: Measure, onset_ms: int, reading: Reading) -> Alert:
    profile = reading.profile
    return Alert(
        id=alert_id(rule.id, track.device_id, track.session, onset_ms),
        rule=rule.id,
        rule_version=rule.version,
        severity=limb.severity,
        device_id=track.device_id,
        session_id=track.session_id,
        model=reading.model,
        hw=reading.hw,
        fw=reading.fw,
        profile_id=profile.id if profile else None,
        profile_version=profile.version if profile else None,
        state=AlertState.OPEN,
        onset_ms=onset_ms,
        opened_ms=reading.t_ms,
        updated_ms=reading.t_ms,
        value=min(VALUE_CEILING, measure.value),
        limit=measure.limit,
        unit=rule.unit,
        source=rule.source,
        retrospective=reading.received_ms - reading.t_ms > RETROSPECTIVE_MS,
        from_rejected=reading.partial,
        evidence=[MessageRef(boot_id=reading.boot_id, seq=reading.seq)],
    )


def _worsen(alert: Alert, limb: Limb, measure: Measure, reading: Reading) -> None:
    alert.updated_ms = reading.t_ms
    alert.value = max(alert.value, min(VALUE_CEILING, measure.value))
    if Severity(limb.severity).rank > Severity(alert.severity).rank:
        alert.severity, alert.limit, alert.escalated_ms = limb.severity.value, measure.limit, reading.t_ms
    if not reading.partial and (getattr(reading.sample, "window_ms", None) or BURST_WINDOW_MS + 1) <= BURST_WINDOW_MS:
        alert.confirmed = True
    ref = MessageRef(boot_id=reading.boot_id, seq=reading.seq)
    if len(alert.evidence) < MOST_EVIDENCE and ref not in alert.evidence:
        alert.evidence.append(ref)


def _maybe_clear(track: Track, rule: Rule, reading: Reading, into: Judged) -> None:
    if rule.clear is None:
        return
    if not rule.clear(track, reading):
        track.clears.pop(rule.id, None)
        return
    since_ms = track.clears.setdefault(rule.id, reading.t_ms)
    if reading.t_ms - since_ms >= rule.clear_ms - SAMPLING_JITTER_MS:
        _close(track, rule.id, reading.t_ms, CloseReason.CLEARED, into)


def _close(track: Track, rule_id: str, t_ms: int, reason: CloseReason, into: Judged) -> None:
    alert = track.open.pop(rule_id)
    track.clears.pop(rule_id, None)
    alert.state, alert.closed_ms, alert.close_reason = AlertState.CLOSED, t_ms, reason.value
    into.alerts[alert.id] = alert
