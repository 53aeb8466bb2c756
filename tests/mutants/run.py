"""Seeded bugs: is each of them caught by the test that is named for it?

Works on copies of the tree. In each copy one bug at a time is put in, its tests are run and must fail, and it is taken
out again. Before that the same tests run without any bug and must pass. Ends with 1 if a bug survived.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from tests.mutants.bugs import BUGS, Bug  # noqa: E402

AT_ONCE = 2
LONGEST_S, LONGEST_WITHOUT_S = 240.0, 600.0
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".hypothesis", ".pytest_cache", "__pycache__", "*.egg-info", "build", "dist", "secrets")

SEARCHING = {"MICROCURRENT_TEST_PROPERTIES": "first-failure", "MICROCURRENT_TEST_CRASHES": "1000"}
"""Properties are tried longer than in the ordinary tests, and end at what they find first."""

RUNNING: set[int] = set()
WORKSPACE = Path(tempfile.gettempdir()) / f"mutants-{os.getpid()}"

CAUGHT, SURVIVED, UNFIT = "caught", "survived", "unfit"


@dataclass(frozen=True)
class Verdict:
    """`unfit`: the bug could not be tried, for example because its tests were skipped or could not even be collected."""

    bug: Bug
    what: str
    seconds: float
    said: str = ""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make mutants ARGS=…", description=__doc__)
    arguments.add_argument("names", nargs="*", metavar="BUG", help="only these")
    arguments.add_argument("--list", action="store_true", help="name the bugs, and run nothing")
    arguments.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as well; of bugs that are not tried, their last verdict stays")
    arguments.add_argument("--verbose", action="store_true", help="show what the tests said of a bug that was not caught")
    given = arguments.parse_args()
    if given.list:
        for bug in BUGS:
            print(f"{bug.name:32} {bug.does}")
        return 0
    unknown = set(given.names) - {bug.name for bug in BUGS}
    if unknown:
        print(f"no such bug: {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    chosen = [bug for bug in BUGS if not given.names or bug.name in given.names]
    unfit = [f"{bug.name}: {problem}" for bug in chosen for problem in bug.misfits(ROOT)]
    if unfit:
        print("\n".join(unfit), file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    WORKSPACE.mkdir(mode=0o700)
    try:
        copies = [_copy(WORKSPACE / str(n)) for n in range(min(AT_ONCE, len(chosen)))]
        healthy = _try_without(copies[0], {test for bug in chosen for test in bug.caught_by})
        if healthy:
            print(f"without any bug, these tests do not pass:\n{healthy}", file=sys.stderr)
            return 1
        verdicts = _try_all(chosen, copies)
    finally:
        shutil.rmtree(WORKSPACE)
    _show(verdicts, given.verbose)
    if given.markdown:
        before = given.markdown.read_text() if given.markdown.exists() else ""
        given.markdown.write_text(markdown(verdicts, before))
    return 0 if all(verdict.what == CAUGHT for verdict in verdicts) else 1


def _copy(into: Path) -> Path:
    shutil.copytree(ROOT, into, ignore=LEFT_OUT, symlinks=True)
    said = _run(into, [sys.executable, "-P", "-c", "import ingest, schemas; print(ingest.__file__, schemas.__file__)"])
    if said.stdout.split() != [str(into / "ingest/__init__.py"), str(into / "schemas/__init__.py")]:
        raise SystemExit(f"the copy would run the program of {said.stdout}{said.stderr}")
    return into


def _run(copy: Path, argv: Sequence[str], longest_s: float = LONGEST_S, **more_env: str) -> subprocess.CompletedProcess[str]:
    """In the copy, with its program. What is killed for taking too long has ended with code -9."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MICROCURRENT_")}
    env |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"} | more_env
    with subprocess.Popen(argv, cwd=copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        RUNNING.add(process.pid)
        try:
            out, err = process.communicate(timeout=longest_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        finally:
            RUNNING.discard(process.pid)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _end(*_: object) -> None:
    """Interrupted: what was started ends with this process."""
    for pid in list(RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    os._exit(130)


def _pytest(copy: Path, tests: Iterable[str], *more: str, longest_s: float = LONGEST_S, **more_env: str) -> subprocess.CompletedProcess[str]:
    ids = [f"tests/{test}" for test in sorted(tests)]
    return _run(copy, [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", *more, *ids], longest_s, **more_env)


def _try_without(copy: Path, tests: set[str]) -> str:
    """What failed with no bug in it; empty if all passed."""
    done = _pytest(copy, tests, f"-n{AT_ONCE}", longest_s=LONGEST_WITHOUT_S)
    if done.returncode != 0:
        return done.stdout + done.stderr
    print(f"without any bug: {done.stdout.strip().splitlines()[-1]}", flush=True)
    return ""


def _try_all(bugs: Sequence[Bug], copies: Sequence[Path]) -> list[Verdict]:
    free: SimpleQueue[Path] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(bug: Bug) -> Verdict:
        copy = free.get()
        try:
            verdict = _try(bug, copy)
        finally:
            free.put(copy)
        print(f"{verdict.what:9} {verdict.seconds:6.1f} s  {bug.name}", flush=True)
        return verdict

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(one, bugs))


def _try(bug: Bug, copy: Path) -> Verdict:
    began = time.monotonic()
    kept = bug.put_into(copy)
    try:
        done = _pytest(copy, bug.caught_by, **SEARCHING)
    finally:
        for path, text in kept.items():
            path.write_text(text)
    failed = {line.split()[1].removeprefix("tests/").partition("[")[0] for line in done.stdout.splitlines() if line.startswith("FAILED ")}
    if done.returncode == 1 and failed >= set(bug.caught_by):
        what = CAUGHT
    else:
        what = SURVIVED if done.returncode in (0, 1) and "skipped" not in done.stdout else UNFIT
    return Verdict(bug, what, time.monotonic() - began, done.stdout + done.stderr)


def _show(verdicts: Sequence[Verdict], verbose: bool) -> None:
    table = Table("bug", "file", "test", "verdict", "s", title=f"{len(verdicts)} seeded bugs")
    for v in verdicts:
        style = "" if v.what == CAUGHT else "bold red"
        table.add_row(v.bug.name, v.bug.file, "\n".join(v.bug.caught_by), v.what, f"{v.seconds:.1f}", style=style)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if verbose:
        for v in verdicts:
            if v.what != CAUGHT:
                print(f"\n--- {v.bug.name}\n{v.said}")


def markdown(verdicts: Sequence[Verdict], before: str) -> str:
    """The table of all bugs; of those that were not tried now, the verdict is the one `before`."""
    said = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| (\w+) \|$", before, re.MULTILINE)) | {v.bug.name: v.what for v in verdicts}
    rows = [
        f"| `{bug.name}` | {bug.does} | `{bug.file}` | {'<br>'.join(f'`{test}`' for test in bug.caught_by)} | {said.get(bug.name, 'untried')} |"
        for bug in BUGS
    ]
    caught = sum(said.get(bug.name) == CAUGHT for bug in BUGS)
    return "\n".join(
        [
            "# Seeded bugs",
            "",
            "Written by `make mutants ARGS=\"--markdown docs/mutants.md\"`, whole or for the bugs that are named there; edits are lost.",
            "Each bug is put into a copy of the program, and the named tests must fail then, as they must pass without it.",
            "",
            f"{caught} of {len(BUGS)} are caught.",
            "",
            "| bug | what it does | file | caught by | verdict |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
