"""A long outage of the store: `tests/bench/outage.py --messages 1000000 --kills 100`.

InfluxDB is killed, and the fleet goes on at full speed until so many messages wait in the journal. Then the worker is killed
again and again: from SIGKILL until a message that came meanwhile is accepted, that is on disk and acknowledged. Then the
store comes back, and all is compared with it, message by message. Prints one JSON line a step; ends with 1 if one was lost.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.run import DRAIN_S, SAMPLES, START_S, Bench, CannotMeasure, Engine, Lost, Part, Worker, most_rss_mb, until  # noqa: E402
from tests.servers import Mosquitto  # noqa: E402


def fill(broker: Mosquitto, worker: Worker, messages: int) -> dict[str, Any]:
    """The fleet publishes until so many wait."""
    began = time.monotonic()
    with Part("load.py", "--port", broker.port, "--boot", os.getpid()) as fleet:
        while worker.overview()["ledger"]["outbox"] < messages:
            if time.monotonic() > began + DRAIN_S + messages / 500:
                raise CannotMeasure(f"{messages} messages do not come together")
            time.sleep(0.5)
        sent = fleet.finish()["sent"]
    until(lambda: worker.overview()["ledger"]["accepted"] >= sent, DRAIN_S, "all that was sent to be accepted")
    return {"waiting": sent, "accepted_per_s": round(sent / (time.monotonic() - began)), "rss_mb": most_rss_mb(worker.pid)}


def restarted(directory: Path, broker: Mosquitto, engine: Engine, worker: Worker, number: int) -> tuple[Worker, float, int]:
    """Another worker after a death, how long nothing was accepted, and how much was sent meanwhile."""
    before = worker.overview()["ledger"]["accepted"]
    began = time.monotonic()
    worker.kill()
    with Part("load.py", "--port", broker.port, "--devices", 1, "--connections", 1, "--rate", 50, "--boot", os.getpid() + number) as fleet:
        worker = Worker(directory, broker.port, engine)
        until(lambda: worker.overview()["ledger"]["accepted"] > before, START_S, "a message to be accepted")
        took = time.monotonic() - began
        return worker, took, fleet.finish()["sent"]


def drained(worker: Worker, sent: int) -> dict[str, Any]:
    began, before = time.monotonic(), worker.overview()["ledger"]
    most_s = DRAIN_S + before["outbox"] / 500
    until(lambda: worker.overview()["ledger"]["pending"] == 0, most_s, "all that waits to be stored")
    took, ledger = time.monotonic() - began, worker.overview()["ledger"]
    found = worker.reconcile()
    if not found["ok"] or ledger["stored"] != sent:
        raise Lost(f"{sent} were sent, and the store does not hold them all: {ledger}, {found}")
    return {"stored": ledger["stored"], "drained_points_per_s": round(SAMPLES * before["outbox"] / took), "rss_mb": most_rss_mb(worker.pid), "lost": 0}


def measured(directory: Path, messages: int, kills: int) -> None:
    bench = Bench(0, 200, directory)
    with bench._place("outage", "influxdb") as (place, broker, engine):
        worker = Worker(place, broker.port, engine)
        try:
            engine.kill()
            filled = fill(broker, worker, messages)
            say(filled)
            sent = filled["waiting"]
            took: list[float] = []
            for number in range(kills):
                worker, took_s, more = restarted(place, broker, engine, worker, 1 + number)
                took.append(took_s)
                sent += more
            cuts = statistics.quantiles(took, n=100, method="inclusive")
            say({"kills": kills, "restart_to_accepting_s": {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2), "most": round(max(took), 2)}, "rss_mb": most_rss_mb(worker.pid)})
            worker.kill()
            engine.start()
            worker = Worker(place, broker.port, engine)
            say(drained(worker, sent))
        finally:
            worker.__exit__()


def say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="so many wait (default 1,000,000)")
    parser.add_argument("--kills", type=int, default=100, help="of the worker, at least 2 (default 100)")
    parser.add_argument("--directory", type=Path, help="where data are written; the system's place for temporary files when absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="microcurrent-outage-", dir=options.directory) as made:
        try:
            measured(Path(made), options.messages, max(2, options.kills))
        except (Lost, CannotMeasure) as problem:
            sys.stderr.write(f"{problem}\n")
            return 1 if isinstance(problem, Lost) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
