"""To an existing Grafana: folder, data source, dashboards and alert rules, twice the same as once."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from dashboards import alerting
from dashboards.grafana import DATASOURCE_TYPE, DATASOURCE_UID, TAG, compiled
from dashboards.panel import Dashboard
from dashboards.query import View, filled
from dashboards.remote import Refused, Remote

Json = dict[str, Any]

GRAFANAS = ("id", "version")
"""Keys of a dashboard that Grafana sets."""

OLDEST = 11
STEP_MS = 60_000
MESSAGE = "published by microcurrent"
HEADER = "Authorization"


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    OK = "ok"
    EMPTY = "no data"
    FAILED = "failed"
    NOTED = "note"


@dataclass(frozen=True, slots=True)
class Step:
    """What was done (or, in a dry run, would be) to one thing of Grafana's."""

    what: str
    name: str
    outcome: Outcome
    detail: str = ""

    def to_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be there. Without `datasource_url` the data source of `datasource_uid` must exist and stays as it is."""

    dashboards: Sequence[Dashboard]
    folder: str = alerting.FOLDER
    datasource_uid: str = DATASOURCE_UID
    datasource_url: str | None = None
    datasource_token: str | None = None
    database: str = ""
    runbooks: str | None = None
    webhook: str | None = None
    email: str | None = None
    routing: bool = False


def publish(remote: Remote, wish: Wish, dry: bool, now_ms: int) -> Iterator[Step]:
    """Do what differs, step by step; in a dry run only look. Raises Refused where Grafana will not."""
    version = remote.version()
    if re.match(r"\d+", version) and int(version.split(".")[0]) < OLDEST:
        raise Refused(f"{remote.url}: it is Grafana {version}; {OLDEST} or newer is needed")
    yield _folder(remote, wish, dry)
    yield _datasource(remote, wish, dry)
    for dashboard in wish.dashboards:
        yield _dashboard(remote, wish, compiled(dashboard, wish.dashboards, wish.datasource_uid), dry)
    yield from _left_over(remote, wish)
    for group in alerting.groups(wish.dashboards, wish.runbooks, wish.datasource_uid):
        yield _rule_group(remote, alerting.api_group(group, alerting.FOLDER_UID), dry)
    if wish.routing:
        yield from _routing(remote, wish, dry)
    if not dry:
        yield from _seen(remote, wish, now_ms)


def _folder(remote: Remote, wish: Wish, dry: bool) -> Step:
    kept = remote.folder(alerting.FOLDER_UID)
    if kept is None:
        return _done("folder", wish.folder, Outcome.CREATED, dry, lambda: remote.create_folder(wish.folder, alerting.FOLDER_UID))
    if kept["title"] != wish.folder:
        rename = lambda: remote.rename_folder(alerting.FOLDER_UID, wish.folder)  # noqa: E731
        return _done("folder", wish.folder, Outcome.UPDATED, dry, rename, f"was '{kept['title']}'")
    return Step("folder", wish.folder, Outcome.UNCHANGED)


def _done(what: str, name: str, outcome: Outcome, dry: bool, act: Callable[[], Any], detail: str = "") -> Step:
    if not dry:
        act()
    return Step(what, name, outcome, detail)


# -- the data source -------------------------------------------------------------------------------


def _datasource(remote: Remote, wish: Wish, dry: bool) -> Step:
    what, uid = "data source", wish.datasource_uid
    kept = remote.datasource(uid)
    if wish.datasource_url is None:
        if kept is None:
            raise Refused(f"{remote.url}: there is no data source {uid}; give --datasource-url to make it, or --datasource-uid of another")
        if kept["type"] != DATASOURCE_TYPE or kept.get("jsonData", {}).get("version", "InfluxQL") != "InfluxQL":
            raise Refused(f"{remote.url}: the data source {uid} is not an InfluxDB asked in InfluxQL; give another --datasource-uid")
        return Step(what, uid, Outcome.UNCHANGED)
    ours = _datasource_content(wish)
    secret = {"secureJsonData": {"httpHeaderValue1": f"Token {wish.datasource_token}"}} if wish.datasource_token else {}
    if kept is None:
        return _done(what, uid, Outcome.CREATED, dry, lambda: remote.create_datasource({**ours, **secret}))
    update = lambda: remote.update_datasource(uid, {**kept, **ours, **secret})  # noqa: E731
    if kept.get("readOnly"):
        return Step(what, uid, Outcome.UNCHANGED, "it is provisioned from a file of that Grafana")
    if differing := [key for key in ours if not _holds(kept.get(key), ours[key])]:
        return _done(what, uid, Outcome.UPDATED, dry, update, ", ".join(differing))
    # A secret cannot be read back: it is sent again where it is missing, or Grafana is not let in.
    if secret and not (kept.get("secureJsonFields", {}).get("httpHeaderValue1") and remote.datasource_health(uid)[0]):
        return _done(what, uid, Outcome.UPDATED, dry, update, "token")
    return Step(what, uid, Outcome.UNCHANGED)


def _datasource_content(wish: Wish) -> Json:
    named = {"httpHeaderName1": HEADER} if wish.datasource_token else {}
    return {
        "access": "proxy",
        "jsonData": {"dbName": wish.database, "httpMode": "GET", "version": "InfluxQL", **named},
        "name": "Microcurrent" if wish.datasource_uid == DATASOURCE_UID else wish.datasource_uid,
        "type": DATASOURCE_TYPE,
        "uid": wish.datasource_uid,
        "url": wish.datasource_url,
    }


def _holds(kept: Any, ours: Any) -> bool:
    """Whether what Grafana keeps is what we want: it adds keys of its own to what it is given."""
    if isinstance(ours, Mapping):
        return isinstance(kept, Mapping) and all(key in kept and _holds(kept[key], value) for key, value in ours.items())
    if isinstance(ours, list):
        return isinstance(kept, list) and len(kept) == len(ours) and all(map(_holds, kept, ours))
    return bool(kept == ours)


# -- dashboards ------------------------------------------------------------------------------------


def _dashboard(remote: Remote, wish: Wish, ours: Json, dry: bool) -> Step:
    found = remote.dashboard(ours["uid"])
    save = lambda content: remote.save_dashboard(content, alerting.FOLDER_UID, MESSAGE)  # noqa: E731
    if found is None:
        return _done("dashboard", ours["title"], Outcome.CREATED, dry, lambda: save(ours))
    kept, meta = found["dashboard"], found["meta"]
    changes = differences(kept, ours)
    if meta.get("folderUid") != alerting.FOLDER_UID:
        changes.append("its folder")
    if not changes:
        return Step("dashboard", ours["title"], Outcome.UNCHANGED)
    if meta.get("provisioned"):
        raise Refused(f"{remote.url}: the dashboard '{ours['title']}' is provisioned from a file of that Grafana; change it there")
    over = {**ours, **{key: kept[key] for key in GRAFANAS if key in kept}}
    return _done("dashboard", ours["title"], Outcome.UPDATED, dry, lambda: save(over), "; ".join(changes))


def differences(kept: Json, ours: Json) -> list[str]:
    """What of a dashboard is not as we want it, in words: its panels by title, and its other parts."""
    theirs = {panel.get("id"): panel for panel in kept.get("panels", ())}
    wanted = {panel["id"]: panel for panel in ours["panels"]}
    said = [f"panel '{panel['title']}'" for number, panel in wanted.items() if theirs.get(number) != panel]
    said += [f"panel '{panel.get('title', number)}' that is not ours" for number, panel in theirs.items() if number not in wanted]
    keys = sorted((set(kept) | set(ours)) - {"panels", *GRAFANAS})
    return said + [key for key in keys if kept.get(key) != ours.get(key)]


def _left_over(remote: Remote, wish: Wish) -> Iterator[Step]:
    """Dashboards that bear our tag and are made no more; they are left to a person."""
    ours = {dashboard.uid for dashboard in wish.dashboards}
    for found in remote.tagged(TAG):
        if found.get("folderUid") == alerting.FOLDER_UID and found["uid"] not in ours:
            yield Step("dashboard", found["title"], Outcome.NOTED, "is made no more; delete it if nobody needs it")


# -- alerting --------------------------------------------------------------------------------------


def _rule_group(remote: Remote, ours: Json, dry: bool) -> Step:
    """The whole group is ours. Without X-Disable-Provenance Grafana shows its rules as provisioned, and lets nobody change them by hand."""
    kept = remote.rule_group(alerting.FOLDER_UID, ours["title"])
    save = lambda: remote.save_rule_group(alerting.FOLDER_UID, ours)  # noqa: E731
    if kept is None:
        return _done("alert rules", ours["title"], Outcome.CREATED, dry, save)
    theirs = {rule["uid"]: rule for rule in kept["rules"]}
    changes = [f"rule '{rule['title']}'" for rule in ours["rules"] if not _holds(theirs.get(rule["uid"]), rule)]
    wanted = {rule["uid"] for rule in ours["rules"]}
    changes += [f"rule '{rule['title']}' that is not ours" for uid, rule in theirs.items() if uid not in wanted]
    if kept["interval"] != ours["interval"]:
        changes.append("its interval")
    if not changes:
        return Step("alert rules", ours["title"], Outcome.UNCHANGED)
    return _done("alert rules", ours["title"], Outcome.UPDATED, dry, save, "; ".join(changes))


def _routing(remote: Remote, wish: Wish, dry: bool) -> Iterator[Step]:
    """Contact points by their variables' values, and the organisation's whole policy."""
    values = {alerting.WEBHOOK_VARIABLE: wish.webhook, alerting.EMAIL_VARIABLE: wish.email}
    kept = {point["uid"]: point for point in remote.contact_points()}
    for receiver in alerting.receivers():
        (variable,) = re.findall(r"\$\{(\w+)\}", json.dumps(receiver))
        if not values[variable]:
            continue
        settings = {key: _with_value(text, variable, values[variable]) for key, text in receiver["settings"].items()}
        ours = {"disableResolveMessage": False, "name": alerting.RECEIVER, **receiver, "settings": settings}
        there = kept.get(ours["uid"])
        if there is not None and _holds(there, ours):
            yield Step("contact point", ours["uid"], Outcome.UNCHANGED)
        else:
            outcome = Outcome.CREATED if there is None else Outcome.UPDATED
            yield _done("contact point", ours["uid"], outcome, dry, lambda o=ours, t=there: remote.save_contact_point(o, t is not None))
    if _holds(remote.policy(), alerting.policy()):
        yield Step("notification policy", "the organisation's", Outcome.UNCHANGED)
    else:
        yield _done("notification policy", "the organisation's", Outcome.UPDATED, dry, lambda: remote.save_policy(alerting.policy()))


def _with_value(text: Any, variable: str, value: str | None) -> Any:
    """A setting with the variable's value alone, where a file has what lets it be empty."""
    return value if isinstance(text, str) and f"${{{variable}}}" in text else text


# -- whether it shows ------------------------------------------------------------------------------


def _seen(remote: Remote, wish: Wish, now_ms: int) -> Iterator[Step]:
    """What Grafana answers when it asks as a person's browser would."""
    fit, said = remote.datasource_health(wish.datasource_uid)
    yield Step("data source health", wish.datasource_uid, Outcome.OK if fit else Outcome.FAILED, said)
    for dashboard in wish.dashboards:
        view = View(now_ms - dashboard.shown_s * 1000, now_ms, STEP_MS)
        for panel in compiled(dashboard, wish.dashboards, wish.datasource_uid)["panels"]:
            if panel.get("targets"):
                yield _panel(remote, dashboard.title, panel, view)


def _panel(remote: Remote, title: str, panel: Json, view: View) -> Step:
    name = f"{title}, '{panel['title']}'"
    asked = [{**target, "query": filled(target["query"], view), "intervalMs": view.step_ms, "maxDataPoints": 1_000} for target in panel["targets"]]
    results = remote.run(asked, view.from_ms, view.to_ms)
    errors = [f"{ref}: {result['error']}" for ref, result in sorted(results.items()) if result.get("error")]
    errors += [f"{target['refId']}: no answer" for target in asked if target["refId"] not in results]
    if errors:
        return Step("panel", name, Outcome.FAILED, "; ".join(errors))
    empty = not any(_rows(frame) for result in results.values() for frame in result.get("frames") or ())
    return Step("panel", name, Outcome.EMPTY if empty else Outcome.OK)


def _rows(frame: Json) -> int:
    return max((len(column) for column in frame.get("data", {}).get("values", ())), default=0)
