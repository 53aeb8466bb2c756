"""All settings, one model. Each description says what happens to the operator if it is wrong."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest.errors import Mistake
from schemas.alerts import Severity
from schemas.limits import CRITICAL_DAYS, WARN_DAYS

PREFIX = "MICROCURRENT_"
SECRETIVE = ("password", "token", "secret", "webhook_url")
"""Settings whose values are never shown."""


class Broker(StrEnum):
    EMBEDDED = "embedded"
    EXTERNAL = "external"


class Protocol(StrEnum):
    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


class Store(StrEnum):
    DUCKDB = "duckdb"
    INFLUXDB = "influxdb"


Port = Annotated[int, Field(ge=0, le=65_535)]
Mib = Annotated[Annotated[int, Field(ge=1, le=2**30)] | None, BeforeValidator(lambda value: None if value == "" else value)]


class Settings(BaseSettings):
    """Read from MICROCURRENT_… variables, then from `.env` in the working directory."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    data_dir: Annotated[
        Path,
        Field(description="Journal, credentials and embedded stores live here. Another directory is another, empty worker."),
    ] = Path(".microcurrent/data")

    broker: Annotated[
        Broker,
        Field(description="'embedded' runs a broker as a child on this machine; 'external' uses yours. Wrong: devices publish where nobody listens."),
    ] = Broker.EMBEDDED
    mqtt_host: Annotated[str, Field(description="Address of the external broker. Wrong: nothing arrives, and 'check' says so.")] = "127.0.0.1"
    mqtt_port: Annotated[Port, Field(description="Port of the broker; the embedded one listens here too (0 chooses a free one).")] = 1883
    mqtt_bind: Annotated[
        str,
        Field(description="Address the embedded broker listens on. Anything but loopback opens it to your network, and needs the two files below."),
    ] = "127.0.0.1"
    mqtt_bind_cert_file: Annotated[
        Path | None,
        Field(description="Certificate of the embedded broker, with its chain: devices then connect over TLS 1.3 alone. Wrong: it does not start."),
    ] = None
    mqtt_bind_key_file: Annotated[Path | None, Field(description="Key of that certificate.")] = None
    mqtt_protocol: Annotated[
        Protocol,
        Field(description="MQTT version; 'auto' tries 5 and falls back to 3.1.1. With 3.1.1 a broker may deliver only 20 messages at a time."),
    ] = Protocol.AUTO
    mqtt_username: Annotated[str, Field(description="Name at the external broker. Wrong: refused, retried ever more slowly, and shown in 'status'.")] = ""
    mqtt_password_file: Annotated[Path | None, Field(description="File with the broker password. Missing: the worker does not start.")] = None
    mqtt_client_id: Annotated[
        str,
        Field(pattern="^[A-Za-z0-9_-]{0,64}$", description="Session name at the broker; generated and kept when empty. Changing it abandons messages the broker still holds."),
    ] = ""
    mqtt_ca_file: Annotated[Path | None, Field(description="Certificate authority for TLS; with it the connection is encrypted. Wrong: refused.")] = None
    mqtt_cert_file: Annotated[Path | None, Field(description="Client certificate, if the broker asks for one.")] = None
    mqtt_key_file: Annotated[Path | None, Field(description="Key of that certificate.")] = None
    mqtt_log_file: Annotated[
        Path | None,
        Field(description="Log of a Mosquitto, where the worker looks for who was refused. Absent: only the broker's own log tells of attempts to get in."),
    ] = None
    credentials_log_file: Annotated[
        Path | None, Field(description="What 'make device' and 'credentials' note beside a Mosquitto. Absent: who was let in or taken out is on record there only.")
    ] = None
    credentials_record_file: Annotated[
        Path | None,
        Field(description="The 'devices.json' that 'make secrets' begins beside a Mosquitto. Absent: the worker does not know when certificates of devices end, only 'credentials list' does."),
    ] = None
    certificate_files: Annotated[
        str,
        Field(
            description="Other certificates whose end is told in time, files with commas: such as that which a Mosquitto shows to devices, and their authority. "
            "Left out: all devices are refused on the day it ends, and nobody was told."
        ),
    ] = ""
    certificate_warn_days: Annotated[
        int,
        Field(ge=0, le=398, description=f"So many days before a certificate ends it is an alert; critical in the last {CRITICAL_DAYS}. Too few: no time to bring new ones to devices. 0: told when it has ended."),
    ] = WARN_DAYS
    pulse_interval_ms: Annotated[
        int,
        Field(ge=10, le=60_000, description="How often the worker sends itself a message through the broker; silence is only judged up to the last that came back."),
    ] = 1_000
    canary_interval_s: Annotated[
        float,
        Field(
            ge=0, le=86_400,
            description="How often a message of the worker's own goes through broker, judge and store and is read back; 0 turns it off. "
            "Off: a path that is broken in the middle is seen only by who misses something.",
        ),
    ] = 60.0
    blind_after_s: Annotated[
        float,
        Field(
            ge=1, le=3600,
            description="How long something may stay unseen before it is an alert. Too short: each restart of the broker is one; too long: nobody is told.",
        ),
    ] = 45.0
    mqtt_keepalive_s: Annotated[int, Field(ge=5, le=3600, description="A dead connection is noticed after 1.5 times this long.")] = 30
    mqtt_receive_maximum: Annotated[int, Field(ge=1, le=65_535, description="Messages on their way without acknowledgement; smaller is slower, larger is more to send again.")] = 1_000

    store: Annotated[Store, Field(description="Where readings go. Changing it starts an empty history in the other store.")] = Store.DUCKDB
    influx_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+/?$", description="InfluxDB address. Wrong: messages wait in the outbox and nothing is lost.")] = "http://127.0.0.1:8086"
    influx_org: Annotated[str, Field(description="InfluxDB organisation. Wrong: 404, messages wait.")] = "microcurrent"
    influx_bucket: Annotated[str, Field(description="InfluxDB bucket; the database of that name for InfluxQL. Wrong: 404, messages wait.")] = "telemetry"
    influx_long_bucket: Annotated[
        str,
        Field(description="InfluxDB bucket for what is kept longer: alerts, sessions, roll-ups; may be the same one. Wrong: 404, messages wait."),
    ] = "telemetry_long"
    influx_token_file: Annotated[Path | None, Field(description="File with a token that may write to both buckets; read again while refused.")] = None
    influx_read_token_file: Annotated[Path | None, Field(description="File with a token that may read the bucket, for 'reconcile'. Absent: the writing token is tried.")] = None
    influx_timeout_ms: Annotated[int, Field(ge=500, le=600_000, description="How long a write may take before it is tried again.")] = 15_000
    sink_batch: Annotated[int, Field(ge=1, le=10_000, description="Messages in one write to the store.")] = 1_000

    profiles_dir: Annotated[Path | None, Field(description="Safety envelopes; the shipped EXAMPLES when empty, which are not for safety use.")] = None
    registry_file: Annotated[
        Path | None,
        Field(
            description="File with the devices that are known, one id a line; read again when it changes. What others send goes to quarantine as "
            "unknown_device, its danger judged. Empty: every device that the broker lets in is known. Wrong: good devices wait in quarantine."
        ),
    ] = None
    retention_days: Annotated[int, Field(ge=1, le=36_500, description="How long the store keeps readings; older ones go to quarantine as too_old.")] = 90
    summary_retention_days: Annotated[
        int,
        Field(ge=1, le=36_500, description="How long alerts, sessions and roll-ups are kept; not below RETENTION_DAYS. Too short: trends and evidence are gone."),
    ] = 730
    raw_retention_days: Annotated[int, Field(ge=1, le=36_500, description="How long the journal keeps raw messages: evidence and back-tests reach no further back.")] = 90
    quarantine_most_mib: Annotated[
        int,
        Field(ge=1, le=1_048_576, description="MiB of refused messages kept whole; beyond, each is kept as its first 4 KiB, length and SHA-256, and cannot be replayed."),
    ] = 1_024
    quarantine_device_percent: Annotated[
        float, Field(gt=0, le=100, description="How much of that one device may take. Too much: one faulty device leaves no room for the others.")
    ] = 10.0
    durable_ack_interval_ms: Annotated[int, Field(ge=10, le=60_000, description="A device hears at most this often what is safe; larger makes devices hold more.")] = 500

    journal_max_mib: Annotated[
        Mib,
        Field(description="What the journal may take on disk, in MiB; empty: what its disk has. At 70 % 'status' and an alert say so, at 95 % nothing more is accepted until there is room. Too small: devices and brokers have to keep what they have."),
    ] = None
    disk_free_min_mib: Annotated[
        Mib,
        Field(description="With less free on the journal's disk nothing more is accepted; empty: 1024, or a twentieth of the disk if that is less. Too small: what was accepted cannot be worked off."),
    ] = None

    webhook_url_file: Annotated[Path | None, Field(description="File with the address that alerts are posted to; an address may hold a secret. Wrong: alerts wait, and 'check' says so.")] = None
    webhook_url: Annotated[
        str,
        Field(pattern=r"^(https?://[^\s/]\S*)?$", description="The same address, if it holds no secret; empty sends nothing. Wrong: alerts wait, and 'check' says so."),
    ] = ""
    webhook_secret_file: Annotated[Path | None, Field(description="File with the key that signs what is posted. Absent: the receiver cannot tell who posts.")] = None
    webhook_min_severity: Annotated[Severity, Field(description="Only events of alerts at least this grave are posted; what is less never reaches the receiver.")] = Severity.WARNING
    webhook_timeout_s: Annotated[float, Field(ge=0.1, le=300, description="How long one attempt may take. Too short: a slow receiver gets the same alert again and again.")] = 10.0
    webhook_most: Annotated[
        int, Field(ge=1, le=1_000_000, description="Entries kept while the receiver is away; in a full queue the oldest of the least severe give way, and are counted.")
    ] = 10_000

    http_host: Annotated[
        str, Field(description="Address of page, health and metrics. Anything but loopback opens them to your network, and needs one of the two files below.")
    ] = "127.0.0.1"
    http_password_file: Annotated[
        Path | None,
        Field(description="File with the password of the page. Absent, on loopback: everybody on this machine may look and act."),
    ] = None
    http_token_file: Annotated[
        Path | None,
        Field(description="File with a token for programs that read /metrics and /api; with it or with a password, nothing is open. Commands have their own."),
    ] = None
    http_allowed_hosts: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9.:_\[\]-]*(,[A-Za-z0-9.:_\[\]-]+)*$",
            description="Names in an address that the page answers to, with commas. Empty: those of loopback, or all names if it listens elsewhere, "
            "and then a web page that somebody opens can ask this one.",
        ),
    ] = ""
    http_port: Annotated[Port, Field(description="Port of page, health and metrics (0 chooses a free one).")] = 8480
    clock_file: Annotated[Path | None, Field(description="Follow a simulator's clock instead of the machine's. Never set it in production: time would stand still.")] = None
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$", description="What is logged; payloads never are.")] = "info"

    @model_validator(mode="after")
    def summaries_outlast_readings(self) -> Self:
        if self.summary_retention_days < self.retention_days:
            raise ValueError(
                f"{PREFIX}SUMMARY_RETENTION_DAYS ({self.summary_retention_days}) is below {PREFIX}RETENTION_DAYS "
                f"({self.retention_days}): what remains of readings must outlast them; raise the first or lower the second"
            )
        return self

    @property
    def credentials_dir(self) -> Path:
        return self.data_dir / "credentials"


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment with the command line's on top; a wrong one is a Mistake."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start}"
        raise Mistake(f".env: cannot read the settings in it ({reason}); mend the file, or move it away") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        wrong = "its value" if any(word in name for word in SECRETIVE) else repr(first["input"])
        raise Mistake(
            f"setting {PREFIX}{name.upper()}: {wrong}: {first['msg'].lower()}. {Settings.model_fields[name].description}"
            if name in Settings.model_fields
            else f"settings: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def read_secret(path: Path | None, what: str) -> str | None:
    """The first line of a secret's file; a file that cannot be read is a Mistake."""
    if path is None:
        return None
    try:
        secret = path.read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Mistake(f"{path}: cannot read {what} ({reason}); create the file or correct the setting") from error
    if not secret:
        raise Mistake(f"{path}: {what} is empty; put it on the first line")
    return secret


def example() -> str:
    """`.env.example`: every setting with its meaning; secrets are named by file and never set."""
    lines = ["# Generated by 'make schemas' from ingest/settings.py; copy it to .env and change what you need.", ""]
    for name, field in Settings.model_fields.items():
        value = field.default
        lines += [f"# {field.description}", f"#{PREFIX}{name.upper()}={'' if value is None else value}", ""]
    return "\n".join(lines)
