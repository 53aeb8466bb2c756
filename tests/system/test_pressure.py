"""Room runs out and comes back: nothing more is accepted than has room, nothing is lost, and everybody can see it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Mosquitto, wait_until
from tests.system.line import Installation, Oracle, balanced, held_by_duckdb, with_mosquitto

pytestmark = pytest.mark.system

MIB = 2**20


@pytest.fixture
def broker(tmp_path: Path):
    with Mosquitto(tmp_path / "broker") as broker:
        yield broker


def level(seen: dict[str, Any]) -> str:
    return seen["pipeline"]["pressure"]["level"]


def send(oracle: Oracle, first: int, count: int) -> None:
    for seq in range(first, first + count):
        oracle.publish(f"d-{seq % 5}", seq // 5)
    oracle.wait_acked(first + count)


def assert_stopped(worker: Installation) -> None:
    """As a person sees it, and as a program does."""
    done = worker.command("status")
    assert 1 == done.returncode, done.stdout
    assert "STOPPED, nothing is accepted until there is more: the journal takes" in done.stdout
    assert "microcurrent_pressure 2.0" in worker.request("GET", "/metrics")[2].decode()


def test_a_full_journal_stops_the_line_and_a_larger_one_takes_up_all_that_the_broker_kept(tmp_path: Path, broker: Mosquitto) -> None:
    worker = with_mosquitto(tmp_path / "w", broker, journal_max_mib=2)
    with worker, Oracle(broker.port) as oracle:
        sent = 0
        while level(seen := worker.overview()) != "stopped":
            send(oracle, sent, 400)
            sent += 400
            assert sent < 10_000, "more than fits into 2 MiB"
            taken = worker.wait_for(
                lambda seen, sent=sent: level(seen) == "stopped" or seen["ledger"]["accepted"] == sent, 30, "the line to take them in or to stop"
            )
            assert balanced(taken["ledger"])
        accepted = seen["ledger"]["accepted"]
        assert 0 < accepted <= sent, "the level is of another moment than the ledger"
        settled = worker.wait_settled(accepted)
        assert accepted == settled["accepted"], "it took in more after it had stopped"
        send(oracle, sent, 500)
        sent += 500
        assert_stopped(worker)
        assert accepted == worker.ledger()["accepted"] < sent
        assert "stopped" == level(worker.overview())
        assert (worker.data / "journal.db").stat().st_size < 3 * MIB
        worker.stop()
        worker.settings["journal_max_mib"] = 64
        worker.start()
        ledger = worker.wait_settled(sent)
        assert "normal" == level(worker.overview())
        assert balanced(ledger)
        assert [] == [line for line in worker.log.read_text().splitlines() if "Traceback" in line]
        owed = oracle.acked
    assert owed == set(held_by_duckdb(worker.data))


def test_a_disk_that_others_fill_stops_the_line_until_they_leave(tmp_path: Path, broker: Mosquitto) -> None:
    disk = os.statvfs(tmp_path)
    free_mib = disk.f_bavail * disk.f_frsize // MIB
    if free_mib < 4_096:
        pytest.skip("the disk under the tests has less than 4 GiB free; this test takes 2 of them for a moment")
    filler = tmp_path / "filler"
    with with_mosquitto(tmp_path / "w", broker, disk_free_min_mib=free_mib - 1_536) as worker, Oracle(broker.port) as oracle:
        send(oracle, 0, 100)
        worker.wait_settled(100)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2_048 * MIB)
        worker.wait_for(lambda seen: level(seen) == "stopped", 30, "the line to stop")
        send(oracle, 100, 1_400)
        assert_stopped(worker)
        assert 100 == worker.ledger()["accepted"]
        assert json.loads(worker.command("status", "--json").stdout)["pipeline"]["pressure"]["free_bytes"] < (free_mib - 1_536) * MIB
        filler.unlink()
        worker.wait_for(lambda seen: level(seen) != "stopped", 30, "the line to go on")
        assert balanced(worker.wait_settled(1_500))
        wait_until(lambda: len(oracle.acked) == 1_500, 30, "every PUBACK")
        owed = oracle.acked
    assert owed == set(held_by_duckdb(worker.data))
