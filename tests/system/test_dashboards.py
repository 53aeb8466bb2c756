"""`microcurrent dashboards build` and `check`, as a person uses them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import InfluxDB, free_port

pytestmark = pytest.mark.system

COMMAND = str(Path(sys.executable).with_name("microcurrent"))


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "dashboards", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)


def test_what_is_built_is_fit_and_what_is_changed_is_told(tmp_path: Path) -> None:
    built = run(tmp_path, "build", "--out", "made", "--json")
    assert (built.returncode, built.stderr) == (0, "")
    names = [Path(path).relative_to("made").as_posix() for path in json.loads(built.stdout)]
    assert {"microcurrent-safety.json", "alerting/rules.yaml", "alerting/policies.yaml"} <= set(names)
    fit = run(tmp_path, "check", "--dir", "made")
    assert (fit.returncode, fit.stdout) == (0, "5 dashboards and their alert rules are fit; asked an empty embedded store\n")
    (tmp_path / "made/microcurrent-usage.json").unlink()
    unfit = run(tmp_path, "check", "--dir", "made")
    assert (unfit.returncode, unfit.stdout) == (1, "microcurrent-usage.json: cannot be read (No such file or directory); build it\n")
    assert json.loads(run(tmp_path, "check", "--dir", "made", "--json").stdout)[0]["where"] == "microcurrent-usage.json"


def test_every_question_is_put_to_an_influxdb(tmp_path: Path, influxdb: InfluxDB) -> None:
    where = ("--url", influxdb.url, "--database", influxdb.database)
    asked = run(tmp_path, "check", *where)
    assert (asked.returncode, asked.stdout) == (0, f"5 dashboards and their alert rules are fit; asked InfluxDB at {influxdb.url}\n")
    influxdb.query(f'DROP RETENTION POLICY "long" ON "{influxdb.database}"')
    refused = run(tmp_path, "check", *where)
    assert refused.returncode == 1
    assert "microcurrent-safety, 'Open: critical': the store refuses its question: retention policy not found: long\n" in refused.stdout


def test_a_mistake_is_one_sentence(tmp_path: Path, influxdb: InfluxDB) -> None:
    away, strange = f"http://127.0.0.1:{free_port()}", ("--url", influxdb.url, "--database", "nobody")
    for words, said in (
        (("check", "--url", away), "cannot be asked"),
        (("check", *strange), "no database 'nobody'"),
        (("build", "--runbooks", "docs"), "--runbooks docs: not an address; give one that begins with https://"),
        (("build", "--out", "/dev/null/x"), "cannot write there"),
    ):
        ended = run(tmp_path, *words)
        (line,) = ended.stderr.splitlines()
        assert (ended.returncode, said in line) == (2, True), line
