"""A secret is found wherever it would be published from, and is not printed."""

import random
import string
import subprocess
from pathlib import Path

import pytest

from ingest.deploy import make_secrets

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build" / "tools" / "bin"

chance = random.Random(1)


def some(length: int, letters: str) -> str:
    return "".join(chance.choices(letters, k=length))


URL_SAFE = string.ascii_letters + string.digits + "-_"
PASSWORD = some(43, URL_SAFE)
PLANTED = {
    "a password that stands alone": PASSWORD + "\n",
    "a device's password in a list": '{"dev-1": "' + some(43, URL_SAFE) + '"}\n',
    "what Mosquitto keeps of a password": f"dev-1:{make_secrets.hashed(some(43, URL_SAFE))}\n",
    "a token of InfluxDB": f"token = {some(86, URL_SAFE)}==\n",
    "a service account of Grafana": f"glsa_{some(32, string.ascii_letters + string.digits)}_{some(8, '0123456789abcdef')}\n",
    "a private key": "-----BEGIN " + "PRIVATE KEY-----\n" + some(64, string.ascii_letters) + "\n-----END " + "PRIVATE KEY-----\n",
    "a key of a cloud": "AKIA" + some(16, string.ascii_uppercase + string.digits) + "\n",
    "an address with credentials": "mqtts://worker:" + some(12, string.ascii_letters) + "@broker.example.org\n",
}


def git(root: Path, *words: str) -> str:
    named = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    return subprocess.run(["git", "-C", str(root), *named, *words], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one commit, in which there is nothing to find."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    (root / "README.md").write_text("Nothing here.\n")
    (root / ".gitignore").write_text("secrets/\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "begin")
    return root


def scan(root: Path, allowed: str = "") -> tuple[int, str]:
    file = root.parent / "allowed.toml"
    file.write_text(allowed)
    command = [TOOLS / "python", "-m", "tests.supply.scan", "--allowed", file, root]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_where_there_is_none_none_is_found(root: Path) -> None:
    assert (0, "secrets: 0 in 3 versions of files and commit messages, 0 kinds of finds allowed\n") == scan(root)


@pytest.mark.parametrize("what", PLANTED)
def test_it_is_found_and_not_printed(root: Path, what: str) -> None:
    (root / "notes.txt").write_text("first line\n" + PLANTED[what])
    code, said = scan(root)
    assert (1, True) == (code, "secrets: notes.txt:2 (working tree): " in said), said
    assert PLANTED[what].strip() not in said


def test_what_was_committed_once_and_deleted_is_found_with_its_commit(root: Path) -> None:
    (root / "notes.txt").write_text(PASSWORD)
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "add notes")
    guilty = git(root, "rev-parse", "--short", "HEAD")
    git(root, "rm", "--quiet", "notes.txt")
    git(root, "commit", "--quiet", "--message", "remove notes")
    code, said = scan(root)
    assert (1, True) == (code, f"secrets: notes.txt:1 ({guilty}): " in said), said


def test_a_line_that_a_later_version_brought_is_told_by_its_number_there(root: Path) -> None:
    (root / "README.md").write_text(f"Another beginning.\nNothing here.\n{PASSWORD}\n")
    git(root, "commit", "--quiet", "--all", "--message", "change")
    guilty = git(root, "rev-parse", "--short", "HEAD")
    code, said = scan(root)
    assert (1, True) == (code, f"secrets: README.md:3 ({guilty}): " in said), said


def test_a_branch_and_a_commit_message_are_looked_at(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "other")
    git(root, "commit", "--quiet", "--allow-empty", "--message", f"the password is\n\n{PASSWORD}")
    guilty = git(root, "rev-parse", "--short", "HEAD")
    git(root, "checkout", "--quiet", "main")
    code, said = scan(root)
    assert (1, True) == (code, f"secrets: commit-message:3 ({guilty}): " in said), said


def test_what_git_ignores_is_not_published(root: Path) -> None:
    (root / "secrets").mkdir()
    (root / "secrets" / "mqtt_worker_password").write_text(PASSWORD)
    assert 0 == scan(root)[0]


def test_a_file_with_an_odd_byte_is_looked_at(root: Path) -> None:
    (root / "notes.bin").write_bytes(b"\xff\xfe\x00\n" + PASSWORD.encode() + b"\n")
    assert 1 == scan(root)[0]


def test_a_mark_in_the_code_silences_nothing(root: Path) -> None:
    (root / "settings.py").write_text(f'TOKEN = "{PASSWORD}"  # pragma: allowlist secret\n')
    assert 1 == scan(root)[0]


def test_what_is_allowed_is_told_by_file_and_text_and_no_longer_than_it_is_needed(root: Path) -> None:
    (root / "notes.txt").write_text(PASSWORD)

    def allowance(kind: str, file: str, text: str) -> str:
        return f'[[allowed]]\nkind = "{kind}"\nfiles = "{file}"\ntext = "{text}"\nwhy = "made up"\n'

    product = allowance("Secret of this product", "*.txt", PASSWORD)
    assert 0 == scan(root, product)[0]
    assert 1 == scan(root, allowance("Secret of this product", "*.txt", PASSWORD[:-1]))[0]
    assert 1 == scan(root, allowance("Secret of this product", "*.md", PASSWORD))[0]
    (root / "notes.txt").unlink()
    code, said = scan(root, product)
    assert (1, True) == (code, "nothing needs it; remove it" in said), said


def test_what_cannot_be_searched_is_not_called_clean(tmp_path: Path) -> None:
    root = tmp_path / "plain"
    root.mkdir()
    code, said = scan(root)
    assert (2, True) == (code, "could not be searched" in said), said
