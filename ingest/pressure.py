"""How close the line is to what it can hold, as everybody sees it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """high: somebody must make room. stopped: nothing more is accepted; brokers and devices keep what they have."""

    NORMAL = "normal"
    HIGH = "high"
    STOPPED = "stopped"

    @property
    def rank(self) -> int:
        return _RANK[self]


_RANK = {Level.NORMAL: 0, Level.HIGH: 1, Level.STOPPED: 2}


@dataclass(frozen=True, slots=True)
class Pressure:
    """`used_bytes` of the journal on disk, `free_bytes` of its file system; `detail` says what is scarce."""

    level: Level = Level.NORMAL
    since_ms: int = 0
    detail: str = ""
    used_bytes: int = 0
    free_bytes: int = 0
