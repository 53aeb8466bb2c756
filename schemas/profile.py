"""Safety envelopes: what a model of device may legitimately do. One TOML file each.

A profile applies to one model, a set of hardware revisions and a range of firmware. Rule
thresholds, dashboard thresholds and documentation all come from here.
"""

import math
import tomllib
from collections.abc import Iterable
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from schemas.applies import Applies, ProfileTable, hole
from schemas.limits import HEAD_MARGIN_C, HEAD_MAX_C, MICROCURRENT_CAP_UA, Band, Limits, peak_limit_ua, rms_limit_ua
from schemas.messages import Identifier, Mode, Zone
from schemas.sessions import ZONE_TARGET_S

ALWAYS_FORBIDDEN = frozenset({"eyelid", "front_neck", "carotid", "chest", "groin"})
"""Zones that no profile can allow (IEC 60601-2-10 instructions for use, electrode placement)."""


def base_zone(zone: str) -> str:
    """The zone without its side: `cheek_l` is `cheek`."""
    return zone[:-2] if zone.endswith(("_l", "_r")) else zone


class ProfileError(Exception):
    """A profile that cannot be used: which file, which key, why."""


Positive = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 7)]


class Frequency(ProfileTable):
    """The band in which a mode's fundamental must lie, Hz; equal ends for a fixed frequency."""

    low_hz: Annotated[float, Field(ge=0)]
    high_hz: Annotated[float, Field(ge=0)]


class Output(ProfileTable):
    modes: Annotated[list[Annotated[Mode, Field(strict=False)]], Field(min_length=1)]
    dc_by_design: bool = False
    i_peak_min_ua: Annotated[float, Field(ge=0)]
    i_peak_max_ua: Annotated[float, Field(gt=0, lt=MICROCURRENT_CAP_UA)]
    boost_i_peak_max_ua: Annotated[float, Field(gt=0, lt=MICROCURRENT_CAP_UA)] | None = None
    i_dc_max_ua: Annotated[float, Field(gt=0, lt=MICROCURRENT_CAP_UA)] | None = None
    levels: Annotated[int, Field(ge=1, le=50)]
    duty_max: Annotated[float, Field(gt=0, le=1)]
    frequency: dict[Annotated[Mode, Field(strict=False)], Frequency] = {}
    pulse_us: Positive | None = None
    v_compliance_mv: Positive


class Electrodes(ProfileTable):
    count: Annotated[int, Field(ge=1, le=8)]
    area_cm2: Positive
    z_good_max_ohm: Positive
    z_off_ohm: Positive
    lead_off_mute: bool
    gel: Annotated[str, Field(pattern=r"^(required|optional|serum)$")]
    attachment_cycles_max: Annotated[int, Field(ge=1, description="uses after which electrodes are worn")] | None = None


class Session(ProfileTable):
    nominal_s: Seconds
    max_s: Seconds
    auto_off: bool
    daily_max_s: Seconds
    weekly_initiation: Annotated[int, Field(ge=1, le=21)]
    weekly_maintenance: Annotated[int, Field(ge=1, le=21)]


class Zones(ProfileTable):
    forbidden: list[str]
    max_s: Seconds
    cue_s: Seconds | None = None
    hold_programs: list[Identifier] = []
    """Programs in which the head is meant to rest on one spot."""

    @model_validator(mode="after")
    def names_exist(self) -> Self:
        bases = {base_zone(zone) for zone in Zone} | {"neck"}
        for name in self.forbidden:
            if name not in bases:
                raise ValueError(f"'{name}' is no zone; known are {', '.join(sorted(bases))}")
        return self


class Device(ProfileTable):
    charge_interlock: bool
    solar: bool = False
    temp_max_c: Positive = HEAD_MAX_C
    """Head temperature that is critical, °C; 2 °C below it is a warning."""
    critical_faults: Annotated[int, Field(ge=0, le=4_294_967_295)] = 0
    """Fault bits that mean stop use."""


class Profile(ProfileTable):
    """The versioned envelope of a model. Currents µA peak, voltages mV, areas cm², times s."""

    id: Identifier
    version: Annotated[int, Field(ge=1)]
    name: str
    notice: str
    applies: Applies
    output: Output
    electrodes: Electrodes
    session: Session
    zones: Zones
    device: Device

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.output.i_peak_min_ua > self.output.i_peak_max_ua:
            raise ValueError("output.i_peak_min_ua is above output.i_peak_max_ua")
        if self.electrodes.z_good_max_ohm >= self.electrodes.z_off_ohm:
            raise ValueError("electrodes.z_good_max_ohm must lie below electrodes.z_off_ohm")
        if self.session.nominal_s > self.session.max_s:
            raise ValueError("session.nominal_s is above session.max_s")
        if self.session.max_s > self.session.daily_max_s:
            raise ValueError("session.max_s is above session.daily_max_s")
        return self

    @cached_property
    def i_rms_max_ua(self) -> float:
        """Highest legitimate r.m.s. current: peak times the root of the duty."""
        return self.output.i_peak_max_ua * math.sqrt(self.output.duty_max)

    @cached_property
    def boost_i_rms_max_ua(self) -> float:
        peak = self.output.boost_i_peak_max_ua or self.output.i_peak_max_ua
        return peak * math.sqrt(self.output.duty_max)

    @cached_property
    def zones_forbidden(self) -> frozenset[str]:
        """Every zone of the contract in which this model must not deliver output."""
        banned = ALWAYS_FORBIDDEN | set(self.zones.forbidden)
        return frozenset(
            zone.value
            for zone in Zone
            if base_zone(zone) in banned or ("neck" in banned and base_zone(zone).endswith("neck"))
        )

    @cached_property
    def zone_targets_s(self) -> dict[Zone, float]:
        """How long a session of this model is meant to treat each zone, s; a quick one scales all to its length."""
        full = {zone: target_s for zone, target_s in ZONE_TARGET_S.items() if zone.value not in self.zones_forbidden}
        scale = min(1.0, self.session.nominal_s / sum(full.values())) if full else 1.0
        return {zone: scale * target_s for zone, target_s in full.items()}

    @cached_property
    def limits(self) -> Limits:
        """The thresholds that follow from this envelope."""
        output, electrodes, session, device = self.output, self.electrodes, self.session, self.device
        boost_peak_ua = max(output.i_peak_max_ua, output.boost_i_peak_max_ua or 0.0)
        boost_rms_ua = max(self.i_rms_max_ua, self.boost_i_rms_max_ua)
        pulse_us = output.pulse_us
        v_mv = output.v_compliance_mv
        return Limits(
            known=True,
            rms_max_ua=self.i_rms_max_ua,
            rms_limit_ua=rms_limit_ua(self.i_rms_max_ua),
            rms_twice_ua=2 * self.i_rms_max_ua,
            rms_clear_ua=1.10 * self.i_rms_max_ua,
            peak_max_ua=output.i_peak_max_ua,
            peak_limit_ua=peak_limit_ua(output.i_peak_max_ua),
            boost_rms_limit_ua=rms_limit_ua(boost_rms_ua),
            boost_rms_twice_ua=2 * boost_rms_ua,
            boost_rms_clear_ua=1.10 * boost_rms_ua,
            boost_peak_limit_ua=peak_limit_ua(boost_peak_ua),
            charging_limit_ua=math.inf if device.solar else max(2.0, 0.05 * output.i_peak_max_ua),
            dc_by_design=output.dc_by_design,
            only_mode=output.modes[0].value if len(output.modes) == 1 else None,
            bands={
                mode: Band(0.8 * band.low_hz, 1.2 * band.high_hz, 0.1 * band.low_hz)
                for mode, band in output.frequency.items()
                if mode != Mode.DC
            },
            pulse_low_us=0.8 * pulse_us if pulse_us else 0.0,
            pulse_high_us=1.2 * pulse_us if pulse_us else math.inf,
            area_cm2=electrodes.area_cm2,
            v_compliance_mv=v_mv,
            v_open_mv=0.8 * v_mv,
            v_saturated_mv=0.95 * v_mv,
            v_impossible_mv=1.5 * v_mv,
            z_good_max_ohm=electrodes.z_good_max_ohm,
            lead_off_mute=electrodes.lead_off_mute,
            attachment_cycles_max=electrodes.attachment_cycles_max or math.inf,
            session_max_s=session.max_s,
            overrun_s=1.10 * session.max_s + 30 if session.auto_off else math.inf,
            daily_max_s=session.daily_max_s,
            sessions_per_week=max(session.weekly_initiation, session.weekly_maintenance),
            zone_max_s=self.zones.max_s,
            zones_forbidden=self.zones_forbidden,
            hold_programs=frozenset(self.zones.hold_programs),
            solar=device.solar,
            head_warm_c=device.temp_max_c - HEAD_MARGIN_C,
            head_hot_c=device.temp_max_c,
            critical_faults=device.critical_faults,
        )


UNKNOWN = Limits(
    bands={},
    zones_forbidden=frozenset(zone.value for zone in Zone if base_zone(zone) in ALWAYS_FORBIDDEN),
)
"""For a device that no profile covers."""


class Profiles:
    """All envelopes in force; finds the one for a device, or none."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self.all = tuple(profiles)
        self._found: dict[tuple[str, str, str], Profile | None] = {}

    def find(self, model: str, hw: str, fw: str) -> Profile | None:
        key = (model, hw, fw)
        if key not in self._found:
            if len(self._found) >= 4096:
                self._found.clear()
            self._found[key] = next(
                (p for p in self.all if p.applies.model == model and p.applies.covers(hw, fw)), None
            )
        return self._found[key]

    def for_model(self, model: str) -> Profile | None:
        """Any envelope of the model: for readings whose firmware could not be read."""
        return next((p for p in self.all if p.applies.model == model), None)


def load_profiles(directory: Path | None = None) -> Profiles:
    """Read every `*.toml` of a directory (the shipped examples by default); raise ProfileError."""
    root = files("schemas") / "profiles" if directory is None else directory
    if directory is not None and not directory.is_dir():
        raise ProfileError(f"{directory}: no such directory of profiles")
    entries = sorted((e for e in root.iterdir() if e.name.endswith(".toml")), key=lambda e: e.name)
    if not entries:
        raise ProfileError(f"{root}: holds no profile; add at least one *.toml")
    loaded: list[tuple[str, Profile]] = []
    for entry in entries:
        try:
            raw = entry.read_bytes()
        except OSError as error:
            raise ProfileError(f"{entry}: cannot be read ({error.strerror})") from error
        profile = parse_profile(raw, where=str(entry))
        for other_name, other in loaded:
            if profile.applies.overlaps(other.applies):
                raise ProfileError(
                    f"{entry.name}: applies: overlaps {other_name} for model '{profile.applies.model}'; "
                    "give the two disjoint hw lists or firmware ranges"
                )
            if (profile.id, profile.version) == (other.id, other.version):
                raise ProfileError(
                    f"{entry.name}: version: '{profile.id}' version {profile.version} is already in {other_name}"
                )
        loaded.append((entry.name, profile))
    unmet = hole([(name, profile.applies) for name, profile in loaded])
    if unmet is not None:
        raise ProfileError(unmet)
    return Profiles(profile for _, profile in loaded)


def parse_profile(raw: bytes, where: str) -> Profile:
    """Read one profile; `where` names it in a ProfileError."""
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ProfileError(f"{where}: not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:  # of a number or a nesting without end it says no TOMLDecodeError
        raise ProfileError(f"{where}: not valid TOML: {error}") from error
    try:
        return Profile.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the profile"
        reason = first["msg"].removeprefix("Value error, ")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ProfileError(f"{where}: {key}: {reason}{more}") from error
