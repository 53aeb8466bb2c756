// Alerts above the chart as links: reachable by pointer and by keyboard, each with its story.

import { alertHref } from "./alert_card.js";
import { el, icon, reconcile, setAttr, setHidden, setIcon, setText } from "./dom.js";
import { moment, quantity } from "./format.js";

const MARKER_PX = 20;
const LANES = 2;

/** What the lanes take above a chart. */
export const MARKER_LANES_PX = 20 * LANES;

const MOST_BEFORE = 4;
/** The end of the last lane is for the link to those that found no room. */
const MORE_PX = 112;

/** Put the alerts of the window into two lanes; what finds no room is counted in one last link. */
function arranged(u, view) {
  const free = Array(LANES).fill(-Infinity);
  const width = u.bbox.width / window.uPlot.pxRatio;
  const roomFor = (x, end, lane) => x >= end && (lane < LANES - 1 || x + MARKER_PX < width - MORE_PX);
  const placed = [];
  const crowded = [];
  const inWindow = view.alerts
    .filter((alert) => (alert.closed_ms ?? view.dataToMs) >= view.fromMs && alert.opened_ms <= view.toMs)
    .sort((a, b) => a.opened_ms - b.opened_ms);
  for (const alert of inWindow) {
    // Those from before the window queue at its left edge; their onset is not on the chart.
    const before = alert.opened_ms < view.fromMs;
    const x = before ? Math.max(0, free[0]) : u.valToPos(alert.opened_ms, "x");
    const lane = before ? (x < MOST_BEFORE * MARKER_PX ? 0 : -1) : free.findIndex((end, row) => roomFor(x, end, row));
    if (lane < 0) {
      crowded.push(alert);
    } else {
      free[lane] = x + MARKER_PX;
      placed.push({ alert, x, lane, before });
    }
  }
  return { placed, crowded };
}

const story = (alert) =>
  `${alert.severity}: ${alert.rule}, ${moment(alert.opened_ms)}, ${quantity(alert.value, alert.unit)}, limit ${quantity(alert.limit, alert.unit)}, ${alert.state}`;

export function placeMarkers(u, view) {
  const lane = (u.markerLane ??= createLane(u, view));
  const { placed, crowded } = arranged(u, view);
  lane.node.style.left = `${u.bbox.left / window.uPlot.pxRatio}px`;
  lane.node.style.width = `${u.bbox.width / window.uPlot.pxRatio}px`;
  reconcile(lane.links, placed, ({ alert }) => alert.id, () => el("a", { class: "marker" }, icon("info")), (node, { alert, x, lane: row, before }) => {
    node.alert = alert;
    setAttr(node, "href", alertHref(alert));
    setAttr(node, "data-kind", alert.severity);
    setAttr(node, "data-state", alert.state);
    setAttr(node, "data-before", before);
    setAttr(node, "aria-label", story(alert));
    setIcon(node.firstChild, alert.severity);
    node.style.transform = `translate(${Math.round(x - MARKER_PX / 2)}px, ${row * 19}px)`;
  }, true);
  setText(lane.more, crowded.length ? `+ ${crowded.length} more ${crowded.length === 1 ? "alert" : "alerts"}` : "");
  setHidden(lane.more, !crowded.length);
  setAttr(lane.more, "href", view.deviceId ? `#/alerts?device=${encodeURIComponent(view.deviceId)}` : "#/alerts");
}

function createLane(u, view) {
  const tip = el("div", { class: "tip", hidden: true });
  const more = el("a", { class: "marker-more" });
  const links = el("div");
  const node = el("div", { class: "markers" }, links, more, tip);
  u.root.append(node);
  const show = (event) => {
    const marker = event.target.closest?.(".marker");
    if (!marker) return;
    view.highlighted = marker.alert.id;
    tip.replaceChildren(
      el("strong", {}, marker.alert.rule), el("span", {}, `${marker.alert.severity}, ${marker.alert.state}`),
      el("span", {}, moment(marker.alert.opened_ms)),
      el("span", {}, `${quantity(marker.alert.value, marker.alert.unit)}, limit ${quantity(marker.alert.limit, marker.alert.unit)}`));
    tip.hidden = false;
    const x = marker.getBoundingClientRect().left - node.getBoundingClientRect().left;
    tip.style.left = `${Math.max(0, Math.min(x, node.clientWidth - tip.offsetWidth))}px`;
    view.redraw();
  };
  const hide = () => {
    if (tip.hidden) return;
    tip.hidden = true;
    view.highlighted = null;
    view.redraw();
  };
  node.addEventListener("pointerover", show);
  node.addEventListener("pointerout", hide);
  node.addEventListener("focusin", show);
  node.addEventListener("focusout", hide);
  return { node, links, more };
}
