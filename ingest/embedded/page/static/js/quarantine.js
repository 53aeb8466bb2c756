// What was refused and why, chosen by state, reason, device and time, and what a person does about it.
// Payloads are foreign bytes: shown as text, never as anything else.

import { api } from "./api.js";
import { byId, debounce, el, reconcile, setAttr, setHidden, setText } from "./dom.js";
import { NONE, bytes, clock, iso, moment, number } from "./format.js";
import { fleet, now, on } from "./live.js";
import { askAbout, startRefusedActs } from "./refused_acts.js";

const ENTRIES = 20;
const ASK_AGAIN_S = 5;
const WORDS = { open: "open", waiting: "on its way", replayed: "replayed", discarded: "discarded" };
const EVENTS = {
  replay: "Sent through the line again", kept: "Kept", held: "Was on record already", refused: "Refused again", discard: "Discarded",
};

let visible = false;
let state = "open";
let limit = ENTRIES;
let answer = null;
let asked = 0;
let seconds = 0;
let shownTotal = null;
let shownEntry = null;

export function startQuarantine() {
  startRefusedActs(() => {
    ask();
    if (byId("payload-dialog").open) showEntry(shownEntry);
  });
  byId("payload-close").addEventListener("click", () => byId("payload-dialog").close());
  byId("payload-replay").addEventListener("click", () => askAbout("replay", { ids: [shownEntry] }, 1));
  byId("payload-discard").addEventListener("click", () => askAbout("discard", { ids: [shownEntry] }, 1));
  byId("entries-replay").addEventListener("click", () => askAbout("replay", { words: filter() }, answer.messages));
  byId("entries-discard").addEventListener("click", () => askAbout("discard", { words: filter() }, answer.messages));
  byId("entries-more").addEventListener("click", () => { limit += ENTRIES; ask(); });
  for (const button of byId("entries-state").children) button.addEventListener("click", () => choose(button.dataset.value));
  const again = () => { limit = ENTRIES; ask(); };
  for (const id of ["entries-reason", "entries-since"]) byId(id).addEventListener("change", again);
  byId("entries-device").addEventListener("input", debounce(again, 250));
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
  const { quarantined } = fleet.overview.ledger;
  const { bytes: held, bytes_most: most } = fleet.overview.pipeline.quarantine;
  setText(byId("entries-room"), `${number(held / 2 ** 20, 1)} of ${number(most / 2 ** 20)} MiB taken`);
  if (shownTotal !== null && quarantined !== shownTotal) ask();
  shownTotal = quarantined;
}

function choose(name) {
  state = name;
  limit = ENTRIES;
  setText(byId("entries-said"), "");
  for (const button of byId("entries-state").children) setAttr(button, "aria-pressed", String(button.dataset.value === state));
  ask();
}

/** The words that the worker chooses by; what is empty is not said. */
function filter() {
  const words = { state, reason: byId("entries-reason").value, device: byId("entries-device").value.trim(), since: byId("entries-since").value };
  return Object.fromEntries(Object.entries(words).filter(([, value]) => value));
}

async function ask() {
  const mine = ++asked;
  try {
    const found = await api.quarantine({ ...filter(), limit });
    if (mine !== asked) return;
    answer = found;
    paint();
  } catch (error) {
    if (mine === asked && fleet.link === "live") setText(byId("no-entries"), error.message);
  }
}

function paint() {
  paintReasons();
  reconcile(byId("entries"), answer.entries, (entry) => entry.id, createEntry, updateEntry);
  setHidden(byId("entries-table"), !answer.entries.length);
  setHidden(byId("no-entries"), answer.entries.length > 0);
  setText(byId("no-entries"), emptyText());
  setHidden(byId("entries-more"), answer.entries.length < limit);
  setText(byId("entries-count"), `${number(answer.messages)} ${answer.messages === 1 ? "message" : "messages"}`);
  const idle = state !== "open" || !answer.messages;
  for (const id of ["entries-replay", "entries-discard"]) setHidden(byId(id), idle);
}

function emptyText() {
  if (Object.keys(filter()).length > 1) return "No refused message matches.";
  if (state === "open" && fleet.overview?.ledger.quarantined) return "No refused message waits for anybody.";
  return state && state !== "open" ? `None is ${WORDS[state]}.` : "No message is in quarantine. A refused message is kept here, with its reason.";
}

function paintReasons() {
  const select = byId("entries-reason");
  if (select.options.length > 1) return;
  for (const [reason, meaning] of Object.entries(answer.explained)) select.append(el("option", { value: reason, title: meaning }, reason.replaceAll("_", " ")));
}

function createEntry() {
  const cell = (name, ...content) => el("td", { role: "cell", class: `e-${name}` }, ...content);
  const button = el("button", { type: "button", class: "button small" }, "Show");
  const row = el("tr", { role: "row" },
    cell("time", el("time")), cell("device", el("a", { class: "id" }), el("span", { class: "id" }), el("span", { class: "sub id" })),
    cell("reason", el("code"), el("span", { class: "sub" })), cell("detail"), cell("size"), cell("act", button));
  button.addEventListener("click", () => openEntry(row.entry.id));
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
  setText(reason.lastChild, entry.state === "open" ? "" : stateText(entry));
  setText(detail, entry.detail || NONE);
  setText(size, sizeText(entry));
  setAttr(act.firstChild, "aria-label", `Show the payload received ${clock(entry.received_ms)}`);
}

const stateText = ({ state: name, actor }) => WORDS[name] + (actor && name !== "open" ? ` by ${actor}` : "");

function sizeText(entry) {
  const texts = [bytes(entry.bytes)];
  if (entry.held < entry.bytes) texts.push(`first ${number(entry.held)} kept`);
  if (entry.times > 1) texts.push(`${number(entry.times)} times`);
  if (entry.more) texts.push(`and ${number(entry.more)} others`);
  return texts.join(", ");
}

function openEntry(id) {
  byId("payload-dialog").showModal();
  showEntry(id);
}

async function showEntry(id) {
  shownEntry = id;
  const facts = (pairs) => byId("payload-facts").replaceChildren(...pairs.flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)]));
  setText(byId("payload-text"), "Asking the worker …");
  try {
    const entry = await api.quarantined(id);
    if (id !== shownEntry) return;
    facts([
      ["Received", moment(entry.received_ms, now())], ["Topic", entry.topic], ["State", stateText(entry)],
      ["Reason", entry.reason], ["Meaning", entry.explained || NONE], ["Detail", entry.detail || NONE], ["Size", sizeText(entry)], ["SHA-256", entry.sha256],
    ]);
    byId("payload-history").replaceChildren(...entry.events.map(historyItem));
    setHidden(byId("payload-history"), !entry.events.length);
    setText(byId("payload-text"), entry.payload_text);
    setHidden(byId("payload-replay"), entry.kept !== "whole" || !["open", "discarded"].includes(entry.state));
    setHidden(byId("payload-discard"), entry.state !== "open");
    setText(byId("payload-why"), entry.kept === "whole" ? "" : "It cannot be replayed: not all of its bytes are kept.");
  } catch (error) {
    facts([]);
    setText(byId("payload-text"), error.message);
  }
}

function historyItem(event) {
  const who = event.actor.startsWith("~") ? "" : ` by ${event.actor}`;
  return el("li", {}, el("strong", {}, (EVENTS[event.event] ?? event.event) + who), el("time", { class: "quiet" }, ` ${moment(event.at_ms, now())}`),
    event.note ? el("p", { class: "note" }, event.note) : null);
}
