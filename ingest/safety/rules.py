"""The rules, in reading order. Adding one touches its family's file and this table."""

from ingest.safety.contact import CURRENT_WITHOUT_CONTACT
from ingest.safety.data import TELEMETRY_GAP
from ingest.safety.output import OVERCURRENT_PEAK, OVERCURRENT_RMS
from ingest.safety.rule import Limb, Rule
from ingest.safety.use import SESSION_OVERRUN

RULES: tuple[Rule, ...] = (
    OVERCURRENT_RMS,
    OVERCURRENT_PEAK,
    CURRENT_WITHOUT_CONTACT,
    SESSION_OVERRUN,
    TELEMETRY_GAP,
)

RULE: dict[str, Rule] = {rule.id: rule for rule in RULES}

OF_STREAM: dict[str, tuple[Rule, ...]] = {
    stream: tuple(rule for rule in RULES if stream in rule.reads.split())
    for stream in ("current", "contact", "runtime", "health", "identity", "status")
}

URGENT: tuple[tuple[Rule, Limb], ...] = tuple((rule, limb) for rule in RULES for limb in rule.limbs if limb.urgent)
"""What is said as soon as one sample shows it; at most one limb of a rule."""

URGENT_STREAMS = frozenset(stream for rule, _ in URGENT for stream in rule.reads.split())
