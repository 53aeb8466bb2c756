"""The rows of the fault matrix: how one is written, and how one is run.

    @row(1, "the worker is killed at random moments", lasts_s=60)
    def killed_at_random(trial: Trial) -> None:
        with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
            oracle.devices(12, broker.port)
            oracle.issue(15_000, per_s=500)
            for _ in range(trial.scale(25, 1000)):
                time.sleep(trial.chance.uniform(0, 0.7))
                trial.kill_worker(line)
            oracle.wait_acknowledged()
            trial.judge(line, oracle)

What a trial offers, and what must hold at its end, is in `trial.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.outcome import Outcome
from tests.faults.trial import Trial


@dataclass(frozen=True)
class MatrixRow:
    """One row of the matrix. `lasts_s`: about how long, so that long ones are begun first. `daily`: whether it belongs to
    the short run. `alone`: nothing else may run beside it."""

    number: str
    fault: str
    run: Callable[[Trial], None]
    lasts_s: float
    daily: bool
    alone: bool


ROWS: dict[str, MatrixRow] = {}


def row(
    number: int | str, fault: str, *, lasts_s: float = 15, daily: bool = True, alone: bool = False
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Register a function as a row of RELIABILITY 4; `number` may carry a letter where a row has variants."""

    def register(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
        assert str(number) not in ROWS, f"row {number} is there twice"
        ROWS[str(number)] = MatrixRow(str(number), fault, function, lasts_s, daily, alone)
        return function

    return register


class Absent(Exception):
    """This machine cannot run the row; the sentence says why."""


def run_row(number: str, seed: int, directory: Path, full: bool, minutes: float) -> Outcome:
    """Run a row; whatever goes wrong is in its outcome."""
    found = ROWS[number]
    trial = Trial(number, found.fault, seed, directory, full, minutes)
    began = time.monotonic()
    try:
        found.run(trial)
    except (Absent, pytest.skip.Exception) as reason:
        trial.outcome.absent = str(reason)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a failed wait of tests/servers.py is one; it is the verdict
        notes = "\n".join(getattr(error, "__notes__", ()))
        where = _where(error)
        trial.outcome.violations.append(f"{type(error).__name__}: {error} ({where})\n{notes}".strip())
    trial.outcome.seconds = round(time.monotonic() - began, 1)
    return trial.outcome


def _where(error: BaseException) -> str:
    trace, found = error.__traceback__, ""
    while trace is not None:
        if "tests/faults" in trace.tb_frame.f_code.co_filename:
            found = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
