// What limits the view of the fleet, said above everything else: the link of this page, the
// broker, the store, the webhook, the ledger. Nothing here is a device's alert.

import { byId, el, reconcile, setAttr, setText } from "./dom.js";
import { clock, duration, moment, number } from "./format.js";
import { fleet, now, on } from "./live.js";

const BEHIND_MS = 60_000;

/** Causes that have a line of their own, from their first second on. */
const TOLD_BELOW = new Set(["broker-away", "store-away"]);

/** The ledger's own arithmetic: 0 when every accepted message is accounted for. */
const unaccounted = (ledger) =>
  ledger.accepted - ledger.pending - ledger.stored - ledger.duplicate - ledger.quarantined;

function current() {
  if (fleet.link === "lost") {
    return [{
      key: "link", kind: "critical",
      text: `Connection to the worker lost since ${clock(fleet.lostSinceMs)} – what you see is old.`,
    }];
  }
  const found = [];
  if (!fleet.overview) return found;
  const { pipeline, ledger } = fleet.overview;
  if (fleet.stillSinceMs !== null) {
    found.push({
      key: "clock", kind: "warning",
      text: `The worker's clock has stood still for ${duration(Date.now() - fleet.stillSinceMs)} – nothing new is judged, and ages are not true.`,
    });
  }
  const unseen = (pipeline.blind?.causes ?? []).filter(({ cause }) => !TOLD_BELOW.has(cause));
  if (unseen.length) {
    found.push({
      key: "blind", kind: "critical",
      text: `Not everything is seen – ${unseen.map(({ since_ms: since, means, detail }) =>
        `since ${moment(since, now())} ${means}${detail ? ` (${detail})` : ""}`).join("; ")}.`,
    });
  }
  if (!pipeline.broker.connected) {
    found.push({
      key: "broker", kind: "critical",
      text: `The worker is not connected to the broker since ${clock(pipeline.broker.since_ms)} – devices may speak unheard.`,
    });
  } else if (!unseen.length && pipeline.observed_until_ms !== null && now() - pipeline.observed_until_ms > BEHIND_MS) {
    found.push({
      key: "behind", kind: "warning",
      text: `The worker has judged messages only until ${clock(pipeline.observed_until_ms)}, ${duration(now() - pipeline.observed_until_ms)} ago.`,
    });
  }
  if (!pipeline.store.ok) {
    found.push({
      key: "store", kind: "warning",
      text: `The store (${pipeline.store.name}) takes no data – ${number(ledger.outbox)} messages wait on disk; alerts go on.`,
    });
  }
  if (pipeline.webhook?.ok === false && pipeline.webhook.waiting) {
    found.push({
      key: "webhook", kind: "warning",
      text: `The webhook takes no alerts – ${number(pipeline.webhook.waiting)} notices wait on disk; its receivers have not heard of them.`,
    });
  } else if (pipeline.webhook?.failed) {
    found.push({
      key: "webhook", kind: "warning",
      text: `The webhook refused ${number(pipeline.webhook.failed)} notices – they are kept; ‘microcurrent alerts resend’ sends them again.`,
    });
  }
  if (unaccounted(ledger) !== 0) {
    found.push({
      key: "ledger", kind: "critical",
      text: `The ledger does not balance: ${number(Math.abs(unaccounted(ledger)))} messages are unaccounted for.`,
    });
  }
  return found;
}

function paint() {
  reconcile(
    byId("conditions"), current(), (condition) => condition.key,
    () => el("p", {}, el("span")),
    (node, { kind, text }) => {
      setAttr(node, "data-kind", kind);
      setText(node.firstChild, text);
    },
  );
}

const LINK_WORDS = { connecting: "Connecting", live: "Live", lost: "Lost" };

export function startConditions() {
  on("link", () => {
    setAttr(byId("link-state"), "data-link", fleet.link);
    setText(byId("link-word"), LINK_WORDS[fleet.link]);
    document.documentElement.toggleAttribute("data-old", fleet.link === "lost");
    paint();
  });
  on("overview", paint);
  on("second", paint);
}
