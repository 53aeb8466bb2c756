"""The places at which a test can have the worker die: named, counted, and silent unless asked for."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ingest import failpoints
from ingest.errors import Mistake
from ingest.failpoints import POINTS, Order, parse

ROOT = Path(__file__).parents[2]

REACH = """
import sys
from ingest import failpoints
failpoints.arm()
for name in sys.argv[1:]:
    failpoints.reach(name)
print("alive")
"""


def run(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", REACH, *names], env=env, capture_output=True, text=True, timeout=30)


def test_every_place_is_reached_from_one_line_of_the_worker_and_no_other_is() -> None:
    found = Counter()
    for path in (ROOT / "ingest").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.reach":
                found[ast.literal_eval(node.args[0])] += 1
    assert dict.fromkeys(POINTS, 1) == dict(found)


def test_nothing_happens_unless_it_is_asked_for() -> None:
    failpoints.arm({})
    assert all(failpoints.reach(name) is None for name in POINTS)
    assert "alive\n" == run(*POINTS).stdout


def test_the_process_is_killed_the_nth_time_and_the_log_tells(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("accepted", "taken", "accepted", MICROCURRENT_FAILPOINT="accepted:2:kill", MICROCURRENT_FAILPOINT_LOG=str(log))
    assert (-9, "") == (done.returncode, done.stdout)
    assert re.fullmatch(r"\d{13} \d+ accepted 2 kill\n", log.read_text())


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [("exit", 70, ""), ("raise", 1, "FailPoint: accepted"), ("raise=io", 1, "disk I/O error"), ("raise=full", 1, "database or disk is full"), ("sleep=0.01", 0, "")],
)
def test_it_can_end_quietly_fail_or_stall(act: str, code: int, said: str) -> None:
    done = run("accepted", MICROCURRENT_FAILPOINT=f"accepted:{act}")
    assert (code, True) == (done.returncode, said in done.stderr)


def test_each_process_takes_one_line_of_a_file_until_none_is_left(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    queue.write_text("accepted:exit\ntaken:kill\n")
    codes = [run("taken", "accepted", MICROCURRENT_FAILPOINT=f"@{queue}").returncode for _ in range(3)]
    assert [70, -9, 0] == codes
    assert "" == queue.read_text()


def test_several_are_read_in_one_line() -> None:
    assert [Order("posted", 1, "raise"), Order("settled", 3, "sleep=2")] == parse("posted:raise, settled:3:sleep=2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acepted:kill", "no place 'acepted'"),
        ("accepted", "'accepted' is not name"),
        ("accepted:0:kill", "'accepted:0:kill' is not name"),
        ("accepted:kil", "'accepted:kil' is not name"),
        ("accepted:sleep=soon", "'accepted:sleep=soon' is not name"),
    ],
)
def test_what_it_cannot_mean_is_a_mistake(text: str, said: str) -> None:
    with pytest.raises(Mistake, match=re.escape(said)):
        parse(text)


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="cannot be read and written"):
        failpoints.arm({"MICROCURRENT_FAILPOINT": f"@{tmp_path / 'none'}"})
