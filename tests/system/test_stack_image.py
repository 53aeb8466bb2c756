"""The worker's image: its install step, run as the Dockerfile has it in a place of its own, for no image can be built here."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from tests.servers import free_port
from tests.stack import DEPLOY, ROOT

pytestmark = [pytest.mark.system, pytest.mark.long]

INSTALL_S = 300
LISTED = """
import importlib.metadata, json, re
print(json.dumps({re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in importlib.metadata.distributions()}))
"""


def constraints() -> dict[str, str]:
    pinned = [line.split("==") for line in (DEPLOY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned}


def differs(installed: str, pinned: str | None) -> bool:
    """Packages write their versions in more than one way: v0.0.21 is 0.0.21."""
    return pinned is None or Version(installed) != Version(pinned)


def context(target: Path) -> Path:
    """What Dockerfile.dockerignore lets into the build."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name in [line[1:] for line in lines if line.startswith("!")]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, target / name)
    return target


def python_with_pip(directory: Path) -> str:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return sys.executable
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=INSTALL_S)
    return str(directory / "bin" / "python")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Dockerfile's build stage has put the installation."""
    place = tmp_path_factory.mktemp("image")
    (place / "src").mkdir()
    source, installed = context(place / "src"), place / "microcurrent"
    written = (DEPLOY / "Dockerfile").read_text()
    _, stage, _ = written.split("\nFROM ")
    stage = stage.replace("\\\n", " ")
    (command,) = re.findall(r"^RUN (.*)$", stage, re.M)
    (constraint,) = re.findall(r"PIP_CONSTRAINT=(\S+)", stage)
    assert "/wheels" in command and "/opt/microcurrent" in command
    command = re.sub(r"(^|&& )python ", lambda found: f"{found[1]}{python_with_pip(place / 'base')} ", command)
    moved = {"/opt/microcurrent": str(installed), "/wheels": str(place / "wheels"), "/src": str(source)}
    for path, at in moved.items():
        command, constraint = command.replace(path, at), constraint.replace(path, at)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_CONSTRAINT", "PYTHON"))}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=source, env=env | {"PIP_CONSTRAINT": constraint, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"},
        capture_output=True, text=True, timeout=INSTALL_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return installed


def run(image: Path, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{image / 'bin'}:/usr/bin:/bin"} | {f"MICROCURRENT_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(list(words), cwd=image, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_everything_installed_is_of_the_version_that_is_written_down(image: Path) -> None:
    installed = json.loads(run(image, "python", "-c", LISTED).stdout)
    ours = installed.pop("microcurrent-telemetry")
    known = constraints()
    assert ours == re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert {} == {name: version for name, version in installed.items() if differs(version, known.get(name))}, "run 'make constraints'"


def test_the_installation_holds_no_installer_and_no_compiler(image: Path) -> None:
    assert not (image / "bin" / "pip").exists()
    final = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[2]
    assert not re.search(r"apt-get|gcc|build-essential|pip install", final)
    assert "USER 10001:10001" in final


def test_the_installed_program_works_with_all_that_it_ships(image: Path, tmp_path: Path) -> None:
    assert "Safety telemetry" in run(image, "microcurrent", "--help").stdout
    assert 28 <= len(json.loads(run(image, "microcurrent", "rules", "--json").stdout)["rules"])
    checked = run(
        image, "microcurrent", "check", "--json",
        data_dir=tmp_path / "data", broker="external", mqtt_port=free_port(), store="duckdb", http_port=0,
    )  # fmt: skip
    found = {finding["what"]: finding["ok"] for finding in json.loads(checked.stdout)}
    assert (True, True, True, False) == tuple(found[what] for what in ("data directory", "profiles", "store", "broker"))
    assert list(image.glob("lib/python*/site-packages/ingest/embedded/page/static/index.html"))
