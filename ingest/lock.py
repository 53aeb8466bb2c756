"""One owner for a directory: an advisory lock that ends with its process, however that ends."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from ingest.errors import EXIT_LOCKED, Mistake


def own(path: Path, wait_s: float, what: str) -> IO[str]:
    """Take the lock, or say who has it; it is held until the returned file is closed."""
    try:
        _make(path.parent)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    except OSError as error:
        raise Mistake(f"{path.parent}: cannot be used as a data directory ({error.strerror}); choose another") from error
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            holder = file.read().strip() or "unknown"
            file.close()
            raise Mistake(
                f"{path.parent}: another {what} (process {holder}) already owns this directory; "
                "stop it first, or give this one another data directory",
                exit_code=EXIT_LOCKED,
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        return file


def _make(directory: Path) -> None:
    """The directory, private, and on the disk: what is synced in a directory that is not is lost with it."""
    fresh = [d for d in (directory, *directory.parents) if not d.exists()]
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for made in fresh:
        holder = os.open(made.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system can sync a directory
                os.fsync(holder)
        finally:
            os.close(holder)
