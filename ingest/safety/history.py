"""Rules on a device's sessions taken together. Pure: the same records give the same alerts.

Output time is counted by whole minutes of event time, so that a sum over 24 h does not depend on
when it is asked for.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from ingest.safety.contact import AS_NEW, WORN, WORN_OUT
from ingest.safety.device import RESETS_A_DAY
from ingest.safety.figures import MINUTE_MS
from ingest.safety.rule import Rule
from ingest.safety.rules import RULE
from ingest.safety.use import SESSIONS_A_DAY, SESSIONS_MORE_A_WEEK
from schemas.alerts import Alert, AlertState, CloseReason, Severity, alert_id
from schemas.limits import Limits
from schemas.messages import ResetReason
from schemas.sessions import SessionRecord

DAY_MIN, WEEK_MS, DAY_MS, HOUR_MS = 1_440, 604_800_000, 86_400_000, 3_600_000
COUNTED_S = 60.0
"""A session of less output is not counted as one."""

COMMISSIONING = LATEST = 5
UNWANTED = frozenset({ResetReason.WATCHDOG, ResetReason.BROWNOUT, ResetReason.PANIC})
JUST_BEFORE_MS = 5_000


@dataclass(frozen=True, slots=True)
class Boot:
    """When a device booted, by event time, and why."""

    boot_id: int
    booted_ms: int
    reset_reason: str


@dataclass(frozen=True, slots=True)
class Past:
    """What is on record of one session: `first_boot` is the boot that it began in."""

    record: SessionRecord
    first_boot: int
    limits: Limits


def in_order(sessions: Iterable[Past]) -> list[Past]:
    return sorted(sessions, key=lambda past: (past.record.started_ms, past.record.session_id))


# -- daily-overuse ---------------------------------------------------------------------------------------


def overuse(sessions: Iterable[Past]) -> list[Alert]:
    """`daily-overuse`, in each session during which there was too much."""
    ordered = in_order(sessions)
    minutes = sorted((minute, s) for past in ordered for minute, s in past.record.minutes.items())
    marks = [minute for minute, _ in minutes]
    sums = [0.0]
    for _, on_s in minutes:
        sums.append(sums[-1] + on_s)

    def output_s(minute: int) -> float:
        """Output of the 24 h that end with a minute."""
        return sums[bisect_right(marks, minute)] - sums[bisect_right(marks, minute - DAY_MIN)]

    counted = [past.record.started_ms for past in ordered if past.record.output_s >= COUNTED_S]
    found = []
    for past in ordered:
        alert = None
        record, limits = past.record, past.limits
        often = _too_often(record, limits, counted)
        if often is not None:
            alert = _alert(RULE["daily-overuse"], past, Severity.INFO, record.started_ms, *often)
            alert.unit = "sessions"
        over = _is_over(past, ordered)
        for minute in sorted(record.minutes):
            over_s, at_ms = output_s(minute), (minute + 1) * MINUTE_MS
            if over_s <= limits.daily_max_s or (at_ms > record.last_ms and not over):
                continue
            at_ms = min(at_ms, record.last_ms)
            if alert is None:
                alert = _alert(RULE["daily-overuse"], past, Severity.WARNING, at_ms, over_s, limits.daily_max_s)
            elif alert.severity == Severity.INFO:
                alert.severity, alert.escalated_ms = Severity.WARNING.value, at_ms
                alert.value, alert.limit, alert.unit, alert.detail = over_s, limits.daily_max_s, "s", ""
            alert.value, alert.updated_ms = max(alert.value, over_s), at_ms
        if alert is not None:
            if over:
                _close(alert, record.last_ms, CloseReason.SESSION_ENDED)
            found.append(alert)
    return found


def spare_s(sessions: Iterable[Past], record: SessionRecord) -> float:
    """How much more output would still be allowed in the 24 h that end with a session's latest reading."""
    minute = record.last_ms // MINUTE_MS
    used_s, daily_max_s = 0.0, 0.0
    for past in sessions:
        used_s += sum(on_s for at, on_s in past.record.minutes.items() if minute - DAY_MIN <= at <= minute)
        if past.record.session_id == record.session_id:
            daily_max_s = past.limits.daily_max_s
    return max(0.0, daily_max_s - used_s)


def _too_often(record: SessionRecord, limits: Limits, counted: Sequence[int]) -> tuple[float, float, str] | None:
    if record.output_s < COUNTED_S:
        return None
    upto = bisect_right(counted, record.started_ms)
    day = upto - bisect_right(counted, record.started_ms - DAY_MS)
    if day > SESSIONS_A_DAY:
        return float(day), float(SESSIONS_A_DAY), "sessions within 24 h"
    week = upto - bisect_right(counted, record.started_ms - WEEK_MS)
    most = limits.sessions_per_week + SESSIONS_MORE_A_WEEK
    return (float(week), most, "sessions within 7 days") if week > most else None


# -- electrode-wear --------------------------------------------------------------------------------------


def wear(sessions: Iterable[Past]) -> list[Alert]:
    """`electrode-wear`, from the session at whose end it showed."""
    ordered = in_order(sessions)
    found: list[Alert] = []
    of_attachment: dict[str | None, list[float]] = {}
    alert: Alert | None = None
    attachment: str | None = None
    for past in ordered:
        record = past.record
        if not record.ended or record.z_median_ohm is None:
            continue
        if record.attachment_id != attachment:
            if alert is not None:
                _close(alert, record.started_ms, CloseReason.CLEARED)
            alert, attachment = None, record.attachment_id
        known = of_attachment.setdefault(attachment, [])
        known.append(record.z_median_ohm)
        if len(known) <= COMMISSIONING:
            continue
        ratio = median(known[-LATEST:]) / median(known[:COMMISSIONING])
        if ratio < WORN:
            if alert is not None and ratio < AS_NEW:
                _close(alert, record.last_ms, CloseReason.CLEARED)
                alert = None
            continue
        severity = Severity.WARNING if ratio >= WORN_OUT else Severity.INFO
        limit = WORN_OUT if severity is Severity.WARNING else WORN
        if alert is None:
            alert = _alert(RULE["electrode-wear"], past, severity, record.last_ms, ratio, limit, f"attachment {attachment}")
            found.append(alert)
            continue
        alert.updated_ms, alert.value = record.last_ms, max(alert.value, ratio)
        if severity.rank > Severity(alert.severity).rank:
            alert.severity, alert.limit, alert.escalated_ms = severity.value, limit, record.last_ms
    return found


# -- resets in use ---------------------------------------------------------------------------------------


def resets(sessions: Iterable[Past], boots: Iterable[Boot]) -> list[Alert]:
    """`device-fault` for each reset that interrupted a session."""
    ordered = in_order(sessions)
    found: list[Alert] = []
    times: list[int] = []
    for boot in sorted(boots, key=lambda boot: (boot.booted_ms, boot.boot_id)):
        past = _interrupted(ordered, boot) if boot.reset_reason in UNWANTED else None
        if past is None:
            continue
        times.append(boot.booted_ms)
        count = len(times) - bisect_right(times, boot.booted_ms - DAY_MS)
        critical = count >= RESETS_A_DAY
        severity = Severity.CRITICAL if critical else Severity.WARNING
        alert = _alert(
            RULE["device-fault"], past, severity, boot.booted_ms, float(count), float(RESETS_A_DAY if critical else 1),
            f"reset by {boot.reset_reason} during a session",
        )  # fmt: skip
        alert.unit, alert.service = "resets", critical
        alert.id = alert_id("device-fault", past.record.device_id, f"~boot {boot.boot_id}", boot.booted_ms)
        _close(alert, boot.booted_ms, CloseReason.RESUMED)
        found.append(alert)
    return found


def _interrupted(ordered: Sequence[Past], boot: Boot) -> Past | None:
    """The session of an earlier boot that was under way when the device booted."""
    for past in reversed(ordered):
        record = past.record
        if record.started_ms >= boot.booted_ms or past.first_boot == boot.boot_id:
            continue
        if record.last_ms > boot.booted_ms + JUST_BEFORE_MS:
            return past
        return None if record.ended or boot.booted_ms - record.last_ms > HOUR_MS else past
    return None


# -- alerts ----------------------------------------------------------------------------------------------


def _alert(rule: Rule, past: Past, severity: Severity, at_ms: int, value: float, limit: float, detail: str = "") -> Alert:
    record = past.record
    return Alert(
        id=alert_id(rule.id, record.device_id, f"{record.session_id}~history", at_ms),
        rule=rule.id,
        rule_version=rule.version,
        severity=severity,
        device_id=record.device_id,
        session_id=record.session_id,
        model=record.model,
        hw=record.hw,
        fw=record.fw,
        profile_id=record.profile_id,
        profile_version=record.profile_version,
        state=AlertState.OPEN,
        onset_ms=at_ms,
        opened_ms=at_ms,
        updated_ms=at_ms,
        value=value,
        limit=limit,
        unit=rule.unit,
        source=rule.source,
        detail=detail,
    )


def _close(alert: Alert, t_ms: int, reason: CloseReason) -> None:
    alert.state, alert.closed_ms, alert.close_reason = AlertState.CLOSED.value, max(t_ms, alert.opened_ms), reason.value


def _is_over(past: Past, ordered: Sequence[Past]) -> bool:
    """Its session has ended, or another has begun."""
    return past.record.ended or past.record.started_ms < ordered[-1].record.started_ms
