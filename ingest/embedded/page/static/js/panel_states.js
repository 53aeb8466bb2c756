// What holds when, as coloured stretches of time in lanes, on the charts' own time axis.

import { joinedWithin, stateAt, stretches } from "./chart_data.js";
import { AXIS_WIDTH, axisStyle, keepFitting, readByKeys, sharedOptions, xAxis, zoomFrom } from "./chart_frame.js";
import { colour, font, paintAlerts, within } from "./chart_marks.js";
import { el, setText } from "./dom.js";
import { missing } from "./format.js";
import { meant } from "./levels.js";
import { hatchBetween } from "./sparkline.js";

const LANE_PX = 26;
const X_AXIS_PX = 28;
const MOST_NAME = 22;

export function statesPanel(panel, body, view, { height }) {
  const legend = el("div", { class: "keys" });
  const plot = el("div", { class: "plot", tabindex: "0", role: "img", "aria-label": `${panel.title}. Arrow keys read it, Enter looks closer.` });
  body.append(legend, plot);
  let lanes = [];
  let u = null;
  let stop = () => {};

  function build() {
    stop();
    const tall = Math.max(height, lanes.length * LANE_PX + X_AXIS_PX + 4);
    const options = sharedOptions(view, tall);
    const widest = Math.max(AXIS_WIDTH, ...lanes.map(({ name }) => 7 * Math.min(name.length, MOST_NAME) + 14));
    u = new window.uPlot({
      ...options,
      padding: [2, 14, 0, 0],
      scales: { ...options.scales, y: { range: () => [0, 1] } },
      axes: [{ ...xAxis(), grid: { show: false } }, { ...axisStyle(), size: widest, splits: () => [], grid: { show: false } }],
      series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
      hooks: { drawClear: [paint], setSelect: [(self) => zoomFrom(self, view)], setCursor: [read] },
    }, [[], []], plot);
    stop = keepFitting(u, plot);
    readByKeys(u, plot, view);
  }

  function paint(self) {
    const ratio = window.uPlot.pxRatio;
    const { left, top, width, height: whole } = self.bbox;
    const laneHeight = whole / lanes.length;
    lanes.forEach((lane, k) => {
      const y = top + k * laneHeight + 3 * ratio;
      const tall = Math.min(laneHeight, 44 * ratio) - 6 * ratio;
      self.ctx.save();
      self.ctx.font = font(11);
      self.ctx.fillStyle = colour("muted");
      self.ctx.textAlign = "right";
      self.ctx.textBaseline = "middle";
      self.ctx.fillText(lane.name.length > MOST_NAME ? `${lane.name.slice(0, MOST_NAME - 1)}…` : lane.name, left - 8 * ratio, y + tall / 2);
      self.ctx.restore();
      within(self, (pen) => {
        hatchBetween(pen, left, left + width, y, tall, colour("hatch"), 8 * ratio);
        lane.stretches.forEach((stretch) => paintStretch(self, pen, lane, stretch, y, tall));
      });
    });
    paintAlerts(self, view.alerts.filter(({ id }) => id === view.highlighted), view.dataToMs, view.highlighted);
  }

  function paintStretch(self, pen, lane, { from, to, value }, y, tall) {
    const ratio = window.uPlot.pxRatio;
    const start = self.valToPos(from, "x", true);
    const end = self.valToPos(Math.min(to, view.dataToMs), "x", true);
    const { text, level } = meant(panel, lane.column, value);
    pen.fillStyle = colour(level ? `${level}-fill` : "idle-fill");
    pen.fillRect(start, y, Math.max(end - start, ratio), tall);
    // Names stand within the visible part of a stretch, where they have room.
    const shownFrom = Math.max(start, self.bbox.left);
    const shownTo = Math.min(end, self.bbox.left + self.bbox.width);
    pen.font = font(11);
    if (shownTo - shownFrom < pen.measureText(text).width + 12 * ratio) return;
    pen.fillStyle = colour(level ? `${level}-fill-ink` : "idle-fill-ink");
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillText(text, shownFrom + 6 * ratio, y + tall / 2);
  }

  function read(self) {
    const free = missing(self.cursor.left) || self.cursor.left < 0;
    const at = free ? view.dataToMs - 1 : self.posToVal(self.cursor.left, "x");
    [...legend.children].forEach((node, k) => {
      const value = free ? lastOf(lanes[k]) : stateAt(lanes[k].stretches, at);
      setText(node.lastChild, value === null ? "no data" : meant(panel, lanes[k].column, value).text);
    });
  }

  /** The newest state, while it still speaks for the end of the window. */
  const lastOf = ({ stretches: found, gapMs }) => (found.length && view.dataToMs - found.at(-1).seen <= gapMs ? found.at(-1).value : null);

  return {
    show({ lines: answers }) {
      const before = lanes.map(({ name }) => name).join();
      lanes = answers.flatMap((answer) => answer.series.map(({ name, column, values }) => {
        const gapMs = joinedWithin(answer.step_ms, panel.gap_ms);
        const found = stretches(answer.times, values, answer.step_ms, gapMs);
        // The newest state holds while it still speaks for what comes after it.
        if (found.length) found.at(-1).to = Math.max(found.at(-1).to, Math.min(found.at(-1).seen + gapMs, view.dataToMs));
        return { name, column, gapMs, stretches: found };
      }));
      if (before !== lanes.map(({ name }) => name).join()) {
        legend.replaceChildren(...(lanes.length > 4 ? [] : lanes.map(({ name }) => el("span", { class: "key" }, el("span", {}, name), el("output")))));
      }
      if (!u || before !== lanes.map(({ name }) => name).join()) build();
      // Two times without a reading: the lanes have a cursor and a window, but no curve.
      u.setData([[view.fromMs, view.toMs], [null, null]]);
      read(u);
      return lanes.some(({ stretches: found }) => found.length > 0);
    },
    redraw: () => u?.redraw(false),
    end: () => stop(),
  };
}
