"""What can be known of the files for Grafana without a Grafana: are they ours, whole, and of names that exist."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dashboards import alerting
from dashboards.build import files, strangers
from dashboards.grafana import DATASOURCE_TYPE, DATASOURCE_UID, compiled, misfits, reread
from dashboards.panel import Dashboard, Kind, Panel, Unit
from dashboards.query import FILTERS, View, filled
from schemas.measurements import DRAWN_LIMITS, MEASUREMENTS

Json = dict[str, Any]

HOUR_MS = 3_600_000
GRAFANAS_OWN = "__"
"""Variables of this beginning are Grafana's."""

WIDTH = 24


class Problem(NamedTuple):
    """Where, in words a person finds it by, and what is wrong there."""

    where: str
    what: str


class Question(NamedTuple):
    """One InfluxQL text with Grafana's macros, and where it is asked."""

    where: str
    text: str


# -- the files -------------------------------------------------------------------------------------


def files_problems(directory: Path, runbooks: str | None = None) -> Iterator[Problem]:
    """What differs between the files of a directory and what the definitions make."""
    made = files(runbooks=runbooks)
    for name, content in sorted(made.items()):
        try:
            kept = (directory / name).read_text("utf-8")
        except (OSError, ValueError) as error:
            yield Problem(name, f"cannot be read ({error.strerror if isinstance(error, OSError) else 'it is not text'}); build it")
            continue
        if kept != content:
            yield Problem(name, f"line {_first_difference(kept, content)} is not what the definitions make; build it again")
    for path in strangers(directory, made):
        yield Problem(path.relative_to(directory).as_posix(), "is not made from any definition, and Grafana would read it")


def _first_difference(kept: str, made: str) -> int:
    pairs = zip(kept.splitlines(), made.splitlines(), strict=False)
    return next((number for number, (a, b) in enumerate(pairs, 1) if a != b), min(kept.count("\n"), made.count("\n")) + 1)


# -- the dashboards --------------------------------------------------------------------------------


def dashboards_problems(dashboards: Sequence[Dashboard]) -> Iterator[Problem]:
    uids = {dashboard.uid for dashboard in dashboards}
    for uid, times in Counter(dashboard.uid for dashboard in dashboards).items():
        if times > 1:
            yield Problem(uid, f"{times} dashboards have this uid")
    for dashboard in dashboards:
        content = compiled(dashboard, dashboards)
        if reread(content) != content:
            yield Problem(dashboard.uid, "has keys that Grafana's model of a dashboard does not")
        for path, what in misfits(dashboard, dashboards):
            yield Problem(f"{dashboard.uid}, {path}", what)
        for where, what in content_problems(content, uids):
            yield Problem(f"{dashboard.uid}{where}", what)
        for panel in dashboard.panels():
            yield from _panel_problems(f"{dashboard.uid}, '{panel.title}'", panel)


def content_problems(content: Json, uids: set[str]) -> Iterator[Problem]:
    """Of a dashboard in Grafana's JSON: numbers, places, sources, variables, links and names that do not fit."""
    panels = content["panels"]
    for key in ("id", "title"):
        for value, times in Counter(panel[key] for panel in panels).items():
            if times > 1:
                yield Problem("", f"{times} panels have the {key} {value}")
    yield from _overlaps(panels)
    defined = {variable["name"] for variable in content["templating"]["list"]}
    for where, part in (*((f", '{panel['title']}'", panel) for panel in panels), *_other_parts(content)):
        for text in _texts(part):
            for name in re.findall(r"\$\{(\w+)", text):
                if name not in defined and not name.startswith(GRAFANAS_OWN):
                    yield Problem(where, f"uses the variable {name}, which is not defined")
            for uid in re.findall(r"/d/([\w-]+)", text):
                if uid not in uids:
                    yield Problem(where, f"links to the dashboard {uid}, which does not exist")
        for source in _sources(part):
            if source != {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID}:
                yield Problem(where, f"asks the data source {source}, not {DATASOURCE_UID}")
    for question in questions_of(content):
        for what in unknown_names(question.text):
            yield Problem(f", {question.where}", what)


def _other_parts(content: Json) -> list[tuple[str, Any]]:
    return [(", variables", content["templating"]), (", annotations", content["annotations"]), (", links", content["links"])]


def _overlaps(panels: Sequence[Json]) -> Iterator[Problem]:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        grid = panel["gridPos"]
        if grid["x"] < 0 or grid["x"] + grid["w"] > WIDTH:
            yield Problem(f", '{panel['title']}'", f"is outside of the {WIDTH} columns")
        cells = [(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])]
        for other in sorted({taken[cell] for cell in cells if cell in taken}):
            yield Problem(f", '{panel['title']}'", f"lies over '{other}'")
        taken.update(dict.fromkeys(cells, panel["title"]))


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value)


def _sources(part: Any) -> Iterator[Json]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "datasource":
                yield value
            else:
                yield from _sources(value)
    elif isinstance(part, list):
        for value in part:
            yield from _sources(value)


def _panel_problems(where: str, panel: Panel) -> Iterator[Problem]:
    if not panel.description.strip():
        yield Problem(where, "has no description")
    units = {panel.unit, *(look.unit for look in panel.looks.values())} - {None, Unit.NONE}
    if not units and not panel.meanings and not any(look.meanings for look in panel.looks.values()) and panel.kind is not Kind.TABLE:
        yield Problem(where, "has neither a unit nor meanings for its values, and is no table")


# -- alert rules -----------------------------------------------------------------------------------


def rules_problems(dashboards: Sequence[Dashboard]) -> Iterator[Problem]:
    """Of the alert rules: names that are not there, questions that the store cannot know, variables in texts."""
    for uid, times in Counter(rule.uid for rule in alerting.RULES).items():
        if times > 1:
            yield Problem(uid, f"{times} alert rules have this uid")
    for rule in alerting.RULES:
        shown = next((d for d in dashboards if d.uid == rule.shown[0]), None)
        if shown is None or rule.shown[1] not in {panel.title for panel in shown.panels()}:
            yield Problem(rule.uid, f"leads to {rule.shown[0]}, '{rule.shown[1]}', which does not exist")
        for name in re.findall(r"\$(\w+)", rule.fires):
            if name not in rule.asked:
                yield Problem(rule.uid, f"its condition speaks of {name}, which is not asked")
        for text in (rule.summary, rule.meaning, rule.look, rule.act):
            if "$" in text:
                yield Problem(rule.uid, "a '$' in its text: Grafana looks for a variable of its environment there")
        for text in rule.asked.values():
            if re.findall(r"\$(?!timeFilter\b)", text):
                yield Problem(rule.uid, "its question has a variable: alert rules have none but $timeFilter")
            for what in unknown_names(text):
                yield Problem(rule.uid, what)


# -- questions -------------------------------------------------------------------------------------


def questions(dashboards: Sequence[Dashboard]) -> list[Question]:
    """Every text that is asked of the store: panels, variables, annotations and alert rules."""
    found = [
        Question(f"{dashboard.uid}, {question.where}", question.text)
        for dashboard in dashboards
        for question in questions_of(compiled(dashboard, dashboards))
    ]
    return found + [Question(rule.uid, text) for rule in alerting.RULES for text in rule.asked.values()]


def questions_of(content: Json) -> list[Question]:
    """Those of one dashboard in Grafana's JSON."""
    found = [Question(f"'{panel['title']}'", target["query"]) for panel in content["panels"] for target in panel.get("targets", ())]
    found += [Question(f"the variable {v['name']}", v["query"]["query"]) for v in content["templating"]["list"]]
    return found + [Question(f"the annotation '{a['name']}'", a["target"]["query"]) for a in content["annotations"]["list"]]


def unknown_names(text: str) -> list[str]:
    """What a question asks of a measurement that has no such field or tag."""
    sources = [name for name in re.findall(r'FROM (?:"\w+"\.)?"(\w+)"', text)]
    strange = [f"asks the measurement {name}, which does not exist" for name in sources if name not in MEASUREMENTS]
    known = {name for source in sources if source in MEASUREMENTS for name in (*MEASUREMENTS[source].fields, *MEASUREMENTS[source].tags)}
    titles = set(re.findall(r'AS "([^"]+)"', text))
    policies = set(re.findall(r'FROM "(\w+)"\."', text))
    for name in dict.fromkeys(re.findall(r'"([^"]+)"', text)):
        if name not in known | titles | policies | set(sources):
            strange.append(f"asks for {name}, which {' and '.join(dict.fromkeys(sources))} does not have")
    return strange


def views(now_ms: int) -> list[View]:
    """What people look at: everything, and one device with all its limits."""
    everything = View(now_ms - 6 * HOUR_MS, now_ms, 60_000)
    one = {"model": ["no.such-model"], "fw": ["1.0.0"], "device_id": ["no-such-device"]}
    assert set(one) == set(FILTERS)
    return [everything, everything._replace(chosen=one, limits=dict.fromkeys(DRAWN_LIMITS, 1.5))]


def answers_problems(dashboards: Sequence[Dashboard], ask: Callable[[str], str | None], now_ms: int) -> Iterator[Problem]:
    """Ask every question of a store; `ask` returns what the store has against one, if anything."""
    for question in questions(dashboards):
        for view in views(now_ms):
            wrong = ask(filled(question.text, view))
            if wrong is not None:
                yield Problem(question.where, f"the store refuses its question: {wrong}")
                break
