"""Real servers for tests: Mosquitto, and InfluxDB 1.x behind the v2 write path.

Each is a context manager on free loopback ports with its files in a directory of its own. It is
ready when `start()` returns. `stop()`, `kill()` and `start()` keep the port and the data. Only
processes started here are ended. A server that is not installed skips the test by name; where
CI=true it fails it.
"""

import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
START_S = 20.0
STOP_S = 20.0
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin"
"""Debian keeps daemons in sbin, which is not on a plain user's path."""


FIRST_PORT, PORTS_EACH, PROCESSES = 10_000, 1_400, 16
"""Ports of tests, so many for each process of a run: below those that systems give away by themselves (32768, 49152)."""


def _ports() -> Iterator[int]:
    """For ever, and each process of a run its own: a server that is started again finds its port as it left it."""
    run, worker = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    share = (zlib.crc32(run.encode()) + int(worker.removeprefix("gw"))) % PROCESSES
    for n in itertools.count(random.randrange(PORTS_EACH)):
        yield FIRST_PORT + share * PORTS_EACH + n % PORTS_EACH


_PORTS = _ports()


def free_port() -> int:
    """A loopback port that nobody listens on now, and that nobody is given who asks the system for any."""
    for port in itertools.islice(_PORTS, PORTS_EACH):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    pytest.fail(f"none of {PORTS_EACH} ports is free")


PATIENCE = 1.0
"""Deadlines are written for a machine that has nothing else to do. Where many tests run at once, each waits so many times as long."""

FIRST_LOOK_S, LAST_LOOK_S = 0.01, 0.1
"""Who waits for long need not look as often: looking takes the processor from what is waited for."""


def wait_until(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    """Return the condition's first true value; fail after the deadline, saying what was awaited."""
    deadline_s *= PATIENCE
    end, look_s = time.monotonic() + deadline_s, FIRST_LOOK_S
    while True:
        if met := condition():
            return met
        if time.monotonic() >= end:
            pytest.fail(f"waited {deadline_s:g} s for {what} (load {os.getloadavg()[0]:.1f})")
        time.sleep(look_s)
        look_s = min(LAST_LOOK_S, look_s * 1.2)


def crowd() -> float:
    """How many would have each processor now, at least 1: so many times as long may take what is promised for a machine of one's own."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def accepts(port: int) -> bool:
    """Whether something takes TCP connections on the loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def installed(program: str) -> str:
    """The program's path; without it the test is skipped by name, or fails in CI."""
    if found := shutil.which(program, path=SYSTEM_PATH):
        return found
    return absent(program)


def absent(program: str) -> NoReturn:
    sentence = f"{program} is not installed; this test needs the real one"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


class Server:
    """One child process with a port, a directory and a log."""

    program = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.executable = installed(self.program)
        self.host = LOOPBACK
        self.port = free_port()
        self.log = directory / f"{self.program}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.program} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        return accepts(self.port)

    def start(self) -> Self:
        """Start, or start again on the same port and data; return when it serves."""
        assert not self.running, f"{self.program} is running already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(self._ready_or_dead, START_S, f"{self.program} to serve on port {self.port}")
            if not self.running:
                pytest.fail(f"{self.program} ended with code {self._process.poll()} at start")
        except BaseException as error:
            error.add_note(f"{self.log}:\n{self.tail()}")
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it in order (SIGTERM), so that it writes what it holds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL): it writes nothing more."""
        self._end(signal.SIGKILL)

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop() if kind is None else self.kill()

    def _ready_or_dead(self) -> bool:
        return not self.running or self.ready()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        self._process = None


class PublishFailed(Exception):
    """The broker took no delivery; what `mosquitto_pub` said of it."""


class Mosquitto(Server):
    """A broker as it runs in production, less TLS: persistent, QoS 1, bounded.

    `users` (name → password) turns anonymous access off; `acl` is the text of an ACL file;
    `settings` replaces single lines of the configuration, None leaves one out.
    """

    program = "mosquitto"

    def __init__(
        self,
        directory: Path,
        *,
        users: Mapping[str, str] | None = None,
        acl: str | None = None,
        settings: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(directory)
        self.users = dict(users or {})
        data = directory / "data"
        data.mkdir(exist_ok=True)
        lines: dict[str, str | None] = {
            "per_listener_settings": "false",
            "allow_anonymous": "false" if self.users else "true",
            "allow_zero_length_clientid": "false",
            "retain_available": "false",
            "max_packet_size": "1048576",
            "max_inflight_messages": "500",
            "max_queued_messages": "1000000",
            "max_queued_bytes": "1073741824",
            "queue_qos0_messages": "false",
            "max_qos": "1",
            "sys_interval": "1",
            "log_dest": "stdout",
            "log_timestamp_format": "%Y-%m-%dT%H:%M:%S",
            "set_tcp_nodelay": "true",
            "persistence": "true",
            "persistence_location": f"{data}/",
            "autosave_interval": "5",
        }
        if os.geteuid() == 0:
            lines["user"] = "root"  # else it drops to a user who cannot enter the temporary directory
        if self.users:
            lines["password_file"] = str(self._passwords())
        if acl is not None:
            path = directory / "acl"
            path.write_text(acl)
            path.chmod(0o600)
            lines["acl_file"] = str(path)
        lines.update(settings or {})
        # max_qos belongs to a listener, so it follows it.
        options = "".join(f"{key} {value}\n" for key, value in lines.items() if value is not None and key != "max_qos")
        listener = f"listener {self.port} {LOOPBACK}\n"
        if (qos := lines["max_qos"]) is not None:
            listener += f"max_qos {qos}\n"
        self.config = directory / "mosquitto.conf"
        self.config.write_text(options + listener)

    @property
    def data(self) -> Path:
        """Its persistence file; delete it while it is stopped to lose its sessions."""
        return self.directory / "data" / "mosquitto.db"

    def command(self) -> list[str]:
        return [self.executable, "-c", str(self.config)]

    def reload(self) -> None:
        """Have it read passwords and rights again; those of connections that stand as well."""
        os.kill(self.pid, signal.SIGHUP)

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        *,
        qos: int = 1,
        retain: bool = False,
        client_id: str = "mosquitto-pub",
        user: str | None = None,
        version: str = "5",
    ) -> None:
        """Publish with the real `mosquitto_pub`, a client that shares no code with ours.

        Raises PublishFailed in the program's words. For a packet over the broker's limit use version
        "311": with "5" mosquitto_pub 2.0 drops it and reports success.
        """
        command = [installed("mosquitto_pub"), "-h", self.host, "-p", str(self.port), "-V", version]
        command += ["-i", client_id, "-t", topic, "-q", str(qos), "-s"]
        if retain:
            command.append("-r")
        if user is not None:
            command += ["-u", user, "-P", self.users[user]]
        raw = payload.encode() if isinstance(payload, str) else payload
        done = subprocess.run(command, input=raw, capture_output=True, timeout=30, check=False)
        if done.returncode or done.stderr:
            raise PublishFailed(done.stderr.decode("utf-8", "replace").strip())

    def _passwords(self) -> Path:
        path = self.directory / "passwords"
        path.write_text("".join(f"{name}:{password}\n" for name, password in self.users.items()))
        path.chmod(0o600)
        subprocess.run([installed("mosquitto_passwd"), "-U", str(path)], check=True, capture_output=True)
        return path


class InfluxDB(Server):
    """InfluxDB 1.x, a real engine with its real errors, and a door that speaks the v2 write path.

    `url` is the door: give it to influxdb-client with any token and organisation. `buckets` says which
    (database, retention policy) a bucket is: `database` its default one, `long_bucket` its policy "long".
    When the server stops or is killed, the door is shut as well.
    """

    program = "influxd"

    def __init__(self, directory: Path, database: str = "microcurrent") -> None:
        super().__init__(directory)
        self.database = database
        self.long_bucket = f"{database}_long"
        self.buckets = {database: (database, ""), self.long_bucket: (database, "long")}
        self.door_port = free_port()
        self.url = f"http://{LOOPBACK}:{self.door_port}"
        self._door: _Door | None = None
        backup_port = free_port()
        self.config = directory / "influxdb.conf"
        self.config.write_text(
            f"""reporting-disabled = true
bind-address = "{LOOPBACK}:{backup_port}"
[meta]
  dir = "{directory / "meta"}"
[data]
  dir = "{directory / "data"}"
  wal-dir = "{directory / "wal"}"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "{LOOPBACK}:{self.port}"
  log-enabled = false
"""
        )

    def command(self) -> list[str]:
        return [self.executable, "-config", str(self.config)]

    def ready(self) -> bool:
        try:
            return self._request("GET", "/ping")[0] == 204
        except OSError:
            return False

    def start(self) -> Self:
        super().start()
        self.prepare()
        self._door = _Door(self.door_port, self.port, self.buckets)
        return self

    def prepare(self) -> None:
        """Make what is behind the buckets; nothing happens if it is there."""
        self.query(f'CREATE DATABASE "{self.database}"', database="")
        self.query(f'CREATE RETENTION POLICY "long" ON "{self.database}" DURATION INF REPLICATION 1')

    def query(self, influxql: str, *, database: str | None = None) -> list[dict[str, Any]]:
        """The rows of one InfluxQL statement: columns and tags by name, `time` in ns since 1970 UTC."""
        form = urlencode({"db": self.database if database is None else database, "epoch": "ns", "q": influxql})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, body = self._request("POST", "/query", form.encode(), headers)
        answer = json.loads(body)
        problem = answer.get("error") or next((r["error"] for r in answer.get("results", []) if "error" in r), None)
        assert (200, None) == (status, problem), influxql
        (result,) = answer["results"]
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], values, strict=True))}
            for series in result.get("series", [])
            for values in series.get("values", [])
        ]

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _end(self, how: signal.Signals) -> None:
        if self._door is not None:
            self._door.shut()
            self._door = None
        super()._end(how)


class _Door(ThreadingHTTPServer):
    """Maps `/api/v2/write?bucket=` to `/write?db=&rp=`; passes everything else, and every answer, as it is."""

    daemon_threads = True
    request_queue_size = 128
    PRECISION = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}

    def __init__(self, port: int, behind: int, buckets: Mapping[str, tuple[str, str]]) -> None:
        self.behind, self.buckets = behind, buckets
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((LOOPBACK, port), _Passage)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="influxdb-door", daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def shut(self) -> None:
        """Take no more connections and cut those that are open, as a server does that is gone."""
        self.shutdown()
        self._thread.join(STOP_S)
        self.server_close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # its client was faster

    def translate(self, target: str) -> str:
        parts = urlsplit(target)
        if parts.path != "/api/v2/write":
            return target
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        precision = self.PRECISION[asked.get("precision", "ns")]
        bucket = asked.get("bucket", "")
        database, policy = self.buckets.get(bucket, (bucket, ""))
        return "/write?" + urlencode({"db": database, "rp": policy, "precision": precision})


class _Passage(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Door

    def do_GET(self) -> None:
        self._pass_on()

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kept = {k: v for k, v in self.headers.items() if k in {"Content-Type", "Content-Encoding", "Accept"}}
        behind = http.client.HTTPConnection(LOOPBACK, self.server.behind, timeout=60)
        try:
            behind.request(self.command, self.server.translate(self.path), body, kept)
            response = behind.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # the engine died: so does the connection, unanswered
            return
        finally:
            behind.close()
        shown = {k: v for k, v in response.getheaders() if k == "Content-Type" or k.startswith(("X-Influxdb", "Retry"))}
        self._answer(response.status, answer, shown)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204 and self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError):
            pass  # cut by shut(), or by its client

    def log_message(self, format: str, *args: Any) -> None:
        """The tests' output is for the tests."""
