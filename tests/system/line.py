"""One installation as a person runs it: the command line, its processes, and what they answer.

Nothing here knows how the line is built. It is started through the console script, looked at
through its commands and its HTTP interface, and judged by an oracle that keeps its own records.
"""

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import duckdb
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.servers import LOOPBACK, InfluxDB, Mosquitto, wait_until

MICROCURRENT = Path(sysconfig.get_path("scripts")) / "microcurrent"
PREFIX = "MICROCURRENT_"
START_S = 40.0
PATIENT_S = 900
"""How long something may stay unseen before it is an alert: a slow machine's tests are about something else."""

STREAMS = ("current", "contact", "runtime", "health", "identity", "status")

NO_MATCHING_SUBSCRIBERS = 0x10


# -- what devices say -------------------------------------------------------------------------------


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def document(seq: int, *, boot_id: int = 7, ts_ms: int | None = None, session_id: str | None = "s-1", **sample: Any) -> dict[str, Any]:
    """One message of stream `current` with one sample, harmless unless told otherwise."""
    reading = {
        "dt_ms": 0, "window_ms": 1000, "i_set_ua": 200.0, "i_peak_ua": 201.2, "i_rms_ua": 142.1, "i_dc_ua": 0.4,
        "q_pos_uc": 71.0, "q_neg_uc": 70.8, "v_peak_mv": 1610.0, "clip_frac": 0.0, "freq_hz": 8.3,
        "pulse_us": 60000.0, "duty": 0.5, "level": 3, "boost": False, "output_enabled": True, "mode": "alt_burst",
    }  # fmt: skip
    return {
        "v": 1, "boot_id": boot_id, "seq": seq, "ts_ms": ts_ms or now_ms(), "uptime_ms": 1000 * (seq + 1),
        "session_id": session_id, "model": "toneduo-400", "hw": "B", "fw": "2.3.1", "samples": [reading | sample],
    }  # fmt: skip


def message(seq: int, **said: Any) -> bytes:
    return json.dumps(document(seq, **said)).encode()


def topic(device_id: str, stream: str = "current") -> str:
    return f"mc/v1/{device_id}/{stream}"


Key = tuple[str, int, int]
"""(device, boot, seq): the identity of a message."""


# -- the installation -------------------------------------------------------------------------------


def environment(**settings: Any) -> dict[str, str]:
    """This process's environment with these settings and no others of the product."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return env | {PREFIX + name.upper(): str(value) for name, value in settings.items()}


def processes() -> dict[int, tuple[int, str]]:
    """Every process: pid → (parent's pid, command line). Those that have ended are not among them."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in listed.splitlines():
        pid, parent, stat, args = line.split(None, 3)
        if not stat.startswith("Z"):
            found[int(pid)] = (int(parent), args)
    return found


def descendants(pid: int) -> dict[int, str]:
    """All processes below one: pid → command line."""
    everyone, found, parents = processes(), {}, {pid}
    while parents:
        below = {p: args for p, (parent, args) in everyone.items() if parent in parents}
        found |= below
        parents = set(below)
    return found


def alive(pid: int) -> bool:
    return pid in processes()


def send(pid: int, how: signal.Signals) -> bool:
    """Send a signal; False if the process was gone before."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True


class Installation:
    """`microcurrent run` on a data directory, and every other command on the same one."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data = directory / "data"
        self.settings: dict[str, Any] = {"data_dir": self.data, "http_port": 0, "log_level": "info", "blind_after_s": PATIENT_S, **settings}
        self.log = directory / "run.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._owned: set[int] = set()
        self._frozen = False
        self._killed: int | None = None

    @property
    def env(self) -> dict[str, str]:
        return environment(**self.settings)

    # -- its life -------------------------------------------------------------------------------

    def start(self, *, ready: bool = True) -> Self:
        assert self._process is None or self._process.poll() is not None, "it is running already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [MICROCURRENT, "run"], env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, deadline_s: float = START_S) -> None:
        """Until the worker is subscribed at its broker."""
        wait_until(lambda: not self.running or self.ready(), deadline_s, f"/readyz of {self.data}\n{self.tail()}")
        assert self.running, f"run ended with code {self._process.poll()}:\n{self.tail()}"

    def ready(self) -> bool:
        try:
            return self.request("GET", "/readyz", timeout_s=5)[0] == 200
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.poll() if self._process else None

    def children(self) -> dict[int, str]:
        found = descendants(self.pid) if self.running else {}
        self._owned |= set(found)
        return found

    def child(self, what: str) -> int | None:
        """The worker (`worker`) or the embedded broker (`nats-server`), if it runs now."""
        return next((pid for pid, args in self.children().items() if what in args), None)

    @property
    def worker_pid(self) -> int:
        return int(json.loads((self.data / "worker.json").read_text())["pid"])

    def kill_worker(self) -> bool:
        """SIGKILL to the worker, wherever it is in its life, starting up included; not again to one that is on its way out."""
        pid = self.child("ingest.cli worker")
        if pid is None or pid == self._killed:
            return False
        self._killed = pid
        return send(pid, signal.SIGKILL)

    def leave_only_the_broker(self) -> None:
        """Freeze the supervisor and kill its worker: what is left is a broker and nobody on its session."""
        pid = self.child("ingest.cli worker")
        send(self.pid, signal.SIGSTOP)
        self._frozen = True
        send(pid, signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM, deadline_s: float = 120.0) -> int:
        """End it in order; returns the exit code."""
        if self._process is None:
            return 0
        self.children()
        self.thaw()
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"run did not end within {deadline_s:g} s of {how.name}:\n{self.tail()}")

    def thaw(self) -> None:
        """Let a frozen supervisor go on; it starts its worker again."""
        if self._frozen:
            self._frozen = False
            send(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the supervisor; its children are left to what they do then."""
        self.children()
        send(self.pid, signal.SIGKILL)
        self._process.wait(60)

    def end_everything(self) -> None:
        """For the end of a test, good or bad: nothing that was started here is left."""
        if self.running:
            self.children()
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(60)
        everyone = processes()
        for pid in self._owned:
            if pid in everyone and ("ingest.cli" in everyone[pid][1] or "nats-server" in everyone[pid][1]):
                send(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.end_everything()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                error.add_note(f"{self.log}:\n{self.tail(40)}")
            elif self.running:
                self.stop()
        finally:
            self.end_everything()

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:]) if self.log.exists() else ""

    def logged(self, word: str) -> int:
        """In how many lines of the log a word stands."""
        return sum(word in line for line in self.log.read_text("utf-8", "replace").splitlines())

    # -- what it answers ------------------------------------------------------------------------

    def command(self, *words: str, timeout_s: float = 240, **settings: Any) -> subprocess.CompletedProcess[str]:
        env = environment(**self.settings | settings)
        return subprocess.run(
            [MICROCURRENT, *words], env=env, cwd=self.directory, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def answer(self, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
        """What a command says with --json."""
        done = self.command(*words, "--json")
        assert done.returncode in codes, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def reconcile(self) -> dict[str, Any]:
        return self.answer("reconcile", codes=(0, 1))

    @property
    def address(self) -> str:
        return json.loads((self.data / "worker.json").read_text())["address"]

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, timeout_s: float = 60
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers by lower-case name, body) of one HTTP request to the worker."""
        at = urlsplit(self.address)
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, {**self._shown(), **(headers or {})})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def _shown(self) -> dict[str, str]:
        """What a command shows to a worker whose page is closed."""
        if not {"http_password_file", "http_token_file"} & set(self.settings):
            return {}
        return {"Authorization": f"Bearer {(self.data / 'credentials' / 'command-token').read_text()}"}

    def get(self, path: str) -> Any:
        status, _, body = self.request("GET", path)
        assert 200 == status, f"{path}: {status} {body[:300]!r}"
        return json.loads(body)

    def overview(self) -> dict[str, Any]:
        return self.get("/api/overview")

    def ledger(self) -> dict[str, int]:
        return self.overview()["ledger"]

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], deadline_s: float, what: str) -> dict[str, Any]:
        """The first overview that meets a condition. A worker that is just starting is waited for."""
        seen: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            nonlocal seen
            try:
                seen = self.overview()
            except (OSError, ValueError, KeyError, http.client.HTTPException):
                return None
            return seen if condition(seen) else None

        try:
            return wait_until(look, deadline_s, what)
        except BaseException as error:
            error.add_note(f"last seen: {json.dumps(seen)}")
            raise

    def wait_settled(self, accepted: int, deadline_s: float = 30.0) -> dict[str, int]:
        """The ledger once at least so many messages are accepted and nothing is pending."""
        return self.wait_for(
            lambda seen: seen["ledger"]["accepted"] >= accepted and seen["ledger"]["pending"] == 0,
            deadline_s,
            f"{accepted} messages to be accepted and settled",
        )["ledger"]


def balanced(ledger: dict[str, int]) -> bool:
    return ledger["accepted"] == ledger["pending"] + ledger["stored"] + ledger["duplicate"] + ledger["quarantined"]


def with_mosquitto(directory: Path, broker: Mosquitto, **settings: Any) -> Installation:
    return Installation(directory, broker="external", mqtt_port=broker.port, **settings)


def influx_settings(store: InfluxDB) -> dict[str, Any]:
    return {"store": "influxdb", "influx_url": store.url, "influx_bucket": store.database, "influx_long_bucket": store.long_bucket}


# -- what a store holds, seen without the product -----------------------------------------------------


def held_by_duckdb(data: Path) -> Counter[Key]:
    """How often each message is in the embedded store. Its owner must have stopped."""
    parts = [f'SELECT device_id, boot_id, seq FROM "{stream}"' for stream in STREAMS]
    with duckdb.connect(str(data / "telemetry.duckdb"), read_only=True) as store:
        rows = store.execute(
            f"SELECT device_id, boot_id, seq, count(*) FROM ({' UNION ALL '.join(parts)}) GROUP BY ALL"
        ).fetchall()
    return Counter({(device, boot, seq): count for device, boot, seq, count in rows})


def held_by_influx(store: InfluxDB) -> Counter[Key]:
    return Counter(
        (row["device_id"], row["boot_id"], row["seq"])
        for stream in STREAMS
        for row in store.query(f'SELECT device_id, boot_id, seq FROM "{stream}"')
    )


# -- the oracle ---------------------------------------------------------------------------------------


class Oracle:
    """A publisher that is never faulted. It notes an obligation only when the PUBACK has come.

    One thread publishes and asks; paho's own thread only reports.
    """

    def __init__(
        self, port: int, *, version: int = mqtt.MQTTv5, client_id: str = "oracle", user: str | None = None, password: str | None = None
    ) -> None:
        self.refused = 0
        self._acked: set[Key] = set()
        self._waiting: dict[int, Key] = {}
        self._reports: deque[tuple[int, int]] = deque()
        self._v5 = version == mqtt.MQTTv5
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, clean_session=None if self._v5 else False
        )
        if user is not None:
            self._client.username_pw_set(user, password)
        self._client.on_publish = lambda _c, _u, mid, reason, _p: self._reports.append((mid, reason.value))
        self._client.max_inflight_messages_set(100)
        self._client.reconnect_delay_set(0.2, 0.5)
        self._port = port

    def __enter__(self) -> Self:
        if self._v5:
            keep = Properties(PacketTypes.CONNECT)
            keep.SessionExpiryInterval = 3600
            self._client.connect(LOOPBACK, self._port, clean_start=False, properties=keep)
        else:
            self._client.connect(LOOPBACK, self._port)
        self._client.loop_start()
        wait_until(self._client.is_connected, 10, "the oracle to connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def publish(self, device_id: str, seq: int, *, boot_id: int = 7, stream: str = "current", **said: Any) -> None:
        info = self._client.publish(topic(device_id, stream), message(seq, boot_id=boot_id, **said), qos=1)
        self._waiting[info.mid] = (device_id, boot_id, seq)

    def publish_raw(self, on: str, payload: bytes) -> None:
        self._client.publish(on, payload, qos=1).wait_for_publish(10)

    @property
    def acked(self) -> set[Key]:
        """What the broker has taken over, with a subscriber for it."""
        while self._reports:
            mid, reason = self._reports.popleft()
            key = self._waiting.pop(mid, None)
            if reason == NO_MATCHING_SUBSCRIBERS or reason >= 0x80:
                self.refused += 1
            elif key is not None:
                self._acked.add(key)
        return self._acked

    def wait_acked(self, count: int, deadline_s: float = 30.0) -> set[Key]:
        wait_until(lambda: len(self.acked) >= count, deadline_s, f"{count} PUBACKs")
        return self.acked


@contextmanager
def listener(
    port: int, on: str, *, client_id: str = "listener", user: str | None = None, password: str | None = None, version: int = mqtt.MQTTv5
) -> Iterator[list[tuple[float, str, bytes]]]:
    """Everything that is published on a topic filter: (monotonic time, topic, payload)."""
    heard: list[tuple[float, str, bytes]] = []
    subscribed: list[bool] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version)
    if user is not None:
        client.username_pw_set(user, password)
    client.on_connect = lambda c, *_: c.subscribe(on, qos=1)
    client.on_subscribe = lambda *_: subscribed.append(True)
    client.on_message = lambda _c, _u, m: heard.append((time.monotonic(), m.topic, m.payload))
    client.reconnect_delay_set(0.2, 0.5)
    client.connect(LOOPBACK, port)
    client.loop_start()
    try:
        wait_until(lambda: subscribed, 10, f"a subscription to {on}")
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def alerts_heard(heard: list[tuple[float, str, bytes]], event: str = "opened") -> list[dict[str, Any]]:
    """The alerts published so far, of one kind of event."""
    said = [json.loads(payload) for _, _, payload in list(heard)]
    return [each["alert"] for each in said if each["event"] == event]


@contextmanager
def stopped_afterwards(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """A process of a test's own; it and its children do not outlive the test."""
    try:
        yield process
    finally:
        below = descendants(process.pid) if process.poll() is None else {}
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait(60)
        everyone = processes()
        for pid in below:
            if pid in everyone and everyone[pid][1] == below[pid]:
                send(pid, signal.SIGKILL)


class Distance:
    """A way to a server on which every byte takes its time, as over a mobile network."""

    def __init__(self, to_port: int, one_way_s: float) -> None:
        self._to, self._one_way_s = to_port, one_way_s
        self._server = socket.create_server((LOOPBACK, 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = [self._server]

    def __enter__(self) -> Self:
        self._run(self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _run(self, work: Callable[..., None], *given: Any) -> None:
        threading.Thread(target=work, args=given, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection((LOOPBACK, self._to))
                self._open += [near, far]
                for a, b in ((near, far), (far, near)):
                    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    on_the_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    self._run(self._read, a, on_the_way)
                    self._run(self._write, b, on_the_way)

    def _read(self, source: socket.socket, on_the_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(65_536)
            except OSError:
                data = b""
            on_the_way.put((time.monotonic() + self._one_way_s, data))

    def _write(self, target: socket.socket, on_the_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        with suppress(OSError):
            while True:
                due_s, data = on_the_way.get()
                time.sleep(max(0.0, due_s - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
