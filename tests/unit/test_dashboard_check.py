"""Whatever is wrong with a dashboard in Grafana's JSON is found, and said where a person can find it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dashboards.build import write
from dashboards.catalogue import DASHBOARDS
from dashboards.check import (
    answers_problems,
    content_problems,
    dashboards_problems,
    files_problems,
    questions,
    rules_problems,
    unknown_names,
)
from dashboards.fitting import fits
from dashboards.grafana import compiled

UIDS = {dashboard.uid for dashboard in DASHBOARDS}
FLEET = compiled(DASHBOARDS[1], DASHBOARDS)


def test_ours_are_fit() -> None:
    assert [*dashboards_problems(DASHBOARDS), *rules_problems(DASHBOARDS)] == []


def panel(content: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return content["panels"][number]


BREAKS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a number twice": (lambda c: panel(c).update(id=1), "2 panels have the id 1"),
    "one over the other": (lambda c: panel(c, 2)["gridPos"].update(panel(c)["gridPos"]), "lies over 'Devices'"),
    "outside": (lambda c: panel(c)["gridPos"].update(x=20), "is outside of the 24 columns"),
    "an unknown variable": (lambda c: panel(c)["targets"][0].update(query='SELECT last("rank") FROM "device" WHERE x = ${nobody}'), "uses the variable nobody, which is not defined"),
    "a link to nowhere": (lambda c: c["links"][0].update(url="/d/no-such"), "links to the dashboard no-such, which does not exist"),
    "another source": (lambda c: panel(c)["targets"][0]["datasource"].update(uid="other"), "asks the data source {'type': 'influxdb', 'uid': 'other'}, not microcurrent"),
    "an unknown field": (lambda c: panel(c)["targets"][0].update(query='SELECT last("rang") FROM "device"'), "asks for rang, which device does not have"),
    "an unknown measurement": (lambda c: panel(c)["targets"][0].update(query='SELECT last("rank") FROM "devices"'), "asks the measurement devices, which does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_wrong_in_a_dashboard_is_named(name: str) -> None:
    spoil, said = BREAKS[name]
    content = copy.deepcopy(FLEET)
    assert list(content_problems(content, UIDS)) == []
    spoil(content)
    assert said in [what for _, what in content_problems(content, UIDS)]


def test_names_in_a_question_are_looked_up_where_it_asks() -> None:
    assert unknown_names('SELECT max("i_peak_ua") AS "peak" FROM "current" WHERE "fw" = \'1\'') == []
    assert unknown_names('SELECT sum("x") FROM (SELECT last("missing") AS "x" FROM "pipeline") WHERE "long"."y" = 1') != []
    assert unknown_names('SELECT sum("critical") FROM "long"."alert"') == []


def test_files_that_differ_lack_or_are_not_ours_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    assert list(files_problems(tmp_path)) == []
    fleet = tmp_path / "microcurrent-fleet.json"
    fleet.write_text(fleet.read_text().replace('"refresh": "10s"', '"refresh": "5s"'))
    (tmp_path / "alerting/rules.yaml").unlink()
    (tmp_path / "alerting/mine.yaml").write_text("x: 1\n")
    line = next(n for n, text in enumerate(fleet.read_text().splitlines(), 1) if '"refresh": "5s"' in text)
    assert [(p.where, p.what) for p in files_problems(tmp_path)] == [
        ("alerting/rules.yaml", "cannot be read (No such file or directory); build it"),
        ("microcurrent-fleet.json", f"line {line} is not what the definitions make; build it again"),
        ("alerting/mine.yaml", "is not made from any definition, and Grafana would read it"),
    ]


def test_building_removes_what_is_made_no_more_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "microcurrent-old.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path)
    assert not (tmp_path / "microcurrent-old.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_every_question_is_asked_with_all_and_with_one_device() -> None:
    asked: list[str] = []
    assert list(answers_problems(DASHBOARDS, asked.append, 1_795_298_400_000)) == []
    assert len(asked) == 2 * len(questions(DASHBOARDS))
    assert [text for text in asked if "$" in text.replace("$/", "")] == []


def test_a_refused_question_is_told_once_with_its_panel() -> None:
    found = list(answers_problems(DASHBOARDS, lambda text: "no" if '"session_max_s"' in text and "last(" in text else None, 1_795_298_400_000))
    assert ("microcurrent-device, the variable session_max_s", "the store refuses its question: no") in [tuple(p) for p in found]


@pytest.mark.parametrize(
    ("value", "declared", "fit"),
    [(1, float, True), (True, float, False), (True, int, False), ("a", str | None, True), (None, str | None, True), (["a", 1], list[str], False), ({"a": 1}, dict[str, int], True)],
)  # fmt: skip
def test_a_value_is_of_a_type_or_not(value: Any, declared: Any, fit: bool) -> None:
    assert fits(value, declared) is fit
