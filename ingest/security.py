"""Security events on their way to the core, from whichever thread saw them.

`note` may be called from any thread and never blocks; the core takes what has come together, puts it into the
journal, counts it, stores it, and raises the alert.
"""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from schemas.security import SecurityKind

MOST_SOURCES = 1_000
"""Different (kind, who, source) between two looks; beyond, they are counted together, under no name."""


class SecurityEvent(NamedTuple):
    """`count` times the same since it was last taken. `who`: device or user that was named, or "". `source`:
    where it came from, such as an address without port, or "". `critical`: graver than others of its kind."""

    kind: SecurityKind
    who: str
    source: str
    detail: str
    count: int
    first_ms: int
    last_ms: int
    critical: bool = False


class SecurityLog:
    """Counts what is the same, so that a flood of tries takes no more memory than a few."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[tuple[SecurityKind, str, str], SecurityEvent] = {}
        self._times_taken = 0
        self.times_kept = 0
        """Which taking was the last whose events are on disk."""

    @property
    def is_waiting(self) -> bool:
        return bool(self._events)

    def note(
        self, kind: SecurityKind, at_ms: int, who: str = "", source: str = "", detail: str = "", count: int = 1, critical: bool = False
    ) -> None:
        with self._lock:
            self._note(SecurityEvent(kind, who, source, detail, count, at_ms, at_ms, critical))

    def note_all(self, events: Iterable[SecurityEvent]) -> int:
        """Note these together; they are on disk once `times_kept` has reached what is returned."""
        with self._lock:
            for event in events:
                self._note(event)
            return self._times_taken + 1

    def take(self) -> list[SecurityEvent]:
        with self._lock:
            found, self._events = list(self._events.values()), {}
            self._times_taken += 1
        return found

    def kept(self) -> None:
        """What was taken is on disk. Called by whoever takes."""
        self.times_kept = self._times_taken

    def _note(self, event: SecurityEvent) -> None:
        key = (event.kind, event.who, event.source)
        if key not in self._events and len(self._events) >= MOST_SOURCES:
            key = (event.kind, "", "")
        known = self._events.get(key)
        if known is None:
            self._events[key] = event._replace(who=key[1], source=key[2])
        else:
            self._events[key] = known._replace(
                detail=event.detail,
                count=known.count + event.count,
                first_ms=min(known.first_ms, event.first_ms),
                last_ms=max(known.last_ms, event.last_ms),
                critical=known.critical or event.critical,
            )
