"""Deliveries as they came, and which of them are messages of the contract."""

from collections.abc import Iterable, Iterator

import orjson

from ingest import failpoints
from ingest.admit import NOBODY, U32_MAX
from ingest.journal.part import Part
from ingest.journal.tables import Raw
from schemas.alerts import Alert
from schemas.topics import device_level


class Messages(Part):
    accepted: int
    processed_upto: int
    """All before has had its turn: it is processed, or set aside."""
    aside: int
    """So many messages are set aside."""
    aside_last: str
    """The device whose messages were the last to be taken up."""
    raw_pruned_ms: int
    """Of what was received before, some may be gone."""

    def accept(self, deliveries: Iterable[tuple[int, bytes, bytes, bool]]) -> list[Raw]:
        """Put deliveries (received_ms, topic, payload, retained) on disk; they may be acknowledged then."""
        rows = [Raw(self.accepted + at, *delivery) for at, delivery in enumerate(deliveries, start=1)]
        with self._transaction():
            self._insert(_INTO_RAW, rows)
            failpoints.reach("accept-uncommitted")
        if rows:
            self.accepted = rows[-1].id
        return rows

    def inbox(self, after: int, most: int) -> list[Raw]:
        """Accepted messages that have not had their turn, oldest first."""
        rows = self._db.execute(f"SELECT {_RAW} FROM raw WHERE id > ? ORDER BY id LIMIT ?", (after, most))
        return [_raw(row) for row in rows]

    def accept_again(self, deliveries: list[tuple[int, bytes, bytes, int]]) -> None:
        """Put (received_ms, topic, payload, entry) into the line again, within a step: each is another accepted message."""
        rows = [Raw(self.accepted + at, *said, False, entry) for at, (*said, entry) in enumerate(deliveries, start=1)]
        self._insert(_INTO_RAW, rows)
        self.accepted += len(rows)

    def raw(self, raw_id: int) -> Raw:
        return _raw(self._db.execute(f"SELECT {_RAW} FROM raw WHERE id = ?", (raw_id,)).fetchone())

    def cut_raw(self, raw_id: int, payload: bytes | None) -> None:
        """Of a refused message keep only so much, or nothing: what came is in quarantine, or counted there."""
        if payload is None:
            self._db.execute("DELETE FROM raw WHERE id = ?", (raw_id,))
        else:
            self._db.execute("UPDATE raw SET payload = ? WHERE id = ?", (payload, raw_id))

    def kept_since_ms(self) -> int | None:
        """When the oldest of the messages on record was received."""
        row = self._db.execute("SELECT received_ms FROM raw ORDER BY id LIMIT 1").fetchone()
        return row[0] if row else None

    # -- set aside ------------------------------------------------------------------------------

    def take_turn(self, upto: int, put_off: list[tuple[str, int]]) -> None:
        """All up to this raw_id has its turn in this step: it is processed, save these (device_id, raw_id) that are set aside."""
        self.processed_upto = upto
        self._insert("INSERT INTO aside VALUES", put_off)
        self.aside += len(put_off)

    def take_up(self, upto: dict[str, int], last: str) -> None:
        """What was set aside of each device, up to a raw_id, is processed in this step; the device `last` was the last to
        have its turn."""
        for device_id, raw_id in upto.items():
            self.aside -= self._db.execute("DELETE FROM aside WHERE device_id = ? AND raw_id <= ?", (device_id, raw_id)).rowcount
            self._db.execute("DELETE FROM attempt WHERE raw_id = ?", (raw_id,))
        self.aside_last = last

    def aside_by_device(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT device_id, count(*) FROM aside GROUP BY device_id"))

    def aside_of(self, device_id: str, after: int, most: int) -> list[Raw]:
        """What is set aside of a device, oldest first."""
        rows = self._db.execute(
            f"SELECT {_RAW} FROM aside JOIN raw ON raw.id = raw_id WHERE device_id = ? AND raw_id > ? ORDER BY raw_id LIMIT ?",
            (device_id, after, most),
        )
        return [_raw(row) for row in rows]

    def unprocessed(self, most: int) -> list[Raw]:
        """Accepted messages that have not been processed, those set aside first; about so many."""
        aside = self._db.execute(f"SELECT {_RAW} FROM aside JOIN raw ON raw.id = raw_id ORDER BY raw_id LIMIT ?", (most,))
        return [_raw(row) for row in aside] + self.inbox(self.processed_upto, most)

    def first_unprocessed(self) -> int:
        """The lowest raw_id that may still have to be processed."""
        return self._scalar(_FIRST_ASIDE) or self.processed_upto + 1

    # -- suspects -------------------------------------------------------------------------------

    def suspect(self, raw_ids: list[int]) -> None:
        """The worker may have died of one of these, which are set aside."""
        self._db.executemany("INSERT OR IGNORE INTO attempt VALUES (?, 0)", [(raw_id,) for raw_id in raw_ids])

    def suspects(self) -> list[Raw]:
        rows = self._db.execute(f"SELECT {_RAW} FROM attempt JOIN raw ON raw.id = raw_id ORDER BY raw_id")
        return [_raw(row) for row in rows]

    def attempts(self, raw_id: int) -> int:
        """Note, on disk, that this suspect is about to be processed; returns how often it was before."""
        with self.step():
            self._db.execute("UPDATE attempt SET times = times + 1 WHERE raw_id = ?", (raw_id,))
        return self._scalar("SELECT times - 1 FROM attempt WHERE raw_id = ?", raw_id)

    def prune_raw(self, before_ms: int, most: int) -> int:
        """Forget messages received before a time, at most so many at once, never an unstored one; returns how many."""
        kept_since_ms = self.kept_since_ms()
        if kept_since_ms is None or kept_since_ms >= before_ms:
            return 0
        old = self._db.execute(
            "SELECT id, topic, payload FROM raw WHERE id < min((SELECT coalesce(min(raw_id), ?) FROM outbox), ?) AND received_ms < ? "
            "ORDER BY id LIMIT ?",
            (self.processed_upto, self.first_unprocessed(), before_ms, most),
        ).fetchall()
        self._db.executemany("DELETE FROM message WHERE device_id = ? AND boot_id = ? AND seq = ? AND raw_id = ?", _keys(old))
        self._db.executemany("DELETE FROM raw WHERE id = ?", [(raw_id,) for raw_id, _, _ in old])
        if old and before_ms > self.raw_pruned_ms:
            self.raw_pruned_ms = before_ms
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'raw_pruned_ms'", (before_ms,))
            failpoints.reach("pruned")
        return len(old)

    def add_messages(self, rows: list[tuple]) -> None:
        """Rows of the table `message`, in its order of columns."""
        self._insert("INSERT OR IGNORE INTO message VALUES", rows)

    def payload_of(self, device_id: str, boot_id: int, lane: int, seq: int) -> bytes | None:
        """The bytes first received under this identity, if they are still kept."""
        row = self._db.execute(
            "SELECT raw.payload FROM message JOIN raw ON raw.id = message.raw_id "
            "WHERE device_id = ? AND boot_id = ? AND lane = ? AND seq = ?",
            (device_id, boot_id, lane, seq),
        ).fetchone()
        return row[0] if row else None

    def is_evidence_kept(self, alert: Alert, session: str) -> bool:
        """Whether the messages that an alert was raised on are still here to be judged again."""
        if any(self.payload_of(alert.device_id, ref.boot_id, 0, ref.seq) for ref in alert.evidence):
            return True
        refused = self._db.execute(
            "SELECT 1 FROM message JOIN raw ON raw.id = message.raw_id WHERE device_id = ? AND session = ? "
            "AND lane = 2 AND first_ms <= ? AND last_ms >= ? LIMIT 1",
            (alert.device_id, session, alert.onset_ms, alert.onset_ms),
        )
        return refused.fetchone() is not None

    def session_messages(self, device_id: str, session: str, after_ms: int, most: int = 1_000_000) -> tuple[list[tuple], int | None]:
        """What is on record of a session with readings after a time, about so many messages: (raw, lane, event_ms); and up to
        when all readings are in them, None if to the end."""
        upto = self._db.execute(
            "SELECT last_ms FROM message WHERE device_id = ? AND session = ? AND last_ms > ? ORDER BY last_ms LIMIT 1 OFFSET ?",
            (device_id, session, after_ms, most),
        ).fetchone()
        rows = self._db.execute(
            "SELECT raw.id, received_ms, topic, payload, retained, replay_of, lane, event_ms FROM message "
            "JOIN raw ON raw.id = message.raw_id WHERE device_id = ? AND session = ? AND last_ms > ? AND first_ms <= ? ORDER BY raw.id",
            (device_id, session, after_ms, upto[0] if upto else MAX_MS),
        )
        return [(_raw(row[:6]), row[6], row[7]) for row in rows], upto[0] if upto else None

    def session_until(self, device_id: str, session: str) -> int:
        """The time of the last reading on record of a session; -1 if there is none."""
        return self._scalar("SELECT coalesce(max(last_ms), -1) FROM message WHERE device_id = ? AND session = ?", device_id, session)

    def spoke_elsewhere(self, device_id: str, session: str, after_ms: int, until_ms: int) -> bool:
        """Whether a device said anything in another session between two times."""
        row = self._db.execute(
            "SELECT 1 FROM message WHERE device_id = ? AND session != ? AND last_ms > ? AND first_ms <= ? AND lane = 0 LIMIT 1",
            (device_id, session, after_ms, until_ms),
        )
        return row.fetchone() is not None

    def place_of(self, raw_id: int, key: tuple[str, int, int]) -> tuple[int, bool] | None:
        """event_ms and clock_ok of the kept message that is on record under this raw one, if there is such a one."""
        row = self._db.execute(
            "SELECT event_ms, clock_ok FROM message WHERE device_id = ? AND boot_id = ? AND seq = ? AND raw_id = ? AND lane != 2", (*key, raw_id)
        ).fetchone()
        return (row[0], bool(row[1])) if row else None

    def take_place(self, raw_id: int, key: tuple[str, int, int], replay_id: int) -> None:
        """A kept message goes to the store again as another raw one."""
        self._db.execute(
            "UPDATE message SET raw_id = ? WHERE device_id = ? AND boot_id = ? AND seq = ? AND raw_id = ? AND lane != 2", (replay_id, *key, raw_id)
        )

    def forget_partial(self, device_id: str, raw_id: int) -> None:
        """What could be read of a refused message gives way to the whole of it."""
        self._db.execute("DELETE FROM message WHERE device_id = ? AND boot_id = 0 AND lane = 2 AND seq = ?", (device_id, raw_id))


MAX_MS = 2**62
_FIRST_ASIDE = (
    "WITH RECURSIVE each (one) AS (SELECT min(device_id) FROM aside UNION ALL "
    "SELECT (SELECT min(device_id) FROM aside WHERE device_id > one) FROM each WHERE one IS NOT NULL) "
    "SELECT min((SELECT min(raw_id) FROM aside WHERE device_id = one)) FROM each"
)
"""From device to device in the index: millions may be set aside."""
_RAW = "id, received_ms, topic, payload, retained, replay_of"
_INTO_RAW = f"INSERT INTO raw ({_RAW}) VALUES"


def _raw(row: tuple) -> Raw:
    i, r, t, p, f, replay_of = row
    return Raw(i, r, t, p, bool(f), replay_of)


def _keys(rows: list[tuple[int, bytes, bytes]]) -> Iterator[tuple[str, int, int, int]]:
    """Under which keys the table `message` may know these raw messages."""
    for raw_id, topic, payload in rows:
        device_id = device_level(topic.decode("utf-8", errors="replace")) or NOBODY
        yield device_id, 0, raw_id, raw_id
        try:
            document = orjson.loads(payload)
            boot_id, seq = document["boot_id"], document["seq"]
        except (ValueError, TypeError, KeyError):
            continue
        if type(boot_id) is int and type(seq) is int and max(boot_id, seq) <= U32_MAX:
            yield device_id, boot_id, seq, raw_id
