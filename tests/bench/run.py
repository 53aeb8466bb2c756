"""How fast, how promptly and at what cost: the real worker between a real broker and a real store.

    make bench                     everything, about two minutes
    make bench ARGS="--only duckdb --seconds 30"

Each part has a process of its own: the fleet (`load.py`), Mosquitto, the worker as its command
starts it, InfluxDB. Everything is on loopback and on disk as in production: the journal is
fsynced before each acknowledgement, and a message counts once the store has confirmed it.

Ends with 1 if a message was lost, with 2 if it could not measure; no figure makes it fail.
"""

import argparse
import json
import os
import platform
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from ingest.client import Remote, address_of  # noqa: E402
from ingest.journal import FILE_NAME  # noqa: E402
from tests.servers import InfluxDB, Mosquitto, Server, installed  # noqa: E402

SAMPLES = 5
RATE = 2_000
ALARMS = 20
WARM_UP_S = 1.0
DRAIN_S = 300.0
QUIET = 0.1
"""Share of one processor that other programs may use without being mentioned."""

START_S = 30.0
TICK = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


class Lost(Exception):
    """A message that the broker had acknowledged is not in the store."""


class CannotMeasure(Exception):
    """A part did not start or did not go on; the sentence is for a person."""


# -- processes ----------------------------------------------------------------------------------------


class Part:
    """A process of the bench: says one line when it is ready, and one when its input is closed."""

    def __init__(self, script: str, *options: object) -> None:
        command = [sys.executable, str(HERE / script), *map(str, options)]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasure(f"{script} ended with code {self._process.wait()}")
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    def finish(self) -> Any:
        said, _ = self._process.communicate(timeout=60)
        if self._process.returncode:
            raise CannotMeasure(f"{self._process.args[1]} ended with code {self._process.returncode}")
        return json.loads(said) if said.strip() else None

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def environment(**settings: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MICROCURRENT_")}
    named = {f"MICROCURRENT_{name.upper()}": str(value) for name, value in settings.items()}
    return {**kept, **named, "PYTHONPATH": str(ROOT)}


class Engine(InfluxDB):
    """InfluxDB behind a door of its own process instead of a thread of this one."""

    def start(self) -> "Engine":
        Server.start(self)
        self.prepare()
        self.door = Part("door.py", "--to", self.port, "--buckets", json.dumps(self.buckets))
        self.url = f"http://127.0.0.1:{self.door.ready['port']}"
        return self

    def _end(self, how: signal.Signals) -> None:
        self.door.__exit__()
        super()._end(how)


class Worker:
    """`microcurrent worker`, as its supervisor starts it."""

    def __init__(self, directory: Path, broker_port: int, engine: Engine | None) -> None:
        self.data_dir = directory / "worker"
        settings: dict[str, object] = {
            "data_dir": self.data_dir, "broker": "external", "mqtt_port": broker_port, "http_port": 0, "store": "duckdb",
        }  # fmt: skip
        if engine is not None:
            token = directory / "token"
            token.write_text("bench")
            settings |= {
                "store": "influxdb", "influx_url": engine.url, "influx_bucket": engine.database,
                "influx_long_bucket": engine.long_bucket, "influx_token_file": token,
            }  # fmt: skip
        self.log = directory / "worker.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ingest.cli", "worker"],
                cwd=ROOT, env=environment(**settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        address = until(lambda: self._alive() and address_of(self.data_dir), START_S, "the worker to start")
        self._remote = Remote(address)
        until(lambda: self.overview()["pipeline"]["broker"]["connected"], START_S, "the worker to subscribe")
        self._journal = sqlite3.connect(f"file:{self.data_dir / FILE_NAME}?mode=ro", uri=True, isolation_level=None)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _alive(self) -> bool:
        if self._process.poll() is not None:
            raise CannotMeasure(f"the worker ended with code {self._process.returncode}:\n{self.log.read_text()[-2000:]}")
        return True

    def overview(self) -> dict[str, Any]:
        return self._remote.overview()

    def reconcile(self) -> dict[str, Any]:
        """The journal against what the store really holds, message by message."""
        return self._remote.reconcile()

    def settled(self) -> int:
        """Messages that the store has confirmed, or that were set aside: read from its journal, at no cost to it."""
        self._alive()
        (count,) = self._journal.execute(
            "SELECT sum(value) FROM meta WHERE key IN ('stored', 'duplicate', 'quarantined')"
        ).fetchone()
        return count

    def kill(self) -> None:
        self._journal.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def until(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    end = time.monotonic() + deadline_s
    while not (met := condition()):
        if time.monotonic() > end:
            raise CannotMeasure(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.02)
    return met


def cpu_s(pid: int) -> float | None:
    """Processor time of a process so far, where the system tells."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(after_name[11]) + int(after_name[12])) / TICK


def machine_cpu_s() -> float | None:
    """Processor time of everything on this machine so far."""
    try:
        user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    except OSError:
        return None
    return (user + nice + system + irq + soft) / TICK


def most_rss_mb(pid: int) -> float | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


class Meter:
    """Processor time of the parts, from its making on; `others` is what else ran on this machine."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids
        self._began = time.monotonic()
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}
        self._before_all = machine_cpu_s() or 0.0

    def read(self) -> dict[str, float]:
        """Processors in use since then, by part."""
        took_s = time.monotonic() - self._began
        after = {name: cpu_s(pid) for name, pid in self._pids.items()}
        spent = {n: s - self._before[n] for n, s in after.items() if s is not None and self._before[n] is not None}
        if (all_s := machine_cpu_s()) is not None:
            spent["others"] = max(0.0, all_s - self._before_all - sum(spent.values()))
        return {name: round(s / took_s, 3) for name, s in spent.items()}


# -- measurements -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Row:
    """One line of the table."""

    what: str
    unit: str
    figure: float
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if (self.figure <= self.target) == self.at_most or self.figure == self.target else "missed"


@dataclass(slots=True)
class Result:
    """One measurement: its rows, and everything else that is known of it."""

    name: str
    rows: list[Row]
    cpu: dict[str, float]
    """Processors in use, by part; `others` is what else ran on this machine."""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    seconds: float
    devices: int
    directory: Path
    reconcile: bool = False
    ceilings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def _place(self, name: str, store: str | None = None) -> Iterator[tuple[Path, Mosquitto, Engine | None]]:
        """A fresh broker, and a fresh engine if it is asked for."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.directory) as made, ExitStack() as stack:
            directory = Path(made)
            engine = stack.enter_context(Engine(directory / "influxdb")) if store == "influxdb" else None
            yield directory, stack.enter_context(Mosquitto(directory / "mosquitto")), engine

    def ceiling(self, through: str) -> Result:
        """A consumer that keeps nothing, behind the same broker, under the same load."""
        with self._place(through) as (_, broker, _), Part("ceiling.py", through, "--port", broker.port) as consumer:
            with Part("load.py", "--port", broker.port, "--devices", self.devices) as fleet:
                meter = Meter(consumer=consumer.pid, mosquitto=broker.pid, load=fleet.pid)
                time.sleep(self.seconds)
                cpu = meter.read()
                sent = fleet.finish()
                time.sleep(1.0)
                took = consumer.finish()
        rate = took["messages"] / (took["last"] - took["first"])
        self.ceilings[through] = rate
        what = {"paho": "a consumer that keeps nothing: paho alone", "receiver": "a consumer that keeps nothing: the worker's receiver"}
        return Result(through, [Row(what[through], "messages/s", rate, note=_shares(cpu))], cpu, {"sent": sent["sent"], **took})

    def sustained(self, store: str) -> Result:
        """Full speed into a store, until the last message is in it."""
        with self._place(store, store) as (directory, broker, engine), Worker(directory, broker.port, engine) as worker:
            with Part("load.py", "--port", broker.port, "--devices", self.devices, "--boot", os.getpid()) as fleet:
                pids = {"worker": worker.pid, "mosquitto": broker.pid}
                if engine:
                    pids |= {"influxd": engine.pid, "door": engine.door.pid}
                meter = Meter(**pids)
                time.sleep(self.seconds)
                sent = fleet.finish()
            ended = self._drain(worker, sent["acked"])
            cpu, rss = meter.read(), most_rss_mb(worker.pid)
            ledger = worker.overview()["ledger"]
            found = worker.reconcile() if self.reconcile else None
        self._check(store, sent, ledger)
        if found is not None and not found["ok"]:
            raise Lost(f"{store}: the store does not hold what the journal says: {found}")
        took = ended - sent["began"]
        rate = ledger["stored"] / took
        cpu["load"] = round(sent["cpu_s"] / took, 3)
        cpu["others"] = max(0.0, round(cpu.get("others", 0.0) - cpu["load"], 3))
        detail = {**sent, "ledger": ledger, "took_s": took, "drain_s": ended - sent["ended"], "rss_mb": rss}
        rows = [
            Row(f"stored in {store}", "messages/s", rate, 5_000, note=f"{ledger['stored']} messages, 0 lost; {_shares(cpu)}"),
            Row(f"stored in {store}", "samples/s", rate * SAMPLES),
        ]
        if "paho" in self.ceilings:
            rows.append(Row(f"stored in {store}", "% of paho alone", 100 * rate / self.ceilings["paho"]))
        if "worker" in cpu:
            rows.append(Row(f"worker into {store}", "µs CPU/message", cpu["worker"] * took / ledger["stored"] * 1e6))
        if rss is not None:
            rows.append(Row(f"worker into {store}", "MB RSS at most", rss, 300, at_most=True))
        return Result(store, rows, cpu, detail)

    def latency(self, store: str) -> Result:
        """2,000 messages a second, 20 of them dangerous."""
        with self._place("latency", store) as (directory, broker, engine), Part("tap.py", "--to", broker.port) as tap:
            with Worker(directory, tap.ready["port"], engine) as worker:
                load = ["--port", broker.port, "--devices", self.devices, "--boot", os.getpid(), "--rate", RATE, "--alarms", ALARMS]
                with Part("load.py", *load) as fleet:
                    meter = Meter(worker=worker.pid, mosquitto=broker.pid, load=fleet.pid, tap=tap.pid)
                    time.sleep(self.seconds + WARM_UP_S)
                    cpu = meter.read()
                    sent = fleet.finish()
                self._drain(worker, sent["acked"])
                ledger = worker.overview()["ledger"]
            pubacks = tap.finish()
        self._check(store, sent, ledger)
        if sent["alerts_missing"]:
            raise Lost(f"{sent['alerts_missing']} alerts never came")
        first = pubacks[0][0]
        puback_ms = sorted(took * 1000 for at, took in pubacks if at - first >= WARM_UP_S)
        alert_ms = sorted(took * 1000 for at, took in sent["alerts"] if at >= WARM_UP_S)
        rate = sent["sent"] / (sent["ended"] - sent["began"])
        note = f"{rate:.0f} messages/s; {_shares(cpu)}"
        rows = [
            *_spread(f"delivery → PUBACK, {store}", puback_ms, 50, f"{len(puback_ms)} messages at {note}"),
            *_spread(f"publish → alert, {store}", alert_ms, 250, f"{len(alert_ms)} alerts"),
        ]
        return Result(f"latency-{store}", rows, cpu, {"ledger": ledger, "rate": rate})

    def _drain(self, worker: Worker, messages: int) -> float:
        """Wait until the worker has settled so many messages; returns when it had."""
        deadline = time.time() + DRAIN_S
        while worker.settled() < messages:
            if time.time() > deadline:
                raise Lost(f"after {DRAIN_S:g} s the worker had settled {worker.settled()} of {messages} messages")
            time.sleep(0.02)
        return time.time()

    def _check(self, store: str, sent: dict[str, Any], ledger: dict[str, int]) -> None:
        expected = (sent["sent"], 0, sent["sent"], 0)
        found = (sent["acked"], ledger["pending"], ledger["stored"], ledger["quarantined"])
        if expected != found or ledger["accepted"] - ledger["duplicate"] != sent["sent"]:
            raise Lost(f"{store}: {sent['sent']} sent, {sent['acked']} acknowledged by the broker, but the ledger says {ledger}")


def _spread(what: str, ms: list[float], target: float, note: str) -> list[Row]:
    cuts = statistics.quantiles(ms, n=100, method="inclusive")
    return [
        Row(what, "ms p50", cuts[49], note=note),
        Row(what, "ms p99", cuts[98], target, at_most=True),
        Row(what, "ms at most", ms[-1]),
    ]


def _shares(cpu: dict[str, float]) -> str:
    return "processor: " + ", ".join(f"{name} {share:.0%}" for name, share in cpu.items())


# -- what is told -------------------------------------------------------------------------------------


def machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "mosquitto": _version("mosquitto", "-h"),
        "influxd": _version("influxd", "version"),
        "duckdb": version("duckdb"),
        "paho-mqtt": version("paho-mqtt"),
        "fsync_ms": round(_fsync_ms(directory), 2),
        "load": round(os.getloadavg()[0], 2),
    }


def _version(program: str, *asked: str) -> str | None:
    """The first number that a program says of itself; None if it is not installed."""
    try:
        said = subprocess.run([installed(program), *asked], capture_output=True, text=True, check=False).stdout
    except (pytest.skip.Exception, pytest.fail.Exception):
        return None
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _fsync_ms(directory: Path) -> float:
    """Median time to put 64 kB on this disk; next to nothing means that it is no disk."""
    with tempfile.TemporaryFile(dir=directory) as file:
        took = []
        for _ in range(50):
            file.write(os.urandom(65_536))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


NOTE = (
    "Load, broker, worker and store share this machine. InfluxDB 1.x has no v2 write path here: a small proxy "
    "process rewrites the request line, and its cost is part of the figure."
)


def _disturbed(results: list[Result]) -> str:
    """What else ran on this machine takes away from the figures; say so."""
    share = max((r.cpu.get("others", 0.0) for r in results), default=0.0)
    return f"Other programs used up to {share:.0%} of one processor meanwhile." if share > QUIET else ""


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"


def _goal(row: Row) -> str:
    return "" if row.target is None else f"{'≤' if row.at_most else '≥'} {row.target:,.0f}"


def table(results: list[Result], about: dict[str, Any], markdown: bool) -> str:
    rows = [row for result in results for row in result.rows]
    cells = [("measured", "figure", "unit", "target", "", "how")]
    cells += [(r.what, _number(r.figure), r.unit, _goal(r), r.verdict, r.note) for r in rows]
    known = ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
    said = f"{NOTE} {_disturbed(results)}".rstrip()
    if markdown:
        lines = ["| " + " | ".join(line[:5]) + " |" for line in cells]
        lines.insert(1, "|---|--:|---|--:|---|")
        return "\n".join([*lines, "", f"{known}. {said}"])
    widths = [max(len(line[at]) for line in cells) for at in range(5)]
    right = (1, 3)
    lines = [
        "  ".join(c.rjust(w) if at in right else c.ljust(w) for at, (c, w) in enumerate(zip(line, widths, strict=False)))
        + f"  {line[5]}"
        for line in cells
    ]
    return "\n".join([known, said, "", *(line.rstrip() for line in lines)])


def at_least_two(said: str) -> float:
    if not (seconds := float(said)) >= 2:
        raise argparse.ArgumentTypeError("less than 2 seconds tell nothing")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("paho", "receiver", "duckdb", "influxdb", "latency-duckdb", "latency-influxdb")
    parser.add_argument("--seconds", type=at_least_two, default=10, help="how long each measurement publishes (default 10)")
    parser.add_argument("--devices", type=int, default=200, help="how many devices publish in turn (default 200)")
    parser.add_argument("--only", choices=names, action="append", help="this measurement; may be given more than once")
    parser.add_argument("--repeat", type=int, default=1, help="measure so many times and keep the best")
    parser.add_argument("--reconcile", action="store_true", help="also compare each store with the journal, message by message")
    parser.add_argument("--directory", type=Path, default=None, help="where data are written; the system's place for temporary files when absent")
    parser.add_argument("--json", action="store_true", help="answer with JSON, for programs")
    parser.add_argument("--markdown", action="store_true", help="answer with a Markdown table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="microcurrent-bench-", dir=options.directory) as made:
        bench = Bench(options.seconds, options.devices, Path(made), options.reconcile)
        measure: dict[str, Callable[[], Result]] = {
            "paho": lambda: bench.ceiling("paho"),
            "receiver": lambda: bench.ceiling("receiver"),
            "duckdb": lambda: bench.sustained("duckdb"),
            "influxdb": lambda: bench.sustained("influxdb"),
            "latency-duckdb": lambda: bench.latency("duckdb"),
            "latency-influxdb": lambda: bench.latency("influxdb"),
        }
        about = machine(Path(made))
        results: list[Result] = []
        lost, broken = [], False
        for name in options.only or names:
            sys.stderr.write(f"measuring {name} …\n")
            try:
                results.append(_best([measure[name]() for _ in range(options.repeat)]))
            except Lost as problem:
                lost.append(f"{name}: {problem}")
            except pytest.skip.Exception as absent:
                sys.stderr.write(f"{name} left out: {absent}\n")
            except (CannotMeasure, pytest.fail.Exception) as problem:
                sys.stderr.write(f"{name} not measured: {problem}\n")
                broken = True
    if options.json:
        print(json.dumps({"machine": about, "lost": lost, "results": [asdict(r) for r in results]}, ensure_ascii=False))
    else:
        print(table(results, about, options.markdown))
    for sentence in lost:
        sys.stderr.write(f"LOST: {sentence}\n")
    return 1 if lost else 2 if broken else 0


def _best(results: list[Result]) -> Result:
    """The run that this machine's other work disturbed least."""
    first = results[0].rows[0]
    if first.unit == "messages/s":
        return max(results, key=lambda r: r.rows[0].figure)
    return min(results, key=lambda r: r.rows[1].figure)


if __name__ == "__main__":
    sys.exit(main())
