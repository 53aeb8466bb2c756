"""How close the line is to what it can hold: measured, judged, and as everybody sees it.

Below 70 % of what the journal may take the level is normal, from there on high, from 95 % on stopped, as it is
when its disk has too little left to finish what has been accepted. A level is left again with some room to spare.
"""

import errno
import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

MIB = 2**20
GIB = 2**30
HIGH_SHARE, STOP_SHARE = 0.70, 0.95
SPARE_SHARE = 0.05
"""A level is left when the journal takes so much less than what it was entered with."""

SPARE_PART, SPARE_BYTES = 0.2, 256 * MIB
"""A level is left when so large a part of the floor more is free, or so much more if that is less."""

FLOOR_BYTES, FLOOR_PART = GIB, 1 / 20
"""What must stay free, or this part of the file system if that is less."""

FOLLOWS_BYTES = 1_500
"""What processing one accepted message may add to the journal."""

RESERVE_FILE = "reserve"
RESERVE_BYTES, RESERVE_PART = 64 * MIB, 1 / 40
PROBE_BYTES = 128 * 1024
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Level(StrEnum):
    """high: somebody must make room. stopped: nothing more is accepted; brokers and devices keep what they have."""

    NORMAL = "normal"
    HIGH = "high"
    STOPPED = "stopped"

    @property
    def rank(self) -> int:
        return _RANK[self]


_RANK = {Level.NORMAL: 0, Level.HIGH: 1, Level.STOPPED: 2}


@dataclass(frozen=True, slots=True)
class Pressure:
    """`used_bytes` of the journal on disk, of `limit_bytes` that it may take; `free_bytes` of its file system;
    `detail` says what is scarce."""

    level: Level = Level.NORMAL
    since_ms: int = 0
    detail: str = ""
    used_bytes: int = 0
    limit_bytes: int = 0
    free_bytes: int = 0


class Amounts(NamedTuple):
    """What is there and what is wanted, in bytes. `limit`: what the journal may take; `floor`: what must stay free."""

    used: int
    limit: int
    free: int
    floor: int


def level_of(before: Level, amounts: Amounts) -> Level:
    """The level that follows from these amounts after another one."""
    floor = amounts.floor
    for level, share, least in ((Level.STOPPED, STOP_SHARE, floor), (Level.HIGH, HIGH_SHARE, floor + min(floor, FLOOR_BYTES))):
        if before.rank >= level.rank:
            share, least = share - SPARE_SHARE, least + min(SPARE_PART * floor, SPARE_BYTES)
        if amounts.used >= share * amounts.limit or amounts.free < least:
            return level
    return Level.NORMAL


def messages_left(amounts: Amounts) -> int:
    """How many messages may be accepted before the line has to stop."""
    return max(0, int(min(STOP_SHARE * amounts.limit - amounts.used, amounts.free - amounts.floor)) // FOLLOWS_BYTES)


def sentence(amounts: Amounts) -> str:
    """How much is left, for people."""
    share = amounts.used / amounts.limit if amounts.limit > 0 else 1.0
    return (
        f"the journal takes {size(amounts.used)} of {size(max(0, amounts.limit))} ({share:.0%}); "
        f"{size(amounts.free)} free on its disk, {size(amounts.floor)} needed"
    )


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:.0f} {unit}"
    return f"{count:.0f} B"


class Room:
    """The disk under a journal, and the reserve that is given up when it is full.

    Args:
        directory: where the journal is.
        max_bytes: what it may take; None for what its disk has.
        floor_bytes: what must stay free; None for 1 GiB, or a twentieth of the disk if that is less.
    """

    def __init__(self, directory: Path, max_bytes: int | None = None, floor_bytes: int | None = None) -> None:
        self._directory = directory
        self._reserve = directory / RESERVE_FILE
        self._max_bytes = max_bytes
        disk = os.statvfs(directory)
        total = disk.f_blocks * disk.f_frsize
        self._floor_bytes = int(min(FLOOR_BYTES, total * FLOOR_PART)) if floor_bytes is None else floor_bytes
        longest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._longest_file = None if longest == resource.RLIM_INFINITY else longest
        capacity = min(total, max_bytes or total, self._longest_file or total)
        self.reserve_bytes = int(min(RESERVE_BYTES, capacity * RESERVE_PART))
        self.log_bytes = max(MIB // 4, min(16 * MIB, capacity // 32))
        """How long the journal's log (WAL) should become before it is worked in."""

    def free_bytes(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize

    def amounts(self, used: int, log: int, waiting: int) -> Amounts:
        """What is there, with so many bytes of the journal used, that many of its log, and so many messages waiting to
        be processed."""
        free = self.free_bytes()
        floor = max(self._floor_bytes, 2 * log, waiting * FOLLOWS_BYTES)
        limit = self._max_bytes or used + max(0, free - floor)
        if self._longest_file is not None:
            limit = min(limit, self._longest_file)
        return Amounts(used, limit, free, floor)

    # -- the reserve ----------------------------------------------------------------------------

    def make_reserve(self) -> bool:
        """Put some of the disk by, where there is plenty; whether it is there now."""
        with suppress(OSError):
            if self._reserve.stat().st_size >= self.reserve_bytes:
                return True
        if self.free_bytes() < self._floor_bytes + self.reserve_bytes:
            return False
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.reserve_bytes)
        except (OSError, AttributeError):
            self.give_up_reserve()
            return False
        return True

    def give_up_reserve(self) -> bool:
        """Let others have what was put by; whether there was any."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def is_writable(self, at: int) -> bool:
        """Whether a little can be written: also where a quota or the longest file that is allowed, and not the disk, is full.

        Args:
            at: how long the journal's files are; beyond there it is tried.
        """
        probe = self._directory / "room.probe"
        try:
            fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, bytes(PROBE_BYTES), at)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in NO_ROOM:
                return False
            raise
        finally:
            with suppress(OSError):
                probe.unlink()
        return True
