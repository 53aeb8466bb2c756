"""Dashboards as Grafana reads them: the JSON of its dashboard model, the same for the same definition.

The Foundation SDK has no query of the InfluxDB data source, so that is written here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.fields import defaults, overrides
from dashboards.fitting import misfits_of
from dashboards.looks import COLOUR, TIME_COLUMN, by_group, column_of, columns_of, only, over_time, time_columns, value_columns
from dashboards.panel import TAG_TITLES, Dashboard, Kind, Level, Panel, Section, places
from dashboards.query import DAY_MS, FILTERS, LONG, Query, Rows, influxql
from dashboards.sdk import Dataquery, JSONEncoder, bargauge, common, model, register_default_plugins, series, stat, statetimeline, table

DATASOURCE_TYPE = "influxdb"
DATASOURCE_UID = "microcurrent"
TAG = "microcurrent"
"""All our dashboards bear it."""

SDK_MODELS = "grafana_foundation_sdk.models"
LIMIT_BACK_MS = 30 * DAY_MS
VARIABLE_QUERY = "InfluxVariableQueryEditor-VariableQuery"
"""The refId that Grafana's own editor of InfluxDB variables writes."""

EVERYTHING = "$__all"
LEAST_MS = 1_000
"""Readings come once a second: narrower buckets would be empty."""

MOST_TILES = 500
MOST_BARS = 50

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InfluxQuery(Dataquery):
    """A query in text for the InfluxDB data source; `more` is what only annotations have."""

    text: str
    datasource_uid: str
    ref_id: str = "A"
    result_format: str = "table"
    alias: str = ""
    more: tuple[tuple[str, Any], ...] = ()

    def to_json(self) -> dict[str, object]:
        written: dict[str, object] = {
            "datasource": {"type": DATASOURCE_TYPE, "uid": self.datasource_uid},
            "query": self.text,
            "rawQuery": True,
            "refId": self.ref_id,
            "resultFormat": self.result_format,
            **dict(self.more),
        }
        return {**written, "alias": self.alias} if self.alias else written


def compiled(dashboard: Dashboard, others: Sequence[Dashboard] = (), datasource_uid: str = DATASOURCE_UID) -> Json:
    """The dashboard as JSON values. `others` are those it links to."""
    return _plain(_dashboard(dashboard, others, datasource_uid))


def text(content: Json) -> str:
    """As it is written to a file: a change of the definition is a change of a few lines."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def reread(content: Json) -> Json:
    """What the Foundation SDK understands of it; what it does not know is gone."""
    register_default_plugins()
    return _plain(model.Dashboard.from_json(json.loads(json.dumps(content))))


def panel_ids(dashboard: Dashboard) -> dict[str, int]:
    """Panel numbers by title: their places in reading order, headings included."""
    return {place[0].title: number for number, place in enumerate(places(dashboard), 1) if isinstance(place[0], Panel)}


def misfits(dashboard: Dashboard, others: Sequence[Dashboard]) -> Iterator[tuple[str, str]]:
    """Where a value is not of the type that the SDK declares for it, and what it is."""
    return misfits_of(_dashboard(dashboard, others, DATASOURCE_UID), SDK_MODELS)


def _plain(made: Any) -> Any:
    """JSON values. The SDK puts every link and annotation into a menu of Grafana 12; they belong where they are seen."""
    content = json.loads(json.dumps(made, cls=JSONEncoder))
    for part in (*content["links"], *content["annotations"]["list"]):
        part.pop("placement", None)
    return content


# -- a dashboard -----------------------------------------------------------------------------------


def _dashboard(dashboard: Dashboard, others: Sequence[Dashboard], uid: str) -> model.Dashboard:
    known = {other.uid: other for other in others}
    panels: list[model.Panel | model.RowPanel] = []
    for number, (what, x, y, width, height) in enumerate(places(dashboard), 1):
        grid = model.GridPos(h=height, w=width, x=x, y=y)
        if isinstance(what, Section):
            panels.append(model.RowPanel(title=what.title, grid_pos=grid, id_val=number, panels=[]))
        else:
            panels.append(_panel(what, number, grid, known, uid))
    return model.Dashboard(
        uid=dashboard.uid,
        title=dashboard.title,
        description=dashboard.description,
        tags=[TAG],
        timezone="browser",
        editable=True,
        graph_tooltip=model.DashboardCursorSync.CROSSHAIR,
        time=model.DashboardDashboardTime(from_val=f"now-{_span(dashboard.shown_s)}", to="now"),
        timepicker=model.TimePickerConfig(),
        refresh=f"{dashboard.refresh_s}s",
        panels=panels,
        templating=model.DashboardDashboardTemplating(list_val=list(_variables(dashboard, uid))),
        annotations=model.AnnotationContainer(list_val=list(_annotations(dashboard, uid))),
        links=[_dashboard_link(dashboard, other) for other in others if other.uid != dashboard.uid],
    )


def _span(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % unit == 0:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def _dashboard_link(here: Dashboard, other: Dashboard) -> model.DashboardLink:
    """Time goes along, and what is chosen; but a dashboard of one device cannot take up 'all' of them."""
    return model.DashboardLink(
        title=other.title,
        type_val=model.DashboardLinkType.LINK,
        icon="dashboard",
        tooltip=other.description,
        url=f"/d/{other.uid}",
        tags=[],
        include_vars=other.single is None or here.single is not None,
        keep_time=True,
    )


def _variables(dashboard: Dashboard, uid: str) -> Iterator[model.VariableModel]:
    chosen: list[str] = []
    for name in dict.fromkeys((*dashboard.variables, *((dashboard.single,) if dashboard.single else ()))):
        yield _choice(name, chosen, name == dashboard.single, uid)
        chosen.append(name)
    for field in dashboard.limits:
        yield _hidden_limit(field, chosen, uid)


def _narrowed(tags: Sequence[str]) -> str:
    return " AND ".join(f'"{tag}" =~ /^${{{tag}:regex}}$/' for tag in tags)


def _choice(tag: str, before: Sequence[str], single: bool, uid: str) -> model.VariableModel:
    """A tag to choose by, among the values that what is chosen before it leaves."""
    asked = f'SHOW TAG VALUES FROM "device" WITH KEY = "{tag}"' + (f" WHERE {_narrowed(before)}" if before else "")
    variable = _query_variable(tag, asked, uid)
    variable.label = TAG_TITLES[tag]
    variable.sort = model.VariableSort.NATURAL_ASC
    if not single:
        variable.multi = True
        variable.include_all = True
        variable.all_value = ".*"
        variable.current = model.VariableOption(selected=True, text=["All"], value=[EVERYTHING])
    return variable


def _hidden_limit(field: str, chosen: Sequence[str], uid: str) -> model.VariableModel:
    """A limit of the chosen device, for panels to draw; without one it is empty."""
    span = f"time > ${{__to}}ms - {LIMIT_BACK_MS}ms AND time <= ${{__to}}ms"
    asked = f'SELECT last("{field}") FROM "device" WHERE ' + " AND ".join(filter(None, (span, _narrowed(chosen))))
    variable = _query_variable(field, asked, uid)
    variable.hide = model.VariableHide.HIDE_VARIABLE
    variable.skip_url_sync = True
    return variable


def _query_variable(name: str, asked: str, uid: str) -> model.VariableModel:
    return model.VariableModel(
        type_val=model.VariableType.QUERY,
        name=name,
        query={"query": asked, "refId": VARIABLE_QUERY},
        definition=asked,
        datasource=_datasource(uid),
        refresh=model.VariableRefresh.ON_TIME_RANGE_CHANGED,
        options=[],
        regex="",
    )


def _datasource(uid: str) -> common.DataSourceRef:
    return common.DataSourceRef(type_val=DATASOURCE_TYPE, uid=uid)


def _annotations(dashboard: Dashboard, uid: str) -> Iterator[model.AnnotationQuery]:
    """Alerts over all panels, from onset to their last change.

    Grafana leaves out rows that lack a value, so what an open alert has not yet cannot be asked for; and it
    knows an annotation's columns by measurement and title.
    """
    if not dashboard.annotated:
        return
    tags = [tag for tag in FILTERS if tag in (*dashboard.variables, dashboard.single)]
    for severity, level in (("critical", Level.CRITICAL), ("warning", Level.WARNING)):
        where = " AND ".join(filter(None, ("$timeFilter", _narrowed(tags), f"\"severity\" = '{severity}' AND \"state\" != 'withdrawn'")))
        asked = (
            'SELECT "rule" AS "title", "detail" AS "text", "severity" AS "tags", "updated_ms" AS "timeEnd" '
            f'FROM "{LONG}"."alert" WHERE {where} LIMIT 1000'
        )
        columns = {f"{part}Column": f"alert.{part}" for part in ("title", "text", "tags", "timeEnd")}
        more = {"fromAnnotations": True, "queryType": "tags", "textEditor": True, **columns}
        yield model.AnnotationQuery(
            name=f"{severity} alerts",
            datasource=_datasource(uid),
            enable=True,
            icon_color=COLOUR[level],
            target=InfluxQuery(asked, uid, "Anno", more=tuple(more.items())),
        )


# -- a panel ---------------------------------------------------------------------------------------

_PLUGIN = {
    Kind.SERIES: "timeseries",
    Kind.STAT: "stat",
    Kind.TABLE: "table",
    Kind.BARS: "bargauge",
    Kind.STATES: "state-timeline",
    Kind.TILES: "stat",
}


def _panel(panel: Panel, number: int, grid: model.GridPos, known: Mapping[str, Dashboard], uid: str) -> model.Panel:
    return model.Panel(
        type_val=_PLUGIN[panel.kind],
        id_val=number,
        title=panel.title,
        description=panel.description,
        datasource=_datasource(uid),
        grid_pos=grid,
        targets=[_target(panel, query, place, uid) for place, query in enumerate(panel.queries)],
        transformations=list(_transformations(panel)) if not over_time(panel) else None,
        interval=f"{max(panel.least_ms, LEAST_MS)}ms" if over_time(panel) else None,
        options=_options(panel),
        field_config=model.FieldConfigSource(defaults=defaults(panel), overrides=list(overrides(panel, known))),
    )


def _target(panel: Panel, query: Query | Rows, place: int, uid: str) -> InfluxQuery:
    ref = chr(ord("A") + place)
    if not over_time(panel):
        return InfluxQuery(influxql(query), uid, ref)
    assert isinstance(query, Query)
    names = [f"$tag_{tag}" for tag in query.by]
    if not names or len(panel.queries) > 1:
        names.append("$col")
    return InfluxQuery(influxql(query), uid, ref, "time_series", " ".join(names))


def _transformations(panel: Panel) -> Iterator[model.DataTransformerConfig]:
    """Grafana's tables come with their tags in any order, and with a time that means nothing for aggregates, or is told already."""
    timed = all(isinstance(query, Rows) for query in panel.queries) and not any(time_columns(panel, query) for query in panel.queries)
    if not timed:
        dropped = {"exclude": {"pattern": f"^{TIME_COLUMN}$"}}
        yield model.DataTransformerConfig(id_val="filterFieldsByName", options=dropped)
    if len(panel.queries) > 1 and by_group(panel):
        yield model.DataTransformerConfig(id_val="merge", options={})
    columns = list(dict.fromkeys(column for query in panel.queries for column in columns_of(query)))
    if timed:
        columns.insert(0, TIME_COLUMN)
    places = {column: place for place, column in enumerate(columns)}
    yield model.DataTransformerConfig(id_val="organize", options={"excludeByName": {}, "indexByName": places, "renameByName": {}})
    if panel.sort is not None:
        column = next(filter(None, (column_of(query, panel.sort) for query in panel.queries)), panel.sort)
        yield model.DataTransformerConfig(id_val="sortBy", options={"fields": {}, "sort": [{"desc": True, "field": column}]})
    if panel.limit is not None:
        yield model.DataTransformerConfig(id_val="limit", options={"limitField": panel.limit})


def _options(panel: Panel) -> object:
    if panel.kind is Kind.SERIES:
        return series.Options(
            legend=_legend(panel), tooltip=common.VizTooltipOptions(mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING)
        )
    if panel.kind is Kind.STATES:
        return statetimeline.Options(
            show_value=common.VisibilityMode.AUTO, row_height=0.9, merge_values=True, align_value=common.TimelineValueAlignment.LEFT,
            legend=_legend(panel), tooltip=common.VizTooltipOptions(mode=common.TooltipDisplayMode.SINGLE),
        )  # fmt: skip
    if panel.kind is Kind.TABLE:
        return table.Options(show_header=True, cell_height=common.TableCellHeight.SM, footer=None)
    if panel.kind is Kind.BARS:
        return bargauge.Options(
            display_mode=common.BarGaugeDisplayMode.BASIC, value_mode=common.BarGaugeValueMode.TEXT, orientation=common.VizOrientation.HORIZONTAL,
            name_placement=common.BarGaugeNamePlacement.LEFT, show_unfilled=True, reduce_options=_reduced(panel),
        )  # fmt: skip
    tiles = panel.kind is Kind.TILES
    return stat.Options(
        graph_mode=common.BigValueGraphMode.NONE,
        color_mode=common.BigValueColorMode.BACKGROUND_SOLID if tiles else common.BigValueColorMode.VALUE,
        text_mode=common.BigValueTextMode.VALUE_AND_NAME if by_group(panel) or len(value_columns(panel)) > 1 else common.BigValueTextMode.AUTO,
        justify_mode=common.BigValueJustifyMode.AUTO,
        orientation=common.VizOrientation.AUTO,
        reduce_options=_reduced(panel),
        wide_layout=True,
    )


def _reduced(panel: Panel) -> common.ReduceDataOptions:
    """One figure for each column of the one row; or, for groups, for each row."""
    groups = by_group(panel)
    most = panel.limit or (MOST_TILES if panel.kind is Kind.TILES else MOST_BARS)
    return common.ReduceDataOptions(
        values=groups, limit=most if groups else None, calcs=["lastNotNull"], fields=only(value_columns(panel))
    )


def _legend(panel: Panel) -> common.VizLegendOptions:
    one = panel.kind is Kind.SERIES and len(panel.queries) == 1 and isinstance(panel.queries[0], Query)
    alone = one and not panel.queries[0].by and len(panel.queries[0].columns) == 1
    return common.VizLegendOptions(
        display_mode=common.LegendDisplayMode.LIST, placement=common.LegendPlacement.BOTTOM, show_legend=not alone, calcs=[]
    )
