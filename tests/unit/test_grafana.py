"""What Grafana is given for a panel: the pieces of its JSON that decide what a person sees."""

from typing import Any

import pytest

from dashboards.catalogue import DASHBOARDS
from dashboards.grafana import compiled, misfits, panel_ids, reread, text
from dashboards.looks import COLOUR, UNIT_ID
from dashboards.panel import Dashboard, Kind, Level, Link, Look, Meaning, Panel, Section, Threshold, Unit
from dashboards.query import Query, Rows, Step, highest, last, total

TARGET = Dashboard("there", "There", "one device", (), variables=("device_id",), single="device_id")


def panel_of(panel: Panel, *others: Dashboard) -> dict[str, Any]:
    here = Dashboard("here", "Here", "all", (Section("Part", (panel,)),), variables=("model", "fw", "device_id"))
    return compiled(here, (here, *others))["panels"][1]


def override(panel: dict[str, Any], column: str) -> dict[str, Any]:
    (found,) = [o for o in panel["fieldConfig"]["overrides"] if o["matcher"] == {"id": "byName", "options": column}]
    return {p["id"]: p["value"] for p in found["properties"]}


def lines(**more: Any) -> Panel:
    query = Query({"peak": highest("i_peak_ua"), "set": highest("i_set_ua")}, "current", step=Step.AUTO)
    return Panel("Current", Kind.SERIES, (query,), "what flows", Unit.MICROAMPERE, **more)


def devices(kind: Kind, **more: Any) -> Panel:
    return Panel("Devices", kind, (Query({"state": last("rank")}, "device", by=("device_id", "model")),), "all of them", **more)


def test_the_same_definition_gives_the_same_bytes_and_ids_are_places() -> None:
    for dashboard in DASHBOARDS:
        assert text(compiled(dashboard, DASHBOARDS)) == text(compiled(dashboard, DASHBOARDS))
        content = compiled(dashboard, DASHBOARDS)
        assert [panel["id"] for panel in content["panels"]] == list(range(1, len(content["panels"]) + 1))
        assert {p["title"]: p["id"] for p in content["panels"] if p["type"] != "row"} == panel_ids(dashboard)
        assert {"id", "version", "iteration"} & set(content) == set()


def test_the_sdk_understands_all_of_it_and_every_value_is_of_its_type() -> None:
    for dashboard in DASHBOARDS:
        assert reread(compiled(dashboard, DASHBOARDS)) == compiled(dashboard, DASHBOARDS)
        assert list(misfits(dashboard, DASHBOARDS)) == []


def test_a_misspelt_key_is_lost_on_the_way_through_the_sdk() -> None:
    content = compiled(DASHBOARDS[0], DASHBOARDS)
    content["panels"][1]["titel"] = "x"
    assert reread(content) != content


def test_every_level_has_its_own_colour_and_every_unit_an_id() -> None:
    assert (set(COLOUR), set(UNIT_ID)) == (set(Level), set(Unit))
    assert len(set(COLOUR.values())) == len(Level)


def test_lines_are_named_by_column_or_by_tag() -> None:
    assert panel_of(lines())["targets"][0]["alias"] == "$col"
    by_device = Query({"peak": highest("i_peak_ua")}, "current", by=("device_id", "fw"), step=Step.AUTO)
    (target,) = panel_of(Panel("P", Kind.SERIES, (by_device,), "d"))["targets"]
    assert (target["alias"], target["resultFormat"], target["rawQuery"]) == ("$tag_device_id $tag_fw", "time_series", True)


def test_a_gap_in_the_readings_is_a_gap_in_the_line() -> None:
    made = panel_of(lines(gap_ms=15_000))
    assert made["fieldConfig"]["defaults"]["custom"]["spanNulls"] == 15_000
    assert made["targets"][0]["query"].endswith("fill(null)")
    assert panel_of(lines())["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


def test_lines_can_be_stacked_logarithmic_bounded_dashed_and_on_the_right() -> None:
    look = Look(level=Level.LIMIT, dashed=True, right_axis=True, unit=Unit.OHM)
    made = panel_of(lines(stacked=True, logarithmic=True, lowest=0, highest=9, thresholds=(Threshold(400, Level.CRITICAL),), looks={"set": look}))
    defaults = made["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    assert (defaults["min"], defaults["max"], defaults["unit"]) == (0, 9, "suffix:µA")
    assert (custom["stacking"]["mode"], custom["scaleDistribution"]["type"], custom["thresholdsStyle"]["mode"]) == ("normal", "log", "dashed")
    assert override(made, "set") == {
        "unit": "ohm",
        "color": {"mode": "fixed", "fixedColor": "text"},
        "custom.lineStyle": {"fill": "dash", "dash": [6, 6]},
        "custom.axisPlacement": "right",
    }


def test_nothing_is_green_that_is_not_known_to_be_well() -> None:
    plain = panel_of(Panel("N", Kind.STAT, (Query({"n": total("messages")}, "quarantine", narrowed=()),), "how many", Unit.COUNT))
    assert plain["fieldConfig"]["defaults"]["color"] == {"mode": "fixed", "fixedColor": "text"}
    meant = panel_of(devices(Kind.TILES, meanings={0: Meaning("ok", Level.OK)}))["fieldConfig"]["defaults"]
    assert meant["thresholds"]["steps"] == [{"color": COLOUR[Level.UNKNOWN], "value": None}]
    assert meant["mappings"] == [{"type": "value", "options": {"0": {"text": "ok", "color": COLOUR[Level.OK], "index": 0}}}]


def test_what_is_said_of_nothing_is_the_panels_own_sentence_and_an_empty_cell_is_a_dash() -> None:
    made = panel_of(devices(Kind.TABLE, empty="nobody was heard"))
    assert made["fieldConfig"]["defaults"]["noValue"] == "nobody was heard"
    assert made["fieldConfig"]["overrides"][0] == {
        "matcher": {"id": "byRegexp", "options": "/.*/"}, "properties": [{"id": "noValue", "value": "–"}]
    }  # fmt: skip


def test_a_table_has_its_tags_first_by_title_without_a_meaningless_time_sorted_and_cut() -> None:
    made = panel_of(devices(Kind.TABLE, sort="state", limit=20))
    assert [(t["id"], t["options"]) for t in made["transformations"]] == [
        ("filterFieldsByName", {"exclude": {"pattern": "^Time$"}}),
        ("organize", {"excludeByName": {}, "indexByName": {"device_id": 0, "model": 1, "state": 2}, "renameByName": {}}),
        ("sortBy", {"fields": {}, "sort": [{"desc": True, "field": "state"}]}),
        ("limit", {"limitField": 20}),
    ]
    assert override(made, "device_id") == {"displayName": "Device", "unit": "string"}


def test_single_rows_keep_their_time_unless_a_column_tells_it() -> None:
    plain = Panel("P", Kind.TABLE, (Rows({"What": "detail"}, "alert"),), "d")
    told = Panel("P", Kind.TABLE, (Rows({"Since": "onset_ms"}, "alert"),), "d", looks={"Since": Look(unit=Unit.MILLISECOND_TIME)})
    assert [t["id"] for t in panel_of(plain)["transformations"]] == ["organize"]
    assert [t["id"] for t in panel_of(told)["transformations"]] == ["filterFieldsByName", "organize"]


def test_one_row_gives_a_figure_for_each_column_and_groups_one_for_each_row() -> None:
    bars = panel_of(Panel("B", Kind.BARS, (Query({"a b": total("charge_mc"), "c/d": total("output_s")}, "session"),), "d"))
    assert bars["options"]["reduceOptions"] == {"values": False, "calcs": ["lastNotNull"], "fields": "/^(?:a b|c\\/d)$/"}
    tiles = panel_of(devices(Kind.TILES))
    assert tiles["options"]["reduceOptions"] == {"values": True, "limit": 500, "calcs": ["lastNotNull"], "fields": "/^(?:state)$/"}
    assert (tiles["type"], tiles["options"]["textMode"], tiles["options"]["colorMode"]) == ("stat", "value_and_name", "background_solid")


def test_states_are_lanes_with_their_meanings() -> None:
    query = Query({"contact": last("state")}, "contact", step=Step.AUTO)
    made = panel_of(Panel("S", Kind.STATES, (query,), "d", meanings={"good": Meaning("good", Level.OK)}, gap_ms=5_000))
    assert (made["type"], made["targets"][0]["resultFormat"]) == ("state-timeline", "time_series")
    assert made["fieldConfig"]["defaults"]["custom"]["spanNulls"] == 5_000


def link(panel: dict[str, Any], column: str) -> str:
    ((only),) = override(panel, column)["links"]
    return only["url"]


def test_a_rows_device_leads_to_its_dashboard_about_its_time() -> None:
    about = Look(link=Link("there", "There", around_ms=1_800_000))
    rows = Rows({"Device": "device_id", "Firmware": "fw", "First seen": "onset_ms"}, "alert")
    timed = Panel("P", Kind.TABLE, (rows,), "d", looks={"Device": about, "First seen": Look(unit=Unit.MILLISECOND_TIME)})
    assert link(panel_of(timed, TARGET), "Device") == (
        '/d/there?var-device_id=${__data.fields.Device:percentencode}&time=${__data.fields["First seen"].numeric}&time.window=3600000'
    )
    untimed = Panel("P", Kind.TABLE, (Rows({"Device": "device_id", "What": "detail"}, "alert"),), "d", looks={"Device": about})
    assert "&time=${__data.fields.Time.numeric}&time.window=3600000" in link(panel_of(untimed, TARGET), "Device")


def test_a_tile_leads_where_its_device_would() -> None:
    made = panel_of(devices(Kind.TILES, looks={"Device": Look(link=Link("there", "There"))}), TARGET)
    assert link(made, "state") == "/d/there?var-device_id=${__data.fields.device_id:percentencode}&${__url_time_range}"
    assert "links" not in override(made, "device_id")


def test_variables_narrow_each_other_and_all_is_any() -> None:
    here = Dashboard("here", "Here", "all", (), variables=("model", "device_id"))
    model, device = compiled(here)["templating"]["list"]
    assert (model["query"]["query"], device["query"]["query"]) == (
        'SHOW TAG VALUES FROM "device" WITH KEY = "model"',
        'SHOW TAG VALUES FROM "device" WITH KEY = "device_id" WHERE "model" =~ /^${model:regex}$/',
    )
    assert (device["multi"], device["includeAll"], device["allValue"], device["current"]["value"]) == (True, True, ".*", ["$__all"])


def test_a_single_choice_has_no_all_and_its_limits_are_hidden_variables() -> None:
    device, limit = compiled(Dashboard("d", "D", "d", (), ("device_id",), "device_id", limits=("peak_limit_ua",)))["templating"]["list"]
    assert (device["multi"], device["includeAll"], limit["name"], limit["hide"]) == (False, False, "peak_limit_ua", 2)
    assert limit["query"]["query"].startswith('SELECT last("peak_limit_ua") FROM "device" WHERE time > ${__to}ms - ')
    assert limit["query"]["query"].endswith('"device_id" =~ /^${device_id:regex}$/')


def test_time_and_choice_go_along_but_all_devices_do_not_go_to_one() -> None:
    many = Dashboard("many", "Many", "all", (), ("device_id",))
    assert [(k["url"], k["keepTime"], k["includeVars"]) for k in compiled(many, (many, TARGET))["links"]] == [("/d/there", True, False)]
    assert [(k["url"], k["includeVars"]) for k in compiled(TARGET, (many, TARGET))["links"]] == [("/d/many", True)]


def test_alerts_are_drawn_in_with_columns_that_every_alert_has() -> None:
    found = compiled(Dashboard("d", "D", "d", (), ("device_id",), "device_id", annotated=True))["annotations"]["list"]
    assert [(a["name"], a["iconColor"]) for a in found] == [
        ("critical alerts", COLOUR[Level.CRITICAL]), ("warning alerts", COLOUR[Level.WARNING])
    ]  # fmt: skip
    target = found[0]["target"]
    assert {key: target[key] for key in ("titleColumn", "textColumn", "tagsColumn", "timeEndColumn", "fromAnnotations")} == {
        "titleColumn": "alert.title", "textColumn": "alert.text", "tagsColumn": "alert.tags", "timeEndColumn": "alert.timeEnd", "fromAnnotations": True
    }  # fmt: skip


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)
def test_every_panel_asks_the_one_data_source_and_is_described(dashboard: Dashboard) -> None:
    for panel in compiled(dashboard, DASHBOARDS, "another")["panels"]:
        if panel["type"] != "row":
            assert {t["datasource"]["uid"] for t in panel["targets"]} | {panel["datasource"]["uid"]} == {"another"}
            assert panel["description"]
