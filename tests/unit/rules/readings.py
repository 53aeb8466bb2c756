"""Readings of each model as they are when nothing is wrong, and what the judge makes of them.

A current sample agrees with itself: r.m.s. follows from peak and duty, voltage from peak and
impedance, direct current from the mode. Times are s since the start.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import sqrt
from typing import Any

import orjson

from ingest.safety.judge import Judged, judge
from ingest.safety.track import Partial, Reading, Track
from schemas.alerts import Alert
from schemas.messages import SAMPLES
from schemas.profile import Profile
from schemas.topics import Stream
from tests.line import DEVICE, PROFILES, START_MS, sample

WAVES: dict[str, dict[str, Any]] = {
    "lumabar-s15": {"mode": "dc", "i_set_ua": 15.0, "freq_hz": 0.0, "pulse_us": 0.0, "duty": 1.0, "z_ohm": 30e3},
    "toneduo-400": {"mode": "alt_burst", "i_set_ua": 400.0, "freq_hz": 8.3, "pulse_us": 60_000.0, "duty": 0.5, "z_ohm": 8e3},
    "tonetip-e": {"mode": "alt_burst", "i_set_ua": 192.0, "freq_hz": 8.3, "pulse_us": 60_000.0, "duty": 0.5, "z_ohm": 8e3},
    "ursa-adapt-10": {"mode": "biphasic", "i_set_ua": 390.0, "freq_hz": 100.0, "pulse_us": 1_000.0, "duty": 0.2, "z_ohm": 8e3},
    "gelwave-multi": {"mode": "biphasic", "i_set_ua": 500.0, "freq_hz": 50.0, "pulse_us": 400.0, "duty": 0.5, "z_ohm": 8e3},
}
"""Each model at its highest level."""

DIRECT = {"mode": "dc", "i_set_ua": 100.0, "freq_hz": 0.0, "pulse_us": 0.0, "duty": 1.0}
"""A direct-current program of the GelWave."""

MODELS = tuple(WAVES)
TONE, LUMABAR, TIP, URSA, GELWAVE = "toneduo-400", "lumabar-s15", "tonetip-e", "ursa-adapt-10", "gelwave-multi"
UNKNOWN = "unheard-of"

Case = tuple[Any, ...]


def profile_of(model: str) -> Profile | None:
    return PROFILES.for_model(model)


def limits_of(model: str) -> Any:
    profile = profile_of(model)
    assert profile is not None
    return profile.limits


def reading(stream: Stream, at_s: float, model: str = TONE, boot_id: int = 7, late_s: float = 0, **fields: Any) -> Reading:
    said = SAMPLES[stream].model_validate_json(orjson.dumps(sample(stream, **fields)))
    t_ms = START_MS + round(at_s * 1000)
    received_ms = t_ms + round(late_s * 1000)
    return Reading(t_ms, stream.value, said, received_ms, boot_id, seq_at(at_s), model, "B", "2.3.1", profile_of(model))


def seq_at(at_s: float) -> int:
    return round(at_s * 100) + 10_000


def agreeing(model: str, z_ohm: float | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a current sample of a model; what is not given follows from the rest."""
    said = {**WAVES.get(model, WAVES[TONE]), **fields}
    own_ohm = said.pop("z_ohm")
    root = sqrt(said["duty"])
    if "i_peak_ua" not in said:
        said["i_peak_ua"] = said["i_rms_ua"] / root if "i_rms_ua" in said else said["i_set_ua"]
    said.setdefault("i_rms_ua", said["i_peak_ua"] * root)
    said.setdefault("i_dc_ua", said["i_rms_ua"] if said["mode"] == "dc" else 0.0)
    said.setdefault("v_peak_mv", said["i_peak_ua"] * (z_ohm or own_ohm) / 1000)
    return said


def current(at_s: float, model: str = TONE, z_ohm: float | None = None, **fields: Any) -> Reading:
    boot_id, late_s = fields.pop("boot_id", 7), fields.pop("late_s", 0)
    return reading(Stream.CURRENT, at_s, model, boot_id, late_s, **agreeing(model, z_ohm, fields))


def contact(at_s: float, state: str = "good", model: str = TONE, **fields: Any) -> Reading:
    wave = WAVES.get(model, WAVES[TONE])
    z_ohm = {"off": 2e6, "short": 80.0, "marginal": 100e3, "poor": 300e3}.get(state, wave["z_ohm"])
    return reading(Stream.CONTACT, at_s, model, **{"state": state, "z_ohm": z_ohm, "z_hz": wave["freq_hz"] or 10.0, **fields})


def runtime(at_s: float, model: str = TONE, **fields: Any) -> Reading:
    on_s = fields.get("output_on_s", 0)
    return reading(Stream.RUNTIME, at_s, model, **{"elapsed_s": max(on_s, fields.get("zone_elapsed_s", 0)), **fields})


def health(at_s: float, model: str = TONE, **fields: Any) -> Reading:
    return reading(Stream.HEALTH, at_s, model, **fields)


def identity(at_s: float, model: str = TONE, **fields: Any) -> Reading:
    return reading(Stream.IDENTITY, at_s, model, **fields)


def refused(at_s: float, model: str = TONE, **fields: Any) -> Reading:
    """What could be read of a sample whose message was refused."""
    t_ms = START_MS + round(at_s * 1000)
    return Reading(
        t_ms, "partial", Partial(**fields), t_ms, 7, seq_at(at_s), model, "B", "2.3.1", profile_of(model), partial=True
    )


def touching(until_s: float, from_s: float = 0, model: str = TONE, **fields: Any) -> list[Reading]:
    """Contact at 2 Hz, a quarter of a second before each reading of current."""
    return [contact(from_s - 0.25 + n / 2, model=model, **fields) for n in range(int(2 * (until_s - from_s)) + 1)]


def seconds(count: int, make: Callable[[float], Reading], from_s: float = 0, step_s: float = 1) -> list[Reading]:
    return [make(from_s + n * step_s) for n in range(count)]


def judged(readings: Iterable[Reading], track: Track | None = None) -> list[Alert]:
    """All alerts but those on silence, oldest first."""
    track, into = track or Track(DEVICE, "s-1"), Judged()
    for one in sorted(readings, key=lambda r: r.order):
        judge(track, one, into)
    return sorted((a for a in into.alerts.values() if a.rule != "telemetry-gap"), key=lambda a: (a.onset_ms, a.rule))


def spans(readings: Iterable[Reading], track: Track | None = None) -> list[Case]:
    """(rule, severity, onset, opened, closed, reason) of each alert."""
    return [
        (a.rule, a.severity, since(a.onset_ms), since(a.opened_ms), since(a.closed_ms), a.close_reason)
        for a in judged(readings, track)
    ]


def of(rule: str, readings: list[Reading]) -> list[Any]:
    """(severity, onset, opened, closed) of a rule's alerts."""
    return [a[1:5] for a in spans(readings) if a[0] == rule]


def fires(readings: Iterable[Reading], track: Track | None = None) -> list[tuple[str, str]]:
    return [(a.rule, a.severity) for a in judged(readings, track)]


def told(readings: Iterable[Reading]) -> list[Case]:
    """(rule, severity, value, limit, unit, detail) of each alert."""
    return [(a.rule, a.severity, a.value, a.limit, a.unit, a.detail) for a in judged(readings)]


def severity_of(rule: str, readings: Iterable[Reading]) -> int:
    """The rank of the gravest alert of a rule; -1 for none."""
    return max((a.severity.rank if hasattr(a.severity, "rank") else ["info", "warning", "critical"].index(a.severity)
                for a in judged(readings) if a.rule == rule), default=-1)  # fmt: skip


def with_profile(readings: Iterable[Reading], **tables: dict[str, Any]) -> list[Reading]:
    """The same, of a model whose profile says something else."""
    found = list(readings)
    known = found[0].profile
    assert known is not None
    said = known.model_dump()
    other = Profile.model_validate({**said, **{table: {**said[table], **keys} for table, keys in tables.items()}})
    return [replace(one, profile=other) for one in found]


def since(t_ms: int | None) -> float | None:
    return None if t_ms is None else (t_ms - START_MS) / 1000


def above(value: float) -> float:
    return value * (1 + 1e-9)


def below(value: float) -> float:
    return value * (1 - 1e-9)
