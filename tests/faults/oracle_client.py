"""The oracle, from outside: its process is started, told what to issue, and asked what is acknowledged."""

import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.faults.judge import Issued
from tests.servers import LOOPBACK, wait_until

ROOT = Path(__file__).parents[2]


class Oracle:
    """The oracle's process, and what it has on record."""

    def __init__(self, directory: Path, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ledger = directory / "ledger"
        self.ledger.touch()
        self._log = (directory / "oracle.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.oracle", str(self.ledger), str(seed)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self.ids: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()

    def call(self, do: str, **words: Any) -> Any:
        with self._lock:
            self._process.stdin.write(json.dumps({"do": do, **words}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer and "ok" in (said := json.loads(answer)), f"the oracle has died: {answer or Path(self._log.name).read_text()}"
        return said["ok"]

    def devices(self, count: int, port: int, *, prefix: str = "dev", passwords: dict[str, str] | None = None, connected: bool = True, **terms: Any) -> list[str]:
        """Let so many devices live at a port; `terms` are those of `tests.faults.oracle.Terms`."""
        ids = [f"{prefix}-{n}" for n in range(count)]
        self.call("add", ids=ids, passwords=passwords, host=LOOPBACK, port=port, **terms)
        self.ids += ids
        if connected:
            wait_until(lambda: self.status()["connected"] >= len(self.ids), 30, f"{len(self.ids)} devices to connect")
        return ids

    def issue(self, messages: int, per_s: float = 0.0) -> None:
        """So many more messages, in turn from each device; `per_s` 0: as fast as they go."""
        self.call("issue", messages=messages, per_s=per_s)

    def halt(self) -> None:
        self.call("halt")

    def status(self) -> dict[str, int]:
        return self.call("status")

    def wait_issued(self, deadline_s: float = 120) -> None:
        wait_until(lambda: self.status()["left"] == 0, deadline_s, "the oracle to issue everything")

    def wait_acknowledged(self, deadline_s: float = 120) -> None:
        """Until all is issued and nothing is held any more: every message has become an obligation. A slow machine is
        waited for as long as acknowledgements come; the deadline is for the last of them."""
        last, since = -1, time.monotonic()

        def done() -> bool:
            nonlocal last, since
            seen = self.status()
            if seen["acked"] != last:
                last, since = seen["acked"], time.monotonic()
            return seen["left"] == seen["held"] == 0 or time.monotonic() - since > deadline_s

        try:
            wait_until(done, 3600, "every message to be acknowledged")
            assert (seen := self.status())["left"] == seen["held"] == 0, f"no acknowledgement for {deadline_s:g} s"
        except BaseException as error:
            error.add_note(f"the oracle: {self.status()}")
            raise

    def issued(self) -> Issued:
        self.status()
        with self.ledger.open() as lines:
            return Issued.read(lines)
