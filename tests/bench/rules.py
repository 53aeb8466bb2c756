"""What each rule costs: CPU time of its conditions on a healthy session, as a share of all judging.

Prints a Markdown table. A calm current sample is told at one look, so its rules are not asked one
by one; the column says what they would cost.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ingest.admit import readings
from ingest.decode import decode
from ingest.safety import judge as judging
from ingest.safety.judge import Judged, judge
from ingest.safety.rules import OF_STREAM, RULES
from ingest.safety.track import Reading, Track
from ingest.simulator.devices import Role
from ingest.simulator.offline import generate
from ingest.simulator.scenario import HEALTHY
from tests.line import PROFILES, START_MS

ROUNDS = 5


def session() -> list[Reading]:
    """The readings of a healthy two-sphere device's session, in event order."""
    roles = [Role("d-0", "toneduo-400", HEALTHY)]
    found = []
    for arrival in generate(roles, PROFILES, 1, start_ms=START_MS, duration_s=900.0, first_within_s=30.0):
        if arrival.stream.value in OF_STREAM:
            decoded = decode(arrival.topic, arrival.payload)
            if decoded.message.session_id:
                found += readings(decoded, decoded.message.ts_ms, arrival.received_ms, PROFILES)
    return sorted(found, key=lambda reading: reading.order)


def cpu_us(work: Callable[[], None], times: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best / times * 1e6


def judged(found: list[Reading]) -> Track:
    track = Track("d-0", "s-1")
    for reading in found:
        judge(track, reading, Judged())
    return track


def main() -> None:
    found = session()
    track = judged(found)
    all_us = cpu_us(lambda: judged(found), len(found))
    looked, judging.is_calm = judging.is_calm, lambda *_: False
    asked_us = cpu_us(lambda: judged(found), len(found))
    judging.is_calm = looked
    of_stream = {stream: [r for r in found if r.stream == stream] for stream in OF_STREAM}
    print(f"Judging a reading costs {all_us:.1f} µs of CPU on average; {asked_us:.1f} µs if calm current samples were asked rule by rule.")
    print()
    print("| rule | reads | µs a reading, if asked |")
    print("|---|---|---:|")
    for rule in RULES:
        for stream, rows in OF_STREAM.items():
            limbs = next((limbs for each, limbs in rows if each is rule), ())
            some = of_stream[stream][:500]
            if not limbs or not some:
                continue
            limits = some[0].profile.limits
            conditions = [limb.condition for _, limb in limbs]

            def ask(conditions: list = conditions, some: list = some, limits: object = limits) -> None:
                for reading in some:
                    for condition in conditions:
                        condition(track, reading, limits)

            print(f"| {rule.id} | {stream} | {cpu_us(ask, len(some)):.2f} |")


if __name__ == "__main__":
    main()
