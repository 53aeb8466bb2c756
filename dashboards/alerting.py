"""Grafana's alert rules: what a person must be told of, even when nobody looks.

One outage makes one message. When nothing can be seen, `worker-silent` alone speaks: it fires without data and on
errors, and the others keep what they last said, so an open danger stays open and no silence looks well. All alerts
of a component come as one message. Texts hold no `$`: Grafana would look for variables of its environment there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dashboards.grafana import DATASOURCE_TYPE, DATASOURCE_UID, panel_ids, text
from dashboards.panel import Dashboard
from dashboards.query import LONG
from dashboards.shapes import ALL_ALERTS_MS
from schemas.alerts import LINE_RULE_IDS
from schemas.limits import CRITICAL_DAYS

FOLDER = "Microcurrent"
FOLDER_UID = "microcurrent"
RECEIVER = "microcurrent"
WEBHOOK_VARIABLE = "MICROCURRENT_ALERT_WEBHOOK_URL"
EMAIL_VARIABLE = "MICROCURRENT_ALERT_EMAIL"
EXPRESSION = "__expr__"
FIRES = "fires"
"""The refId of each rule's condition."""

ORGANISATION = 1

Json = dict[str, Any]


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"


class Component(StrEnum):
    """What is told together."""

    SAFETY = "safety"
    PIPELINE = "pipeline"
    DATA = "data"
    SECURITY = "security"


class Unseen(StrEnum):
    """What a rule says when its question has no answer."""

    ALERTING = "Alerting"
    OK = "OK"
    KEEP = "KeepLast"


@dataclass(frozen=True, slots=True)
class Alerting:
    """One rule: the questions by name (InfluxQL, one value column), and when their latest values are a danger.

    `look` and `act` are the runbook, with `meaning`. `shown` are the dashboard and the title of the panel that an
    alert leads to. `range_s` is how far back all questions look.
    """

    uid: str
    title: str
    severity: Severity
    component: Component
    asked: Mapping[str, str]
    fires: str
    range_s: int
    summary: str
    meaning: str
    look: str
    act: str
    shown: tuple[str, str]
    without_data: Unseen = Unseen.OK
    on_error: Unseen = Unseen.KEEP
    hold: str = "0s"

    @property
    def anchor(self) -> str:
        """Of its section in the runbook, as it is made of the heading."""
        return self.title.lower().replace(" ", "-")


_DEVICE = "device {{ .Labels.device_id }} ({{ .Labels.model }}, firmware {{ .Labels.fw }})"


def _value(name: str, form: str = "%.0f") -> str:
    """A latest value in a text; nothing where there is none."""
    return "{{ with .Values." + name + ' }}{{ printf "' + form + '" .Value }}{{ end }}'


_OF_ONE_DEVICE = " AND ".join(f"\"rule\" != '{rule}'" for rule in ("fleet-cluster", *LINE_RULE_IDS))
"""Alerts on the fleet and on the line have rules of their own: one outage is one message."""

RULES: tuple[Alerting, ...] = (
    Alerting(
        "mc-critical-unacknowledged",
        "Critical safety alert not acknowledged",
        Severity.CRITICAL,
        Component.SAFETY,
        {
            "unseen": f'SELECT sum("unacknowledged") FROM "{LONG}"."alert" WHERE $timeFilter AND "critical" = 1 AND "unacknowledged" = 1 '
            f'AND {_OF_ONE_DEVICE} GROUP BY "device_id", "model", "fw", "rule"'
        },
        "$unseen > 0",
        ALL_ALERTS_MS // 1000,
        f"{_DEVICE}: {_value('unseen')} critical alert(s) of rule {{{{ .Labels.rule }}}} that nobody has acknowledged",
        "A device did, or does, something that the safety envelope of its model calls critical, and no "
        "person has said that they saw it. It stays until somebody does, for most dangers end with their session.",
        "The device at the time of the alert: current against its limits, contact, temperature. The rule's own condition is "
        "in docs/rules.md. Whether other devices of the lot or firmware show the same.",
        "Reach the user and have the device put aside if it is in use. Then 'microcurrent alerts ack ID --by NAME --note …': "
        "the alert ends here when everything is acknowledged.",
        ("microcurrent-safety", "Waiting for acknowledgement"),
    ),
    Alerting(
        "mc-fleet-cluster",
        "Same critical fault on several devices",
        Severity.CRITICAL,
        Component.SAFETY,
        {
            "unseen": f'SELECT sum("unacknowledged") FROM "{LONG}"."alert" WHERE $timeFilter AND "open" = 1 AND "unacknowledged" = 1 '
            "AND \"rule\" = 'fleet-cluster' GROUP BY \"model\", \"fw\""
        },
        "$unseen > 0",
        ALL_ALERTS_MS // 1000,
        f"{_value('unseen')} open cluster(s) of model {{{{ .Labels.model }}}}, firmware {{{{ .Labels.fw }}}}: the same critical rule on several devices",
        "The same critical rule came on several devices of one lot or firmware within 7 days. That is rarely the users.",
        "The alert's detail names the lot or firmware, the rule and the devices. What changed: an update, a delivery.",
        "Stop shipping and updating what is named, tell those who decide about a field action, and acknowledge the alert with "
        "what was decided.",
        ("microcurrent-safety", "Clusters in the fleet"),
    ),
    Alerting(
        "mc-worker-silent",
        "Nothing is seen of the fleet",
        Severity.CRITICAL,
        Component.PIPELINE,
        {"points": 'SELECT moving_average(count("accepted"), 2) FROM "pipeline" WHERE $timeFilter GROUP BY time(1m), "device_id" fill(0)'},
        "$points < 0.5",
        86_400,
        "{{ with .Labels.device_id }}{{ . }}: {{ end }}no word of the worker in the store for 2 minutes, or the store does not answer: "
        "no dashboard and no alert can be trusted to be current",
        "The worker writes a point every 10 s. None has come for two minutes, or Grafana cannot ask the store at all. Alerts are "
        "still raised, and sent over MQTT and the webhook, if only the store is away; nothing is, if the worker is.",
        "'microcurrent status' on the worker's machine: running, or not; its store and broker. Then the store itself and its disk. "
        "Nothing acknowledged is lost: it waits in the journal.",
        "Bring back the worker or the store. A worker that was taken out of service for good is forgotten after 24 h.",
        ("microcurrent-pipeline", "Workers reporting"),
        without_data=Unseen.ALERTING,
        on_error=Unseen.ALERTING,
    ),
    Alerting(
        "mc-line-blind",
        "The line cannot see",
        Severity.CRITICAL,
        Component.PIPELINE,
        {"causes": 'SELECT last("blind") FROM "pipeline" WHERE $timeFilter GROUP BY "device_id"'},
        "$causes > 0",
        120,
        "{{ .Labels.device_id }}: " + _value("causes") + " reason(s) why something cannot be seen; its alert pipeline-blind says what, and since when",
        "For longer than the hold (45 s unless MICROCURRENT_BLIND_AFTER_S says otherwise) the worker has had no connection to the broker, or "
        "its own messages or its canary have not come through, or the store took no writes, or no device was heard though several should "
        "be; or the broker lost the worker's session, and messages may be missing. Silence of devices cannot be judged meanwhile, and is not.",
        "'microcurrent alerts list --rule pipeline-blind' and 'microcurrent status' tell what is unseen, since when and why. The broker's "
        "log: refused, full, restarted. The causes are explained in docs/rules.md.",
        "Bring back what is away. Devices hold what was not acknowledged and send it again; late alerts are then raised as such. "
        "Acknowledge the alert with what was found: it keeps from when to when nothing was seen.",
        ("microcurrent-pipeline", "Can the picture be believed?"),
    ),
    Alerting(
        "mc-storage-high",
        "Room runs out",
        Severity.WARNING,
        Component.PIPELINE,
        {"level": 'SELECT last("pressure") FROM "pipeline" WHERE $timeFilter GROUP BY "device_id"'},
        "$level > 0 && $level < 2",
        120,
        "{{ .Labels.device_id }}: the journal or its disk is nearly full; at the next level nothing more is accepted",
        "The worker's journal, or the disk that it is on, is nearly full. Nothing is lost yet, and nothing is deleted to make room.",
        "'microcurrent status' for what is scarce; whether the store is away, so that everything waits in the journal.",
        "Make room on the disk, or bring the store back.",
        ("microcurrent-pipeline", "Room for the journal"),
    ),
    Alerting(
        "mc-storage-stopped",
        "Nothing more is accepted",
        Severity.CRITICAL,
        Component.PIPELINE,
        {"level": 'SELECT last("pressure") FROM "pipeline" WHERE $timeFilter GROUP BY "device_id"'},
        "$level > 1",
        120,
        "{{ .Labels.device_id }}: no room; nothing more is accepted, and brokers and devices keep what they have",
        "There is no room for another message. The worker acknowledges nothing, so the broker queues and devices keep; their dangers are not seen.",
        "'microcurrent status' for what is scarce: the disk, or the journal's own limit.",
        "Make room on the disk; the worker goes on by itself.",
        ("microcurrent-pipeline", "Room for the journal"),
    ),
    Alerting(
        "mc-security-event",
        "Somebody tries to get in",
        Severity.WARNING,
        Component.SECURITY,
        {
            "unseen": f'SELECT sum("unacknowledged") FROM "{LONG}"."alert" WHERE $timeFilter AND "unacknowledged" = 1 '
            "AND \"rule\" = 'security-event' GROUP BY \"device_id\""
        },
        "$unseen > 0",
        ALL_ALERTS_MS // 1000,
        "{{ .Labels.device_id }}: " + _value("unseen") + " alert(s) on attempts to get in, on the clock or on certificates that end, that nobody has acknowledged",
        "A message named another device than its sender, a connection took the place of another, somebody known tried what they may not do, "
        "many proofs of identity failed, or the machine's clock was set. Or a certificate ends soon: whom it lets in is then shut out.",
        "'microcurrent security' tells who, from where, how often and when; the alert's detail names the most frequent.",
        "Take the credential away from a device that is not what it says ('microcurrent credentials revoke'), or shut out the source; put the "
        "clock right; make another certificate (docs/access.md). Then acknowledge the alert with what was found.",
        ("microcurrent-pipeline", "Security events by kind"),
    ),
    Alerting(
        "mc-certificate-ends",
        "A certificate ends within a week",
        Severity.CRITICAL,
        Component.SECURITY,
        {"level": 'SELECT last("certificate_level") FROM "pipeline" WHERE $timeFilter GROUP BY "device_id"'},
        "$level > 1",
        120,
        f"{{{{ .Labels.device_id }}}}: a certificate ends within {CRITICAL_DAYS} days, has ended, or is not valid yet; connections that need it are refused then",
        f"A certificate ends within {CRITICAL_DAYS} days, has ended, or is not valid yet: the broker's, its authority's, the worker's own, one that is watched, or a "
        "device's. When the broker's or the authority's has ended, no device comes in any more. It stays until there is another, acknowledged or not.",
        "'microcurrent status' and 'microcurrent security --kind certificate' tell which, where it is and when it ends; 'microcurrent credentials "
        "list' tells of each device. If it ought to last for years, the machine's clock.",
        "Make another as docs/access.md says, and have the broker read it. The worker sees it within five minutes. Revoke certificates of "
        "devices that nobody uses any more.",
        ("microcurrent-pipeline", "Can the picture be believed?"),
    ),
    Alerting(
        "mc-outbox-old",
        "Readings wait for the store",
        Severity.WARNING,
        Component.PIPELINE,
        {"waiting": 'SELECT min("outbox_age_s") FROM "pipeline" WHERE $timeFilter GROUP BY "device_id"'},
        "$waiting > 300",
        300,
        "{{ .Labels.device_id }}: the oldest reading has waited for the store for " + _value("waiting") + " s (limit 300 s)",
        "The store takes less than comes in, or refuses. Alerts do not wait for it; dashboards show the past.",
        "Outbox and its age over time; the store's load and disk; 'microcurrent status' for what the store answers.",
        "Give the store room or rights. Nothing is lost while the worker's disk has room.",
        ("microcurrent-pipeline", "Age of what waits for the store"),
        hold="5m",
    ),
    Alerting(
        "mc-quarantine-rate",
        "Many messages are refused",
        Severity.WARNING,
        Component.DATA,
        {
            "refused": 'SELECT sum("messages") FROM "quarantine" WHERE $timeFilter',
            "accepted": 'SELECT sum("came") FROM (SELECT spread("accepted") AS "came" FROM "pipeline" WHERE $timeFilter GROUP BY "device_id")',
        },
        "$refused > 10 && $refused > $accepted * 0.01",
        900,
        f"{_value('refused')} of {_value('accepted')} messages of the last 15 min were refused (limit 1 %)",
        "More than one message in a hundred cannot be read. Dangers are still looked for in them, but the rest of what they say is blind.",
        "'microcurrent quarantine list' shows reason, topic and bytes; a single firmware is the usual cause.",
        "Have the firmware corrected, or the contract. What was refused is kept with all its bytes.",
        ("microcurrent-pipeline", "Quarantine by reason"),
        hold="5m",
    ),
    Alerting(
        "mc-missing-share",
        "Messages are missing",
        Severity.WARNING,
        Component.DATA,
        {
            "missing": 'SELECT sum("lacking") FROM (SELECT last("missing") AS "lacking" FROM "pipeline" WHERE $timeFilter GROUP BY "device_id")',
            "accepted": 'SELECT sum("came") FROM (SELECT spread("accepted") AS "came" FROM "pipeline" WHERE $timeFilter GROUP BY "device_id")',
        },
        "$missing > 10 && $missing > ($accepted + $missing) * 0.01",
        86_400,
        f"{_value('missing')} numbers are missing in the sequences of devices, beside {_value('accepted')} messages of the last 24 h (limit 1 %)",
        "Devices number their messages; more than one in a hundred never came. What was in them nobody has judged.",
        "Which devices lack most; whether they share a gateway, a firmware or a broker limit. A phone that is away explains gaps until it is back.",
        "Ask the device for its numbers again: it keeps what was not acknowledged. Gaps that stay are losses, and are to be told as such.",
        ("microcurrent-pipeline", "Messages missing, clocks doubted"),
        hold="15m",
    ),
)

EVERY_S: Mapping[Component, int] = {Component.SAFETY: 30, Component.PIPELINE: 30, Component.DATA: 60, Component.SECURITY: 60}
"""How often the rules of a component are asked."""


def files(dashboards: Sequence[Dashboard], runbooks: str | None = None) -> dict[str, str]:
    """What Grafana reads at its start, by file name. JSON is YAML, and no reader of dashboards opens `.yaml`."""
    return {
        "rules.yaml": text({"apiVersion": 1, "groups": groups(dashboards, runbooks)}),
        "contact-points.yaml": text({"apiVersion": 1, "contactPoints": [{"orgId": ORGANISATION, "name": RECEIVER, "receivers": receivers()}]}),
        "policies.yaml": text({"apiVersion": 1, "policies": [{"orgId": ORGANISATION, **policy()}]}),
    }


def groups(dashboards: Sequence[Dashboard], runbooks: str | None = None, datasource_uid: str = DATASOURCE_UID) -> list[Json]:
    """A group for each component, in the form of provisioning files."""
    known = {dashboard.uid: panel_ids(dashboard) for dashboard in dashboards}
    return [
        {
            "orgId": ORGANISATION,
            "name": component.value,
            "folder": FOLDER,
            "interval": f"{EVERY_S[component]}s",
            "rules": [_rule(rule, known, runbooks, datasource_uid) for rule in RULES if rule.component is component],
        }
        for component in Component
    ]


def _rule(rule: Alerting, known: Mapping[str, Mapping[str, int]], runbooks: str | None, uid: str) -> Json:
    dashboard, panel = rule.shown
    annotations = {
        "summary": rule.summary,
        "description": rule.meaning,
        "runbook": f"Look at: {rule.look}\nDo: {rule.act}",
    }
    if runbooks is not None:
        annotations["runbook_url"] = f"{runbooks}#{rule.anchor}"
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": FIRES,
        "data": [part for name, asked in rule.asked.items() for part in _latest(name, asked, rule.range_s, uid)] + [_condition(rule)],
        "dashboardUid": dashboard,
        "panelId": known[dashboard][panel],
        "noDataState": rule.without_data.value,
        "execErrState": rule.on_error.value,
        "for": rule.hold,
        "isPaused": False,
        "labels": {"severity": rule.severity.value, "component": rule.component.value},
        "annotations": annotations,
    }


def _latest(name: str, asked: str, range_s: int, uid: str) -> list[Json]:
    """A question, and the latest value of each of its series under the name."""
    series = f"{name}_series"
    query = {
        "datasource": {"type": DATASOURCE_TYPE, "uid": uid},
        "intervalMs": 1_000,
        "maxDataPoints": 43_200,
        "query": asked,
        "rawQuery": True,
        "refId": series,
        "resultFormat": "time_series",
    }
    reduced = {"type": "reduce", "expression": series, "reducer": "last", "settings": {"mode": "dropNN"}}
    return [
        {"refId": series, "datasourceUid": uid, "relativeTimeRange": {"from": range_s, "to": 0}, "model": query},
        _expression(name, reduced),
    ]


def _condition(rule: Alerting) -> Json:
    return _expression(FIRES, {"type": "math", "expression": rule.fires})


def _expression(name: str, content: Json) -> Json:
    expression = {"datasource": {"type": EXPRESSION, "uid": EXPRESSION}, "refId": name, **content}
    return {"refId": name, "datasourceUid": EXPRESSION, "relativeTimeRange": {"from": 0, "to": 0}, "model": expression}


# -- who is told -----------------------------------------------------------------------------------


def receivers() -> list[Json]:
    """A webhook and e-mail, by variables of Grafana's environment.

    An empty address would stop Grafana's start. A fragment is never sent and an empty address between separators
    is left out, so with these a variable may be empty: then that way is closed, and Grafana says so.
    """
    return [
        {"uid": "microcurrent-webhook", "type": "webhook", "settings": {"url": f"${{{WEBHOOK_VARIABLE}}}#{RECEIVER}", "httpMethod": "POST"}},
        {"uid": "microcurrent-email", "type": "email", "settings": {"addresses": f";${{{EMAIL_VARIABLE}}}", "singleEmail": True}},
    ]


def policy() -> Json:
    """All alerts of a component in one message; what is critical at once, and again every hour."""
    return {
        "receiver": RECEIVER,
        **_told("component", wait="1m", interval="15m", again="24h"),
        "routes": [
            {
                "receiver": RECEIVER,
                "object_matchers": [["severity", "=", Severity.CRITICAL.value]],
                **_told("component", wait="10s", interval="1m", again="1h"),
            }
        ],
    }


def _told(together: str, wait: str, interval: str, again: str) -> Json:
    return {"group_by": [together], "group_wait": wait, "group_interval": interval, "repeat_interval": again}


# -- the runbook -----------------------------------------------------------------------------------


def runbook() -> str:
    """docs/runbook.md."""
    lines = [
        "# Runbook", "",
        "What each Grafana alert means, what to look at and what to do. Written by `make dashboards` from "
        "`dashboards/alerting.py`.",
        "", "| alert | severity | told with | asked every |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| [{r.title}](#{r.anchor}) | {r.severity} | {r.component} | {EVERY_S[r.component]} s |" for r in RULES]
    for rule in RULES:
        lines += ["", f"## {rule.title}", "", f"**It means:** {rule.meaning}", "", f"**Look at:** {rule.look}", "", f"**Do:** {rule.act}"]
    return "\n".join(lines) + "\n"


def api_group(group: Json, folder_uid: str) -> Json:
    """A group in the form of Grafana's HTTP interface, which keeps a rule's panel among its annotations."""
    rules = []
    for rule in json.loads(json.dumps(group["rules"])):
        shown = {"__dashboardUid__": rule.pop("dashboardUid"), "__panelId__": str(rule.pop("panelId"))}
        rules.append(
            {**rule, "annotations": {**rule["annotations"], **shown}, "folderUID": folder_uid, "orgID": ORGANISATION, "ruleGroup": group["name"]}
        )
    return {"folderUid": folder_uid, "interval": int(group["interval"].removesuffix("s")), "rules": rules, "title": group["name"]}
