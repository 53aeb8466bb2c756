"""The fault matrix: `python tests/faults/run.py [--seed N] [--rows 3,4] [--full] [--list]`.

Each row runs in a process of its own, a few at a time. Prints a table at the end; ends with 1 if anything was violated.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.matrix import ROWS, run_row  # noqa: E402
from tests.faults.outcome import Outcome  # noqa: E402
from tests.system.line import MICROCURRENT, PREFIX  # noqa: E402

MODULES = ("rows_worker", "rows_broker", "rows_network", "rows_store", "rows_messages", "rows_pressure", "rows_soak")
AT_ONCE = 3


MEANING = """# Under faults

Written by `make faults ARGS="--markdown docs/faults.md"`. Each row is one of the fault matrix: broker, worker, store or
network are killed, cut, starved or lied to, while an oracle in a process of its own issues messages and notes each that
is acknowledged. Then the faults end, and a judge compares the oracle's ledger with the store and the quarantine, field by
field. *lost*: acknowledged, and nowhere. *doubled*: stored twice, or stored and in quarantine. *spurious*: there, and
never issued. *duplicates*: sent again and recognised. A row *holds* if all three are 0, the ledger balanced in every
sample taken meanwhile, a fresh message went all the way afterwards, the gaps that are reported are those that exist,
memory stayed below 300 MB, and the fault really happened. The seed repeats what was drawn. Row 30, power that fails below
SQLite, is `make power-cuts`; a mixed hour is `make faults-soak MINUTES=60`, and every row at its full length `ARGS=--full`.
"""


def load() -> None:
    for name in MODULES:
        if (ROOT / "tests" / "faults" / f"{name}.py").exists():
            __import__(f"tests.faults.{name}")


def order(number: str) -> tuple[int, str]:
    digits = "".join(c for c in number if c.isdigit())
    return int(digits), number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="repeat what was drawn with this seed")
    parser.add_argument("--rows", help="only these, with commas: 1,3,9")
    parser.add_argument("--full", action="store_true", help="every row at its full length, hours instead of minutes")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long row 46, the soak, lasts")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="rows that run side by side")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--json", action="store_true", help="the outcomes as JSON")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too, with what it means")
    parser.add_argument("--keep", action="store_true", help="leave the files of rows that failed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    load()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background: what was started is ended
    if options.one:
        outcome = run_row(options.one, options.seed, options.directory, options.full, options.minutes)
        print(json.dumps(outcome.to_json()))
        return 0
    chosen = options.rows.split(",") if options.rows else [n for n, r in ROWS.items() if r.daily or options.full]
    if unknown := [n for n in chosen if n not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(sorted(ROWS, key=order))}")
    if options.list:
        for number in sorted(ROWS, key=order):
            print(f"{number:>4}  {ROWS[number].fault}{'' if ROWS[number].daily else '  (only with --full or by number)'}")
        return 0
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}; repeat with ARGS=\"--seed {seed}{' --rows ' + options.rows if options.rows else ''}\"", file=sys.stderr, flush=True)
    began = time.monotonic()
    outcomes = run_all(chosen, seed, options)
    if options.json:
        print(json.dumps({"seed": seed, "rows": [o.to_json() for o in outcomes]}))
    else:
        print(table(outcomes, seed, time.monotonic() - began))
    return 0 if all(o.ok or o.absent for o in outcomes) and complete(outcomes, not options.rows) else 1


def run_all(chosen: list[str], seed: int, options: argparse.Namespace) -> list[Outcome]:
    """Long rows first; those that must be alone at the end."""
    waiting = sorted(chosen, key=lambda n: (ROWS[n].alone, -ROWS[n].lasts_s))
    running: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    outcomes: dict[str, Outcome] = {}
    top, began = Path(tempfile.mkdtemp(prefix="faults-")), time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < (1 if ROWS[waiting[0]].alone else options.at_once) and not any(ROWS[n].alone for n in running):
                number = waiting.pop(0)
                directory = top / number
                argv = [sys.executable, "-P", __file__, "--one", number, "--seed", str(seed), "--directory", str(directory), "--minutes", str(options.minutes)]
                output = (top / f"{number}.out").open("w+")
                running[number] = (subprocess.Popen(argv + ["--full"] * options.full, stdout=output, text=True), directory)
            time.sleep(0.1)
            for number, (process, directory) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[number]
                said = (top / f"{number}.out").read_text().strip().splitlines()
                outcome = Outcome(**json.loads(said[-1])) if process.returncode == 0 and said else None
                if outcome is None:
                    outcome = Outcome(number, ROWS[number].fault, seed, violations=[f"the row itself ended with code {process.returncode}"])
                outcomes[number] = outcome
                said = "not run" if outcome.absent else "holds" if outcome.ok else "VIOLATED"
                print(f"row {number:>4} {said:>8}  {outcome.seconds:6.1f} s  {outcome.fault}", file=sys.stderr, flush=True)
                for sentence in outcome.violations:
                    print("          " + sentence.replace("\n", "\n          "), file=sys.stderr, flush=True)
                if options.markdown:
                    some = [outcomes[n] for n in sorted(outcomes, key=order)]
                    left = len(waiting) + len(running)
                    options.markdown.write_text(f"{MEANING}\n{table(some, seed, time.monotonic() - began)}\n" + f"\n{left} rows had not ended yet.\n" * bool(left))
                if outcome.ok or not options.keep:
                    shutil.rmtree(directory, ignore_errors=True)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
        if options.keep:
            print(f"files of what failed: {top}", file=sys.stderr)
        else:
            shutil.rmtree(top, ignore_errors=True)
    return [outcomes[number] for number in sorted(outcomes, key=order)]


def complete(outcomes: list[Outcome], whole: bool) -> bool:
    """Of a whole run: enough kills and messages, and every fail-point at least once."""
    if not whole:
        return True
    problems = []
    if (kills := sum(o.kills for o in outcomes)) < 100:
        problems.append(f"only {kills} kills")
    if (messages := sum(o.messages for o in outcomes)) < 200_000:
        problems.append(f"only {messages} messages")
    if missed := places() - {name for o in outcomes for name in o.reached}:
        problems.append(f"never reached: {', '.join(sorted(missed))}")
    for problem in problems:
        print(f"the run proves too little: {problem}", file=sys.stderr)
    return not problems


def places() -> set[str]:
    """Every fail-point that the worker has, as it names them itself to somebody who asks for one that it has not."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    done = subprocess.run([MICROCURRENT, "worker"], env=env | {"MICROCURRENT_FAILPOINT": "?:kill"}, capture_output=True, text=True, timeout=60, check=False)
    _, known, names = " ".join(done.stderr.split()).partition("the places are ")
    if not known:
        raise SystemExit(f"the worker does not name its fail-points: {done.stderr}")
    return {name.strip(" .") for name in names.split(",")}


def table(outcomes: list[Outcome], seed: int, seconds: float) -> str:
    heads = ("row", "fault", "runs", "kills", "messages", "lost", "doubled", "spurious", "duplicates", "verdict")
    lines = ["| " + " | ".join(heads) + " |", "|--:|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for o in outcomes:
        verdict = f"not run: {o.absent}" if o.absent else "holds" if o.ok else "**violated**"
        cells: list[Any] = [o.number, o.fault, o.runs, o.kills, o.messages, o.lost, o.doubled, o.spurious, o.duplicates, verdict]
        lines.append("| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |")
    total = [sum(getattr(o, name) for o in outcomes) for name in ("runs", "kills", "messages", "lost", "doubled", "spurious", "duplicates")]
    lines.append("| | together | " + " | ".join(f"{n:,}" for n in total) + " | |")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    serving = sorted(s for o in outcomes for s in o.serving_after_s)
    said = [
        "",
        f"seed {seed}, {seconds:.0f} s, {os.cpu_count()} cores; ledger equation true in {sum(o.samples for o in outcomes):,} samples; "
        f"RSS at most {max((o.rss_mb for o in outcomes), default=0):.0f} MB",
        f"processor time of it all: {used.ru_utime + used.ru_stime:.0f} s; load average {os.getloadavg()[1]:.1f}, other programs on this machine included",
    ]
    if serving:
        p50, p99 = serving[len(serving) // 2], serving[min(len(serving) - 1, int(len(serving) * 0.99))]
        said.append(f"restart → accepting, of {len(serving)} kills: p50 {p50:.2f} s, p99 {p99:.2f} s, at most {serving[-1]:.2f} s")
    reached: dict[str, int] = {}
    for o in outcomes:
        for name, times in o.reached.items():
            reached[name] = reached.get(name, 0) + times
    if reached:
        said.append(f"fail-points: {len(reached)} places, {sum(reached.values())} times: " + ", ".join(f"{n} {t}" for n, t in sorted(reached.items())))
    return "\n".join(lines + said)


if __name__ == "__main__":
    sys.exit(main())
