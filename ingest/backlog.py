"""What has been accepted and is not processed yet, and whose turn it is.

Messages are processed in the order in which they came, until more wait than a turn can do. From then on no device has
more than its share of a turn: what it sent beyond is set aside, on disk and in its order, and devices with messages set
aside share what a turn has left. So a device that sends more than can be judged waits for itself, and the others do not.
"""

from bisect import bisect_right, insort
from collections import Counter, deque
from typing import NamedTuple

from ingest.admit import NOBODY
from ingest.journal import Journal, Raw

TURN_MOST = 200
"""So many messages are processed in a turn."""

SHARE = 20
"""So many of them from one device, if more wait than a turn can do."""

INBOX_MOST = 5_000
"""So many are kept in memory; the others are read from the disk when it is their turn."""

READ_MOST = 2_000


class Turn(NamedTuple):
    """What is done in one step: `rows` are processed, `put_off` (device_id, raw_id) set aside; all up to `upto` has had its
    turn then, and of those set aside before, all of each device up to the raw_id in `taken_up`."""

    rows: list[Raw]
    put_off: list[tuple[str, int]]
    upto: int
    taken_up: dict[str, int]
    heard: dict[str, int]
    """When the last of those put off was received, by device."""


class Backlog:
    """In the order of their turns. What it hands out has left it: if a step fails, a new one is made from the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._inbox: deque[Raw] = deque()
        self._read = self._upto = journal.processed_upto
        self.aside: dict[str, int] = journal.aside_by_device()
        """Device → how many of its messages are set aside."""

        self._order = sorted(self.aside)
        self.last = journal.aside_last
        """The device whose messages were the last to be taken up in a round."""

        self._suspects = deque(journal.suspects())

    def __len__(self) -> int:
        """How many wait in memory; more may be on disk."""
        return len(self._inbox)

    @property
    def is_long(self) -> bool:
        """Whether more waits than a turn can do."""
        return bool(self.aside) or len(self._inbox) >= TURN_MOST

    @property
    def of_whom(self) -> str:
        """Whose messages are set aside, for people."""
        if not self.aside:
            return ""
        most = max(self.aside, key=self.aside.__getitem__)
        if len(self.aside) == 1:
            return f"{self.aside[most]} of {most} wait"
        return f"{sum(self.aside.values())} of {len(self.aside)} devices wait, {self.aside[most]} of them of {most}"

    def add(self, rows: list[Raw], after: int) -> None:
        """These have been accepted, right after the message `after`."""
        if self._read == after and len(self._inbox) < INBOX_MOST:
            self._inbox.extend(rows)
            self._read = rows[-1].id

    def next(self, most: int | None = None, sharing: bool = True, hurry: bool = False) -> Turn:
        """What has its turn now, about so many messages (None: `TURN_MOST`).

        Without `sharing`, no device's messages are newly set aside. In a `hurry`, of those set aside no more are taken up than
        one device's share: there is more to accept.
        """
        most = TURN_MOST if most is None else most
        if not self._inbox and self._read < self._journal.accepted:
            self._inbox.extend(self._journal.inbox(self._read, READ_MOST))
            self._read = self._inbox[-1].id
        sharing = sharing and len(self._inbox) > most
        heard: dict[str, int] = {}
        rows, put_off = self._of_inbox(most, SHARE if sharing else most, heard)
        taken_up: dict[str, int] = {}
        if self.aside:
            left = SHARE if hurry else min(most, TURN_MOST) - len(rows)
            rows = self._of_aside(max(left, SHARE if sharing else 0), taken_up) + rows
        for device_id, _ in put_off:
            self._count(device_id, 1)
        return Turn(rows, put_off, self._upto, taken_up, heard)

    def _of_inbox(self, most: int, share: int, heard: dict[str, int]) -> tuple[list[Raw], list[tuple[str, int]]]:
        inbox, aside = self._inbox, self.aside
        if len(inbox) <= most and not aside:
            rows = list(inbox)
            inbox.clear()
            self._upto = rows[-1].id if rows else self._upto
            return rows, []
        rows, put_off = [], []
        had: Counter[str] = Counter()
        while inbox and len(rows) < most:
            raw = inbox.popleft()
            self._upto = raw.id
            device_id = device_of(raw)
            if device_id in aside or had[device_id] >= share:
                put_off.append((device_id, raw.id))
                heard[device_id] = raw.received_ms
                had[device_id] = share  # what follows of it stays behind this
            else:
                had[device_id] += 1
                rows.append(raw)
        return rows, put_off

    def _of_aside(self, most: int, taken_up: dict[str, int]) -> list[Raw]:
        """In rounds, the same share for each, from the device after the one that was last; in the order of their arrival."""
        rows: list[Raw] = []
        share = max(1, min(SHARE, most // len(self._order)))
        while most > 0 and self._order:
            device_id = self._order[bisect_right(self._order, self.last) % len(self._order)]
            some = self._journal.aside_of(device_id, taken_up.get(device_id, 0), min(share, most))
            rows += some
            most -= len(some)
            self.last, taken_up[device_id] = device_id, some[-1].id
            self._count(device_id, -len(some))
        return sorted(rows, key=lambda raw: raw.id)

    def _count(self, device_id: str, more: int) -> None:
        before = self.aside.get(device_id, 0)
        if not before:
            insort(self._order, device_id)
        self.aside[device_id] = before + more
        if not self.aside[device_id]:
            del self.aside[device_id]
            self._order.remove(device_id)

    # -- suspects -------------------------------------------------------------------------------

    @property
    def suspect(self) -> Raw | None:
        """The first of those that the worker may have died of: they are set aside, and processed one by one."""
        return self._suspects[0] if self._suspects else None

    def next_suspect(self) -> Turn:
        raw = self._suspects.popleft()
        device_id = device_of(raw)
        self._count(device_id, -1)
        return Turn([raw], [], self._upto, {device_id: raw.id}, {})


def device_of(raw: Raw) -> str:
    """Whose message it is, as far as its topic tells."""
    return raw.device_level or NOBODY
