"""The line under trial: an installation that is given orders, watched, asked and killed."""

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.faults.contract import Key
from tests.servers import wait_until
from tests.system.line import Installation, balanced, send

if TYPE_CHECKING:
    from tests.faults.trial import Trial

REMEMBERED_S = 0.6
"""A worker answers from memory for half a second."""
UNREACHABLE = (OSError, ValueError, KeyError, AssertionError, http.client.HTTPException)


class Line(Installation):
    """An installation with orders for its fail-points, and a watch on its ledger and memory."""

    def __init__(self, directory: Path, trial: "Trial", **settings: Any) -> None:
        super().__init__(directory, **settings)
        self._trial = trial
        self.orders = directory / "orders"
        self.carried_out = directory / "carried-out"
        self._watching = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self.unpaid = 0
        self.most_broker_queue = 0

    @property
    def env(self) -> dict[str, str]:
        return super().env | {"MICROCURRENT_FAILPOINT": f"@{self.orders}", "MICROCURRENT_FAILPOINT_LOG": str(self.carried_out)}

    def start(self, *, ready: bool = True) -> Self:
        if not self.orders.exists():
            self.orders.write_text("")
        super().start(ready=ready)
        if not self._watch.is_alive():
            self._watch.start()
        return self

    def order(self, *orders: str) -> None:
        """Each worker that starts from now on takes the next of these: `accepted:3:kill`."""
        self.orders.write_text("".join(f"{order}\n" for order in orders))

    def tail(self, lines: int = 25) -> str:
        """The end of its log, without what is said of single messages."""
        some = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return "\n".join([line for line in some if "event=alert " not in line and "event=quarantined" not in line][-min(lines, 12) :])

    def reached(self) -> Counter[str]:
        if not self.carried_out.exists():
            return Counter()
        return Counter(line.split()[2] for line in self.carried_out.read_text().splitlines())

    def end_everything(self) -> None:
        self._watching.set()
        super().end_everything()

    def _look(self) -> None:
        while not self._watching.wait(0.5):
            with suppress(*UNREACHABLE):
                seen = self.overview()["ledger"]
                self._trial.outcome.samples += 1
                if not balanced(seen):
                    self._trial.must(False, f"I6: the ledger does not balance: {seen}")
            with suppress(*UNREACHABLE):
                self._trial.saw_rss(rss_mb(self.worker_pid))

    def at_rest(self, deadline_s: float) -> dict[str, int]:
        """The ledger once nothing is pending, and it stays as it is for longer than the worker remembers an answer."""
        seen: list[dict[str, int]] = []

        def look() -> dict[str, int] | None:
            seen.append(self.wait_for(lambda said: said["ledger"]["pending"] == 0, deadline_s, "nothing to be pending")["ledger"])
            if len(seen) > 1 and seen[-1] == seen[-2]:
                return seen[-1]
            time.sleep(REMEMBERED_S)
            return None

        return wait_until(look, deadline_s, "the ledger to come to rest")

    def worker_id(self) -> int | None:
        """The process that last said it serves."""
        try:
            return self.worker_pid
        except UNREACHABLE:
            return None

    def devices(self) -> dict[str, dict[str, Any]]:
        return {d["device_id"]: d for d in self.get("/api/devices")["devices"]}

    def quarantined(self) -> list[Key]:
        """The identity of every entry in quarantine; of one that was never parsed, from its bytes."""
        return [key for key, _ in self.set_aside()]

    def set_aside(self) -> list[tuple[Key, str]]:
        """Every entry in quarantine, with its reason."""
        found = []
        for entry in self.get("/api/quarantine?limit=10000")["entries"]:
            if entry["boot_id"] is None or entry["seq"] is None:
                said = json.loads(self.get(f"/api/quarantine/{entry['id']}")["payload_text"])
                entry |= {"boot_id": said["boot_id"], "seq": said["seq"]}
            found.append((Key(entry["device_id"], entry["boot_id"], entry["seq"]), entry["reason"]))
        return found


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(pid)


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def kill(pid: int) -> bool:
    return send(pid, signal.SIGKILL)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that stands still for a while."""
    send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pid, signal.SIGCONT)
