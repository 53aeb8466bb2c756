"""How values look in Grafana: units, colours, thresholds and meanings of a panel, and what of its columns differs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dashboards.looks import (
    COLOUR,
    NOTHING_KNOWN,
    TIME_COLUMN,
    UNIT_ID,
    column_of,
    grouped,
    over_time,
    steps,
    tag_columns,
    time_columns,
    value_columns,
)  # fmt: skip
from dashboards.panel import TAG_TITLES, Dashboard, Kind, Level, Link, Look, Meaning, Panel
from dashboards.query import Query, Rows, Value
from dashboards.sdk import common, model, series, statetimeline


def defaults(panel: Panel) -> model.FieldConfig:
    return model.FieldConfig(
        unit=UNIT_ID[panel.unit],
        decimals=panel.decimals,
        min_val=panel.lowest,
        max_val=panel.highest,
        color=_colour(panel),
        mappings=_mappings(panel.meanings),
        thresholds=_thresholds(steps(panel.thresholds, _base(panel))),
        no_value=panel.empty,
        custom=_custom(panel),
    )


def _base(panel: Panel) -> Level | None:
    """What the panel says of values that no threshold or meaning names."""
    if panel.thresholds:
        return panel.base
    return Level.UNKNOWN if panel.meanings else None


def _thresholds(found: Sequence[tuple[float | None, str]]) -> model.ThresholdsConfig:
    return model.ThresholdsConfig(
        mode=model.ThresholdsMode.ABSOLUTE, steps=[model.Threshold(value=value, color=colour) for value, colour in found]
    )


def _colour(panel: Panel) -> model.FieldColor:
    if panel.kind is Kind.SERIES:
        return model.FieldColor(mode=model.FieldColorModeId.PALETTE_CLASSIC)
    if panel.thresholds or panel.meanings or panel.kind in (Kind.TABLE, Kind.STATES):
        return model.FieldColor(mode=model.FieldColorModeId.THRESHOLDS)
    return _fixed(COLOUR[Level.INFO] if panel.kind is Kind.BARS else NOTHING_KNOWN)


def _fixed(colour: str) -> model.FieldColor:
    return model.FieldColor(mode=model.FieldColorModeId.FIXED, fixed_color=colour)


def _mappings(meanings: Mapping[str | int, Meaning]) -> list[model.ValueMap]:
    if not meanings:
        return []
    told = {
        _key(value): model.ValueMappingResult(text=meaning.text, color=COLOUR[meaning.level], index=place)
        for place, (value, meaning) in enumerate(meanings.items())
    }
    return [model.ValueMap(options=told)]


def _key(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _custom(panel: Panel) -> object:
    if panel.kind is Kind.TABLE:
        return common.TableFieldOptions(
            align=common.FieldTextAlignment.AUTO, cell_options=_cell(bool(panel.thresholds), bool(panel.meanings)), filterable=True
        )
    span = panel.gap_ms if panel.gap_ms is not None else False
    if panel.kind is Kind.STATES:
        return statetimeline.FieldConfig(line_width=0, fill_opacity=80, span_nulls=span)
    if panel.kind is not Kind.SERIES:
        return None
    return series.FieldConfig(
        draw_style=common.GraphDrawStyle.BARS if panel.counted else common.GraphDrawStyle.LINE,
        line_interpolation=common.LineInterpolation.LINEAR,
        line_width=1,
        fill_opacity=70 if panel.counted else 30 if panel.stacked else 0,
        show_points=common.VisibilityMode.AUTO,
        point_size=4,
        span_nulls=span,
        axis_placement=common.AxisPlacement.AUTO,
        scale_distribution=common.ScaleDistributionConfig(type_val=common.ScaleDistribution.LOG, log=10)
        if panel.logarithmic
        else common.ScaleDistributionConfig(type_val=common.ScaleDistribution.LINEAR),
        stacking=common.StackingConfig(mode=common.StackingMode.NORMAL if panel.stacked else common.StackingMode.NONE, group="A"),
        thresholds_style=common.GraphThresholdsStyleConfig(
            mode=common.GraphThresholdsStyleMode.DASHED if panel.thresholds else common.GraphThresholdsStyleMode.OFF
        ),
    )


def _cell(thresholds: bool, meanings: bool) -> common.TableCellOptions:
    if meanings:
        return common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC)
    return common.TableColorTextCellOptions() if thresholds else common.TableAutoCellOptions()


def overrides(panel: Panel, known: Mapping[str, Dashboard]) -> Iterator[model.DashboardFieldConfigSourceOverrides]:
    """One for each column that differs from its panel, by its name as the data source gives it."""
    if panel.kind is Kind.TABLE:
        every = model.MatcherConfig(id_val="byRegexp", options="/.*/")
        blank = [model.DynamicConfigValue(id_val="noValue", value="–")]  # else each empty cell says that the table is empty
        yield model.DashboardFieldConfigSourceOverrides(matcher=every, properties=blank)
    differing: dict[str, dict[str, Any]] = {}
    for query in panel.queries:
        for tag in () if over_time(panel) else grouped(query):
            differing.setdefault(tag, {}).update({"displayName": TAG_TITLES[tag], "unit": "string"})
        for key, look in panel.looks.items():
            if (column := column_of(query, key)) is None:
                continue
            differing.setdefault(column, {}).update(_properties(panel, look))
            if look.link is not None:
                for pressed in _pressed(panel, query, column):
                    differing.setdefault(pressed, {})["links"] = [_data_link(panel, query, look.link, column, known)]
    for column, properties in differing.items():
        yield model.DashboardFieldConfigSourceOverrides(
            matcher=model.MatcherConfig(id_val="byName", options=column),
            properties=[model.DynamicConfigValue(id_val=name, value=value) for name, value in properties.items()],
        )


def _pressed(panel: Panel, query: Query | Rows, column: str) -> list[str]:
    """Where a column's link is: figures and tiles show their values alone, so those lead where their tag would."""
    return [column] if panel.kind is Kind.TABLE or over_time(panel) or column in query.columns else value_columns(panel)


def _properties(panel: Panel, look: Look) -> dict[str, Any]:
    """Grafana's properties of one column's look."""
    made: dict[str, Any] = {}
    if look.unit is not None:
        made["unit"] = UNIT_ID[look.unit]
    if look.decimals is not None:
        made["decimals"] = look.decimals
    if look.meanings:
        made["mappings"] = _mappings(look.meanings)
    if look.thresholds:
        made["thresholds"] = _thresholds(steps(look.thresholds, panel.base))
    elif look.meanings and not panel.thresholds:
        made["thresholds"] = _thresholds(steps((), Level.UNKNOWN))
    if look.level is not None:
        made["color"] = _fixed(COLOUR[look.level])
    elif (look.thresholds or look.meanings) and panel.kind is not Kind.TABLE:
        made["color"] = model.FieldColor(mode=model.FieldColorModeId.THRESHOLDS)
    if panel.kind is Kind.TABLE:
        if look.level is not None or look.thresholds or look.meanings:
            made["custom.cellOptions"] = _cell(look.level is not None or bool(look.thresholds), bool(look.meanings))
        if look.wide:
            made["custom.minWidth"] = 300
        if look.hidden:
            made["custom.hidden"] = True
    elif look.hidden:
        made["custom.hideFrom"] = common.HideSeriesConfig(tooltip=False, legend=True, viz=True)
    if look.dashed:
        made["custom.lineStyle"] = common.LineStyle(fill="dash", dash=[6, 6])
    if look.right_axis:
        made["custom.axisPlacement"] = common.AxisPlacement.RIGHT
    return made


def _data_link(panel: Panel, query: Query | Rows, link: Link, column: str, known: Mapping[str, Dashboard]) -> dict[str, Any]:
    """To another dashboard, for the row's tags, about the row's time. Grafana makes from and to of time and window."""
    target = known.get(link.uid)
    asked = []
    for tag, held_by in tag_columns(query).items():
        if target is None or tag in (*target.variables, target.single):
            value = f"__field.labels.{tag}" if over_time(panel) else f"__data.fields{_field(held_by)}"
            asked.append(f"var-{quote(tag)}=${{{value}:percentencode}}")
    moment = _moment(panel, query, column)
    if link.around_ms is not None and moment is not None:
        asked += [f"time=${{{moment}}}", f"time.window={2 * link.around_ms}"]
    else:
        asked.append("${__url_time_range}")
    return {"targetBlank": False, "title": link.title, "url": f"/d/{link.uid}?" + "&".join(asked)}


def _field(column: str) -> str:
    return f".{column}" if column.isidentifier() else f'["{column}"]'


def _moment(panel: Panel, query: Query | Rows, column: str) -> str | None:
    """Where a row's time stands, ms since 1970: in the column itself, in another one, or beside single rows."""
    if over_time(panel):
        return "__value.time"
    times = time_columns(panel, query)
    if column in times:
        times.insert(0, column)
    if times:
        return f"__data.fields{_field(times[0])}.numeric"
    return f"__data.fields.{TIME_COLUMN}.numeric" if isinstance(query, Rows) else None
