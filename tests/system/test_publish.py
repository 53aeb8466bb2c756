"""`microcurrent dashboards publish` against a server that answers like Grafana, over a real InfluxDB."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.grafana import Grafana
from tests.servers import InfluxDB, free_port

pytestmark = pytest.mark.system

COMMAND = str(Path(sys.executable).with_name("microcurrent"))
FOLDER = "microcurrent"
TITLES = ["Safety", "Fleet", "Device", "Usage", "Pipeline"]
GROUPS = ["safety", "pipeline", "data", "security"]


@pytest.fixture
def grafana(influxdb: InfluxDB) -> Iterator[Grafana]:
    with Grafana(influxdb) as server:
        yield server


def run(tmp_path: Path, url: str, *more: str, token: str = Grafana.token, **env: str) -> subprocess.CompletedProcess[str]:
    token_file = tmp_path / "token"
    token_file.write_text(f"{token}\n")
    return subprocess.run(
        [COMMAND, "dashboards", "publish", "--url", url, "--token-file", str(token_file), *more],
        cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def published(tmp_path: Path, grafana: Grafana, *more: str, **env: str) -> tuple[int, dict[tuple[str, str], tuple[str, str]]]:
    """The exit code, and what became of each thing, by kind and name."""
    assert grafana.influxdb is not None
    database = ("--datasource-url", grafana.influxdb.url, "--database", grafana.influxdb.database)
    chosen = () if "--datasource-uid" in more else database
    ended = run(tmp_path, grafana.url, *chosen, "--json", *more, **env)
    answer = json.loads(ended.stdout)
    assert answer["error"] is None, answer
    return ended.returncode, {(s["what"], s["name"]): (s["outcome"], s["detail"]) for s in answer["steps"]}


def outcomes(steps: dict[tuple[str, str], tuple[str, str]], *kinds: str) -> dict[str, set[str]]:
    return {kind: {outcome for (what, _), (outcome, _) in steps.items() if what == kind} for kind in kinds}


def a_reading_of_the_worker(influxdb: InfluxDB) -> None:
    line = b"pipeline,device_id=~worker-1,model=all,fw=all accepted=5i,broker_connected=1i,store_ok=1i,unseen_s=0.5,missing=0i"
    urllib.request.urlopen(f"{influxdb.url}/api/v2/write?bucket={influxdb.database}", line, timeout=120).close()


def test_twice_is_once_and_every_panel_is_run(tmp_path: Path, grafana: Grafana) -> None:
    code, first = published(tmp_path, grafana)
    assert (code, outcomes(first, "folder", "data source", "dashboard", "alert rules")) == (
        0, {"folder": {"created"}, "data source": {"created"}, "dashboard": {"created"}, "alert rules": {"created"}},
    )  # fmt: skip
    assert [kept["dashboard"]["title"] for kept in grafana.dashboards.values()] == TITLES
    assert {kept["meta"]["folderUid"] for kept in grafana.dashboards.values()} == {FOLDER}
    assert list(grafana.groups) == [(FOLDER, name) for name in GROUPS]
    panels = sum(bool(panel.get("targets")) for kept in grafana.dashboards.values() for panel in kept["dashboard"]["panels"])
    assert len([name for what, name in first if what == "panel"]) == panels > 40
    assert outcomes(first, "panel") == {"panel": {"no data"}}  # the store is empty, and takes every question
    assert (first["data source health", "microcurrent"][0]) == "ok"

    before, grafana.asked[:] = json.dumps([grafana.dashboards, list(grafana.groups.values()), grafana.datasources]), []
    code, second = published(tmp_path, grafana)
    assert (code, grafana.writes()) == (0, [])
    assert outcomes(second, "folder", "data source", "dashboard", "alert rules") == dict.fromkeys(
        ("folder", "data source", "dashboard", "alert rules"), {"unchanged"}
    )
    assert before == json.dumps([grafana.dashboards, list(grafana.groups.values()), grafana.datasources])


def test_what_was_changed_by_hand_is_named_and_put_right(tmp_path: Path, grafana: Grafana) -> None:
    published(tmp_path, grafana)
    kept = grafana.dashboards["microcurrent-safety"]["dashboard"]
    right = json.dumps(kept["panels"])
    panel = next(panel for panel in kept["panels"] if panel["title"] == "By model")
    panel["targets"][0]["query"] += " LIMIT 1"
    kept["version"] = 7
    grafana.dashboards["microcurrent-fleet"]["meta"]["folderUid"] = "elsewhere"
    rule = grafana.groups[FOLDER, "pipeline"]["rules"][0]
    rule["noDataState"] = "OK"
    grafana.datasources["microcurrent"]["jsonData"]["dbName"] = "another"
    grafana.folders[FOLDER]["title"] = "Old name"

    code, steps = published(tmp_path, grafana)
    assert code == 0
    assert {key: step for key, step in steps.items() if step[0] == "updated"} == {
        ("folder", "Microcurrent"): ("updated", "was 'Old name'"),
        ("data source", "microcurrent"): ("updated", "jsonData"),
        ("dashboard", "Safety"): ("updated", "panel 'By model'"),
        ("dashboard", "Fleet"): ("updated", "its folder"),
        ("alert rules", "pipeline"): ("updated", f"rule '{rule['title']}'"),
    }
    kept = grafana.dashboards["microcurrent-safety"]["dashboard"]
    assert (json.dumps(kept["panels"]), kept["version"]) == (right, 8)
    assert grafana.groups[FOLDER, "pipeline"]["rules"][0]["noDataState"] == "Alerting"


def test_a_panel_that_the_store_refuses_is_named_with_its_reason(tmp_path: Path, grafana: Grafana) -> None:
    assert grafana.influxdb is not None
    a_reading_of_the_worker(grafana.influxdb)
    grafana.influxdb.query(f'DROP RETENTION POLICY "long" ON "{grafana.influxdb.database}"')
    code, steps = published(tmp_path, grafana)
    failed = {name: detail for (what, name), (outcome, detail) in steps.items() if outcome == "failed"}
    assert code == 1
    assert "retention policy not found: long" in failed["Safety, 'Open: critical'"]
    assert steps["panel", "Safety, 'Can this picture be trusted?'"] == ("ok", "")
    assert [name for name in failed if name.startswith("Pipeline")] == ["Pipeline, 'Alerts of the line itself'"]


def test_a_data_source_that_is_there_is_used_and_left_as_it_is(tmp_path: Path, grafana: Grafana) -> None:
    assert grafana.influxdb is not None
    there = {"uid": "P1234", "name": "Influx of the house", "type": "influxdb", "url": grafana.influxdb.url, "readOnly": True,
             "jsonData": {"dbName": grafana.influxdb.database, "version": "InfluxQL"}, "secureJsonFields": {}}  # fmt: skip
    grafana.datasources["P1234"] = json.loads(json.dumps(there))
    code, steps = published(tmp_path, grafana, "--datasource-uid", "P1234")
    assert (code, steps["data source", "P1234"], grafana.datasources) == (0, ("unchanged", ""), {"P1234": there})
    for name in ("microcurrent-safety", "microcurrent-device"):
        assert '"uid": "microcurrent"' not in json.dumps(grafana.dashboards[name]["dashboard"])
    used = {part["datasourceUid"] for group in grafana.groups.values() for rule in group["rules"] for part in rule["data"]}
    assert used == {"P1234", "__expr__"}


def test_a_token_for_the_store_is_kept_secret_and_sent_again_only_where_it_lacks(tmp_path: Path, grafana: Grafana) -> None:
    (tmp_path / "influx").write_text("the-influx-secret")
    more = ("--datasource-token-file", str(tmp_path / "influx"))
    published(tmp_path, grafana, *more)
    assert grafana.datasources["microcurrent"]["secureJsonFields"] == {"httpHeaderValue1": True}
    grafana.asked.clear()
    published(tmp_path, grafana, *more)
    assert grafana.writes() == []
    grafana.datasources["microcurrent"]["secureJsonFields"] = {}
    code, steps = published(tmp_path, grafana, *more)
    assert (code, steps["data source", "microcurrent"]) == (0, ("updated", "token"))


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path, grafana: Grafana) -> None:
    assert grafana.influxdb is not None
    ended = run(tmp_path, grafana.url, "--dry-run", "--datasource-url", grafana.influxdb.url)
    assert ended.returncode == 0, ended.stderr
    assert {method for method, _ in grafana.asked} == {"GET"}
    assert "dashboard Safety: would be created" in ended.stdout
    assert "nothing was written" in ended.stdout


def test_routing_is_touched_only_when_it_is_asked_for(tmp_path: Path, grafana: Grafana) -> None:
    theirs = dict(grafana.policy)
    hook = {"MICROCURRENT_ALERT_WEBHOOK_URL": "https://on-call.example/hook"}
    published(tmp_path, grafana, **hook)
    assert (grafana.policy, grafana.contact_points) == (theirs, {})
    _, steps = published(tmp_path, grafana, "--routing", **hook)
    assert steps["contact point", "microcurrent-webhook"] == ("created", "")
    assert [point["settings"]["url"] for point in grafana.contact_points.values()] == ["https://on-call.example/hook"]
    assert grafana.policy["group_by"] == ["component"]
    grafana.asked.clear()
    _, steps = published(tmp_path, grafana, "--routing", **hook)
    assert (grafana.writes(), steps["notification policy", "the organisation's"]) == ([], ("unchanged", ""))
    ended = run(tmp_path, grafana.url, "--routing", MICROCURRENT_ALERT_WEBHOOK_URL="", MICROCURRENT_ALERT_EMAIL="")
    assert (ended.returncode, "nobody would be told" in ended.stderr) == (2, True)


def test_a_dashboard_that_is_made_no_more_is_left_to_a_person(tmp_path: Path, grafana: Grafana) -> None:
    published(tmp_path, grafana)
    old = json.loads(json.dumps(grafana.dashboards["microcurrent-safety"]).replace("microcurrent-safety", "microcurrent-old"))
    grafana.dashboards["microcurrent-old"] = old | {"dashboard": old["dashboard"] | {"title": "Old"}}
    _, steps = published(tmp_path, grafana)
    assert steps["dashboard", "Old"] == ("note", "is made no more; delete it if nobody needs it")
    assert "microcurrent-old" in grafana.dashboards


def test_a_path_before_grafana_is_kept(tmp_path: Path, influxdb: InfluxDB) -> None:
    with Grafana(influxdb, prefix="/monitoring/grafana") as grafana:
        code, steps = published(tmp_path, grafana)
        assert (code, outcomes(steps, "dashboard")) == (0, {"dashboard": {"created"}})
        astray = run(tmp_path, grafana.url.removesuffix("/monitoring/grafana"))
    assert astray.returncode == 1
    assert "sends elsewhere, as to a login" in astray.stderr


def mistake(ended: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that it ended with."""
    assert ended.returncode == 1, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("microcurrent: ")
    return line


RIGHTS = {
    "/folders": "needs folders:read",
    "/datasources": "needs datasources:read",
    "/dashboards": "needs dashboards:read",
    "/v1/provisioning": "needs alert.provisioning:read",
    "/ds/query": "needs datasources:query",
}


def test_a_token_without_a_right_is_told_which(tmp_path: Path, grafana: Grafana) -> None:
    assert grafana.influxdb is not None
    for path, said in RIGHTS.items():
        grafana.forbidden = (path,)
        ended = run(tmp_path, grafana.url, "--datasource-url", grafana.influxdb.url, "--database", grafana.influxdb.database)
        assert said in mistake(ended)


def test_each_thing_that_stands_in_the_way_is_one_sentence(tmp_path: Path, grafana: Grafana) -> None:
    assert grafana.influxdb is not None
    wrong = run(tmp_path, grafana.url, token="glsa_wrong")
    assert "the token is not accepted (401)" in mistake(wrong)
    assert "glsa_wrong" not in wrong.stdout + wrong.stderr
    assert "cannot be reached" in mistake(run(tmp_path, f"http://127.0.0.1:{free_port()}"))
    assert "there is no data source microcurrent; give --datasource-url" in mistake(run(tmp_path, grafana.url))
    assert "not an address of a Grafana" in mistake(run(tmp_path, "grafana.example"))
    grafana.login_at = "https://login.example/"
    assert "sends elsewhere, as to a login" in mistake(run(tmp_path, grafana.url))


def test_a_version_that_moved_meanwhile_is_told(tmp_path: Path, grafana: Grafana) -> None:
    published(tmp_path, grafana)
    grafana.dashboards["microcurrent-usage"]["dashboard"]["refresh"] = "1m"

    def somebody_saves(uid: str) -> None:
        grafana.dashboards[uid]["dashboard"]["version"] += 1

    grafana.before_save = somebody_saves
    assert grafana.influxdb is not None
    ended = run(tmp_path, grafana.url, "--datasource-url", grafana.influxdb.url, "--database", grafana.influxdb.database)
    assert "somebody saved it meanwhile (412); publish again" in mistake(ended)


def test_a_grafana_that_reads_the_dashboards_from_files_is_left_alone(tmp_path: Path, grafana: Grafana) -> None:
    published(tmp_path, grafana)
    grafana.dashboards["microcurrent-usage"]["meta"]["provisioned"] = True
    assert published(tmp_path, grafana)[0] == 0
    grafana.dashboards["microcurrent-usage"]["dashboard"]["refresh"] = "1m"
    assert grafana.influxdb is not None
    ended = run(tmp_path, grafana.url, "--datasource-url", grafana.influxdb.url, "--database", grafana.influxdb.database)
    assert "'Usage' is provisioned from a file of that Grafana" in mistake(ended)


def test_an_old_grafana_is_refused(tmp_path: Path) -> None:
    with Grafana(version="9.5.3") as grafana:
        assert "it is Grafana 9.5.3; 11 or newer is needed" in mistake(run(tmp_path, grafana.url))


def test_the_answer_is_json_for_programs_even_when_it_is_refused(tmp_path: Path, grafana: Grafana) -> None:
    ended = run(tmp_path, grafana.url, "--json", token="glsa_wrong")
    answer: dict[str, Any] = json.loads(ended.stdout)
    assert (ended.returncode, answer["steps"]) == (1, [])
    assert "401" in answer["error"]
