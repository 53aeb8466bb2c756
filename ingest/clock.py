"""Where the worker's time comes from. Everything below `app.py` is given time as a value."""

import mmap
import struct
import time
from pathlib import Path
from typing import Protocol

_MS = struct.Struct("<q")


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        ...


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def steady_s() -> float:
    """Seconds by a clock that nobody sets; it runs on while the machine sleeps, where the system has such a one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _COUNTS_SLEEP else time.monotonic()


_COUNTS_SLEEP = hasattr(time, "CLOCK_BOOTTIME")


class FollowedClock:
    """Simulated time, written by the simulator: 8 bytes, little-endian, ms since 1970 UTC."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._page = mmap.mmap(file.fileno(), _MS.size, access=mmap.ACCESS_READ)

    def now_ms(self) -> int:
        return _MS.unpack_from(self._page)[0]
