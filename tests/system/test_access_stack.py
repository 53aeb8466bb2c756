"""Devices with certificates at the real Mosquitto, and what its log tells the worker."""

import datetime
import re
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from tests.servers import LOOPBACK, Mosquitto, wait_until
from tests.stack import DEPLOY, StackBroker
from tests.system.doors import answer, noted
from tests.system.line import Installation, message, with_mosquitto
from tests.system.test_stack_broker import REFUSED, WORKER, Client, password_for, worker_password

pytestmark = pytest.mark.system


class Fleet:
    """The stack's broker, for devices with certificates, and the commands that make them."""

    def __init__(self, directory: Path) -> None:
        self.broker = StackBroker(directory / "broker", conf_d=DEPLOY / "conf.d-certificates")
        self.line = Installation(directory / "host")
        self.out = directory / "issued"
        self.out.mkdir()
        self.authority = self.broker.secrets / "tls" / "ca.crt"
        self.command("server", "broker.example", "--days", "30")
        self.made = self.command("create", "dev-1", "dev-2", "dev-3", "--certificate", "--out", str(self.out), "--days", "20")
        # As the compose file names them in the container.
        for name, file in (("tls_certificate", "server.crt"), ("tls_key", "server.key"), ("device_authority", "ca.crt"), ("revoked_certificates", "revoked.pem")):
            (self.broker.secrets / name).symlink_to(self.broker.secrets / "tls" / file)

    def command(self, *words: str) -> Any:
        return self.line.answer("credentials", words[0], *words[1:], "--mosquitto", str(self.broker.secrets))

    def context(self, certificate: str | None, *, authority: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(authority or self.authority))
        if certificate:
            context.load_cert_chain(self.out / f"{certificate}.crt", self.out / f"{certificate}.key")
        return context

    @contextmanager
    def device(self, device_id: str) -> Iterator[Client]:
        client = Client(self.broker.tls_port, None, None, client_id="whatever it says")
        client._client.tls_set_context(self.context(device_id))
        with client:
            yield client

    def let_in(self, context: ssl.SSLContext | None) -> bool:
        """Whether a device comes as far as an accepted CONNECT. With TLS 1.3 a refused certificate shows in the first answer."""
        try:
            return answer(self.broker.tls_port, "any", None, None, clean=True, tls=context) == 0
        except (ssl.SSLError, ConnectionError):
            return False


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    with fleet.broker:
        yield fleet


def forged(fleet: Fleet, name: str, *, days_from: int, days_to: int, signed_by_ours: bool) -> str:
    """A certificate for dev-1 that is not as it should be: from another authority, or of another time."""
    ours = fleet.broker.secrets / "authority" / "ca.key"
    own = load_pem_private_key((fleet.out / "dev-1.key").read_bytes(), None)
    signer = load_pem_private_key(ours.read_bytes(), None) if signed_by_ours else own
    issuer = x509.load_pem_x509_certificate(fleet.authority.read_bytes()).subject
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])).issuer_name(issuer)
        .public_key(own.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days_from)).not_valid_after(now + datetime.timedelta(days=days_to))
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    (fleet.out / f"{name}.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (fleet.out / f"{name}.key").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return name


def test_a_device_comes_in_by_its_certificate_alone_and_speaks_as_the_name_in_it(fleet: Fleet) -> None:
    with Client(fleet.broker.inner_port, WORKER, worker_password(fleet.broker)) as worker, fleet.device("dev-1") as device:
        worker.hear("mc/v1/+/current")
        assert "Success" == device.answer
        assert REFUSED == device.say("mc/v1/dev-2/current", b"forged")
        assert "Success" == device.say("mc/v1/dev-1/current", b"mine")
        wait_until(lambda: worker.heard, 10, "the permitted message")
        assert [("mc/v1/dev-1/current", b"mine")] == worker.heard


def test_what_is_issued_says_who_and_until_when_and_its_key_is_for_its_owner_alone(fleet: Fleet) -> None:
    made = fleet.made["dev-1"]
    certificate = x509.load_pem_x509_certificate(Path(made["certificate"]).read_bytes())
    assert ["dev-1"] == [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    assert certificate.not_valid_after_utc.timestamp() * 1000 == made["expires_ms"]
    assert (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days in (19, 20)
    assert 0o600 == stat.S_IMODE(Path(made["key"]).stat().st_mode)
    assert 0o700 == stat.S_IMODE((fleet.broker.secrets / "authority").stat().st_mode)
    assert 0o600 == stat.S_IMODE((fleet.broker.secrets / "authority" / "ca.key").stat().st_mode)
    row = next(row for row in fleet.command("list") if row["device"] == "dev-1")
    assert ("certificate", made["expires_ms"], None) == (row["kind"], row["expires_ms"], row["revoked_ms"])


@pytest.mark.parametrize("wrong", ["no certificate", "another authority", "expired", "not yet valid", "TLS 1.2", "plain TCP", "a server's"])
def test_a_device_that_is_not_as_it_should_be_does_not_come_in(fleet: Fleet, wrong: str) -> None:
    assert fleet.let_in(fleet.context("dev-1"))  # the check can succeed
    if wrong == "plain TCP":
        assert not fleet.let_in(None)
        return
    name = {
        "another authority": lambda: forged(fleet, "foreign", days_from=-1, days_to=1, signed_by_ours=False),
        "expired": lambda: forged(fleet, "old", days_from=-3, days_to=-1, signed_by_ours=True),
        "not yet valid": lambda: forged(fleet, "early", days_from=1, days_to=3, signed_by_ours=True),
        "no certificate": lambda: None, "TLS 1.2": lambda: "dev-1", "a server's": lambda: "server",
    }[wrong]()  # fmt: skip
    if wrong == "a server's":
        for end in ("crt", "key"):
            (fleet.out / f"server.{end}").write_bytes((fleet.broker.secrets / "tls" / f"server.{end}").read_bytes())
    context = fleet.context(name)
    if wrong == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not fleet.let_in(context)


def test_a_revoked_certificate_opens_nothing_and_what_it_had_opened_is_deaf_and_dumb(fleet: Fleet) -> None:
    with (
        Client(fleet.broker.inner_port, WORKER, worker_password(fleet.broker)) as worker,
        fleet.device("dev-2") as revoked, fleet.device("dev-1") as other,
    ):  # fmt: skip
        worker.hear("mc/v1/+/current")
        revoked.hear("mc/v1/dev-2/alert")
        assert "Success" == revoked.say("mc/v1/dev-2/current", b"before")
        fleet.command("revoke", "dev-2")
        fleet.broker.reload()
        wait_until(lambda: not fleet.let_in(fleet.context("dev-2")), 10, "the broker to have read again")
        assert revoked.lost or REFUSED == revoked.say("mc/v1/dev-2/current", b"after")
        worker.say("mc/v1/dev-2/alert", b"for nobody")
        assert "Success" == other.say("mc/v1/dev-1/current", b"last")
        wait_until(lambda: ("mc/v1/dev-1/current", b"last") in worker.heard, 10, "the message of another")
        assert [b"before", b"last"] == [payload for _, payload in worker.heard] and [] == revoked.heard
    assert fleet.let_in(fleet.context("dev-1"))
    row = next(row for row in fleet.command("list") if row["device"] == "dev-2")
    assert row["revoked_ms"] is not None
    again = fleet.line.command("credentials", "revoke", "dev-9", "--mosquitto", str(fleet.broker.secrets))
    assert 2 == again.returncode and "no credential here" in again.stderr


def test_without_the_authoritys_key_nothing_is_issued_or_revoked_and_nothing_is_half_done(fleet: Fleet) -> None:
    key = fleet.broker.secrets / "authority" / "ca.key"
    before = (fleet.broker.secrets / "devices.json").read_text()
    away = key.rename(key.with_name("away"))
    try:
        for words in (("create", "dev-8", "--certificate", "--out", str(fleet.out)), ("revoke", "dev-1")):
            refused = fleet.line.command("credentials", *words, "--mosquitto", str(fleet.broker.secrets))
            assert 2 == refused.returncode and "the authority's key is not here" in refused.stderr and 1 == refused.stderr.count("\n")
    finally:
        away.rename(key)
    assert before == (fleet.broker.secrets / "devices.json").read_text()


def test_what_the_broker_and_the_commands_log_reaches_the_worker_over_rotation_and_restart(tmp_path: Path) -> None:
    with StackBroker(tmp_path / "broker") as broker:
        settings = {
            "broker": "external", "mqtt_port": broker.inner_port, "mqtt_protocol": "5", "mqtt_username": WORKER, "mqtt_client_id": WORKER,
            "mqtt_password_file": broker.secrets / "mqtt_worker_password", "mqtt_log_file": broker.worker_log,
            "credentials_log_file": broker.secrets / "credentials_log",
        }  # fmt: skip
        with Installation(tmp_path / "worker", **settings) as worker:
            password = password_for(broker, "dev-1")
            wait_until(lambda: noted(worker.data, "credentials", who="dev-1"), 15, "the credential that was made")
            assert answer(broker.port, "dev-1", "dev-1", "wrong") == 5
            wait_until(lambda: noted(worker.data, "auth_failure", source=LOOPBACK), 15, "the wrong password")
            broker.worker_log.rename(broker.worker_log.with_suffix(".1"))
            broker.worker_log.touch(mode=0o640)
            broker.reload()
            with Client(broker.port, "dev-1", password) as first:
                with Client(broker.port, "dev-1", password):
                    wait_until(lambda: first.lost, 10, "the newer connection to win")
            wait_until(lambda: noted(worker.data, "takeover", who="dev-1"), 15, "the take-over")
            broker.stop()
            broker.start()
            worker.wait_ready()
            before = noted(worker.data, "auth_failure")
            assert answer(broker.port, "dev-1", "dev-1", "wrong again") == 5
            wait_until(lambda: noted(worker.data, "auth_failure") > before, 15, "the wrong password after a restart")
            assert before + 1 == noted(worker.data, "auth_failure")


def test_a_worker_whose_session_is_taken_says_so_and_does_not_fight_for_it(tmp_path: Path) -> None:
    with StackBroker(tmp_path / "broker") as broker:
        settings = {
            "broker": "external", "mqtt_port": broker.inner_port, "mqtt_protocol": "5", "mqtt_username": WORKER, "mqtt_client_id": WORKER,
            "mqtt_password_file": broker.secrets / "mqtt_worker_password",
        }  # fmt: skip
        with Installation(tmp_path / "worker", **settings) as worker:
            with Client(broker.inner_port, WORKER, worker_password(broker)):  # which comes back within a second, each time
                wait_until(lambda: noted(worker.data, "takeover"), 30, "the worker to say so")
                wait_until(lambda: not worker.overview()["pipeline"]["broker"]["connected"], 15, "the worker to keep away for a while")
            worker.wait_ready()
            password = password_for(broker, "dev-1")
            with Client(broker.port, "dev-1", password) as device:
                assert "Success" == device.say("mc/v1/dev-1/current", message(0))
            worker.wait_settled(1)
            assert worker.logged("event=broker_connected") < 12


def test_a_brokers_certificate_that_ends_in_five_days_is_told_and_its_successor_is_not(fleet: Fleet, tmp_path: Path) -> None:
    maker = Installation(tmp_path / "maker", broker="embedded")
    made = maker.answer("credentials", "server", "broker.example", "--days", "5")
    broker = Mosquitto(tmp_path)
    broker.config.write_text(broker.config.read_text() + f"cafile {made['authority']}\ncertfile {made['certificate']}\nkeyfile {made['key']}\n")
    record = fleet.broker.secrets / "devices.json"
    settings = {"mqtt_ca_file": made["authority"], "certificate_files": fleet.authority, "credentials_record_file": record}
    with broker, with_mosquitto(tmp_path / "worker", broker, **settings) as worker:
        place = f"{LOOPBACK}:{broker.port}"
        wait_until(lambda: noted(worker.data, "certificate", who="broker.example", source=place), 15, "the event")
        (alert,) = worker.get("/api/alerts?rule=security-event")["alerts"]
        assert ("security-event", "critical", "open") == (alert["rule"], alert["severity"], alert["state"])
        seen = worker.overview()["pipeline"]["certificates"]
        assert ([("broker", place, "critical", made["expires_ms"])], {}) == (
            [(c["kind"], c["place"], c["severity"], c["ends_ms"]) for c in seen["known"] if c["severity"]], seen["unread"],
        )  # fmt: skip
        assert seen["devices"]["ending"] == noted(worker.data, "certificate", source=str(record)) > 0
        metrics = worker.request("GET", "/metrics")[2].decode()
        left_s = float(re.search(r'^microcurrent_certificate_seconds\{kind="broker"\} (\S+)$', metrics, re.M)[1])
        assert 4 * 86_400 < left_s <= 5 * 86_400
        checked = worker.command("check")
        assert 1 == checked.returncode
        assert f"FAIL  certificate: broker.example ({place}) ends in 4 days" in checked.stdout and "credentials server" in checked.stdout
        assert f"broker.example ({place}) ends in 4 days" in worker.command("status").stdout
        told = noted(worker.data, "certificate")
        maker.answer("credentials", "server", "broker.example", "--days", "200")
        broker.stop()
        broker.start()
        worker.wait_ready()
        wait_until(lambda: not [c for c in worker.overview()["pipeline"]["certificates"]["known"] if c["severity"]], 15, "its successor to be seen")
        assert told == noted(worker.data, "certificate")
