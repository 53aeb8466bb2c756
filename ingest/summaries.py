"""Roll-ups are made again when what they rest on changes: with low priority, and in small pieces.

Which are due is on disk, marked in the transaction of the change and taken off in that of the new
point. A worker that dies in between makes them again, and they come out the same.
"""

import heapq
import time

import orjson

from ingest.admit import AHEAD_MS
from ingest.forget import Forgetting
from ingest.journal import Journal
from ingest.points import NS_PER_MS, pack
from ingest.rollup import SLOT_MS, Trend, weeks_of
from schemas.profile import Profiles

SETTLE_MS = 30_000
"""So long after its end, or after late data, a slot is left alone for what may still come."""

PIECE, SMALL_PIECE = 200, 100
"""Messages read at once while nothing waits, and while the line is busy."""

FORGET_EVERY_MS = 86_400_000
BUSY_EVERY_S = 0.25
"""How often a busy line still gets there."""

PAGE = 200

Slot = tuple[str, int]


class Summaries:
    """Knows what is due. One thread; `mark` and `work` run inside a transaction."""

    def __init__(self, journal: Journal, profiles: Profiles, summary_days: int, raw_days: int) -> None:
        self._journal = journal
        self._forgetting = Forgetting(journal, profiles, summary_days, raw_days)
        self._forget_at_ms = 0
        self._profiles = profiles
        self._ready_ms: dict[Slot, int] = {}
        self._queue: list[tuple[int, Slot]] = []
        self._read: Slot | None = ("", 0)
        self._trend: Trend | None = None
        self._left: list[tuple[int, int]] = []
        self._weeks_at_ms = 0
        self._worked_s = 0.0
        self.may_forget = True
        """Whether the time may be believed for deleting by it."""

    def mark(self, messages: list[tuple], observed_ms: int | None) -> None:
        """Messages have been put on record: rows of the table `message`."""
        known, fresh = self._ready_ms, []
        for row in messages:
            slot_ms = row[6] - row[6] % SLOT_MS
            if row[7] - slot_ms < SLOT_MS:
                if (row[0], slot_ms) in known:
                    continue
                slots = (slot_ms,)
            else:
                slots = range(slot_ms, row[7] + 1, SLOT_MS)
            if row[2] == 0:
                fresh += [(row[0], at_ms) for at_ms in slots if self._expect((row[0], at_ms), observed_ms)]
        if fresh:
            self._journal.mark_trends(fresh)

    def _expect(self, slot: Slot, observed_ms: int | None) -> bool:
        """Note when a slot is to be looked at; whether that was not known."""
        if slot in self._ready_ms:
            return False
        ready_ms = max(slot[1] + SLOT_MS, observed_ms or 0) + SETTLE_MS
        self._ready_ms[slot] = ready_ms
        heapq.heappush(self._queue, (ready_ms, slot))
        return True

    def is_due(self, observed_ms: int | None, busy: bool = False) -> bool:
        """Whether there is something to do now; a busy line only looks every quarter of a second."""
        if observed_ms is None or (busy and time.monotonic() - self._worked_s < BUSY_EVERY_S):
            return False
        return (
            self._trend is not None
            or self._read is not None
            or observed_ms >= self._weeks_at_ms
            or (self.may_forget and observed_ms >= self._forget_at_ms)
            or (bool(self._queue) and self._queue[0][0] <= observed_ms)
        )

    def work(self, observed_ms: int, busy: bool) -> None:
        """One small piece."""
        self._worked_s = time.monotonic()
        if self._trend is not None:
            self._gather(SMALL_PIECE if busy else PIECE)
        elif self._read is not None:
            self._read_marks()
        elif self._queue and self._queue[0][0] <= observed_ms:
            _, slot = heapq.heappop(self._queue)
            del self._ready_ms[slot]
            self._begin(*slot)
        elif observed_ms >= self._weeks_at_ms:
            self._week(observed_ms)
        elif self.may_forget and observed_ms >= self._forget_at_ms and not self._forgetting.piece(observed_ms):
            self._forget_at_ms = observed_ms + FORGET_EVERY_MS

    # -- ten minutes of a device ------------------------------------------------------------------

    def _read_marks(self) -> None:
        """What a worker before this one left to be done, a page at a time."""
        found = self._journal.trends_due(self._read, PAGE)
        for slot in found:
            self._expect(slot, None)
        self._read = found[-1] if len(found) == PAGE else None

    def _begin(self, device_id: str, slot_ms: int) -> None:
        self._trend = Trend(device_id, slot_ms)
        self._left = self._journal.messages_of_slot(device_id, slot_ms)
        self._finish_if_all_read()

    def _gather(self, most: int) -> None:
        piece, self._left = self._left[:most], self._left[most:]
        raws = self._journal.raws([raw_id for raw_id, _ in piece])
        for raw_id, event_ms in piece:
            if raw_id in raws:
                topic, payload = raws[raw_id]
                self._trend.add(topic[topic.rindex(b"/") + 1 :].decode(), event_ms, orjson.loads(payload))
        self._finish_if_all_read()

    def _finish_if_all_read(self) -> None:
        if self._left:
            return
        trend, self._trend = self._trend, None
        device_id, slot_ms = trend.device_id, trend.slot_ms
        # Once messages of this time may have been deleted, an earlier point can only be better.
        if slot_ms - AHEAD_MS >= self._journal.raw_pruned_ms:
            for point in trend.points():
                self._journal.enqueue_point(device_id, slot_ms, pack(point))
        if (device_id, slot_ms) not in self._ready_ms:  # else more has come meanwhile
            self._journal.trend_done(device_id, slot_ms)

    # -- a week of a device -----------------------------------------------------------------------

    def _week(self, observed_ms: int) -> None:
        device_id = self._journal.week_due()
        if device_id is None:
            self._weeks_at_ms = observed_ms + SETTLE_MS
            return
        told = self._journal.weeks_told(device_id)
        records = [record for record, _ in self._journal.sessions(device_id, 0, 2**62)]
        empty = [(week_ms, orjson.loads(point)["tags"][1]) for week_ms, point in told.items()]
        for point in weeks_of(device_id, records, self._profiles.find, self._journal.before(device_id), empty):
            packed, week_ms = pack(point), point.time_ns // NS_PER_MS
            if told.get(week_ms) != packed:
                self._journal.tell_week(device_id, week_ms, packed)
                self._journal.enqueue_point(device_id, week_ms, packed)
        self._journal.weeks_done(device_id)
