"""Every metric and log event of the worker, declared once. Payloads are never logged."""

import logging
import sys

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

ACCEPTED = Counter("microcurrent_accepted_messages", "Messages on disk and acknowledged to the broker", registry=REGISTRY)
STORED = Counter("microcurrent_stored_messages", "Messages that the store has confirmed", registry=REGISTRY)
DUPLICATE = Counter("microcurrent_duplicate_messages", "Messages that had been received before", registry=REGISTRY)
QUARANTINED = Counter("microcurrent_quarantined_messages", "Messages kept aside", ["reason"], registry=REGISTRY)
ALERT_EVENTS = Counter("microcurrent_alert_events", "Steps in the life of alerts", ["rule", "event"], registry=REGISTRY)
SINK_FAILURES = Counter("microcurrent_sink_failures", "Writes that the store did not confirm", registry=REGISTRY)
WEBHOOK_ANSWERS = Counter("microcurrent_webhook_answers", "Attempts at the webhook, by what came of them", ["outcome"], registry=REGISTRY)
WEBHOOK_DROPPED = Counter("microcurrent_webhook_dropped", "Entries that gave way in a full queue and were never sent", registry=REGISTRY)
SECURITY_EVENTS = Counter("microcurrent_security_events", "Attempts to get in, or to be somebody else, and certificates that end", ["kind"], registry=REGISTRY)
STALE_ACKS = Counter("microcurrent_stale_acks", "Acknowledgements dropped because the connection had changed", registry=REGISTRY)

PENDING = Gauge("microcurrent_pending_messages", "Accepted, not yet stored or refused", ["where"], registry=REGISTRY)
SET_ASIDE = Gauge("microcurrent_set_aside_messages", "Accepted, of devices that send more than is judged at once; part of the inbox", registry=REGISTRY)
CONNECTED = Gauge("microcurrent_broker_connected", "1 while subscribed at the broker", registry=REGISTRY)
STORE_OK = Gauge("microcurrent_store_ok", "1 while the store confirms writes", registry=REGISTRY)
ALERTS_OPEN = Gauge("microcurrent_alerts_open", "Open alerts", ["severity"], registry=REGISTRY)
WEBHOOK_OWED = Gauge("microcurrent_webhook_entries", "Entries for the webhook on disk", ["state"], registry=REGISTRY)
REFUSED_MESSAGES = Gauge("microcurrent_quarantine_messages", "Refused messages, by what has become of them", ["state"], registry=REGISTRY)
REFUSED_BYTES = Gauge("microcurrent_quarantine_bytes", "Bytes of refused messages that are kept", registry=REGISTRY)
OLDEST_PENDING = Gauge("microcurrent_oldest_pending_seconds", "Age of the oldest message not yet stored", registry=REGISTRY)
PRESSURE = Gauge("microcurrent_pressure", "Room for the journal: 0 normal, 1 high, 2 stopped: nothing more is accepted", registry=REGISTRY)
JOURNAL_BYTES = Gauge("microcurrent_journal_bytes", "The journal on disk, and what it may take", ["what"], registry=REGISTRY)
DISK_FREE = Gauge("microcurrent_disk_free_bytes", "Free on the journal's disk", registry=REGISTRY)
BLIND = Gauge("microcurrent_blind_causes", "Reasons why something cannot be seen now; 0 is well", registry=REGISTRY)
CANARY_SECONDS = Gauge("microcurrent_canary_seconds", "How long the last canary that came through took", registry=REGISTRY)
CANARY_AGE = Gauge("microcurrent_canary_age_seconds", "Since the last canary that came through was sent; -1 if none has", registry=REGISTRY)
CERTIFICATE_SECONDS = Gauge(
    "microcurrent_certificate_seconds",
    "Until the first certificate of a kind ends; below 0 it has ended, NaN if none is known",
    ["kind"],
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram(
    "microcurrent_commit_seconds",
    "Time to put a batch on disk",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)


def configure_logging(level: str) -> None:
    """Structured lines on stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def log() -> structlog.stdlib.BoundLogger:
    return structlog.get_logger()
