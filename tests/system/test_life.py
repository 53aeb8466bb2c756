"""How an installation starts, ends, and starts again after whatever ended it."""

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import Mosquitto, accepts, crowd, wait_until
from tests.system.line import MICROCURRENT, Installation, Oracle, alive, environment, held_by_duckdb, message, topic, with_mosquitto

pytestmark = pytest.mark.system

END_S = 10.0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_ordered_end_comes_within_ten_seconds_with_all_that_was_taken_in_finished(
    tmp_path: Path, mosquitto: Mosquitto, how: signal.Signals
) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        with Oracle(mosquitto.port) as oracle:
            for seq in range(4_000):
                oracle.publish(f"example-{seq % 4}", seq // 4)
            line.wait_for(lambda seen: seen["ledger"]["accepted"] > 0, 10, "the first to be taken in")
            began = time.monotonic()
            assert 0 == line.stop(how)
            assert time.monotonic() - began < END_S * crowd()
            oracle.wait_acked(4_000)
        assert {} == line.children()
        assert not (line.data / "worker.json").exists()
        assert 0 == line.answer("status")["ledger"]["inbox"], "what was taken in was not finished"
        line.start()
        line.wait_settled(4_000)
        assert line.reconcile()["ok"]
        line.stop()
    assert {1} == set(held_by_duckdb(line.data).values())
    assert 4_000 == len(held_by_duckdb(line.data))


def test_an_ordered_end_needs_neither_broker_nor_store(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "mosquitto")
    line = with_mosquitto(tmp_path / "line", broker, store="influxdb", influx_url="http://127.0.0.1:9")
    with broker, line:
        broker.publish(topic("example-1"), message(0))
        line.wait_for(lambda seen: not seen["pipeline"]["store"]["ok"] and seen["ledger"]["accepted"] == 1, 10, "an outage")
        broker.kill()
        began = time.monotonic()
        assert 0 == line.stop()
        assert time.monotonic() - began < END_S * crowd()


def test_a_killed_supervisor_takes_its_worker_with_it_and_the_next_run_starts_at_once(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        for n in range(3):
            worker = line.worker_pid
            mosquitto.publish(topic("example-1"), message(n))
            line.kill()
            line.start()
            line.wait_settled(n + 1)
            assert not alive(worker)
        assert line.reconcile()["ok"]


def test_a_broker_left_behind_by_a_killed_supervisor_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as in a narrow terminal: it must be known by its whole command line
    with Installation(tmp_path / "line", broker="embedded", mqtt_port=0) as line:
        broker, port = line.child("nats-server"), int((line.data / "credentials" / "broker.port").read_text())
        line.kill()
        assert alive(broker) and accepts(port), "it does not outlive its supervisor any more: this test is not needed"
        line.settings["mqtt_port"] = port  # the same one, as in an installation
        line.start()
        assert not alive(broker)
        assert line.child("nats-server") not in (None, broker)
        worker = line.worker_pid
        assert 0 == line.stop()
        assert not alive(worker) and not accepts(port)


def test_a_worker_that_is_restarted_while_somebody_looks_at_its_journal_comes_back(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A command on a stopped worker owns the journal while it looks; here it looks for longer than a start waits."""
    import fcntl

    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        line.leave_only_the_broker()
        with (line.data / "journal.lock").open("r+") as lock:
            wait_until(lambda: _locked(lock, fcntl), 10, "the lock")
            line.thaw()
            time.sleep(4.5)
        line.wait_ready(30)
        mosquitto.publish(topic("example-1"), message(0))
        line.wait_settled(1)


def _locked(file, fcntl) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_worker_that_stood_still_for_a_while_goes_on_and_has_lost_nothing(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Stopped in its tracks it acknowledges nothing; the broker keeps what comes."""
    with with_mosquitto(tmp_path / "line", mosquitto, mqtt_keepalive_s=5) as line:
        pid = line.worker_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            mosquitto.publish(topic("example-1"), message(0))
            time.sleep(1)
        finally:
            os.kill(pid, signal.SIGCONT)
        line.wait_settled(1)


# -- every command ----------------------------------------------------------------------------------


def commands(*words: str) -> list[tuple[str, ...]]:
    """Every command there is, found by asking for help."""
    done = subprocess.run([MICROCURRENT, *words, "--help"], env=environment(), capture_output=True, text=True, timeout=120, check=True)
    assert "Usage:" in done.stdout and "" == done.stderr
    found = [words] if words else []
    if "COMMAND" in done.stdout.split("Usage:")[1].splitlines()[0]:
        table = re.split(r"Commands ─+|Commands:", done.stdout)[1]
        names = re.findall(r"^[│ ]+([a-z][a-z-]+)  ", table, re.MULTILINE)
        with ThreadPoolExecutor(4) as several:
            for below in several.map(lambda name: commands(*words, name), names):
                found += below
    return found


def test_every_command_has_help_that_says_what_it_does() -> None:
    found = {" ".join(words) for words in commands()}
    assert {
        "demo", "run", "simulate", "check", "status", "reconcile", "alerts list", "alerts show", "alerts ack",
        "quarantine list", "quarantine show", "quarantine replay", "quarantine discard", "schemas export",
    } <= found  # fmt: skip


def test_commands_say_the_same_of_a_running_and_of_a_stopped_worker(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        mosquitto.publish(topic("example-1"), "[")
        line.wait_settled(2)
        words = (["status"], ["alerts", "list"], ["quarantine", "list"], ["reconcile"])
        running = [line.answer(*each) for each in words]
        texts = [line.command(*each) for each in words[:3]]
        line.stop()
        stopped = [line.answer(*each) for each in words]
        assert running[1:] == stopped[1:]
        assert (True, False) == (running[0]["running"], stopped[0]["running"])
        for name in ("ledger", "alerts_open", "balanced"):
            assert running[0][name] == stopped[0][name]
        for done in texts:
            assert (0, "") == (done.returncode, done.stderr)
            assert done.stdout.strip()


def test_the_exported_contract_is_the_one_in_the_repository(tmp_path: Path) -> None:
    generated = Path(__file__).parents[2] / "schemas" / "generated"
    done = subprocess.run(
        [MICROCURRENT, "schemas", "export", str(tmp_path / "out")], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {path.name: path.read_bytes() for path in generated.iterdir()} == written, "run 'make schemas'"
    assert len(written) == len(done.stdout.splitlines()) > 5
