"""The rules, in reading order. Adding one touches its family's file and this table."""

from ingest.safety.cluster import FLEET_CLUSTER
from ingest.safety.contact import (
    COMPLIANCE_SATURATION,
    CONTACT_CHATTER,
    CONTACT_LOST_OUTPUT_ON,
    CURRENT_WITHOUT_CONTACT,
    ELECTRODE_SHORT,
    ELECTRODE_WEAR,
    GEL_DRYOUT_TREND,
    RECONNECT_SURGE,
)
from ingest.safety.data import CLOCK_SKEW, SENSOR_IMPLAUSIBLE, TELEMETRY_GAP
from ingest.safety.device import DEVICE_FAULT, LOW_LIGHT, OUTPUT_WHILE_CHARGING, OVERTEMPERATURE
from ingest.safety.output import (
    CURRENT_DENSITY,
    DC_OFFSET,
    NET_CHARGE_DOSE,
    OVERCURRENT_PEAK,
    OVERCURRENT_RMS,
    POWER_DENSITY,
    SETPOINT_OVERDELIVERY,
    WAVEFORM_DRIFT,
)
from ingest.safety.rule import Limb, Rule
from ingest.safety.use import DAILY_OVERUSE, FORBIDDEN_ZONE, SESSION_OVERRUN, ZONE_DWELL

RULES: tuple[Rule, ...] = (
    OVERCURRENT_RMS,
    OVERCURRENT_PEAK,
    SETPOINT_OVERDELIVERY,
    DC_OFFSET,
    NET_CHARGE_DOSE,
    CURRENT_DENSITY,
    POWER_DENSITY,
    WAVEFORM_DRIFT,
    CONTACT_LOST_OUTPUT_ON,
    CURRENT_WITHOUT_CONTACT,
    COMPLIANCE_SATURATION,
    GEL_DRYOUT_TREND,
    CONTACT_CHATTER,
    RECONNECT_SURGE,
    ELECTRODE_SHORT,
    ELECTRODE_WEAR,
    SESSION_OVERRUN,
    DAILY_OVERUSE,
    ZONE_DWELL,
    FORBIDDEN_ZONE,
    OUTPUT_WHILE_CHARGING,
    OVERTEMPERATURE,
    DEVICE_FAULT,
    SENSOR_IMPLAUSIBLE,
    TELEMETRY_GAP,
    FLEET_CLUSTER,
    LOW_LIGHT,
    CLOCK_SKEW,
)

RULE: dict[str, Rule] = {rule.id: rule for rule in RULES}

STREAMS = ("current", "contact", "runtime", "health", "identity")


def _limbs_for(rule: Rule, stream: str) -> tuple[tuple[str, Limb], ...]:
    return tuple(
        (str(at), limb)
        for at, limb in enumerate(rule.limbs)
        if limb.condition is not None and stream in (limb.reads or rule.reads).split()
    )


def _concerns(rule: Rule, stream: str) -> bool:
    return bool(_limbs_for(rule, stream)) or (rule.clear is not None and stream in (rule.clear_reads or rule.reads).split())


OF_STREAM: dict[str, tuple[tuple[Rule, tuple[tuple[str, Limb], ...]], ...]] = {
    stream: tuple((rule, _limbs_for(rule, stream)) for rule in RULES if _concerns(rule, stream)) for stream in STREAMS
}
"""For each stream the rules that look at it, and by which limbs (with their place in the rule)."""

ALONE: tuple[tuple[Rule, tuple[tuple[str, Limb], ...]], ...] = tuple(
    (rule, limbs)
    for rule in RULES
    if (limbs := tuple((str(at), limb) for at, limb in enumerate(rule.limbs) if limb.alone))
)
"""What can be judged on one message by itself."""

URGENT: tuple[tuple[Rule, Limb], ...] = tuple((rule, limb) for rule in RULES for limb in rule.limbs if limb.urgent)
"""What is said as soon as one sample shows it; at most one limb of a rule."""

URGENT_STREAMS = frozenset(stream for rule, _ in URGENT for stream in rule.reads.split())
