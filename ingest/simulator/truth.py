"""What really happened in a simulation: one JSON line for each fact, written as it happens."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.alerts import Severity


@dataclass(frozen=True, slots=True)
class DeviceMade:
    device_id: str
    model: str
    scenario: int
    name: str


@dataclass(frozen=True, slots=True)
class MessageMade:
    """A distinct message at its first transmission; `t_ms` is simulated time."""

    device_id: str
    boot_id: int
    seq: int
    stream: str
    t_ms: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """An alert that an injected fault must cause.

    `onset_ms` is on the device's clock, as the alert's `opened_ms` is; `by_ms` is the simulated
    time by which the fleet can know, the longest delivery included.
    """

    device_id: str
    session_id: str | None
    scenario: int
    rule: str
    severity: Severity
    onset_ms: int
    by_ms: int
    required: bool = True


@dataclass(frozen=True, slots=True)
class End:
    """How the simulation ended. `unacked` messages were never covered by a durable ack."""

    clock_ms: int
    messages: int
    samples: int
    devices: int
    resent: int
    unacked: int


Fact = DeviceMade | MessageMade | Expectation | End
_KINDS: dict[str, type[Fact]] = {
    "device": DeviceMade,
    "message": MessageMade,
    "expect": Expectation,
    "end": End,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Truth:
    devices: tuple[DeviceMade, ...] = ()
    messages: tuple[MessageMade, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    end: End | None = None


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def encode(fact: Fact) -> bytes:
    return orjson.dumps({"kind": _KIND_OF[type(fact)], **asdict(fact)}) + b"\n"


def decode(line: bytes) -> Fact:
    said: dict[str, Any] = orjson.loads(line)
    kind = _KINDS[said.pop("kind")]
    if kind is Expectation:
        said["severity"] = Severity(said["severity"])
    return kind(**said)


class TruthFile:
    """Writes facts; `flush` makes them readable to others. Without a path it writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else path.open("wb")

    def write(self, fact: Fact) -> None:
        if self._file is not None:
            self._file.write(encode(fact))

    def message(self, device_id: str, boot_id: int, seq: int, stream: str, t_ms: int, payload: bytes) -> None:
        """The common case, without the detour through a fact."""
        if self._file is not None:
            line = {
                "kind": "message", "device_id": device_id, "boot_id": boot_id, "seq": seq,
                "stream": stream, "t_ms": t_ms, "sha256": digest(payload),
            }  # fmt: skip
            self._file.write(orjson.dumps(line) + b"\n")

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_truth(path: Path) -> Truth:
    """Read a truth file, also one that is still being written: a torn last line is left out."""
    facts = [decode(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return Truth(
        devices=tuple(f for f in facts if isinstance(f, DeviceMade)),
        messages=tuple(f for f in facts if isinstance(f, MessageMade)),
        expectations=tuple(f for f in facts if isinstance(f, Expectation)),
        end=next((f for f in reversed(facts) if isinstance(f, End)), None),
    )
