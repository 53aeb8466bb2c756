"""What is remembered of one device: its place in the sequence, its counts, its latest readings."""

from dataclasses import dataclass, field

import orjson

from ingest.dedupe import MOST_BOOTS, Boot


@dataclass(slots=True, eq=False)
class Device:
    device_id: str
    boots: dict[int, Boot] = field(default_factory=dict)
    model: str | None = None
    hw: str | None = None
    fw: str | None = None
    session_id: str | None = None
    contract: int | None = None
    """The version of the contract that it spoke last, understood or not."""
    lot: str | None = None
    online: bool | None = None
    last_seen_ms: int = 0
    last_event_ms: int = 0
    accepted: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    watching: list[str] = field(default_factory=list)
    """Sessions of which time alone can still change what is said."""
    live: dict[str, object] = field(default_factory=dict)
    forgot_boots: bool = False

    @property
    def pending(self) -> int:
        return self.accepted - self.stored - self.duplicate - self.quarantined

    @property
    def missing(self) -> int:
        """Messages known to lack: numbers skipped below the highest of each boot."""
        return sum(boot.held.missing() for boot in self.boots.values())

    def boot(self, boot_id: int) -> Boot:
        """The boot's record; the longest unused one gives way beyond MOST_BOOTS."""
        boot = self.boots.pop(boot_id, None) or Boot(partial=self.forgot_boots)
        self.boots[boot_id] = boot
        if len(self.boots) > MOST_BOOTS:
            del self.boots[next(iter(self.boots))]
            self.forgot_boots = True
        return boot

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def from_json(cls, stored: bytes) -> "Device":
        state = orjson.loads(stored)
        boots = {int(boot_id): Boot.from_json(boot) for boot_id, boot in state.pop("boots").items()}
        return cls(boots=boots, **state)
