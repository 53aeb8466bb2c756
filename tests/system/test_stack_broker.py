"""The stack's broker: the real Mosquitto with the shipped configuration, and the real worker behind it."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.servers import LOOPBACK, InfluxDB, installed, wait_until
from tests.stack import DEPLOY, StackBroker, by_default, make_secrets, services
from tests.system.line import MICROCURRENT, Installation, environment, message

WORKER = "ingest-worker"
REFUSED = "Not authorized"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[StackBroker]:
    with StackBroker(tmp_path / "broker") as running:
        yield running


def password_for(broker: StackBroker, device_id: str) -> str:
    """What a person does to let a device in: one command, and the broker reads again."""
    made = make_secrets(broker.directory, "device", device_id)
    assert made.returncode == 0, made.stderr
    broker.reload()
    return made.stdout.split("password")[1].split()[0]


def worker_password(broker: StackBroker) -> str:
    return (broker.secrets / "mqtt_worker_password").read_text().strip()


class Client:
    """A client in MQTT 5 that notes what it hears and how it was answered."""

    def __init__(self, port: int, user: str | None, password: str | None, *, client_id: str | None = None, ca: Path | None = None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.answers: list[str] = []
        self.answer: str | None = None
        self.lost = False
        self._granted = False
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id or user or "nobody", protocol=mqtt.MQTTv5)
        if user is not None:
            self._client.username_pw_set(user, password)
        if ca is not None:
            self._client.tls_set(str(ca))
        self._client.on_connect = lambda c, u, f, reason, p: setattr(self, "answer", str(reason))
        self._client.on_disconnect = lambda *_: setattr(self, "lost", True)
        self._client.on_message = lambda c, u, m: self.heard.append((m.topic, m.payload))
        self._client.on_publish = lambda c, u, mid, reason, p: self.answers.append(str(reason))
        self._client.on_subscribe = lambda *_: setattr(self, "_granted", True)
        self._port = port

    def __enter__(self) -> "Client":
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 60
        self._client.connect(LOOPBACK, self._port, 30, clean_start=False, properties=lasting)
        self._client.loop_start()
        wait_until(lambda: self.answer, 10, "an answer to CONNECT")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def hear(self, *topics: str) -> None:
        self._client.subscribe([(topic, 1) for topic in topics])
        wait_until(lambda: self._granted, 10, "a SUBACK")

    def say(self, topic: str, payload: bytes = b"{}", **how: Any) -> str:
        self._client.publish(topic, payload, qos=1, **how)
        wait_until(lambda: self.answers or self.lost, 10, "a PUBACK")
        return self.answers.pop(0) if self.answers else "disconnected"


def test_a_device_speaks_for_itself_and_the_worker_hears_it(broker: StackBroker) -> None:
    password = password_for(broker, "dev-1")
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker, Client(broker.port, "dev-1", password) as device:
        worker.hear("mc/v1/+/current", "mc/v1/+/status")
        assert "Success" == device.say("mc/v1/dev-1/current", b"1")
        assert "Success" == device.say("mc/v1/dev-1/status", b"2")
        wait_until(lambda: len(worker.heard) == 2, 10, "both messages at the worker")
        assert [("mc/v1/dev-1/current", b"1"), ("mc/v1/dev-1/status", b"2")] == worker.heard


def test_a_device_cannot_speak_for_another_nor_on_a_topic_of_the_fleet(broker: StackBroker) -> None:
    password = password_for(broker, "dev-1")
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker, Client(broker.port, "dev-1", password) as device:
        worker.hear("#")
        for topic in ("mc/v1/dev-2/current", "mc/v1/dev-1/ack", "mc/v1/dev-1/alert", "mc/v1/dev-1/secret", f"mc/v1/{WORKER}/runtime", "broker/health", "$SYS/x"):
            assert REFUSED == device.say(topic), topic
        assert "Success" == device.say("mc/v1/dev-1/current")
        wait_until(lambda: worker.heard, 10, "the permitted message")
        assert ["mc/v1/dev-1/current"] == [topic for topic, _ in worker.heard]


def test_a_device_hears_what_is_said_to_it_and_nothing_else(broker: StackBroker) -> None:
    first, second = password_for(broker, "dev-1"), password_for(broker, "dev-2")
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker, Client(broker.port, "dev-1", first) as device:
        device.hear("#", "$SYS/#", "mc/v1/dev-1/ack", "mc/v1/dev-1/alert")
        with Client(broker.port, "dev-2", second) as other:
            other.say("mc/v1/dev-2/current")
        for topic in ("mc/v1/dev-2/ack", "mc/v1/dev-2/alert", "mc/v1/dev-1/ack", "mc/v1/dev-1/alert"):
            assert worker.say(topic) in ("Success", "No matching subscribers")
        wait_until(lambda: {topic for topic, _ in device.heard} >= {"mc/v1/dev-1/ack", "mc/v1/dev-1/alert"}, 10, "its own two")
        assert {"mc/v1/dev-1/ack", "mc/v1/dev-1/alert"} == {topic for topic, _ in device.heard}


@pytest.mark.parametrize("who", ["nobody", "wrong password", "empty password", "unknown device"])
def test_who_is_not_known_is_not_let_in(broker: StackBroker, who: str) -> None:
    password_for(broker, "dev-1")
    user, password = {
        "nobody": (None, None), "wrong password": ("dev-1", "wrong"), "empty password": ("dev-1", ""), "unknown device": ("dev-9", "x"),
    }[who]  # fmt: skip
    for port in (broker.port, broker.inner_port):
        with Client(port, user, password) as stranger:
            assert REFUSED == stranger.answer


def test_a_device_that_takes_the_workers_client_id_takes_nothing_from_it(broker: StackBroker) -> None:
    """Its user name becomes its client id, so the session and the queue of the worker stay what they were."""
    one, two = password_for(broker, "dev-1"), password_for(broker, "dev-2")
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker:
        worker.hear("mc/v1/+/current")
    with Client(broker.port, "dev-1", one) as device, Client(broker.port, "dev-2", two, client_id=WORKER) as thief:
        assert "Success" == thief.answer
        for number in range(5):
            device.say("mc/v1/dev-1/current", b"%d" % number)
        with Client(broker.port, "dev-2", two, client_id="dev-1"):
            assert "Success" == device.say("mc/v1/dev-1/current", b"5")
        with Client(broker.inner_port, WORKER, worker_password(broker)) as worker:
            wait_until(lambda: len(worker.heard) == 6, 10, "what waited for the worker")
            assert [b"0", b"1", b"2", b"3", b"4", b"5"] == [payload for _, payload in worker.heard]
        assert not device.lost and [] == thief.heard


def test_what_is_retained_or_too_large_is_refused(broker: StackBroker) -> None:
    password = password_for(broker, "dev-1")
    with Client(broker.port, "dev-1", password) as device:
        assert "disconnected" == device.say("mc/v1/dev-1/current", retain=True)
    with Client(broker.port, "dev-1", password) as device:
        assert "disconnected" == device.say("mc/v1/dev-1/current", b"x" * 70_000)


def test_a_new_password_ends_the_old_one_and_a_revoked_device_is_out(broker: StackBroker) -> None:
    old = password_for(broker, "dev-1")
    new = password_for(broker, "dev-1")
    with Client(broker.port, "dev-1", old) as device:
        assert REFUSED == device.answer
    with Client(broker.port, "dev-1", new) as device:
        assert "Success" == device.answer
    assert make_secrets(broker.directory, "device", "dev-1", "--revoke").returncode == 0
    broker.reload()
    with Client(broker.port, "dev-1", new) as device:
        assert REFUSED == device.answer


def test_what_waits_for_the_worker_outlives_the_broker_that_saved_it(broker: StackBroker) -> None:
    password = password_for(broker, "dev-1")
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker:
        worker.hear("mc/v1/+/current")
    with Client(broker.port, "dev-1", password) as device:
        device.say("mc/v1/dev-1/current", b"kept")
    broker.stop()
    broker.start()
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker:
        wait_until(lambda: worker.heard, 10, "the message from before")
        assert [("mc/v1/dev-1/current", b"kept")] == worker.heard


def test_a_broker_whose_file_is_broken_starts_without_it_and_keeps_it_aside(broker: StackBroker) -> None:
    password = password_for(broker, "dev-1")
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker:
        worker.hear("mc/v1/+/current")
    broker.stop()
    broken = broker.data.read_bytes()[:-7]
    broker.data.write_bytes(broken)
    broker.start()
    (aside,) = broker.data.parent.glob("mosquitto.db.broken-*")
    assert broken == aside.read_bytes()
    with Client(broker.port, "dev-1", password) as device:
        assert "No matching subscribers" == device.say("mc/v1/dev-1/current"), "the worker's session was in it"


def test_the_health_check_of_the_compose_file_tells_a_broker_that_delivers_from_one_that_does_not(broker: StackBroker) -> None:
    how, command = services()["mosquitto"]["healthcheck"]["test"]
    assert "CMD-SHELL" == how
    installed("mosquitto_rr")

    def check() -> int:
        return subprocess.run(["sh", "-c", broker.moved(by_default(command))], capture_output=True, timeout=120, check=False).returncode

    assert 0 == check()
    broker.stop()
    assert 0 != check()
    broker.start()
    assert 0 == check()
    wrong = broker.secrets / "mosquitto_rr"
    wrong.write_text(wrong.read_text().strip() + "x\n")
    assert 0 != check()


def test_devices_can_be_given_tls(tmp_path: Path) -> None:
    """With an authority that this test makes; the stack ships none."""
    openssl = [installed("openssl")]
    names = tmp_path / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    ca, key, request, certificate = (tmp_path / name for name in ("ca.crt", "server.key", "server.csr", "server.crt"))
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout {tmp_path / 'ca.key'} -out {ca}",
        f"req -newkey rsa:2048 -nodes -subj /CN=broker -keyout {key} -out {request}",
        f"x509 -req -in {request} -CA {ca} -CAkey {tmp_path / 'ca.key'} -CAcreateserial -days 2 -extfile {names} -out {certificate}",
    ):
        subprocess.run([*openssl, *shlex.split(command)], check=True, capture_output=True, timeout=120)
    broker = StackBroker(tmp_path / "broker", conf_d=DEPLOY / "conf.d-tls")
    shutil.copy(certificate, broker.secrets / "tls_certificate")
    shutil.copy(key, broker.secrets / "tls_key")
    with broker:
        password = password_for(broker, "dev-1")
        with Client(broker.tls_port, "dev-1", password, ca=ca) as device:
            assert "Success" == device.answer
        with Client(broker.tls_port, "dev-1", "wrong", ca=ca) as device:
            assert REFUSED == device.answer


def health(service: str, *moved: tuple[str, str]) -> int:
    """Ask as the compose file does, with this interpreter and these places; returns the exit code."""
    how, program, *command = services()[service]["healthcheck"]["test"]
    assert ("CMD", "python") == (how, program)
    for shipped, here in moved:
        command = [word.replace(shipped, here) for word in command]
    return subprocess.run([sys.executable, *command], capture_output=True, timeout=120, check=False).returncode


def worker_settings(broker: StackBroker, store: InfluxDB, tokens: Path) -> dict[str, str]:
    """What the compose file gives the worker, with this test's hosts, ports and paths."""
    given = {name.removeprefix("MICROCURRENT_").lower(): by_default(value) for name, value in services()["ingest"]["environment"].items()}
    moved = {
        "mqtt_host": LOOPBACK, "mqtt_port": str(broker.inner_port), "influx_url": store.url, "http_port": "0",
        **{name: given[name].replace("/run/secrets", str(broker.secrets)) for name in ("mqtt_password_file", "http_password_file", "credentials_log_file", "credentials_record_file")},
        "mqtt_log_file": str(broker.worker_log),
        "influx_token_file": given["influx_token_file"].replace("/run/tokens", str(tokens)),
        "influx_read_token_file": given["influx_read_token_file"].replace("/run/tokens", str(tokens)),
    }  # fmt: skip
    return {name: value for name, value in given.items() if name != "data_dir"} | moved


def test_the_worker_runs_as_the_compose_file_has_it(tmp_path: Path, broker: StackBroker) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    for name in ("ingest", "reconcile"):
        (tokens / name).write_text("any")
    password = password_for(broker, "dev-1")
    with (
        InfluxDB(tmp_path / "influxdb", database="telemetry") as store,
        Installation(tmp_path / "worker", **worker_settings(broker, store, tokens)) as worker,
    ):
        with Client(broker.port, "dev-1", password) as device:
            device.hear("mc/v1/dev-1/ack", "mc/v1/dev-1/alert")
            assert "Success" == device.say("mc/v1/dev-1/current", message(0))
            assert "Success" == device.say("mc/v1/dev-1/current", message(1, i_peak_ua=900.0))
            wait_until(
                lambda: {topic for topic, _ in device.heard} == {"mc/v1/dev-1/ack", "mc/v1/dev-1/alert"}, 20, "acknowledgement and alert"
            )
        wait_until(lambda: worker.reconcile()["ok"], 20, "both messages in the store")
        assert [201.2, 900.0] == [row["i_peak_ua"] for row in store.query("SELECT i_peak_ua FROM current")]
        checked = worker.command("check")
        assert (0, True) == (checked.returncode, "come back through the broker" in checked.stdout), checked.stdout

        port = worker.address.rsplit(":", 1)[1]
        assert 0 == health("ingest", (":8480", f":{port}"))
        assert 400 == worker.request("GET", "/api/overview", headers={"Host": "elsewhere.example"})[0]
        assert 200 == worker.request("GET", "/api/overview", headers={"Host": f"localhost:{port}"})[0]
        broker.stop()
        wait_until(lambda: not worker.ready(), 20, "the worker to notice")
        assert 0 != health("ingest", (":8480", f":{port}"))
        broker.start()
        worker.wait_ready()


def test_the_simulated_devices_of_the_demo_are_let_in_and_heard(tmp_path: Path, broker: StackBroker) -> None:
    service = services()["simulator"]
    (command,) = service["command"]
    clock = tmp_path / "clock"
    for shipped, here in (
        ("--host mosquitto --port 1883", f"--host {LOOPBACK} --port {broker.port}"), ("/run/secrets", str(broker.secrets)), ("/tmp/clock", str(clock)),
    ):  # fmt: skip
        assert shipped in command
        command = command.replace(shipped, here)
    with Client(broker.inner_port, WORKER, worker_password(broker)) as worker:
        worker.hear("mc/v1/+/status")
        env = environment(broker=service["environment"]["MICROCURRENT_BROKER"])
        running = subprocess.Popen(
            [*service["entrypoint"], by_default(command)], cwd=tmp_path, env=env | {"PATH": f"{MICROCURRENT.parent}:{os.environ['PATH']}"}
        )
        try:
            wait_until(lambda: len({topic for topic, _ in worker.heard}) == 25 or running.poll() is not None, 40, "25 births")
            assert running.poll() is None
            wait_until(lambda: health("simulator", ("/tmp/clock", str(clock))) == 0, 20, "its health check to pass")
        finally:
            running.kill()  # asked to stop, it would wait for acknowledgements that nobody sends here
            running.wait(120)
    os.utime(clock, (0, 0))
    assert 0 != health("simulator", ("/tmp/clock", str(clock)))
