// Above the dashboard on safety: the alerts that a person has to see to, gravest first.

import { createCard, updateCard } from "./alert_card.js";
import { byId, reconcile, setAttr, setHidden, setText } from "./dom.js";
import { number } from "./format.js";
import { fleet, on } from "./live.js";

const MOST = 3;

let chosen = null;

export function startSafety() {
  on("alerts", paint);
  on("overview", paint);
  on("link", paint);
}

export function showSafety(what) {
  chosen = what;
  paint();
}

export function hideSafety() {
  chosen = null;
}

function paint() {
  if (!chosen) return;
  const found = fleet.alerts.filter((alert) => Object.entries(chosen).every(([name, values]) => values.includes(alert[name])));
  const unseen = fleet.devices.filter(({ health }) => health === "silent" || health === "unknown").length;
  reconcile(byId("safety-alerts"), found.slice(0, MOST), (alert) => alert.id, createCard, (card, alert) => updateCard(card, alert));
  setText(byId("safety-all"), found.length > MOST ? `All ${number(found.length)} to see to` : "All alerts");
  setAttr(byId("safety-all"), "href", chosen.device_id?.length === 1 ? `#/alerts?device=${encodeURIComponent(chosen.device_id[0])}` : "#/alerts");
  setHidden(byId("safety-none"), found.length > 0);
  setText(byId("safety-none"), noneText(unseen));
}

function noneText(unseen) {
  if (!fleet.overview) return "Waiting for the worker …";
  if (fleet.link === "lost") return "Not known: the worker is not heard.";
  if (!fleet.devices.length) return "None – and no device has reported yet, so this says nothing.";
  return unseen ? `None in what was seen; ${number(unseen)} devices are not seen now.` : "None is open or waits for somebody, among what was seen.";
}
