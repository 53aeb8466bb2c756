"""Simulated time, and the file through which others follow it.

The simulator is the master of time. What the file says is a promise: every message due up to
then has been handed to the broker and acknowledged by it. A slow machine therefore makes
simulated time slow, and never makes a device look silent.
"""

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

_LAYOUT = struct.Struct("<q")
_LONGEST_TICK_S = 0.05


class Clock:
    """Runs at `speed` times real time until it has caught up with real time, then with it."""

    def __init__(self, start_ms: int, speed: float, monotonic_s: Callable[[], float] = time.monotonic,
                 real_ms: Callable[[], float] = lambda: time.time() * 1000) -> None:  # fmt: skip
        self._now_ms = float(start_ms)
        self._speed = speed
        self._monotonic_s = monotonic_s
        self._real_ms = real_ms
        self._last_s = monotonic_s()

    @property
    def now_ms(self) -> int:
        return int(self._now_ms)

    def advance(self, limit_ms: float) -> int:
        """Move on, but not beyond `limit_ms` nor real now; a pause is not made up for by a leap."""
        now_s = self._monotonic_s()
        passed_s = min(now_s - self._last_s, _LONGEST_TICK_S)
        self._last_s = now_s
        wanted_ms = self._now_ms + passed_s * 1000 * self._speed
        self._now_ms = max(self._now_ms, min(wanted_ms, limit_ms, self._real_ms()))
        return self.now_ms


class ClockFile:
    """Eight bytes at offset 0: simulated ms since 1970, a little-endian signed integer."""

    def __init__(self, path: Path | None) -> None:
        self.written_ms = -1
        self._file = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def write(self, now_ms: int) -> None:
        """Never backwards."""
        if now_ms <= self.written_ms:
            return
        self.written_ms = now_ms
        if self._file is not None:
            os.pwrite(self._file, _LAYOUT.pack(now_ms), 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_clock(path: Path) -> int:
    """The simulated time that a file holds, ms."""
    return _LAYOUT.unpack(path.read_bytes()[: _LAYOUT.size])[0]
