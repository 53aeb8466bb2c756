"""Which devices are known, where somebody keeps a list of them: a file that is read again when it changes."""

import threading
from collections.abc import Collection
from pathlib import Path

import orjson

from ingest import observe
from ingest.errors import Mistake
from schemas.topics import is_identifier

MOST_BYTES = 256 << 20


def read_registry(path: Path) -> frozenset[str]:
    """The ids in a file: one a line (blank lines and those that begin with # aside), or the keys of one JSON object,
    such as the embedded broker's register, whose revoked devices are not known.

    A file that cannot be read, or a line that is no id, is a Mistake.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Mistake(f"{path}: the device registry is larger than {MOST_BYTES >> 20} MiB; name a list of device ids")
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Mistake(f"{path}: cannot read the device registry ({reason}); create the file or correct MICROCURRENT_REGISTRY_FILE") from error
    found: set[str] = set()
    for where, name in _names(path, text):
        if not is_identifier(name):
            raise Mistake(f"{path}, {where}: {name[:80]!r} is no device id; write one a line, each 1 to 64 of A-Z a-z 0-9 _ -")
        found.add(name)
    return frozenset(found)


def _names(path: Path, text: str) -> list[tuple[str, str]]:
    """(where it stands, what stands there) of every entry."""
    if text.lstrip()[:1] == "{":
        try:
            return [("a key", name) for name, said in orjson.loads(text).items() if not (isinstance(said, dict) and said.get("revoked_ms"))]
        except ValueError as error:
            raise Mistake(f"{path}: the device registry begins like JSON and is none ({error}); write one device id a line") from error
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(where, line) for where, line in lines if line and not line.startswith("#")]


class Registry:
    """The known devices now. `known` may be read from any thread; `look` reads the file again if it has changed.

    A changed file is taken once two looks have found it the same, so that half a file is not taken for the whole.
    One that has become unusable changes nothing, and is said once.
    """

    def __init__(self, path: Path, always: Collection[str] = ()) -> None:
        self.path = path
        self._always = frozenset(always)
        self._taken = self._seen = _state(path)
        self._lock = threading.Lock()
        self.known = read_registry(path) | self._always

    def __contains__(self, device_id: object) -> bool:
        return device_id in self.known

    def look(self) -> None:
        with self._lock:
            before, self._seen = self._seen, _state(self.path)
            if self._seen == self._taken or self._seen != before:
                return
            self._taken = self._seen
            try:
                self.known = read_registry(self.path) | self._always
            except Mistake as mistake:
                observe.log().error("registry_unusable", detail=str(mistake), known=len(self.known))
                return
            observe.log().info("registry_read", known=len(self.known))


def _state(path: Path) -> tuple[int, ...]:
    """What changes when the file does; nothing while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
