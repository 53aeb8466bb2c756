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


class FollowedClock:
    """Simulated time, written by the simulator: 8 bytes, little-endian, ms since 1970 UTC."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._page = mmap.mmap(file.fileno(), _MS.size, access=mmap.ACCESS_READ)

    def now_ms(self) -> int:
        return _MS.unpack_from(self._page)[0]
