"""Simulated devices for tests: lived through without a broker, and read back sample by sample."""

from collections.abc import Iterable

import orjson

from ingest.simulator.devices import Device, Role
from ingest.simulator.envelope import Message
from ingest.simulator.household import Rhythm
from ingest.simulator.models import MODELS
from ingest.simulator.scenario import HEALTHY
from ingest.simulator.scenarios import SCENARIOS, find
from ingest.simulator.truth import Expectation
from schemas.messages import Online, StatusReason
from schemas.profile import Profile, load_profiles
from schemas.topics import Stream

PROFILES = load_profiles()
START_MS = 1_795_000_000_000
LUMABAR, TONEDUO, TONETIP, URSA, GELWAVE = MODELS


def profile_of(model: str) -> Profile:
    profile = PROFILES.for_model(model)
    assert profile is not None
    return profile


def role_of(scenario: int | str, model: str = TONEDUO) -> Role:
    found = find(str(scenario))
    return Role("sim-x-001", found.model or model, found)


def device_of(role: Role, seed: int = 1, rhythm: Rhythm = Rhythm.HOUSEHOLD, start_ms: int = START_MS) -> Device:
    return Device(role, profile_of(role.model), seed, start_ms, rhythm)


def everyone() -> list[Role]:
    """A healthy device of each model, and one of each scenario."""
    healthy = [Role(f"sim-healthy-{model}", model, HEALTHY) for model in MODELS]
    return [*healthy, *(role_of(scenario.number) for scenario in SCENARIOS)]


def lived(device: Device, seconds: float) -> list[Message]:
    """Everything that a device says up to then, births included."""
    messages: list[Message] = []
    boot_id = None
    while device.next_ms < START_MS + seconds * 1000:
        if device.boot_id != boot_id:
            boot_id = device.boot_id
            messages.append(device.status(Online.ONLINE, StatusReason.BIRTH, device.next_ms))
        messages += device.step()
    return messages


def session_of(scenario: int | str, seed: int = 1) -> tuple[list[Message], list[Expectation]]:
    """The messages of a scenario's first session, and what must be noticed of it."""
    role = role_of(scenario)
    device = device_of(role, seed)
    length_s = role.scenario.length_s or profile_of(role.model).session.nominal_s
    messages = lived(device, 60 + length_s + 20)
    return [m for m in messages if session_id(m) is not None], device.injected


def session_id(message: Message) -> str | None:
    return orjson.loads(message.payload)["session_id"]


def samples(messages: Iterable[Message], stream: Stream) -> list[dict]:
    """Every sample of a stream with its device time under `t_ms`, and its session and boot."""
    found = []
    for message in messages:
        if message.stream == stream:
            envelope = orjson.loads(message.payload)
            for sample in envelope["samples"]:
                found.append({
                    "t_ms": envelope["ts_ms"] + sample["dt_ms"], "session_id": envelope["session_id"],
                    "boot_id": envelope["boot_id"], **sample,
                })  # fmt: skip
    return found


def aged(messages: Iterable[Message], stream: Stream) -> list[dict]:
    """Samples of one session with their age in it under `at_s`, s, to a hundredth."""
    messages = list(messages)
    began_ms = next(s["t_ms"] for s in samples(messages, Stream.RUNTIME) if s["run_state"] == "running")
    return [{"at_s": round((s["t_ms"] - began_ms) / 1000, 2), **s} for s in samples(messages, stream)]


def during(found: list[dict], from_s: float, to_s: float) -> list[dict]:
    """The samples after `from_s` up to `to_s`."""
    return [sample for sample in found if from_s + 0.005 < sample["at_s"] <= to_s + 0.005]
