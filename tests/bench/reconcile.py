"""What `microcurrent reconcile` takes when one device has said very much: `tests/bench/reconcile.py 2000000`.

Journal and store are filled without a broker, in the shape that a worker leaves them in; then the real command
compares them, in a process of its own whose memory is measured. It is done with few messages first, to tell what
the program takes by itself.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from ingest.dedupe import Boot, Intervals
from ingest.device import Device
from ingest.journal import Journal
from ingest.sinks.duckdb import DuckDBSink

AT_ONCE = 100_000
START_MS = time.time_ns() // 1_000_000 - 30 * 86_400_000


def fill(directory: Path, messages: int) -> None:
    journal, sink = Journal(directory), DuckDBSink(directory)
    sink.open(journal.uuid)
    device = Device("dev-1", boots={7: Boot(seen=Intervals([0], [messages - 1]), held=Intervals([0], [messages - 1]))})
    device.accepted = device.stored = messages
    for first in range(0, messages, AT_ONCE):
        seqs = range(first, min(first + AT_ONCE, messages))
        with journal.step():
            journal.add_messages([("dev-1", 7, 0, seq, seq + 1, "s-1", START_MS + seq, START_MS + seq, START_MS + seq, True) for seq in seqs])
            journal._db.execute("INSERT INTO raw (id, received_ms, topic, payload, retained) VALUES (?, 0, x'', x'', 0)", (seqs[-1] + 1,))
            journal.accepted = journal.processed_upto = journal.stored = seqs[-1] + 1
            journal.put_devices([("dev-1", device.to_json())])
    journal.close()
    sink._db.execute(
        "INSERT INTO current (time_ns, device_id, model, fw, boot_id, seq, clock_ok) "
        f"SELECT ({START_MS} + n) * 1000000, 'dev-1', 'm', 'f', 7, n, true FROM range({messages}) AS r(n)"
    )
    sink.close()


def measured(messages: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as root:
        fill(Path(root), messages)
        command = [Path(sysconfig.get_path("scripts")) / "microcurrent", "reconcile", "--json", "--data-dir", root]
        began = time.monotonic()
        pid = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        found = json.loads(pid.stdout.read())
        _, status, usage = os.wait4(pid.pid, 0)
        pid.returncode = os.waitstatus_to_exitcode(status)
        assert (0, messages, True) == (pid.returncode, found["messages"], found["ok"]), found
        return {"messages": messages, "seconds": round(time.monotonic() - began, 1), "rss_mb": round(usage.ru_maxrss * 1024 / 1e6)}


def main() -> None:
    for messages in (1_000, int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000):
        print(json.dumps(measured(messages)), flush=True)


if __name__ == "__main__":
    main()
