"""What a device publishes: the envelope and the samples of its six streams.

Strict: no unknown keys, no coercion (a JSON integer may stand where a float is meant), no
NaN or infinity, every number bounded. The bounds sit far above any real fault, so that a
dangerous reading is stored and judged instead of being refused as nonsense.

No string of the contract may hold a colon: decoding finds duplicate keys by counting them.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.topics import IDENTIFIER, Stream

VERSION = 1
MAX_PAYLOAD_BYTES = 16 * 1024
MAX_SAMPLES = 256
"""More than fit into one payload today; the payload bound comes first."""

Identifier = Annotated[str, Field(pattern=IDENTIFIER)]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,31}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9(][A-Za-z0-9 ()./_+-]{0,63}$")]
Date = Annotated[str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]
U8 = Annotated[int, Field(ge=0, le=255)]
U32 = Annotated[int, Field(ge=0, le=4_294_967_295)]
Fraction = Annotated[float, Field(ge=0, le=1)]
TimeMs = Annotated[int, Field(ge=0, le=253_402_300_799_999)]


def between(low: float, high: float) -> type[float]:
    return Annotated[float, Field(ge=low, le=high)]  # type: ignore[return-value]


class Strict(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, use_enum_values=True
    )


class Mode(StrEnum):
    BIPHASIC = "biphasic"
    ALT_BURST = "alt_burst"
    DC = "dc"
    OFF = "off"


class ContactState(StrEnum):
    SHORT = "short"
    GOOD = "good"
    MARGINAL = "marginal"
    POOR = "poor"
    OFF = "off"


class Motion(StrEnum):
    MOVING = "moving"
    STILL = "still"
    UNKNOWN = "unknown"


class RunState(StrEnum):
    IDLE = "idle"
    ARMED = "armed"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"
    FAULT = "fault"


class ZoneSource(StrEnum):
    PROGRAM = "program"
    USER = "user"
    INFERRED = "inferred"


class EndReason(StrEnum):
    COMPLETED = "completed"
    USER = "user"
    AUTO_OFF = "auto_off"
    FAULT = "fault"
    BATTERY = "battery"
    LOST = "lost"


class SelfTest(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    NOT_RUN = "not_run"


class ResetReason(StrEnum):
    POWER_ON = "power_on"
    WATCHDOG = "watchdog"
    BROWNOUT = "brownout"
    OTA = "ota"
    PANIC = "panic"


class Zone(StrEnum):
    """Where on the body the device says it is; `_l` and `_r` are the wearer's left and right."""

    FOREHEAD = "forehead"
    BROW_L = "brow_l"
    BROW_R = "brow_r"
    UNDER_EYE_L = "under_eye_l"
    UNDER_EYE_R = "under_eye_r"
    CHEEK_L = "cheek_l"
    CHEEK_R = "cheek_r"
    NASOLABIAL_L = "nasolabial_l"
    NASOLABIAL_R = "nasolabial_r"
    JAW_L = "jaw_l"
    JAW_R = "jaw_r"
    SIDE_NECK_L = "side_neck_l"
    SIDE_NECK_R = "side_neck_r"
    TEMPLE = "temple"
    TEMPLE_L = "temple_l"
    TEMPLE_R = "temple_r"
    ORBIT = "orbit"
    ORBIT_L = "orbit_l"
    ORBIT_R = "orbit_r"
    EYELID = "eyelid"
    EYELID_L = "eyelid_l"
    EYELID_R = "eyelid_r"
    MOUTH = "mouth"
    FRONT_NECK = "front_neck"
    CAROTID = "carotid"
    CHEST = "chest"
    GROIN = "groin"
    BODY_OTHER = "body_other"
    UNASSIGNED = "unassigned"


class Online(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"


class StatusReason(StrEnum):
    BIRTH = "birth"
    SHUTDOWN = "shutdown"
    WILL = "will"


class Sample(Strict):
    """One reading, `dt_ms` after the message's `ts_ms`."""

    dt_ms: Annotated[int, Field(ge=0, le=3_600_000, description="ms after the message's ts_ms")]


class CurrentSample(Sample):
    """Delivered output over one window that ends at the sample's time; 1 Hz while output is enabled."""

    window_ms: Annotated[int, Field(ge=50, le=10_000, description="averaging window, ms")]
    i_set_ua: Annotated[float, Field(ge=0, le=2_000, description="set-point after adaptation, µA peak")]
    i_peak_ua: Annotated[float, Field(ge=0, le=100_000, description="highest |current| in the window, µA")]
    i_rms_ua: Annotated[float, Field(ge=0, le=100_000, description="r.m.s. current, µA")]
    i_dc_ua: Annotated[float, Field(ge=-105_001, le=105_001, description="mean (signed) current, µA")]
    q_pos_uc: Annotated[float, Field(ge=0, le=1_000_000, description="positive charge in the window, µC")]
    q_neg_uc: Annotated[float, Field(ge=0, le=1_000_000, description="negative charge in the window, µC")]
    v_peak_mv: Annotated[float, Field(ge=0, le=1_000_000, description="highest electrode voltage, mV")]
    clip_frac: Annotated[float, Field(ge=0, le=1, description="part of the window in compliance clipping")]
    freq_hz: Annotated[float, Field(ge=0, le=100_000, description="stimulus fundamental, Hz; 0 for DC")]
    pulse_us: Annotated[float, Field(ge=0, le=2_000_000, description="pulse width, µs")]
    duty: Fraction
    level: Annotated[int, Field(ge=0, le=50, description="intensity step chosen by the user")]
    boost: bool
    output_enabled: bool
    mode: Mode


class ContactSample(Sample):
    """Electrode contact; 2 Hz plus one at each make and break."""

    z_ohm: Annotated[float, Field(ge=0, le=20_000_000, description="impedance, Ω; saturates when open")]
    z_hz: Annotated[float, Field(gt=0, le=1_000_000, description="frequency of that impedance, Hz")]
    state: ContactState
    contact_frac: Fraction | None = None
    electrode_mask: Annotated[U8, Field(description="electrodes in contact, bit mask")]
    make_count: Annotated[U32, Field(description="contacts made since boot")]
    break_count: Annotated[U32, Field(description="contacts broken since boot")]
    motion: Motion | None = None


class RuntimeSample(Sample):
    """What the session is doing; on change, and every 5 s within a session."""

    run_state: RunState
    program_id: Identifier
    elapsed_s: Annotated[int, Field(ge=0, le=14_400, description="since the session began, s")]
    output_on_s: Annotated[int, Field(ge=0, le=14_400, description="with output on, s")]
    zone: Zone
    zone_source: ZoneSource
    zone_elapsed_s: Annotated[int, Field(ge=0, le=14_400, description="in this zone, s")]
    auto_off_s: Annotated[int, Field(ge=-60, le=14_400, description="left until automatic off, s")] | None = None
    end_reason: EndReason | None = None

    @model_validator(mode="after")
    def end_reason_belongs_to_the_end(self) -> Self:
        if self.end_reason is not None and self.run_state != RunState.ENDED:
            raise ValueError("end_reason is only for run_state 'ended'")
        return self


class HealthSample(Sample):
    """Device condition; every 60 s, on change, and at 1 Hz while the head is at 38 °C or more."""

    battery_mv: Annotated[float, Field(ge=0, le=6_000)]
    charging: bool
    temp_head_c: Annotated[float, Field(ge=-40, le=125, description="treatment head, °C")]
    temp_pcb_c: Annotated[float, Field(ge=-40, le=125, description="circuit board, °C")]
    lux: Annotated[float, Field(ge=0, le=200_000, description="ambient light, lx (solar models)")] | None = None
    solar_mv: Annotated[float, Field(ge=0, le=6_000, description="cell voltage, mV (solar models)")] | None = None
    fault_bits: U32
    self_test: SelfTest
    reset_reason: ResetReason
    queued_msgs: Annotated[U32, Field(description="messages waiting on the device")]
    rssi_dbm: Annotated[float, Field(ge=-120, le=0)]


class IdentitySample(Sample):
    """Who the device is; at registration, boot and firmware update."""

    udi_di: Label
    serial: Label
    lot: Label
    model: Identifier
    hw_rev: Version
    fw_version: Version
    fw_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    profile_id: Identifier
    profile_version: Annotated[int, Field(ge=1, le=1_000_000)]
    mfg_date: Date
    calibration_date: Date
    attachment_id: Label
    attachment_cycles: U32
    gel_lot: Label | None = None
    gel_expiry: Date | None = None


class StatusSample(Sample):
    """Birth, orderly goodbye, or the last will that the broker sends in the device's name."""

    state: Online
    reason: StatusReason
    oldest_seq: Annotated[U32, Field(description="oldest message the device still holds")] | None = None


class Message(Strict):
    """The envelope of every uplink message.

    `(device, boot_id, seq)` is the message's identity; `seq` rises by one for each message of a
    boot, across streams, from 0. A last will is written before its moment is known: it carries the `seq`
    of the birth it belongs to and stands outside the sequence.
    """

    v: Annotated[int, Field(ge=VERSION, le=VERSION, json_schema_extra={"const": VERSION})]
    boot_id: Annotated[U32, Field(description="changes at every reset")]
    seq: U32
    ts_ms: Annotated[TimeMs, Field(description="device clock at the first sample, ms since 1970 UTC")]
    uptime_ms: Annotated[int, Field(ge=0, le=9_007_199_254_740_991, description="ms since boot, at ts_ms")]
    session_id: Identifier | None
    model: Identifier
    hw: Version
    fw: Version
    gateway_id: Identifier | None = None
    gateway_ts_ms: TimeMs | None = None

    @model_validator(mode="after")
    def samples_ascend(self) -> Self:
        before_ms = -1
        for sample in self.samples:  # type: ignore[attr-defined]
            if sample.dt_ms <= before_ms:
                raise ValueError("dt_ms must rise from sample to sample")
            before_ms = sample.dt_ms
        return self


def _samples(kind: type[Sample], most: int = MAX_SAMPLES) -> type[list]:
    return Annotated[list[kind], Field(min_length=1, max_length=most)]  # type: ignore[valid-type, return-value]


class CurrentMessage(Message):
    samples: _samples(CurrentSample)  # type: ignore[valid-type]


class ContactMessage(Message):
    samples: _samples(ContactSample)  # type: ignore[valid-type]


class RuntimeMessage(Message):
    samples: _samples(RuntimeSample)  # type: ignore[valid-type]


class HealthMessage(Message):
    samples: _samples(HealthSample)  # type: ignore[valid-type]


class IdentityMessage(Message):
    samples: _samples(IdentitySample, 1)  # type: ignore[valid-type]

    @model_validator(mode="after")
    def envelope_agrees(self) -> Self:
        said = self.samples[0]
        if (said.model, said.hw_rev, said.fw_version) != (self.model, self.hw, self.fw):
            raise ValueError("model, hw_rev and fw_version must equal the envelope's model, hw and fw")
        return self


class StatusMessage(Message):
    samples: _samples(StatusSample, 1)  # type: ignore[valid-type]


MESSAGES: dict[Stream, type[Message]] = {
    Stream.CURRENT: CurrentMessage,
    Stream.CONTACT: ContactMessage,
    Stream.RUNTIME: RuntimeMessage,
    Stream.HEALTH: HealthMessage,
    Stream.IDENTITY: IdentityMessage,
    Stream.STATUS: StatusMessage,
}

SAMPLES: dict[Stream, type[Sample]] = {
    Stream.CURRENT: CurrentSample,
    Stream.CONTACT: ContactSample,
    Stream.RUNTIME: RuntimeSample,
    Stream.HEALTH: HealthSample,
    Stream.IDENTITY: IdentitySample,
    Stream.STATUS: StatusSample,
}


class DurableAck(Strict):
    """The fleet's answer: of this boot, all messages up to `upto` are on our disk, save `missing`.

    It grants, and takes nothing back: what an earlier answer covered stays covered.
    """

    boot_id: U32
    upto: Annotated[int, Field(ge=-1, le=4_294_967_295, description="highest seq that this speaks of; -1 for none")]
    missing: Annotated[
        list[tuple[U32, U32]],
        Field(max_length=32, description="closed ranges not covered; what the device still holds of them it sends again"),
    ] = []
