"""`microcurrent simulate`: a plan for the simulator from what a person asked for."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingest.embedded import broker
from ingest.errors import Mistake
from ingest.settings import Broker, Settings
from ingest.simulator import Plan, Progress, Rhythm, Role, chosen, fleet, run_simulation, wish
from ingest.simulator.models import MODELS
from ingest.simulator.scenarios import SCENARIOS


def simulate(
    settings: Settings,
    host: str | None,
    port: int | None,
    protocol: str,
    devices: int,
    scenarios: str | None,
    wishes: Sequence[str],
    models: Sequence[str],
    seed: int,
    speed: float,
    start_ms: int | None,
    seconds: float | None,
    truth: Path | None,
    clock_file: Path | None,
    credentials: Path | None,
    busy: bool,
    first_within_s: float,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run it; returns the report as plain data. Why devices cannot connect is told when it is another reason than before."""
    if protocol not in ("3.1.1", "5"):
        raise Mistake(f"--protocol {protocol}: use 3.1.1 or 5")
    roles = fleet_of(devices, scenarios, wishes, models)
    passwords: dict[str, str] = {}
    if credentials is not None:
        passwords = _read(credentials)
    elif host is None and settings.broker is Broker.EMBEDDED:
        passwords = broker.simulated_passwords(settings)
        lacking = [role.device_id for role in roles if role.device_id not in passwords]
        if lacking:
            raise Mistake(f"device {lacking[0]} has no password at the embedded broker; use 'microcurrent demo', or --credentials")
        host, port = "127.0.0.1", port or broker.worker_endpoint(settings).port
    plan = Plan(
        host=host or settings.mqtt_host,
        port=port or settings.mqtt_port,
        credentials=passwords,
        start_ms=start_ms if start_ms is not None else time.time_ns() // 1_000_000,
        protocol=protocol,
        roles=roles,
        seed=seed,
        speed=speed,
        duration_s=seconds,
        rhythm=Rhythm.BUSY if busy else Rhythm.HOUSEHOLD,
        first_within_s=first_within_s,
        truth=truth,
        clock_file=clock_file,
        pace=clock_file is not None,
    )
    told = ""

    def progress(now: Progress) -> None:
        nonlocal told
        if now.problem and now.problem != told:
            tell(now.problem)
        told = now.problem

    return asdict(run_simulation(plan, stop, progress))


def fleet_of(devices: int, scenarios: str | None, wishes: Sequence[str] = (), models: Sequence[str] = ()) -> list[Role]:
    """The fleet that a person asked for in words; a wish alone leaves all other devices healthy."""
    text = scenarios or ("none" if wishes else "all")
    try:
        known = chosen(text)
    except ValueError as error:
        raise Mistake(f"--scenarios {text}: {error}") from error
    granted = []
    for words in wishes:
        try:
            granted.append(wish(words))
        except ValueError as error:
            raise Mistake(f"--with {words}: {error}") from error
    try:
        return fleet(devices, known, granted, models or MODELS)
    except ValueError as error:
        raise Mistake(f"this fleet cannot be made: {error}") from error


def scenario_rows() -> list[list[str]]:
    """Number, key, name and what must be noticed, of every scenario."""
    return [
        [str(s.number), s.key, s.name, ", ".join(dict.fromkeys(e.rule for e in s.fires if e.required))] for s in SCENARIOS
    ]


def _read(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Mistake(f"{path}: cannot read passwords by device id from it ({error})") from error
