"""A worker deletes from the embedded store what is too old, and nothing else."""

from pathlib import Path

import duckdb
import pytest

from tests.servers import Mosquitto
from tests.system.line import message, now_ms, topic, with_mosquitto

pytestmark = pytest.mark.system

DAY_MS = 86_400_000


def test_a_worker_that_starts_deletes_what_is_older_than_asked_for(tmp_path: Path, mosquitto: Mosquitto) -> None:
    kept = {"retention_days": 2, "summary_retention_days": 5}
    with with_mosquitto(tmp_path / "line", mosquitto, store="duckdb", **kept) as line:
        mosquitto.publish(topic("example-1"), message(0))
        line.wait_settled(1)
        line.stop()
        path = str(line.data / "telemetry.duckdb")
        with duckdb.connect(path) as store:
            for table in ("current", "trend"):
                for days in (1, 3, 6):
                    at_ns = (now_ms() - days * DAY_MS) * 1_000_000
                    store.execute(f"INSERT INTO {table} (time_ns, device_id) SELECT ?, 'old' FROM range(100)", [at_ns])
        line.start()
        mosquitto.publish(topic("example-1"), message(1))
        line.wait_settled(2)
        assert line.reconcile()["ok"]
        line.stop()
        with duckdb.connect(path, read_only=True) as store:
            left = {t: store.execute(f"SELECT count(*) FROM {t} WHERE device_id = 'old'").fetchone()[0] for t in ("current", "trend")}
        assert left == {"current": 100, "trend": 200}
        line.start()
