// One dashboard: its panels as the worker defines them, filled and kept fresh.

import { Refused, api } from "./api.js";
import { byId, el, setAttr, setHidden, setText } from "./dom.js";
import { clock } from "./format.js";
import { fleet, now, on } from "./live.js";
import { createPanel } from "./panel.js";
import { spanOf } from "./window.js";

const PX_PER_POINT = 3;
const FEWEST_POINTS = 120;
const MOST_POINTS = 500;
const FASTEST_MS = 2_000;
/** The worker has more to do than to draw: it rests so many times as long as it took. */
const REST = 8;
const SHOWN_WINDOWS = 300;

const view = { fromMs: 0, toMs: 1, dataToMs: 1, alerts: [], highlighted: null, deviceId: null, onZoom: () => {}, redraw: () => panels.forEach((panel) => panel.redraw()) };
let dashboard = null;
let asked = null;
let panels = [];
let asking = null;
let answeredAt = 0;
let tookMs = 0;

export function startBoard(onZoom) {
  // Synchronised charts report the same choice one after the other.
  view.onZoom = (span) => { if (!span || String(span) !== String(asked?.window.still)) onZoom(span); };
  on("second", () => {
    if (dashboard && !asked.window.still && fleet.link === "live" && !asking && !document.hidden && performance.now() - answeredAt > pause()) load();
  });
  on("link", () => { if (dashboard && fleet.link === "live") load(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && dashboard && !asked.window.still && !asking) load(); });
}

const pause = () => Math.max(FASTEST_MS, REST * tookMs, Math.min(dashboard.refresh_s * 1000, asked.window.ms / SHOWN_WINDOWS));

/** `chosen` are lists by variable, `window` is of window.js. */
export function showBoard(wanted, chosen, window) {
  const scope = (definition, what) => JSON.stringify([definition?.uid, definition?.single && what?.chosen[definition.single]]);
  const before = scope(dashboard, asked);
  if (wanted !== dashboard) layOut(wanted);
  asked = { chosen, window };
  view.deviceId = wanted.single ? chosen[wanted.single]?.[0] ?? null : null;
  // Another device's readings must not stand under this one's name, not even for a moment.
  if (scope(wanted, asked) !== before) panels.forEach((panel) => panel.wait());
  load();
}

export function hideBoard() {
  asking?.abort();
  asking = null;
  panels.forEach((panel) => panel.end());
  panels = [];
  dashboard = null;
  byId("board").replaceChildren();
}

function layOut(definition) {
  hideBoard();
  dashboard = definition;
  const first = definition.annotated ? definition.sections.flatMap((section) => section.panels).find(({ kind }) => kind === "series") : null;
  for (const section of definition.sections) {
    const made = section.panels.map((panel) => createPanel(panel, view, panel === first));
    panels.push(...made);
    const heading = el("h2", {}, section.title);
    byId("board").append(el("section", { class: "board-section", "aria-label": section.title }, heading, el("div", { class: "grid" }, ...made.map(({ node }) => node))));
  }
}

async function load() {
  asking?.abort();
  const request = (asking = new AbortController());
  const [from, to] = spanOf(asked.window);
  const began = performance.now();
  const points = Math.min(MOST_POINTS, Math.max(FEWEST_POINTS, Math.round(byId("board").clientWidth / PX_PER_POINT)));
  try {
    const answer = await api.board(dashboard.uid, { from_ms: from, to_ms: to, points }, asked.chosen, request.signal);
    if (request.signal.aborted) return;
    tookMs = performance.now() - began;
    Object.assign(view, { fromMs: from, toMs: to, dataToMs: Math.min(to, now()), alerts: answer.alerts });
    answer.panels.forEach((result, k) => panels[k].show(result));
    say("");
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refused)) throw error;
    say(error.message);
  } finally {
    if (asking === request) {
      asking = null;
      answeredAt = performance.now();
    }
  }
}

let shownAt = null;

/** Why the panels are not of now; nothing if they are. */
function say(refusal) {
  if (!refusal) shownAt = now();
  setAttr(byId("board"), "data-old", Boolean(refusal));
  setHidden(byId("board-said"), !refusal);
  setText(byId("board-said"), refusal ? `${refusal.replace(/\.$/, "")}.${shownAt && !panels.some(({ node }) => node.hasAttribute("data-waiting")) ? ` The panels are as of ${clock(shownAt)}.` : ""}` : "");
}
