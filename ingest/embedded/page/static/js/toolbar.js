// What a person chooses by above a dashboard: model, firmware, device, and the stretch of time.

import { combobox } from "./combobox.js";
import { byId, el, setAttr, setHidden, setText } from "./dom.js";
import { fleet, now } from "./live.js";
import { RANGES, spanOf, spanText, stillAt } from "./window.js";

const VARIABLES = [
  { name: "model", label: "Model", all: "All models", values: (device) => device.model },
  { name: "fw", label: "Firmware", all: "All firmware", values: (device) => device.fw },
  { name: "device_id", label: "Device", all: "All devices", values: (device) => device.device_id },
];

let change = () => {};
let window_ = null;
const boxes = {};

/** `onChange({model: [...]})`, `({range: "1h"})` or `({from, to})` is called with what the person chose. */
export function startToolbar(onChange) {
  change = onChange;
  for (const { name, label, all, values } of VARIABLES) createChoice(name, label, values, { all });
  createChoice("single", "Device", (device) => device.device_id, { all: null, variable: "device_id" });
  for (const [name, , words, said] of RANGES) {
    const button = el("button", { type: "button", "data-range": name, "aria-label": `Last ${said}` }, words);
    button.addEventListener("click", () => change({ range: name }));
    byId("ranges").append(button);
  }
  byId("follow").addEventListener("change", (event) => change(event.target.checked ? { range: window_.name } : stillNow()));
  byId("earlier").addEventListener("click", () => move(-0.5));
  byId("later").addEventListener("click", () => move(0.5));
  byId("span").addEventListener("click", askForSpan);
  byId("span-cancel").addEventListener("click", () => byId("span-dialog").close());
  byId("span-form").addEventListener("submit", takeSpan);
}

function createChoice(name, label, values, { all, variable = name }) {
  const list = el("ul", { role: "listbox", id: `choice-${name}-list`, "aria-label": label, "aria-multiselectable": Boolean(all), hidden: true });
  const input = el("input", { type: "text", role: "combobox", id: `choice-${name}`, "aria-label": label, "aria-expanded": "false", "aria-controls": list.id,
    "aria-autocomplete": "list", placeholder: all ?? "Choose a device …", autocomplete: "off", spellcheck: "false" });
  const node = el("div", { class: "combo", "data-choice": name }, input, list);
  byId("choices").append(node);
  boxes[name] = { node, box: combobox({ input, list, all, options: () => offered(values), choose: (chosen) => change({ [variable]: chosen }) }) };
}

/** Values that devices have, each with how many have it, or how it is. */
function offered(values) {
  const found = new Map();
  for (const device of fleet.devices) {
    const value = values(device);
    if (value) found.set(value, [...(found.get(value) ?? []), device]);
  }
  return [...found].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })).map(([value, devices]) => ({
    value, note: values(devices[0]) === devices[0].device_id ? `${devices[0].model ?? "model unknown"}, ${devices[0].health}` : `${devices.length} ${devices.length === 1 ? "device" : "devices"}`,
  }));
}

const stillNow = () => { const [from, to] = spanOf(window_); return { from, to }; };

/** Step through time by a part of the window. */
function move(part) {
  const [from, to] = spanOf(window_);
  const by = (to - from) * part;
  change(stillAt(from + by, to + by));
}

/** `chosen` are lists by variable; `dashboard` says which of them it has. */
export function paintToolbar(dashboard, chosen, window) {
  window_ = window;
  for (const { name } of VARIABLES) {
    setHidden(boxes[name].node, !dashboard.variables.includes(name) || dashboard.single === name);
    boxes[name].box.set(chosen[name] ?? []);
  }
  setHidden(boxes.single.node, !dashboard.single);
  boxes.single.box.set(chosen[dashboard.single] ?? []);
  for (const button of byId("ranges").children) {
    setAttr(button, "aria-pressed", String(!window.still && button.dataset.range === window.name));
  }
  byId("follow").checked = !window.still;
  paintSpan();
}

export function paintSpan() {
  if (window_) setText(byId("span-words"), spanText(spanOf(window_)));
}

const local = (ms) => {
  const at = new Date(ms);
  return new Date(ms - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
};

function askForSpan() {
  const [from, to] = spanOf(window_);
  byId("span-from").value = local(from);
  byId("span-to").value = local(to);
  byId("span-to").max = local(now() + 86_400_000);
  setText(byId("span-error"), "");
  byId("span-dialog").showModal();
}

function takeSpan(event) {
  event.preventDefault();
  const [from, to] = ["span-from", "span-to"].map((id) => new Date(byId(id).value).getTime());
  if (!(from < to)) {
    setText(byId("span-error"), "The beginning must be before the end.");
    return;
  }
  byId("span-dialog").close();
  change(stillAt(from, to));
}
