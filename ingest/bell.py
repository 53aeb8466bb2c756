"""Wakes a thread that waits in `poll`, from any other."""

import os


class Bell:
    """A pipe; many rings before it is heard are one."""

    def __init__(self) -> None:
        self._ear, self._rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()

    def fileno(self) -> int:
        return self._ear

    def ring(self) -> None:
        try:
            os.write(self._rope, b"\0")
        except BlockingIOError:
            pass  # it rings already

    def hush(self) -> None:
        """It was heard."""
        try:
            os.read(self._ear, 4096)
        except BlockingIOError:
            pass


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write
