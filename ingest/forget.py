"""What the journal keeps of sessions, alerts and refused messages ends; no judgement may change by that.

Alerts follow from what is on record, and an alert that is no longer found is withdrawn. So for each
device there is a time up to which nothing is judged again; it lies before all that stood at the limit.
What the rules look back at from there is kept: nine days of everything, and of electrodes in use the
sessions that their wear is measured by.
"""

from collections.abc import Iterable, Sequence

from ingest.chronicle import attachment_at
from ingest.journal import Journal
from ingest.points import NS_PER_MS
from ingest.rollup import Before, week_of, weeks_of
from ingest.safety.history import COMMISSIONING, COUNTED_S, DAY_MS, LATEST, WEEK_MS
from schemas.alerts import FLEET
from schemas.profile import Profiles
from schemas.sessions import SessionRecord

LOOKS_BACK_MS = 9 * DAY_MS
"""Further than the week that `daily-overuse` and `fleet-cluster` look back, and a day."""

LATE_MS = 14 * DAY_MS
"""Nothing that late data can still touch is forgotten, even if readings are kept as long as what remains of them."""

STEP_MS = 26 * WEEK_MS
"""So much of a device is forgotten at once."""

DEVICES, ENTRIES = 20, 500


def judged_from(limit_ms: int, stood: Iterable[tuple[int, int | None]]) -> int:
    """The latest time not after a limit at which no alert stood: (onset, end or None while open) of each."""
    from_ms = limit_ms
    for onset_ms, ended_ms in sorted(stood, key=lambda alert: alert[0], reverse=True):
        if onset_ms < from_ms and (ended_ms is None or ended_ms >= from_ms):
            from_ms = onset_ms
    return from_ms


def measures(records: Sequence[SessionRecord], attachments: list[tuple[int, str]], before_ms: int) -> set[str]:
    """Of the sessions before a time, in order, those by which the wear of electrodes is measured that are in use after it."""
    of_attachment: dict[str | None, list[SessionRecord]] = {}
    in_use = set()
    for record in records:
        attachment = attachment_at(attachments, record.started_ms)
        if record.started_ms >= before_ms:
            in_use.add(attachment)
        elif record.ended and record.z_median_ohm is not None:
            of_attachment.setdefault(attachment, []).append(record)
    known = [of_attachment[attachment] for attachment in in_use if attachment in of_attachment]
    return {record.session_id for some in known for record in some[:COMMISSIONING] + some[-LATEST:]}


class Forgetting:
    """Goes through the devices, a few at a time. One thread; `piece` runs inside a transaction."""

    def __init__(self, journal: Journal, profiles: Profiles, summary_days: int, raw_days: int) -> None:
        self._journal = journal
        self._profiles = profiles
        self._summary_ms = summary_days * DAY_MS
        self._refused_ms = max(summary_days, raw_days) * DAY_MS
        self._at: str | None = None

    def piece(self, now_ms: int) -> bool:
        """Forget some of what is too old; whether there may be more."""
        if self._journal.forget_refused(now_ms - self._refused_ms, ENTRIES):
            return True
        limit_ms = now_ms - self._summary_ms - LATE_MS
        if self._at is None:
            self._at = ""
            self._journal.forget_line(now_ms - self._summary_ms)
            self._forget(FLEET, limit_ms)  # first: no device may lose what a cluster needs
            return True
        limit_ms = min(limit_ms, self._journal.judged_from(FLEET))
        for device_id in (found := self._journal.device_ids(self._at, DEVICES)):
            if self._forget(device_id, limit_ms):
                return True
            self._at = device_id
        if len(found) == DEVICES:
            return True
        self._at = None
        return False

    def _forget(self, device_id: str, limit_ms: int) -> bool:
        """Forget a step of one device; whether there is more of it."""
        from_ms = judged_from(limit_ms, self._journal.stood(device_id))
        until_ms = week_of(from_ms - LOOKS_BACK_MS)
        before = self._journal.before(device_id)
        first_ms = self._journal.first_session_ms(device_id, before.until_ms)
        self._journal.forget_alerts(device_id, until_ms)
        if until_ms <= before.until_ms:
            return False
        step_ms = until_ms if first_ms is None else min(until_ms, week_of(max(first_ms, before.until_ms)) + STEP_MS)
        records = [record for record, _ in self._journal.sessions(device_id, 0, 2**62)]
        attachments = self._journal.attachments(device_id)
        kept = measures(records, attachments, until_ms)
        gone = [r.session_id for r in records if r.started_ms < step_ms and r.session_id not in kept]
        self._journal.forget_sessions(device_id, gone, step_ms)
        self._journal.put_before(device_id, from_ms, self._sum(device_id, records, before, step_ms))
        return step_ms < until_ms

    def _sum(self, device_id: str, records: list[SessionRecord], before: Before, until_ms: int) -> Before:
        """What the weeks before a time leave to those after it."""
        counted = [r for r in records if before.until_ms <= r.started_ms < until_ms and r.output_s >= COUNTED_S]
        last_ms, completions, streak = before.until_ms - WEEK_MS, before.completions, before.streak_weeks
        for point in weeks_of(device_id, counted, self._profiles.find, before):
            last_ms = point.time_ns // NS_PER_MS
            completions, streak = point.fields["course_sessions"], point.fields["streak_weeks"]
        first_ms = before.first_ms if before.first_ms is not None else min((r.started_ms for r in counted), default=None)
        return Before(until_ms, first_ms, completions, streak if last_ms == until_ms - WEEK_MS else 0)
