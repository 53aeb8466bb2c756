"""Apply the rules to one reading after another, in event time."""

from dataclasses import dataclass, field

from ingest.safety.calm import is_calm, may_contradict
from ingest.safety.data import (
    LOST_SHARE,
    MOST_CURRENT_UA,
    SENSOR_IMPLAUSIBLE,
    TELEMETRY_GAP,
    against_itself,
    against_ohm,
)
from ingest.safety.rule import Limb, Measure, Rule
from ingest.safety.rules import ALONE, OF_STREAM, URGENT, URGENT_STREAMS
from ingest.safety.track import Reading, Track, note_presence, observe, observe_impossible
from schemas.alerts import Alert, AlertState, CloseReason, MessageRef, Severity, alert_id
from schemas.limits import GAP_MS, LATENESS_MS, SHORT_OHM, Limits
from schemas.messages import RunState
from schemas.profile import UNKNOWN

HOLD_GAP_MS = 3_000
"""A longer silence between readings starts a hold anew."""

SAMPLING_JITTER_MS = 50
"""How far a hold may fall short because windows are not cut to the millisecond."""

BATCH_MS = 20_000
"""How old the latest judged contact may be when a current reading is looked at on arrival."""

RETROSPECTIVE_MS = 120_000
BURST_WINDOW_MS = 200
AFTERWARDS_MS = 5_000
"""Output that is still told after the end of its session, before it counts as going on."""

LONGEST_WINDOW_MS = 10_000
MOST_EVIDENCE = 8
VALUE_CEILING = 1e9
OVER = frozenset({RunState.ENDED, RunState.IDLE, RunState.FAULT})

_RUNNING = RunState.RUNNING.value

Row = tuple[Rule, tuple[tuple[str, Limb], ...]]

_TABLE: dict[str, tuple[tuple[str, tuple, Row], ...]] = {
    stream: tuple((rule.id, tuple(limb.condition for _, limb in limbs), (rule, limbs)) for rule, limbs in rows)
    for stream, rows in OF_STREAM.items()
}
_IMPLAUSIBLE: dict[str, Row] = {
    stream: next((row for row in rows if row[0] is SENSOR_IMPLAUSIBLE), (SENSOR_IMPLAUSIBLE, ())) for stream, rows in OF_STREAM.items()
}
_SENSORS_ALONE = tuple(row for row in ALONE if row[0] is SENSOR_IMPLAUSIBLE)
_OVERCURRENT: tuple[Row, ...] = tuple(row for row in OF_STREAM["current"] if any(limb.urgent for _, limb in row[1]))


@dataclass(slots=True)
class Judged:
    """The alerts that a run of readings opened or changed; `due_ms` holds some back till then.

    `unconfirmed` were announced on one sample, but in order another onset was found.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    due_ms: dict[str, int] = field(default_factory=dict)
    unconfirmed: list[str] = field(default_factory=list)


def judge(track: Track, reading: Reading, into: Judged) -> None:
    """Take one reading, later than all before it, into the track; note what it opens or changes."""
    limits = reading.profile.limits if reading.profile else UNKNOWN
    if reading.partial:
        for row in (_SENSORS_ALONE if _cannot_have_flowed(track, reading, limits) else ALONE):
            _apply(track, row, reading, limits, into, doubted=True)
    else:
        stream = reading.stream
        if track.run_state == _RUNNING and reading.t_ms - track.last_ms > GAP_MS:
            _silence_before(track, reading, into)
        if stream == "current" and may_contradict(track, reading.sample, limits) and _cannot_be(track, reading, limits):
            _judge_impossible(track, reading, limits, into)
        else:
            was = track.run_state
            observe(track, reading)
            note_presence(track, reading)
            if track.set_back and stream == "contact":
                _apply(track, _IMPLAUSIBLE[stream], reading, limits, into)
            else:
                _judge_row_by_row(track, reading, limits, into)
            if stream == "runtime" and track.run_state not in OVER:
                track.ended_ms = None
            elif stream == "runtime" and was not in OVER and (was or track.session_id):
                track.ended_ms, track.output_at_end_ms, track.ended_with = reading.t_ms, track.output_on_ms, list(track.open)
                for rule_id in list(track.open):
                    _close(track, rule_id, reading.t_ms, CloseReason.SESSION_ENDED, into)
    track.frontier_ms = reading.t_ms


def _judge_row_by_row(track: Track, reading: Reading, limits: Limits, into: Judged) -> None:
    """Almost every reading is harmless, and no rule but those with something pending looks twice."""
    opened, holds = track.open, track.holds
    if not opened and not holds and reading.stream == "current" and is_calm(track, reading, limits):
        return
    for rule_id, conditions, row in _TABLE[reading.stream]:
        if rule_id in opened or rule_id in holds:
            _apply(track, row, reading, limits, into)
            continue
        if opened and row[0].muted_by and _is_muted(track, row[0]):
            continue
        for condition in conditions:
            if condition(track, reading, limits) is not None:
                _apply(track, row, reading, limits, into)
                break


def _cannot_be(track: Track, reading: Reading, limits: Limits) -> bool:
    return against_ohm(track, reading, limits) is not None or against_itself(track, reading, limits) is not None


def _judge_impossible(track: Track, reading: Reading, limits: Limits, into: Judged) -> None:
    """It feeds no rule but the one on sensors, and those on too much current where it can be true."""
    observe_impossible(track, reading)
    note_presence(track, reading)
    if not _cannot_have_flowed(track, reading, limits):
        for row in _OVERCURRENT:
            _apply(track, row, reading, limits, into, doubted=True)
    _apply(track, _IMPLAUSIBLE["current"], reading, limits, into)


def _cannot_have_flowed(track: Track, reading: Reading, limits: Limits, within_ms: int | None = None) -> bool:
    """The supply could not push this current through the skin, and the voltage told with it is not
    one that would: so it is the reading that is wrong (a unit mistaken), and not the output. A wrong
    field among others must not hide too much current."""
    sample = reading.sample
    if sample.v_peak_mv is None or against_ohm(track, reading, limits, within_ms) is None:
        return False
    if sample.i_peak_ua > MOST_CURRENT_UA:
        return False  # beyond what can be measured at all: taken for the worst
    return sample.v_peak_mv * 1000 < SHORT_OHM * sample.i_peak_ua


def urgent_alerts(track: Track, reading: Reading) -> list[Alert]:
    """What one sample says by itself, before its turn has come; the judgement in order confirms it."""
    found = []
    if reading.partial or reading.stream in URGENT_STREAMS:
        limits = reading.profile.limits if reading.profile else UNKNOWN
        for rule, limb in URGENT:
            measure = limb.condition(track, reading, limits) if rule.id not in track.open else None
            if measure is not None and not _cannot_have_flowed(track, reading, limits, BATCH_MS):
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


def losses(track: Track, lost: int) -> Alert | None:
    """The alert of an ended session of which too much never came. `lost` is in messages."""
    expected = sum(last - first + 1 for first, last in track.figures.seqs.values())
    if not expected or lost / expected <= LOST_SHARE:
        return None
    alert = _gap(track, track.last_ms, lost / expected)
    started_ms = track.figures.started_ms
    alert.id = alert_id(TELEMETRY_GAP.id, track.device_id, f"{track.session}~lost", started_ms)
    alert.severity, alert.limit, alert.unit = Severity.INFO.value, LOST_SHARE, "share"
    alert.onset_ms, alert.opened_ms = started_ms, track.last_ms
    alert.state, alert.closed_ms, alert.close_reason = AlertState.CLOSED.value, track.last_ms, CloseReason.SESSION_ENDED.value
    alert.detail = f"{lost} of {expected} messages missing"
    return alert


def gap_due_ms(track: Track) -> int:
    """When silence after the last reading becomes an alert: counted from its receipt, so that
    data uploaded hours late are not mistaken for silence."""
    return track.last_received_ms + GAP_MS + LATENESS_MS


def _silence_before(track: Track, reading: Reading, into: Judged) -> None:
    """The session was running and said nothing until this reading."""
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


def _apply(track: Track, row: Row, reading: Reading, limits: Limits, into: Judged, doubted: bool = False) -> None:
    """One rule on one reading: keep its holds, open, worsen or clear its alert.

    A `doubted` reading (what is left of a refused message, or one that contradicts itself) is
    evidence of danger, and never of its absence.
    """
    rule, limbs = row
    t_ms = reading.t_ms
    is_open = rule.id in track.open
    muted = _is_muted(track, rule)
    if not is_open and not muted:
        muted = rule.id in track.spent or (_has_ended(track) and (rule.clear is None or rule.id in track.ended_with))
    holds = track.holds.get(rule.id)
    fired: tuple[Limb, Measure, int] | None = None
    hot: tuple[Limb, Measure, int] | None = None
    for at, limb in limbs:
        measure = None if muted else limb.condition(track, reading, limits)
        if measure is None:
            if holds is not None and not doubted:
                holds.pop(at, None)
            continue
        if not limb.hold_ms:
            fired = fired or (limb, measure, t_ms)
            continue
        if limb.settles and t_ms < track.grace_until_ms:
            if holds is not None:
                holds.pop(at, None)
            continue
        if holds is None:
            holds = track.holds[rule.id] = {}
        hold = holds.get(at)
        if hold is None or t_ms - hold[1] > HOLD_GAP_MS:
            hold = holds[at] = [t_ms, t_ms, _window_ms(reading)]
        hold[1] = t_ms
        hot = hot or (limb, measure, int(hold[0]))
        if t_ms - hold[0] + hold[2] >= limb.hold_ms - SAMPLING_JITTER_MS and fired is None:
            fired = limb, measure, int(hold[0])
    if holds is not None and not holds:
        del track.holds[rule.id]
    if fired is not None:
        _raise(track, rule, *fired, reading, into)
    elif hot is not None and is_open:
        _keep_open(track, rule, *hot[:2], reading, into)
    elif is_open and not doubted:
        _maybe_clear(track, rule, reading, limits, into)


def _has_ended(track: Track) -> bool:
    """What closed with its session does not open again after it, unless output goes on."""
    return track.ended_ms is not None and track.output_on_ms - track.output_at_end_ms <= AFTERWARDS_MS


def _is_muted(track: Track, rule: Rule) -> bool:
    return any(other in track.open for other in rule.muted_by)


def _window_ms(reading: Reading) -> float:
    """Over what time a sample speaks; 0 where that is not said, or cannot be believed."""
    window_ms = getattr(reading.sample, "window_ms", None) or 0
    return window_ms if 0 <= window_ms <= LONGEST_WINDOW_MS else 0


def _raise(
    track: Track, rule: Rule, limb: Limb, measure: Measure, onset_ms: int, reading: Reading, into: Judged
) -> None:
    track.clears.pop(rule.id, None)
    alert = track.open.get(rule.id)
    if alert is None:
        alert = track.open[rule.id] = _new(track, rule, limb, measure, onset_ms, reading)
        if rule.once:
            track.spent.append(rule.id)
    else:
        _worsen(alert, rule, limb, measure, reading)
    into.alerts[alert.id] = alert


def _keep_open(track: Track, rule: Rule, limb: Limb, measure: Measure, reading: Reading, into: Judged) -> None:
    """The condition is back, but has not held again: it cannot make the alert graver yet."""
    track.clears.pop(rule.id, None)
    alert = track.open[rule.id]
    if Severity(limb.severity).rank <= Severity(alert.severity).rank:
        _worsen(alert, rule, limb, measure, reading)
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
        unit=rule.unit_of(limb),
        source=rule.source,
        service=measure.service,
        detail=measure.detail,
        retrospective=reading.replayed or reading.received_ms - reading.t_ms > RETROSPECTIVE_MS,
        from_rejected=reading.partial,
        evidence=[MessageRef(boot_id=reading.boot_id, seq=reading.seq)],
    )


def _worsen(alert: Alert, rule: Rule, limb: Limb, measure: Measure, reading: Reading) -> None:
    alert.updated_ms = reading.t_ms
    value = min(VALUE_CEILING, measure.value)
    rises = Severity(limb.severity).rank > Severity(alert.severity).rank
    if rises:
        alert.severity, alert.escalated_ms = limb.severity.value, reading.t_ms
    if rises and rule.unit_of(limb) != alert.unit:
        alert.value, alert.limit, alert.unit, alert.detail = value, measure.limit, rule.unit_of(limb), measure.detail
    elif rule.unit_of(limb) == alert.unit:
        over, is_over = value >= measure.limit, alert.value >= alert.limit
        worse = (value > alert.value if is_over else value < alert.value) or (rises and over != is_over)
        if worse:
            alert.value = value
        if worse or rises:
            alert.detail = measure.detail or alert.detail
        if rises or (worse and limb.severity == alert.severity):
            alert.limit = measure.limit
    alert.service = alert.service or measure.service
    if not reading.partial and (getattr(reading.sample, "window_ms", None) or BURST_WINDOW_MS + 1) <= BURST_WINDOW_MS:
        alert.confirmed = True
    ref = MessageRef(boot_id=reading.boot_id, seq=reading.seq)
    if len(alert.evidence) < MOST_EVIDENCE and ref not in alert.evidence:
        alert.evidence.append(ref)


def _maybe_clear(track: Track, rule: Rule, reading: Reading, limits: Limits, into: Judged) -> None:
    if rule.clear is None or reading.stream not in (rule.clear_reads or rule.reads).split():
        return
    if not rule.clear(track, reading, limits):
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
