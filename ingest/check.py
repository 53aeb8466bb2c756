"""`microcurrent check`: is everything fit for a worker, and what is to be done where it is not."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest import expiry
from ingest.app import endpoint_of, profiles_of, sink_of
from ingest.client import Remote, address_of
from ingest.clock import WallClock
from ingest.console import when
from ingest.embedded import broker
from ingest.errors import Mistake, Unavailable
from ingest.mqtt import Link, Receiver
from ingest.mqtt_client import Endpoint
from ingest.network import can_listen
from ingest.notify import Attempt, target_of
from ingest.registry import read_registry
from ingest.settings import Broker, Protocol, Settings, Store
from ingest.tokens import check_access, command_token
from schemas.applies import coverage

CONNECT_DEADLINE_S = 8.0
PULSE_DEADLINE_S = 5.0
SLOW_FSYNC_MS = 50.0
CANARY_OFF = "off: a path that is broken in the middle is not noticed; MICROCURRENT_CANARY_INTERVAL_S turns it on"
NO_WEBHOOK = "none; alerts go to MQTT, the page and the store only"
LEAST_FREE_BYTES = 1 << 30
REMOTE_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "tmpfs", "ramfs", "9p"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is fit, what was seen, and the remedy if it is not."""

    what: str
    ok: bool
    detail: str
    remedy: str = ""


def checks(settings: Settings) -> list[Finding]:
    """All findings, in the order in which a person would mend them."""
    found = [Finding("settings", True, f"data in {settings.data_dir}, broker {settings.broker}, store {settings.store}")]
    found += _data_dir(settings.data_dir)
    found += _profiles(settings)
    found.append(_registry(settings.registry_file))
    address = address_of(settings.data_dir)
    if address is not None:
        found += _running(Remote(address, command_token(settings.data_dir)))
        return found
    found.append(Finding("worker", True, "not running; its connections are tried from here"))
    found += _page(settings)
    found += _broker(settings)
    found += _certificates(settings)
    found += _store(settings)
    if not settings.canary_interval_s:
        found.append(Finding("canary", True, CANARY_OFF))
    found += _webhook(settings)
    return found


def _attempt(what: str, remedy: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except (Mistake, Unavailable) as error:
        return Finding(what, False, str(error), remedy)


def _data_dir(directory: Path) -> Iterator[Finding]:
    remedy = "choose a directory on a local disk that this user may write to (MICROCURRENT_DATA_DIR)"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took_ms = (time.perf_counter() - began) * 1000
    except OSError as error:
        yield Finding("data directory", False, f"{directory}: {error.strerror}", remedy)
        return
    kind = _file_system(directory)
    if kind in REMOTE_FILE_SYSTEMS:
        yield Finding("data directory", False, f"{directory} is on {kind}, which does not keep what is written", remedy)
    else:
        slow = took_ms > SLOW_FSYNC_MS
        yield Finding(
            "data directory", not slow, f"{directory} ({kind or 'local'}), a write reaches the disk in {took_ms:.1f} ms",
            "a faster disk: each batch of messages waits for this" if slow else "",
        )  # fmt: skip
    free = shutil.disk_usage(directory).free
    yield Finding(
        "disk space", free > LEAST_FREE_BYTES, f"{free / 2**30:.1f} GiB free",
        "" if free > LEAST_FREE_BYTES else "make room: below 1 GiB the journal may stop accepting messages",
    )  # fmt: skip


def _file_system(directory: Path) -> str:
    """The type of the file system that a directory is on, where the system tells (Linux)."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    at = str(directory.resolve())
    inside = [m for m in mounts if at == m[1] or at.startswith(m[1].rstrip("/") + "/")]
    return max(inside, key=lambda m: len(m[1]))[2] if inside else ""


def _profiles(settings: Settings) -> Iterator[Finding]:
    def look() -> str:
        profiles = profiles_of(settings)
        return ", ".join(f"{p.id} version {p.version}" for p in profiles.all)

    found = _attempt("profiles", "mend the file that is named, or set MICROCURRENT_PROFILES_DIR", look)
    yield found
    if found.ok:
        for said in coverage(profile.applies for profile in profiles_of(settings).all):
            yield Finding("profile coverage", True, f"{said}; any other device is judged by what holds for every device")
    if settings.profiles_dir is None:
        yield Finding("profile source", True, "the shipped EXAMPLES, not for safety use; set MICROCURRENT_PROFILES_DIR to your own")


def _registry(path: Path | None) -> Finding:
    if path is None:
        return Finding("device registry", True, "none; every device that the broker lets in is known (MICROCURRENT_REGISTRY_FILE)")

    def look() -> str:
        known = read_registry(path)
        if not known:
            raise Mistake(f"{path}: no device is in the registry, so every message would go to quarantine")
        return f"{len(known)} device{'s' if len(known) != 1 else ''} in {path}; what others send goes to quarantine as unknown_device"

    return _attempt("device registry", "mend the file, or correct MICROCURRENT_REGISTRY_FILE", look)


def _running(remote: Remote) -> Iterator[Finding]:
    seen = remote.overview()
    link, store = seen["pipeline"]["broker"], seen["pipeline"]["store"]
    yield Finding("worker", True, f"running at {remote.url}")
    yield Finding(
        "broker", link["connected"], link["detail"], "" if link["connected"] else "start the broker, or correct MICROCURRENT_MQTT_…"
    )
    if link["connected"]:
        lost = link["session_lost_ms"] is not None
        yield Finding(
            "broker session", not lost,
            "the broker lost this worker's session and what it held" if lost else "kept",
            "let the broker keep sessions on disk (persistence), then restart the worker" if lost else "",
        )  # fmt: skip
        yield _pulse(link["pulses"])
    yield Finding(
        "store", store["ok"], f"{store['name']}: {store['detail']}",
        "" if store["ok"] else "messages wait in the outbox; mend the store or MICROCURRENT_INFLUX_…",
    )  # fmt: skip


    yield from _certificates_seen(seen["pipeline"]["certificates"] or {})
    yield _canary_seen(seen["pipeline"]["canary"])
    blind = seen["pipeline"]["blind"]
    causes = [f"since {when(each['since_ms'])} {each['means']}" for each in blind["causes"]] if blind else []
    yield Finding(
        "sight", not causes, "; ".join(causes) or "nothing is known to be unseen",
        f"'microcurrent alerts show {blind['alert_id']}' tells more" if causes else "",
    )  # fmt: skip
    yield _webhook_seen(seen["pipeline"]["webhook"])


def _certificates(settings: Settings) -> Iterator[Finding]:
    endpoint = None  # an embedded broker does not run now
    if settings.broker is Broker.EXTERNAL:
        with suppress(Mistake):  # told with the broker
            endpoint = endpoint_of(settings)
    yield from _certificates_seen(expiry.shown(expiry.read(settings, endpoint), WallClock().now_ms(), settings.certificate_warn_days))


def _certificates_seen(seen: dict[str, Any]) -> Iterator[Finding]:
    """One finding for each that ends soon or cannot be read, and of devices one for all."""
    ending = [each for each in seen.get("known", ()) if each["severity"]]
    for each in ending:
        yield Finding("certificate", False, f"{each['name']} ({each['place']}) {each['says']}", each["remedy"])
    for place, why in seen.get("unread", {}).items():
        yield Finding("certificate", False, f"{place}: cannot look at it ({why}), so nobody is told when it ends", "bring it back, or correct the setting that names it")
    devices = seen.get("devices", {"known": 0})
    if devices["known"]:
        soon = devices["ending"] + devices["ended"]
        detail = f"of {devices['known']} devices' {devices['ending']} end within {seen['warn_days']} days, {devices['ended']} have ended"
        yield Finding("device certificates", not soon, detail, f"{devices['first']['name']} is the first; {devices['first']['remedy']}" if soon else "")
    if seen.get("known") and not ending:
        first = seen["known"][0]
        yield Finding("certificates", True, f"{len(seen['known'])} known; {first['name']} ({first['place']}) is the first: it {first['says']}")


def _canary_seen(seen: dict[str, Any] | None) -> Finding:
    if seen is None:
        return Finding("canary", True, CANARY_OFF)
    if seen["missing_since_ms"] is not None and seen["through_ms"] is None:
        return Finding("canary", True, "on its way; none has come through yet")
    if seen["through_ms"] is None:
        return Finding("canary", True, "none was sent yet")
    return Finding("canary", True, f"the last took {seen['took_s']:.2f} s through broker, judge and store, as far as {seen['ends_at']}")


def _webhook_seen(seen: dict[str, Any] | None) -> Finding:
    if seen is None:
        return Finding("webhook", True, NO_WEBHOOK)
    remedy = ""
    if not seen["ok"]:
        remedy = "mend the receiver, or correct MICROCURRENT_WEBHOOK_…; what waits is sent then"
    elif seen["failed"]:
        remedy = "mend the receiver, then send what it refused again with 'microcurrent alerts resend'"
    counts = "{waiting} waiting, {failed} failed, {dropped} dropped".format(**seen)
    return Finding("webhook", not remedy, f"{seen['detail']}; {counts}", remedy)


def _webhook(settings: Settings) -> Iterator[Finding]:
    """Connects only: a request would be taken for an alert."""

    def look() -> str:
        target = target_of(settings)
        if target is None:
            return NO_WEBHOOK
        Attempt(target).reach()
        return f"{target.place} can be reached; nothing was sent" + ("" if target.secret else "; without MICROCURRENT_WEBHOOK_SECRET_FILE nothing is signed")

    yield _attempt("webhook", "mend the receiver, or correct MICROCURRENT_WEBHOOK_…; alerts would wait for it", look)


def _pulse(returned: bool) -> Finding:
    return Finding(
        "own messages", returned,
        "come back through the broker" if returned else "do not come back, so silence of devices cannot be judged",
        "" if returned else "allow this worker's user to write mc/v1/<its client id>/runtime",
    )  # fmt: skip


def _page(settings: Settings) -> Iterator[Finding]:
    free = settings.http_port == 0 or can_listen(settings.http_host, settings.http_port)
    yield Finding(
        "page", free, f"{settings.http_host}:{settings.http_port} is {'free' if free else 'in use'}",
        "" if free else "stop what uses it, or set MICROCURRENT_HTTP_PORT",
    )  # fmt: skip

    def access() -> str:
        check_access(settings)
        if settings.http_password_file or settings.http_token_file:
            return "only with a password or a token"
        return "open to everybody on this machine; MICROCURRENT_HTTP_PASSWORD_FILE closes it"

    yield _attempt("page access", "name a file with a password, or listen on loopback", access)


def _broker(settings: Settings) -> Iterator[Finding]:
    if settings.broker is Broker.EMBEDDED:
        yield _attempt("embedded broker", "install it, or use your own broker", lambda: broker.executable())

        def access() -> str:
            beyond = broker.listen_beyond(settings)
            secured = "TLS 1.3 and a password" if settings.mqtt_bind_cert_file else "a password"
            return f"devices of {'the network' if beyond else 'this machine'}, with {secured}"

        yield _attempt("embedded broker access", "make a certificate with 'microcurrent credentials server', or listen on loopback", access)
        free = settings.mqtt_port == 0 or can_listen(settings.mqtt_bind, settings.mqtt_port)
        yield Finding(
            "embedded broker port", free, f"{settings.mqtt_bind}:{settings.mqtt_port} is {'free' if free else 'in use'}",
            "" if free else "stop what uses it, or set MICROCURRENT_MQTT_PORT",
        )  # fmt: skip
        return
    try:
        endpoint = endpoint_of(settings)
    except Mistake as mistake:
        yield Finding("broker", False, str(mistake), "correct the setting that is named")
        return
    yield from _probe(endpoint)


def _probe(endpoint: Endpoint) -> Iterator[Finding]:
    """Connect as the worker would, twice. Nothing is acknowledged, so the broker keeps every message."""
    first = _connect(endpoint, again=False)
    if not first.connected:
        remedy = "start the broker, or correct MICROCURRENT_MQTT_HOST, …_PORT, …_USERNAME and …_PASSWORD_FILE"
        yield Finding("broker", False, first.detail, remedy)
        return
    yield Finding("broker", True, first.detail)
    yield Finding("subscriptions", True, "QoS 1 granted on all streams")
    yield _pulse(first.pulses)
    second = _connect(endpoint, again=True)
    kept = bool(second.session_present)
    yield Finding(
        "broker session", kept, "kept between connections" if kept else "not kept: messages sent while the worker is away are lost",
        "" if kept else "allow persistent sessions at the broker (session expiry of at least a week)",
    )  # fmt: skip
    if endpoint.protocol is Protocol.V311 or "3.1.1" in first.protocol:
        yield Finding("window", True, "MQTT 3.1.1: the broker's own limit of messages in flight applies (often 20); raise it for speed")


def _connect(endpoint: Endpoint, again: bool) -> Link:
    receiver = Receiver(endpoint, WallClock(), lambda: None, expects_session=again, pulse_interval_s=0.2)
    receiver.start()
    link = receiver.link
    deadline = time.monotonic() + CONNECT_DEADLINE_S
    while not link.connected and time.monotonic() < deadline and not link.detail.startswith(("refused", "subscription")):
        time.sleep(0.02)
    deadline = time.monotonic() + PULSE_DEADLINE_S
    while link.connected and not link.pulses and time.monotonic() < deadline:
        time.sleep(0.02)
    seen = replace(link)
    receiver.stop()
    return seen


def _store(settings: Settings) -> Iterator[Finding]:
    def look() -> str:
        sink = sink_of(settings)
        sink.open("check")
        try:
            return sink.probe()
        finally:
            sink.close()

    if settings.store is Store.INFLUXDB:
        remedy = "start InfluxDB, or correct MICROCURRENT_INFLUX_URL, …_ORG, …_BUCKET, …_LONG_BUCKET and …_TOKEN_FILE"
    else:
        remedy = "give the worker a data directory of its own, or restore the file"
    yield _attempt("store", remedy, look)
