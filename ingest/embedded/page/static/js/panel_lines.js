// Lines over time, drawn by the vendored uPlot: limits, thresholds, alerts and silences in the same picture.

import { AXIS_WIDTH, axisStyle, keepFitting, readByKeys, sharedOptions, xAxis, zoomFrom } from "./chart_frame.js";
import { joinedWithin, lonely, nearest, rowsWithGaps, stackedRows } from "./chart_data.js";
import { colour, paintAlerts, paintLimits, paintSilences } from "./chart_marks.js";
import { MARKER_LANES_PX, placeMarkers } from "./chart_markers.js";
import { el, reconcile, setAttr, setText } from "./dom.js";
import { missing } from "./format.js";
import { lookOf, unitOf } from "./levels.js";
import { shown, tick } from "./units.js";

const PALETTE = 8;
const DASH = [5, 4];
const DOTS = [2, 3];
const FAR = 4;
/** Counts of an hour or a day hold for all of it; a point at its beginning would say nothing, or lie before the window. */
const PLATEAU_MS = 3_600_000;
const SECONDS = [0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400];
const WHOLE = Array.from({ length: 10 }, (_, k) => [1, 2, 5].map((step) => step * 10 ** k)).flat();
/** Steps of the axis in units that are not divided by tens. */
const STEPS = { s: SECONDS, count: WHOLE };
const DRAWN_LEVELS = ["warning", "critical", "limit"];

export function linesPanel(panel, body, view, { height, markers }) {
  const legend = el("div", { class: "keys" });
  const plot = el("div", { class: "plot", tabindex: "0", role: "img", "aria-label": `${panel.title}. Arrow keys read it, Enter looks closer.` });
  body.append(legend, plot);
  const state = { lines: [], data: [[]], silences: [], limits: [] };
  let u = null;
  let stop = () => {};

  const lineOf = (line, k, answer) => {
    const look = lookOf(panel, line.column);
    const token = look.level ?? `line-${(k % PALETTE) + 1}`;
    return {
      name: line.name, token, unit: unitOf(panel, line.column), decimals: look.decimals ?? panel.decimals,
      dash: look.dashed || look.level === "limit" ? DASH : k >= PALETTE ? DOTS : undefined, right: Boolean(look.right_axis), limit: look.dashed || look.level === "limit",
      ...drawn(answer, panel.logarithmic ? line.values.map((value) => (missing(value) ? null : Math.max(value, floor()))) : line.values),
      raw: new Map(answer.times.map((at, i) => [at, line.values[i]])), gapMs: panel.counted ? answer.step_ms : joinedWithin(answer.step_ms, panel.gap_ms),
    };
  };
  const floor = () => panel.lowest || 0.1;

  function drawn({ times, step_ms: stepMs }, values) {
    if (stepMs < PLATEAU_MS && !panel.counted) return { times, values, at: (ms) => ms };
    const end = (at) => Math.max(at + 1, Math.min(at + stepMs, view.dataToMs) - 1);
    return { times: times.flatMap((at) => [at, end(at)]), values: values.flatMap((value) => [value, value]), at: (ms) => Math.floor(ms / stepMs) * stepMs };
  }

  const drawnThresholds = () => panel.thresholds
    .filter(({ value, level }) => DRAWN_LEVELS.includes(level) && value > 0)
    .map(({ value, level, name }) => ({ value, token: level, label: `${name || level} from ${tick(value, panel.unit)}` }));

  function bounds(right) {
    return (self, low, high) => {
      const own = state.lines.flatMap((line, k) => (line.right === right ? [k] : []));
      const values = own.flatMap((k) => state.data[k + 1]).filter((value) => !missing(value) && Number.isFinite(value));
      const most = values.length ? Math.max(...values) : 0;
      // A limit far beyond all readings would press them flat; its name then stands in the legend alone.
      const near = right ? [] : state.limits.map(({ value }) => value).filter((value) => !most || value <= FAR * most);
      const from = panel.lowest ?? (values.length ? Math.min(...values) : panel.logarithmic ? 1 : 0);
      const to = Math.max(...(values.length ? values : [panel.logarithmic ? 10 : 1]), ...near, ...(right || panel.highest === null ? [] : [panel.highest]));
      if (panel.logarithmic) return [10 ** Math.floor(Math.log10(Math.max(from, floor()))), 10 ** Math.ceil(Math.log10(Math.max(to, from * 10, 1)) + 0.01)];
      const bottom = panel.lowest ?? (from > 0 && from < 0.6 * to ? 0 : from - (to - from || Math.abs(to) || 1) * 0.12);
      const top = to > bottom ? to : bottom + 1;
      return [bottom, !right && panel.highest !== null && top <= panel.highest ? panel.highest : top + (top - bottom) * 0.12];
    };
  }

  function build() {
    stop();
    const options = sharedOptions(view, height);
    const unitOn = (right) => state.lines.find((line) => line.right === right)?.unit ?? panel.unit;
    const hasRight = state.lines.some(({ right }) => right);
    const yAxis = (right) => ({
      ...axisStyle(), scale: right ? "right" : "y", side: right ? 1 : 3, size: right ? 56 : AXIS_WIDTH, space: 34,
      ...(unitOn(right) in STEPS ? { incrs: STEPS[unitOn(right)] } : {}),
      values: (_, splits) => splits.map((value) => (value === null || !filled() ? "" : tick(value, unitOn(right)))),
      grid: { ...axisStyle().grid, show: !right, filter: (_, splits) => (panel.logarithmic ? splits.map((value) => (Number.isInteger(Math.log10(value)) ? value : null)) : splits) },
    });
    u = new window.uPlot({
      ...options,
      // No dot on the nearest reading while the pointer stands in silence.
      cursor: { ...options.cursor, dataIdx: (self, k, i, ms) => (k === 0 ? i : near(k - 1, ms, 0.5)) },
      padding: [markers ? MARKER_LANES_PX : 8, 14, 0, 0],
      scales: { ...options.scales, y: { distr: panel.logarithmic ? 3 : 1, range: bounds(false) }, ...(hasRight ? { right: { range: bounds(true) } } : {}) },
      axes: [xAxis(), yAxis(false), ...(hasRight ? [yAxis(true)] : [])],
      series: [{}, ...state.lines.map((line, k) => ({
        label: line.name, scale: line.right ? "right" : "y", stroke: () => colour(line.token), width: line.limit ? 1.25 : 1.75, dash: line.dash,
        // A hex colour, and two digits more for how much of it is seen.
        fill: panel.counted || panel.stacked ? () => `${colour(line.token)}${panel.counted ? "66" : "52"}` : undefined,
        points: { show: false, filter: () => lonely(state.data[k + 1]), size: 5, fill: () => colour(line.token) },
      }))],
      bands: panel.stacked ? state.lines.slice(1).map((_, k) => ({ series: [k + 2, k + 1] })) : [],
      hooks: {
        drawClear: [(self) => { paintSilences(self, state.silences, filled()); paintAlerts(self, view.alerts, view.dataToMs, view.highlighted); }],
        draw: [(self) => { paintLimits(self, state.limits); if (markers) placeMarkers(self, view); }],
        setSelect: [(self) => zoomFrom(self, view)],
        setCursor: [read],
      },
    }, state.data, plot);
    stop = keepFitting(u, plot);
    readByKeys(u, plot, view);
  }

  const filled = () => state.lines.some(({ values }) => values.some((value) => !missing(value)));

  /** The reading of a line that speaks for a time. */
  const near = (k, ms, part) => nearest(state.data[0], ms, state.lines[k].gapMs * part, (i) => !missing(state.data[k + 1][i]));

  function read(self) {
    const free = missing(self.cursor.left) || self.cursor.left < 0;
    [...legend.children].forEach((node, k) => {
      const line = state.lines[k];
      // Without a pointer: the newest reading, but only while it still speaks for the end of the window.
      const at = line && (free ? near(k, view.dataToMs, 1) : near(k, self.posToVal(self.cursor.left, "x"), 0.5));
      const value = missing(at) ? null : line.raw.get(line.at(state.data[0][at]));
      setText(node.lastChild, missing(value) ? (panel.counted ? "none" : "no data") : shown(value, line.unit, line.decimals));
    });
  }

  return {
    show({ lines: answers }) {
      const before = state.lines.map(({ name, token, right }) => [name, token, right].join()).join(";");
      let k = 0;
      const tokens = new Set();
      state.lines = answers.flatMap((answer) => answer.series.map((line) => lineOf(line, lookOf(panel, line.column).level ? k : k++, answer)));
      for (const line of state.lines) {
        if (tokens.has(line.token)) line.dash ??= DOTS; // a colour alone would not tell them apart
        tokens.add(line.token);
      }
      const found = rowsWithGaps(state.lines, view.fromMs, view.dataToMs);
      state.data = panel.stacked ? stackedRows(found.data) : found.data;
      state.silences = panel.counted ? [] : found.silences;
      state.limits = drawnThresholds();
      reconcile(legend, state.lines, ({ name }) => name, () => el("span", { class: "key" }, el("i"), el("span"), el("output")), (node, line) => {
        node.firstChild.style.setProperty("--key", `var(--${line.token})`);
        setAttr(node.firstChild, "data-dashed", Boolean(line.dash));
        setText(node.children[1], line.name);
      });
      const same = before === state.lines.map(({ name, token, right }) => [name, token, right].join()).join(";");
      if (u && same) u.setData(state.data);
      else build();
      read(u);
      return filled();
    },
    redraw: () => u?.redraw(false),
    end: () => stop(),
  };
}
