// The device page: which device, which stretch of time, following live or standing still.

import { Refused, api } from "./api.js";
import { createCharts } from "./charts.js";
import { combobox } from "./combobox.js";
import { paintEnvelope, paintFacts, startFacts } from "./device_facts.js";
import { byId, el, memory, setAttr, setHidden, setText } from "./dom.js";
import { moment } from "./format.js";
import { fleet, now, on } from "./live.js";

const POINTS = 600;
const MINUTE = 60_000;
const RANGES = [["5 min", 5 * MINUTE], ["15 min", 15 * MINUTE], ["1 h", 60 * MINUTE], ["6 h", 360 * MINUTE], ["24 h", 1440 * MINUTE]];
const LEAST_WINDOW_MS = 5000;

const state = { visible: false, id: "", rangeMs: RANGES[1][1], follow: true, zoom: null, stillToMs: null };
let charts = null;
let choice = null;
let asking = null;
let askedAt = 0;

export function startDevice() {
  startFacts();
  state.rangeMs = Number(memory.get("range")) || state.rangeMs;
  for (const [label, ms] of RANGES) {
    const button = el("button", { type: "button", "data-ms": ms }, label);
    button.addEventListener("click", () => setRange(ms));
    byId("device-range").append(button);
  }
  byId("device-follow").addEventListener("change", (event) => {
    state.follow = event.target.checked;
    state.stillToMs = state.follow ? null : now();
    zoom(state.follow ? null : state.zoom);
  });
  byId("device-unzoom").addEventListener("click", () => zoom(null));
  byId("device-earlier").addEventListener("click", () => move(-0.5));
  byId("device-later").addEventListener("click", () => move(0.5));
  choice = combobox(byId("device-choice"), byId("device-options"),
    () => fleet.devices.map((device) => ({ value: device.device_id, note: `${device.model ?? "model unknown"}, ${device.health}` })),
    (id) => { location.hash = `#/device/${encodeURIComponent(id)}`; });
  on("devices", () => state.visible && paint());
  on("alerts", () => state.visible && paint());
  on("link", () => { if (state.visible) { paint(); load(); } });
  on("second", () => {
    if (!state.visible || !state.id) return;
    paint();
    const pause = Math.min(Math.max(state.rangeMs / POINTS, 1900), 30_000);
    if (following() && fleet.link === "live" && !asking && performance.now() - askedAt > pause) load();
  });
}

export function showDevice(id, parameters) {
  state.visible = true;
  const [from, to] = ["from", "to"].map((name) => Number(parameters.get(name)));
  const asked = from > 0 && to > from ? [from, to] : null;
  if (!id) id = memory.get("device") ?? "";
  state.zoom = asked ?? (id === state.id ? state.zoom : null);
  // Another device's readings must not stand under this one's name, not even for a moment.
  if (id !== state.id) setAttr(byId("charts"), "data-waiting", "true");
  state.id = id;
  if (id) memory.set("device", id);
  choice.set(id);
  paint();
  if (id) load();
}

export function hideDevice() {
  state.visible = false;
  asking?.abort();
  asking = null;
}

const following = () => state.follow && !state.zoom;

function setRange(ms) {
  state.rangeMs = ms;
  memory.set("range", ms);
  zoom(null);
}

function zoom(window) {
  if (window && window[1] - window[0] < LEAST_WINDOW_MS) {
    const middle = (window[0] + window[1]) / 2;
    window = [middle - LEAST_WINDOW_MS / 2, middle + LEAST_WINDOW_MS / 2].map(Math.round);
  }
  // Synchronised charts report the same choice one after the other.
  if (window && state.zoom && String(window) === String(state.zoom)) return;
  state.zoom = window;
  history.replaceState(null, "", `#/device/${encodeURIComponent(state.id)}${window ? `?from=${window[0]}&to=${window[1]}` : ""}`);
  load();
}

/** Step through time by a part of the window. */
function move(part) {
  const [from, to] = windowShown();
  const by = Math.round((to - from) * part);
  zoom([from + by, to + by]);
}

function windowShown() {
  if (state.zoom) return state.zoom;
  const to = state.follow ? now() : state.stillToMs ?? now();
  return [Math.round(to - state.rangeMs), Math.round(to)];
}

async function load() {
  if (!state.id || !state.visible) return;
  asking?.abort();
  const request = (asking = new AbortController());
  const id = state.id;
  askedAt = performance.now();
  const [from, to] = windowShown();
  try {
    const series = await api.series(id, from, to, POINTS, request.signal);
    if (id !== state.id || request.signal.aborted) return;
    charts ??= createCharts(byId("charts"), { onZoom: zoom });
    charts.show(series, from, to, now());
    setAttr(byId("charts"), "data-waiting", null);
    paintEnvelope(series.profile);
    setText(byId("device-window"), `${moment(from, now())} to ${moment(to, now())}${state.zoom ? ", zoomed" : ""}`);
  } catch (error) {
    if (!(error instanceof Refused)) {
      if (error.name !== "AbortError") throw error;
      return;
    }
    setText(byId("device-window"), error.message);
  } finally {
    if (asking === request) asking = null;
  }
  paint();
}

function paint() {
  setText(byId("h-device"), state.id || "Device");
  const known = fleet.byId.has(state.id);
  setHidden(byId("device-body"), !known);
  setHidden(byId("device-empty"), Boolean(state.id) && known);
  setText(byId("device-empty"), emptyText());
  for (const button of byId("device-range").children) {
    setAttr(button, "aria-pressed", String(!state.zoom && Number(button.dataset.ms) === state.rangeMs));
  }
  if (byId("device-unzoom").disabled !== !state.zoom) byId("device-unzoom").disabled = !state.zoom;
  byId("device-follow").checked = following();
  paintFacts(state.id);
}

function emptyText() {
  if (!fleet.overview) return "Waiting for the worker …";
  if (!fleet.devices.length) return "No device has reported yet. Publish to mc/v1/<device_id>/current …";
  if (!state.id) return "Choose a device above, or take one from the Fleet page.";
  return `No device named “${state.id}” has reported.`;
}
