// The charts of one device: one cursor, one time window, drawn by the vendored uPlot.

import { gapLimit, healthGapLimit, nearest, rowsWithGaps } from "./chart_data.js";
import { colour, paintAlerts, paintLimits, paintSilences } from "./chart_marks.js";
import { AXIS_WIDTH, axisStyle, sharedOptions, xAxis, zoomFrom } from "./chart_frame.js";
import { placeMarkers } from "./chart_markers.js";
import { ribbonChart } from "./ribbon.js";
import { el, setText } from "./dom.js";
import { NONE, celsius, microamps, millivolts, missing, ohms, plain } from "./format.js";

const { uPlot } = window;
const MARKER_LANES_PX = 40;
const Z_FLOOR_OHM = 10;

const limit = (value, label, token) => (missing(value) ? [] : [{ value, label, token }]);

// Each chart in reading order: what it draws, in which colour, against which limits.
const CHARTS = [
  {
    id: "current", title: "Current", height: 270, markers: true, format: microamps, gap: gapLimit,
    source: (s) => [s.current.t, [s.current.i_peak_ua, s.current.i_rms_ua, s.current.i_set_ua]],
    series: [["peak", "series-peak"], ["r.m.s.", "series-rms"], ["set-point", "series-set", [3, 3]]],
    limits: (p) => [...limit(p.i_peak_max_ua, `envelope, peak ${plain(microamps(p.i_peak_max_ua))}`, "critical"),
      ...(p.i_rms_max_ua === p.i_peak_max_ua ? [] : limit(p.i_rms_max_ua, `envelope, r.m.s. ${plain(microamps(p.i_rms_max_ua))}`, "warning"))],
    range: (low, high) => [0, Math.max(high, 1) * 1.12],
  },
  { id: "ribbon", title: "State", height: 112 },
  {
    id: "contact", title: "Contact impedance", height: 210, format: ohms, gap: gapLimit, log: true,
    source: (s) => [s.contact.t, [s.contact.z_ohm.map((z) => (missing(z) ? null : Math.max(z, Z_FLOOR_OHM)))]],
    series: [["impedance", "series-peak"]],
    limits: (p) => [...limit(p.z_good_max_ohm, `good up to ${plain(ohms(p.z_good_max_ohm))}`, "warning"),
      ...limit(p.z_off_ohm, `off from ${plain(ohms(p.z_off_ohm))}`, "critical")],
    range: (low, high) => [Math.min(100, 10 ** Math.floor(Math.log10(Math.max(low, Z_FLOOR_OHM)))), Math.max(high * 1.6, 1e5)],
  },
  {
    id: "head", title: "Head temperature", height: 150, format: celsius, gap: healthGapLimit,
    source: (s) => [s.health.t, [s.health.temp_head_c]],
    series: [["head", "series-peak"]],
    limits: (p) => limit(p.temp_max_c, `limit ${plain(celsius(p.temp_max_c))}`, "critical"),
    range: (low, high) => [Math.min(low, 24) - 1, Math.max(high, 38) + 3],
  },
  {
    id: "battery", title: "Battery", height: 120, format: millivolts, gap: healthGapLimit,
    source: (s) => [s.health.t, [s.health.battery_mv]],
    series: [["battery", "series-rms"]],
    limits: () => [],
    range: (low, high) => [Math.min(low, 3400) - 50, Math.max(high, 4200) + 50],
  },
];

function chart(spec, view, parent) {
  const readings = spec.series.map(([label, token]) => {
    const value = el("output", {}, NONE);
    return { value, node: el("span", { class: `key k-${token}` }, el("i"), label, value) };
  });
  const plot = el("div", { class: "plot" });
  parent.append(el("section", { class: "chart", "aria-label": spec.title },
    el("header", {}, el("h3", {}, spec.title), ...readings.map(({ node }) => node)), plot));
  const state = { data: [[], ...spec.series.map(() => [])], silences: [], gapMs: 15_000, limits: [] };

  const bounds = (u, low, high) => {
    const values = [low, high, ...state.limits.map(({ value }) => value)].filter((value) => !missing(value) && Number.isFinite(value));
    return values.length ? spec.range(Math.min(...values), Math.max(...values)) : spec.range(spec.log ? 1e3 : 0, spec.log ? 1e6 : 1);
  };
  const options = sharedOptions(view, spec.height);
  const u = new uPlot({
    ...options,
    // No dot on the nearest reading while the pointer stands in silence.
    cursor: { ...options.cursor, dataIdx: (_, k, i, ms) => (k > 0 && nearest([state.data[0][i]], ms, state.gapMs / 2) === null ? null : i) },
    padding: [spec.markers ? MARKER_LANES_PX : 8, 14, 0, 0],
    scales: { ...options.scales, y: { distr: spec.log ? 3 : 1, range: bounds } },
    axes: [xAxis(), { ...axisStyle(), size: AXIS_WIDTH, space: 34, values: (_, splits) => splits.map((v) => (v === null ? "" : plain(spec.format(v)))),
      grid: { ...axisStyle().grid, filter: (_, splits) => (spec.log ? splits.map((v) => (Number.isInteger(Math.log10(v)) ? v : null)) : splits) } }],
    series: [{}, ...spec.series.map(([label, token, dash]) => ({
      label, stroke: () => colour(token), width: 1.75, dash,
      points: { show: false, filter: (_, i) => lonely(state.data[i]), size: 5, fill: () => colour(token) },
    }))],
    hooks: {
      drawClear: [(self) => { paintSilences(self, state.silences); paintAlerts(self, view.alerts, view.dataToMs, view.highlighted); }],
      draw: [(self) => { paintLimits(self, state.limits); if (spec.markers) placeMarkers(self, view); }],
      setSelect: [(self) => zoomFrom(self, view)],
      setCursor: [(self) => read(self)],
    },
  }, state.data, plot);

  function read(self) {
    const xs = state.data[0];
    const free = self.cursor.left === null || self.cursor.left < 0;
    // Without a pointer: the newest reading, but only while it still speaks for the end of the window.
    const at = free ? nearest(xs, view.dataToMs, state.gapMs) : nearest(xs, self.posToVal(self.cursor.left, "x"), state.gapMs / 2);
    readings.forEach(({ value }, k) => setText(value, at === null ? "no data" : spec.format(state.data[k + 1][at])));
  }

  return {
    u,
    show(series) {
      const [times, columns] = spec.source(series);
      state.gapMs = spec.gap(series.step_ms);
      Object.assign(state, rowsWithGaps(times, columns, state.gapMs, view.fromMs, view.dataToMs));
      state.limits = series.profile ? spec.limits(series.profile) : [];
      u.setData(state.data);
      read(u);
    },
  };
}

/** Readings with silence on both sides: a line cannot show them, a dot can. */
function lonely(column) {
  const empty = (value) => value === null || value === undefined;
  return column.map((_, i) => i).filter((i) => !empty(column[i]) && (i === 0 || column[i - 1] === null) && (i === column.length - 1 || column[i + 1] === null));
}

/** All charts in `parent`; `show(series, fromMs, toMs, nowMs)` draws an answer of the API. */
export function createCharts(parent, { onZoom }) {
  const view = { fromMs: 0, toMs: 1, dataToMs: 1, alerts: [], highlighted: null, onZoom, redraw: () => charts.forEach(({ u }) => u.redraw(false)) };
  const charts = CHARTS.map((spec) => (spec.id === "ribbon" ? ribbonChart(spec, view, parent) : chart(spec, view, parent)));
  const fit = () => charts.forEach(({ u }) => {
    const width = u.root.parentNode.clientWidth;
    if (width && width !== u.width) u.setSize({ width, height: u.height });
  });
  new ResizeObserver(fit).observe(parent);
  window.theme.onChange(() => charts.forEach(({ u }) => u.redraw()));
  return {
    show(series, fromMs, toMs, nowMs) {
      Object.assign(view, { fromMs, toMs, dataToMs: Math.min(toMs, nowMs), alerts: series.alerts, deviceId: series.device_id });
      charts.forEach((one) => one.show(series));
      fit();
    },
  };
}
