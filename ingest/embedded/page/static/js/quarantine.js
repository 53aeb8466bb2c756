// What was refused and why. Payloads are foreign bytes: shown as text, never as anything else.

import { api } from "./api.js";
import { byId, el, reconcile, setAttr, setHidden, setText } from "./dom.js";
import { NONE, bytes, clock, iso, moment, number } from "./format.js";
import { fleet, now, on } from "./live.js";

const ENTRIES = 20;
const ASK_AGAIN_S = 5;

let visible = false;
let answer = null;
let seconds = 0;
let shownTotal = null;

export function startQuarantine() {
  byId("payload-close").addEventListener("click", () => byId("payload-dialog").close());
  on("second", () => {
    seconds += 1;
    if (visible && fleet.link === "live" && seconds % ASK_AGAIN_S === 0) ask();
  });
}

export function showQuarantine() {
  visible = true;
  ask();
}

export function hideQuarantine() {
  visible = false;
}

/** Called with every overview: asks at once when the count rose. */
export function paintQuarantine() {
  const total = fleet.overview.ledger.quarantined;
  if (shownTotal !== null && total !== shownTotal) ask();
  shownTotal = total;
}

async function ask() {
  try {
    answer = await api.quarantine(ENTRIES);
    paint();
  } catch { /* the link says so; the last answer stays */ }
}

function paint() {
  reconcile(byId("entries"), answer.entries, (entry) => entry.id, createEntry, updateEntry);
  setHidden(byId("entries-table"), !answer.entries.length);
  setHidden(byId("no-entries"), answer.entries.length > 0);
}

function createEntry() {
  const cell = (name, ...content) => el("td", { role: "cell", class: `e-${name}` }, ...content);
  const button = el("button", { type: "button", class: "button small" }, "Show");
  const row = el("tr", { role: "row" },
    cell("time", el("time")), cell("device", el("a", { class: "id" }), el("span", { class: "id" }), el("span", { class: "sub id" })),
    cell("reason", el("code")), cell("detail"), cell("size"), cell("act", button));
  button.addEventListener("click", () => showPayload(row.entry));
  return row;
}

function updateEntry(row, entry) {
  row.entry = entry;
  const [time, device, reason, detail, size, act] = row.children;
  setText(time.firstChild, moment(entry.received_ms, now()));
  setAttr(time.firstChild, "title", iso(entry.received_ms));
  const [link, none, topic] = device.children;
  setHidden(link, !entry.device_id);
  setText(link, entry.device_id ?? "");
  setAttr(link, "href", entry.device_id ? `#/device/${encodeURIComponent(entry.device_id)}` : null);
  setHidden(none, Boolean(entry.device_id));
  setText(none, "no device");
  setText(topic, entry.topic);
  setText(reason.firstChild, entry.reason);
  setText(detail, entry.detail || NONE);
  setText(size, entry.times > 1 ? `${bytes(entry.bytes)}, ${number(entry.times)} times` : bytes(entry.bytes));
  setAttr(act.firstChild, "aria-label", `Show the payload received ${clock(entry.received_ms)}`);
}

async function showPayload(entry) {
  const facts = (pairs) => byId("payload-facts").replaceChildren(
    ...pairs.flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)]));
  const known = [["Received", moment(entry.received_ms, now())], ["Topic", entry.topic], ["Reason", entry.reason], ["Meaning", answer.explained[entry.reason] ?? NONE], ["Detail", entry.detail || NONE], ["Size", bytes(entry.bytes)]];
  facts(known);
  setText(byId("payload-text"), "Asking the worker …");
  byId("payload-dialog").showModal();
  try {
    const whole = await api.quarantined(entry.id);
    facts([...known, ["SHA-256", whole.sha256]]);
    setText(byId("payload-text"), whole.payload_text);
  } catch (error) {
    setText(byId("payload-text"), error.message);
  }
}
