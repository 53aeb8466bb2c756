"""What is remembered of one session between its readings."""

from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from ingest.safety.figures import Figures
from ingest.safety.memory import Balance, Chatter, Drying, Frozen
from schemas.alerts import Alert
from schemas.messages import ContactState, RunState
from schemas.profile import Profile

GRACE_MS = 2_000
"""After a change of level, mode, boost or run state, conditions that settle start anew."""

FRESH_MS = 3_000
"""Two readings further apart than this say nothing of each other."""

_RUNNING = RunState.RUNNING.value
IN_CONTACT = frozenset({ContactState.GOOD, ContactState.MARGINAL})


@dataclass(slots=True)
class Partial:
    """What could be read of a sample whose message was refused; the rest is None."""

    dt_ms: float = 0
    window_ms: float | None = None
    i_set_ua: float | None = None
    i_peak_ua: float | None = None
    i_rms_ua: float | None = None
    i_dc_ua: float | None = None
    v_peak_mv: float | None = None
    freq_hz: float | None = None
    pulse_us: float | None = None
    mode: str | None = None
    output_enabled: bool | None = None
    boost: bool | None = None
    run_state: str | None = None
    output_on_s: float | None = None
    zone_elapsed_s: float | None = None
    temp_head_c: float | None = None
    temp_pcb_c: float | None = None
    fault_bits: float | None = None
    self_test: str | None = None
    z_ohm: float | None = None
    attachment_cycles: float | None = None
    gel_expiry: str | None = None


@dataclass(slots=True)
class Reading:
    """One sample at its event time, with what its message said and the envelope that applies.

    `skew_ms` is how far the device's clock is ahead of the event time; 0 while it is believed.
    `epoch_ms` is when the device booted by its own clock: it moves when that clock is set.
    `first`: it is the first sample of its message. `replayed`: it was refused when it came, and a person sent it again.
    """

    t_ms: int
    stream: str
    sample: Any
    received_ms: int
    boot_id: int
    seq: int
    model: str | None
    hw: str | None
    fw: str | None
    profile: Profile | None
    partial: bool = False
    skew_ms: int = 0
    epoch_ms: int | None = None
    first: bool = True
    replayed: bool = False

    @property
    def order(self) -> tuple:
        """Event time first; the rest makes equal times fall alike however they arrive."""
        return (self.t_ms, self.boot_id, self.seq, self.stream)


@dataclass(slots=True)
class Track:
    """The state of one (device, session), as of `frontier_ms`: all readings up to it are judged.

    `session` is the session id, or `~{boot_id}` for what a device says outside sessions.
    """

    device_id: str
    session: str
    frontier_ms: int = -1
    last_ms: int | None = None
    last_received_ms: int | None = None
    boot_id: int = 0
    seq: int = 0
    model: str | None = None
    hw: str | None = None
    fw: str | None = None
    profile_id: str | None = None
    profile_version: int | None = None
    epoch_ms: int | None = None
    clock_step_ms: int = 0

    run_state: str | None = None
    zone: str | None = None
    zone_source: str | None = None
    zone_elapsed_s: float = 0.0
    program_id: str | None = None
    counter_s: float = 0.0
    told_on_s: float = 0.0
    told_elapsed_s: float = 0.0
    told_boot: int | None = None
    told_seq: int = -1
    set_back: str = ""

    level: int | None = None
    mode: str | None = None
    boost: bool | None = None
    output_enabled: bool | None = None
    current_ms: int | None = None
    output_on_ms: float = 0.0
    ended_ms: int | None = None
    output_at_end_ms: float = 0.0
    ended_with: list[str] = field(default_factory=list)
    grace_until_ms: int = -1

    contact_state: str | None = None
    contact_ms: int | None = None
    contact_since_ms: int | None = None
    contact_frac: float | None = None
    contact_boot: int | None = None
    contact_seq: int = -1
    z_ohm: float | None = None
    z_hz: float | None = None
    z_touch_ohm: float | None = None
    z_touch_ms: int | None = None
    motion: str | None = None
    makes: int = 0
    breaks: int = 0
    made_ms: int | None = None
    surged_ms: int | None = None
    surges: int = 0

    charging: bool | None = None
    charging_ms: int | None = None
    charging_edge: bool = False
    lux: float | None = None
    lux_ms: int | None = None

    balance: Balance = field(default_factory=Balance)
    drying: Drying = field(default_factory=Drying)
    chatter: Chatter = field(default_factory=Chatter)
    frozen: Frozen = field(default_factory=Frozen)
    figures: Figures = field(default_factory=Figures)

    holds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    clears: dict[str, int] = field(default_factory=dict)
    spent: list[str] = field(default_factory=list)
    open: dict[str, Alert] = field(default_factory=dict)

    @property
    def session_id(self) -> str | None:
        return None if self.session.startswith("~") else self.session

    def delivering(self, output_enabled: bool | None) -> bool:
        """`active` of the rules: running with output on. What is unknown counts as the danger."""
        return output_enabled is not False and self.run_state in (None, RunState.RUNNING)

    def heard_of_contact(self, t_ms: int) -> bool:
        return self.contact_ms is not None and t_ms - self.contact_ms <= FRESH_MS

    def touching(self, t_ms: int) -> bool:
        """`contact_ok` of the rules: contact was good or marginal just now."""
        return self.contact_state in IN_CONTACT and t_ms - self.contact_ms <= FRESH_MS

    @property
    def output_on_s(self) -> float:
        """Output time of the session: the device's counter or our own sum, whichever is longer."""
        return max(self.counter_s, self.output_on_ms / 1000)

    def to_json(self) -> bytes:
        state = {name: getattr(self, name) for name in _NAMES}
        state["balance"] = self.balance.to_json()
        state["open"] = {rule: alert.model_dump(mode="json") for rule, alert in self.open.items()}
        # What orjson returns is a small part of a buffer of 32 kB, which would be kept with it.
        return bytes(memoryview(orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)))

    @classmethod
    def from_json(cls, said: bytes) -> "Track":
        stored = orjson.loads(said)
        for name, part in _PARTS.items():
            stored[name] = part.from_json(stored[name])
        stored["open"] = {rule: Alert.model_validate(doc) for rule, doc in stored["open"].items()}
        return cls(**stored)


_NAMES = tuple(f.name for f in fields(Track))
_PARTS = {"balance": Balance, "drying": Drying, "chatter": Chatter, "frozen": Frozen, "figures": Figures}


def note_presence(track: Track, reading: Reading) -> None:
    """That the device spoke, and as whom; also true of a sample that cannot be believed."""
    track.last_ms, track.last_received_ms = reading.t_ms, reading.received_ms
    if reading.first:
        track.figures.message(reading.t_ms, reading.boot_id, reading.seq, reading.skew_ms)
    if reading.seq == track.seq and reading.boot_id == track.boot_id and track.model is not None:
        return  # another sample of the same message
    if reading.epoch_ms is not None:
        same_boot = reading.boot_id == track.boot_id and track.epoch_ms is not None
        track.clock_step_ms = reading.epoch_ms - track.epoch_ms if same_boot else 0
        track.epoch_ms = reading.epoch_ms
    track.model, track.hw, track.fw = reading.model, reading.hw, reading.fw
    track.boot_id, track.seq = reading.boot_id, reading.seq
    profile = reading.profile
    track.profile_id = profile.id if profile else None
    track.profile_version = profile.version if profile else None


def observe(track: Track, reading: Reading) -> None:
    """Take a full reading into the state, before the rules look at it."""
    if track.run_state == _RUNNING:
        track.figures.running_ms += reading.t_ms - track.last_ms
    _OBSERVE[reading.stream](track, reading)


def _current(track: Track, reading: Reading) -> None:
    sample, t_ms = reading.sample, reading.t_ms
    if sample.level != track.level or sample.mode != track.mode or sample.boost != track.boost:
        if track.level is not None:
            track.grace_until_ms = t_ms + GRACE_MS
            if sample.level < track.level:
                track.figures.level_downs += 1
            if sample.mode != track.mode:
                track.balance = Balance()  # another waveform's mean says nothing of this one
        track.level, track.mode, track.boost = sample.level, sample.mode, sample.boost
    track.output_enabled = sample.output_enabled
    run_state = track.run_state
    active = sample.output_enabled and (run_state is None or run_state == _RUNNING)
    window_ms = _take_window(track, t_ms, sample)
    touching = track.contact_state in IN_CONTACT and t_ms - track.contact_ms <= FRESH_MS
    track.figures.current(sample, window_ms, run_state, touching, track.zone)
    if active:
        track.balance.add(t_ms, window_ms, sample.i_dc_ua, sample.i_rms_ua)
    track.frozen.add(sample.i_rms_ua, active, touching, track.z_ohm)


def observe_impossible(track: Track, reading: Reading) -> None:
    """Of a sample whose currents cannot be, only the time is taken: it must not hide an overrun."""
    if track.run_state == _RUNNING:
        track.figures.running_ms += reading.t_ms - track.last_ms
    _take_window(track, reading.t_ms, reading.sample)


def _take_window(track: Track, t_ms: int, sample: Any) -> float:
    """Count the time of a window that no earlier one covers, ms: windows may overlap, time does not."""
    window_ms = sample.window_ms if track.current_ms is None else min(sample.window_ms, t_ms - track.current_ms)
    track.current_ms = t_ms
    if sample.output_enabled:
        track.output_on_ms += window_ms
        track.figures.output(t_ms, window_ms)
    return window_ms


def _contact(track: Track, reading: Reading) -> None:
    sample, t_ms = reading.sample, reading.t_ms
    gap = track.contact_ms is None or t_ms - track.contact_ms > FRESH_MS
    new_boot = reading.boot_id != track.contact_boot
    track.set_back = ""
    in_sequence = reading.seq >= track.contact_seq  # an unset clock may date messages against their order
    if not new_boot and in_sequence and (sample.make_count < track.makes or sample.break_count < track.breaks):
        track.set_back = "a contact counter went back within a boot"
    if not (gap or new_boot) and sample.make_count > track.makes:
        track.made_ms = t_ms
    if not new_boot and track.contact_ms is not None:
        track.figures.reconnects += max(0, sample.make_count - track.makes)
    track.makes, track.breaks = sample.make_count, sample.break_count
    track.contact_boot, track.contact_seq = reading.boot_id, reading.seq
    if sample.state != track.contact_state:
        track.contact_since_ms = t_ms
    track.drying.add(t_ms, sample, 0 if gap else t_ms - track.contact_ms, track.zone)
    track.chatter.add(t_ms, sample.break_count, fresh=gap or new_boot)
    track.contact_state, track.contact_ms, track.contact_frac = sample.state, t_ms, sample.contact_frac
    track.z_ohm, track.z_hz, track.motion = sample.z_ohm, sample.z_hz, sample.motion
    if sample.state in IN_CONTACT:
        track.z_touch_ohm, track.z_touch_ms = sample.z_ohm, t_ms
    if sample.state == ContactState.GOOD:
        track.figures.impedance(sample.z_ohm)


def _runtime(track: Track, reading: Reading) -> None:
    sample = reading.sample
    if track.run_state is not None and sample.run_state != track.run_state:
        track.grace_until_ms = reading.t_ms + GRACE_MS
    track.set_back = ""
    if reading.boot_id == track.told_boot and reading.seq >= track.told_seq and (
        sample.output_on_s < track.told_on_s or sample.elapsed_s < track.told_elapsed_s
    ):
        track.set_back = "a time counter went back within a session"
    track.told_boot, track.told_seq = reading.boot_id, reading.seq
    track.told_on_s, track.told_elapsed_s = sample.output_on_s, sample.elapsed_s
    track.figures.state(sample)
    track.run_state = sample.run_state
    track.zone, track.zone_source, track.program_id = sample.zone, sample.zone_source, sample.program_id
    track.zone_elapsed_s = float(sample.zone_elapsed_s)
    track.counter_s = max(track.counter_s, float(sample.output_on_s))


def _health(track: Track, reading: Reading) -> None:
    sample = reading.sample
    if sample.charging != track.charging:
        track.charging_edge = track.charging is not None
    track.charging, track.charging_ms = sample.charging, reading.t_ms
    if sample.lux is not None:
        track.lux, track.lux_ms = sample.lux, reading.t_ms
    track.figures.temperature(sample.temp_head_c)


_OBSERVE = {
    "current": _current,
    "contact": _contact,
    "runtime": _runtime,
    "health": _health,
    "identity": lambda track, reading: None,
}
