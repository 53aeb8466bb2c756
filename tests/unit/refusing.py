"""Messages spoilt on purpose, and what becomes of them on a whole line."""

import tempfile
from pathlib import Path
from typing import Any

import orjson

from schemas.topics import Stream
from tests.line import IN_MEMORY, START_MS, Line, deliver, message, pulse


def json_of(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return str(value).encode()


def write(head: list[tuple[str, Any]], *samples: list[tuple[str, Any]]) -> bytes:
    """Pairs as JSON text; keys may come twice. A value of bytes stands as it is."""

    def pairs(members: list[tuple[str, Any]]) -> bytes:
        return b",".join(orjson.dumps(key) + b":" + (value if isinstance(value, bytes) else json_of(value)) for key, value in members)

    return b"{" + pairs(head) + b',"samples":[' + b",".join(b"{" + pairs(body) + b"}" for body in samples) + b"]}"


class Bench:
    """One line for many examples, each with a device of its own; a line that has died is not used again."""

    def __init__(self) -> None:
        self.root = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.count = 0
        self.line: Line | None = None

    def judged(self, stream: Stream, payload: bytes) -> tuple[set[tuple[str, str]], list[str], bool]:
        """(rule, severity) of all alerts, the reasons of quarantine, whether the ledger is balanced.

        The device is known from a message that came before.
        """
        self.count += 1
        device, line = f"d-{self.count}", self.line or Line(Path(self.root.name) / str(self.count))
        self.line = None
        line.run(deliver(Stream.CONTACT, message(Stream.CONTACT, 0), device=device))
        line.run(deliver(stream, payload, START_MS + 1_500, device=device), pulse(START_MS + 20_000 + self.count))
        self.line = line
        alerts = {(a["rule"], a["severity"]) for a in line.alerts(device_id=device)}
        reasons = [entry["reason"] for entry in line.journal.quarantine(device_id=device)]
        return alerts, reasons, line.journal.ledger().balanced

    def close(self) -> None:
        if self.line is not None:
            self.line.journal.close()
        self.root.cleanup()
