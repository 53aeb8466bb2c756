"""What is remembered of one session between its readings."""

from dataclasses import dataclass, field, fields
from typing import Any

from schemas.alerts import Alert
from schemas.messages import RunState
from schemas.profile import Profile

GRACE_MS = 2_000
"""After a change of level, mode, boost or run state, held conditions start anew."""


@dataclass(slots=True)
class Partial:
    """What could be read of a sample whose message was refused; the rest is None."""

    dt_ms: float = 0
    window_ms: float | None = None
    i_set_ua: float | None = None
    i_peak_ua: float | None = None
    i_rms_ua: float | None = None
    output_enabled: bool | None = None
    boost: bool | None = None
    output_on_s: float | None = None


@dataclass(slots=True)
class Reading:
    """One sample at its event time, with what its message said and the envelope that applies."""

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
    run_state: str | None = None
    contact_state: str | None = None
    contact_ms: int | None = None
    contact_since_ms: int | None = None
    z_ohm: float | None = None
    level: int | None = None
    mode: str | None = None
    boost: bool | None = None
    grace_until_ms: int = -1
    output_on_ms: float = 0.0
    counter_s: float = 0.0
    model: str | None = None
    hw: str | None = None
    fw: str | None = None
    profile_id: str | None = None
    profile_version: int | None = None
    boot_id: int = 0
    seq: int = 0
    holds: dict[str, list[float]] = field(default_factory=dict)
    clears: dict[str, int] = field(default_factory=dict)
    open: dict[str, Alert] = field(default_factory=dict)

    @property
    def session_id(self) -> str | None:
        return None if self.session.startswith("~") else self.session

    def delivering(self, output_enabled: bool | None) -> bool:
        """`active` of the rules: running with output on. What is unknown counts as the danger."""
        return output_enabled is not False and self.run_state in (None, RunState.RUNNING)

    @property
    def output_on_s(self) -> float:
        """Output time of the session: the device's counter or our own sum, whichever is longer."""
        return max(self.counter_s, self.output_on_ms / 1000)

    def to_json(self) -> dict:
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        state["open"] = {rule: alert.model_dump(mode="json") for rule, alert in self.open.items()}
        return state

    @classmethod
    def from_json(cls, stored: dict) -> "Track":
        opened = {rule: Alert.model_validate(doc) for rule, doc in stored.pop("open").items()}
        return cls(**stored, open=opened)


def observe(track: Track, reading: Reading) -> None:
    """Take a full reading into the state, before the rules look at it."""
    sample = reading.sample
    stream = reading.stream
    if stream == "current":
        changed = (
            track.level is not None
            and (sample.level, sample.mode, sample.boost) != (track.level, track.mode, track.boost)
        )
        if changed:
            track.grace_until_ms = reading.t_ms + GRACE_MS
        track.level, track.mode, track.boost = sample.level, sample.mode, sample.boost
        if sample.output_enabled:
            track.output_on_ms += sample.window_ms
    elif stream == "contact":
        if sample.state != track.contact_state:
            track.contact_since_ms = reading.t_ms
        track.contact_state, track.contact_ms, track.z_ohm = sample.state, reading.t_ms, sample.z_ohm
    elif stream == "runtime":
        if track.run_state is not None and sample.run_state != track.run_state:
            track.grace_until_ms = reading.t_ms + GRACE_MS
        track.run_state = sample.run_state
        track.counter_s = max(track.counter_s, float(sample.output_on_s))
    track.last_ms, track.last_received_ms = reading.t_ms, reading.received_ms
    if (reading.seq, reading.boot_id) == (track.seq, track.boot_id) and track.model is not None:
        return  # another sample of the same message
    track.model, track.hw, track.fw = reading.model, reading.hw, reading.fw
    track.boot_id, track.seq = reading.boot_id, reading.seq
    profile = reading.profile
    track.profile_id = profile.id if profile else None
    track.profile_version = profile.version if profile else None
