"""Workers' own messages: how they are known when they come back through the broker. Pure."""

from schemas import topics

WORKER_PREFIX = "ingest-"
"""How a worker's name at the broker begins; what it publishes is on the topic of that name."""

PULSE_PREFIX = b'{"pulse":'
CANARY_PREFIX = b'{"model":"canary",'
"""How the bytes of `ingest.canary` begin, so that workers know each other's."""

OWN_PREFIXES = (PULSE_PREFIX, CANARY_PREFIX)
TOPICS_OF_WORKERS = f"{topics.ROOT}/{WORKER_PREFIX}".encode()


def pulse(now_ms: int) -> bytes:
    return b"%s%d}" % (PULSE_PREFIX, now_ms)


def pulse_ms(payload: bytes) -> int:
    """When a pulse was sent; -1 if it does not say so."""
    digits = payload[len(PULSE_PREFIX) : -1]
    return int(digits) if digits.isdigit() and len(digits) <= 15 else -1
