// One alert as a card: what, where, how far above its limit, on which firmware and profile.

import { askTo } from "./acts.js";
import { badge, el, icon, paintBadge, setAttr, setHidden, setText } from "./dom.js";
import { NONE, ago, celsius, deviceText, duration, isCelsius, isDevice, isLine, iso, missing, moment, number, quantity } from "./format.js";
import { href } from "./links.js";
import { now } from "./live.js";

const FLAGS = [
  ["retrospective", "Retrospective", "raised on data that came more than 120 s late"],
  ["from_rejected", "From a refused message", "the message failed validation; the danger in it was judged all the same"],
  ["confirmed", "Confirmed", "seen again in a 10 Hz burst"],
  ["service", "Needs service", "happened so often that the device needs service"],
];

export const alertHref = (alert) => href("alerts", alert.id);
export const deviceHref = (alert) => (isDevice(alert) ? evidenceHref(alert) : alertHref(alert));

const AROUND_MS = 300_000;
const MOST_SHOWN_MS = 6 * 3_600_000;

/** The device's charts around the alert: from a while before its onset until a while after its end. */
export function evidenceHref(alert) {
  const to = Math.min((alert.closed_ms ?? alert.updated_ms) + AROUND_MS, alert.opened_ms + MOST_SHOWN_MS);
  return href("device", alert.device_id, { from: alert.opened_ms - AROUND_MS, to });
}

export function profileText(alert) {
  if (isLine(alert)) return NONE;
  return alert.profile_id ? `${alert.profile_id} v${alert.profile_version}` : "none covers this device";
}

/** "2.3 × the limit", where the value lies above it and the ratio means something. */
export function excess({ value, limit, unit }) {
  if (missing(value) || missing(limit) || limit <= 0 || value <= limit) return "";
  if (isCelsius(unit)) return `${celsius(value - limit)} above the limit`; // no ratio on such a scale
  const ratio = value / limit;
  return ratio < 1.005 ? "" : `${number(ratio, ratio < 10 ? 2 : 0)} × the limit`;
}

export function stateText(alert) {
  if (alert.state === "open") return `open for ${duration(now() - alert.opened_ms)}`;
  const end = alert.closed_ms ?? alert.updated_ms;
  const lasted = `after ${duration(end - alert.opened_ms)}`;
  if (alert.state === "withdrawn") return "withdrawn: later data showed that it stood on an incomplete picture";
  return `closed ${moment(end)}, ${lasted}${alert.close_reason ? ` (${alert.close_reason})` : ""}`;
}

export function flagChips(alert) {
  return FLAGS.filter(([name]) => alert[name]).map(([, label, why]) => el("span", { class: "chip", title: why }, label));
}

export function createCard() {
  const parts = {
    badge: badge(),
    rule: el("a", { class: "rule" }),
    when: el("time", { class: "when" }),
    device: el("a", { class: "id" }),
    model: el("span", { class: "quiet" }),
    value: el("span", { class: "value" }),
    limit: el("span", { class: "limit" }),
    excess: el("span", { class: "excess" }),
    onset: el("dd"), session: el("dd", { class: "id" }), firmware: el("dd"), profile: el("dd"), source: el("dd"),
    remark: el("p", { class: "quiet" }),
    flags: el("div", { class: "flags" }),
    state: el("span", { class: "state" }),
    seen: el("span", { class: "seen" }),
    assigned: el("span", { class: "assigned" }),
    button: el("button", { type: "button", class: "button" }, "Acknowledge"),
  };
  const fact = (label, value) => el("div", {}, el("dt", {}, label), value);
  const card = el("article", { class: "card" },
    el("header", {}, parts.badge, parts.rule, parts.when),
    el("p", { class: "where" }, parts.device, parts.model),
    el("p", { class: "reading" }, parts.value, parts.limit, parts.excess),
    el("dl", { class: "meta" }, fact("Onset", parts.onset), fact("Session", parts.session), fact("Firmware", parts.firmware),
      fact("Profile", parts.profile), fact("Source", parts.source)),
    parts.remark,
    parts.flags,
    el("footer", {}, parts.state, parts.assigned, parts.seen, parts.button));
  card.parts = parts;
  parts.button.addEventListener("click", () => askTo("ack", card.alert));
  return card;
}

export function updateCard(card, alert, selectedId = null) {
  const { parts } = card;
  const changed = card.alert !== alert;
  card.alert = alert;
  setAttr(card, "data-kind", alert.severity);
  setAttr(card, "data-state", alert.state);
  setAttr(card, "aria-current", alert.id === selectedId ? "true" : null);
  setText(parts.when, ago(alert.opened_ms, now()));
  setText(parts.state, stateText(alert));
  setText(parts.onset, `${moment(alert.opened_ms)} (${ago(alert.opened_ms, now())})`);
  if (!changed) return;
  paintBadge(parts.badge, alert.severity);
  setText(parts.rule, alert.rule);
  setAttr(parts.rule, "href", alertHref(alert));
  setAttr(parts.when, "datetime", iso(alert.opened_ms));
  setAttr(parts.when, "title", iso(alert.opened_ms));
  setText(parts.device, deviceText(alert));
  setAttr(parts.device, "href", deviceHref(alert));
  setText(parts.model, alert.model ?? (isLine(alert) ? "" : "model unknown"));
  setText(parts.value, quantity(alert.value, alert.unit));
  setText(parts.limit, `limit ${quantity(alert.limit, alert.unit)}`);
  setText(parts.excess, excess(alert));
  setText(parts.session, alert.session_id ?? "none");
  setText(parts.firmware, `${alert.fw ?? NONE}${alert.hw ? `, hardware ${alert.hw}` : ""}`);
  setText(parts.profile, profileText(alert));
  setText(parts.source, alert.source);
  setText(parts.remark, alert.detail);
  setHidden(parts.remark, !alert.detail);
  parts.flags.replaceChildren(...flagChips(alert));
  setHidden(parts.flags, !parts.flags.children.length);
  parts.seen.replaceChildren(...acknowledgement(alert));
  setHidden(parts.seen, !alert.acknowledged);
  setText(parts.assigned, alert.assigned_to ? `Assigned to ${alert.assigned_to}` : "");
  setHidden(parts.assigned, !alert.assigned_to);
  setHidden(parts.button, Boolean(alert.acknowledged) || alert.state === "withdrawn");
  setAttr(parts.button, "aria-label", `Acknowledge ${alert.rule} on ${deviceText(alert)}`);
}

export function acknowledgement({ acknowledged }) {
  if (!acknowledged) return [];
  const said = `Acknowledged by ${acknowledged.by}, ${moment(acknowledged.at_ms)}`;
  return [icon("ok"), el("span", {}, acknowledged.note ? `${said}: “${acknowledged.note}”` : said)];
}
