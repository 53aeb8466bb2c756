"""The tables of the journal, and the plain values they hold."""

from dataclasses import dataclass
from typing import NamedTuple

from schemas.measurements import TREND_S
from schemas.topics import device_level

SCHEMA_VERSION = 4

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE raw (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_ms INTEGER NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL, retained INTEGER NOT NULL
);
CREATE TABLE message (
    device_id TEXT NOT NULL, boot_id INTEGER NOT NULL, lane INTEGER NOT NULL, seq INTEGER NOT NULL,
    raw_id INTEGER NOT NULL, session TEXT NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    event_ms INTEGER NOT NULL, clock_ok INTEGER NOT NULL,
    PRIMARY KEY (device_id, boot_id, lane, seq)
) WITHOUT ROWID;
CREATE INDEX message_of_session ON message (device_id, session, last_ms);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    raw_id INTEGER NOT NULL, received_ms INTEGER NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, device_id TEXT, boot_id INTEGER, seq INTEGER,
    fingerprint BLOB NOT NULL, times INTEGER NOT NULL DEFAULT 1, state TEXT NOT NULL DEFAULT 'open'
);
CREATE INDEX quarantine_fingerprint ON quarantine (fingerprint);
CREATE INDEX quarantine_raw ON quarantine (raw_id);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, raw_id INTEGER, stream TEXT, event_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL, clock_ok INTEGER NOT NULL, point BLOB
);
CREATE TABLE device (device_id TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE track (
    device_id TEXT NOT NULL, session TEXT NOT NULL, frontier_ms INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (device_id, session)
) WITHOUT ROWID;
CREATE TABLE alert (
    id TEXT PRIMARY KEY, device_id TEXT NOT NULL, session TEXT NOT NULL, rule TEXT NOT NULL,
    severity TEXT NOT NULL, state TEXT NOT NULL, opened_ms INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL, doc BLOB NOT NULL,
    ended_ms INTEGER, model TEXT, fw TEXT, assigned_to TEXT
) WITHOUT ROWID;
CREATE INDEX alert_of_session ON alert (device_id, session);
CREATE INDEX alert_by_time ON alert (state, opened_ms);
CREATE TABLE alert_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL, at_ms INTEGER NOT NULL, event TEXT NOT NULL, actor TEXT, note TEXT, doc BLOB NOT NULL
);
CREATE INDEX alert_event_of_alert ON alert_event (alert_id);
CREATE TABLE notice (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE attempt (raw_id INTEGER PRIMARY KEY, times INTEGER NOT NULL);
"""

_SESSIONS = """
CREATE TABLE session (
    device_id TEXT NOT NULL, session TEXT NOT NULL, started_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    model TEXT NOT NULL, fw TEXT NOT NULL, output_s REAL NOT NULL, first_boot INTEGER NOT NULL, doc BLOB NOT NULL,
    PRIMARY KEY (device_id, session)
) WITHOUT ROWID;
CREATE INDEX session_by_time ON session (device_id, started_ms);
CREATE TABLE boot (
    device_id TEXT NOT NULL, boot_id INTEGER NOT NULL, booted_ms INTEGER NOT NULL, reset_reason TEXT NOT NULL,
    PRIMARY KEY (device_id, boot_id)
) WITHOUT ROWID;
CREATE TABLE identity (
    device_id TEXT NOT NULL, told_ms INTEGER NOT NULL, lot TEXT NOT NULL, attachment_id TEXT NOT NULL,
    PRIMARY KEY (device_id, told_ms)
) WITHOUT ROWID;
"""
"""What version 2 knows of devices over time."""

_TOLD = """
CREATE INDEX alert_by_opening ON alert (opened_ms);
CREATE INDEX alert_of_model ON alert (model, fw);
CREATE INDEX alert_of_person ON alert (assigned_to);
CREATE TABLE held (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL, alert_id TEXT NOT NULL, at_ms INTEGER NOT NULL, event TEXT NOT NULL, rank INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX held_of_device ON held (device_id);
CREATE TABLE webhook (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, event TEXT NOT NULL, rank INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    detail TEXT NOT NULL DEFAULT '', payload BLOB NOT NULL
);
CREATE INDEX webhook_by_state ON webhook (state, rank, id);
"""
"""What version 2 knows of telling people: filters, events held back, and what a webhook is owed."""

_REPORTED = """
ALTER TABLE session ADD COLUMN point BLOB;
CREATE TABLE told (device_id TEXT PRIMARY KEY, told_ms INTEGER NOT NULL, standing BLOB NOT NULL) WITHOUT ROWID;
"""
"""What version 3 knows of its own points: of each session and each device, what was last told."""

_SUMMED = """
CREATE TABLE trend_due (
    device_id TEXT NOT NULL, slot_ms INTEGER NOT NULL, PRIMARY KEY (device_id, slot_ms)
) WITHOUT ROWID;
CREATE TABLE week_due (device_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE week (
    device_id TEXT NOT NULL, week_ms INTEGER NOT NULL, point BLOB NOT NULL, PRIMARY KEY (device_id, week_ms)
) WITHOUT ROWID;
CREATE TABLE life (
    device_id TEXT PRIMARY KEY, judged_from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, first_ms INTEGER,
    completions INTEGER NOT NULL, streak_weeks INTEGER NOT NULL
) WITHOUT ROWID;
"""
"""What version 3 knows of roll-ups: which are to be made again, the weeks as they were last told, and what is left of forgotten ones."""

_GUARDED = """
CREATE TABLE quarantine_payload (entry_id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
INSERT INTO quarantine_payload SELECT id, payload FROM quarantine;
ALTER TABLE quarantine DROP COLUMN payload;
ALTER TABLE quarantine ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN sha256 BLOB;
ALTER TABLE quarantine ADD COLUMN last_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN more INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN hour INTEGER;
ALTER TABLE quarantine ADD COLUMN actor TEXT;
ALTER TABLE quarantine ADD COLUMN changed_ms INTEGER;
UPDATE quarantine SET last_ms = received_ms, bytes = (SELECT length(payload) FROM quarantine_payload WHERE entry_id = id);
UPDATE quarantine SET held = bytes;
CREATE INDEX quarantine_by_device ON quarantine (device_id, state);
CREATE INDEX quarantine_by_hour ON quarantine (device_id, reason, hour) WHERE hour IS NOT NULL;
CREATE TABLE quarantine_sum (
    device_id TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL,
    entries INTEGER NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (device_id, reason, state)
) WITHOUT ROWID;
INSERT INTO quarantine_sum SELECT coalesce(device_id, 'unidentified'), reason, state, count(*), count(*), sum(held)
    FROM quarantine GROUP BY 1, 2, 3;
INSERT INTO quarantine_sum SELECT '~all', '', '', count(*), count(*), coalesce(sum(held), 0) FROM quarantine;
CREATE TABLE quarantine_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entry_id INTEGER NOT NULL, at_ms INTEGER NOT NULL, event TEXT NOT NULL, actor TEXT NOT NULL, note TEXT NOT NULL
);
CREATE INDEX quarantine_event_of_entry ON quarantine_event (entry_id);
ALTER TABLE raw ADD COLUMN replay_of INTEGER;
CREATE TABLE security_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL, source TEXT NOT NULL,
    detail TEXT NOT NULL, times INTEGER NOT NULL
);
CREATE INDEX security_event_by_time ON security_event (last_ms);
CREATE TABLE aside (device_id TEXT NOT NULL, raw_id INTEGER NOT NULL, PRIMARY KEY (device_id, raw_id)) WITHOUT ROWID;
DELETE FROM attempt;
INSERT OR IGNORE INTO meta VALUES ('aside_last', '');
DROP INDEX message_of_session;
CREATE INDEX message_of_session ON message (device_id, session, last_ms, first_ms);
"""
"""What version 4 knows of people's acts on refused messages, of how much of them is kept, of attempts to get in, and of
messages that have been set aside: accepted, and waiting though later ones have been processed.

The bytes of refused messages lie apart, so that to look through the entries is not to read them all.
"""

SCHEMA += _SESSIONS + _TOLD + _REPORTED + _SUMMED + _GUARDED

UPGRADES: dict[int, str] = {
    1: """
ALTER TABLE alert ADD COLUMN ended_ms INTEGER;
ALTER TABLE alert ADD COLUMN model TEXT;
ALTER TABLE alert ADD COLUMN fw TEXT;
ALTER TABLE alert ADD COLUMN assigned_to TEXT;
UPDATE alert SET doc = CAST(json_insert(
    CAST(doc AS TEXT), '$.service', json('false'), '$.detail', '', '$.devices', json('[]'), '$.assigned_to', NULL
) AS BLOB);
UPDATE alert SET
    model = json_extract(CAST(doc AS TEXT), '$.model'), fw = json_extract(CAST(doc AS TEXT), '$.fw'),
    ended_ms = CASE state WHEN 'open' THEN NULL ELSE coalesce(
        json_extract(CAST(doc AS TEXT), '$.closed_ms'), json_extract(CAST(doc AS TEXT), '$.updated_ms')
    ) END;
DELETE FROM track;
"""
    + _SESSIONS
    + _TOLD,
    2: _REPORTED
    + _SUMMED
    + f"""
INSERT OR IGNORE INTO trend_due SELECT device_id, first_ms - first_ms % {TREND_S * 1000} FROM message WHERE lane = 0
    UNION SELECT device_id, last_ms - last_ms % {TREND_S * 1000} FROM message WHERE lane = 0;
INSERT INTO week_due SELECT DISTINCT device_id FROM session;
INSERT INTO meta SELECT 'raw_pruned_ms', CASE WHEN min(id) > 1 THEN min(received_ms) ELSE 0 END FROM raw;
""",
    3: _GUARDED,
}
"""What makes a journal of that version one of the next. Each is run in one transaction, when an older file is opened."""


class Raw(NamedTuple):
    """A delivery on record. `topic` and `payload` are what the broker handed over.

    `replay_of`: the entry of the quarantine that a person has sent through the line again, as if it came when it first did.
    """

    id: int
    received_ms: int
    topic: bytes
    payload: bytes
    retained: bool
    replay_of: int | None = None

    @property
    def device_level(self) -> str | None:
        """The device that its topic names, though the topic may be wrong otherwise."""
        return device_level(self.topic.decode("utf-8", errors="replace"))


@dataclass(slots=True)
class Ledger:
    """Every message that was acknowledged, and where it is: valid at any instant."""

    accepted: int
    inbox: int
    outbox: int
    stored: int
    duplicate: int
    quarantined: int

    @property
    def pending(self) -> int:
        return self.inbox + self.outbox

    @property
    def balanced(self) -> bool:
        return self.accepted == self.pending + self.stored + self.duplicate + self.quarantined

    def to_json(self) -> dict[str, int]:
        return {
            "accepted": self.accepted,
            "inbox": self.inbox,
            "outbox": self.outbox,
            "pending": self.pending,
            "stored": self.stored,
            "duplicate": self.duplicate,
            "quarantined": self.quarantined,
        }
