"""One worker, wired top to bottom."""

import os
import secrets
import signal
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from ingest import failpoints, observe
from ingest.canary import Canary
from ingest.clock import Clock, FollowedClock, WallClock
from ingest.drain import Drain
from ingest.errors import EXIT_DISK, EXIT_THREAD, Mistake, NoRoom, Unavailable
from ingest.expiry import Watch
from ingest.guard import Guard
from ingest.journal import Journal
from ingest.journal.quarantine import Quota
from ingest.lookout import Sight
from ingest.mqtt import Receiver
from ingest.mqtt_client import Endpoint
from ingest.notify import Notifier, target_of, terms_of
from ingest.pipeline import Core
from ingest.pressure import MIB, Room
from ingest.pulse import WORKER_PREFIX
from ingest.registry import Registry
from ingest.reports import Links
from ingest.settings import Broker, Settings, Store, read_secret
from ingest.sink import Sink
from schemas.profile import ProfileError, Profiles, load_profiles

_OF_THE_DISK = frozenset(
    {
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY,
    }
)  # fmt: skip

LOCK_PATIENCE_S = 3.0
"""A worker that was just killed, or a command that looks at the files, holds the lock a moment longer."""


@dataclass(slots=True)
class Worker:
    """The running parts, for the page and the commands to look at."""

    settings: Settings
    clock: Clock
    journal: Journal
    core: Core
    receiver: Receiver
    drain: Drain
    notifier: Notifier | None
    canary: Canary | None
    sink: Sink
    profiles: Profiles
    registry: Registry | None
    certificates: Watch | None
    started_ms: int


def profiles_of(settings: Settings) -> Profiles:
    try:
        return load_profiles(settings.profiles_dir)
    except ProfileError as error:
        raise Mistake(f"profile {error}") from error


def clock_of(settings: Settings) -> Clock:
    if settings.clock_file is None:
        return WallClock()
    try:
        return FollowedClock(settings.clock_file)
    except (OSError, ValueError) as error:
        raise Mistake(f"{settings.clock_file}: no simulated clock there; start the simulator first") from error


def sink_of(settings: Settings) -> Sink:
    """Client libraries are imported where they are chosen; they are slow to load."""
    if settings.store is Store.INFLUXDB:
        from ingest.sinks.influx import InfluxSink

        return InfluxSink(settings)
    from ingest.sinks.duckdb import DuckDBSink

    return DuckDBSink(settings.data_dir)


def client_id_of(settings: Settings) -> str:
    """The worker's name at the broker: unguessable, and the same at every start."""
    if settings.mqtt_client_id:
        return settings.mqtt_client_id
    path = settings.credentials_dir / "client-id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(WORKER_PREFIX + secrets.token_hex(16))
        path.chmod(0o600)
    return path.read_text().strip()


def endpoint_of(settings: Settings) -> Endpoint:
    if settings.broker is Broker.EMBEDDED:
        from ingest.embedded.broker import worker_endpoint

        return worker_endpoint(settings)
    return Endpoint(
        host=settings.mqtt_host,
        port=settings.mqtt_port,
        client_id=client_id_of(settings),
        protocol=settings.mqtt_protocol,
        username=settings.mqtt_username,
        password=read_secret(settings.mqtt_password_file, "the broker password"),
        keepalive_s=settings.mqtt_keepalive_s,
        receive_maximum=settings.mqtt_receive_maximum,
        ca_file=str(settings.mqtt_ca_file) if settings.mqtt_ca_file else None,
        cert_file=str(settings.mqtt_cert_file) if settings.mqtt_cert_file else None,
        key_file=str(settings.mqtt_key_file) if settings.mqtt_key_file else None,
    )


def build(settings: Settings, connect: bool = True) -> Worker:
    """Open everything; a Mistake tells what a person must mend. Without `connect`, only to look at it."""
    profiles = profiles_of(settings)
    clock = clock_of(settings) if connect else WallClock()
    endpoint = endpoint_of(settings) if connect else Endpoint("", 0, WORKER_PREFIX + "offline")
    target = target_of(settings) if connect else None
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    room = Room(settings.data_dir, _bytes(settings.journal_max_mib), _bytes(settings.disk_free_min_mib))
    if connect and not room.is_writable(0):
        room.give_up_reserve()
    registry = Registry(settings.registry_file, always=[endpoint.client_id]) if connect and settings.registry_file else None
    journal = Journal(settings.data_dir, LOCK_PATIENCE_S, only_look=not connect)
    journal.quota = Quota(settings.quarantine_most_mib << 20, settings.quarantine_device_percent / 100)
    try:
        journal.is_writable = room.is_writable
        journal.work_in_log_at(room.log_bytes)
        sink = sink_of(settings)
        upto = _open(sink, journal)
        if not journal.accepted and sink.knows_another(journal.uuid):
            raise Mistake(
                f"{settings.data_dir}: the journal is new, but the store beside it has been filled from another one; "
                "restore that journal from a backup, or move the store aside as well"
            )
        if upto is not None and upto > journal.last_entry():  # new entries would be taken for stored ones
            raise Mistake(
                f"{settings.data_dir}: the journal is older than the store beside it, as after a backup of it alone; "
                "restore both from the same backup, or move the store aside"
            )
    except BaseException:
        journal.close()
        raise
    core = Core(
        journal,
        profiles,
        clock,
        worker_id=endpoint.client_id,
        retention_days=settings.retention_days,
        raw_retention_days=settings.raw_retention_days,
        summary_retention_days=settings.summary_retention_days,
        durable_ack_interval_s=settings.durable_ack_interval_ms / 1000,
        blind_after_s=settings.blind_after_s,
        only_answers=not connect,
        registry=registry,
    )
    core.notices.webhook = terms_of(settings)
    core.disk.room = room
    core.look_at_room()
    failpoints.reach("store-opened")
    if upto is not None:
        with journal.step():
            core.settle_upto(upto)
            failpoints.reach("settle-upto-uncommitted")
        failpoints.reach("settled-upto")
    known_session = settings.data_dir / "credentials" / "subscribed"
    receiver = Receiver(
        endpoint,
        clock,
        core.wake,
        expects_session=known_session.exists() and known_session.read_text() == endpoint.client_id,
        pulse_interval_s=settings.pulse_interval_ms / 1000,
        security=core.security,
    )
    if connect:
        core.source = receiver
    drain = Drain(core, sink, settings.sink_batch, settings.retention_days, settings.summary_retention_days)
    core.reports.links = lambda: Links(receiver.link.connected, receiver.session_lost_ms is not None, drain.state.ok)
    canary = None
    if connect:
        _open_eyes(core, receiver, drain, settings)
        if settings.canary_interval_s:
            boot_id = secrets.randbits(32)
            canary = core.lookout.canary = Canary(receiver, clock, core.name, boot_id, settings.canary_interval_s, sink.holds)
    notifier = Notifier(core, target) if target else None
    certificates = Watch(settings, endpoint, receiver.link, clock.now_ms) if connect else None
    if certificates:
        core.lookout.expiry.warn_days = settings.certificate_warn_days
        core.lookout.certificates = lambda: certificates.reading
    return Worker(settings, clock, journal, core, receiver, drain, notifier, canary, sink, profiles, registry, certificates, clock.now_ms())


def _open_eyes(core: Core, receiver: Receiver, drain: Drain, settings: Settings) -> None:
    """Let the lookout see broker and store, and the clock on the wall where that is a real one."""

    def see() -> Sight:
        link, store = receiver.link, drain.state
        return Sight(link.connected, link.detail, link.subscription_refused, receiver.session_lost_ms, store.ok, store.detail, receiver.times_taken_over)

    lookout = core.lookout
    lookout.see = see
    lookout.pulse_s = settings.pulse_interval_ms / 1000
    if isinstance(core.clock, WallClock):
        lookout.wall_ms = core.clock.now_ms


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * MIB


def _open(sink: Sink, journal: Journal) -> int | None:
    """Open the store. One that cannot be opened now is opened by its writer later, unless this is the very first start."""
    try:
        return sink.open(journal.uuid)
    except Unavailable as error:
        if not journal.accepted:
            raise NoRoom(str(error)) from error
        return None


def _build_in_time(settings: Settings, stopping: threading.Event) -> Worker | None:
    """Open everything as soon as there is room on the disk; None if told to stop before."""
    said = False
    while not stopping.is_set():
        try:
            return build(settings)
        except NoRoom as error:
            if not said:
                observe.log().error("no_room_to_start", detail=str(error))
            said = True
            stopping.wait(1.0)
        except sqlite3.Error as error:
            if not is_of_the_disk(error):
                raise
            observe.log().error("journal_failed", detail=str(error))
            raise SystemExit(EXIT_DISK) from error
    return None


def run(settings: Settings) -> int:
    """Run one worker until SIGTERM or SIGINT; returns the exit code."""
    observe.configure_logging(settings.log_level)
    failpoints.arm()
    sys.setswitchinterval(0.01)
    os.umask(0o077)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0) if stopping.is_set() else stopping.set())
    worker = _build_in_time(settings, stopping)
    if worker is None:
        return 0
    from ingest.web import Web

    try:
        web = Web(worker)
        address = web.start()
    except Mistake:
        worker.journal.close()
        raise
    _note_address(settings.data_dir, address)
    core_thread = threading.Thread(target=_guarded, args=(worker.core,), name="core", daemon=True)
    core_thread.start()
    worker.drain.start()
    if worker.notifier:
        worker.notifier.start()
    worker.receiver.start()
    guard = Guard(settings, worker.core.security, worker.clock)
    guard.start()
    worker.certificates.start()
    if worker.canary:
        worker.canary.start()
    observe.log().info("worker_started", page=address, data_dir=str(settings.data_dir), store=worker.sink.name)
    while not stopping.wait(1.0):
        _note_subscription(worker)
        if worker.registry:
            worker.registry.look()
    observe.log().info("worker_stopping")
    failpoints.reach("stop-asked")
    if worker.canary:
        worker.canary.stop()
    worker.drain.stop(5.0)
    failpoints.reach("stop-drained")
    if worker.notifier:
        worker.notifier.stop(5.0)
    worker.receiver.stop()
    guard.stop()
    worker.certificates.stop()
    failpoints.reach("stop-received")
    web.stop()  # before the core: who asks it something then is answered, and nobody waits for an answer at the end
    worker.core.stop()
    core_thread.join(10.0)
    failpoints.reach("stop-finished")
    worker.sink.close()
    failpoints.reach("stop-store-closed")
    _note_subscription(worker)
    worker.journal.close()
    (settings.data_dir / "worker.json").unlink(missing_ok=True)
    observe.log().info("worker_stopped")
    return 0


def is_of_the_disk(error: sqlite3.Error) -> bool:
    """Whether the file, who else holds it, or the disk beneath it is at fault, and not this program."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK


def _guarded(core: Core) -> None:
    """The core must not die silently: its end is the process's end, and the journal has everything. What the disk has
    refused is not tried again: the next process reads what is really there."""
    try:
        core.run()
    except sqlite3.DatabaseError as error:
        if not is_of_the_disk(error):
            observe.log().exception("core_died")
            os._exit(EXIT_THREAD)
        observe.log().exception("journal_failed", detail=str(error))
        os._exit(EXIT_DISK)
    except BaseException:
        observe.log().exception("core_died")
        os._exit(EXIT_THREAD)


def _note_subscription(worker: Worker) -> None:
    """Remember that the broker holds a session for us; its loss can then be noticed."""
    path = worker.settings.data_dir / "credentials" / "subscribed"
    if worker.receiver.link.connected and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(worker.core.worker_id)


def _note_address(data_dir: Path, address: str) -> None:
    path = data_dir / "worker.json"
    path.write_bytes(orjson.dumps({"pid": os.getpid(), "address": address, "started": time.time()}))


