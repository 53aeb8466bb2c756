// Beside the dashboard of the pipeline: is every message accounted for now, and what does the worker see and lack?

import { unaccounted } from "./conditions.js";
import { badge, byId, el, paintBadge, reconcile, setAttr, setHidden, setText } from "./dom.js";
import { NONE, ago, clock, duration, missing, moment, number } from "./format.js";
import { fleet, now, on } from "./live.js";
import { hideQuarantine, paintQuarantine, showQuarantine, startQuarantine } from "./quarantine.js";

const MOST_DEVICES = 12;

const TERMS = [
  ["accepted", "on our disk, then acknowledged", null],
  ["pending", "", "="],
  ["stored", "in the time-series store", "+"],
  ["duplicate", "seen before, counted once", "+"],
  ["quarantined", "refused, kept with a reason", "+"],
];

let visible = false;
const terms = {};
const states = {};

export function startPipeline() {
  for (const [name, note, operator] of TERMS) {
    if (operator) byId("equation").append(el("span", { class: "operator" }, operator));
    terms[name] = { value: el("span", { class: "value" }, NONE), note: el("span", { class: "note" }, note) };
    byId("equation").append(el("div", { class: `term t-${name}` }, el("span", { class: "label" }, name), terms[name].value, terms[name].note));
  }
  states.broker = stateBlock("broker", ["Session kept", "Judged until", "Alerts not delivered", "Detail"]);
  states.store = stateBlock("store", ["Oldest waiting", "Waiting in the outbox", "Detail"]);
  states.webhook = stateBlock("webhook", ["Waiting", "Failed, dropped", "Last success", "Detail"]);
  startQuarantine();
  on("overview", () => visible && paint());
  on("devices", () => visible && paintMissing());
  on("link", () => visible && paint());
  on("second", () => visible && fleet.link === "lost" && paint());
}

export function showPipeline() {
  visible = true;
  paint();
  paintMissing();
  showQuarantine();
}

export function hidePipeline() {
  visible = false;
  hideQuarantine();
}

function stateBlock(id, labels) {
  const state = badge();
  const values = labels.map(() => el("dd", {}, NONE));
  byId(id).append(el("p", { class: "panel-state" }, state),
    el("dl", { class: "pairs" }, ...labels.flatMap((label, index) => [el("dt", {}, label), values[index]])));
  return (kind, word, texts) => {
    const old = fleet.link === "lost";
    paintBadge(state, old ? "silent" : kind, old ? `was: ${word}` : word);
    values.forEach((value, index) => setText(value, texts[index]));
  };
}

function paint() {
  const { overview } = fleet;
  if (!overview) return;
  const { ledger, pipeline } = overview;
  for (const [name] of TERMS) setText(terms[name].value, number(ledger[name]));
  setText(terms.pending.note, `${number(ledger.inbox)} to judge, ${number(ledger.outbox)} to store`);
  const lacking = unaccounted(ledger);
  const verdict = byId("ledger-verdict");
  setAttr(verdict, "data-kind", fleet.link === "lost" ? "silent" : lacking ? "critical" : "ok");
  setText(verdict, lacking
    ? `Does not balance: ${number(Math.abs(lacking))} messages ${lacking > 0 ? "accepted, but in none of the four" : "more than were accepted"}. This is a defect; keep the journal and report it.`
    : ledger.accepted ? "Balances: every accepted message is in exactly one place." : "No message has been accepted yet.");
  paintBroker(pipeline);
  paintStore(pipeline, ledger);
  paintWebhook(pipeline.webhook);
  paintQuarantine();
}

function paintWebhook(webhook) {
  setHidden(byId("webhook-panel"), !webhook);
  if (!webhook) return;
  const { ok, waiting, failed, dropped, last_success_ms: last, detail } = webhook;
  const well = ok && !failed;
  states.webhook(well ? "ok" : "warning", ok ? (failed ? "some were refused" : "taking alerts") : "not taking alerts",
    [number(waiting), `${number(failed)}, ${number(dropped)}`, missing(last) ? "never" : moment(last), detail]);
}

function paintBroker({ broker, observed_until_ms: until, alerts_undelivered: undelivered }) {
  const since = missing(broker.since_ms) ? "" : ` since ${moment(broker.since_ms, now())}`;
  states.broker(broker.connected ? "ok" : "critical", `${broker.connected ? "connected" : "not connected"}${since}`, [
    missing(broker.session_present) ? "not known" : broker.session_present ? "yes" : "no: messages sent meanwhile may be lost",
    missing(until) ? "nothing judged yet" : `${clock(until)} (${ago(until, now())})`,
    number(undelivered),
    broker.detail || NONE,
  ]);
}

function paintStore({ store }, ledger) {
  states.store(store.ok ? "ok" : "warning", `${store.name} ${store.ok ? "takes data" : "takes no data"}`, [
    missing(store.oldest_pending_s) ? "nothing waits" : store.oldest_pending_s < 10 ? `${number(store.oldest_pending_s, 1)} s` : duration(store.oldest_pending_s * 1000),
    `${number(ledger.outbox)} messages`,
    store.detail || NONE,
  ]);
}

function paintMissing() {
  const lacking = fleet.devices.filter((device) => device.missing > 0).sort((a, b) => b.missing - a.missing || (a.device_id < b.device_id ? -1 : 1));
  reconcile(byId("missing"), lacking.slice(0, MOST_DEVICES), (device) => device.device_id,
    (device) => el("li", {}, el("a", { class: "id", href: `#/device/${encodeURIComponent(device.device_id)}` }, device.device_id), el("span")),
    (node, device) => setText(node.lastChild, `${number(device.missing)} missing`));
  setHidden(byId("no-missing"), lacking.length > 0 && lacking.length <= MOST_DEVICES);
  setText(byId("no-missing"), lacking.length
    ? `and ${number(lacking.length - MOST_DEVICES)} more`
    : fleet.devices.length ? "No gap in any sequence is known." : "No device has reported yet. Publish to mc/v1/<device_id>/current …");
}
