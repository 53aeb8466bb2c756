"""The commands that the documents show are run as they stand."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.servers import InfluxDB, Mosquitto

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
SHOWN = ("MICROCURRENT_", "microcurrent quarantine", "microcurrent security")
BY_HAND = "\n".join(block for block in BLOCKS if any(word in block for word in SHOWN))
BACKTEST = "\n".join(block for block in BLOCKS if "backtest" in block)
RULES_SHOWN = ".venv/bin/microcurrent rules\n"
DASHBOARDS_CHECKED = ".venv/bin/microcurrent dashboards check\n"
WAIT = """
worker=$!
for _ in $(seq 100); do .venv/bin/microcurrent status 2>/dev/null | grep -q 'worker  running' && break; sleep 0.1; done
"""
SETTLE = """
for _ in $(seq 60); do .venv/bin/microcurrent status | grep -q 'accepted  2 = 0 pending' && break; sleep 0.1; done
"""


WAIT_FOR_ALERT = """
for _ in $(seq 60); do .venv/bin/microcurrent alerts list --json | grep -q overcurrent && break; sleep 0.1; done
"""


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )


def test_the_readme_has_only_blocks_that_are_run_here() -> None:
    known = [b for b in BLOCKS if b in BY_HAND or b.startswith(("make -s demo", "make install", "make test", "cp -R schemas/profiles", RULES_SHOWN, DASHBOARDS_CHECKED))]
    assert BLOCKS == known


def test_the_readme_shows_the_rules() -> None:
    ended = run(RULES_SHOWN)
    assert ended.returncode == 0
    assert "overcurrent-peak" in ended.stdout


def test_the_readme_checks_the_dashboards() -> None:
    ended = run(DASHBOARDS_CHECKED, MICROCURRENT_STORE="duckdb")
    assert (ended.returncode, "5 dashboards and their alert rules are fit" in ended.stdout) == (0, True), ended.stdout


@pytest.mark.long
def test_the_readme_steps_by_hand_store_one_reading_quarantine_the_other_and_try_a_lower_limit(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB
) -> None:
    script = BY_HAND.replace("1883", str(mosquitto.port)).replace("http://127.0.0.1:8086", influxdb.url)
    script = script.replace("microcurrent run\n", "microcurrent run &" + WAIT)
    script = script.replace(".venv/bin/microcurrent status\n", SETTLE + ".venv/bin/microcurrent status\n")
    seen_to = ".venv/bin/microcurrent alerts list --state open"
    assert seen_to in script
    script = script.replace(seen_to, WAIT_FOR_ALERT + seen_to)
    script += BACKTEST.replace("my-profiles", str(tmp_path / "my-profiles"))
    ended = run(
        "set -e; trap 'kill $worker; wait $worker' EXIT\n" + script,
        MICROCURRENT_DATA_DIR=str(tmp_path / "data"),
        MICROCURRENT_HTTP_PORT="0",
        MICROCURRENT_INFLUX_BUCKET=influxdb.database,
        MICROCURRENT_INFLUX_LONG_BUCKET=influxdb.long_bucket,
    )
    assert ended.returncode == 3, ended.stderr  # the back-test, which comes last, found a difference
    assert "FAIL" not in ended.stdout
    assert "2 = 0 pending + 1 stored + 0 duplicate + 1 quarantined" in ended.stdout
    assert "json_syntax" in ended.stdout
    assert "1 messages of 1 devices: 0 lost, 0 doubled, 0 unknown; the ledger balances" in ended.stdout
    assert "2 would be refused again: json_syntax" in ended.stdout and "2 discarded" in ended.stdout
    history = [line.split()[2] for line in ended.stdout.splitlines() if re.match(r"\S+ \S+Z +(opened|assigned|commented|acknowledged) ", line)]
    assert history == ["opened", "assigned", "commented", "acknowledged"]
    assert "alerts: 1 in force, 1 tried: 0 added, 0 removed, 1 changed" in ended.stdout  # it began with the first reading
    assert [row["i_peak_ua"] for row in influxdb.query("SELECT i_peak_ua FROM current")] == [201.2]
