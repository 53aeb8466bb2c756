// Above the dashboard of a device: what it says of itself this second, and its alerts.

import { createCard, updateCard } from "./alert_card.js";
import { badge, byId, el, paintBadge, reconcile, setHidden, setText } from "./dom.js";
import { NONE, ago, celsius, microamps, number, ohms, zone } from "./format.js";
import { fleet, now, on } from "./live.js";

const MOST_ALERTS = 3;

const online = (d) => (d.online === null ? "not known" : d.online ? "online" : "offline");

const FACTS = [
  ["Session", (d) => [d.session_id ?? "none", d.run_state].filter(Boolean).join(", ")],
  ["Zone", (d) => zone(d.zone)],
  ["Current, peak", (d) => microamps(d.i_peak_ua)],
  ["Contact", (d) => (d.contact_state ? `${d.contact_state}, ${ohms(d.z_ohm)}` : NONE)],
  ["Head", (d) => celsius(d.temp_head_c)],
  ["Connection", (d) => `${online(d)}, last seen ${ago(d.last_seen_ms, now())}`],
];

const values = [];
const health = badge();
let id = null;

export function startDevice() {
  byId("device-badge").append(health);
  for (const [label] of FACTS) {
    const value = el("dd", {}, NONE);
    values.push(value);
    byId("device-facts").append(el("div", {}, el("dt", {}, label), value));
  }
  for (const kind of ["devices", "alerts", "link", "second"]) on(kind, paint);
}

export function showDevice(chosen) {
  id = chosen.device_id?.[0] ?? "";
  paint();
}

export function hideDevice() {
  id = null;
}

function paint() {
  if (id === null) return;
  const device = fleet.byId.get(id);
  const old = fleet.link === "lost";
  const known = device?.health ?? "unknown";
  setHidden(byId("device-body"), !device);
  setHidden(byId("device-empty"), Boolean(device));
  setText(byId("device-empty"), emptyText());
  setHidden(health, !id);
  paintBadge(health, old ? "silent" : known, old ? `was ${known}` : known);
  FACTS.forEach(([, read], k) => setText(values[k], device ? read(device) : NONE));
  const alerts = fleet.alerts.filter((alert) => alert.device_id === id);
  reconcile(byId("device-alerts"), alerts.slice(0, MOST_ALERTS), (alert) => alert.id, createCard, (card, alert) => updateCard(card, alert));
  setHidden(byId("device-more-alerts"), alerts.length <= MOST_ALERTS);
  setText(byId("device-more-alerts"), `All ${number(alerts.length)} to see to`);
  byId("device-more-alerts").href = `#/alerts?device=${encodeURIComponent(id)}`;
  setHidden(byId("device-no-alerts"), alerts.length > 0);
  setText(byId("device-no-alerts"), known === "silent" || known === "unknown" || old
    ? "No alert to see to – but the device is not seen now."
    : "No alert to see to, in what was seen.");
}

function emptyText() {
  if (!fleet.overview) return "Waiting for the worker …";
  if (!fleet.devices.length) return "No device has reported yet. Publish to mc/v1/<device_id>/current …";
  if (!id) return "Choose a device above, or take one from the Fleet page.";
  return `No device named “${id}” has reported.`;
}
