"""Row 46: everything at once, for as long as it is told. `make faults-soak MINUTES=60`."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.faults.chaos import Chaos
from tests.faults.influx import Answer, FakeInflux, refused
from tests.faults.line import UNREACHABLE, Line, open_files, rss_mb
from tests.faults.matrix import row
from tests.faults.oracle_client import Oracle
from tests.faults.trial import Trial
from tests.servers import Mosquitto

PACE = 150.0
KEEPALIVE_S = 5


@row(46, "everything mixed: 1, 7, 9, 10, 15, 16, 19, 20, 33, 35", lasts_s=120)
def soak(trial: Trial) -> None:
    """Two lines on a broker and a network each: one whose worker dies, too, and writes to InfluxDB; and one whose worker is
    never killed and keeps DuckDB, on which memory and open files are watched."""
    with ExitStack() as stack:
        store = stack.enter_context(FakeInflux())
        dying = Side(trial, stack, store)
        steady = Side(trial, stack, None)
        watch = Watch(steady.line)
        faults: list[tuple[str, Callable[[Side], None]]] = [
            ("broker killed, saved state kept", lambda side: side.kill_broker(keep=True)),
            ("broker killed, session lost", lambda side: side.kill_broker(keep=False)),
            ("worker's connection cut mid-packet", lambda side: side.near.cut_after(trial.chance.randint(1, 5_000))),
            ("devices' connections cut mid-packet", lambda side: side.far.cut_after(trial.chance.randint(1, 5_000))),
            ("worker's way half-open", lambda side: side.silence(side.near)),
            ("devices' way half-open", lambda side: side.silence(side.far)),
            ("devices rebooted", lambda side: side.reboot()),
        ]
        deadly: list[tuple[str, Callable[[Side], None]]] = [
            ("worker killed", lambda side: trial.kill_worker(side.line, timed=trial.chance.random() < 0.7)),
            ("worker killed twice", lambda side: (trial.kill_worker(side.line, timed=False), time.sleep(0.3), trial.kill_worker(side.line, timed=False))),
            ("run stopped and started", lambda side: (side.line.stop(), side.line.start())),
            ("store down", lambda side: setattr(store, "script", lambda n, lines: refused(503))),
            ("store well", lambda side: store.heal()),
            ("store at random", lambda side: setattr(store, "script", at_random)),
        ]

        def at_random(number: int, lines: list[str]) -> Answer | None:
            if trial.chance.random() > 0.3:
                return None
            return trial.chance.choice((refused(500), refused(502), refused(429, Retry_After="1"), Answer(hangs_up=True), Answer(status=0, keeps=False, hangs_up=True)))

        until = time.monotonic() + 60 * trial.minutes
        while time.monotonic() < until:
            side = trial.chance.choice((dying, steady))
            name, work = trial.chance.choice(faults + deadly * 2 if side is dying else faults)
            work(side)
            trial.happened(name)
            time.sleep(trial.chance.uniform(0.5, 4.0))
            for each in (dying, steady):
                assert each.line.running, f"the run has ended: {each.line.tail(5)}"
        store.heal()
        for side in (dying, steady):
            side.mend()
        for side in (dying, steady):
            side.oracle.halt()
        for side in (dying, steady):
            side.oracle.wait_acknowledged(300)
        watch.stop()
        trial.figure("RSS slope MB/h", round(watch.slope_mb_per_h(), 1))
        trial.figure("RSS MB at the end", round(watch.seen[-1][1], 1))
        trial.figure("open files at least", min(files for _, _, files in watch.seen[1:]))
        trial.figure("open files at most", max(files for _, _, files in watch.seen[1:]))
        trial.must(trial.outcome.figures["open files at most"] <= trial.outcome.figures["open files at least"] + 16, "I9: open files grow")
        trial.must(steady.line.logged("event=restarting child=worker") == 0, "the worker that nobody killed has died")
        trial.judge(dying.line, dying.oracle, store)
        trial.judge(steady.line, steady.oracle)


class Side:
    """A broker, a bad network on both sides of it, a line and its devices."""

    def __init__(self, trial: Trial, stack: ExitStack, store: FakeInflux | None) -> None:
        self.trial = trial
        self.broker: Mosquitto = stack.enter_context(trial.mosquitto(settings={"autosave_interval": "1"}))
        self.near = stack.enter_context(Chaos(self.broker.port))
        self.far = stack.enter_context(Chaos(self.broker.port))
        self.line: Line = stack.enter_context(trial.line(self.near, store, mqtt_keepalive_s=KEEPALIVE_S))
        self.oracle: Oracle = stack.enter_context(trial.oracle())
        self.ids = self.oracle.devices(8, self.far.port, births=True, dangerous_every=400, keepalive_s=KEEPALIVE_S)
        self.oracle.devices(2, self.far.port, prefix="twice", repeat=3, keepalive_s=KEEPALIVE_S)
        self.oracle.issue(100_000_000, per_s=PACE)

    def kill_broker(self, keep: bool) -> None:
        self.broker.kill()
        self.trial.outcome.kills += 1
        time.sleep(self.trial.chance.uniform(0, 1))
        if not keep:
            self.broker.data.unlink(missing_ok=True)
        self.broker.start()

    def silence(self, way: Chaos) -> None:
        way.fall_silent()
        time.sleep(self.trial.chance.uniform(1, 2 * KEEPALIVE_S))
        way.heal()

    def reboot(self) -> None:
        self.oracle.call("reboot", ids=self.trial.chance.sample(self.ids, 2), clock_ms=self.trial.chance.choice((None, 1_000)))

    def mend(self) -> None:
        self.near.heal()
        self.far.heal()
        if not self.broker.running:
            self.broker.start()


class Watch:
    """Memory and open files of a worker, every two seconds."""

    def __init__(self, line: Line) -> None:
        self.seen: list[tuple[float, float, int]] = []
        self._line = line
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def slope_mb_per_h(self) -> float:
        """Least squares over the second half: the first fills what is filled once."""
        some = self.seen[len(self.seen) // 2 :]
        mean_t, mean_mb = (sum(column) / len(some) for column in list(zip(*some, strict=True))[:2])
        spread = sum((t - mean_t) ** 2 for t, _, _ in some) or 1.0
        return 3600 * sum((t - mean_t) * (mb - mean_mb) for t, mb, _ in some) / spread

    def _run(self) -> None:
        while not self._stopping.wait(2.0):
            try:
                pid = self._line.worker_pid
                self.seen.append((time.monotonic(), rss_mb(pid), open_files(pid)))
            except UNREACHABLE:
                continue
