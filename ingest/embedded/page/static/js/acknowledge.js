// A person says: I have seen this alert. Asked in a dialog, so that live updates cannot move it.

import { api } from "./api.js";
import { byId, memory, setText } from "./dom.js";
import { quantity } from "./format.js";
import { replaceAlert } from "./live.js";

let asked = null;
let answered = () => {};

export function startAcknowledge(onAnswer) {
  answered = onAnswer;
  byId("ack-cancel").addEventListener("click", () => byId("ack-dialog").close());
  byId("ack-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
}

export function askToAcknowledge(alert) {
  asked = alert;
  setText(byId("ack-what"), `${alert.rule} on ${alert.device_id}: ${quantity(alert.value, alert.unit)}, limit ${quantity(alert.limit, alert.unit)}.`);
  setText(byId("ack-error"), "");
  byId("ack-by").value = memory.get("name") ?? "";
  byId("ack-note").value = "";
  byId("ack-dialog").showModal();
  byId(byId("ack-by").value ? "ack-note" : "ack-by").focus();
}

async function send() {
  const by = byId("ack-by").value.trim();
  if (!by) {
    setText(byId("ack-error"), "A name is needed: the record says who saw the alert.");
    return;
  }
  const button = byId("ack-form").querySelector("[type=submit]");
  button.disabled = true;
  try {
    const { alert } = await api.acknowledge(asked.id, by, byId("ack-note").value.trim());
    memory.set("name", by);
    replaceAlert(alert);
    byId("ack-dialog").close();
    answered(alert);
  } catch (error) {
    setText(byId("ack-error"), error.message);
  } finally {
    button.disabled = false;
  }
}
