"""Rows 28, 29, 37 to 40 and 45: the disk, the clock, floods, backlogs and memory."""

import json
import os
import re
import resource
import shutil
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.faults.line import REMEMBERED_S, UNREACHABLE, Line
from tests.faults.matrix import Absent, row
from tests.faults.trial import Trial
from tests.servers import LOOPBACK, Mosquitto, wait_until
from tests.system.line import Oracle as Publisher
from tests.system.line import alerts_heard, listener, message, now_ms

MIB = 2**20
SHIM = Path(__file__).with_name("shim.c")
STOPPED = "stopped"
TELLS: dict[str, str | None] = {"retain_available": "true"}
"""Figures of the broker itself are retained messages, told when they change."""


# -- what is done to a line -------------------------------------------------------------------------


@contextmanager
def small_disk(line: Line, mib: int) -> Iterator[None]:
    """The line's data directory on a disk of its own."""
    line.data.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", line.data], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    try:
        yield
    finally:
        line.end_everything()
        subprocess.run(["umount", line.data], check=True)


def fill(directory: Path) -> Path:
    """Take all that is left, as another program does."""
    filler = directory / "filler"
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(MIB))
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return filler


class Shim:
    """What stands between a worker and its disk and clock, once it was started within `preloaded`."""

    def __init__(self, trial: Trial) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise Absent("a failing disk needs a C compiler (cc) to be made")
        place = trial.place("shim")
        place.mkdir(parents=True)
        self.library, self._orders = place / "shim.so", place / "orders"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self.library, SHIM, "-ldl"], check=True)
        self._said = [0, 0, 0]
        self._orders.write_bytes(bytes(24))

    def _say(self, at: int, number: int) -> None:
        self._said[at] = number
        with self._orders.open("r+b") as file:
            file.write(struct.pack("=3q", *self._said))

    def clock_off(self, ms: int) -> None:
        self._say(0, ms)

    def slow(self, fsync_ms: int) -> None:
        self._say(1, fsync_ms)

    def fail(self, call: int) -> None:
        """1 fsync, 2 pwrite, 3 pread; 0 none."""
        self._say(2, call)

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        os.environ |= {"LD_PRELOAD": str(self.library), "SHIM_FILE": str(self._orders)}
        try:
            yield
        finally:
            del os.environ["LD_PRELOAD"], os.environ["SHIM_FILE"]


def pressure(line: Line) -> dict[str, Any]:
    return line.overview()["pipeline"]["pressure"]


def is_stopped(line: Line) -> bool:
    try:
        return pressure(line)["level"] == STOPPED
    except UNREACHABLE:
        return False


def stays_up(trial: Trial, line: Line, while_s: float) -> None:
    """It stops, and does not die of it."""
    time.sleep(REMEMBERED_S)
    pid, accepted = line.worker_id(), line.ledger()["accepted"]
    end = time.monotonic() + while_s
    while time.monotonic() < end:
        trial.must(line.worker_id() == pid, "the worker died of a full disk")
        trial.must(is_stopped(line), "it went on though there was no room")
        time.sleep(0.3)
    trial.must(line.ledger()["accepted"] == accepted, "it accepted what it has no room for")


def dropped_by(broker: Mosquitto) -> int:
    """What the broker says that it has dropped since it was started. It has to be one that `TELLS`: of figures that have
    never changed it says nothing."""
    done = subprocess.run(
        ["mosquitto_sub", "-i", "onlooker", "-h", LOOPBACK, "-p", str(broker.port), "-t", "$SYS/broker/publish/messages/#", "-v", "-W", "3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert "$SYS/broker/publish/messages/received" in said, f"the broker tells nothing of itself: {done.stderr}"
    return int(said.get("$SYS/broker/publish/messages/dropped", 0))


# -- the disk ---------------------------------------------------------------------------------------


@row(28, "the disk is full", lasts_s=40)
def disk_full(trial: Trial) -> None:
    """Journal and store on a disk that somebody else fills, again and again; once the worker is killed meanwhile."""
    with trial.mosquitto() as broker:
        line = trial.line(broker)
        with small_disk(line, 48), line, trial.oracle() as oracle:
            oracle.devices(8, broker.port)
            oracle.issue(10_000_000, per_s=150)
            for n in range(trial.scale(4, 20)):
                time.sleep(trial.chance.uniform(0.2, 1.5))
                filler = fill(line.data)
                wait_until(lambda: is_stopped(line), 20, "the line to stop")
                trial.happened("disk full")
                if n % 2:
                    before = line.worker_id()
                    trial.kill_worker(line, timed=False)
                    wait_until(lambda: line.worker_id() != before and line.ready(), 60, "a worker to start on a full disk")  # noqa: B023
                    wait_until(lambda: is_stopped(line), 20, "the line to stop")
                stays_up(trial, line, 2)
                filler.unlink()
                wait_until(lambda: not is_stopped(line), 20, "the line to go on")
            oracle.halt()
            oracle.wait_acknowledged()
            trial.judge(line, oracle)


@row("28e", "the disk is full under the embedded broker as well", lasts_s=60)
def disk_full_embedded(trial: Trial) -> None:
    line = trial.line()
    with small_disk(line, 96):
        with line, trial.oracle() as oracle:
            passwords = json.loads(line.command("credentials", "create", *(f"dev-{n}" for n in range(4)), "--json").stdout)
            port = int((line.data / "credentials" / "broker.port").read_text())
            oracle.devices(4, port, passwords=passwords, version=4)
            oracle.issue(10_000_000, per_s=100)
            for _ in range(trial.scale(2, 10)):
                time.sleep(trial.chance.uniform(0.5, 2))
                filler = fill(line.data)
                wait_until(lambda: is_stopped(line), 20, "the line to stop")
                trial.happened("disk full")
                stays_up(trial, line, 3)
                filler.unlink()
                wait_until(lambda: not is_stopped(line), 20, "the line to go on")
            oracle.halt()
            oracle.wait_acknowledged()
            trial.judge(line, oracle, probe_within_s=30)


@row("28q", "no file may become longer", lasts_s=30)
def files_too_long(trial: Trial) -> None:
    """RLIMIT_FSIZE: SQLite calls that an I/O error; so do a full quota and the longest file of some disks."""
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=300)
        for _ in range(trial.scale(3, 20)):
            time.sleep(trial.chance.uniform(0.5, 1.5))
            pid = line.worker_pid
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            wait_until(lambda: is_stopped(line), 30, "the line to stop")
            trial.happened("no file may grow")
            stays_up(trial, line, 2)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            wait_until(lambda: not is_stopped(line), 20, "the line to go on")
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(29, "the journal's disk fails (EIO)", lasts_s=60)
def disk_fails(trial: Trial) -> None:
    """In fsync, in writing, in reading. The worker ends with 74 at once; what it had not on disk was not acknowledged."""
    shim = Shim(trial)
    with trial.mosquitto() as broker, shim.preloaded(), trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=300)
        for n in range(trial.scale(6, 60)):
            time.sleep(trial.chance.uniform(0.2, 1.5))
            before, ends = line.worker_id(), line.logged("code=74")
            shim.fail((1, 2, 1, 2, 3, 1)[n % 6])
            # a page that is in memory is not read from the disk, so reading may not fail for long
            with suppress(BaseException):
                wait_until(lambda: line.logged("code=74") > ends, 8, "the worker to end with 74")  # noqa: B023
                trial.happened("disk failed")
            shim.fail(0)
            line.wait_for(lambda seen: seen["pipeline"]["broker"]["connected"], 60, "a worker to serve")
            trial.must(line.worker_id() != before or n % 6 == 4, "the worker went on after its disk had failed")
        trial.must_have_happened("disk failed", trial.scale(5, 50))
        trial.must(line.logged("code=70") == 0, "a failed disk was taken for a defect")
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row("28s", "every fsync takes 200 ms", lasts_s=30)
def slow_disk(trial: Trial) -> None:
    shim = Shim(trial)
    with trial.mosquitto() as broker, shim.preloaded(), trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(20, broker.port)
        shim.slow(200)
        oracle.issue(trial.scale(4_000, 40_000), per_s=300)
        oracle.wait_issued()
        metrics = line.request("GET", "/metrics")[2].decode()
        counts = {said.split()[0]: float(said.split()[1]) for said in metrics.splitlines() if said.startswith("microcurrent_commit_seconds")}
        mean_s = counts["microcurrent_commit_seconds_sum"] / counts["microcurrent_commit_seconds_count"]
        trial.figure("commit_ms", round(mean_s * 1000))
        trial.must(counts['microcurrent_commit_seconds_bucket{le="0.1"}'] < counts["microcurrent_commit_seconds_count"], "slow commits are not visible")
        trial.must(line.overview()["pipeline"]["commit_ms"] > 150, "slow commits are not in the overview")
        said = re.search(r"a commit takes ([0-9.]+) ms", line.command("status").stdout)
        trial.must(said is not None and float(said[1]) > 150, "slow commits are not in 'status'")
        trial.happened("slow commits")
        oracle.wait_acknowledged()
        shim.slow(0)
        trial.judge(line, oracle)


# -- the clock --------------------------------------------------------------------------------------


@row(37, "the machine's clock is set by an hour", lasts_s=40)
def clock_set(trial: Trial) -> None:
    """Forward, back, and by a second and a half. Nothing waits for it, and somebody is told."""
    shim = Shim(trial)
    with trial.mosquitto() as broker, shim.preloaded(), trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(6, broker.port)
        oracle.issue(10_000_000, per_s=200)
        for off_ms in (3_600_000, 0, -3_600_000, 0):
            time.sleep(trial.chance.uniform(1, 2))
            steps = line.logged("host_clock_step")
            shim.clock_off(off_ms)
            wait_until(lambda: line.logged("host_clock_step") > steps, 10, "the step to be noticed")  # noqa: B023
            trial.happened("clock set")
            acked = oracle.status()["acked"]
            wait_until(lambda: oracle.status()["acked"] > acked + 200, 10, "durable acknowledgements to go on")  # noqa: B023
            stored = line.ledger()["stored"]
            line.wait_for(lambda seen: seen["ledger"]["stored"] > stored + 100, 15, "messages to be stored")  # noqa: B023
            trial.must(line.ready(), "the worker was cut off by a clock")
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


# -- floods and backlogs ------------------------------------------------------------------------------


class Calm:
    """Quiet devices beside a flood: how long from a danger to its alert."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._boot = 0

    def latencies_ms(self, count: int, within_s: float) -> list[float]:
        """One new device each time, so that each danger is an alert of its own; no more of them after so long."""
        end = time.monotonic() + within_s
        self._boot += 1
        took = []
        with listener(self._port, "mc/v1/+/alert", client_id=f"calm-{self._boot}") as heard, Publisher(self._port, client_id=f"calm-out-{self._boot}") as out:
            for n in range(count):
                if took and time.monotonic() > end:
                    break
                device_id, began = f"calm-{self._boot}-{n}", time.monotonic()
                out.publish_raw(f"mc/v1/{device_id}/current", message(0, ts_ms=now_ms(), i_peak_ua=900.0))
                at = wait_until(
                    lambda: next((at for at, on, _ in list(heard) if f"/{device_id}/" in on), None), 120, f"the alert of {device_id}"  # noqa: B023
                )
                took.append((at - began) * 1000)
                time.sleep(0.1)
            assert len(alerts_heard(heard)) >= len(took)
        return took


USUAL_PER_S = 5
"""So many messages a device sends in a second of use."""

TOLD_WITHIN_MS = 2_000
"""What an alert may take."""


class Flood:
    """So many devices, each at a rate, or (None) as fast as the broker takes it."""

    def __init__(self, port: int, devices: int, per_s: float | None, boot_id: int) -> None:
        self._port, self._per_s, self._boot_id = port, per_s, boot_id
        self._going = threading.Event()
        self._going.set()
        self.sent = 0
        self._threads = [threading.Thread(target=self._publish, args=(f"flood-{n}",)) for n in range(devices)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going.clear()
        for thread in self._threads:
            thread.join()

    def _publish(self, device_id: str) -> None:
        with Publisher(self._port, client_id=device_id) as out:
            seq, began = 0, time.monotonic()
            while self._going.is_set():
                if seq - len(out.acked) < 400 and (self._per_s is None or seq < self._per_s * (time.monotonic() - began)):
                    out.publish(device_id, seq, boot_id=self._boot_id)
                    seq += 1
                else:
                    time.sleep(0.001)
            wait_until(lambda: len(out.acked) == seq, 120, "every PUBACK")
            self.sent += seq


def floods(trial: Trial, *kinds: tuple[str, int, float | None]) -> None:
    """Quiet devices speak of danger: when nobody else speaks, and in each flood (its name, its devices, messages/s of each)."""
    with trial.mosquitto(settings=TELLS) as broker, trial.line(broker) as line:
        calm, count, within_s = Calm(broker.port), trial.scale(20, 100), trial.scale(15, 120)
        took = {"normal": calm.latencies_ms(count, within_s)}
        sent = 0
        for boot_id, (name, devices, per_s) in enumerate(kinds, 1):
            with Flood(broker.port, devices, per_s, boot_id) as flood:
                time.sleep(2)
                took[name] = calm.latencies_ms(count, within_s)
                page = line.request("GET", "/api/overview")[0]
            trial.must(page == 200, "the page did not answer")
            trial.must(statistics.median(took[name]) <= TOLD_WITHIN_MS, f"{name}: dangers of others take {statistics.median(took[name]):.0f} ms")
            trial.happened("flood")
            trial.figure(f"{name}_messages", flood.sent)
            sent += flood.sent
        dangers = sum(len(each) for each in took.values())
        ledger = line.wait_settled(sent + dangers, 300)
        trial.must(ledger["stored"] + ledger["duplicate"] == ledger["accepted"] == sent + dangers, f"something is missing: {ledger}, sent {sent}")
        trial.must(line.overview()["pipeline"]["set_aside"]["messages"] == 0, "something is set aside still")
        trial.must(dropped_by(broker) == 0, "the broker dropped messages")
        trial.must(trial.outcome.rss_mb <= 300, f"I9: {trial.outcome.rss_mb:.0f} MB RSS")
        trial.outcome.messages += sent
        for name, each in took.items():
            trial.figure(f"{name}_p50_ms", round(statistics.median(each), 1))
            trial.figure(f"{name}_max_ms", round(max(each), 1))


@row(38, "one device floods", lasts_s=60, alone=True)
def one_floods(trial: Trial) -> None:
    """A hundred times what it usually sends; then all that the broker takes."""
    floods(trial, ("100_times", 1, 100 * USUAL_PER_S), ("all_it_can", 1, None))


@row("38a", "all devices flood", lasts_s=40, alone=True)
def all_flood(trial: Trial) -> None:
    """Twenty, each ten times what it usually sends."""
    floods(trial, ("10_times", 20, 10 * USUAL_PER_S))


@row("38u", "four devices send all that the broker takes", lasts_s=120, daily=False, alone=True)
def four_flood(trial: Trial) -> None:
    floods(trial, ("all_they_can", 4, None))


@row(39, "a giant backlog is in the broker while no worker runs", lasts_s=90)
def backlog(trial: Trial) -> None:
    with trial.mosquitto(settings=TELLS) as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(20, broker.port, durable=False)
        count = trial.scale(30_000, 1_000_000)
        line.leave_only_the_broker()
        oracle.issue(count, per_s=0)
        oracle.wait_acknowledged(600)
        trial.happened("messages in the broker's queue", count)
        began = time.monotonic()
        line.thaw()
        line.wait_for(lambda seen: seen["ledger"]["accepted"] > 0, 60, "the first to be accepted")
        trial.figure("accepting_s", round(time.monotonic() - began, 2))
        line.wait_for(lambda seen: seen["ledger"]["stored"] >= count, 1_800, "the backlog to be stored")
        trial.figure("drained_per_s", round(count / (time.monotonic() - began)))
        trial.must(dropped_by(broker) == 0, "the broker dropped messages")
        trial.judge(line, oracle)


@row(40, "the broker's queue is too short", lasts_s=30)
def queue_too_short(trial: Trial) -> None:
    """It says 'Success' and drops; a device that believes it has lost them. What lacks is reported, exactly."""
    with trial.mosquitto(settings=TELLS | {"max_queued_messages": "1000"}) as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(6, broker.port, durable=False)
        oracle.issue(600, per_s=0)
        oracle.wait_acknowledged()
        wait_until(lambda: line.ledger()["stored"] == 600, 30, "the first to be stored")
        line.leave_only_the_broker()
        oracle.issue(6_000, per_s=0)
        oracle.wait_acknowledged()
        line.thaw()
        line.wait_ready()
        trial.judge(line, oracle, may_lose=True)
        dropped = dropped_by(broker)
        trial.happened("dropped by the broker", dropped)
        trial.must_have_happened("dropped by the broker", 1_000)
        lost = trial.outcome.figures["lost with the broker"]
        trial.must(lost == dropped, f"{lost:.0f} are reported as missing, and {dropped} were dropped")


# -- memory -----------------------------------------------------------------------------------------


@row(45, "no more memory is to be had", lasts_s=40)
def no_memory(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(12, broker.port, dangerous_every=40)
        oracle.issue(10_000_000, per_s=100)
        for _ in range(trial.scale(4, 40)):
            time.sleep(trial.chance.uniform(0.5, 1.5))
            pid = line.worker_pid
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (size + trial.chance.randrange(4) * MIB, size + 4 * MIB))
            try:
                wait_until(lambda: line.worker_id() != pid and line.ready(), 30, "a worker that found no memory to be followed by another")  # noqa: B023
                trial.happened("ended for want of memory")
            except BaseException:  # it got by with what it had
                trial.kill_worker(line)
        trial.must_have_happened("ended for want of memory")
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)
