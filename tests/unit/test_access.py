"""What decides who comes in, one part at a time."""

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingest.broker_log import MosquittoLog, Seen, violation
from ingest.clock import WallClock
from ingest.embedded import broker
from ingest.embedded.gate import MOST_WRONG_OF_DEVICE, Asked, Door
from ingest.embedded.register import Register
from ingest.errors import Mistake
from ingest.handover import Handover, put, waiting
from ingest.mqtt import Receiver
from ingest.mqtt_client import Endpoint
from ingest.network import is_loopback
from ingest.security import SecurityEvent, SecurityLog
from ingest.settings import Protocol, Settings
from ingest.supervisor import Supervisor, end_stale_broker
from ingest.tail import Tail
from ingest.throttle import Throttle, source_of
from schemas.security import SecurityKind
from tests.servers import LOOPBACK, wait_until

# -- the embedded broker's configuration --------------------------------------------------------------


@pytest.mark.parametrize("name", ["Müller", "two words", "it's \"quoted\"", "back\\slash", "$HOME", "{#", "Ω ✓ 👩‍⚕️"])
def test_the_broker_can_read_its_configuration_whatever_the_directory_is_called(tmp_path: Path, name: str) -> None:
    path, _ = broker.configure(Settings(data_dir=tmp_path / name, _env_file=None), 1)
    done = subprocess.run([broker.executable(), "-t", "-c", path], capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr


def test_a_broker_that_was_left_behind_is_known_by_its_configuration_in_any_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    settings = Settings(data_dir=tmp_path / "Müller", _env_file=None)
    path, _ = broker.configure(settings, 1)
    left, another = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", words]) for words in (path, "another"))
    try:
        for process in (another, left):
            (settings.credentials_dir / broker.PID_FILE).write_text(str(process.pid))
            ended = threading.Thread(target=process.wait)
            ended.start()
            end_stale_broker(settings)
        left.wait(20)
        assert (-signal.SIGTERM, None) == (left.returncode, another.poll())
    finally:
        for process in (left, another):
            process.kill()
            process.wait()


# -- throttling -------------------------------------------------------------------------------------


def test_of_a_thousand_tries_in_any_minute_ten_are_looked_at() -> None:
    throttle, looked_at = Throttle(), []
    for n in range(10_000):
        now_s = 0.1 * n
        if not throttle.shut("source", now_s):
            throttle.failed("source", now_s)
            looked_at.append(now_s)
    assert 10 == max(sum(begin <= at < begin + 60 for at in looked_at) for begin in looked_at)
    assert looked_at[10] == pytest.approx(60.0) and not throttle.shut("another", 0.0)


def test_a_flood_of_names_takes_bounded_memory() -> None:
    throttle = Throttle(names=100)
    for n in range(10_000):
        throttle.failed(n, 0.0)
    assert 100 == len(throttle._failures)


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("no address", "no address"), ("", ""),
    ],
)  # fmt: skip
def test_a_source_is_an_address_or_the_network_that_one_host_can_choose_from(host: str, source: str) -> None:
    assert source == source_of(host)


def test_only_what_is_sure_to_be_this_machine_is_loopback() -> None:
    assert [True, True, True, True] == [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")]
    assert [] == [host for host in ("0.0.0.0", "::", "192.0.2.7", "localhost.example", "", "broker") if is_loopback(host)]


# -- the door of the embedded broker ----------------------------------------------------------------


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "credentials")


class Knocker:
    def __init__(self, register: Register) -> None:
        self.security = SecurityLog()
        self.door = Door(register, self.security)
        self.now_s = 0.0

    def comes(self, user: str, password: str, host: str, client_id: str | None = None) -> bool:
        return self.door.admits(Asked(user, password, user if client_id is None else client_id, host), self.now_s, 0)

    def noted(self) -> dict[SecurityKind, int]:
        found: dict[SecurityKind, int] = {}
        for event in self.security.take():
            found[event.kind] = found.get(event.kind, 0) + event.count
        return found


def test_who_guesses_shuts_out_themselves_and_not_who_is_at_home_there_or_comes_from_elsewhere(register: Register) -> None:
    passwords = register.create(["a", "b"])
    knocker = Knocker(register)
    assert knocker.comes("b", passwords["b"], "192.0.2.1")
    assert not any(knocker.comes("a", f"guess {n}", "192.0.2.1") for n in range(100))
    assert {SecurityKind.AUTH_FAILURE: 10, SecurityKind.THROTTLED: 90} == knocker.noted()
    assert (False, True, True) == (
        knocker.comes("a", passwords["a"], "192.0.2.1"), knocker.comes("b", passwords["b"], "192.0.2.1"), knocker.comes("a", passwords["a"], "192.0.2.2"),
    )  # fmt: skip
    knocker.now_s = 60.0
    assert knocker.comes("a", passwords["a"], "192.0.2.1")


def test_many_sources_that_guess_at_one_device_are_slowed_down_together_and_its_home_is_not(register: Register) -> None:
    right = register.create(["a"])["a"]
    knocker = Knocker(register)
    assert knocker.comes("a", right, "198.51.100.1")
    assert not any(knocker.comes("a", "guess", f"192.0.2.{n}") for n in range(200))
    assert MOST_WRONG_OF_DEVICE == knocker.noted()[SecurityKind.AUTH_FAILURE]
    assert knocker.comes("a", right, "198.51.100.1") and not knocker.comes("a", right, "192.0.2.201")


def test_names_that_do_not_exist_cost_no_memory_and_are_not_told_one_by_one(register: Register) -> None:
    register.create(["a"])
    knocker = Knocker(register)
    for n in range(5_000):
        knocker.comes(f"nobody-{n}", "x", f"192.0.{n % 250}.{n // 250}")
    assert 0 == len(knocker.door._wrong_of_device._failures)
    assert {""} == {event.who for event in knocker.security.take()}


def test_the_client_id_is_the_name_and_a_right_password_under_another_is_a_wrong_try(register: Register) -> None:
    right = register.create(["a"])["a"]
    knocker = Knocker(register)
    assert not any(knocker.comes("a", right, "192.0.2.1", client_id) for client_id in ("b", "", "A", "a ", "ingest-1"))
    assert {SecurityKind.FORBIDDEN: 5} == knocker.noted()


def test_the_register_keeps_no_password_and_forgets_no_device(register: Register, tmp_path: Path) -> None:
    first, second = register.create(["a"])["a"], register.create(["a"])["a"]
    assert (False, True, False, False) == tuple(register.proves(*who) for who in (("a", first), ("a", second), ("b", second), ("a", "")))
    path = tmp_path / "credentials" / "devices.json"
    assert 0o600 == path.stat().st_mode & 0o777 and first not in path.read_text() and second not in path.read_text()
    assert hashlib.sha256(second.encode()).hexdigest() == json.loads(path.read_text())["a"]["sha256"]
    register.revoke(["a"])
    assert not register.proves("a", second) and "a" in register.accounts()
    with pytest.raises(Mistake, match="has no password here"):
        register.revoke(["a"])
    with pytest.raises(Mistake, match="use 1 to 64 of"):
        register.create(["fine", "a/b"])
    assert "fine" not in Register(tmp_path / "credentials").accounts()
    path.write_text("{")
    with pytest.raises(Mistake, match="no register of devices"):
        register.accounts()


# -- events from elsewhere --------------------------------------------------------------------------


def event(kind: SecurityKind, who: str, count: int = 1) -> SecurityEvent:
    return SecurityEvent(kind, who, "", "", count, 1, 2)


def test_what_was_left_for_a_worker_is_there_until_it_is_on_disk_and_told_once(tmp_path: Path) -> None:
    put(tmp_path, [event(SecurityKind.AUTH_FAILURE, "a", 3)])
    put(tmp_path, [event(SecurityKind.TAKEOVER, "b")])
    security = SecurityLog()
    handover = Handover(tmp_path, security)
    handover.look()
    handover.look()
    assert [("a", 3), ("b", 1)] == [(e.who, e.count) for e in security.take()]
    handover.look()
    assert 2 == len(waiting(tmp_path)), "taken, and not yet on disk"
    security.kept()
    handover.look()
    assert [] == waiting(tmp_path) + security.take()
    Handover(tmp_path, security).look()
    assert [] == security.take()


def test_a_worker_that_dies_before_it_has_kept_them_leaves_them_to_the_next(tmp_path: Path) -> None:
    put(tmp_path, [event(SecurityKind.FORBIDDEN, "a")])
    dead = SecurityLog()
    Handover(tmp_path, dead).look()
    dead.take()
    security = SecurityLog()
    Handover(tmp_path, security).look()
    assert ["a"] == [e.who for e in security.take()]


@pytest.mark.parametrize("junk", [b"", b"{", b"[1]", b'[{"kind": "nonsense"}]', b"\xff"])
def test_a_file_of_something_else_hurts_nobody(tmp_path: Path, junk: bytes) -> None:
    put(tmp_path, [event(SecurityKind.FORBIDDEN, "a")])
    (tmp_path / "security" / "00000-1.json").write_bytes(junk)
    security = SecurityLog()
    Handover(tmp_path, security).look()
    assert ["a"] == [e.who for e in security.take()]


def test_a_log_is_followed_over_rotation_truncation_and_its_absence(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("of before\n")
    tail = Tail(path)
    assert [] == list(tail.lines())
    with path.open("a") as log:
        log.write("one\ntw")
    assert ["one"] == list(tail.lines())
    with path.open("a") as log:
        log.write("o\nthree\n")
    path.rename(tmp_path / "log.1")
    path.write_text("four\n")
    assert ["two", "three", "four"] == list(tail.lines())
    path.write_text("5\n")
    assert ["5"] == list(tail.lines())
    path.unlink()
    assert [] == list(tail.lines())
    path.write_bytes(b"six \xff\nseven\n")
    assert ["six \N{REPLACEMENT CHARACTER}", "seven"] == list(tail.lines())
    late = Tail(tmp_path / "comes later")
    assert [] == list(late.lines())
    (tmp_path / "comes later").write_text("first\n")
    assert ["first"] == list(late.lines())
    for each in (tail, late):
        each.close()


AT = "2026-05-01T10:00:00: "


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        (["New connection from 192.0.2.7:50000 on port 1883.", "Client <unknown> disconnected, not authorised."], (SecurityKind.AUTH_FAILURE, "", "192.0.2.7")),
        (["New connection from ::1:50000 on port 1883.", "Client dev-1 disconnected, not authorised."], (SecurityKind.AUTH_FAILURE, "dev-1", "::1")),
        (
            ["New connection from 192.0.2.7:1 on port 1883.", "New connection from 192.0.2.8:1 on port 1883.", "Client x disconnected, not authorised."],
            (SecurityKind.AUTH_FAILURE, "x", ""),
        ),
        (
            [
                "New connection from 192.0.2.7:1 on port 8883.", "New client connected from 192.0.2.7:1 as dev-1 (p5, c0, k30, u'dev-1').",
                "New connection from 192.0.2.8:1 on port 8883.", "OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed",
            ],
            (SecurityKind.AUTH_FAILURE, "", "192.0.2.8"),
        ),
        (["Client dev-1 already connected, closing old connection."], (SecurityKind.TAKEOVER, "dev-1", "")),
        (["credentials password made for dev-1"], (SecurityKind.CREDENTIALS, "dev-1", "")),
        (["Client dev-1 disconnected.", "Saving in-memory database to /mosquitto/data/mosquitto.db.", ""], None),
    ],
)  # fmt: skip
def test_lines_of_mosquitto_are_understood(lines: list[str], seen: tuple[SecurityKind, str, str] | None) -> None:
    log = MosquittoLog()
    found = [each[:3] for line in lines if (each := log.read(AT + line))]
    assert ([seen] if seen else []) == found


def test_lines_of_the_embedded_broker_are_understood() -> None:
    line = '[7] 2026/05/01 10:00:00.0 [ERR] 127.0.0.1:5 - mid:38 - "dev-1" - Publish Violation - Subject "mc.v1.dev-2.current"'
    assert Seen(SecurityKind.FORBIDDEN, "dev-1", "", "may not publish mc/v1/dev-2/current") == violation(line)
    assert violation('[7] 2026/05/01 10:00:00.0 [ERR] 127.0.0.1:5 - mid:38 - "dev-1" - authentication error - User "dev-1"') is None


# -- the worker's own session -----------------------------------------------------------------------


def test_a_worker_that_is_told_that_its_session_was_taken_notes_it_and_waits() -> None:
    """A broker of MQTT 5 says so with reason 0x8E. This one says it as soon as the worker has subscribed."""
    server = socket.create_server((LOOPBACK, 0))
    came = threading.Semaphore(0)

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.recv(4096)
                client.sendall(b"\x20\x03\x00\x00\x00")
                (packet_id,) = (client.recv(4096)[2:4],)
                client.sendall(b"\x90\x09" + packet_id + b"\x00" + b"\x01" * 6)
                client.sendall(b"\xe0\x02\x8e\x00")
                came.release()
                client.recv(4096)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    security = SecurityLog()
    at = Endpoint(LOOPBACK, server.getsockname()[1], "ingest-test", protocol=Protocol.V5)
    receiver = Receiver(at, WallClock(), lambda: None, expects_session=False, security=security)
    receiver.start()
    try:
        assert came.acquire(timeout=10)
        wait_until(lambda: security.is_waiting, 10, "the event")
        assert [(SecurityKind.TAKEOVER, "ingest-test", 1)] == [(e.kind, e.who, e.count) for e in security.take()]
        wait_until(lambda: not receiver.link.connected and "taken over" in receiver.link.detail.lower(), 10, "the worker to say so")
        assert (1, 5.0) == (receiver.times_taken_over, receiver._patience.delay_s())
    finally:
        receiver.stop()
        server.close()


# -- systemd ----------------------------------------------------------------------------------------


def test_a_supervisor_tells_systemd_that_it_runs_and_still_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, (tmp_path / "lock").open("w") as lock:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        supervisor = Supervisor([], lock)
        watcher = threading.Thread(target=supervisor.watch, daemon=True)
        watcher.start()
        assert [b"READY=1", b"WATCHDOG=1"] == [heard.recv(64), heard.recv(64)]
        supervisor.stop()
        watcher.join(10)
        assert b"STOPPING=1" == heard.recv(64)
