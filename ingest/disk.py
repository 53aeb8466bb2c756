"""The disk under the journal, as the line finds it: how full it is, and what follows for accepting."""

import time
from contextlib import suppress

from ingest import observe
from ingest.clock import Clock
from ingest.errors import NoRoom
from ingest.journal import Journal
from ingest.pressure import Amounts, Level, Pressure, Room, level_of, messages_left, sentence

LOOK_S = 1.0
"""How often it is looked at."""

FULL_S = 1.0
"""How long after a write found no room it counts as full at least."""

LOOK_AFTER = 20
"""It is looked at no more often than after so many messages."""


class Disk:
    """One thread, the core's. `room` is None where nobody measures; `only_look` for a journal that is not written."""

    def __init__(self, journal: Journal, clock: Clock, only_look: bool = False) -> None:
        self.room: Room | None = None
        self.pressure = Pressure()
        self.is_full = False
        """A write has found no room, and nothing has shown since that there is some."""

        self._journal = journal
        self._clock = clock
        self._only_look = only_look
        self._may_write = False
        self._full_until = 0.0
        self._due_s = 0.0
        self._due_at = 0

    @property
    def can_write(self) -> bool:
        """Whether a small step may find room, at least."""
        return not self.is_full or self._may_write

    def is_due(self) -> bool:
        return time.monotonic() >= self._due_s or self._journal.accepted >= self._due_at

    def look(self) -> None:
        """How full is it?"""
        self._due_s = time.monotonic() + LOOK_S
        room = self.room
        if room is None:
            return
        before = self.pressure
        amounts = self._amounts(room)
        level = level_of(before.level, amounts)
        if level is Level.STOPPED or self.is_full:
            with suppress(NoRoom):
                self._journal.shorten_log()
            amounts = self._amounts(room)
            level = level_of(before.level, amounts)
        detail = sentence(amounts)
        if self.is_full:
            self._may_write = room.is_writable(amounts.used)
        if level is not Level.STOPPED and not self._only_look and room.make_reserve():
            self.is_full = self.is_full and not (self._may_write and time.monotonic() >= self._full_until)
        if self.is_full:
            level, detail = Level.STOPPED, "the disk is full; " + detail
        if level is not before.level:
            (observe.log().info if level.rank < before.level.rank else observe.log().warning)("pressure", reached=level.value, detail=detail)
        self._due_at = self._journal.accepted + max(LOOK_AFTER, messages_left(amounts) // 2)
        since_ms = before.since_ms if level is before.level and before.since_ms else self._clock.now_ms()
        self.pressure = Pressure(level, since_ms, detail, amounts.used, amounts.limit, amounts.free)

    def _amounts(self, room: Room) -> Amounts:
        return room.amounts(*self._journal.sizes(), self._journal.unprocessed_count)

    def fill_up(self, error: NoRoom) -> None:
        """There was no room for a step: what was put by is given up for it."""
        if not self.is_full:
            observe.log().error("journal_full", detail=str(error))
        self.is_full = True
        self._full_until = time.monotonic() + FULL_S
        if self.room is not None:
            self.room.give_up_reserve()
