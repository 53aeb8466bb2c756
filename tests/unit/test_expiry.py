"""Certificates that end: which the worker finds, when it says so, and how often. Made by the authority of our own."""

import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ingest.certificates import Authority, Issued, in_pem
from ingest.check import _certificates
from ingest.cli import _certificates_line
from ingest.credential_commands import _state
from ingest.expiry import read, shown
from ingest.journal import Journal
from ingest.mqtt_client import Endpoint
from ingest.safety.attacks import QUIET_S
from ingest.safety.expiry import DAY_MS, Certificate, Expiry, Reading
from ingest.safety.line import HOLD_S
from ingest.security import SecurityLog
from ingest.settings import Broker, Settings
from schemas.security import CertificateKind, SecurityKind
from tests.line import START_MS, Line
from tests.servers import LOOPBACK, free_port
from tests.unit.test_lookout import Seeing

HOUR_MS = 3_600_000


def ending(days: float, key: str = "a", place: str = "broker.example:8883", begins_ms: int = 0) -> Certificate:
    return Certificate(CertificateKind.BROKER, "broker.example", place, begins_ms, START_MS + round(days * DAY_MS), key)


# -- when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "warn_days", "severity"),
    [
        (30.01, 30, None), (30, 30, "warning"), (7.01, 30, "warning"), (7, 30, "critical"), (0, 30, "critical"), (-400, 30, "critical"),
        (30, 29, None), (2.01, 2, None), (2, 2, "critical"), (0.01, 0, None), (0, 0, "critical"),
    ],
)  # fmt: skip
def test_how_grave_it_is_depends_on_how_long_it_lasts(days: float, warn_days: int, severity: str | None) -> None:
    assert severity == ending(days).severity(START_MS, warn_days)


def test_by_a_clock_that_is_far_behind_a_certificate_has_not_begun_and_that_is_told() -> None:
    early = ending(365, begins_ms=START_MS + DAY_MS)
    assert "critical" == early.severity(START_MS)
    assert "this machine's clock is wrong" in early.told(START_MS)


@pytest.mark.parametrize(
    ("days", "words"), [(5.5, "ends in 5 days, at "), (1.5, "ends in 1 day, at "), (0.5, "ends within a day, at "), (-0.5, "ended at ")]
)
def test_it_is_said_whose_it_is_when_it_ends_and_what_to_do(days: float, words: str) -> None:
    told = ending(days).told(START_MS)
    assert told.startswith(f"the broker's certificate {words}") and "'microcurrent credentials server'" in told


# -- how often --------------------------------------------------------------------------------------


def test_each_is_told_once_as_a_warning_and_once_as_critical_and_a_new_one_not_at_all() -> None:
    expiry, told = Expiry({}), []
    for day in range(60):
        now_ms = START_MS + day * DAY_MS
        found = [ending(40)] if day < 50 else [ending(400, key="b")]
        told += [(day, severity.value) for _, severity in expiry.look(now_ms, found)]
    assert [(10, "warning"), (33, "critical")] == told
    assert {} == expiry.told


def test_after_a_restart_nothing_is_told_again_that_was_told() -> None:
    before = Expiry({})
    assert 1 == len(before.look(START_MS, [ending(20)]))
    kept = json.loads(json.dumps(before.told))
    assert [] == Expiry(kept).look(START_MS, [ending(20)])
    assert ["critical"] == [severity for _, severity in Expiry(kept).look(START_MS + 14 * DAY_MS, [ending(20)])]


def test_while_a_place_cannot_be_read_what_was_told_of_it_stands() -> None:
    expiry = Expiry({})
    expiry.look(START_MS, [ending(20)])
    assert [] == expiry.look(START_MS, [], ["broker.example:8883"]) + expiry.look(START_MS, [ending(20)])
    assert [] == expiry.look(START_MS - 30 * DAY_MS, [ending(20)], ["broker.example:8883"]) and {} == expiry.told
    expiry.look(START_MS, [ending(20)])
    expiry.look(START_MS, [])
    assert 1 == len(expiry.look(START_MS, [ending(20)]))


def test_a_clock_that_was_wrong_does_not_use_up_what_is_to_be_told() -> None:
    expiry = Expiry({})
    assert ["critical"] == [severity for _, severity in expiry.look(START_MS + 365 * DAY_MS, [ending(20)])]
    assert [] == expiry.look(START_MS, [ending(20)])
    assert ["critical"] == [severity for _, severity in expiry.look(START_MS + 14 * DAY_MS, [ending(20)])]


# -- in the worker ----------------------------------------------------------------------------------


@pytest.fixture
def seeing(tmp_path: Path) -> Iterator[Seeing]:
    with Line(tmp_path) as line:
        yield Seeing(line)


def seen(seeing: Seeing, *found: Certificate, unread: dict[str, str] | None = None) -> None:
    reading = Reading(found, unread or {})
    seeing.line.core.lookout.certificates = lambda: reading


def events(seeing: Seeing) -> list[tuple[str, str, str]]:
    return [
        (event["event"], event["alert"]["severity"], event["alert"]["detail"].partition(":")[0])
        for alert in seeing.line.alerts(rule="security-event")
        for event in seeing.line.journal.events(alert["id"])
    ]


def test_it_is_an_alert_that_stands_until_there_is_another(seeing: Seeing) -> None:
    seen(seeing, ending(20.5), ending(300, key="b", place="/ca.crt"))
    seeing.wait(2 * QUIET_S, pace_s=5)
    (alert,) = seeing.line.alerts()
    assert ("security-event", "warning", "open", 1.0) == (alert["rule"], alert["severity"], alert["state"], alert["value"])
    assert "broker.example from broker.example:8883 (1)" in alert["detail"] and "ends in 20 days" in alert["detail"]
    (event,) = seeing.line.journal.security_events()
    assert ("certificate", "broker.example", "broker.example:8883", 1) == (event["kind"], event["who"], event["source"], event["times"])
    assert event["detail"] == ending(20.5).told(event["first_ms"])
    seen(seeing, ending(300, key="c"))
    seeing.wait(QUIET_S - 20, pace_s=5)
    assert 1 == len(events(seeing))
    seeing.wait(30, pace_s=5)
    assert [("opened", "warning", "certificate"), ("closed", "warning", "certificate")] == events(seeing)


def test_it_becomes_critical_in_the_last_week_and_is_one_alert(seeing: Seeing) -> None:
    seen(seeing, ending(7 + 1 / 24))
    seeing.wait(10)
    assert [("opened", "warning", "certificate")] == events(seeing)
    seeing.line.clock.ms += HOUR_MS
    seeing.wait(70)
    assert [("opened", "warning", "certificate"), ("updated", "critical", "certificate")] == events(seeing)


def test_the_next_worker_tells_it_no_second_time_and_goes_on_with_the_alert(seeing: Seeing) -> None:
    seen(seeing, ending(20))
    seeing.wait(5)
    assert 1 == len(events(seeing))
    seeing.line.restart()
    seeing.open_eyes()
    seen(seeing, ending(20))
    seeing.wait(QUIET_S + 70, pace_s=5)
    assert [("opened", "warning", "certificate")] == events(seeing)
    assert [1] == [event["times"] for event in seeing.line.journal.security_events()]
    seen(seeing)
    seeing.wait(5)
    assert {} == seeing.line.journal.certificates_told()


def test_what_comes_together_is_as_grave_as_the_gravest() -> None:
    log = SecurityLog()
    for critical in (False, True, False):
        log.note(SecurityKind.CERTIFICATE, START_MS, "dev-1", "/devices.json", critical=critical)
    assert [(3, True)] == [(event.count, event.critical) for event in log.take()]


def test_a_clock_that_was_just_set_is_not_believed(seeing: Seeing) -> None:
    lookout, clock = seeing.line.core.lookout, seeing.line.clock
    lookout.wall_ms = lambda: clock.ms
    seen(seeing, ending(300))
    seeing.wait(5)
    clock.ms += 365 * DAY_MS
    seeing.wait(2)
    seen(seeing, ending(300))  # so it is looked at now
    seeing.wait(HOLD_S - 10)
    clock.ms -= 365 * DAY_MS
    seeing.wait(2 * HOLD_S + 70)
    assert {"clock_step"} == {kind for _, _, kind in events(seeing)}
    clock.ms += 365 * DAY_MS
    seeing.wait(HOLD_S + 70)
    assert ("opened", "critical", "certificate") in events(seeing)


def test_the_store_is_told_how_long_the_first_lasts_and_how_grave_it_is(seeing: Seeing) -> None:
    def told() -> tuple[float | None, int]:
        guarded = seeing.wait(2).line.core.guarded()
        return guarded.certificate_s, guarded.certificate_level

    assert (None, 0) == told()
    for days, level in ((200, 0), (20, 1), (3, 2)):
        seen(seeing, ending(200, key="b"), ending(days))
        left_s, rank = told()
        assert (level, ending(days).ends_ms) == (rank, seeing.line.clock.ms + round(left_s * 1000))


# -- what is found ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def settings(tmp_path: Path, **given: object) -> Settings:
    return Settings(data_dir=tmp_path / "data", **given)


def days_left(certificate: Certificate) -> int:
    return math.ceil((certificate.ends_ms - time.time_ns() // 1_000_000) / DAY_MS)


def summary(reading: Reading) -> list[tuple[str, str, str, int]]:
    return [(each.kind.value, each.name, Path(each.place).name, days_left(each)) for each in reading.found]


def test_all_files_that_are_named_are_read_and_the_page_has_none(tmp_path: Path, authority: Authority) -> None:
    ca, own, bound, other = (tmp_path / name for name in ("ca.crt", "own.crt", "server.crt", "other.crt"))
    ca.write_text(authority.certificate)
    own.write_text(authority.device("ingest-cert", 12).certificate)
    bound.write_text(authority.server(["broker.example"], 5).certificate)
    other.write_text(authority.server(["devices.example"], 40).certificate)
    copied = tmp_path / "copied.crt"
    copied.write_text(other.read_text())
    at = Endpoint(LOOPBACK, free_port(), "worker", ca_file=str(ca), cert_file=str(own))
    given = settings(tmp_path, mqtt_bind_cert_file=bound, certificate_files=f"{other}, {tmp_path / 'absent.crt'},{copied}")
    found = read(given, at)
    assert [
        ("authority", "microcurrent devices", "ca.crt", 3_650), ("worker", "worker", "own.crt", 12),
        ("broker", "broker.example", "server.crt", 5), ("watched", "devices.example", "other.crt", 40),
    ] == summary(found)  # fmt: skip
    assert {at.place, str(tmp_path / "absent.crt")} == set(found.unread)
    assert "No such file" in found.unread[str(tmp_path / "absent.crt")]
    assert [] == summary(read(settings(tmp_path, broker=Broker.EXTERNAL), Endpoint(LOOPBACK, 1, "worker")))


def test_a_chain_holds_as_long_as_the_first_of_it_and_a_file_of_authorities_as_the_last(tmp_path: Path, authority: Authority) -> None:
    chain, bundle = tmp_path / "chain.crt", tmp_path / "bundle.crt"
    short, long = authority.server(["a.example"], 9).certificate, authority.server(["b.example"], 90).certificate
    chain.write_text(long + short)
    bundle.write_text(short + authority.certificate + long)
    at = Endpoint(LOOPBACK, free_port(), "worker", ca_file=str(bundle))
    assert [("authority", 3_650), ("watched", 9)] == [(kind, days) for kind, _, _, days in summary(read(settings(tmp_path, certificate_files=str(chain)), at))]


@contextmanager
def shows(tmp_path: Path, issued: Issued) -> Iterator[Endpoint]:
    """A server that shows this certificate and says nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "shown.pem").write_text(issued.certificate + issued.key)
    context.load_cert_chain(tmp_path / "shown.pem")

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as stream:
                    stream.recv(1)

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield Endpoint(LOOPBACK, listener.getsockname()[1], "worker", ca_file=str(tmp_path / "ca.crt"))
        listener.shutdown(socket.SHUT_RDWR)


def test_the_brokers_is_seen_though_nobody_trusts_it(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.crt").write_text(Authority(tmp_path / "another").certificate)
    with shows(tmp_path, authority.server(["broker.example"], 5)) as at:
        found = read(settings(tmp_path), at)
    assert ([("broker", "broker.example", at.place, 5)], {}) == (
        [(e.kind.value, e.name, e.place, days_left(e)) for e in found.found if e.kind is CertificateKind.BROKER], found.unread,
    )  # fmt: skip
    away = read(settings(tmp_path), at, found)
    assert ([at.place], found.found) == (list(away.unread), away.found)


def test_of_several_authorities_the_one_counts_that_signed_the_brokers(tmp_path: Path, authority: Authority) -> None:
    later = x509.load_pem_x509_certificate(Authority(tmp_path / "another").certificate.encode())
    assert later.not_valid_after_utc >= x509.load_pem_x509_certificate(authority.certificate.encode()).not_valid_after_utc
    (tmp_path / "ca.crt").write_text(later.public_bytes(Encoding.PEM).decode() + authority.certificate)
    with shows(tmp_path, authority.server(["broker.example"], 5)) as at:
        (_, vouching) = read(settings(tmp_path), at).found
    assert (CertificateKind.AUTHORITY, in_pem(authority.certificate.encode())[0].fingerprint) == (vouching.kind, vouching.key)


@pytest.mark.parametrize("junk", [b"", b"{", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\x00", b"[1]", b'{"dev-1": [{}]}'])
def test_a_file_of_something_else_is_said_to_be_that_and_what_was_in_it_is_remembered(tmp_path: Path, authority: Authority, junk: bytes) -> None:
    path, record = tmp_path / "server.crt", tmp_path / "devices.json"
    path.write_text(authority.server(["broker.example"], 5).certificate)
    record.write_text(json.dumps({"dev-1": [{"expires_ms": START_MS, "revoked_ms": None, "serial": "1"}]}))
    given = settings(tmp_path, certificate_files=str(path), credentials_record_file=record)
    before = read(given, None)
    assert ({}, 2) == (before.unread, len(before.found))
    path.write_bytes(junk)
    record.write_bytes(junk)
    after = read(given, None, before)
    assert {str(path), str(record)} == set(after.unread) and before.found == after.found
    assert () == read(given, None).found


def test_of_a_device_the_certificate_counts_that_lasts_longest_and_a_revoked_one_never(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000

    def of(days: float, revoked: bool = False) -> dict[str, object]:
        return {"kind": "certificate", "expires_ms": now_ms + round(days * DAY_MS), "revoked_ms": now_ms if revoked else None, "serial": str(days)}

    record = tmp_path / "devices.json"
    password = {"kind": "password", "expires_ms": None, "revoked_ms": None, "serial": None}
    record.write_text(json.dumps({
        "changed-over": [of(3), of(300)], "soon": [of(20)], "out": [of(3, revoked=True)], "by-password": [password], "gone": [of(-1), of(300, revoked=True)],
    }))  # fmt: skip
    found = read(settings(tmp_path, credentials_record_file=record), None)
    assert [("changed-over", 300), ("soon", 20), ("gone", -1)] == [(each.name, days_left(each)) for each in found.found]
    told = shown(found, now_ms, 30)["devices"]
    assert (3, 1, 1, "gone") == (told["known"], told["ending"], told["ended"], told["first"]["name"])


def test_a_check_and_the_status_name_each_that_ends_and_each_that_cannot_be_read(tmp_path: Path, authority: Authority) -> None:
    soon, late, ca, record = (tmp_path / name for name in ("soon.crt", "late.crt", "ca.crt", "devices.json"))
    soon.write_text(authority.server(["soon.example"], 5).certificate)
    late.write_text(authority.server(["late.example"], 50).certificate)
    ca.write_text(authority.certificate)
    ends_ms = [time.time_ns() // 1_000_000 + days * DAY_MS + HOUR_MS for days in (-1, 3, 300)]
    record.write_text(json.dumps({f"dev-{n}": [{"expires_ms": at, "revoked_ms": None, "serial": str(n)}] for n, at in enumerate(ends_ms)}))
    given = settings(tmp_path, mqtt_bind_cert_file=late, certificate_files=f"{soon},{tmp_path / 'absent'},{ca}", credentials_record_file=record)
    ending, absent, devices = _certificates(given)
    assert (False, f"soon.example ({soon}) ends in 4 days") == (ending.ok, ending.detail.partition(", at")[0]) and ending.remedy
    assert not absent.ok and str(tmp_path / "absent") in absent.detail and absent.remedy
    assert (False, "of 3 devices' 1 end within 30 days, 1 have ended") == (devices.ok, devices.detail) and devices.remedy.startswith("dev-0 is the first")
    told = _certificates_line(shown(read(given, None), time.time_ns() // 1_000_000, 30))
    assert told.startswith(ending.detail) and devices.detail + ", the first dev-0, ended at " in told and "absent cannot be read: No such file" in told
    (well,) = _certificates(settings(tmp_path, mqtt_bind_cert_file=late, certificate_files=str(ca)))
    assert (True, f"2 known; late.example ({late}) is the first: it ends in 49 days") == (well.ok, well.detail.partition(", at")[0])
    assert [] == list(_certificates(settings(tmp_path)))
    assert "none that the worker knows of" == _certificates_line(shown(Reading(), START_MS, 30))


def test_the_list_of_credentials_marks_what_ends_soon() -> None:
    row = {"expires_ms": START_MS + 29 * DAY_MS, "revoked_ms": None}
    assert "valid, ENDS in 29 days" == _state(row, START_MS, 30)
    assert "valid" == _state(row, START_MS, 28) == _state({"expires_ms": None, "revoked_ms": None}, START_MS, 30)
    assert "expired" == _state(row, START_MS + 29 * DAY_MS, 30)
    assert _state(row | {"revoked_ms": START_MS}, START_MS, 30).startswith("revoked ")


def test_what_was_told_is_in_the_journal_of_the_step_that_told_it(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        seeing = Seeing(line)
        seen(seeing, ending(20))
        seeing.wait(1)
        kept = line.journal.certificates_told()
    assert {"a": ["warning", "broker.example:8883"]} == kept
    journal = Journal(tmp_path)
    assert kept == journal.certificates_told()
    journal.close()
