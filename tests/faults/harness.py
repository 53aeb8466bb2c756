"""What a row of the fault matrix is written with.

    @row(1, "the worker is killed at random moments", lasts_s=60)
    def killed_at_random(trial: Trial) -> None:
        with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
            oracle.devices(12, broker.port)
            oracle.issue(15_000, per_s=500)
            for _ in range(trial.scale(25, 1000)):
                time.sleep(trial.chance.uniform(0, 0.7))
                trial.kill_worker(line)
            oracle.wait_acknowledged()
            trial.judge(line, oracle)

`trial.judge` ends a trial: a fresh probe must be stored (I5), the ledger must be at rest and balanced (I6), the gaps that
are reported must be those that exist (I7), the store must hold what was acknowledged, once, as it was sent (I1 to I4, I8).
While a line runs, its ledger is asked for twice a second and must balance each time, and its memory is watched (I9).
`trial.must` notes a violation of anything else; `trial.happened` notes that a fault took place, and a fault that was
expected and did not is a violation (I10). Nothing here imports the product: it is started, asked and read as a person would.
"""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import duckdb

from tests.faults.contract import Key
from tests.faults.influx import FakeInflux
from tests.faults.judge import STREAMS, Issued, Row, Verdict, judge
from tests.servers import LOOPBACK, InfluxDB, Mosquitto, wait_until
from tests.system.line import Installation, balanced, influx_settings, send

ROOT = Path(__file__).parents[2]
RSS_MOST_MB = 300
ARRIVAL_S = 40.0
REMEMBERED_S = 0.6
"""A worker answers from memory for half a second."""
UNREACHABLE = (OSError, ValueError, KeyError, AssertionError, http.client.HTTPException)


# -- the register of rows ---------------------------------------------------------------------------


@dataclass(frozen=True)
class MatrixRow:
    """One row of the matrix. `lasts_s`: about how long, so that long ones are begun first. `daily`: whether it belongs to
    the short run. `alone`: nothing else may run beside it."""

    number: str
    fault: str
    run: "Callable[[Trial], None]"
    lasts_s: float
    daily: bool
    alone: bool


ROWS: dict[str, MatrixRow] = {}


def row(
    number: int | str, fault: str, *, lasts_s: float = 15, daily: bool = True, alone: bool = False
) -> "Callable[[Callable[[Trial], None]], Callable[[Trial], None]]":
    """Register a function as a row of RELIABILITY 4; `number` may carry a letter where a row has variants."""

    def register(function: "Callable[[Trial], None]") -> "Callable[[Trial], None]":
        assert str(number) not in ROWS, f"row {number} is there twice"
        ROWS[str(number)] = MatrixRow(str(number), fault, function, lasts_s, daily, alone)
        return function

    return register


class Absent(Exception):
    """This machine cannot run the row; the sentence says why."""


# -- what comes of one ------------------------------------------------------------------------------


@dataclass
class Outcome:
    """A line of the table."""

    number: str
    fault: str
    seed: int
    runs: int = 0
    kills: int = 0
    messages: int = 0
    lost: int = 0
    doubled: int = 0
    spurious: int = 0
    damaged: int = 0
    duplicates: int = 0
    quarantined: int = 0
    samples: int = 0
    """How often a ledger was asked for and balanced."""
    rss_mb: float = 0.0
    seconds: float = 0.0
    absent: str = ""
    happened: dict[str, int] = field(default_factory=dict)
    serving_after_s: list[float] = field(default_factory=list)
    """How long each killed worker's successor took until it was subscribed again."""
    reached: dict[str, int] = field(default_factory=dict)
    """Fail-points that were carried out."""
    figures: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.violations and not self.absent

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# -- the line under test ----------------------------------------------------------------------------


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


# -- the oracle, from outside -----------------------------------------------------------------------


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


# -- a trial ----------------------------------------------------------------------------------------


class Trial:
    """One run of one row."""

    def __init__(self, number: str, fault: str, seed: int, directory: Path, full: bool = False, minutes: float = 1.0) -> None:
        self.outcome = Outcome(number, fault, seed)
        self.chance = random.Random(f"{seed}/{number}")
        self.directory = directory
        self.full = full
        self.minutes = minutes
        """How long the soak lasts."""
        self._count = 0
        self._lock = threading.Lock()

    def scale(self, short: int, full: int) -> int:
        """How often, in the short run and in the full one."""
        return full if self.full else short

    def place(self, name: str) -> Path:
        """A directory of its own."""
        with self._lock:
            self._count += 1
            return self.directory / f"{self._count}-{name}"

    # -- parts ------------------------------------------------------------------------------------

    def mosquitto(self, **given: Any) -> Mosquitto:
        return Mosquitto(self.place("mosquitto"), **given)

    def influxdb(self) -> InfluxDB:
        return InfluxDB(self.place("influxdb"))

    def line(self, broker: Any = None, store: FakeInflux | InfluxDB | None = None, **settings: Any) -> Line:
        """`microcurrent run` at a broker (anything with a `port`; None: the embedded one) and a store (None: DuckDB)."""
        if broker is not None:
            settings = {"broker": "external", "mqtt_port": broker.port} | settings
        else:
            settings = {"broker": "embedded", "mqtt_port": 0} | settings
        if isinstance(store, InfluxDB):
            settings = influx_settings(store) | settings
        elif store is not None:
            settings = store.settings | settings
        self.outcome.runs += 1
        return Line(self.place("line"), self, durable_ack_interval_ms=settings.pop("durable_ack_interval_ms", 100), **settings)

    def oracle(self) -> Oracle:
        return Oracle(self.place("oracle"), self.chance.randrange(1 << 32))

    # -- faults -----------------------------------------------------------------------------------

    def kill_worker(self, line: Line, timed: bool = True) -> None:
        """SIGKILL; with `timed`, wait until the next one serves, and note how long that took."""
        before = line.worker_id()
        wait_until(line.kill_worker, 30, "a worker to kill")
        self.outcome.kills += 1
        self.happened("worker killed")
        if timed:
            self.wait_serving(line, before)

    def wait_serving(self, line: Line, before: int | None) -> None:
        """Until another worker than the one before is subscribed; notes how long it took from now."""
        began = time.monotonic()
        wait_until(lambda: line.worker_id() != before and line.ready(), 60, f"another worker than {before} to serve\n{line.tail()}")
        self.outcome.serving_after_s.append(time.monotonic() - began)

    def happened(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.outcome.happened[what] = self.outcome.happened.get(what, 0) + times

    def must_have_happened(self, what: str, at_least: int = 1) -> None:
        """I10: a fault that never took place proves nothing."""
        times = self.outcome.happened.get(what, 0)
        self.must(times >= at_least, f"I10: {what}: {times} times, expected {at_least} or more: the trial is too kind")

    # -- judging ----------------------------------------------------------------------------------

    def must(self, holds: bool, sentence: str) -> None:
        if not holds:
            with self._lock:
                self.outcome.violations.append(sentence)

    def saw_rss(self, mb: float) -> None:
        self.outcome.rss_mb = max(self.outcome.rss_mb, mb)

    def figure(self, name: str, value: float) -> None:
        self.outcome.figures[name] = value

    def judge(
        self, line: Line, oracle: Oracle, store: FakeInflux | InfluxDB | None = None, *, probe_within_s: float = 10.0,
        may_lose: bool = False, probe: bool = True, duplicates: bool = False, rss_most_mb: float = RSS_MOST_MB,
    ) -> Verdict:  # fmt: skip
        """Judge a line that stands still; it is stopped for it. With `duplicates`, some must have been seen (I10). With
        `may_lose`, messages that were issued and never arrived must be reported as gaps, exactly; none may be lost otherwise."""
        if not may_lose:
            self._wait_arrived(line, oracle)
        if probe:
            self.probe(line, oracle, probe_within_s)
        try:
            ledger = line.at_rest(60)
        except BaseException as error:
            self.must(False, f"I5: {error}")
            ledger = line.ledger()
        issued = oracle.issued()
        entries = line.set_aside()
        aside, unread = [key for key, _ in entries], {key for key, reason in entries if reason == "crash_suspect"}
        if unread:
            self.happened("set aside unread after three deaths", len(unread))
        devices = line.devices()
        told = oracle.call("missing")
        code = line.stop()
        self.must(code == 0, f"the line ended with code {code}:\n{line.tail(8)}")
        if store is None:
            rows = list(duckdb_rows(line.data))
        elif isinstance(store, InfluxDB):
            rows = list(influxdb_rows(store))
        else:
            rows = list(fake_rows(store))
        verdict = judge(issued, rows, aside, unread)
        never = issued.messages.keys() - _keys(rows) - set(aside)
        if may_lose:
            verdict.sentences = [s for s in verdict.sentences if not s.startswith("lost")]
            self.figure("lost with the broker", len(never))
            self.must(never <= verdict.lost_keys | (issued.messages.keys() - issued.acked), "I1: more is lost than was given up")
            verdict.lost = 0
        self._judge_gaps(issued, never, devices, told)
        self.must(verdict.ok, "; ".join(verdict.sentences))
        self.must(balanced(ledger), f"I6: the ledger does not balance: {ledger}")
        self.must(
            (ledger["stored"], ledger["quarantined"]) == (verdict.stored, verdict.quarantined),
            f"I6: the ledger says {ledger['stored']} stored, {ledger['quarantined']} quarantined; found {verdict.stored} and {verdict.quarantined}",
        )
        self.must(self.outcome.rss_mb <= rss_most_mb, f"I9: {self.outcome.rss_mb:.0f} MB RSS, at most {rss_most_mb} are allowed")
        if duplicates:
            self.must(ledger["duplicate"] > 0, "I10: no duplicate was ever seen: the trial is too kind")
        o = self.outcome
        o.messages += verdict.issued
        o.lost += verdict.lost
        o.doubled += verdict.doubled + verdict.both
        o.spurious += verdict.spurious
        o.damaged += verdict.damaged
        o.duplicates += ledger["duplicate"]
        o.quarantined += verdict.quarantined
        for name, times in line.reached().items():
            o.reached[name] = o.reached.get(name, 0) + times
        return verdict

    def probe(self, line: Line, oracle: Oracle, within_s: float) -> None:
        """I5: something fresh goes all the way, soon after what the faults have left is worked off."""
        before, began = line.at_rest(180)["stored"], time.monotonic()
        oracle.issue(len(oracle.ids), per_s=0)
        try:
            oracle.wait_acknowledged(within_s)
            line.wait_for(lambda seen: seen["ledger"]["pending"] == 0 and seen["ledger"]["stored"] > before, within_s, "the probe to be stored")
        except BaseException as error:
            self.must(False, f"I5: {error}")
        self.figure("probe_s", round(time.monotonic() - began, 2))

    def _wait_arrived(self, line: Line, oracle: Oracle) -> None:
        """A broker that was told to keep a message may still have it: after a death it delivers again only after a while."""
        acked = oracle.status()["acked"]

        def arrived() -> bool:
            ledger = line.ledger()
            return ledger["pending"] == 0 and ledger["stored"] + ledger["quarantined"] >= acked

        with suppress(BaseException):  # what is lost is for the judge to say
            wait_until(arrived, ARRIVAL_S, "what was acknowledged to arrive")

    def _judge_gaps(self, issued: Issued, never: set[Key], devices: dict[str, dict[str, Any]], told: dict[str, Any]) -> None:
        """I7: what the line reports as missing is what is missing, and the devices were told the same ranges."""
        real: Counter[str] = Counter()
        for key in {Key(k.device_id, k.boot_id, 0) for k in issued.messages}:
            holes = issued.holes(key, never)
            real[key.device_id] += sum(b - a + 1 for a, b in holes)
            said = told.get(key.device_id, {}).get(str(key.boot_id))
            if holes and said is not None and len(holes) <= 32:
                upto, missing = said
                expected = [[a, b] for a, b in holes if a <= upto]
                self.must(expected == [list(r) for r in missing], f"I7: {key.device_id} was told {missing} lack, and {expected} do")
        reported = {device_id: d["missing"] for device_id, d in devices.items() if d["missing"]}
        exist = {device_id: n for device_id, n in real.items() if n}
        self.must(reported == exist, f"I7: gaps reported {_few(reported)}, gaps that exist {_few(exist)}")


def _few(found: dict[str, int]) -> str:
    return json.dumps(dict(sorted(found.items())[:6])) + (" …" if len(found) > 6 else "")


def _keys(rows: list[Row]) -> set[Key]:
    return {Key(row["device_id"], int(row["boot_id"]), int(row["seq"])) for row in rows}


# -- what a store holds, seen without the product -----------------------------------------------------


def duckdb_rows(data: Path) -> Iterator[Row]:
    with duckdb.connect(str(data / "telemetry.duckdb"), read_only=True) as store:
        for stream in STREAMS:
            done = store.execute(f'SELECT * FROM "{stream}" ORDER BY time_ns')
            names = [column[0] for column in done.description]
            while some := done.fetchmany(10_000):
                for values in some:
                    yield dict(zip(names, values, strict=True), stream=stream)


def influxdb_rows(store: InfluxDB) -> Iterator[Row]:
    for stream in STREAMS:
        for found in store.query(f'SELECT * FROM "{stream}"'):
            yield {**found, "time_ns": found["time"], "stream": stream}


def fake_rows(store: FakeInflux) -> Iterator[Row]:
    for stream in STREAMS:
        for found in store.rows(stream):
            yield {**found, "stream": stream}


# -- running one ------------------------------------------------------------------------------------


def run_row(number: str, seed: int, directory: Path, full: bool, minutes: float) -> Outcome:
    """Run a row; whatever goes wrong is in its outcome."""
    import pytest

    found = ROWS[number]
    trial = Trial(number, found.fault, seed, directory, full, minutes)
    began = time.monotonic()
    try:
        found.run(trial)
    except (Absent, pytest.skip.Exception) as reason:
        trial.outcome.absent = str(reason)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a failed wait of tests/servers.py is one; it is the verdict
        notes = "\n".join(getattr(error, "__notes__", ()))
        where = _where(error)
        trial.outcome.violations.append(f"{type(error).__name__}: {error} ({where})\n{notes}".strip())
    trial.outcome.seconds = round(time.monotonic() - began, 1)
    return trial.outcome


def _where(error: BaseException) -> str:
    trace, found = error.__traceback__, ""
    while trace is not None:
        if "tests/faults" in trace.tb_frame.f_code.co_filename:
            found = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


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
