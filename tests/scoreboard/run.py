"""Every scenario through the real line, seed by seed: was each danger found, and nothing else?

For each seed and scenario a small simulated fleet lives; what reaches the broker goes through a
real core on a real journal, in the order and at the (simulated) times of arrival. Prints one row
for each rule and ends with 1 on any miss or false alarm, or a message unaccounted for.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.progress import Progress

from ingest import observe
from ingest.safety.rules import RULES
from ingest.simulator.devices import Role
from ingest.simulator.fleet import QUICK, fleet, wish
from ingest.simulator.models import MODELS
from ingest.simulator.offline import Arrival, generate
from ingest.simulator.scenario import HEALTHY, Scenario
from ingest.simulator.scenarios import SCENARIOS, find
from ingest.simulator.score import Detail, Verdict, score, score_by_rule
from tests.line import IN_MEMORY, PROFILES, START_MS, Line, deliver, pulse

PULSE_MS = 5_000
IDLE_PULSE_MS = 60_000
LONG_AFTER_MS = 600_000
SETTLE_EVERY = 200
PLAIN_S = 1_800.0


@dataclass(frozen=True)
class Trial:
    """One fleet and how long it lives, s."""

    name: str
    roles: tuple[Role, ...]
    duration_s: float


@dataclass
class Outcome:
    trial: str
    seed: int
    details: list[Detail] = field(default_factory=list)
    messages: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    balanced: bool = True


def trials(only: Sequence[str] = ()) -> list[Trial]:
    """Every scenario on a fleet of its own, every model in good health, and two composed fleets."""
    found = [Trial(scenario.key, _alone(scenario), _duration_s(scenario)) for scenario in SCENARIOS]
    found += [Trial(f"healthy-{model}", (Role(f"well-{model}", model, HEALTHY, "L00-26", "2.3.1"),), 4 * 3_600.0) for model in MODELS]
    found.append(Trial("all-at-once", tuple(fleet(80, QUICK)), 2 * PLAIN_S))
    mixed = fleet(200, (), (wish("3:gel-dry-out"), wish("lot:L03-26:unit-bug")))
    found.append(Trial("200-devices-3-gel-dry-out-one-lot-unit-bug", tuple(mixed), 900.0))
    return [trial for trial in found if not only or trial.name in only]


def _alone(scenario: Scenario) -> tuple[Role, ...]:
    model = scenario.model or "toneduo-400"
    count = 6 if scenario.lot else 1
    ill = tuple(Role(f"{scenario.key}-{n}", model, scenario, scenario.lot or "L00-26", f"2.3.{n}") for n in range(count))
    well = tuple(Role(f"well-{n}", model, HEALTHY, "L01-26", "2.2.9") for n in range(4 if scenario.lot else 0))
    return ill + well


def _duration_s(scenario: Scenario) -> float:
    course = scenario.course
    return course.first_within_s + (course.sessions - 1) * course.every_s + (scenario.length_s or 1_200) + PLAIN_S


def run_trial(name: str, seed: int) -> Outcome:
    """One fleet's life through the line."""
    observe.configure_logging("error")
    (trial,) = trials((name,))
    began_s = time.process_time()
    directory = Path(tempfile.mkdtemp(dir=IN_MEMORY))
    try:
        made = generate(trial.roles, PROFILES, seed, start_ms=START_MS, duration_s=trial.duration_s)
        outcome = Outcome(trial.name, seed)
        with Line(directory / "journal") as line:
            last_ms = START_MS
            for at_ms, batch in in_batches(iter(made)):
                line.clock.ms = at_ms
                line.run(*(deliver(a.stream, a.payload, a.received_ms, a.device_id) for a in batch), pulse(at_ms))
                outcome.messages += len(batch)
                last_ms = at_ms
                line.feed.said.clear()
                line.feed.acknowledged.clear()
                if outcome.messages % SETTLE_EVERY < len(batch):
                    line.settle_store()
            for after_ms in range(PULSE_MS, LONG_AFTER_MS, 30_000):
                line.clock.ms = last_ms + after_ms
                line.run(pulse(last_ms + after_ms))
            verdict = score(made.truth, line.alerts(), last_ms + LONG_AFTER_MS)
            outcome.details = list(verdict.details)
            outcome.balanced = line.journal.ledger().balanced and not line.journal.quarantined or _expected_refusals(trial)
        outcome.simulated_s = trial.duration_s * len(trial.roles)
        outcome.cpu_s = time.process_time() - began_s
        return outcome
    finally:
        shutil.rmtree(directory)


def _expected_refusals(trial: Trial) -> bool:
    """A unit mistaken may exceed what the contract lets in."""
    return any(role.scenario.key == "unit-bug" for role in trial.roles)


def in_batches(arrivals: Iterator[Arrival]) -> Iterator[tuple[int, list[Arrival]]]:
    """What arrives within one pulse, with the time at its end; long pauses are passed in larger steps."""
    batch: list[Arrival] = []
    until_ms = START_MS + PULSE_MS
    for arrival in arrivals:
        while arrival.received_ms > until_ms:
            if batch or arrival.received_ms - until_ms <= IDLE_PULSE_MS:
                yield until_ms, batch
                batch = []
                until_ms += PULSE_MS
            else:
                until_ms = max(until_ms + PULSE_MS, min(arrival.received_ms, until_ms + 10 * IDLE_PULSE_MS))
                yield until_ms - 1, []
        batch.append(arrival)
    yield until_ms, batch


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=20, help="how many seeds, from --first on")
    options.add_argument("--first", type=int, default=1, help="the first seed; a seed replays")
    options.add_argument("--only", default="", help="trials by name, with commas")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options.add_argument("--markdown", type=Path, help="write the table to this file as well")
    options.add_argument("--json", action="store_true", help="answer with JSON")
    chosen = options.parse_args()
    only = [name for name in chosen.only.split(",") if name]
    for name in only:
        if name not in {trial.name for trial in trials()}:
            find(name)  # says what is near
    names = [trial.name for trial in trials(only)]
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    began_s = time.monotonic()
    outcomes = _run_all(names, seeds, chosen.jobs)
    return _report(outcomes, len(seeds), time.monotonic() - began_s, chosen)


def _run_all(names: list[str], seeds: range, jobs: int) -> list[Outcome]:
    console = Console(stderr=True)
    outcomes = []
    with ProcessPoolExecutor(jobs) as pool, Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("trials", total=len(names) * len(seeds))
        for done in as_completed([pool.submit(run_trial, name, seed) for seed in seeds for name in names]):
            outcomes.append(done.result())
            progress.advance(bar)
    return sorted(outcomes, key=lambda outcome: (outcome.seed, outcome.trial))


def _report(outcomes: list[Outcome], seeds: int, wall_s: float, chosen: argparse.Namespace) -> int:
    details = [detail for outcome in outcomes for detail in outcome.details]
    rows = {row.rule: row for row in score_by_rule(details)}
    lines = ["| rule | expected | raised | missed | false | delay p50, s | delay max, s |", "|---|---:|---:|---:|---:|---:|---:|"]
    for rule in [*(r.id for r in RULES), *sorted(set(rows) - {r.id for r in RULES})]:
        row = rows.get(rule)
        shown = [f"{v:.1f}" if v is not None else "–" for v in (row.delay_p50_s, row.delay_max_s)] if row else ["–", "–"]
        counts = [row.expected, row.raised, row.missed, row.false] if row else [0, 0, 0, 0]
        lines.append(f"| {rule} | {' | '.join(map(str, counts))} | {' | '.join(shown)} |")
    missed, false = sum(r.missed for r in rows.values()), sum(r.false for r in rows.values())
    expected, raised = sum(r.expected for r in rows.values()), sum(r.raised for r in rows.values())
    unbalanced = [outcome.trial for outcome in outcomes if not outcome.balanced]
    messages = sum(outcome.messages for outcome in outcomes)
    lived_s, cpu_s = sum(o.simulated_s for o in outcomes), sum(o.cpu_s for o in outcomes)
    summary = (
        f"{len({o.trial for o in outcomes})} fleets, {seeds} seeds, {messages} messages, {lived_s / 3600:.0f} device hours in {wall_s:.0f} s "
        f"({lived_s / cpu_s:.0f} device seconds per CPU second): {expected} expected, {raised} raised, {missed} missed, {false} false"
    )
    table = "\n".join([*lines, "", summary + "."])
    if chosen.json:
        print(json.dumps({"rules": {n: r.__dict__ if hasattr(r, "__dict__") else r._asdict() for n, r in rows.items()}, "missed": missed, "false": false}))
    else:
        print(table)
    if chosen.markdown:
        chosen.markdown.write_text(table + "\n")
    for outcome in outcomes:
        for detail in outcome.details:
            if detail.verdict is not Verdict.FOUND:
                print(f"seed {outcome.seed} {outcome.trial}: {detail.verdict} {detail.rule} ({detail.severity}) on {detail.device_id} {detail.session_id or ''}", file=sys.stderr)
    for trial in unbalanced:
        print(f"{trial}: the ledger does not balance, or messages were refused", file=sys.stderr)
    return 1 if missed or false or unbalanced else 0


if __name__ == "__main__":
    sys.exit(main())
