// What a person does with an alert: acknowledge it, assign it, say something of it. Asked in a dialog,
// so that live updates cannot move it.

import { api } from "./api.js";
import { byId, memory, setAttr, setHidden, setText } from "./dom.js";
import { deviceText, quantity } from "./format.js";
import { replaceAlert } from "./live.js";

const ACTS = {
  ack: {
    title: "Acknowledge", words: "Note", hint: "What you saw, what you did",
    why: "Says that a person has seen the alert. It stays open until the readings clear it.",
    said: ({ by, words }) => ({ by, note: words }),
  },
  assign: {
    title: "Assign", words: "Note", hint: "What is to be done",
    why: "The last person named has the alert. Who had it before stays in its history.",
    said: ({ to, by, words }) => ({ to, by, note: words }),
  },
  comment: {
    title: "Comment", words: "Comment", hint: "What you found",
    why: "Goes into the history of the alert, which itself stays as it is.",
    said: ({ by, words }) => ({ by, text: words }),
  },
};

let asked = null;
let act = null;
let answered = () => {};

export function startActs(onAnswer) {
  answered = onAnswer;
  byId("act-cancel").addEventListener("click", () => byId("act-dialog").close());
  byId("act-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
}

/** `name` is a key of ACTS. */
export function askTo(name, alert) {
  asked = alert;
  act = name;
  const { title, words, hint, why } = ACTS[name];
  for (const id of ["act-title", "act-send"]) setText(byId(id), title);
  setText(byId("act-words-label"), words);
  setText(byId("act-why"), why);
  setAttr(byId("act-words"), "placeholder", hint);
  setText(byId("act-what"), `${alert.rule} on ${deviceText(alert)}: ${quantity(alert.value, alert.unit)}, limit ${quantity(alert.limit, alert.unit)}.`);
  setText(byId("act-error"), "");
  setHidden(byId("act-to-field"), name !== "assign");
  byId("act-to").required = name === "assign";
  byId("act-words").required = name === "comment";
  byId("act-to").value = name === "assign" ? asked.assigned_to ?? "" : "";
  byId("act-by").value = memory.get("name") ?? "";
  byId("act-words").value = "";
  byId("act-dialog").showModal();
  byId(!byId("act-by").value ? "act-by" : name === "assign" ? "act-to" : "act-words").focus();
}

/** What is lacking, as a sentence; empty if nothing is. */
function lacking({ by, to, words }) {
  if (!by) return "A name is needed: the record says whose act it is.";
  if (act === "assign" && !to) return "Whom shall it be assigned to?";
  return act === "comment" && !words ? "A comment needs words." : "";
}

async function send() {
  const given = { by: byId("act-by").value.trim(), to: byId("act-to").value.trim(), words: byId("act-words").value.trim() };
  const wrong = lacking(given);
  setText(byId("act-error"), wrong);
  if (wrong) return;
  const button = byId("act-send");
  button.disabled = true;
  try {
    const { alert } = await api.act(asked.id, act, ACTS[act].said(given));
    memory.set("name", given.by);
    replaceAlert(alert);
    byId("act-dialog").close();
    answered(alert);
  } catch (error) {
    setText(byId("act-error"), error.message);
  } finally {
    button.disabled = false;
  }
}
