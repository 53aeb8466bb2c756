"""Keep the processes of one installation running: the embedded broker and the worker.

A worker that dies starts again; everything it owes is in its journal. A worker that was told of a
person's mistake does not.
"""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ingest import observe, systemd
from ingest.embedded import broker
from ingest.errors import EXIT_THREAD, Mistake
from ingest.lock import own
from ingest.network import can_listen, free_port
from ingest.settings import PREFIX, Broker, Settings
from ingest.tokens import check_access

if TYPE_CHECKING:
    from ingest.embedded.gate import Gate

SUPERVISED = "MICROCURRENT_SUPERVISED"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
STEADY_S = 30.0
TELL_S = 10.0
MOST_READ = 1_048_576
ENOUGH_BYTES = 67_108_864
"""With so much free, or a twentieth of the disk if that is less, the broker is started anew: it never uses more in
its life than what is free at its start."""

FINAL_CODES = frozenset({0, 2})
"""What a worker ends with when starting it again would change nothing."""


@dataclass(slots=True)
class Child:
    """One process to keep alive. `before` runs before each start; `stuck` tells of one that runs and only a new start helps."""

    name: str
    argv: list[str]
    env: dict[str, str] | None = None
    before: Callable[[], None] | None = None
    stuck: Callable[[], bool] | None = None
    log: Path | None = None
    final_codes: frozenset[int] = frozenset()
    stop_s: float = 20.0
    process: subprocess.Popen | None = None
    started: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    due: float | None = None
    """When to start it again, while it is down."""

    def start(self) -> None:
        if self.before:
            self.before()
        output = self.log.open("ab") if self.log else None
        # The child sees its standard input end when this process is gone, however it went.
        self.process = subprocess.Popen(
            self.argv, env=self.env, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
        if output:
            output.close()
        self.started = time.monotonic()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(self.stop_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Supervisor:
    """Starts children in order, restarts them, stops them in reverse."""

    def __init__(self, children: list[Child], lock: IO[str], gate: "Gate | None" = None) -> None:
        self.children = children
        self.gate = gate
        self._lock = lock
        self._stopping = threading.Event()
        self._turn = threading.Lock()  # nothing is started again while it is being stopped

    def start(self) -> None:
        if self.gate:
            self.gate.start()
        for child in self.children:
            child.start()

    def watch(self) -> int:
        """Until stopped, or until a child ends for good; returns the exit code."""
        systemd.tell("READY=1")
        told = 0.0
        while not self._stopping.wait(0.05):
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                systemd.tell("WATCHDOG=1")
            if self.gate and not self.gate.alive:
                return EXIT_THREAD
            with self._turn:
                for child in self.children:
                    code = child.process.poll()
                    if code is None and child.stuck and child.stuck():
                        observe.log().warning("stuck", child=child.name)
                        child.process.terminate()
                    if code is None or self._stopping.is_set():
                        continue
                    if code in child.final_codes:
                        return code
                    self._again(child, code)
        return 0

    def _again(self, child: Child, code: int) -> None:
        now = time.monotonic()
        if child.due is None:
            # One that was killed did nothing wrong; one that keeps failing is tried ever more slowly.
            if code < 0 or now - child.started > STEADY_S:
                child.pause_s = FIRST_PAUSE_S
            child.due = now + child.pause_s
            observe.log().warning("restarting", child=child.name, code=code, after_s=child.pause_s)
            child.pause_s = min(LONGEST_PAUSE_S, child.pause_s * 2)
        elif now >= child.due:
            child.due = None
            child.start()

    def request_stop(self, *_: object) -> None:
        self._stopping.set()

    def stop(self) -> None:
        self._stopping.set()
        systemd.tell("STOPPING=1")
        with self._turn:
            for child in reversed(self.children):
                child.stop()
        if self.gate:
            self.gate.stop()
        self._lock.close()


def supervisor_of(settings: Settings, worker_log: Path | None = None) -> Supervisor:
    """Everything that these settings call for, ready to start; one supervisor for a data directory."""
    check_access(settings)
    os.umask(0o077)
    with suppress(ValueError, OSError):  # the unit for systemd forbids the call, and sets the limit itself
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # passwords are in memory, and a core would be a file of it
    lock = own(settings.data_dir / "supervisor.lock", 0.0, "'microcurrent run' or 'demo'")
    try:
        children, gate = _children(settings, worker_log)
        return Supervisor(children, lock, gate)
    except BaseException:
        lock.close()
        raise


def _children(settings: Settings, worker_log: Path | None) -> "tuple[list[Child], Gate | None]":
    children, gate = [], None
    if settings.broker is Broker.EMBEDDED:
        child, gate = broker_child(settings)
        children.append(child)
    worker_env = {**os.environ, **environment(settings), SUPERVISED: "1"}
    worker = [sys.executable, "-P", "-m", "ingest.cli", "worker"]
    children.append(Child("worker", worker, env=worker_env, final_codes=FINAL_CODES, log=worker_log))
    return children, gate


def environment(settings: Settings) -> dict[str, str]:
    """The settings as variables, for a child."""
    return {
        PREFIX + name.upper(): "" if value is None else str(value)
        for name, value in settings.model_dump(mode="json").items()
        if value is not None
    }


def broker_child(settings: Settings) -> "tuple[Child, Gate]":
    broker.listen_beyond(settings)
    port = settings.mqtt_port or free_port(settings.mqtt_bind)
    end_stale_broker(settings)
    if not can_listen(settings.mqtt_bind, port):
        raise Mistake(
            f"broker: cannot listen on {settings.mqtt_bind}:{port} (in use); stop what uses it, or set MICROCURRENT_MQTT_PORT"
        )
    config, gate = broker.configure(settings, port)

    def before() -> None:
        broker.forget_ports(settings)
        _wait_for(lambda: can_listen(settings.mqtt_bind, port), 5.0)

    command = [broker.executable(), "-c", str(config), "-P", str(_pid_file(settings))]
    first_words = settings.data_dir / "broker.out"  # what it says before it has opened its own log, such as why it cannot
    stuck = NoSpaceLeft(settings.data_dir / broker.LOG_FILE).is_over
    return Child("broker", command, log=first_words, before=before, stuck=stuck), gate


class NoSpaceLeft:
    """Whether the broker has met a full disk, and there is room again: it never writes again by itself to a file that
    could not grow once."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = log.stat().st_size if log.exists() else 0
        self._met = False
        self._due = 0.0

    def is_over(self) -> bool:
        now = time.monotonic()
        if now < self._due or not self._log.exists():
            return False
        self._due = now + 1.0
        if self._log.stat().st_size < self._read:  # a new one was begun
            self._read = 0
        with self._log.open("rb") as log:
            log.seek(self._read)
            said = log.read(MOST_READ)
            self._read = log.tell()
        self._met = self._met or os.strerror(errno.ENOSPC).lower().encode() in said
        disk = os.statvfs(self._log.parent)
        enough = min(ENOUGH_BYTES, disk.f_blocks * disk.f_frsize // 20)
        if not self._met or disk.f_bavail * disk.f_frsize < enough:
            return False
        self._met = False
        return True


def _pid_file(settings: Settings) -> Path:
    return settings.credentials_dir / broker.PID_FILE


def end_stale_broker(settings: Settings) -> None:
    """A broker whose supervisor was killed still runs on our files: end it before starting another."""
    try:
        pid = int(_pid_file(settings).read_text())
        anywhere = {**os.environ, "LC_ALL": "C.UTF-8"}  # elsewhere ps writes '?' for what is not ASCII in our path
        listed = subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "command="], capture_output=True, encoding="utf-8", errors="replace", env=anywhere)
    except (OSError, ValueError):
        return
    if str(settings.credentials_dir / broker.CONFIG_FILE) not in listed.stdout:
        return
    os.kill(pid, signal.SIGTERM)
    _wait_for(lambda: not _alive(pid), 10.0)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(condition: Callable[[], bool], deadline_s: float) -> None:
    until = time.monotonic() + deadline_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


def die_with_parent() -> None:
    """In a supervised child: end at once when the supervisor is gone; the journal has everything."""
    if os.environ.get(SUPERVISED) != "1":
        return

    def listen() -> None:
        try:
            while os.read(0, 1024):
                pass
        except OSError:
            pass
        os._exit(1)

    threading.Thread(target=listen, name="parent", daemon=True).start()
