"""Files that only this user may read, and of which nobody ever sees half."""

import os
import secrets
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Put a text in place of what is there: mode 0600, on disk before it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    handle = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def private_directory(path: Path) -> None:
    """One of our own: make it, and keep others out of it, whatever made it before."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
