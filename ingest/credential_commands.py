"""`microcurrent credentials …`: who may speak to the broker, and until when."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from ingest import handover
from ingest.console import DataDir, Json, named_files, out
from ingest.console import print_json as _print_json
from ingest.console import table as _table
from ingest.console import when as _when
from ingest.deploy import make_secrets
from ingest.embedded.register import Register
from ingest.errors import Mistake
from ingest.files import write_private
from ingest.safety.expiry import DAY_MS
from ingest.security import SecurityEvent
from ingest.settings import Broker, Settings, load_settings
from schemas.security import SecurityKind

credentials_app = typer.Typer(no_args_is_help=True, help="Who may speak to the broker, and until when.")

MosquittoDir = Annotated[
    Path | None,
    typer.Option("--mosquitto", help="Directory with the files of a Mosquitto, such as the stack's secrets/, instead of the embedded broker.", show_default=False),
]
Days = Annotated[int, typer.Option(min=1, max=398, help="How long a certificate holds.")]
Devices = Annotated[list[str], typer.Argument(help="Device ids; MQTT user name and client id are the same.", show_default=False)]
PASSWORD, CERTIFICATE = "password", "certificate"
RELOAD = "now let the broker read it: docker compose exec -T mosquitto sh /mosquitto/config/broker.sh reload"


class Keeper(Protocol):
    """Where the credentials of one broker are kept."""

    tls: Path
    authority: Path
    remark: str

    def create(self, device_ids: list[str]) -> dict[str, str]: ...
    def certified(self, device_id: str, serial: int, expires_ms: int) -> None: ...
    def revoke(self, device_ids: list[str]) -> None: ...
    def rows(self) -> list[dict[str, Any]]: ...
    def give(self, name: str, text: str) -> Path: ...


class EmbeddedKeeper:
    """The embedded broker's: passwords, as hashes. It sees a change by itself, at once."""

    remark = ""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._register = Register(settings.credentials_dir)
        self.tls = settings.credentials_dir / "tls"
        self.authority = settings.credentials_dir / "authority"

    def create(self, device_ids: list[str]) -> dict[str, str]:
        made = self._register.create(device_ids)
        self._tell(device_ids, "a password was made at the embedded broker")
        return made

    def certified(self, device_id: str, serial: int, expires_ms: int) -> None:
        raise Mistake("the embedded broker knows devices by password only; leave out --certificate, or name a Mosquitto's files with --mosquitto")

    def revoke(self, device_ids: list[str]) -> None:
        self._register.revoke(device_ids)
        self._tell(device_ids, "its password was taken away at the embedded broker")

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"device": device_id, "kind": PASSWORD, "created_ms": account.created_ms, "expires_ms": None, "revoked_ms": account.revoked_ms}
            for device_id, account in sorted(self._register.accounts().items())
        ]

    def give(self, name: str, text: str) -> Path:
        write_private(self.tls / name, text)
        return self.tls / name

    def _tell(self, device_ids: Iterable[str], detail: str) -> None:
        now_ms = time.time_ns() // 1_000_000
        handover.put(
            self._settings.data_dir,
            [SecurityEvent(SecurityKind.CREDENTIALS, device_id, "", detail, 1, now_ms, now_ms) for device_id in device_ids],
        )


class MosquittoKeeper:
    """A Mosquitto's: the files that `make secrets` begins."""

    remark = RELOAD

    def __init__(self, directory: Path) -> None:
        if not (directory / make_secrets.Passwords.NAME).exists():
            raise Mistake(f"{directory}: no {make_secrets.Passwords.NAME} there; run 'make secrets' first, or name the directory with --mosquitto")
        gid = (directory / make_secrets.Passwords.NAME).stat().st_gid
        self._safe = make_secrets.Safe(directory, gid)
        self._tls_safe = make_secrets.Safe(directory / "tls", gid)
        self._passwords = make_secrets.Passwords(self._safe)
        self._devices = make_secrets.Devices(self._safe)
        self.tls = directory / "tls"
        self.authority = directory / "authority"

    def create(self, device_ids: list[str]) -> dict[str, str]:
        for device_id in device_ids:
            _checked(device_id)
        made = {device_id: make_secrets.random_text() for device_id in device_ids}
        for device_id, password in made.items():
            self._passwords.set(device_id, password)
            self._devices.created(device_id, PASSWORD)
        return made

    def certified(self, device_id: str, serial: int, expires_ms: int) -> None:
        self._devices.created(device_id, CERTIFICATE, expires_ms, serial)

    def revoke(self, device_ids: list[str]) -> None:
        for device_id in device_ids:
            if device_id not in self._passwords and not self._devices.active(device_id):
                raise Mistake(f"device {device_id!r} has no credential here; see 'microcurrent credentials list'")
        certified = [device_id for device_id in device_ids if self._devices.active(device_id, CERTIFICATE)]
        authority = _authority(self) if certified else None  # before anything is changed: its key may be elsewhere
        for device_id in device_ids:
            if device_id in self._passwords:
                self._passwords.remove(device_id)
            self._devices.revoked(device_id)
        if authority:
            self.give("revoked.pem", authority.revocations(self._devices.revoked_serials()))

    def rows(self) -> list[dict[str, Any]]:
        rows = [
            {"device": device_id, **{name: record[name] for name in ("kind", "created_ms", "expires_ms", "revoked_ms")}}
            for device_id, records in sorted(self._devices.records.items())
            for record in records
        ]
        noted = {row["device"] for row in rows if row["kind"] == PASSWORD and row["revoked_ms"] is None}
        unnoted = [user for user in self._passwords.users() if user not in noted and make_secrets.DEVICE_ID.fullmatch(user) and not user.startswith(make_secrets.OURS)]
        return rows + [{"device": user, "kind": PASSWORD, "created_ms": None, "expires_ms": None, "revoked_ms": None} for user in unnoted]

    def give(self, name: str, text: str) -> Path:
        """For containers to read: as their group, in place."""
        self._tls_safe.rewrite(name, text)
        return self.tls / name


def _checked(device_id: str) -> None:
    try:
        make_secrets.check_name(device_id)
    except make_secrets.Refused as refused:
        raise Mistake(str(refused)) from refused


def _authority(keeper: Keeper) -> Any:
    """Of this broker's devices; made where there is none. Its library is loaded only here."""
    from ingest.certificates import Authority

    authority = Authority(keeper.authority)
    for name, text in (("ca.crt", authority.certificate), ("revoked.pem", None)):
        if not (keeper.tls / name).exists():
            keeper.give(name, text or authority.revocations([]))
    return authority


def _keeper(data_dir: Path | None, mosquitto: Path | None) -> Keeper:
    settings = load_settings(data_dir=data_dir)
    if mosquitto is not None:
        return MosquittoKeeper(mosquitto)
    if settings.broker is Broker.EXTERNAL:
        raise Mistake("MICROCURRENT_BROKER is external: name the directory with the files of that Mosquitto, e.g. --mosquitto secrets")
    return EmbeddedKeeper(settings)


@credentials_app.command("create")
@named_files()
def create(
    device_ids: Devices,
    certificate: Annotated[bool, typer.Option("--certificate", help="A key and a certificate of our own authority instead of a password.")] = False,
    days: Days = 398,
    directory: Annotated[Path, typer.Option("--out", help="Where keys and certificates of devices are put, for you to carry to the device.")] = Path("."),
    data_dir: DataDir = None,
    mosquitto: MosquittoDir = None,
    as_json: Json = False,
) -> None:
    """Give devices a new password, said once and kept as a hash only; an old password ends. Or a certificate.

    A device may then write its streams and read its own ack and alert topics, and nothing else. A new certificate
    leaves the earlier ones as they are, so that a device can change over; 'revoke' ends all of them.
    """
    keeper = _keeper(data_dir, mosquitto)
    if certificate:
        made = _certify(keeper, device_ids, days, directory)
        if as_json:
            _print_json(made)
            return
        _table(["device (common name and MQTT client id)", "expires", "key", "certificate"], [[d, _when(m["expires_ms"]), m["key"], m["certificate"]] for d, m in made.items()])
        out.print(f"devices trust {keeper.tls / 'ca.crt'}; carry a key to its device and delete the file", markup=False)
    else:
        passwords = keeper.create(device_ids)
        if as_json:
            _print_json(passwords)
            return
        _table(["device (MQTT user name and client id)", "password"], [[d, p] for d, p in passwords.items()])
    if keeper.remark:
        out.print(keeper.remark, markup=False)


def _certify(keeper: Keeper, device_ids: list[str], days: int, directory: Path) -> dict[str, dict[str, Any]]:
    if isinstance(keeper, EmbeddedKeeper):
        keeper.certified("", 0, 0)
    for device_id in device_ids:
        _checked(device_id)
        for path in (directory / f"{device_id}.key", directory / f"{device_id}.crt"):
            if path.exists():
                raise Mistake(f"{path} exists; move it away, or choose another directory with --out")
    authority, made = _authority(keeper), {}
    for device_id in device_ids:
        issued = authority.device(device_id, days)
        keeper.certified(device_id, issued.serial, issued.expires_ms)
        key, crt = directory / f"{device_id}.key", directory / f"{device_id}.crt"
        try:
            write_private(key, issued.key)
            write_private(crt, issued.certificate)
        except OSError as error:
            raise Mistake(f"{directory}: cannot write there ({error.strerror}); choose another directory with --out") from error
        made[device_id] = {"key": str(key), "certificate": str(crt), "expires_ms": issued.expires_ms}
    return made


@credentials_app.command("revoke")
@named_files()
def revoke(device_ids: Devices, data_dir: DataDir = None, mosquitto: MosquittoDir = None, as_json: Json = False) -> None:
    """Take away all that these devices were given; who is connected is cut off.

    The embedded broker does so at once, a Mosquitto when it reads its files again.
    """
    keeper = _keeper(data_dir, mosquitto)
    keeper.revoke(device_ids)
    if as_json:
        _print_json({"revoked": device_ids})
    else:
        out.print(f"revoked: {', '.join(device_ids)}", markup=False)
        if keeper.remark:
            out.print(keeper.remark, markup=False)


@credentials_app.command("list")
@named_files()
def list_all(data_dir: DataDir = None, mosquitto: MosquittoDir = None, as_json: Json = False) -> None:
    """Who was given what, when, until when, and what was revoked; never a secret."""
    rows = _keeper(data_dir, mosquitto).rows()
    if as_json:
        _print_json(rows)
    elif not rows:
        out.print("no device has a credential; 'microcurrent credentials create DEVICE' gives one")
    else:
        now_ms, warn_days = time.time_ns() // 1_000_000, load_settings(data_dir=data_dir).certificate_warn_days
        _table(
            ["device", "kind", "created", "expires", "state"],
            [[row["device"], row["kind"], _when(row["created_ms"]), _when(row["expires_ms"]), _state(row, now_ms, warn_days)] for row in rows],
        )


def _state(row: dict[str, Any], now_ms: int, warn_days: int) -> str:
    if row["revoked_ms"] is not None:
        return f"revoked {_when(row['revoked_ms'])}"
    if row["expires_ms"] is None or (left_ms := row["expires_ms"] - now_ms) > warn_days * DAY_MS:
        return "valid"
    if left_ms <= 0:
        return "expired"
    days = left_ms // DAY_MS
    return f"valid, ENDS {f'in {days} day' + 's' * (days != 1) if days else 'within a day'}"


@credentials_app.command("server")
@named_files()
def server(
    names: Annotated[list[str], typer.Argument(help="Host names and addresses by which devices reach the broker.", show_default=False)],
    days: Days = 398,
    data_dir: DataDir = None,
    mosquitto: MosquittoDir = None,
    as_json: Json = False,
) -> None:
    """Make the broker's own key and certificate, so that devices can connect over TLS; an earlier one is replaced."""
    keeper = _keeper(data_dir, mosquitto)
    issued = _authority(keeper).server(names, days)
    made = {
        "key": str(keeper.give("server.key", issued.key)), "certificate": str(keeper.give("server.crt", issued.certificate)),
        "authority": str(keeper.tls / "ca.crt"), "expires_ms": issued.expires_ms,
    }  # fmt: skip
    if as_json:
        _print_json(made)
    else:
        for name, value in made.items():
            out.print(f"{name:>12}  {_when(value) if name == 'expires_ms' else value}", markup=False)
        out.print(f"keep {keeper.authority} off this machine until the next certificate is to be made or revoked", markup=False)
