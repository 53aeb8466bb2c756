"""A journal or a store that cannot be read is said in one sentence, and left as it is."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.servers import Mosquitto, free_port
from tests.system.line import Installation, Oracle, with_mosquitto
from tests.system.test_mistakes import run_refused, sentence

pytestmark = pytest.mark.system


@pytest.fixture
def idle(tmp_path: Path) -> Installation:
    """Settings for a line that nothing has started; its broker is not there."""
    return Installation(tmp_path / "line", broker="external", mqtt_port=free_port())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a line that has stored some messages, and has stopped."""
    directory = tmp_path_factory.mktemp("template")
    with Mosquitto(directory / "mosquitto") as broker, with_mosquitto(directory / "line", broker) as line:
        with Oracle(broker.port) as oracle:
            for seq in range(300):
                oracle.publish("example-1", seq)
            oracle.wait_acked(300)
        line.wait_settled(300)
        line.stop()
    return line.data


@pytest.fixture
def stopped(idle: Installation, template: Path) -> Installation:
    shutil.copytree(template, idle.data)
    return idle


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipe (name)")
    db.close()


BAD_JOURNALS = {
    "newer": newer,
    "garbage": lambda path: path.write_bytes(b"\x00\xffnothing" * 5000),
    "cut in half": cut_in_half,
    "another program's": foreign,
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", BAD_JOURNALS)
def test_a_journal_that_cannot_be_read_is_said_and_not_touched(stopped: Installation, kind: str) -> None:
    path = stopped.data / "journal.db"
    BAD_JOURNALS[kind](path)
    before = path.read_bytes() if path.is_file() else b""
    assert str(path) in run_refused(stopped)
    assert str(path) in sentence(stopped.command("status"))
    if kind not in ("cut in half",):  # SQLite itself reads that one, until it meets what is gone
        assert before == (path.read_bytes() if path.is_file() else b"")


def test_an_emptied_journal_beside_a_store_that_is_not_empty_is_not_silently_begun_anew(stopped: Installation) -> None:
    """What the devices send again would be stored twice."""
    path = stopped.data / "journal.db"
    path.write_bytes(b"")
    assert str(stopped.data) in run_refused(stopped)


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"\x00\xffnothing" * 5000), cut_in_half], ids=["garbage", "cut in half"])
def test_a_store_file_that_cannot_be_read_is_said(stopped: Installation, spoil) -> None:
    path = stopped.data / "telemetry.duckdb"
    spoil(path)
    assert str(path) in run_refused(stopped)
    assert str(path) in sentence(stopped.command("status"))
