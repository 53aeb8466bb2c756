"""The generator of the stack's secrets: makes what is missing, keeps what is there, shows nothing to others."""

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.simulate import fleet_of
from schemas.topics import is_identifier
from tests.servers import installed
from tests.stack import MAKE_SECRETS, ROOT, make_secrets, services


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    assert make_secrets(tmp_path, "--demo").returncode == 0
    yield tmp_path


NOT_SECRET = {".env", "devices.json", "revoked_devices", "credentials_log"}


def contents(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "secrets").iterdir()} | {".env": (root / ".env").read_text()}


def users(root: Path) -> list[str]:
    return [line.split(":")[0] for line in (root / "secrets" / "mosquitto_passwords").read_text().splitlines()]


def test_a_second_time_changes_nothing_and_says_so(root: Path) -> None:
    before = contents(root)
    again = make_secrets(root, "--demo")
    assert (0, "nothing to make: all secrets exist\n", before) == (again.returncode, again.stdout, contents(root))


def test_everything_is_made_at_random(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
        make_secrets(root, "--demo")
    assert [] == [name for name in contents(one) if name not in NOT_SECRET and contents(one)[name] == contents(two)[name]]
    plain = [contents(one)[name].strip() for name in contents(one) if name.endswith(("password", "token", "key"))]
    assert len(plain) == len(set(plain)) == 6
    assert all(len(text) >= 43 for text in plain)  # 256 bits


def test_only_the_owner_enters_and_only_one_group_reads(root: Path) -> None:
    assert 0o700 == stat.S_IMODE((root / "secrets").stat().st_mode)
    gid = int((root / ".env").read_text().split("=")[1])
    assert gid > 0
    for path in (root / "secrets").iterdir():
        assert (0o640, gid) == (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid), path.name
    assert 0o600 == stat.S_IMODE((root / ".env").stat().st_mode)


def test_without_the_demo_only_the_worker_and_the_health_check_have_accounts(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    assert ["ingest-worker", "~health"] == users(tmp_path)
    make_secrets(tmp_path, "--demo")
    assert 27 == len(users(tmp_path))


def test_the_demo_has_accounts_for_the_devices_that_are_simulated(root: Path) -> None:
    (command,) = services()["simulator"]["command"]
    count = int(command.split("--devices ")[1].split()[0])
    expected = [role.device_id for role in fleet_of(count, None)]
    assert expected == list(json.loads((root / "secrets" / "demo_devices.json").read_text()))
    assert ["ingest-worker", "~health", *expected] == users(root)


def test_an_env_file_that_is_there_is_kept_and_added_to(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MICROCURRENT_RETENTION_DAYS=7")
    make_secrets(tmp_path)
    first, second = (tmp_path / ".env").read_text().splitlines()
    assert "MICROCURRENT_RETENTION_DAYS=7" == first and second.startswith("STACK_SECRETS_GID=")


def test_a_hash_is_one_that_mosquitto_would_have_made(root: Path) -> None:
    """Mosquitto's own program changes nothing about a file whose passwords are hashed already."""
    path = root / "secrets" / "mosquitto_passwords"
    before = path.read_text()
    make_secrets(root, "device", "dev-1")
    subprocess.run([installed("mosquitto_passwd"), "-D", str(path), "dev-1"], check=True, capture_output=True)
    assert sorted(before.splitlines()) == sorted(path.read_text().splitlines())


def test_a_device_is_added_in_place_and_its_password_is_kept_nowhere(root: Path) -> None:
    path = root / "secrets" / "mosquitto_passwords"
    inode = path.stat().st_ino
    said = make_secrets(root, "device", "dev-1").stdout
    password = said.split("password")[1].split()[0]
    assert inode == path.stat().st_ino  # a container that was given the file sees the change
    assert "dev-1" in users(root) and [] == [name for name, text in contents(root).items() if password in text]
    make_secrets(root, "device", "dev-1", "--revoke")
    assert "dev-1" not in users(root)


def test_what_was_given_and_taken_is_on_record_for_the_worker_and_the_broker_and_holds_no_secret(root: Path) -> None:
    first, second = (make_secrets(root, "device", "dev-1").stdout.split("password")[1].split()[0] for _ in range(2))
    records = json.loads(contents(root)["devices.json"])["dev-1"]
    assert [True, False] == [record["revoked_ms"] is not None for record in records]  # a new password ends the old one
    assert {"password"} == {record["kind"] for record in records} and "dev-1" not in contents(root)["revoked_devices"]
    make_secrets(root, "device", "dev-1", "--revoke")
    assert "dev-1" in contents(root)["revoked_devices"].splitlines()
    noted = [line.partition(": ")[2] for line in contents(root)["credentials_log"].splitlines()[1:]]
    assert ["credentials password made for dev-1", "credentials password made for dev-1", "credentials all revoked of dev-1"] == noted
    make_secrets(root, "device", "dev-1")
    assert "dev-1" not in contents(root)["revoked_devices"].splitlines()
    assert [] == [name for name in NOT_SECRET if first in contents(root)[name] or second in contents(root)[name]]


def test_a_lost_file_is_made_again_and_its_account_with_it(root: Path) -> None:
    before = contents(root)
    (root / "secrets" / "mqtt_worker_password").unlink()
    said = make_secrets(root).stdout
    assert "made mqtt_worker_password\nmade mosquitto_passwords (ingest-worker)\n" == said
    after = contents(root)
    assert {"mqtt_worker_password", "mosquitto_passwords"} == {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("device", "ä"), "device id 'ä': use 1 to 64 of A-Z a-z 0-9 _ -"),
        (("device", ""), "device id '': use 1 to 64 of A-Z a-z 0-9 _ -"),
        (("device", "a:b\nc"), "use 1 to 64 of A-Z a-z 0-9 _ -"),
        (("device", "ingest-worker"), "names that begin with ingest- belong to workers"),
        (("device", "dev-1", "--revoke"), "device dev-1 has no password here; nothing to revoke"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(root: Path, words: tuple[str, ...], sentence: str) -> None:
    done = make_secrets(root, *words)
    assert 2 == done.returncode
    assert done.stderr.startswith("secrets: ") and sentence in done.stderr and 1 == done.stderr.count("\n")


def test_an_empty_secret_is_not_taken_for_one(root: Path) -> None:
    (root / "secrets" / "grafana_admin_password").write_text("")
    done = make_secrets(root)
    assert 2 == done.returncode and "is empty; remove it and run this again" in done.stderr


def test_the_generator_has_the_same_idea_of_a_device_id_as_the_contract(tmp_path: Path) -> None:
    for device_id in ("a", "A-z_9", "x" * 64, "x" * 65, "a.b", "a/b", "+", "~health"):
        assert is_identifier(device_id) == (make_secrets(tmp_path, "device", device_id).returncode == 0), device_id


def test_the_generator_needs_nothing_but_python() -> None:
    done = subprocess.run(["/usr/bin/env", "python3", "-I", "-S", str(MAKE_SECRETS), "--help"], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_make_says_in_one_sentence_that_an_engine_is_missing(tmp_path: Path) -> None:
    """With a path on which there is no Docker."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for program in ("sh", "make", "python3"):
        (tools / program).symlink_to(installed(program))
    done = subprocess.run([str(tools / "make"), "stack"], cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "The stack needs Docker with its compose plugin, and this machine has none; 'make demo' needs neither."
    assert not (ROOT / "secrets").exists() or done.stdout == ""
