"""How fast `microcurrent backtest` judges a journal: samples a second, and seconds for a million samples.

A journal is filled through a real core with sessions of 20 minutes, a fault in some of them; then
the command is timed, on one core, under profiles of which each differs from the one in force (so that
every sample is judged twice), and under the profiles in force themselves.

    .venv/bin/python tests/bench/backtest.py [--samples 1000000] [--keep DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import orjson  # noqa: E402

from ingest import observe  # noqa: E402
from ingest.mqtt import Delivery  # noqa: E402
from schemas.topics import Stream  # noqa: E402
from tests.line import HEALTH, RUNTIME, START_MS, Line, deliver, envelope, pulse, sample  # noqa: E402

SESSION_S = 1_200
SESSIONS_EACH = 10
BETWEEN_MS = 86_400_000
BATCH_S = 5
SAMPLES_EACH = SESSION_S * 3 + SESSION_S // BATCH_S + SESSION_S // 60
FAULTS = (None, None, None, "double", "spike", "lead off", "dwell")


def session(device: str, number: int, chance: Random) -> Iterator[Delivery]:
    """One session's messages in order: current at 1 Hz, contact at 2 Hz, both in batches of 5 s, runtime, health."""
    start_ms = START_MS + number * BETWEEN_MS + chance.randrange(10_000_000)
    fault, at_s = chance.choice(FAULTS), chance.randrange(60, SESSION_S - 120)
    seq = 0

    def say(stream: Stream, t_s: int, samples: list[dict]) -> Delivery:
        nonlocal seq
        first = int(samples[0]["dt_ms"])
        ts_ms = start_ms + t_s * 1000 + first
        document = envelope(
            seq, ts_ms, *(s | {"dt_ms": s["dt_ms"] - first} for s in samples),
            boot_id=number, session_id=f"s-{number}", uptime_ms=60_000 + t_s * 1000,
        )  # fmt: skip
        seq += 1
        return deliver(stream, orjson.dumps(document), start_ms + t_s * 1000 + BATCH_S * 1000 + 300, device)

    for t_s in range(0, SESSION_S, BATCH_S):
        in_fault = fault if at_s <= t_s < at_s + 30 else None
        state = RUNTIME | {"elapsed_s": t_s, "output_on_s": t_s, "zone_elapsed_s": t_s % (400 if fault == "dwell" else 180)}
        yield say(Stream.RUNTIME, t_s, [{"dt_ms": 0, **state}])
        if t_s % 60 == 0:
            yield say(Stream.HEALTH, t_s, [{"dt_ms": 10, **HEALTH}])
        currents = []
        for s in range(1, BATCH_S + 1):
            peak_ua = 200 + chance.uniform(-4, 4)
            fields = {"i_peak_ua": peak_ua, "i_rms_ua": 0.7 * peak_ua, "i_dc_ua": chance.uniform(-0.4, 0.4), "v_peak_mv": 8 * peak_ua}
            if in_fault == "double":
                fields |= {"i_peak_ua": 590.0, "i_rms_ua": 570.0 + s / 10, "v_peak_mv": 4720.0}
            if in_fault == "spike" and s == 3:
                fields |= {"i_peak_ua": 900.0, "v_peak_mv": 7200.0}
            currents.append(sample(Stream.CURRENT, s * 1000 - 20, **fields))
        yield say(Stream.CURRENT, t_s, currents)
        off = {"state": "off", "z_ohm": 2e6} if in_fault == "lead off" else {}
        contacts = [sample(Stream.CONTACT, s * 500 - 10, **{"z_ohm": 8000 + chance.uniform(-300, 300)} | off) for s in range(1, 2 * BATCH_S + 1)]
        yield say(Stream.CONTACT, t_s, contacts)
    yield say(Stream.RUNTIME, SESSION_S, [{"dt_ms": 0, **RUNTIME, "run_state": "ended", "end_reason": "completed",
                                           "elapsed_s": SESSION_S, "output_on_s": SESSION_S}])  # fmt: skip


def fill(directory: Path, samples: int) -> None:
    """Through the line, device by device."""
    with Line(directory) as line:
        sessions = max(1, round(samples / SAMPLES_EACH))
        for at in range(sessions):
            device, number = f"tone-{at // SESSIONS_EACH}", at % SESSIONS_EACH
            waiting = list(session(device, number, Random(at)))
            line.run(*waiting, pulse(waiting[-1].received_ms))
        line.run(pulse(START_MS + (SESSIONS_EACH + 1) * BETWEEN_MS))


def other_profiles(directory: Path) -> Path:
    """The shipped profiles, each with a little less current and time."""
    directory.mkdir()
    for path in (ROOT / "schemas" / "profiles").glob("*.toml"):
        said = path.read_text("utf-8").replace("version = 1", "version = 2", 1).replace("i_peak_max_ua = 4", "i_peak_max_ua = 3")
        (directory / path.name).write_text(said.replace("max_s = 240.0", "max_s = 200.0"), "utf-8")
    return directory


def timed(data: Path, profiles: Path) -> dict:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MICROCURRENT_")}
    command = [Path(sysconfig.get_path("scripts")) / "microcurrent", "backtest", "--profiles", profiles, "--data-dir", data, "--json"]
    began, used = time.perf_counter(), os.times()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - began
    cpu_s = os.times().children_user + os.times().children_system - used.children_user - used.children_system
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    samples = found["judged"]["samples"]
    return {
        "samples": samples, "took_s": round(took_s, 2), "cpu_s": round(cpu_s, 2), "samples_per_s": round(samples / took_s),
        "s_per_million": round(took_s / samples * 1e6, 1), "alerts": found["totals"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="keep the journal there, or use the one that is there")
    given = parser.parse_args()
    observe.configure_logging("error")
    with tempfile.TemporaryDirectory() as root:
        data = given.keep or Path(root) / "data"
        if not (data / "journal.db").exists():
            fill(data, given.samples)
        print(json.dumps({"every profile differs": timed(data, other_profiles(Path(root) / "other"))}))
        print(json.dumps({"the same profiles": timed(data, ROOT / "schemas" / "profiles")}))


if __name__ == "__main__":
    main()
