"""How fast simulated devices live: simulated seconds for each second of CPU time, no broker, one core.

    .venv/bin/python tests/bench/simulate.py [--devices 100] [--seconds 900]

`in session` counts only time in which a device treats; `busy fleet` is all of it, pauses included.
"""

import argparse
import time

from ingest.simulator.fleet import fleet
from ingest.simulator.household import Rhythm
from ingest.simulator.offline import generate
from schemas.messages import RunState
from schemas.profile import load_profiles
from schemas.topics import Stream

START_MS = 1_795_000_000_000
_ENDED = f'"{RunState.ENDED}"'.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=900)
    asked = parser.parse_args()
    fleet_life = generate(
        fleet(asked.devices, ()), load_profiles(), start_ms=START_MS, duration_s=asked.seconds,
        rhythm=Rhythm.BUSY, first_within_s=10.0,
    )  # fmt: skip
    began_s = time.process_time()
    arrivals = list(fleet_life)
    cpu_s = time.process_time() - began_s
    treated_s = sum(arrival.payload.count(b'"window_ms"') for arrival in arrivals if arrival.stream is Stream.CURRENT)
    octets = sum(len(arrival.payload) for arrival in arrivals)
    sessions = sum(_ENDED in arrival.payload for arrival in arrivals if arrival.stream is Stream.RUNTIME)
    print(f"{asked.devices} devices, {asked.seconds} s, {sessions} sessions, {len(arrivals)} messages, {octets / 1e6:.1f} MB")
    print(f"CPU            {cpu_s:8.2f} s, {cpu_s / treated_s * 1e6:.1f} µs for a device-second of treatment")
    print(f"in session     {treated_s / asked.devices / cpu_s:8.0f} simulated s per CPU s, {asked.devices} devices")
    print(f"busy fleet     {asked.seconds / cpu_s:8.0f} simulated s per CPU s, {asked.devices} devices")


if __name__ == "__main__":
    main()
