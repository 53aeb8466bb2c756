// Beside the dashboard of the fleet: one row for each device as it is this second, changed in place.

import { badge, byId, debounce, el, paintBadge, reconcile, setAttr, setHidden, setText } from "./dom.js";
import { NONE, ago, celsius, iso, microamps, missing, moment, number, ohms, zone } from "./format.js";
import { fleet, now, on } from "./live.js";
import { sparkline } from "./sparkline.js";

const PAGE = 20;
const RESORT_MS = 5000;
const TRAIL_MS = 60_000;
const HEALTHS = ["critical", "warning", "silent", "unknown", "ok", "idle", "off"];
const RUN_STATES = ["fault", "running", "paused", "armed", "ended", "idle"];

const healthRank = (device) => HEALTHS.indexOf(device.health) + 1 || 99;
const alertCount = ({ alerts_open: open }) => open.critical + open.warning + open.info;
const low = (value) => (missing(value) ? Infinity : -value);

// Each column in reading order: how it is called, and what it sorts by (smallest first).
const COLUMNS = [
  { id: "health", label: "Health", by: healthRank },
  { id: "device", label: "Device", by: (d) => d.device_id },
  { id: "state", label: "Session", by: (d) => RUN_STATES.indexOf(d.run_state) + 1 || 99 },
  { id: "current", label: "Current", by: (d) => low(d.i_peak_ua) },
  { id: "contact", label: "Contact", by: (d) => low(d.z_ohm) },
  { id: "head", label: "Head", by: (d) => low(d.temp_head_c) },
  { id: "alerts", label: "Alerts", by: (d) => -(d.alerts_open.critical * 1e6 + d.alerts_open.warning * 1e3 + d.alerts_open.info) },
  { id: "seen", label: "Last seen", by: (d) => low(d.last_seen_ms) },
];

let sort = { id: "health", reverse: false };
let shownRows = PAGE;
let order = [];
let orderedAt = 0;
let visible = false;
let chosen = {};
const trails = new Map();
const rowsInSight = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) rowsInSight[isIntersecting ? "add" : "delete"](target);
  paintTrails();
}, { rootMargin: "100px" });

export function startFleet() {
  for (const column of COLUMNS) {
    const button = el("button", { type: "button", class: "sort" }, column.label);
    button.addEventListener("click", () => sortBy(column.id, sort.id === column.id && !sort.reverse));
    byId("fleet-head").append(el("th", { role: "columnheader", scope: "col", class: `c-${column.id}`, "data-column": column.id }, button));
    byId("fleet-sort").append(el("option", { value: column.id }, `Sort: ${column.label.toLowerCase()}`));
  }
  for (const health of HEALTHS) byId("fleet-health").append(el("option", {}, health));
  const refilter = () => { shownRows = PAGE; orderedAt = 0; paintRows(); };
  byId("fleet-text").addEventListener("input", debounce(refilter));
  for (const id of ["fleet-health", "fleet-alerts-only"]) byId(id).addEventListener("change", refilter);
  byId("fleet-sort").addEventListener("change", (event) => sortBy(event.target.value, false));
  byId("fleet-more").addEventListener("click", () => { shownRows += PAGE; orderedAt = 0; paintRows(); });
  byId("fleet-rows").addEventListener("click", (event) => {
    // The whole row leads to the device; the link in it is the way for the keyboard.
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a") && !getSelection().toString()) location.hash = row.querySelector("a").hash;
  });
  on("devices", () => { keepTrails(); if (visible) paintRows(); });
  on("link", () => visible && paintRows());
  on("second", () => visible && fleet.link === "lost" && paintRows());
  sortBy("health", false);
}

/** `what` a person has chosen: lists of models, firmware and devices. */
export function showFleet(what) {
  visible = true;
  chosen = what;
  orderedAt = 0;
  paintRows();
}

export function hideFleet() {
  visible = false;
}

function sortBy(id, reverse) {
  sort = { id, reverse };
  byId("fleet-sort").value = id;
  for (const head of byId("fleet-head").children) {
    setAttr(head, "aria-sort", head.dataset.column === id ? (reverse ? "descending" : "ascending") : null);
  }
  orderedAt = 0;
  paintRows();
}

function keepTrails() {
  const at = now();
  for (const { device_id: id, i_peak_ua: peak } of fleet.devices) {
    const trail = trails.get(id) ?? trails.set(id, []).get(id);
    trail.push([at, missing(peak) ? null : peak]);
    while (trail.length && trail[0][0] < at - TRAIL_MS) trail.shift();
  }
  for (const id of trails.keys()) if (!fleet.byId.has(id)) trails.delete(id);
}

function matching() {
  const words = byId("fleet-text").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const health = byId("fleet-health").value;
  const alertsOnly = byId("fleet-alerts-only").checked;
  return fleet.devices.filter((d) => {
    if (Object.entries(chosen).some(([name, values]) => !values.includes(d[name]))) return false;
    if (health && d.health !== health) return false;
    if (alertsOnly && !alertCount(d)) return false;
    if (!words.length) return true;
    const text = [d.device_id, d.model, d.hw, d.fw, d.session_id, d.zone, d.run_state, d.health, d.contact_state].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function sorted(devices) {
  const { by } = COLUMNS.find((column) => column.id === sort.id);
  const sign = sort.reverse ? -1 : 1;
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return devices
    .map((device) => [by(device), device])
    .sort(([a, x], [b, y]) => sign * compare(a, b) || compare(x.device_id, y.device_id))
    .map(([, device]) => device);
}

/** Rows change place at most every few seconds, and never under a person's pointer or focus. */
function mayReorder() {
  if (orderedAt === 0 || order.length === 0) return true;
  const rows = byId("fleet-rows");
  if (rows.matches(":hover") || rows.contains(document.activeElement)) return false;
  return performance.now() - orderedAt > RESORT_MS;
}

function paintRows() {
  const found = matching();
  const reorder = mayReorder();
  if (reorder) {
    order = sorted(found).map((device) => device.device_id);
    orderedAt = performance.now();
  } else {
    const known = new Set(order);
    order = [...order, ...found.map((d) => d.device_id).filter((id) => !known.has(id))];
  }
  const wanted = new Set(found.map((device) => device.device_id));
  const rows = order.filter((id) => wanted.has(id)).slice(0, shownRows).map((id) => fleet.byId.get(id));
  reconcile(byId("fleet-rows"), rows, (device) => device.device_id, createRow, updateRow, !reorder);
  paintTrails();

  const all = fleet.devices.length;
  setText(byId("fleet-count"), found.length === all ? `${number(all)} devices` : `${number(found.length)} of ${number(all)} devices`);
  setText(byId("fleet-more"), `Show ${number(Math.min(PAGE, found.length - rows.length))} more`);
  setHidden(byId("fleet-more"), found.length <= rows.length);
  setHidden(byId("fleet-table"), found.length === 0);
  setHidden(byId("fleet-empty"), found.length !== 0);
  paintEmpty(all);
}

function paintEmpty(all) {
  setText(byId("fleet-empty"), all
    ? "No device matches the filter."
    : fleet.overview
      ? "No device has reported yet. Publish to mc/v1/<device_id>/current, or start simulated ones with “microcurrent simulate”."
      : "Waiting for the worker …");
}

function createRow(device) {
  const cell = (column, ...content) => el("td", { role: "cell", class: `c-${column}` }, ...content);
  const main = () => el("span", { class: "main" });
  const sub = () => el("span", { class: "sub" });
  const row = el("tr", { role: "row" },
    cell("health", badge()),
    cell("device", el("a", { href: `#/device/${encodeURIComponent(device.device_id)}`, class: "main id", title: device.device_id }, device.device_id), sub()),
    cell("state", main(), sub()),
    cell("current", el("span", { class: "stack" }, main(), sub()), el("canvas", { class: "trail", "aria-hidden": true })),
    cell("contact", main(), sub()),
    cell("head", main()),
    cell("alerts", badge(), badge(), badge(), el("span", { class: "none" }, NONE)),
    cell("seen", main(), sub()));
  const pair = (column) => [...row.querySelectorAll(`.c-${column} .main, .c-${column} .sub`)];
  row.parts = {
    health: row.querySelector(".c-health .badge"), about: row.querySelector(".c-device .sub"),
    state: pair("state"), current: pair("current"), contact: pair("contact"), head: pair("head"), seen: pair("seen"),
    alerts: [...row.querySelectorAll(".c-alerts .badge")], none: row.querySelector(".none"), trail: row.querySelector("canvas"),
  };
  sight.observe(row);
  return row;
}

function updateRow(row, d) {
  const { parts } = row;
  row.device = d;
  const old = fleet.link === "lost";
  setAttr(row, "data-health", old ? "silent" : d.health);
  paintBadge(parts.health, old ? "silent" : d.health, old ? `was ${d.health}` : d.health);
  setText(parts.about, d.model ? `${d.model} · fw ${d.fw ?? NONE}` : "not identified yet");
  setText(parts.state[0], d.run_state ?? NONE);
  setText(parts.state[1], d.zone && d.run_state !== "idle" ? zone(d.zone) : "");
  setText(parts.current[0], microamps(d.i_peak_ua));
  setText(parts.current[1], missing(d.i_peak_ua) ? "" : `set ${microamps(d.i_set_ua)}`);
  setText(parts.contact[0], d.contact_state ?? NONE);
  setAttr(parts.contact[0], "data-contact", d.contact_state);
  setText(parts.contact[1], missing(d.z_ohm) ? "" : ohms(d.z_ohm));
  setText(parts.head[0], celsius(d.temp_head_c));
  ["critical", "warning", "info"].forEach((severity, index) => {
    paintBadge(parts.alerts[index], severity, d.alerts_open[severity]);
    setAttr(parts.alerts[index], "title", `${d.alerts_open[severity]} ${severity}`);
    setHidden(parts.alerts[index], !d.alerts_open[severity]);
  });
  setHidden(parts.none, alertCount(d) > 0);
  setText(parts.seen[0], ago(d.last_seen_ms, now()));
  setAttr(parts.seen[0], "title", `${moment(d.last_seen_ms)} (${iso(d.last_seen_ms)})`);
  setText(parts.seen[1], [d.online === false ? "offline" : "", d.missing ? `${number(d.missing)} missing` : ""].filter(Boolean).join(" · "));
}

/**
 * The last minute of current, in the rows on screen. Drawn after all text and measured once:
 * measuring each canvas between writes would lay out the whole table once for each row.
 */
function paintTrails() {
  const rows = [...rowsInSight].filter((row) => row.isConnected);
  if (!rows.length) return;
  const { clientWidth: width, clientHeight: height } = rows[0].parts.trail;
  const at = now();
  for (const { parts, device } of rows) {
    sparkline(parts.trail, trails.get(device.device_id) ?? [],
      { fromMs: at - TRAIL_MS, toMs: at, gapMs: 5000, topValue: (device.i_set_ua ?? 1) * 1.2, width, height });
  }
}
