// What all panels over time share: the time axis, the cursor, the window and zooming.

import { colour } from "./chart_marks.js";
import { clock, dayOf } from "./format.js";

/** Equal on every chart, so that the same time stands above the same time. */
export const AXIS_WIDTH = 68;

const DAY_MS = 86_400_000;

/** Hours and minutes; seconds only where the window is short; the day where it changes. */
function timeLabels(u, splits, axis, space, stepMs) {
  let day = null;
  return splits.map((ms) => {
    const today = new Date(ms).toDateString();
    const label = stepMs >= DAY_MS || (day !== null && day !== today) ? dayOf(ms) : stepMs >= 60_000 ? clock(ms).slice(0, 5) : clock(ms);
    day = today;
    return label;
  });
}

export const axisStyle = () => ({ stroke: () => colour("muted"), font: "11px system-ui, sans-serif",
  grid: { stroke: () => colour("grid"), width: 1 }, ticks: { show: false } });

export function xAxis() {
  return { ...axisStyle(), size: 28, space: 74, values: timeLabels,
    incrs: [1e3, 5e3, 15e3, 30e3, 6e4, 3e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, DAY_MS, 2 * DAY_MS, 7 * DAY_MS, 30 * DAY_MS] };
}

/** What every chart shares: the window, the cursor, choosing a stretch to zoom into. */
export function sharedOptions(view, height) {
  return {
    width: 300, height, ms: 1, legend: { show: false },
    cursor: {
      y: false, sync: { key: "board" }, drag: { x: true, y: false, setScale: false }, points: { size: 7 },
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

/** As wide as its place, and drawn anew in other colours. Returns what ends that. */
export function keepFitting(u, place) {
  const sizes = new ResizeObserver(() => {
    const width = place.clientWidth;
    if (width && width !== u.width) u.setSize({ width, height: u.height });
  });
  sizes.observe(place);
  const forget = window.theme.onChange(() => u.redraw());
  return () => { sizes.disconnect(); forget(); u.destroy(); };
}

const KEY_STEPS = 60;

/** Left and right move the cursor of all charts; Enter looks closer about it, Escape leaves it. */
export function readByKeys(u, place, view) {
  place.addEventListener("keydown", (event) => {
    const width = u.over.clientWidth;
    const at = u.cursor.left < 0 || u.cursor.left === null ? width : u.cursor.left;
    const moves = { ArrowLeft: at - width / KEY_STEPS, ArrowRight: at + width / KEY_STEPS, Home: 0, End: width };
    if (event.key in moves) u.setCursor({ left: Math.min(width, Math.max(0, moves[event.key])), top: 10 }, true, true);
    else if (event.key === "Escape") u.setCursor({ left: -10, top: -10 }, true, true);
    else if (event.key === "Enter") {
      const half = (view.toMs - view.fromMs) / 8;
      const ms = u.posToVal(at, "x");
      view.onZoom([ms - half, ms + half].map(Math.round));
    } else return;
    event.preventDefault();
  });
}
