"""Grafana's alert rules: one outage is one message, and silence never looks well."""

import json
import re

import yaml

from dashboards import alerting
from dashboards.alerting import RULES, Component, Severity, Unseen
from dashboards.catalogue import DASHBOARDS

FILES = alerting.files(DASHBOARDS)
GROUPS = json.loads(FILES["rules.yaml"])["groups"]
MADE = {rule["uid"]: rule for group in GROUPS for rule in group["rules"]}


def test_the_files_are_yaml_and_json_alike() -> None:
    for content in FILES.values():
        assert yaml.safe_load(content) == json.loads(content)
        assert json.loads(content)["apiVersion"] == 1


def test_only_one_rule_speaks_when_nothing_can_be_seen() -> None:
    """A store that does not answer is an error for every rule, a dead worker is no data for all of the worker's."""
    speaking = {uid for uid, rule in MADE.items() if "Alerting" in (rule["noDataState"], rule["execErrState"])}
    assert speaking == {"mc-worker-silent"}
    assert (MADE["mc-worker-silent"]["noDataState"], MADE["mc-worker-silent"]["execErrState"]) == ("Alerting", "Alerting")


def test_an_open_danger_stays_open_while_nothing_can_be_seen() -> None:
    assert {rule["execErrState"] for uid, rule in MADE.items() if uid != "mc-worker-silent"} == {Unseen.KEEP}
    assert {rule.without_data for rule in RULES if rule.component is Component.SAFETY} == {Unseen.OK}  # no row is no such alert


def test_what_belongs_together_is_one_message() -> None:
    policy = alerting.policy()
    assert [policy["group_by"], *(route["group_by"] for route in policy["routes"])] == [["component"], ["component"]]
    assert [route["object_matchers"] for route in policy["routes"]] == [[["severity", "=", "critical"]]]
    assert not any(route.get("continue") for route in policy["routes"])
    assert {rule.severity for rule in RULES if rule.component in (Component.SAFETY,)} == {Severity.CRITICAL}


def test_every_rule_has_what_a_person_needs_at_night() -> None:
    for rule in RULES:
        made = MADE[rule.uid]
        assert made["labels"] == {"severity": rule.severity.value, "component": rule.component.value}
        assert set(made["annotations"]) == {"summary", "description", "runbook"}
        assert all(made["annotations"].values())
        panel = next(d for d in DASHBOARDS if d.uid == made["dashboardUid"])
        assert made["panelId"] > 0 and rule.shown[1] in {p.title for p in panel.panels()}


def test_texts_hold_nothing_that_grafana_takes_for_a_variable_of_its_environment() -> None:
    for rule in MADE.values():
        assert "$" not in json.dumps([rule["annotations"], rule["labels"], rule["title"], rule["uid"]])


def test_each_question_is_reduced_and_the_condition_rests_on_all_of_them() -> None:
    for rule in RULES:
        parts = {part["refId"]: part for part in MADE[rule.uid]["data"]}
        assert list(parts) == [name for asked in rule.asked for name in (f"{asked}_series", asked)] + ["fires"]
        assert MADE[rule.uid]["condition"] == "fires"
        assert set(re.findall(r"\$(\w+)", parts["fires"]["model"]["expression"])) == set(rule.asked)
        assert {p["relativeTimeRange"]["from"] for n, p in parts.items() if n.endswith("_series")} == {rule.range_s}


def test_the_runbook_has_a_section_for_each_alert_and_links_lead_to_it() -> None:
    linked = json.loads(alerting.files(DASHBOARDS, "https://docs.example/runbook")["rules.yaml"])["groups"]
    for rule in (rule for group in linked for rule in group["rules"]):
        address, anchor = rule["annotations"]["runbook_url"].split("#")
        assert (address, f"## {rule['title']}\n" in alerting.runbook()) == ("https://docs.example/runbook", True)
        assert anchor == re.sub(r"[^\w -]", "", rule["title"].lower()).replace(" ", "-")


def test_an_empty_address_does_not_stop_grafana() -> None:
    """Its receivers refuse an empty string; a fragment is not sent, and an empty address between separators is left out."""
    webhook, email = (receiver["settings"] for receiver in alerting.receivers())
    empty = re.compile(r"\$\{\w+\}")
    assert (empty.sub("", webhook["url"]), empty.sub("", email["addresses"])) == ("#microcurrent", ";")


def test_over_http_a_rule_leads_to_its_panel_by_annotations() -> None:
    group = alerting.api_group(GROUPS[0], "folder-1")
    (rule, *_) = group["rules"]
    assert (group["folderUid"], group["interval"], group["title"]) == ("folder-1", 30, "safety")
    assert rule["annotations"]["__panelId__"] == str(MADE[rule["uid"]]["panelId"])
    assert {"dashboardUid", "panelId"} & set(rule) == set()
