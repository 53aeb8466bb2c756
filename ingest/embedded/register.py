"""Who may speak to the embedded broker: of each device when its password was made, and a hash of it, never more.

Passwords are made here, 256 random bits each. Nobody can guess one, so a plain SHA-256 keeps them as well as a slow
hash would, and a fleet that connects at once costs no more than it must.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ingest.errors import Mistake
from ingest.files import private_directory, write_private
from schemas.topics import is_identifier

DEVICES_FILE = "devices.json"
ACCOUNT, GATE_USER = "DEVICES", "gate"
"""Names within the broker: what devices belong to, and who decides on them."""

NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
"""What an unknown device's password is compared with, so that nobody learns by the clock who is known."""


@dataclass(frozen=True, slots=True)
class Account:
    """`sha256` of the password in hex; times in ms since 1970 UTC."""

    sha256: str
    created_ms: int
    revoked_ms: int | None = None


class Register:
    """The file of devices. Commands change it; the gate reads it whenever it has changed."""

    def __init__(self, credentials_dir: Path) -> None:
        self._path = credentials_dir / DEVICES_FILE
        self._seen: tuple[int, int, int] | None = None
        self._accounts: dict[str, Account] = {}

    def accounts(self) -> dict[str, Account]:
        """All that were ever made, revoked ones too; read again only if the file is another."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._accounts = None, {}
            return self._accounts
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            try:
                said = json.loads(self._path.read_text())
                self._accounts = {device_id: Account(**account) for device_id, account in said.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise Mistake(f"{self._path}: no register of devices; restore it, or move it aside and give each device a new password") from error
            self._seen = seen
        return self._accounts

    def proves(self, device_id: str, password: str) -> bool:
        """Whether this is the device's password. It takes as long whoever asks, and whoever is asked for."""
        account = self.accounts().get(device_id)
        known = account is not None and account.revoked_ms is None
        said = hashlib.sha256(password.encode("utf-8", "surrogateescape")).hexdigest()
        return hmac.compare_digest(said, account.sha256 if known else NOBODY) and known

    def create(self, device_ids: Iterable[str]) -> dict[str, str]:
        """New passwords by device id. An old one ends with it."""
        made = {}
        with self._changing() as accounts:
            for device_id in device_ids:
                if not is_identifier(device_id):
                    raise Mistake(f"device id {device_id!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
                made[device_id] = secrets.token_urlsafe(32)
                accounts[device_id] = Account(hashlib.sha256(made[device_id].encode()).hexdigest(), _now_ms())
        return made

    def revoke(self, device_ids: Iterable[str]) -> None:
        """These may not connect any more. One that has no password is a Mistake, and then nothing is changed."""
        with self._changing() as accounts:
            for device_id in device_ids:
                account = accounts.get(device_id)
                if account is None or account.revoked_ms is not None:
                    raise Mistake(f"device {device_id!r} has no password here; see 'microcurrent credentials list'")
                accounts[device_id] = replace(account, revoked_ms=_now_ms())

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Account]]:
        """One command after the other; what fails in between leaves the file as it was."""
        private_directory(self._path.parent)
        with open(os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            accounts = dict(self.accounts())
            yield accounts
            write_private(self._path, json.dumps({device_id: asdict(account) for device_id, account in accounts.items()}, indent=1))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
