"""What must be true after the faults: the oracle's ledger against what the store and the quarantine hold. Pure.

I1 conservation, I2 exactly once, I3 nothing spurious, I4 every field as it was sent, I8 under the device that published it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.contract import FW, HW, MODEL, REFUSED, Key, samples_of, session_of, stream_of

NS_PER_MS = 1_000_000
STREAMS = ("current", "contact", "runtime", "health", "identity", "status")
SHOWN = 5

Row = Mapping[str, Any]
"""One row of the store by column, with its measurement under `stream`."""


@dataclass
class Issued:
    """The oracle's ledger, read back: when each message was issued and as what, and which are acknowledged."""

    messages: dict[Key, tuple[int, str]] = field(default_factory=dict)
    acked: set[Key] = field(default_factory=set)

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Issued":
        found = cls()
        for line in lines:
            what, device_id, boot_id, seq, *rest = line.split()
            key = Key(device_id, int(boot_id), int(seq))
            if what == "I":
                found.messages[key] = (int(rest[0]), rest[1])
            else:
                found.acked.add(key)
        return found

    def holes(self, key: Key, lost: set[Key]) -> list[tuple[int, int]]:
        """The closed ranges of a boot that never arrived, below the highest that did: what a worker can know of them."""
        device_id, boot_id, _ = key
        arrived = sorted(k.seq for k in self.messages if (k.device_id, k.boot_id) == (device_id, boot_id) and k not in lost)
        found, expected = [], 0
        for seq in arrived:
            if seq > expected:
                found.append((expected, seq - 1))
            expected = seq + 1
        return found


@dataclass
class Verdict:
    """Counts, and for each kind of violation the first few as sentences."""

    issued: int = 0
    acked: int = 0
    stored: int = 0
    quarantined: int = 0
    lost: int = 0
    doubled: int = 0
    spurious: int = 0
    damaged: int = 0
    both: int = 0
    unacked: int = 0
    lost_keys: set[Key] = field(default_factory=set)
    sentences: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.doubled or self.spurious or self.damaged or self.both)

    def note(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if getattr(self, kind) <= SHOWN:
            self.sentences.append(f"{kind}: {what}")


def judge(issued: Issued, rows: Iterable[Row], quarantined: Iterable[Key], unread: Collection[Key] = ()) -> Verdict:
    """Compare. Every message that was issued and has arrived counts; only acknowledged ones can be lost.

    Args:
        rows: all rows of the six streams.
        quarantined: the identity of every entry in quarantine, as often as it is there.
        unread: those that were set aside unread because the worker had died on them three times. What was sent again is
            not known as such unless it is read, so a stored message may have a copy among them; nothing else may.
    """
    verdict = Verdict(issued=len(issued.messages), acked=len(issued.acked))
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(Key(row["device_id"], int(row["boot_id"]), int(row["seq"])), []).append(row)
    aside = Counter(quarantined)
    for key, some in found.items():
        known = issued.messages.get(key)
        if known is None:
            verdict.note("spurious", f"{key} is stored and was never issued")
            continue
        verdict.stored += 1
        _compare(verdict, key, *known, some)
        if key in aside and key not in unread:
            verdict.note("both", f"{key} is stored and in quarantine")
    for key, times in aside.items():
        known = issued.messages.get(key)
        if known is None:
            verdict.note("spurious", f"{key} is in quarantine and was never issued")
            continue
        verdict.quarantined += 1
        if times > 1:
            verdict.note("doubled", f"{key} is {times} times in quarantine")
    for key in sorted(issued.acked):
        if key not in found and key not in aside:
            verdict.lost_keys.add(key)
            verdict.note("lost", f"{key} was acknowledged and is nowhere")
    for key, (_, kind) in issued.messages.items():
        if kind == REFUSED and key in found:
            verdict.note("spurious", f"{key} breaks the contract and is stored")
    verdict.unacked = len(issued.messages.keys() - issued.acked)
    return verdict


def _compare(verdict: Verdict, key: Key, ts_ms: int, kind: str, rows: list[Row]) -> None:
    """One message: each of its samples once, with every field as it was sent."""
    samples = samples_of(key, kind)
    if len(rows) > len(samples):
        verdict.note("doubled", f"{key} has {len(rows)} rows for {len(samples)} samples")
        return
    if len(rows) < len(samples):
        verdict.note("damaged", f"{key} has {len(rows)} rows for {len(samples)} samples")
        return
    rows = sorted(rows, key=lambda row: row["time_ns"])
    base_ms = ts_ms if rows[0]["clock_ok"] else rows[0]["time_ns"] // NS_PER_MS
    for row, sample in zip(rows, samples, strict=True):
        expected = {
            **{name: value for name, value in sample.items() if name != "dt_ms" and value is not None},
            "stream": stream_of(key, kind), "model": MODEL, "hw": HW, "fw": FW, "session_id": session_of(key), "device_ms": ts_ms,
        }  # fmt: skip
        wrong = {name: (value, row.get(name)) for name, value in expected.items() if row.get(name) != value}
        extra = [name for name, value in sample.items() if value is None and row.get(name) is not None]
        if row["time_ns"] // NS_PER_MS != base_ms + sample["dt_ms"]:
            wrong["time_ns"] = (base_ms + sample["dt_ms"], row["time_ns"])
        if wrong or extra:
            verdict.note("damaged", f"{key}: sent and stored differ: {wrong or extra}")
            return
