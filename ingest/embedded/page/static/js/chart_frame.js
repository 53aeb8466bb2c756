// What all charts of a device share: the time axis, the cursor, the window and zooming.

import { colour } from "./chart_marks.js";
import { clock, dayOf } from "./format.js";

/** Equal on every chart, so that the same time stands above the same time. */
export const AXIS_WIDTH = 68;

/** Hours and minutes; seconds only where the window is short; the day where it changes. */
function timeLabels(u, splits, axis, space, stepMs) {
  let day = null;
  return splits.map((ms) => {
    const date = new Date(ms);
    const today = date.toDateString();
    const label = day !== null && day !== today ? dayOf(ms) : stepMs >= 60_000 ? clock(ms).slice(0, 5) : clock(ms);
    day = today;
    return label;
  });
}

export const axisStyle = () => ({ stroke: () => colour("muted"), font: "11px system-ui, sans-serif",
  grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false } });

export function xAxis() {
  return { ...axisStyle(), size: 28, space: 74, values: timeLabels, incrs: [1e3, 5e3, 15e3, 30e3, 6e4, 3e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 864e5] };
}

/** What every chart shares: the window, the cursor, choosing a stretch to zoom into. */
export function sharedOptions(view, height) {
  return {
    width: 600, height, ms: 1, legend: { show: false },
    cursor: {
      y: false, sync: { key: "device" }, drag: { x: true, y: false, setScale: false }, points: { size: 7 },
      bind: { dblclick: () => () => { view.onZoom(null); return null; } },
    },
    scales: { x: { time: true, range: () => [view.fromMs, view.toMs] } },
  };
}

/** A stretch chosen with the pointer becomes the window of all charts. */
export function zoomFrom(u, view) {
  const { left, width } = u.select;
  if (width < 6) return;
  const window = [u.posToVal(left, "x"), u.posToVal(left + width, "x")].map(Math.round);
  u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  view.onZoom(window);
}
