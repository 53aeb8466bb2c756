// One alert in full: every fact a report needs, and the history of what was said when.

import { acknowledgement, deviceHref, evidenceHref, excess, flagChips, profileText, stateText } from "./alert_card.js";
import { askTo } from "./acts.js";
import { api } from "./api.js";
import { badge, byId, el, paintBadge, setText } from "./dom.js";
import { NONE, deviceText, duration, isDevice, iso, missing, moment, quantity } from "./format.js";

const NARROW = matchMedia("(max-width: 999px)");

let shownId = null;
let stateNode = null;
let shownAlert = null;
let lastAnswer = "";

export function leaveAlert() {
  shownId = null;
  shownAlert = null;
  lastAnswer = "";
  byId("alert-detail").replaceChildren(el("p", { class: "quiet hint" }, "Choose an alert to see its facts and its history."));
}

export function showAlert(id) {
  if (shownId !== id) {
    shownId = id;
    shownAlert = null;
    lastAnswer = "";
    byId("alert-detail").replaceChildren(el("p", { class: "quiet hint" }, "Asking the worker …"));
    if (NARROW.matches) {
      scrollTo(0, 0);
      byId("alert-detail").focus({ preventScroll: true });
    }
  }
  reloadAlert();
}

export async function reloadAlert() {
  const id = shownId;
  if (!id) return;
  try {
    const answer = await api.alert(id);
    const text = JSON.stringify(answer);
    if (id !== shownId || text === lastAnswer) return;
    lastAnswer = text;
    build(answer);
  } catch (error) {
    if (id === shownId && !shownAlert) byId("alert-detail").replaceChildren(back(), el("p", { class: "quiet hint" }, error.message));
  }
}

/** Times that run on; the rest changes only with the worker's answer. */
export function paintAlert() {
  if (stateNode && shownAlert) setText(stateNode, stateText(shownAlert));
}

const back = () => el("a", { class: "back", href: "#/alerts" }, "← All alerts");

function build({ alert, events }) {
  shownAlert = alert;
  const severity = badge();
  paintBadge(severity, alert.severity);
  stateNode = el("span", { class: "state" });
  const seen = acknowledgement(alert);
  const flags = flagChips(alert);
  const focused = byId("alert-detail").contains(document.activeElement);
  byId("alert-detail").replaceChildren(
    back(),
    el("div", { class: "detail-head" }, severity, el("h2", {}, alert.rule)),
    el("p", { class: "reading" }, el("span", { class: "value" }, quantity(alert.value, alert.unit)),
      el("span", { class: "limit" }, `limit ${quantity(alert.limit, alert.unit)}`), el("span", { class: "excess" }, excess(alert))),
    el("p", { class: "detail-state" }, stateNode),
    ...(flags.length ? [el("div", { class: "flags" }, ...flags)] : []),
    ...(seen.length ? [el("p", { class: "seen" }, ...seen)] : []),
    ...(alert.assigned_to ? [el("p", {}, "Assigned to ", el("strong", {}, alert.assigned_to))] : []),
    el("p", { class: "detail-acts" }, ...acts(alert),
      ...(!isDevice(alert) ? [] : [el("a", { class: "button", href: evidenceHref(alert) }, "Show the readings")])),
    el("h3", {}, "Facts"), facts(alert),
    el("h3", {}, "History"), history(events));
  paintAlert();
  if (focused) byId("alert-detail").focus({ preventScroll: true });
}

/** What a person can do; an alert that was taken back needs no acknowledgement. */
function acts(alert) {
  const offered = [["assign", alert.assigned_to ? "Assign anew" : "Assign"], ["comment", "Comment"]];
  if (alert.state !== "withdrawn") offered.unshift(["ack", alert.acknowledged ? "Acknowledge again" : "Acknowledge"]);
  return offered.map(([act, word]) => {
    const primary = act === "ack" && !alert.acknowledged;
    const button = el("button", { type: "button", class: `button${primary ? " primary" : ""}`, "data-act": act }, word);
    button.addEventListener("click", () => askTo(act, alert));
    return button;
  });
}

function facts(alert) {
  const rows = [
    ["Device", !isDevice(alert) ? deviceText(alert) : el("a", { class: "id", href: deviceHref(alert) }, alert.device_id)],
    ["Model", alert.model ?? NONE],
    ["Hardware, firmware", `${alert.hw ?? NONE}, ${alert.fw ?? NONE}`],
    ["Session", alert.session_id ?? "none"],
    ["Onset", stamp(alert.opened_ms)],
    ["Last update", stamp(alert.updated_ms)],
    ["Severity rose", alert.escalated_ms ? stamp(alert.escalated_ms) : null],
    ["Closed", alert.closed_ms ? stamp(alert.closed_ms) : null],
    ["Devices", alert.devices?.length ? alert.devices.join(", ") : null],
    ["Remark", alert.detail || null],
    ["Profile", profileText(alert)],
    ["Rule version", alert.rule_version],
    ["Source", alert.source],
    ["Messages", evidence(alert.evidence)],
    ["Alert id", alert.id],
  ];
  return el("dl", { class: "pairs" }, ...rows.filter(([, value]) => value !== null)
    .flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)]));
}

const stamp = (ms) => el("time", { datetime: iso(ms), title: iso(ms) }, moment(ms));

function evidence(references) {
  if (!references.length) return NONE;
  const shown = references.slice(0, 8).map(({ boot_id: boot, seq }) => `boot ${boot}, seq ${seq}`).join("; ");
  return references.length > 8 ? `${shown}; and ${references.length - 8} more` : shown;
}

function history(events) {
  if (!events.length) return el("p", { class: "quiet" }, "No step is on record.");
  return el("ol", { class: "history" }, ...events.map((step, index) => {
    const kind = badge();
    paintBadge(kind, step.alert.severity);
    const before = events[index - 1];
    const later = before && !missing(before.at_ms) ? `+${duration(step.at_ms - before.at_ms)}` : "";
    return el("li", {},
      el("p", {}, el("strong", {}, stepWords(step)), " ", stamp(step.at_ms), " ", el("span", { class: "quiet" }, later)),
      step.actor
        ? el("p", { class: "quiet" }, `by ${step.actor}`)
        : el("p", { class: "quiet" }, kind, ` ${quantity(step.alert.value, step.alert.unit)}`),
      ...(step.note ? [el("p", { class: "note" }, step.note)] : []));
  }));
}

const stepWords = ({ event, alert }) => (event === "assigned" ? `assigned to ${alert.assigned_to}` : event);
