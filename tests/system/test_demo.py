"""One command shows the whole thing working, judges itself, and leaves nothing behind."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import wait_until
from tests.system.line import MICROCURRENT, Installation, alive, descendants, environment, processes, stopped_afterwards
from tests.system.test_documents import BLOCKS
from tests.system.test_documents import run as run_script

pytestmark = pytest.mark.system


def demo(data: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [MICROCURRENT, "demo", "--data-dir", data, "--headless", "--json", *words],
        env=environment(), cwd=data.parent, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def nothing_left(data: Path, started: dict[int, str]) -> list[str]:
    """Command lines of what a demo has left running."""
    everyone = processes()
    ours = {pid: args for pid, (_, args) in everyone.items() if str(data) in args}
    return list((ours | {pid: args for pid, args in started.items() if pid in everyone}).values())


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str, list[str]]]:
    """A demo of twenty seconds: its directory, what it said in the end, all of its stdout, what it left running."""
    data = tmp_path_factory.mktemp("demo") / "data"
    with stopped_afterwards(demo(data, "--seconds", "20")) as process:
        started = wait_until(lambda: len(below := descendants(process.pid)) >= 3 and below, 60, "the worker, its broker and the fleet")
        out, err = process.communicate(timeout=120)
    assert 0 == process.returncode, f"{out}\n{err}"
    assert "never acknowledged to their device" in err and [] == [line for line in err.splitlines() if line[:1].islower() or line.endswith(" ")], "progress is plain lines"
    yield data, json.loads(out.splitlines()[-1]), out, nothing_left(data, started)


def test_a_demo_ends_with_every_message_accounted_for_and_no_alert_missed_or_false(shown: Any) -> None:
    _, outcome, _, _ = shown
    assert {"ok": True, "balanced": True, "pending": 0, "lost": 0, "doubled": 0, "alerts_missed": 0, "alerts_false": 0, "devices": 80} == {
        name: outcome[name] for name in ("ok", "balanced", "pending", "lost", "doubled", "alerts_missed", "alerts_false", "devices")
    }
    assert outcome["accepted"] == outcome["stored"] + outcome["duplicate"] + outcome["quarantined"] + outcome["pending"]
    assert outcome["alerts_raised"] >= outcome["alerts_expected"] > 0
    assert outcome["stored"] >= outcome["messages"] * 0.9 > 100
    assert outcome["samples"] >= outcome["messages"]


def test_a_demo_says_one_json_document_on_stdout_and_leaves_no_process(shown: Any) -> None:
    _, outcome, out, left = shown
    assert outcome == json.loads(out)
    assert [] == left


def test_the_data_of_a_demo_can_be_looked_at_when_it_is_over(shown: Any) -> None:
    data, outcome, _, _ = shown
    line = Installation(data.parent / "look", data_dir=data)
    seen = line.answer("status")
    assert (False, True, outcome["accepted"]) == (seen["running"], seen["balanced"], seen["ledger"]["accepted"])
    assert outcome["quarantined"] == sum(seen["pipeline"]["quarantine_by_reason"].values())
    assert len(line.answer("alerts", "list", "--limit", "1000")) >= outcome["alerts_raised"]
    assert line.reconcile()["ok"]


def test_the_next_demo_on_the_same_directory_goes_on_from_there(shown: Any) -> None:
    data, first, _, _ = shown
    with stopped_afterwards(demo(data, "--seconds", "5")) as process:
        out, err = process.communicate(timeout=120)
    second = json.loads(out)
    assert 0 == process.returncode, f"{second}\n{err}"
    assert second["accepted"] > first["accepted"]
    assert (True, 0, 0, 0) == tuple(second[n] for n in ("balanced", "pending", "lost", "doubled"))


@pytest.mark.parametrize(("how", "wait_s"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)], ids=["while the fleet is loaded", "in work"])
def test_a_demo_that_is_interrupted_ends_in_order_and_leaves_no_process(tmp_path: Path, how: signal.Signals, wait_s: float) -> None:
    data = tmp_path / "data"
    with stopped_afterwards(demo(data, "--devices", "5")) as process:
        wait_until(lambda: sum("ingest.cli" in args for args in descendants(process.pid).values()) >= 2, 30, "the fleet")
        time.sleep(wait_s)
        started = descendants(process.pid)
        assert any("nats-server" in args for args in started.values())
        process.send_signal(how)
        out, err = process.communicate(timeout=120)
    assert 0 == process.returncode, f"{out}\n{err}"
    assert (True, 0) == (json.loads(out)["balanced"], json.loads(out)["pending"])
    assert "Traceback" not in err
    assert [] == nothing_left(data, started)


@pytest.mark.parametrize("after_s", [0.5, 1.0, 1.5])
def test_a_demo_interrupted_while_it_starts_says_no_traceback_and_leaves_no_process(tmp_path: Path, after_s: float) -> None:
    data = tmp_path / "data"
    with stopped_afterwards(demo(data, "--devices", "5")) as process:
        time.sleep(after_s)
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert [] == nothing_left(data, started)
    assert not alive(process.pid)


def test_a_second_demo_on_a_directory_in_use_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with stopped_afterwards(demo(data, "--devices", "5")) as first:
        wait_until(lambda: sum("ingest.cli" in args for args in descendants(first.pid).values()) >= 2, 30, "the fleet")
        with stopped_afterwards(demo(data, "--seconds", "5", "--devices", "5")) as second:
            out, err = second.communicate(timeout=120)
        assert (73, "", 1) == (second.returncode, out, len(err.strip().splitlines())), err
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=120)
    assert (0, True) == (first.returncode, json.loads(out)["accepted"] > 0), f"{out}\n{err}"


def test_the_readme_check_of_the_demo_ends_with_an_accounted_fleet(tmp_path: Path) -> None:
    (block,) = [b for b in BLOCKS if b.startswith("make -s demo")]
    ended = run_script(block.replace("--seconds 20", f"--seconds 8 --data-dir {tmp_path}"))
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    accounted = sum(outcome[name] for name in ("stored", "duplicate", "quarantined", "pending"))
    assert (outcome["pending"], outcome["accepted"], outcome["alerts_missed"], outcome["alerts_false"]) == (0, accounted, 0, 0)
