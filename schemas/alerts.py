"""What the fleet says of a device: one alert for each danger found, and the events of its life."""

from enum import StrEnum
from hashlib import blake2s
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.messages import U32, Identifier, Version


class Severity(StrEnum):
    """critical: stop use, human review. warning: guide the user, flag for service. info: analytics."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return _RANK[self]


_RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


class AlertState(StrEnum):
    """withdrawn: later data showed that the judgement stood on an incomplete picture."""

    OPEN = "open"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"


class CloseReason(StrEnum):
    CLEARED = "cleared"
    SESSION_ENDED = "session-ended"
    RESUMED = "resumed"
    LATE_ARRIVAL = "late-arrival"


class AlertEventKind(StrEnum):
    OPENED = "opened"
    UPDATED = "updated"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"
    ACKNOWLEDGED = "acknowledged"
    ASSIGNED = "assigned"
    COMMENTED = "commented"


FLEET = "~fleet"
"""Stands for the device in alerts about several; no device can have this name."""


RULE_IDS = (
    "overcurrent-rms", "overcurrent-peak", "setpoint-overdelivery", "dc-offset", "net-charge-dose", "current-density",
    "power-density", "waveform-drift", "contact-lost-output-on", "current-without-contact", "compliance-saturation",
    "gel-dryout-trend", "contact-chatter", "reconnect-surge", "electrode-short", "electrode-wear", "session-overrun",
    "daily-overuse", "zone-dwell", "forbidden-zone", "output-while-charging", "overtemperature", "device-fault",
    "sensor-implausible", "telemetry-gap", "fleet-cluster", "low-light", "clock-skew",
)  # fmt: skip
"""What an alert's `rule` can be, in the order in which the rules are read."""

LINE_RULE_IDS = ("pipeline-blind", "storage-pressure", "security-event")
"""Rules on the line itself: their alerts have the worker's name as their device, and belong to no session."""


class MessageRef(BaseModel):
    """A message on record, by its identity."""

    model_config = ConfigDict(frozen=True)
    boot_id: U32
    seq: U32


class Acknowledgement(BaseModel):
    model_config = ConfigDict(frozen=True)
    by: Annotated[str, Field(min_length=1, max_length=128)]
    at_ms: int
    note: Annotated[str, Field(max_length=2_000)] = ""


class Alert(BaseModel):
    """One judgement of one rule on one session. All times are event time, ms since 1970 UTC.

    `id` is made from rule, device, session and onset: the same data always names it the same.
    `value` and `limit` are in `unit`; `value` is the worst seen so far. An alert on several
    devices at once has FLEET as its device and names them in `devices`; one on the line itself (LINE_RULE_IDS)
    has the worker's name.
    """

    model_config = ConfigDict(extra="forbid", use_enum_values=True)

    id: str
    rule: str
    rule_version: int
    severity: Severity
    device_id: str
    session_id: Identifier | None
    model: Identifier | None
    hw: Version | None
    fw: Version | None
    profile_id: str | None
    profile_version: int | None
    state: AlertState
    onset_ms: Annotated[int, Field(description="when the condition began")]
    opened_ms: Annotated[int, Field(description="when it had held long enough to be an alert")]
    updated_ms: Annotated[int, Field(description="when the condition was last seen")]
    closed_ms: int | None = None
    close_reason: CloseReason | None = None
    value: float
    limit: float
    unit: str
    source: str
    retrospective: Annotated[bool, Field(description="raised on data that came more than 120 s late")] = False
    from_rejected: Annotated[bool, Field(description="raised on a message that failed validation")] = False
    confirmed: Annotated[bool, Field(description="seen again in a 10 Hz burst")] = False
    service: Annotated[bool, Field(description="happened so often that the device needs service")] = False
    detail: Annotated[str, Field(description="what else a person should know, such as an assumption made")] = ""
    devices: Annotated[list[str], Field(description="whom an alert of the fleet is about")] = []
    evidence: list[MessageRef] = []
    escalated_ms: Annotated[int | None, Field(description="when severity last rose")] = None
    acknowledged: Acknowledgement | None = None
    assigned_to: Annotated[str, Field(min_length=1, max_length=128)] | None = None


def alert_id(rule: str, device_id: str, session: str, onset_ms: int) -> str:
    """The same judgement always has the same name."""
    return blake2s(f"{rule}|{device_id}|{session}|{onset_ms}".encode(), digest_size=8).hexdigest()


class AlertEvent(BaseModel):
    """One step in an alert's life, as published on `mc/v1/{device_id}/alert`."""

    model_config = ConfigDict(extra="forbid", use_enum_values=True)
    event: AlertEventKind
    at_ms: Annotated[int, Field(description="when the fleet said it, ms since 1970 UTC")]
    by: Annotated[str | None, Field(description="the person whose act it is; absent for the fleet's own")] = None
    note: Annotated[str, Field(max_length=2_000, description="a person's words, or why the fleet says it again")] = ""
    alert: Alert


class AlertDigest(BaseModel):
    """One notice for many alerts that late data raised on a device at once, on the same topic."""

    model_config = ConfigDict(extra="forbid", use_enum_values=True)
    event: Literal["digest"] = "digest"
    at_ms: Annotated[int, Field(description="when the fleet said it, ms since 1970 UTC")]
    device_id: str
    from_ms: Annotated[int, Field(description="earliest onset among them")]
    to_ms: Annotated[int, Field(description="latest onset among them")]
    by_rule: Annotated[dict[str, int], Field(description="how many alerts of each rule")]
    severity: Annotated[Severity, Field(description="the highest among them")]
    alerts: Annotated[list[Alert], Field(max_length=50, description="the gravest of them, as they stand")]
