// The alerts page: those to see to (open, or never acknowledged) from the stream, those that are over
// asked for, one of them in detail.

import { startActs } from "./acts.js";
import { createCard, updateCard } from "./alert_card.js";
import { leaveAlert, paintAlert, reloadAlert, showAlert } from "./alert_detail.js";
import { api } from "./api.js";
import { byId, debounce, el, reconcile, setAttr, setHidden, setText } from "./dom.js";
import { number } from "./format.js";
import { fleet, on } from "./live.js";

const PAGE = 60;
const ASK_AGAIN_S = 10;

let visible = false;
let tab = "open";
let limit = PAGE;
let closed = null;
let refusal = "";
let selected = null;
let seconds = 0;

export function startAlerts() {
  startActs((alert) => {
    if (tab === "closed") askClosed();
    if (alert.id === selected) reloadAlert();
  });
  for (const button of byId("alert-state").children) {
    button.addEventListener("click", () => chooseTab(button.dataset.value));
  }
  const refilter = () => { limit = PAGE; refresh(); };
  for (const id of ["alert-severity", "alert-rule", "alert-unacknowledged"]) byId(id).addEventListener("change", refilter);
  byId("alert-device").addEventListener("input", debounce(refilter, 250));
  byId("alert-more").addEventListener("click", () => { limit += PAGE; refresh(); });
  on("alerts", () => {
    paintRules();
    if (visible) refresh();
    if (visible && selected) reloadAlert();
  });
  on("second", () => {
    if (!visible) return;
    seconds += 1;
    if (tab === "closed" && seconds % ASK_AGAIN_S === 0) askClosed();
    paint();
    paintAlert();
  });
}

export function showAlerts(id, parameters) {
  visible = true;
  if (parameters.has("device")) byId("alert-device").value = parameters.get("device");
  selected = id || null;
  setAttr(document.querySelector("#view-alerts .split"), "data-selected", String(selected !== null));
  if (selected) showAlert(selected);
  else leaveAlert();
  refresh();
}

export function hideAlerts() {
  visible = false;
}

function chooseTab(name) {
  tab = name;
  limit = PAGE;
  closed = null;
  for (const button of byId("alert-state").children) setAttr(button, "aria-pressed", String(button.dataset.value === tab));
  refresh();
}

function refresh() {
  if (tab === "closed") askClosed();
  paint();
}

const filters = () => ({
  severity: byId("alert-severity").value,
  rule: byId("alert-rule").value,
  device: byId("alert-device").value.trim(),
});

async function askClosed() {
  const asked = { tab, limit };
  // The device is matched here by any part of its id; the API knows whole ids only.
  const { severity, rule, device } = filters();
  const whole = fleet.byId.has(device) ? device : "";
  try {
    const { alerts } = await api.alerts({ state: "over", severity, rule, device: whole, limit: device && !whole ? 1000 : limit + 1 });
    if (asked.tab !== tab || asked.limit !== limit) return;
    closed = alerts;
    refusal = "";
  } catch (error) {
    refusal = error.message;
  }
  paintRules();
  paint();
}

function matching() {
  const { severity, rule, device } = filters();
  const unseenOnly = byId("alert-unacknowledged").checked;
  return (tab === "open" ? fleet.alerts : closed ?? []).filter((alert) =>
    (!severity || alert.severity === severity) && (!rule || alert.rule === rule) &&
    (!device || alert.device_id.toLowerCase().includes(device.toLowerCase())) && (!unseenOnly || !alert.acknowledged));
}

/** Rules are offered as they occur: the page holds no list of its own. */
function paintRules() {
  const select = byId("alert-rule");
  const rules = new Set([...select.options].map((option) => option.value).filter(Boolean));
  const before = rules.size;
  for (const alert of [...fleet.alerts, ...(closed ?? [])]) rules.add(alert.rule);
  if (rules.size === before) return;
  const chosen = select.value;
  select.replaceChildren(el("option", { value: "" }, "Any rule"), ...[...rules].sort().map((rule) => el("option", {}, rule)));
  select.value = chosen;
}

function paint() {
  const found = matching();
  const shown = found.slice(0, limit);
  setText(byId("open-count"), fleet.alerts.length ? number(fleet.alerts.length) : "");
  reconcile(byId("alert-list"), shown, (alert) => alert.id, createCard, (card, alert) => updateCard(card, alert, selected));
  setHidden(byId("alert-more"), found.length <= shown.length);
  setText(byId("alert-more"), tab === "open" ? `Show more of ${number(found.length)}` : "Show older ones");
  setHidden(byId("alert-empty"), shown.length > 0);
  setText(byId("alert-empty"), emptyText());
}

function emptyText() {
  if (refusal && tab === "closed") return refusal;
  if (tab === "closed" && closed === null) return "Asking the worker …";
  if (tab === "open" && !fleet.overview) return "Waiting for the worker …";
  if (Object.values(filters()).some(Boolean) || byId("alert-unacknowledged").checked) return "No alert matches the filter.";
  if (tab === "closed") return "No alert is over yet.";
  if (!fleet.devices.length) return "No alert – and no device has reported yet, so this says nothing.";
  return "No alert is open or waits for somebody, among what was seen. What was not seen stands on the Fleet page under “Devices not seen”.";
}
