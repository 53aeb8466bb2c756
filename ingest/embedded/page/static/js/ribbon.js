// Contact, session and zone as coloured stretches of time, on the charts' own time axis.

import { gapLimit, stateAt, stretches } from "./chart_data.js";
import { AXIS_WIDTH, sharedOptions, xAxis, zoomFrom } from "./chart_frame.js";
import { colour, font, paintAlerts, within } from "./chart_marks.js";
import { el, setText } from "./dom.js";
import { NONE, zone } from "./format.js";
import { hatchBetween } from "./sparkline.js";

const ROWS = [
  { id: "contact", label: "Contact", source: (s) => [s.contact.t, s.contact.state], token: (value) => `contact-${value}`, words: (value) => value },
  { id: "run", label: "Session", source: (s) => [s.runtime.t, s.runtime.run_state], token: (value) => `run-${value}`, words: (value) => value },
  { id: "zone", label: "Zone", source: (s) => [s.runtime.t, s.runtime.zone], token: (value, index) => `zone-${index % 2}`, words: zone },
];

export function ribbonChart(spec, view, parent) {
  const { uPlot } = window;
  const ratio = () => uPlot.pxRatio;
  const outputs = ROWS.map(() => el("output", {}, NONE));
  const plot = el("div", { class: "plot" });
  parent.append(el("section", { class: "chart", "aria-label": spec.title },
    el("header", {}, el("h3", {}, spec.title), ...ROWS.map((row, k) => el("span", { class: "key" }, row.label.toLowerCase(), outputs[k]))), plot));
  let found = ROWS.map(() => []);
  let lastMs = null;
  let gapMs = 0;

  const options = sharedOptions(view, spec.height);
  const u = new uPlot({
    ...options,
    padding: [2, 14, 0, 0],
    scales: { ...options.scales, y: { range: () => [0, 1] } },
    axes: [{ ...xAxis(), grid: { show: false } }, { size: AXIS_WIDTH, splits: () => [], grid: { show: false }, ticks: { show: false } }],
    series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
    hooks: {
      drawClear: [paint],
      setSelect: [(self) => zoomFrom(self, view)],
      setCursor: [read],
    },
  }, [[], []], plot);

  function paint(self) {
    const { left, top, width, height } = self.bbox;
    const rowHeight = height / ROWS.length;
    const inset = 3 * ratio();
    ROWS.forEach((row, k) => {
      const y = top + k * rowHeight + inset;
      const tall = rowHeight - 2 * inset;
      self.ctx.save();
      self.ctx.font = font(11);
      self.ctx.fillStyle = colour("muted");
      self.ctx.textAlign = "right";
      self.ctx.textBaseline = "middle";
      self.ctx.fillText(row.label, left - 8 * ratio(), y + tall / 2);
      self.ctx.restore();
      within(self, (pen) => {
        hatchBetween(pen, left, left + width, y, tall, colour("hatch"), 8 * ratio());
        found[k].forEach((stretch, index) => paintStretch(self, pen, row, stretch, index, y, tall));
      });
    });
    paintAlerts(self, view.alerts.filter(({ id }) => id === view.highlighted), view.dataToMs, view.highlighted);
  }

  function paintStretch(self, pen, row, { from, to, value }, index, y, tall) {
    const start = self.valToPos(from, "x", true);
    const end = self.valToPos(to, "x", true);
    const token = row.token(value, index);
    pen.fillStyle = colour(token) || colour("zone-0");
    pen.fillRect(start, y, Math.max(end - start, ratio()), tall);
    // Names stand within the visible part of a stretch, where they have room.
    const shownFrom = Math.max(start, self.bbox.left);
    const shownTo = Math.min(end, self.bbox.left + self.bbox.width);
    const words = row.words(value);
    pen.font = font(11);
    if (shownTo - shownFrom < pen.measureText(words).width + 12 * ratio()) return;
    pen.fillStyle = colour(`${token}-ink`) || colour("ink");
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillText(words, shownFrom + 6 * ratio(), y + tall / 2);
  }

  function read(self) {
    const free = self.cursor.left === null || self.cursor.left < 0;
    const at = free ? (lastMs !== null && view.dataToMs - lastMs <= gapMs ? lastMs : null) : self.posToVal(self.cursor.left, "x");
    ROWS.forEach((row, k) => {
      const value = at === null ? null : stateAt(found[k], at);
      setText(outputs[k], value === null ? "no data" : row.words(value));
    });
  }

  return {
    u,
    show(series) {
      gapMs = gapLimit(series.step_ms);
      found = ROWS.map((row) => stretches(...row.source(series), series.step_ms, gapMs));
      const ends = found.flatMap((row) => row.slice(-1).map(({ seen }) => seen));
      lastMs = ends.length ? Math.max(...ends) : null;
      // Two times without a reading: the ribbon has a cursor and a window, but no curve.
      u.setData([[view.fromMs, view.toMs], [null, null]]);
      read(u);
    },
  };
}
