// What is known of one device beside its charts: facts, open alerts, its ledger, its envelope.

import { createCard, updateCard } from "./alert_card.js";
import { badge, byId, el, paintBadge, reconcile, setHidden, setText } from "./dom.js";
import { NONE, ago, celsius, duration, microamps, millivolts, missing, moment, number, ohms, plain, zone } from "./format.js";
import { fleet, now } from "./live.js";

const online = (d) => (d.online === null ? "not known" : d.online ? "online" : "offline");
const charging = (d) => (d.charging === null || missing(d.battery_mv) ? "" : d.charging ? ", charging" : "");

const FACTS = [
  ["Model", (d) => d.model ?? "not known"],
  ["Hardware, firmware", (d) => `${d.hw ?? NONE}, ${d.fw ?? NONE}`],
  ["Session", (d) => d.session_id ?? "none"],
  ["State", (d) => d.run_state ?? "not known"],
  ["Zone", (d) => zone(d.zone)],
  ["Current, peak", (d) => microamps(d.i_peak_ua)],
  ["Contact", (d) => (d.contact_state ? `${d.contact_state}, ${ohms(d.z_ohm)}` : NONE)],
  ["Head", (d) => celsius(d.temp_head_c)],
  ["Battery", (d) => `${millivolts(d.battery_mv)}${charging(d)}`],
  ["Connection", online],
  ["Last seen", (d) => ago(d.last_seen_ms, now())],
  ["Last reading", (d) => (d.last_event_ms ? moment(d.last_event_ms, now()) : "none")],
];

const LEDGER = ["accepted", "pending", "stored", "duplicate", "quarantined", "missing"];

const ENVELOPE = [
  ["Peak current", (p) => plain(microamps(p.i_peak_max_ua))],
  ["R.m.s. current", (p) => plain(microamps(p.i_rms_max_ua))],
  ["Contact good up to", (p) => plain(ohms(p.z_good_max_ohm))],
  ["Contact off from", (p) => plain(ohms(p.z_off_ohm))],
  ["Head temperature", (p) => plain(celsius(p.temp_max_c))],
  ["Session", (p) => (missing(p.session_max_s) ? NONE : duration(p.session_max_s * 1000))],
];

/** A definition list whose values are written again and again in place. */
function writer(list, labels) {
  const values = labels.map((label) => {
    const value = el("dd", {}, NONE);
    list.append(el("div", {}, el("dt", {}, label), value));
    return value;
  });
  return (texts) => values.forEach((value, index) => setText(value, texts[index]));
}

let writeFacts;
let writeLedger;
let writeEnvelope;
const health = badge();

export function startFacts() {
  byId("device-badge").append(health);
  writeFacts = writer(byId("device-facts"), FACTS.map(([label]) => label));
  writeLedger = writer(byId("device-ledger"), LEDGER);
  writeEnvelope = writer(byId("device-profile"), ENVELOPE.map(([label]) => label));
}

export function paintFacts(deviceId) {
  const device = fleet.byId.get(deviceId);
  const old = fleet.link === "lost";
  const known = device?.health ?? "unknown";
  setHidden(health, !deviceId);
  paintBadge(health, old ? "silent" : known, old ? `was ${known}` : known);
  writeFacts(FACTS.map(([, read]) => (device ? read(device) : NONE)));
  writeLedger(LEDGER.map((name) => (device ? number(device[name]) : NONE)));
  const alerts = fleet.alerts.filter((alert) => alert.device_id === deviceId);
  reconcile(byId("device-alerts"), alerts, (alert) => alert.id, createCard, updateCardHere);
  setHidden(byId("device-no-alerts"), alerts.length > 0);
  setText(byId("device-no-alerts"), known === "silent" || known === "unknown" || old
    ? "None – but the device is not seen now."
    : "None in what was seen.");
}

const updateCardHere = (card, alert) => updateCard(card, alert);

export function paintEnvelope(profile) {
  writeEnvelope(ENVELOPE.map(([, read]) => (profile ? read(profile) : NONE)));
  setText(byId("device-profile-note"), profile
    ? `${profile.name}: ${profile.notice}.`
    : "No profile covers this device: only the general limits are judged.");
}
