-- The tables of a journal of version 2, as the program of that time made them.
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
