// What a person does with refused messages: send them through the line again, or discard them. What would
// come of a replay is told before it is done.

import { api } from "./api.js";
import { byId, memory, setText } from "./dom.js";
import { number } from "./format.js";

const ACTS = {
  replay: {
    title: "Replay", hint: "Why they can be taken now",
    why: "They go through the line as if they came when they first did. None is stored twice.",
  },
  discard: {
    title: "Discard", hint: "Why nobody needs them",
    why: "That they came, why they were refused, and their first 4 KiB stay on record.",
  },
};
const OUTCOMES = { kept: "would be kept", held: "on record already", not_whole: "not all bytes kept", not_open: "on the way or replayed already" };
const LOOK_MOST = 20;

let act = null;
let which = null;
let done = () => {};

export function startRefusedActs(onDone) {
  done = onDone;
  byId("refused-cancel").addEventListener("click", () => byId("refused-dialog").close());
  byId("refused-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
}

/** `chosen` is {ids} or {words}, as the worker takes them; `count` of them are meant. */
export function askAbout(name, chosen, count) {
  act = name;
  which = chosen;
  const { title, hint, why } = ACTS[name];
  const messages = count === 1 ? "one refused message" : `${number(count)} refused messages`;
  setText(byId("refused-title"), `${title} ${messages}`);
  setText(byId("refused-send"), title);
  setText(byId("refused-why"), why);
  setText(byId("refused-error"), "");
  setText(byId("refused-what"), "");
  byId("refused-note").placeholder = hint;
  byId("refused-by").value = memory.get("name") ?? "";
  byId("refused-note").value = "";
  byId("refused-dialog").showModal();
  byId(byId("refused-by").value ? "refused-note" : "refused-by").focus();
  if (name === "replay") foretell(chosen);
}

async function foretell(chosen) {
  const sums = {};
  try {
    let after = 0;
    for (let asked = 0; after !== null && asked < LOOK_MOST; asked += 1) {
      const { outcomes, next } = await api.refused("preview", { which: { ...chosen, after } });
      if (chosen !== which) return;
      for (const [name, n] of Object.entries(outcomes)) sums[name] = (sums[name] ?? 0) + n;
      after = next;
      setText(byId("refused-what"), told(sums, (name) => OUTCOMES[name] ?? `would be refused again: ${name.replaceAll("_", " ")}`) + (after === null ? "." : " …"));
    }
  } catch { /* what is sent tells itself what is wrong */ }
}

const told = (sums, words) => Object.entries(sums).map(([name, n]) => `${number(n)} ${words(name)}`).join(", ");

async function send() {
  const by = byId("refused-by").value.trim();
  setText(byId("refused-error"), by ? "" : "A name is needed: the record says whose act it is.");
  if (!by) return;
  const button = byId("refused-send");
  button.disabled = true;
  try {
    const sums = await all({ by, note: byId("refused-note").value.trim() });
    memory.set("name", by);
    byId("refused-dialog").close();
    setText(byId("entries-said"), sums);
    done();
  } catch (error) {
    setText(byId("refused-error"), error.message);
  } finally {
    button.disabled = false;
  }
}

/** Some at a time, until there are no more; what has come of it as a sentence. */
async function all(said) {
  const sums = { replayed: 0, waiting: 0, discarded: 0, not_whole: 0 };
  const again = {};
  for (let after = 0; after !== null;) {
    const found = await api.refused(act, { which: { ...which, after }, ...said });
    for (const name of Object.keys(sums)) sums[name] += found[name] ?? 0;
    for (const [reason, n] of Object.entries(found.refused ?? {})) again[reason] = (again[reason] ?? 0) + n;
    after = found.next;
    setText(byId("refused-what"), after === null ? "" : `${number(sums.replayed + sums.discarded)} done …`);
  }
  if (act === "discard") return `${number(sums.discarded)} discarded.`;
  const parts = [`${number(sums.replayed)} replayed`];
  if (sums.waiting) parts.push(`${number(sums.waiting)} on the way`);
  if (Object.keys(again).length) parts.push(told(again, (reason) => `refused again: ${reason.replaceAll("_", " ")}`));
  if (sums.not_whole) parts.push(`${number(sums.not_whole)} cannot be: not all of their bytes are kept`);
  return `${parts.join("; ")}.`;
}
