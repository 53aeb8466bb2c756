"""Security events on their way from another process to the worker: small files in a directory of their own.

A command, or the supervisor beside the embedded broker, puts them there; the worker takes them up when it runs,
and removes a file only once the core has what was in it. So one may be counted twice if the worker dies in
between, and none is lost.
"""

import os
import time
from pathlib import Path

import orjson

from ingest.files import private_directory
from ingest.security import SecurityEvent, SecurityLog
from schemas.security import SecurityKind

DIRECTORY = "security"
MOST_FILES = 100
"""While so many wait for a worker, a supervisor keeps what comes in its memory, which is bounded too."""


def put(data_dir: Path, events: list[SecurityEvent]) -> None:
    """Leave events for the worker of this directory. Raises OSError if they cannot be written."""
    if not events:
        return
    directory = data_dir / DIRECTORY
    private_directory(directory)
    name = f"{time.time_ns():020d}-{os.getpid()}"
    fresh = directory / f".{name}"
    handle = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(orjson.dumps([event._asdict() for event in events]))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / f"{name}.json")


def waiting(data_dir: Path) -> list[Path]:
    """Files that no worker has taken up, the oldest first."""
    directory = data_dir / DIRECTORY
    return sorted(directory.glob("[0-9]*.json")) if directory.is_dir() else []


class Handover:
    """The worker's side. `look` is called now and then, by one thread."""

    def __init__(self, data_dir: Path, security: SecurityLog) -> None:
        self._data_dir = data_dir
        self._security = security
        self._noted: dict[Path, int] = {}

    def look(self) -> None:
        for path, when in list(self._noted.items()):
            if self._security.times_kept >= when:
                path.unlink(missing_ok=True)
                del self._noted[path]
        for path in waiting(self._data_dir):
            if path not in self._noted:
                events = read(path)
                self._noted[path] = self._security.note_all(events) if events else 0


def read(path: Path) -> list[SecurityEvent]:
    """What a file holds; one that cannot be read holds nothing."""
    try:
        return [SecurityEvent(**{**said, "kind": SecurityKind(said["kind"])}) for said in orjson.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return []
