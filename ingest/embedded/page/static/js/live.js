// What is known of the fleet now, fed by the worker's event stream, and how old it is.
// Silence is never shown as safe: without an event for LOST_AFTER_MS everything is called old.

import { api } from "./api.js";

const LOST_AFTER_MS = 3000;
const STILL_AFTER_MS = 8000;
const RECONNECT_MS = 2000;
const GIVE_UP_MS = 10_000;

export const fleet = {
  overview: null,
  devices: [],
  byId: new Map(),
  alerts: [],
  /** "connecting" until the first event, then "live" or "lost". */
  link: "connecting",
  lostSinceMs: null,
  /** Since when the worker's clock has not moved, by this machine's; null while it moves. */
  stillSinceMs: null,
};

const listeners = { overview: [], devices: [], alerts: [], link: [], second: [] };
export const on = (kind, listener) => listeners[kind].push(listener);
const tell = (kind) => listeners[kind].forEach((listener) => listener());

let clockOffsetMs = 0;
let clockMovedAt = Date.now();
let lastEventAt = performance.now();
let connectedAt = performance.now();
let source = null;
let retryTimer = 0;

/** The worker's clock: this machine's may differ. Runs on while the link is lost, so ages keep growing. */
export const now = () => Date.now() + clockOffsetMs;

function heard() {
  lastEventAt = performance.now();
  if (fleet.link === "live") return;
  fleet.link = "live";
  fleet.lostSinceMs = null;
  tell("link");
}

function checkLink() {
  const at = performance.now();
  const silentMs = at - lastEventAt;
  // A half-open connection reports no error and never speaks again.
  if (silentMs > GIVE_UP_MS && at - connectedAt > GIVE_UP_MS) connect();
  if (silentMs <= LOST_AFTER_MS || fleet.link === "lost") return;
  fleet.link = "lost";
  fleet.lostSinceMs = Date.now() - silentMs;
  tell("link");
}

function takeOverview(overview) {
  if (overview.now_ms !== fleet.overview?.now_ms) clockMovedAt = Date.now();
  fleet.stillSinceMs = Date.now() - clockMovedAt > STILL_AFTER_MS ? clockMovedAt : null;
  fleet.overview = overview;
  clockOffsetMs = overview.now_ms - Date.now();
  tell("overview");
}

function takeDevices({ devices }) {
  fleet.devices = devices;
  fleet.byId = new Map(devices.map((device) => [device.device_id, device]));
  tell("devices");
}

const RANK = { critical: 0, warning: 1, info: 2 };
const bySeverityThenNewest = (a, b) =>
  (RANK[a.severity] ?? 3) - (RANK[b.severity] ?? 3) || b.opened_ms - a.opened_ms || (a.id < b.id ? -1 : 1);

function takeAlerts({ alerts }) {
  fleet.alerts = [...alerts].sort(bySeverityThenNewest);
  tell("alerts");
}

/** After an acknowledgement: show the worker's answer at once, the stream confirms it. */
export function replaceAlert(alert) {
  fleet.alerts = fleet.alerts.map((known) => (known.id === alert.id ? alert : known));
  tell("alerts");
}

function connect() {
  clearTimeout(retryTimer);
  source?.close();
  connectedAt = performance.now();
  source = new EventSource("api/live");
  const follow = (kind, take) =>
    source.addEventListener(kind, (event) => {
      take(JSON.parse(event.data));
      heard();
    });
  follow("overview", takeOverview);
  follow("devices", takeDevices);
  follow("alerts", takeAlerts);
  // The stream sends alerts when they change: what changed while it was down is fetched.
  source.addEventListener("open", refreshAlerts);
  source.addEventListener("error", () => {
    // After an HTTP error the browser gives up for good; start anew.
    if (source.readyState !== EventSource.CLOSED) return;
    retryTimer = setTimeout(connect, RECONNECT_MS);
    refreshAlerts(); // which finds out whether it is the login that is over
  });
}

async function refreshAlerts() {
  try {
    takeAlerts(await api.alerts({ state: "attention", limit: 1000 }));
  } catch { /* the link says so */ }
}

/** Returns a promise of the first sight of the fleet. */
export function startLive() {
  connect();
  const seen = new Promise((resolve) => { on("overview", resolve); });
  Promise.all([api.overview(), api.devices()]).then(
    ([overview, devices]) => {
      if (!fleet.byId.size) takeDevices(devices);
      if (!fleet.overview) takeOverview(overview);
    },
    () => { /* the link says so */ },
  );
  setInterval(() => {
    checkLink();
    tell("second");
  }, 1000);
  // A laptop that slept: say at once that the picture is old, not after the next tick.
  document.addEventListener("visibilitychange", () => document.hidden || checkLink());
  return seen;
}
