#!/usr/bin/env python3
"""Make what the stack needs to start: passwords, tokens and the broker's password file, in secrets/.

It needs nothing but Python, for it runs on the host before anything is installed. What exists is
never changed, unless a device gets a new password by name.

    make_secrets.py                     what is missing of the stack
    make_secrets.py --demo              also the simulated devices of the demo
    make_secrets.py device ID           a password for a device, said once and kept as a hash only
    make_secrets.py device ID --revoke  the device may not connect any more
    make_secrets.py where               where the started stack is, and its password
"""

import argparse
import base64
import hashlib
import json
import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORKER, HEALTH = "ingest-worker", "~health"
DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
OURS = "ingest-"
"""Names that begin so are the workers'."""

PLAIN = ("influxdb_admin_password", "influxdb_admin_token", "grafana_admin_password", "grafana_secret_key", "page_password")
DEMO_DEVICES = 25
DEMO_MODELS = {3: "lumabar", 4: "lumabar", 14: "tonetip", 22: "gelwave", 23: "gelwave"}
"""The simulated devices that are no toneduo; their scenarios ask for it."""

GID_VARIABLE = "STACK_SECRETS_GID"
GID_OF_ROOT = 10_002
"""Containers that read secrets join this group when root makes them, instead of the group of root."""

FILE_MODE, DIRECTORY_MODE = 0o640, 0o700
"""Containers read a file as its group. On the host the directory keeps everybody else out."""


class Refused(Exception):
    """One sentence for the person."""


class Safe:
    """The directory of secrets."""

    def __init__(self, directory: Path, gid: int) -> None:
        self.directory = directory
        self._gid = gid
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)

    def make(self, name: str, text: str) -> bool:
        """Write a file that is not there; False if it is."""
        path = self.directory / name
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            if not path.stat().st_size:
                raise Refused(f"{path} is empty; remove it and run this again") from None
            return False
        with os.fdopen(handle, "w") as file:
            file.write(text)
        self._share(path)
        return True

    def rewrite(self, name: str, text: str) -> None:
        """In place: a container sees the file that it was given, and not another that takes its name."""
        path = self.directory / name
        if not path.exists():
            self.make(name, text)
            return
        with path.open("r+") as file:
            file.write(text)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def append(self, name: str, line: str) -> None:
        with (self.directory / name).open("a") as file:
            file.write(line)

    def read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def _share(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, -1, self._gid)
        path.chmod(FILE_MODE)


class Passwords:
    """The broker's password file."""

    NAME = "mosquitto_passwords"

    def __init__(self, safe: Safe) -> None:
        self._safe = safe
        self._lines = dict(line.split(":", 1) for line in safe.read(self.NAME).splitlines() if ":" in line)

    def __contains__(self, user: str) -> bool:
        return user in self._lines

    def users(self) -> list[str]:
        return list(self._lines)

    def set(self, user: str, password: str) -> None:
        self._lines[user] = hashed(password)
        self._write()

    def remove(self, user: str) -> None:
        del self._lines[user]
        self._write()

    def _write(self) -> None:
        self._safe.rewrite(self.NAME, "".join(f"{user}:{line}\n" for user, line in self._lines.items()))


class Devices:
    """Who was given what, and until when; never a secret. Of a device the credentials in the order they were made."""

    NAME, REVOKED, LOG = "devices.json", "revoked_devices", "credentials_log"
    HEADER = "# Devices that may say and hear nothing, connected or not. Written with devices.json.\n"

    def __init__(self, safe: Safe) -> None:
        self._safe = safe
        self.records: dict[str, list[dict[str, Any]]] = json.loads(safe.read(self.NAME) or "{}")

    def active(self, device_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        return [r for r in self.records.get(device_id, []) if r["revoked_ms"] is None and kind in (None, r["kind"])]

    def created(self, device_id: str, kind: str, expires_ms: int | None = None, serial: int | None = None) -> None:
        now_ms = time.time_ns() // 1_000_000
        if kind == "password":  # the file of the broker holds one of a user
            self._end(self.active(device_id, kind), now_ms)
        record = {"kind": kind, "created_ms": now_ms, "expires_ms": expires_ms, "revoked_ms": None, "serial": serial and str(serial)}
        self.records.setdefault(device_id, []).append(record)
        self._write(f"{kind} made for {device_id}")

    def revoked(self, device_id: str) -> None:
        self.records.setdefault(device_id, [])
        self._end(self.active(device_id), time.time_ns() // 1_000_000)
        self._write(f"all revoked of {device_id}")

    def revoked_serials(self) -> list[int]:
        return [int(r["serial"]) for records in self.records.values() for r in records if r["serial"] and r["revoked_ms"] is not None]

    def out(self) -> list[str]:
        """Devices that have had a credential and have none now."""
        return [device_id for device_id in self.records if not self.active(device_id)]

    def begin(self) -> list[str]:
        """Make the files that containers are given; returns the names of those that were not there."""
        log = f"{_stamp()}: begun, what is made and revoked is noted here\n"
        texts = {self.NAME: "{}\n", self.REVOKED: self.HEADER, self.LOG: log}
        return [name for name, text in texts.items() if self._safe.make(name, text)]

    @staticmethod
    def _end(records: list[dict[str, Any]], now_ms: int) -> None:
        for record in records:
            record["revoked_ms"] = now_ms

    def _write(self, what: str) -> None:
        self.begin()
        self._safe.rewrite(self.NAME, json.dumps(self.records, indent=1) + "\n")
        self._safe.rewrite(self.REVOKED, self.HEADER + "".join(f"{device_id}\n" for device_id in self.out()))
        self._safe.append(self.LOG, f"{_stamp()}: credentials {what}\n")


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def hashed(password: str) -> str:
    """As mosquitto_passwd does it: PBKDF2 with SHA-512.

    Its few rounds are enough, because a password of 256 random bits cannot be guessed; more would
    cost the broker its time whenever a fleet connects again.
    """
    salt, rounds = secrets.token_bytes(12), 101
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def random_text() -> str:
    return secrets.token_urlsafe(32)


def demo_names() -> list[str]:
    """The devices of 'microcurrent simulate --devices 25'."""
    return [f"sim-{DEMO_MODELS.get(number, 'toneduo')}-{number:03d}" for number in range(1, DEMO_DEVICES + 1)]


def stack(safe: Safe, demo: bool) -> list[str]:
    """Make what is missing; returns the names of what was made."""
    made = [name for name in PLAIN if safe.make(name, random_text() + "\n")]
    passwords = Passwords(safe)
    if safe.make("mqtt_worker_password", random_text() + "\n"):
        made.append("mqtt_worker_password")
    if "mqtt_worker_password" in made or WORKER not in passwords:
        passwords.set(WORKER, safe.read("mqtt_worker_password").strip())
        made.append(f"{Passwords.NAME} ({WORKER})")
    # Options for mosquitto_rr, which reads them from a file instead of the command line.
    if safe.make("mosquitto_health", f"-u {HEALTH}\n-P {random_text()}\n"):
        made.append("mosquitto_health")
    if "mosquitto_health" in made or HEALTH not in passwords:
        passwords.set(HEALTH, safe.read("mosquitto_health").split()[-1])
        made.append(f"{Passwords.NAME} ({HEALTH})")
    made += Devices(safe).begin()
    if demo:
        made += demo_fleet(safe, passwords)
    return made


def demo_fleet(safe: Safe, passwords: Passwords) -> list[str]:
    made = []
    if safe.make("demo_devices.json", json.dumps({name: random_text() for name in demo_names()}, indent=1) + "\n"):
        made.append("demo_devices.json")
    fleet = json.loads(safe.read("demo_devices.json"))
    lacking = [name for name in fleet if made or name not in passwords]
    for name in lacking:
        passwords.set(name, fleet[name])
    return [*made, *([f"{Passwords.NAME} ({len(lacking)} simulated devices)"] if lacking else [])]


def check_name(device_id: str) -> None:
    if not DEVICE_ID.fullmatch(device_id):
        raise Refused(f"device id {device_id!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
    if device_id.startswith(OURS):
        raise Refused(f"device id {device_id}: names that begin with {OURS} belong to workers; choose another")


def device(safe: Safe, device_id: str, revoke: bool) -> str:
    """Give a device a new password, or take it away; returns what to tell the person."""
    check_name(device_id)
    passwords, devices = Passwords(safe), Devices(safe)
    if revoke:
        if device_id not in passwords:
            raise Refused(f"device {device_id} has no password here; nothing to revoke")
        if devices.active(device_id, "certificate"):
            raise Refused(f"device {device_id} has a certificate too; use 'microcurrent credentials revoke {device_id}', which revokes both")
        passwords.remove(device_id)
        devices.revoked(device_id)
        return f"{device_id} may not connect any more, once the broker has read its passwords again"
    password = random_text()
    passwords.set(device_id, password)
    devices.created(device_id, "password")
    return f"user name  {device_id}\npassword   {password}\nIt is not kept anywhere; asking again makes another, and the old one ends."


def group(env_file: Path) -> tuple[int, bool]:
    """The group that containers read secrets as, and whether it has just been noted in .env, where Compose looks."""
    text = env_file.read_text() if env_file.exists() else ""
    if noted := re.search(rf"^{GID_VARIABLE}=(\d+)\s*$", text, re.M):
        return int(noted[1]), False
    gid = os.getgid() or GID_OF_ROOT
    handle = os.open(env_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "a") as file:
        file.write(("" if not text or text.endswith("\n") else "\n") + f"{GID_VARIABLE}={gid}\n")
    return gid, True


def where(env_file: Path, directory: Path) -> str:
    """What a person wants to know of a stack that has just been started."""
    text = env_file.read_text() if env_file.exists() else ""

    def port(variable: str, default: str) -> str:
        noted = re.findall(rf"^{variable}=(\S+)\s*$", text, re.M)
        return os.environ.get(variable) or (noted[-1] if noted else default)

    return (
        f"Grafana   http://127.0.0.1:{port('STACK_GRAFANA_PORT', '3000')}  user admin, password in {directory / 'grafana_admin_password'}\n"
        f"page      http://127.0.0.1:{port('STACK_PAGE_PORT', '8480')}  password in {directory / 'page_password'}\n"
        f"MQTT      port {port('STACK_MQTT_PORT', '1883')}; 'make device ID=dev-1' gives a device its password\n"
        "Grafana and the page need a minute the first time: 'docker compose ps' tells whether they are healthy."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make what the stack needs to start, in secrets/. What exists is kept.")
    parser.add_argument("--root", type=Path, default=ROOT, help="where secrets/ and .env are; the repository when absent")
    parser.add_argument("--demo", action="store_true", help="also passwords for the simulated devices of the demo")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("device", help="a new password for one device, said once")
    one.add_argument("id")
    one.add_argument("--revoke", action="store_true", help="take it away instead")
    commands.add_parser("where", help="where the started stack is, and its password")
    asked = parser.parse_args()
    os.umask(0o077)
    try:
        gid, noted = group(asked.root / ".env")
        safe = Safe(asked.root / "secrets", gid)
        made = stack(safe, asked.demo) if asked.command is None else []
        said = ""
        if asked.command == "device":
            said = device(safe, asked.id, asked.revoke)
        elif asked.command == "where":
            said = where(asked.root / ".env", safe.directory)
    except (Refused, OSError, ValueError) as error:
        sys.stderr.write(f"secrets: {error}\n")
        sys.exit(2)
    if said:
        print(said)
        return
    if noted:
        made.append(f".env ({GID_VARIABLE}={gid}, the group that may read them)")
    print("\n".join(f"made {name}" for name in made) if made else "nothing to make: all secrets exist")


if __name__ == "__main__":
    main()
