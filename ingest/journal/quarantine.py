"""Refused messages: each once, with its reason, as many of its bytes as there is room for, and what people did about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from ingest.admit import NOBODY
from ingest.journal.part import Part
from ingest.journal.tables import Raw
from schemas.rejections import Reason

WHOLE_MOST = 65_536
"""Of a longer payload only the head is kept, whatever room there is."""

HEAD_BYTES = 4_096
MOST_ENTRIES = 10_000
"""Open entries of one device; beyond, what else it says is counted by reason and hour."""

HOUR_MS = 3_600_000
BY_STORE = (Reason.SINK_REJECTED_400, Reason.SINK_REJECTED_422)
"""Messages of the contract, judged and counted, that only the store did not take."""

BY_LINE = "~worker"
"""Who acts when no person does."""

_ALL = "~all"
_NAMES = (
    "id", "received_ms", "last_ms", "topic", "device_id", "boot_id", "seq", "reason", "detail", "bytes", "held", "times", "more",
    "state", "actor", "changed_ms",
)  # fmt: skip
_COLUMNS = ", ".join(_NAMES)


class State(StrEnum):
    """waiting: on its way through the line again. replayed: it is kept now. discarded: a person wants no more of it."""

    OPEN = "open"
    WAITING = "waiting"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class Act(StrEnum):
    """What happens to an entry: the first two by a person, the others by the line."""

    REPLAY = "replay"
    DISCARD = "discard"
    KEPT = "kept"
    HELD = "held"
    """It was on record already, byte for byte."""

    REFUSED = "refused"


class Extent(StrEnum):
    """How a refused message is kept. counted: on the entry of another one. known: the very same is there already."""

    WHOLE = "whole"
    HEAD = "head"
    COUNTED = "counted"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Quota:
    """Bytes that refused payloads may hold in all, and the share of them that one device may."""

    bytes_most: int = 1 << 30
    device_share: float = 0.1


@dataclass(frozen=True, slots=True)
class RefusedFilter:
    """Which entries are meant. None asks for all; times are of receipt, ms since 1970 UTC; ids lie in (after, upto]."""

    ids: tuple[int, ...] | None = None
    state: str | None = None
    reason: str | None = None
    device_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: int | None = None
    upto: int | None = None


class Quarantine(Part):
    accepted: int
    quarantined: int
    refused: dict[str, int]
    """Messages by reason that are quarantined, and of which the store has not been told."""

    quota = Quota()

    def count_refused(self, reason: str) -> None:
        self.quarantined += 1
        name = str(reason)  # of a StrEnum too: it becomes a key in JSON
        self.refused[name] = self.refused.get(name, 0) + 1

    # -- setting aside --------------------------------------------------------------------------

    def refuse(self, raw: Raw, reason: str, detail: str, identity: tuple, fingerprint: bytes) -> Extent:
        """Quarantine a message. Each but a KNOWN one is another quarantined message of the ledger.

        `identity`: (device_id, boot_id, seq), None where it cannot be told.
        """
        known = self._db.execute("SELECT id FROM quarantine WHERE fingerprint = ?", (fingerprint,)).fetchone()
        if known:
            self._db.execute("UPDATE quarantine SET times = times + 1, last_ms = max(last_ms, ?) WHERE id = ?", (raw.received_ms, *known))
            return Extent.KNOWN
        device_id, size = identity[0], len(raw.payload)
        (total, _), (used, entries) = self._used(_ALL), self._used(device_id or NOBODY)
        most, share = self.quota.bytes_most, self.quota.bytes_most * self.quota.device_share
        hour = None
        if reason not in BY_STORE and (entries >= MOST_ENTRIES or total >= 2 * most):
            hour = raw.received_ms // HOUR_MS
            if self._count_on_another(raw, reason, device_id, hour):
                return Extent.COUNTED
        whole = size <= HEAD_BYTES or (size <= WHOLE_MOST and used + size <= share and total + size <= most)
        kept = raw.payload if whole else raw.payload[:HEAD_BYTES]
        cursor = self._db.execute(
            "INSERT INTO quarantine (raw_id, received_ms, last_ms, topic, reason, detail, device_id, boot_id, seq, fingerprint, "
            "bytes, held, sha256, hour) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                raw.id, raw.received_ms, raw.received_ms, raw.topic, reason, detail, *identity, fingerprint,
                size, len(kept), None if whole else sha256(raw.payload).digest(), hour,
            ),
        )  # fmt: skip
        self._db.execute("INSERT INTO quarantine_payload VALUES (?, ?)", (cursor.lastrowid, kept))
        self._sum(device_id, reason, State.OPEN, 1, 1, len(kept))
        return Extent.WHOLE if whole else Extent.HEAD

    def _count_on_another(self, raw: Raw, reason: str, device_id: str | None, hour: int) -> bool:
        """The device has more entries than are told apart: it is counted on the first of its hour, if there is one."""
        cursor = self._db.execute(
            "UPDATE quarantine SET more = more + 1, received_ms = min(received_ms, ?), last_ms = max(last_ms, ?) WHERE id = "
            "(SELECT id FROM quarantine WHERE device_id IS ? AND reason = ? AND hour = ? AND state = 'open' LIMIT 1)",
            (raw.received_ms, raw.received_ms, device_id, reason, hour),
        )
        if cursor.rowcount:
            self._sum(device_id, reason, State.OPEN, 0, 1, 0)
        return bool(cursor.rowcount)

    def _used(self, device_id: str) -> tuple[int, int]:
        """Bytes that a device's entries hold, and how many of them are open."""
        return self._db.execute(
            "SELECT coalesce(sum(bytes), 0), coalesce(sum(entries) FILTER (WHERE state IN ('open', 'waiting')), 0) "
            "FROM quarantine_sum WHERE device_id = ?",
            (device_id,),
        ).fetchone()

    def _sum(self, device_id: str | None, reason: str, state: str, entries: int, messages: int, held: int) -> None:
        self._db.executemany(
            "INSERT INTO quarantine_sum VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (device_id, reason, state) DO UPDATE SET "
            "entries = entries + excluded.entries, messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
            [(device_id or NOBODY, reason, state, entries, messages, held), (_ALL, "", "", entries, messages, held)],
        )

    # -- what people do, and what comes of it ---------------------------------------------------

    def chosen(self, wanted: RefusedFilter, most: int) -> list[dict[str, Any]]:
        """The entries that are meant, oldest first."""
        clause, values = _where(wanted)
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM quarantine {clause} ORDER BY id LIMIT ?", (*values, most))
        return [_entry(row) for row in rows]

    def delivered(self, entry_id: int) -> tuple[bytes, bytes]:
        """Topic and payload of an entry, as many of its bytes as are kept."""
        return self._db.execute("SELECT topic, payload FROM quarantine JOIN quarantine_payload ON entry_id = id WHERE id = ?", (entry_id,)).fetchone()

    def entry_of_replay(self, entry_id: int) -> tuple[dict[str, Any], int] | None:
        """The entry that a message in the line is a replay of, and the raw message it stands for."""
        row = self._db.execute(f"SELECT {_COLUMNS}, raw_id FROM quarantine WHERE id = ?", (entry_id,)).fetchone()
        return (_entry(row[:-1]), row[-1]) if row else None

    def move(
        self, entry: dict[str, Any], state: State, act: Act, at_ms: int, actor: str, note: str,
        reason: str | None = None, detail: str | None = None, raw_id: int | None = None,
    ) -> None:  # fmt: skip
        """Note what has happened to an entry, which is in this state now."""
        held = min(entry["held"], HEAD_BYTES) if state is State.DISCARDED else entry["held"]
        if held < entry["held"]:
            _, payload = self.delivered(entry["id"])
            self._db.execute("UPDATE quarantine SET sha256 = coalesce(sha256, ?) WHERE id = ?", (sha256(payload).digest(), entry["id"]))
            self._db.execute("UPDATE quarantine_payload SET payload = ? WHERE entry_id = ?", (payload[:held], entry["id"]))
        self._db.execute(
            "UPDATE quarantine SET state = ?, held = ?, actor = CASE WHEN ? THEN ? ELSE actor END, changed_ms = ?, "
            "reason = coalesce(?, reason), detail = coalesce(?, detail), raw_id = coalesce(?, raw_id) WHERE id = ?",
            (state, held, act in (Act.REPLAY, Act.DISCARD), actor, at_ms, reason, detail, raw_id, entry["id"]),
        )
        messages = 1 + entry["more"]
        self._sum(entry["device_id"], entry["reason"], entry["state"], -1, -messages, -entry["held"])
        self._sum(entry["device_id"], reason or entry["reason"], state, 1, messages, held)
        self._db.execute(
            "INSERT INTO quarantine_event (entry_id, at_ms, event, actor, note) VALUES (?, ?, ?, ?, ?)",
            (entry["id"], at_ms, act, actor, note),
        )

    def entry_by_fingerprint(self, fingerprint: bytes) -> dict[str, Any] | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM quarantine WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return _entry(row) if row else None

    def forget_refused(self, before_ms: int, most: int) -> bool:
        """The oldest refused messages, if they came before a time; whether there may be more."""
        rows = self._db.execute(
            "SELECT id, device_id, reason, state, more, held FROM (SELECT * FROM quarantine ORDER BY id LIMIT ?) WHERE last_ms < ?",
            (most, before_ms),
        ).fetchall()
        for entry_id, device_id, reason, state, more, held in rows:
            self._sum(device_id, reason, state, -1, -1 - more, -held)
            for table, column in (("quarantine_event", "entry_id"), ("quarantine_payload", "entry_id"), ("quarantine", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (entry_id,))
        return len(rows) == most

    # -- looking at them ------------------------------------------------------------------------

    def quarantine(
        self, reason: str | None = None, device_id: str | None = None, most: int = 100, wanted: RefusedFilter | None = None
    ) -> list[dict[str, Any]]:
        """Refused messages without their bytes, newest first."""
        clause, values = _where(wanted or RefusedFilter(reason=reason, device_id=device_id))
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM quarantine {clause} ORDER BY id DESC LIMIT ?", (*values, most))
        return [_entry(row) for row in rows]

    def quarantine_counts(self, wanted: RefusedFilter) -> dict[str, Any]:
        """How many messages are meant, by reason, and by device (of those the ten with most)."""
        clause, values = _where(wanted)
        if wanted.ids is None and wanted.since_ms is wanted.until_ms is wanted.after is wanted.upto is None:
            given = {"state": wanted.state, "reason": wanted.reason, "device_id": wanted.device_id}
            named = {name: value for name, value in given.items() if value is not None}
            clause = " ".join(["WHERE device_id != '~all'", *(f"AND {name} = ?" for name in named)])
            values, source, each = list(named.values()), "quarantine_sum", "sum(messages)"
        else:
            source, each = "quarantine", "sum(1 + more)"

        def counted(by: str, most: int) -> dict[str, int]:
            rows = self._db.execute(
                f"SELECT {by}, {each} AS n FROM {source} {clause} GROUP BY 1 HAVING n > 0 ORDER BY n DESC, 1 LIMIT ?", (*values, most)
            )
            return dict(rows.fetchall())

        by_reason = counted("reason", 100)
        return {
            "messages": sum(by_reason.values()),
            "by_reason": by_reason,
            "by_device": counted(f"coalesce(device_id, '{NOBODY}')", 10),
        }

    def quarantine_state(self) -> dict[str, Any]:
        """Messages by state, those that are open by reason, and how much room the bytes of all take."""
        rows = self._db.execute("SELECT state, reason, sum(messages) FROM quarantine_sum WHERE device_id != ? GROUP BY 1, 2 ORDER BY 3 DESC", (_ALL,))
        by_state, open_by_reason = dict.fromkeys(map(str, State), 0), {}
        for state, reason, messages in rows:
            by_state[state] += messages
            if state == State.OPEN and messages:
                open_by_reason[reason] = messages
        return {**by_state, "open_by_reason": open_by_reason, "bytes": self._used(_ALL)[0], "bytes_most": self.quota.bytes_most}

    def quarantined_entry(self, entry_id: int) -> tuple[dict[str, Any], bytes, list[dict[str, Any]]] | None:
        """One refused message, as many of its bytes as are kept, and what happened to it."""
        row = self._db.execute(
            f"SELECT {_COLUMNS}, sha256, payload FROM quarantine JOIN quarantine_payload ON entry_id = id WHERE id = ?", (entry_id,)
        ).fetchone()
        if row is None:
            return None
        *known, digest, payload = row
        events = self._db.execute("SELECT at_ms, event, actor, note FROM quarantine_event WHERE entry_id = ? ORDER BY id", (entry_id,))
        happened = [dict(zip(("at_ms", "event", "actor", "note"), event, strict=True)) for event in events]
        return _entry(known) | {"sha256": (digest or sha256(payload).digest()).hex()}, payload, happened

    def quarantine_by_reason(self) -> dict[str, int]:
        rows = self._db.execute(
            "SELECT reason, sum(messages) AS n FROM quarantine_sum WHERE device_id != ? GROUP BY reason HAVING n > 0 ORDER BY n DESC", (_ALL,)
        )
        return dict(rows.fetchall())


def _where(wanted: RefusedFilter) -> tuple[str, list[Any]]:
    """Values are parameters always; only names that stand here come into the statement."""
    terms: list[tuple[str, Any]] = [
        ("state = ?", wanted.state), ("reason = ?", wanted.reason), ("last_ms >= ?", wanted.since_ms),
        ("received_ms <= ?", wanted.until_ms), ("id > ?", wanted.after), ("id <= ?", wanted.upto),
    ]  # fmt: skip
    if wanted.device_id != NOBODY:
        terms.append(("device_id = ?", wanted.device_id))
    given = [(term, value) for term, value in terms if value is not None]
    clauses, values = [term for term, _ in given], [value for _, value in given]
    if wanted.device_id == NOBODY:
        clauses.append("device_id IS NULL")
    if wanted.ids is not None:
        clauses.append(f"id IN ({','.join('?' * len(wanted.ids))})")
        values += wanted.ids
    return ("WHERE " + " AND ".join(clauses) if clauses else ""), values


def _entry(row: Sequence[Any]) -> dict[str, Any]:
    entry = dict(zip(_NAMES, row, strict=True))
    entry["topic"] = entry["topic"].decode("utf-8", errors="backslashreplace")
    entry["kept"] = Extent.COUNTED if entry["more"] else Extent.WHOLE if entry["held"] == entry["bytes"] else Extent.HEAD
    return entry
