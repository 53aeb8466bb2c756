"""The end of a log that another program writes: its new lines, whole, over rotation and truncation."""

import os
from collections.abc import Iterator
from pathlib import Path

MOST_LINE = 4_096
MOST_AT_ONCE = 1 << 20
"""Bytes looked at in one go; a flood is read over several."""


class Tail:
    """Begins at the end of what is there, so that a restart does not tell everything again."""

    def __init__(self, path: Path, from_start: bool = False) -> None:
        self._path = path
        self._from_start = from_start
        self._file: int | None = None
        self._id: tuple[int, int] | None = None
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """New lines since the last look. A file that is not there, or may not be read, has none yet."""
        if self._file is None and not self._open():
            self._from_start = True  # whatever comes into being from now on is new
            return
        yield from self._read()
        if self._is_another():
            yield from self._read()  # what was written before it was moved away
            os.close(self._file)
            self._file, self._rest = None, b""
            self._from_start = True
            if self._open():
                yield from self._read()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        stat = os.fstat(self._file)
        self._id = (stat.st_dev, stat.st_ino)
        os.lseek(self._file, 0, os.SEEK_SET if self._from_start else os.SEEK_END)
        return True

    def _is_another(self) -> bool:
        try:
            stat = self._path.stat()
        except OSError:
            return False
        return (stat.st_dev, stat.st_ino) != self._id

    def _read(self) -> Iterator[str]:
        if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            os.lseek(self._file, 0, os.SEEK_SET)  # truncated in place
            self._rest = b""
        *whole, self._rest = (self._rest + os.read(self._file, MOST_AT_ONCE)).split(b"\n")
        self._rest = self._rest[:MOST_LINE]
        for line in whole:
            yield line[:MOST_LINE].decode("utf-8", "replace")
