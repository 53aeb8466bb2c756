"""The stack's files for tests: read as Compose reads them, and moved to where a test can run them."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.servers import LOOPBACK, Mosquitto, absent, free_port, installed

ROOT = Path(__file__).parents[1]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DEPLOY = ROOT / "ingest" / "deploy"
MAKE_SECRETS = DEPLOY / "make_secrets.py"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<how>:?[-?+])(?P<value>[^}]*))?\}|\$(?P<bare>[A-Za-z_]\w*)")

CONFIG_DIR, RUN_DIR, DATA_DIR, LOG_DIR, SECRETS_DIR = "/mosquitto/config", "/mosquitto/run", "/mosquitto/data", "/mosquitto/log", "/run/secrets"


class _Loader(yaml.SafeLoader):
    """Knows Compose's `!override`, which takes the value as it is."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node, deep=True))


def load(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(), _Loader)  # noqa: S506 (a SafeLoader)


def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors merged and its variables as they are written."""
    return load(COMPOSE_FILE)


def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


def texts(value: Any) -> Iterator[str]:
    """Every string in a document, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def by_default(text: str) -> str:
    """A text as it is when no variable is set and none is required."""
    plain = text.replace("$$", "\0")
    plain = VARIABLE.sub(lambda found: found["value"] or "" if (found["how"] or "").endswith("-") else found[0], plain)
    return plain.replace("\0", "$")


def make_secrets(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The generator as it runs on a host: another interpreter, nothing of ours on its path."""
    return subprocess.run(
        [sys.executable, "-I", str(MAKE_SECRETS), "--root", str(root), *words], capture_output=True, text=True, timeout=120, check=False
    )


def docker_compose(root: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The real Compose, which needs no engine to read files."""
    beside = Path(sysconfig.get_path("scripts")) / "docker-compose"
    program = str(beside) if beside.exists() else shutil.which("docker-compose") or absent("docker-compose")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "STACK_", "MICROCURRENT_"))}
    return subprocess.run([program, *words], cwd=root, env=clean | env, capture_output=True, text=True, timeout=120, check=False)


class StackBroker(Mosquitto):
    """The real broker with the shipped configuration, rights, start script and generated passwords.

    Only paths and ports are changed; and run by root it is told to stay root, for it could not
    enter the test's directory as another user. `port` is the devices' listener, `inner_port` the
    worker's.
    """

    def __init__(self, directory: Path, *, conf_d: Path | None = None) -> None:
        super().__init__(directory)
        self.inner_port, self.tls_port = free_port(), free_port()
        self.secrets = directory / "secrets"
        self._places = {path: directory / Path(path).name for path in (CONFIG_DIR, RUN_DIR, DATA_DIR, LOG_DIR)} | {SECRETS_DIR: self.secrets}
        self.worker_log = directory / "log" / "mosquitto.log"
        for place in self._places.values():
            place.mkdir(exist_ok=True)
        made = make_secrets(directory, "--demo")
        assert made.returncode == 0, made.stderr
        shutil.copy(self.secrets / "mosquitto_health", self.secrets / "mosquitto_rr")
        config = self._places[CONFIG_DIR]
        shutil.copytree(conf_d or DEPLOY / "conf.d", config / "conf.d")
        for name in ("mosquitto.conf", "acl", "broker.sh"):
            (config / name).write_text(self.moved((DEPLOY / name).read_text()))
        for name in (config / "conf.d").glob("*.conf"):
            name.write_text(self.moved(name.read_text()))
        self.config = config / "mosquitto.conf"
        if os.geteuid() == 0:
            self.config.write_text("user root\n" + self.config.read_text())

    def moved(self, text: str) -> str:
        """A text of the stack with this broker's paths and ports."""
        for path, place in self._places.items():
            text = text.replace(path, str(place))
        for shipped, port in (("1883", self.port), ("1884", self.inner_port), ("8883", self.tls_port)):
            text = re.sub(rf"(listener |-p ){shipped}\b", lambda found, port=port: f"{found[1]}{port}" + (f" {LOOPBACK}" if found[1] == "listener " else ""), text)
        return text

    def script(self, word: str) -> list[str]:
        return ["sh", str(self._places[CONFIG_DIR] / "broker.sh"), word]

    def command(self) -> list[str]:
        return ["env", f"PATH={Path(installed('mosquitto')).parent}:{os.environ['PATH']}", *self.script("start")]

    def reload(self) -> None:
        subprocess.run(self.script("reload"), check=True, timeout=120)
