"""Which certificates the worker depends on, and when each ends: that of the broker as it shows it now, and those in files.

Read in a thread of its own, at every connection to the broker and once an hour. The page speaks no TLS, so
it has none.
"""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest import observe
from ingest.mqtt_client import Endpoint
from ingest.safety.expiry import RENEW, Certificate, Reading
from ingest.settings import Broker, Settings
from schemas.security import CertificateKind

if TYPE_CHECKING:
    from ingest.certificates import Held
    from ingest.mqtt import Link

LOOK_S = 3_600.0
SOON_S = 300.0
"""How often it is looked again while one ends soon, so that a new one in its place is seen."""

ASK_S = 1.0
ANSWER_S = 5.0
"""How long the broker may take to show its certificate."""

MOST_NAME = 64


class Watch:
    """Looks by itself. `reading` is what it last found, None before the first time; any thread may read it."""

    def __init__(self, settings: Settings, endpoint: Endpoint, link: "Link", now_ms: Callable[[], int]) -> None:
        self.reading: Reading | None = None
        self._settings, self._endpoint, self._link, self._now_ms = settings, endpoint, link, now_ms
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="expiry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def look(self) -> None:
        before = self.reading
        self.reading = read(self._settings, self._endpoint, before)
        for place, why in self.reading.unread.items():
            if before is None or why != before.unread.get(place):
                observe.log().warning("certificate_unread", place=place, detail=why)

    def _run(self) -> None:
        since_ms, again_s = 0, 0.0
        while not self._stopping.is_set():
            anew = self._link.connected and self._link.since_ms != since_ms
            if anew or time.monotonic() >= again_s:
                since_ms = self._link.since_ms if anew else since_ms
                self.look()
                soon = any(each.severity(self._now_ms(), self._settings.certificate_warn_days) for each in self.reading.found)
                again_s = time.monotonic() + (SOON_S if soon or self.reading.unread else LOOK_S)
            self._stopping.wait(ASK_S)


def shown(reading: Reading, now_ms: int, warn_days: int) -> dict[str, Any]:
    """For people and programs, the first to end first; of devices only how many, and the first."""

    def row(each: Certificate) -> dict[str, Any]:
        return {
            "kind": each.kind.value,
            "name": each.name,
            "place": each.place,
            "ends_ms": each.ends_ms,
            "severity": each.severity(now_ms, warn_days),
            "says": each.words(now_ms),
            "remedy": RENEW[each.kind],
        }

    in_order = sorted(reading.found, key=lambda each: each.ends_ms)
    of_devices = [each for each in in_order if each.kind is CertificateKind.DEVICE]
    ended = sum(each.ends_ms <= now_ms for each in of_devices)
    return {
        "warn_days": warn_days,
        "known": [row(each) for each in in_order if each.kind is not CertificateKind.DEVICE],
        "unread": dict(reading.unread),
        "devices": {
            "known": len(of_devices),
            "ending": sum(each.severity(now_ms, warn_days) is not None for each in of_devices) - ended,
            "ended": ended,
            "first": row(of_devices[0]) if of_devices else None,
        },
    }


def read(settings: Settings, endpoint: Endpoint | None, before: Reading | None = None) -> Reading:
    """All certificates that settings and connection name; one that is in two places is told of the first. Without an endpoint
    only those in files."""
    found: dict[str, Certificate] = {}
    unread: dict[str, str] = {}

    def take(place: str, look: Callable[[], Iterable[Certificate]]) -> None:
        try:
            seen = list(look())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unread[place] = _why(error)
            seen = [each for each in before.found if each.place == place] if before else []
        for each in seen:
            found.setdefault(each.key, each)

    of_broker: list[Held] = []
    if endpoint and (endpoint.ca_file or endpoint.exact_certificate):
        take(endpoint.place, lambda: _shown_by_broker(endpoint, of_broker))
    if endpoint and endpoint.ca_file:
        take(endpoint.ca_file, lambda: [_authority(Path(endpoint.ca_file), of_broker)])
    if endpoint and endpoint.cert_file:
        take(endpoint.cert_file, lambda: [_first_to_end(CertificateKind.WORKER, Path(endpoint.cert_file))])
    if settings.broker is Broker.EMBEDDED and (bound := settings.mqtt_bind_cert_file):
        take(str(bound), lambda: [_first_to_end(CertificateKind.BROKER, bound)])
    for path in filter(None, (name.strip() for name in settings.certificate_files.split(","))):
        take(path, lambda path=path: [_first_to_end(CertificateKind.WATCHED, Path(path))])
    if settings.credentials_record_file:
        take(str(settings.credentials_record_file), lambda: of_devices(settings.credentials_record_file))
    return Reading(tuple(found.values()), unread)


def _shown_by_broker(endpoint: Endpoint, of_broker: "list[Held]") -> Iterator[Certificate]:
    """Over a connection of its own that says nothing: so it is seen too when it has ended and nobody trusts it any more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if endpoint.cert_file:
        context.load_cert_chain(endpoint.cert_file, endpoint.key_file)
    with (
        socket.create_connection((endpoint.host, endpoint.port), ANSWER_S) as plain,
        context.wrap_socket(plain, server_hostname=endpoint.host) as stream,
    ):
        pem = ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True))
    of_broker += _in_pem(pem.encode())
    yield _certificate(CertificateKind.BROKER, of_broker[0], endpoint.place)


def _authority(path: Path, of_broker: "list[Held]") -> Certificate:
    """Of a file of several the one that vouches for the broker, and of such the last to end; if none is known to, the last of all."""
    several = _in_pem(path.read_bytes())
    vouch = [each for each in several if any(each.has_signed(broker) for broker in of_broker)]
    return _certificate(CertificateKind.AUTHORITY, max(vouch or several, key=lambda each: each.ends_ms), str(path))


def _first_to_end(kind: CertificateKind, path: Path) -> Certificate:
    """Of a chain: it holds no longer than any of it."""
    return _certificate(kind, min(_in_pem(path.read_bytes()), key=lambda each: each.ends_ms), str(path))


def _in_pem(pem: bytes) -> "list[Held]":
    """Its library is loaded only where there is a certificate."""
    from ingest.certificates import in_pem

    return in_pem(pem)


def _certificate(kind: CertificateKind, held: "Held", place: str) -> Certificate:
    # The worker's name at the broker, which may be in its certificate, is a secret.
    name = "worker" if kind is CertificateKind.WORKER else "".join(c if c.isprintable() else "?" for c in held.name)[:MOST_NAME]
    return Certificate(kind, name, place, held.begins_ms, held.ends_ms, held.fingerprint)


def of_devices(path: Path) -> Iterator[Certificate]:
    """Of each device in a record of credentials the certificate that ends last, of those that are not revoked."""
    records: dict[str, list[dict[str, Any]]] = json.loads(path.read_bytes())
    for device_id, credentials in records.items():
        valid = [each for each in credentials if each["expires_ms"] is not None and each["revoked_ms"] is None]
        if valid:
            last = max(valid, key=lambda each: each["expires_ms"])
            yield Certificate(CertificateKind.DEVICE, device_id, str(path), 0, int(last["expires_ms"]), f"device {last['serial']}")


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it holds no certificate, or no record of them"
