"""What the line asks of a store."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ingest.errors import Mistake
from ingest.points import Entry
from schemas.measurements import Point
from schemas.rejections import Reason

Held = tuple[str, int, int, bool, bool]
"""(device_id, boot_id, seq, is_will, whether it is there twice)."""
class NotReadable(Mistake):
    """The store may be written and not be read; the sentence says what it answers."""


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry that the store will never take, with its words."""

    entry: Entry
    reason: Reason
    detail: str


class Sink(Protocol):
    """A time-series store. One thread writes."""

    name: str
    is_open: bool
    """Whether `open` has succeeded, and nothing has closed the store since."""

    def open(self, journal_uuid: str) -> int | None:
        """Make ready; returns the last outbox id that the store is known to hold, if it keeps that. Raises Unavailable
        if that may be possible later, and may then be called again."""
        ...

    def knows_another(self, journal_uuid: str) -> bool:
        """Whether the store was filled from another journal, so that a new one would store messages twice."""
        ...

    def write(self, entries: list[Entry]) -> list[RefusedEntry]:
        """Store the entries, all but those returned. Raises Unavailable when nothing is certain."""
        ...

    def forget(self, readings_ms: int, lasting_ms: int) -> bool:
        """Delete some of what is of before these times, readings and lasting points; whether there is more.

        A store that keeps its own time limits does nothing.
        """
        ...

    def probe(self) -> str:
        """Try it; says what was found, or raises Unavailable or Mistake."""
        ...

    def device_ids(self) -> list[str]:
        """The devices of which there are readings."""
        ...

    def held(self, device_ids: list[str]) -> Iterator[Held]:
        """Which messages of these devices are stored, in any order, one perhaps several times; in bounded memory."""
        ...

    def holds(self, point: Point) -> bool:
        """Whether a point of the line's own can be read back, by its tags, time and integers. Any thread may ask.

        Raises Unavailable when the store does not answer now, NotReadable when this worker may not ask it.
        """
        ...

    def close(self) -> None: ...
