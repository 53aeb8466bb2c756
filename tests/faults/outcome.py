"""What comes of running a row: a line of the table."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """A line of the table."""

    number: str
    fault: str
    seed: int
    runs: int = 0
    kills: int = 0
    messages: int = 0
    lost: int = 0
    doubled: int = 0
    spurious: int = 0
    damaged: int = 0
    duplicates: int = 0
    quarantined: int = 0
    samples: int = 0
    """How often a ledger was asked for and balanced."""
    rss_mb: float = 0.0
    seconds: float = 0.0
    absent: str = ""
    happened: dict[str, int] = field(default_factory=dict)
    serving_after_s: list[float] = field(default_factory=list)
    """How long each killed worker's successor took until it was subscribed again."""
    reached: dict[str, int] = field(default_factory=dict)
    """Fail-points that were carried out."""
    figures: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.violations and not self.absent

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
