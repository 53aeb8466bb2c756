"""What is remembered of one device: its place in the sequence, its counts, its latest readings."""

from dataclasses import dataclass, field

from ingest.dedupe import MOST_BOOTS, Boot

@dataclass(slots=True, eq=False)
class Device:
    device_id: str
    boots: dict[int, Boot] = field(default_factory=dict)
    model: str | None = None
    hw: str | None = None
    fw: str | None = None
    session_id: str | None = None
    online: bool | None = None
    last_seen_ms: int = 0
    last_event_ms: int = 0
    accepted: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    watching: set[str] = field(default_factory=set)
    live: dict[str, object] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return self.accepted - self.stored - self.duplicate - self.quarantined

    @property
    def missing(self) -> int:
        """Messages known to lack: numbers skipped below the highest of each boot."""
        return sum(boot.held.missing() for boot in self.boots.values())

    def boot(self, boot_id: int) -> Boot:
        """The boot's record; the longest unused one gives way beyond MOST_BOOTS."""
        boot = self.boots.pop(boot_id, None) or Boot()
        self.boots[boot_id] = boot
        if len(self.boots) > MOST_BOOTS:
            del self.boots[next(iter(self.boots))]
        return boot

    def to_json(self) -> dict:
        return {
            "boots": [[boot_id, boot.to_json()] for boot_id, boot in self.boots.items()],
            "model": self.model,
            "hw": self.hw,
            "fw": self.fw,
            "session_id": self.session_id,
            "online": self.online,
            "last_seen_ms": self.last_seen_ms,
            "last_event_ms": self.last_event_ms,
            "accepted": self.accepted,
            "stored": self.stored,
            "duplicate": self.duplicate,
            "quarantined": self.quarantined,
            "watching": sorted(self.watching),
            "live": self.live,
        }

    @classmethod
    def from_json(cls, device_id: str, stored: dict) -> "Device":
        boots = {boot_id: Boot.from_json(boot) for boot_id, boot in stored.pop("boots")}
        return cls(device_id, boots=boots, watching=set(stored.pop("watching")), **stored)
