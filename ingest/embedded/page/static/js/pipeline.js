// Beside the dashboard of the pipeline: how this worker's connections are this second, and what it refused.

import { badge, byId, el, paintBadge, setHidden, setText } from "./dom.js";
import { NONE, ago, clock, duration, missing, moment, number } from "./format.js";
import { fleet, now, on } from "./live.js";
import { hideQuarantine, paintQuarantine, showQuarantine, startQuarantine } from "./quarantine.js";

let visible = false;
const states = {};

export function startPipeline() {
  states.broker = stateBlock("broker", ["Session kept", "Judged until", "Canary", "Alerts not delivered", "Detail"]);
  states.store = stateBlock("store", ["Oldest waiting", "Waiting in the outbox", "Detail"]);
  states.webhook = stateBlock("webhook", ["Waiting", "Failed, dropped", "Last success", "Detail"]);
  startQuarantine();
  on("overview", () => visible && paint());
  on("link", () => visible && paint());
  on("second", () => visible && fleet.link === "lost" && paint());
}

export function showPipeline() {
  visible = true;
  paint();
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
  paintBroker(overview.pipeline);
  paintStore(overview.pipeline, overview.ledger);
  paintWebhook(overview.pipeline.webhook);
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

function canaryText(canary) {
  if (!canary) return "off";
  const missing = canary.missing_since_ms !== null && now() - canary.missing_since_ms > 10_000 ? `missing since ${clock(canary.missing_since_ms)}: ${canary.stuck}; ` : "";
  if (canary.through_ms === null) return `${missing}none has come through yet`;
  return `${missing}through the whole path in ${number(canary.took_s, 2)} s, ${ago(canary.through_ms, now())} (as far as ${canary.ends_at})`;
}

function paintBroker({ broker, canary, observed_until_ms: until, alerts_undelivered: undelivered }) {
  const since = missing(broker.since_ms) ? "" : ` since ${moment(broker.since_ms, now())}`;
  states.broker(broker.connected ? "ok" : "critical", `${broker.connected ? "connected" : "not connected"}${since}`, [
    missing(broker.session_present) ? "not known" : broker.session_present ? "yes" : "no: messages sent meanwhile may be lost",
    missing(until) ? "nothing judged yet" : `${clock(until)} (${ago(until, now())})`,
    canaryText(canary),
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
