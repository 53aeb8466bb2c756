"""The initialisation of InfluxDB 2, against programs that stand in for it: no InfluxDB 2 runs here."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stack import DEPLOY, by_default, services

FAKE = Path(__file__).parents[1] / "fakes" / "influx.py"
READING = ("bucket list", "v1 dbrp list", "auth list")


class Init:
    """The shipped script with the environment that the compose file gives it, and the stand-ins on its path."""

    def __init__(self, directory: Path) -> None:
        self.tokens, self._state, self._calls = directory / "tokens", directory / "state.json", directory / "calls"
        self.tokens.mkdir()
        programs = directory / "bin"
        programs.mkdir()
        for name in ("influx", "curl"):
            program = programs / name
            program.write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
            program.chmod(0o755)
        secrets = directory / "secrets"
        secrets.mkdir()
        (secrets / "influxdb_admin_password").write_text("the-password\n")
        (secrets / "influxdb_admin_token").write_text("the-token\n")
        given = {name: by_default(value) for name, value in services()["influxdb-init"]["environment"].items()}
        mine = str(os.getgid())
        self.env = {name: value.replace("/run/secrets", str(secrets)) for name, value in given.items()} | {
            "TOKENS": str(self.tokens), "INGEST_GID": mine, "GRAFANA_GID": mine, "PATH": f"{programs}:{os.environ['PATH']}",
            "FAKE_STATE": str(self._state), "FAKE_CALLS": str(self._calls),
        }  # fmt: skip

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        self._calls.write_text("")
        return subprocess.run(
            ["sh", str(DEPLOY / "influxdb.sh")], env=self.env | env, capture_output=True, text=True, timeout=120, check=False
        )

    def done(self, **env: str) -> None:
        ended = self.run(**env)
        assert ended.returncode == 0, ended.stderr

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._calls.read_text().splitlines()]

    @property
    def changes(self) -> list[str]:
        """What was asked for that changes something, in short."""
        words = [" ".join(call[1:4] if call[1] == "v1" else call[1:3]) for call in self.calls if call[0] == "influx"]
        return [text for text in words if text not in READING]

    @property
    def state(self) -> dict[str, Any]:
        return json.loads(self._state.read_text())

    def change(self, state: dict[str, Any]) -> None:
        self._state.write_text(json.dumps(state))

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.tokens.iterdir()}

    def rights(self, name: str) -> list[str]:
        """What the token in a file may do, with the names of the buckets."""
        (auth,) = [a for a in self.state["auths"].values() if a["token"] == self.files()[name]]
        said = [permission.split(":orgs/") for permission in auth["permissions"]]
        return [f"{right} {self.state['buckets'][place.split('/')[-1]]['name']}" for right, place in said]


@pytest.fixture
def init(tmp_path: Path) -> Init:
    return Init(tmp_path)


DAY = 86_400


def test_a_new_server_gets_organisation_buckets_and_names_for_influxql(init: Init) -> None:
    init.done()
    state = init.state
    assert {"name": "admin", "password": "the-password", "token": "the-token"} == state["admin"]
    assert "microcurrent" == state["org"]
    assert {"telemetry": 90 * DAY, "telemetry_long": 730 * DAY} == {b["name"]: b["seconds"] for b in state["buckets"].values()}
    mapped = {f"{m['db']}.{m['rp']}": (state["buckets"][m["bucket"]]["name"], m["default"]) for m in state["mappings"].values()}
    assert {"telemetry.raw": ("telemetry", True), "telemetry.long": ("telemetry_long", False)} == mapped


def test_each_token_can_do_one_thing_and_the_operators_stays_here(init: Init) -> None:
    init.done()
    assert ["write telemetry", "write telemetry_long"] == init.rights("ingest")
    assert ["read telemetry", "read telemetry_long"] == init.rights("reconcile")
    assert ["read telemetry", "read telemetry_long"] == init.rights("grafana")
    assert {"ingest", "reconcile", "grafana"} == set(init.files()) and "the-token" not in init.files().values()
    assert 0o711 == stat.S_IMODE(init.tokens.stat().st_mode)
    assert {0o440} == {stat.S_IMODE(path.stat().st_mode) for path in init.tokens.iterdir()}


def test_a_token_is_readable_by_the_group_it_is_made_for(init: Init) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be in groups of its choice here")
    init.done(INGEST_GID="10001", GRAFANA_GID="472")
    assert {"ingest": 10001, "reconcile": 10001, "grafana": 472} == {path.name: path.stat().st_gid for path in init.tokens.iterdir()}


def test_no_secret_is_on_a_command_line(init: Init) -> None:
    init.done()
    secret = {"the-password", "the-token", *init.files().values()}
    assert [] == [call for call in init.calls for word in call if any(text in word for text in secret)]


def test_a_second_time_nothing_is_made_and_the_tokens_stay(init: Init) -> None:
    init.done()
    state, files = init.state, init.files()
    init.done()
    assert (state, files) == (init.state, init.files())
    assert ["bucket update", "bucket update", "v1 dbrp update"] == init.changes


def test_a_changed_retention_is_set_on_the_buckets(init: Init) -> None:
    init.done()
    init.done(RAW_DAYS="30", LONG_DAYS="1000")
    assert {"telemetry": 30 * DAY, "telemetry_long": 1000 * DAY} == {b["name"]: b["seconds"] for b in init.state["buckets"].values()}


@pytest.mark.parametrize("name", ["ingest", "grafana"])
def test_a_token_file_that_is_lost_or_wrong_is_made_again_and_the_old_token_ends(init: Init, name: str) -> None:
    for damage in ("", "another"):
        init.done()
        before = init.files()
        path = init.tokens / name
        path.unlink()
        if damage:
            path.write_text(damage)
        init.done()
        assert {name} == {n for n in before if init.files()[n] != before[n]}
        assert before[name] not in [a["token"] for a in init.state["auths"].values()]
        assert 4 == len(init.state["auths"])


def test_a_bucket_that_was_made_again_is_mapped_and_allowed_again(init: Init) -> None:
    init.done()
    state = init.state
    lost = next(i for i, b in state["buckets"].items() if b["name"] == "telemetry")
    del state["buckets"][lost]
    init.change(state)
    init.done()
    assert ["write telemetry_long", "write telemetry"] == sorted(init.rights("ingest"), reverse=True)
    assert {b for b in init.state["buckets"]} == {m["bucket"] for m in init.state["mappings"].values()}
    assert 4 == len(init.state["auths"])


def test_what_others_made_is_left_alone(init: Init) -> None:
    init.done()
    state = init.state
    state["buckets"]["a" * 16] = {"name": "telemetry copy", "seconds": 0}
    state["mappings"]["b" * 16] = {"db": "telemetry", "rp": "mine", "bucket": "a" * 16, "default": False}
    state["auths"]["c" * 16] = {"description": "somebody's", "token": "theirs", "permissions": []}
    init.change(state)
    init.done()
    assert state == init.state


@pytest.mark.parametrize("days", ["", "0", "ninety", "90d", "-1"])
def test_a_retention_that_is_no_number_of_days_stops_before_anything_is_done(init: Init, days: str) -> None:
    ended = init.run(LONG_DAYS=days)
    assert ended.returncode == 2
    assert [] == init.calls
    assert days == "" or f"influxdb: the retention '{days}' is not a number of days, 1 or more\n" == ended.stderr


def test_a_server_that_knows_another_operator_stops_it(init: Init) -> None:
    init.done()
    (Path(init.env["ADMIN_TOKEN_FILE"])).write_text("another\n")
    (init.tokens / "ingest").unlink()
    ended = init.run()
    assert ended.returncode != 0 and "unauthorized" in ended.stderr
    assert {"reconcile", "grafana"} == set(init.files())


def test_the_health_check_is_a_command_of_the_image() -> None:
    assert ["CMD", "influx", "ping", "--host", "http://127.0.0.1:8086"] == services()["influxdb"]["healthcheck"]["test"]
