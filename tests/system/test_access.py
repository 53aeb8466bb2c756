"""The embedded broker against those who are not whom they say they are. What counts is the effect, not the answer."""

import json
import os
import re
import signal
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import LOOPBACK, wait_until
from tests.stack import ROOT, make_secrets
from tests.system.doors import ACCEPTED, NOT_AUTHORIZED, answer, field, knock, noted, packet
from tests.system.line import MICROCURRENT, Installation, Oracle, descendants, environment, message, send

pytestmark = pytest.mark.system

DEVICES = ("example-1", "example-2", "example-3")


class House:
    """A running line with the embedded broker and devices that have passwords."""

    def __init__(self, line: Installation) -> None:
        self.line = line
        self.passwords: dict[str, str] = line.answer("credentials", "create", *DEVICES)
        self.port = int((line.data / "credentials" / "broker.port").read_text())
        self.worker: str = json.loads((line.data / "credentials" / "worker.json").read_text())["name"]

    def device(self, device_id: str) -> Oracle:
        return Oracle(self.port, version=mqtt.MQTTv311, client_id=device_id, user=device_id, password=self.passwords[device_id])

    def wait_noted(self, kind: str, at_least: int = 1, **which: str) -> int:
        return wait_until(lambda: (n := noted(self.line.data, kind, **which)) >= at_least and n, 15, f"{at_least} × {kind} {which}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Installation(tmp_path_factory.mktemp("house"), broker="embedded", mqtt_port=0) as line:
        yield House(line)


@pytest.mark.parametrize(
    "who", ["nobody", "no password", "empty password", "wrong password", "unknown", "another's password", "the worker's name", "a hash"]
)
def test_who_cannot_prove_who_they_are_is_refused_and_it_is_noted(house: House, who: str) -> None:
    source = f"127.0.1.{1 + len(who)}"
    stored = json.loads((house.line.data / "credentials" / "devices.json").read_text())["example-1"]["sha256"]
    client_id, user, password = {
        "nobody": ("example-1", None, None), "no password": ("example-1", "example-1", None), "empty password": ("example-1", "example-1", ""),
        "wrong password": ("example-1", "example-1", "wrong"), "unknown": ("example-9", "example-9", "wrong"),
        "another's password": ("example-1", "example-1", house.passwords["example-2"]), "the worker's name": (house.worker, house.worker, "wrong"),
        "a hash": ("example-1", "example-1", stored),
    }[who]  # fmt: skip
    assert NOT_AUTHORIZED == answer(house.port, client_id, user, password, source=source)
    if who != "the worker's name":  # the broker checks that by itself; nobody knows the name
        house.wait_noted("auth_failure", source=source)


def test_a_device_cannot_take_the_session_of_the_worker_nor_of_another_device(house: House) -> None:
    before = house.line.overview()["pipeline"]["broker"]
    with house.device("example-2") as victim:
        for clean in (False, True):
            for client_id in (house.worker, "example-2", "example-11"):
                assert answer(house.port, client_id, "example-1", house.passwords["example-1"], clean=clean, source="127.0.2.1") == NOT_AUTHORIZED
            assert ACCEPTED != answer(house.port, "", "example-1", house.passwords["example-1"], clean=clean, source="127.0.2.1")
        accepted = house.line.ledger()["accepted"]
        victim.publish("example-2", 0, boot_id=20)
        victim.wait_acked(1)
        house.line.wait_settled(accepted + 1)
        assert victim.connected
    after = house.line.overview()["pipeline"]["broker"]
    assert (True, before["since_ms"]) == (after["connected"], after["since_ms"])
    assert house.wait_noted("forbidden", 7, who="example-1", source="127.0.2.1") == 7


def test_a_connect_without_proof_does_nothing_to_who_has_that_name(house: House) -> None:
    """Some brokers end the session of that name, or its connection, before they look at the password."""
    heard: list[bytes] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="example-3", protocol=mqtt.MQTTv311, clean_session=False)
    client.username_pw_set("example-3", house.passwords["example-3"])
    lost, granted = threading.Event(), threading.Event()
    client.on_connect = lambda c, *_: c.subscribe("mc/v1/example-3/ack", 1)
    client.on_subscribe = lambda *_: granted.set()
    client.on_disconnect = lambda *_: lost.set()
    client.on_message = lambda _c, _u, m: heard.append(m.payload)
    client.connect(LOOPBACK, house.port)
    client.loop_start()
    try:
        assert granted.wait(60)
        since = house.line.overview()["pipeline"]["broker"]["since_ms"]
        for clean in (True, False):
            for name in ("example-3", house.worker):
                for user, password in ((None, None), (name, "wrong")):
                    assert answer(house.port, name, user, password, clean=clean, source="127.0.3.1") == NOT_AUTHORIZED
        client.publish("mc/v1/example-3/current", message(0, boot_id=30), qos=1)
        wait_until(lambda: heard, 10, "the acknowledgement on the subscription from before")
        assert not lost.is_set() and since == house.line.overview()["pipeline"]["broker"]["since_ms"]
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_thousand_tries_of_one_source_are_ten_and_nobody_else_is_shut_out(house: House) -> None:
    thief, home, neighbour = "127.0.4.1", "127.0.4.2", "127.0.4.1"
    right = house.passwords["example-1"]
    assert ACCEPTED == answer(house.port, "example-2", "example-2", house.passwords["example-2"], source=neighbour)  # behind the same address
    for n in range(1_000):
        assert NOT_AUTHORIZED == answer(house.port, "example-1", "example-1", f"guess-{n}", source=thief)
    assert NOT_AUTHORIZED == answer(house.port, "example-1", "example-1", right, source=thief)  # the right guess came too late
    assert ACCEPTED == answer(house.port, "example-1", "example-1", right, source=home)
    assert ACCEPTED == answer(house.port, "example-2", "example-2", house.passwords["example-2"], source=neighbour)
    house.wait_noted("throttled", 991, source=thief)
    assert (10, 991) == (noted(house.line.data, "auth_failure", source=thief), noted(house.line.data, "throttled", source=thief))


def test_nothing_foreign_is_ever_heard_whatever_is_subscribed_to(house: House) -> None:
    filters = ("#", "+/+/#", "mc/v1/+/current", "mc/v1/#", "$SYS/#", "$MQTT/#", "$JS/#", "$share/g/#", "mc/v1/example-2/ack", "mc/v1/example-2/alert")
    heard: list[str] = []
    answered: list[int] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="example-1", protocol=mqtt.MQTTv311)
    client.username_pw_set("example-1", house.passwords["example-1"])
    client.on_message = lambda _c, _u, m: heard.append(m.topic)
    client.on_subscribe = lambda _c, _u, mid, *_: answered.append(mid)
    client.connect(LOOPBACK, house.port)
    client.loop_start()
    try:
        wait_until(client.is_connected, 10, "the connection")
        for topic in (*filters, "mc/v1/example-1/ack"):
            client.subscribe(topic, 1)
        wait_until(lambda: len(answered) == len(filters) + 1, 10, "every SUBACK")
        with house.device("example-2") as other:
            other.publish("example-2", 1, boot_id=50, i_peak_ua=900.0)  # an alert, an acknowledgement and a reading of somebody else
            other.wait_acked(1)
            wait_until(lambda: house.line.get("/api/alerts?device=example-2")["alerts"], 10, "the other's alert")
        client.publish("mc/v1/example-1/current", message(0, boot_id=50), qos=1)
        wait_until(lambda: heard, 10, "its own acknowledgement")
        assert {"mc/v1/example-1/ack"} == set(heard)
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_is_published_for_another_never_arrives_and_is_noted(house: House) -> None:
    before = house.line.ledger()["accepted"]
    with house.device("example-1") as device:
        device.publish("example-2", 7, boot_id=60)
        device.publish("example-1", 7, boot_id=60)
        house.line.wait_settled(before + 1)
    assert before + 1 == house.line.ledger()["accepted"]
    assert [] == house.line.get("/api/quarantine?device=example-2")["entries"]
    house.wait_noted("forbidden", who="example-1", source="")


def test_the_newest_of_two_connections_with_one_credential_stays_and_it_is_noted(house: House) -> None:
    with knock(house.port, "example-2", "example-2", house.passwords["example-2"], source="127.0.5.1") as (first, older):
        assert ACCEPTED == first
        with knock(house.port, "example-2", "example-2", house.passwords["example-2"], source="127.0.5.2") as (second, newer):
            assert ACCEPTED == second
            assert b"" == older.recv(1)
            newer.sendall(b"\xc0\x00")
            assert b"\xd0\x00" == newer.recv(2)
    house.wait_noted("takeover", who="example-2", source="127.0.5.1")


def test_a_revoked_device_is_cut_off_at_once_and_a_new_password_ends_the_old(house: House) -> None:
    old = house.line.answer("credentials", "create", "short-lived")["short-lived"]
    with knock(house.port, "short-lived", "short-lived", old) as (code, connection):
        assert ACCEPTED == code
        new = house.line.answer("credentials", "create", "short-lived")["short-lived"]
        assert b"" == connection.recv(1), "cut off"
    assert (NOT_AUTHORIZED, ACCEPTED) == tuple(answer(house.port, "short-lived", "short-lived", p, source="127.0.6.1") for p in (old, new))
    with (
        knock(house.port, "short-lived", "short-lived", new) as (code, connection),
        knock(house.port, "example-3", "example-3", house.passwords["example-3"]) as (_, other),
    ):
        assert ACCEPTED == code
        house.line.answer("credentials", "revoke", "short-lived")
        assert b"" == connection.recv(1), "cut off"
        other.sendall(b"\xc0\x00")
        assert b"\xd0\x00" == other.recv(2)
    assert NOT_AUTHORIZED == answer(house.port, "short-lived", "short-lived", new, source="127.0.6.1")
    (row,) = [row for row in house.line.answer("credentials", "list") if row["device"] == "short-lived"]
    assert ("password", None) == (row["kind"], row["expires_ms"]) and row["revoked_ms"] >= row["created_ms"] > 0
    assert 3 == house.wait_noted("credentials", 3, who="short-lived")


def test_what_happened_while_no_worker_was_there_is_told_by_the_next(house: House) -> None:
    house.line.kill_worker()
    assert NOT_AUTHORIZED == answer(house.port, "example-1", "example-1", "wrong", source="127.0.7.1")
    house.line.wait_ready()
    assert 1 == house.wait_noted("auth_failure", who="example-1", source="127.0.7.1")
    wait_until(lambda: not list((house.line.data / "security").glob("*.json")), 10, "what was taken up to be gone")


def test_five_hundred_devices_that_connect_at_once_are_all_let_in(house: House) -> None:
    names = [f"many-{n}" for n in range(500)]
    passwords = house.line.answer("credentials", "create", *names)
    codes: list[int | None] = []

    def come(chosen: list[str]) -> None:
        codes.extend(answer(house.port, name, name, passwords[name], clean=True) for name in chosen)

    threads = [threading.Thread(target=come, args=(names[n::50],)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {ACCEPTED} == set(codes) and 500 == len(codes)


def test_no_secret_is_in_an_argument_a_variable_a_log_or_a_file_that_others_read(house: House) -> None:
    data, credentials = house.line.data, house.line.data / "credentials"
    worker = json.loads((credentials / "worker.json").read_text())
    secret = [*house.passwords.values(), worker["password"], (credentials / "command-token").read_text().strip()]
    secret += [line.split('"')[-2] for line in (credentials / "broker.conf").read_text().splitlines() if "SYS: { users" in line]
    pids = [house.line.pid, *descendants(house.line.pid)]
    shown = [Path(f"/proc/{pid}/{what}").read_bytes() for pid in pids for what in ("cmdline", "environ")]
    shown += [path.read_bytes() for path in (house.line.log, *data.glob("*.log*"), data / "broker.out") if path.exists()]
    shown += [house.line.command(*words).stdout.encode() for words in (("status",), ("credentials", "list"))]
    assert all(len(text) >= 16 for text in secret) and len(shown) > 8
    assert [] == [text for text in secret if any(text.encode() in each for each in shown)]
    assert [] == [text for text in house.passwords.values() if any(text in path.read_text() for path in credentials.iterdir() if path.is_file())]
    assert [] == [path for path in data.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o027]
    assert 0o700 == stat.S_IMODE(credentials.stat().st_mode)
    for pid in pids:
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        assert ["0", "0"] == next(line for line in limits if line.startswith("Max core file size")).split()[4:6]


# -- beyond this machine ----------------------------------------------------------------------------


def test_a_broker_beyond_loopback_needs_tls_and_says_so_in_one_sentence(tmp_path: Path) -> None:
    line = Installation(tmp_path, broker="embedded", mqtt_port=0, mqtt_bind="0.0.0.0")
    refused = line.command("run")
    assert 2 == refused.returncode and 1 == refused.stderr.count("\n"), refused.stderr
    assert "opens the embedded broker to your network" in refused.stderr
    half = line.command("run", mqtt_bind_cert_file=str(tmp_path / "server.crt"))
    assert 2 == half.returncode and "belong together" in half.stderr and 1 == half.stderr.count("\n")


def watched(line: Installation) -> list[tuple[str, str, int, str | None]]:
    return [(c["kind"], c["place"], c["ends_ms"], c["severity"]) for c in line.overview()["pipeline"]["certificates"]["known"]]


def test_with_a_certificate_devices_speak_tls_13_and_nothing_else(tmp_path: Path) -> None:
    line = Installation(tmp_path, broker="embedded", mqtt_port=0)
    made = line.answer("credentials", "server", "broker.example")
    assert 0o600 == stat.S_IMODE(os.stat(made["key"]).st_mode)
    line.settings |= {"mqtt_bind_cert_file": made["certificate"], "mqtt_bind_key_file": made["key"]}
    with line:
        password = line.answer("credentials", "create", "example-1")["example-1"]
        port = int((line.data / "credentials" / "broker.port").read_text())
        trusting = ssl.create_default_context(cafile=made["authority"])
        with knock(port, "example-1", "example-1", password, tls=trusting) as (code, device):
            assert (ACCEPTED, "TLSv1.3") == (code, device.version())
            device.sendall(packet(0x32, field(b"mc/v1/example-1/current") + b"\x00\x01" + message(0)))
            assert b"\x40" == device.recv(4)[:1]
            line.wait_settled(1)
        older = ssl.create_default_context(cafile=made["authority"])
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            answer(port, "example-1", "example-1", password, tls=older)
        assert answer(port, "example-1", "example-1", password) is None
        line.wait_for(lambda seen: (seen["pipeline"]["certificates"] or {}).get("known"), 15, "the worker to have looked at certificates")
        wait_until(lambda: [("broker", f"{LOOPBACK}:{port}", made["expires_ms"], None)] == watched(line), 15, "the broker's certificate to be seen")
        with pytest.raises(ssl.SSLCertVerificationError):
            answer(port, "example-1", "example-1", password, tls=ssl.create_default_context())
        send(line.worker_pid, signal.SIGKILL)
        line.wait_ready()


def test_what_the_document_on_access_shows_works_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", (ROOT / "docs" / "access.md").read_text(), re.S)
    shown = [block for block in blocks if "microcurrent credentials" in block and "MICROCURRENT_" not in block]
    assert 2 == len(shown)
    assert 0 == make_secrets(tmp_path).returncode
    script = "set -e\n" + "".join(shown).replace(".venv/bin/microcurrent", "microcurrent")
    env = environment(data_dir=tmp_path / "data") | {"PATH": f"{MICROCURRENT.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert {"dev-1.key", "dev-1.crt"} == {path.name for path in (tmp_path / "issued").iterdir()}
