"""What the commands make of a person's mistake that is no business of the worker: one sentence, and what to do."""

import pwd
import socket
import sys
import threading
from pathlib import Path

import pytest
import structlog

from ingest.alert_commands import _figure
from ingest.cli import main
from ingest.console import who_says
from ingest.errors import Mistake
from ingest.settings import Settings
from ingest.simulate import simulate

PLACES = {
    "demo": ("demo", "--headless", "--seconds", "5", "--data-dir"),
    "credentials create": ("credentials", "create", "dev-1", "--data-dir"),
    "credentials revoke": ("credentials", "revoke", "dev-1", "--data-dir"),
    "credentials list": ("credentials", "list", "--data-dir"),
    "credentials server": ("credentials", "server", "broker.example.org", "--data-dir"),
    "simulate --truth": ("simulate", "--host", "127.0.0.1", "--port", "1", "--devices", "1", "--seconds", "1", "--truth"),
    "simulate --clock-file": ("simulate", "--host", "127.0.0.1", "--port", "1", "--devices", "1", "--seconds", "1", "--clock-file"),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # a command's signals are its process's


def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """How a command ends, and what it says on stderr."""
    monkeypatch.setattr(sys, "argv", ["microcurrent", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    structlog.reset_defaults()
    return ended.value.code, capfd.readouterr().err


@pytest.mark.parametrize("command", PLACES)
def test_a_place_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str) -> None:
    (tmp_path / "file").write_text("")
    place = str(tmp_path / "file" / "x")
    code, sentence = said(monkeypatch, capfd, *PLACES[command], place)
    assert (2, 1) == (code, sentence.count("\n")), sentence
    assert sentence.startswith(f"microcurrent: {place}") and "Not a directory" in sentence


@pytest.mark.parametrize("words", [("rules",), ("rules", "--json"), ("schemas", "export", "here", "--json")])
def test_an_answer_for_which_there_is_no_room_is_said_to_be_none(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr("ingest.console.out.file", full)
        code, sentence = said(monkeypatch, capfd, *words)
        try:
            full.close()
        except OSError:
            pass  # what it still holds cannot be written either
    assert (1, 1) == (code, sentence.count("\n")), sentence
    assert "No space left on device" in sentence


def test_who_has_no_login_name_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(Mistake, match="--by"):
        who_says(None)
    assert "Dr. Ohm" == who_says("Dr. Ohm")


class Told(Exception):
    """Ends a simulation as soon as it has said something."""


def test_a_simulated_fleet_that_reaches_no_broker_says_so() -> None:
    def tell(problem: str) -> None:
        raise Told(problem)

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port, never = nobody.getsockname()[1], threading.Event()
        with pytest.raises(Told, match=f"cannot reach 127.0.0.1:{port}"):
            simulate(Settings(_env_file=None), "127.0.0.1", port, "3.1.1", 2, "none", [], [], 1, 1.0, None, 60.0, None, None, None, False, 240.0, never, tell)


@pytest.mark.parametrize(("value", "shown"), [(204_312.7, "204300"), (41_523.7, "41520"), (1_468.5, "1468"), (1.02, "1.02"), (0.5, "0.5")])
def test_figures_are_shown_as_people_write_them(value: float, shown: str) -> None:
    assert shown == _figure(value)
