// What is painted into the charts beside the readings: silence, alerts, the profile's limits.
// Colours are the page's tokens, read again when the theme changes.

import { hatchBetween } from "./sparkline.js";

let cache = new Map();
window.theme.onChange(() => { cache = new Map(); });

export function colour(name) {
  if (!cache.has(name)) cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return cache.get(name);
}

const ratio = () => window.uPlot.pxRatio;
export const font = (px) => `${px * ratio()}px system-ui, sans-serif`;

/** Clip to the plotting area and work there. */
export function within(u, work) {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  u.ctx.beginPath();
  u.ctx.rect(left, top, width, height);
  u.ctx.clip();
  work(u.ctx, { left, top, width, height });
  u.ctx.restore();
}

/** `named`: whether it is said in words, where there is room. */
export function paintSilences(u, silences, named) {
  within(u, (pen, { top, height }) => {
    for (const [from, to] of silences) {
      const left = u.valToPos(from, "x", true);
      const right = u.valToPos(to, "x", true);
      hatchBetween(pen, left, right, top, height, colour("hatch"), 8 * ratio());
      if (!named) continue;
      const words = "no data";
      pen.font = font(11);
      if (right - left < pen.measureText(words).width + 24 * ratio()) continue;
      const middle = (left + right) / 2;
      const half = pen.measureText(words).width / 2 + 6 * ratio();
      pen.fillStyle = colour("surface");
      const low = top + height - 16 * ratio(); // clear of the limits' names, which stand above their lines
      pen.fillRect(middle - half, low - 9 * ratio(), 2 * half, 18 * ratio());
      pen.fillStyle = colour("muted");
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(words, middle, low);
    }
  });
}

const SEVERITIES = ["info", "warning", "critical"];

/** Overlapping stretches [[from, to] …] as few that do not overlap. */
function merged(found) {
  const joined = [];
  for (const [from, to] of found.sort((a, b) => a[0] - b[0])) {
    const last = joined.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

/**
 * A line at each alert's onset and a band until it closed, or until the data ends. Bands of one
 * severity are merged: ten overlapping alerts must not hide the reading they are about.
 */
export function paintAlerts(u, alerts, untilMs, highlighted) {
  const told = alerts.filter((alert) => alert.state !== "withdrawn");
  const x = (ms) => Math.round(u.valToPos(ms, "x", true));
  const stretch = (alert) => [x(alert.opened_ms), Math.max(x(alert.closed_ms ?? untilMs), x(alert.opened_ms) + ratio())];
  within(u, (pen, { top, height }) => {
    for (const severity of SEVERITIES) {
      const these = told.filter((alert) => alert.severity === severity);
      pen.fillStyle = colour(severity);
      for (const [from, to] of merged(these.map(stretch))) {
        pen.globalAlpha = 0.07;
        pen.fillRect(from, top, to - from, height);
        pen.globalAlpha = 1;
        pen.fillRect(from, top, to - from, 3 * ratio());
      }
      for (const alert of these) pen.fillRect(x(alert.opened_ms), top, 1.5 * ratio(), height);
    }
    const chosen = told.find(({ id }) => id === highlighted);
    if (!chosen) return;
    const [from, to] = stretch(chosen);
    pen.fillStyle = colour(chosen.severity);
    pen.globalAlpha = 0.22;
    pen.fillRect(from, top, to - from, height);
  });
}

/** Dashed lines of the envelope, each with its name. */
export function paintLimits(u, limits) {
  within(u, (pen, { left, width, top }) => {
    pen.font = font(11);
    pen.textAlign = "left";
    pen.lineWidth = 1.25 * ratio();
    for (const { value, label, token } of limits) {
      const y = Math.round(u.valToPos(value, "y", true)) + 0.5;
      pen.strokeStyle = colour(token);
      pen.setLineDash([6 * ratio(), 4 * ratio()]);
      pen.beginPath();
      pen.moveTo(left, y);
      pen.lineTo(left + width, y);
      pen.stroke();
      pen.setLineDash([]);
      const above = y - 22 * ratio() > top;
      const x = left + 6 * ratio();
      const base = above ? y - 4 * ratio() : y + 4 * ratio();
      pen.textBaseline = above ? "bottom" : "top";
      // An outline in the surface's colour keeps the name readable above curves and hatching.
      pen.lineWidth = 3 * ratio();
      pen.strokeStyle = colour("surface");
      pen.strokeText(label, x, base);
      pen.fillStyle = colour(`${token}-text`);
      pen.fillText(label, x, base);
      pen.lineWidth = 1.25 * ratio();
    }
  });
}
