"""Which messages of a device have been seen: exact, without a time window. Pure.

A message is known by (device, boot, seq). What has been seen of a boot is a set of closed
intervals, so memory grows with the gaps and not with the messages.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

MOST_BOOTS = 64
MOST_INTERVALS = 4096
ACK_RANGES = 32


class TooManyGaps(Exception):
    """The device has left more holes in its sequence than are tracked."""


@dataclass(slots=True)
class Intervals:
    """A set of whole numbers as sorted, disjoint, closed intervals."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.starts, number) - 1
        return at >= 0 and number <= self.ends[at]

    def add(self, number: int) -> bool:
        """Add a number; False if it was there. Raises TooManyGaps instead of growing without end."""
        starts, ends = self.starts, self.ends
        if ends and number == ends[-1] + 1:  # the ordinary case: the next in sequence
            ends[-1] = number
            return True
        at = bisect_right(starts, number) - 1
        if at >= 0 and number <= ends[at]:
            return False
        joins_left = at >= 0 and ends[at] == number - 1
        joins_right = at + 1 < len(starts) and starts[at + 1] == number + 1
        if joins_left and joins_right:
            ends[at] = ends.pop(at + 1)
            starts.pop(at + 1)
        elif joins_left:
            ends[at] = number
        elif joins_right:
            starts[at + 1] = number
        elif len(starts) >= MOST_INTERVALS:
            raise TooManyGaps
        else:
            starts.insert(at + 1, number)
            ends.insert(at + 1, number)
        return True

    def holes(self) -> list[tuple[int, int]]:
        """The closed ranges missing below the highest number; a sequence starts at 0."""
        found: list[tuple[int, int]] = []
        expected = 0
        for a, b in zip(self.starts, self.ends, strict=True):
            if a > expected:
                found.append((expected, a - 1))
            expected = b + 1
        return found

    def missing(self) -> int:
        """How many numbers lack below the highest."""
        if not self.starts:
            return 0
        return self.ends[-1] + 1 - sum(b - a + 1 for a, b in zip(self.starts, self.ends, strict=True))

    def missing_within(self, first: int, last: int) -> int:
        """How many numbers of a closed range lack."""
        known = 0
        for at in range(max(0, bisect_right(self.starts, first) - 1), len(self.starts)):
            if self.starts[at] > last:
                break
            known += max(0, min(self.ends[at], last) - max(self.starts[at], first) + 1)
        return last - first + 1 - known

    @property
    def highest(self) -> int:
        return self.ends[-1] if self.ends else -1


@dataclass(slots=True)
class Boot:
    """What is known of one boot. `held` are all sequence numbers that are on our disk, whether
    stored or refused; `seen` those that were accepted; `wills` the births whose will has come.
    `reset_seq`: the first message known to tell why it began.
    `partial`: an earlier record of this boot may have been given up, so the journal must be asked."""

    seen: Intervals = field(default_factory=Intervals)
    held: Intervals = field(default_factory=Intervals)
    wills: Intervals = field(default_factory=Intervals)
    anchor_ms: int | None = None
    reset_seq: int | None = None
    partial: bool = False

    @classmethod
    def from_json(cls, stored: dict) -> "Boot":
        seen, held, wills = (Intervals(**stored.pop(name)) for name in ("seen", "held", "wills"))
        return cls(seen, held, wills, **stored)

    def recent_hole(self, near: int, within: int = 32) -> bool:
        """Whether a message shortly before `near` has not come yet."""
        starts = self.held.starts
        if not starts:
            return near > 0
        at = bisect_right(starts, near) - 1
        if at < 0:
            return near > 0
        return starts[at] > 0 and starts[at] > near - within and (at > 0 or starts[at] <= within)

    def durable(self, heard: Iterable[int]) -> list[tuple[int, list[tuple[int, int]]]]:
        """What to tell the device, after it was `heard` to say these numbers: each answer is the
        highest number that it speaks of, and the ranges that lack below it.

        Holes may stay for ever, so what follows them must not wait for them. More than one answer can
        name take several: those that name the holes around each number heard one by one, and all
        before those as a single range. What is held within that range is sent again, and then heard.
        """
        holes = self.held.holes()
        if len(holes) <= ACK_RANGES:
            return [(self.held.highest, holes)]
        begins = [first for first, _ in holes]
        named = ACK_RANGES - 1
        answers = []
        for page in sorted({max(0, bisect_right(begins, seq) - 1) // named for seq in heard}):
            last = page * named  # the last of those told as one
            missing = [(begins[0], holes[last][1]), *holes[last + 1 : last + ACK_RANGES]]
            beyond = begins[last + ACK_RANGES : last + ACK_RANGES + 1]
            answers.append((beyond[0] - 1 if beyond else self.held.highest, missing))
        return answers
