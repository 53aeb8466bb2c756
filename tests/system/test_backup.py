"""What is copied can be restored, and what does not belong together is not taken together."""

import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.servers import Mosquitto, wait_until
from tests.system.line import START_S, Installation, Oracle, held_by_duckdb, with_mosquitto

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
TAKE, LOOK, RESTORE, JOURNAL_ALONE = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "backup.md").read_text(), re.S)
UNIT = """
set -u
systemctl() {
    case $1 in
        stop) kill "$(cat "$PID")"; while kill -0 "$(cat "$PID")" 2>/dev/null; do sleep 0.1; done ;;
        start) setsid .venv/bin/microcurrent run >>"$LOG" 2>&1 & echo $! >"$PID" ;;
    esac
}
"""


class Unit:
    """`microcurrent run` as the commands of the document start and stop it."""

    def __init__(self, line: Installation, backup: Path) -> None:
        self.line, self.backup = line, backup
        self.pid = line.directory / "pid"
        self._env = line.env | {"BACKUP": str(backup), "PID": str(self.pid), "LOG": str(line.log)}

    def run(self, block: str, code: int = 0) -> str:
        done = subprocess.run(["bash", "-c", UNIT + block], cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=120, check=False)
        assert code == done.returncode, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        self.run("systemctl start microcurrent")

    def stop(self) -> None:
        self.run("systemctl stop microcurrent")


@pytest.fixture
def unit(tmp_path: Path, mosquitto: Mosquitto):
    unit = Unit(with_mosquitto(tmp_path / "line", mosquitto), tmp_path / "backup")
    unit.start()
    try:
        yield unit
    finally:
        if unit.pid.exists() and Path(f"/proc/{unit.pid.read_text().strip()}").exists():
            unit.stop()


def publish(line: Installation, numbers: range, settled: int) -> None:
    """Let these be stored; `settled` is how many the worker then has taken since its journal began."""
    wait_until(line.ready, START_S, f"the worker to be ready\n{line.tail()}")
    with Oracle(line.settings["mqtt_port"]) as oracle:
        for seq in numbers:
            oracle.publish("dev-1", seq)
        line.wait_settled(settled)


def keys(numbers: range) -> dict[tuple[str, int, int], int]:
    return {("dev-1", 7, seq): 1 for seq in numbers}


@pytest.mark.long
def test_a_backup_is_taken_checked_and_restored_as_the_document_says(unit: Unit) -> None:
    line, backup = unit.line, unit.backup
    publish(line, range(20), 20)
    assert "20 stored" in unit.run(TAKE)
    publish(line, range(20, 30), 30)

    said = unit.run(LOOK.replace('status --data-dir "$BACKUP"', 'status --data-dir "$BACKUP" || test $? = 1'))
    assert "20 = 0 pending + 20 stored" in said
    assert "20 messages of 1 devices: 0 lost, 0 doubled, 0 unknown; the ledger balances" in said

    unit.run(JOURNAL_ALONE)
    with sqlite3.connect(f"file:{backup}.journal/journal.db?mode=ro", uri=True) as copy:
        assert [("ok",), (30,)] == [*copy.execute("PRAGMA quick_check"), *copy.execute("SELECT count(*) FROM message")]

    assert "20 messages of 1 devices: 0 lost, 0 doubled, 0 unknown; the ledger balances" in unit.run(RESTORE)
    publish(line, range(20, 40), 40)
    unit.stop()
    assert keys(range(40)) == held_by_duckdb(line.data)
    assert keys(range(30)) == held_by_duckdb(Path(f"{line.data}.before"))
    assert line.reconcile()["ok"]


def test_a_journal_older_than_the_store_beside_it_is_refused(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Its next entries would have numbers that the store takes for its own."""
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        publish(line, range(20), 20)
        line.stop()
        shutil.copy(line.data / "journal.db", tmp_path / "journal.db")
        line.start()
        publish(line, range(20, 40), 40)
        line.stop()
        shutil.copy(tmp_path / "journal.db", line.data / "journal.db")
        for command in ("run", "reconcile"):
            done = line.command(command)
            assert (2, "") == (done.returncode, done.stdout)
            (sentence,) = [said for said in done.stderr.splitlines() if said.startswith("microcurrent: ")]
            assert str(line.data) in sentence and "older than the store beside it" in sentence
            assert "Traceback" not in done.stderr
        os.rename(line.data / "telemetry.duckdb", tmp_path / "telemetry.duckdb")
        line.start()
        publish(line, range(20, 40), 40)
