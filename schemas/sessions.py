"""What is known of one session: how it went, and how much of it was seen.

Every figure stands beside `coverage`, the part of the running time of which there are readings:
a figure below COVERAGE_MIN should not be shown. Derived metrics (adherence, symmetry, zone
coverage, alert rates) are quotients of these.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.messages import EndReason, Identifier, Version, Zone

COVERAGE_MIN = 0.7
"""Where less of the running time was seen, figures of the session say little."""

EFFICIENCY_MIN = 0.6
"""Contact efficiency below which the user needs to be shown how."""

DELIVERY_MIN = 0.8
"""Delivery ratio below which the coupling is bad."""

ADHERENCE_MIN = 0.8
"""Adherence of a week that counts for a streak."""

COURSE_SESSIONS = 30
"""Completed sessions of a whole course."""


class SessionRecord(BaseModel):
    """One session of a device, as of its latest reading. Times are event time, ms since 1970 UTC."""

    model_config = ConfigDict(extra="forbid", use_enum_values=True)

    device_id: str
    model: Identifier
    fw: Version
    session_id: Identifier
    hw: Version
    profile_id: str | None = None
    profile_version: int | None = None
    program_id: Identifier | None = None
    attachment_id: str | None = None

    started_ms: Annotated[int, Field(description="the first reading")]
    last_ms: Annotated[int, Field(description="the latest reading")]
    ended: Annotated[bool, Field(description="the device said that the session is over")]
    end_reason: EndReason | None = None

    running_s: Annotated[float, Field(description="time in run state 'running', unobserved time included, s")]
    observed_s: Annotated[float, Field(description="running time of which there are current readings, s")]
    unobserved_s: Annotated[float, Field(description="running time without them, s")]
    coverage: Annotated[float, Field(ge=0, le=1, description="observed part of the running time")]
    messages: Annotated[int, Field(description="messages received of this session")]
    lost_messages: Annotated[int, Field(description="numbers missing between its first and its last message")]
    clock_ok: Annotated[bool, Field(description="the device's clock was believable throughout")]

    output_s: Annotated[float, Field(description="output time: the device's counter or our sum, the longer, s")]
    active_s: Annotated[float, Field(description="observed time running with output enabled, s")]
    effective_s: Annotated[float, Field(description="active, in contact, at half the set-point or more, s")]
    planned_s: Annotated[float | None, Field(description="what the model's session is meant to last, s")] = None
    completion: Annotated[float | None, Field(ge=0, le=1, description="effective part of what was planned")] = None
    completed: Annotated[bool, Field(description="0.8 done and ended by itself, or all of it done")]
    contact_efficiency: Annotated[float | None, Field(ge=0, le=1, description="effective part of active time")] = None
    delivery_ratio: Annotated[float | None, Field(description="median of peak over set-point, in contact")] = None
    charge_mc: Annotated[float, Field(description="sum of r.m.s. current over time, unsigned, mC")]
    net_charge_mc_cm2: Annotated[float | None, Field(description="net charge per electrode area, in contact, mC/cm²")] = None
    mean_intensity_ua: Annotated[float | None, Field(description="mean r.m.s. current over effective time, µA")] = None
    i_peak_max_ua: Annotated[float | None, Field(description="highest peak, µA")] = None
    i_rms_max_ua: Annotated[float | None, Field(description="highest r.m.s., µA")] = None
    z_median_ohm: Annotated[float | None, Field(description="median impedance in good contact, Ω")] = None
    temp_head_max_c: Annotated[float | None, Field(description="hottest head, °C")] = None
    level_max: int | None = None
    level_downs: Annotated[int, Field(description="how often the user chose a lower level")] = 0
    reconnects: Annotated[int, Field(description="contacts made")] = 0

    zone_s: Annotated[dict[Zone, float], Field(description="effective time by zone, s")] = {}
    minutes: Annotated[dict[int, float], Field(description="output time by minute since 1970 UTC, s")] = {}


ZONE_FIELDS: dict[Zone, str] = {zone: f"zone_{zone.value}_s" for zone in Zone}
"""The fields of the store that hold `zone_s`."""

ZONE_TARGET_S: dict[Zone, float] = {
    Zone.FOREHEAD: 150.0,
    Zone.BROW_L: 90.0,
    Zone.BROW_R: 90.0,
    Zone.CHEEK_L: 210.0,
    Zone.CHEEK_R: 210.0,
    Zone.NASOLABIAL_L: 90.0,
    Zone.NASOLABIAL_R: 90.0,
    Zone.JAW_L: 75.0,
    Zone.JAW_R: 75.0,
    Zone.SIDE_NECK_L: 75.0,
    Zone.SIDE_NECK_R: 75.0,
}
"""How long a full session treats each zone, s. Zones that are not here are no targets."""
