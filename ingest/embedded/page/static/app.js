// Wires the page: the address, the header, live data. What a dashboard shows is defined by the worker;
// beside it stands what is live: alerts to see to, devices, the ledger.

import { hideAlerts, showAlerts, startAlerts } from "./js/alerts.js";
import { api } from "./js/api.js";
import { hideBoard, showBoard, startBoard } from "./js/board.js";
import { startConditions } from "./js/conditions.js";
import { hideDevice, showDevice, startDevice } from "./js/device.js";
import { byId, el, icon, memory, setAttr, setHidden, setIcon, setText } from "./js/dom.js";
import { hideFleet, showFleet, startFleet } from "./js/fleet.js";
import { clock, deviceText, iso } from "./js/format.js";
import { carried, href, readAddress, routeOf } from "./js/links.js";
import { fleet, now, on, startLive } from "./js/live.js";
import { hidePipeline, showPipeline, startPipeline } from "./js/pipeline.js";
import { hideSafety, showSafety, startSafety } from "./js/safety.js";
import { paintSpan, paintToolbar, startToolbar } from "./js/toolbar.js";
import { readWindow, stillAt } from "./js/window.js";

/** What stands beside a dashboard, by its route. */
const BESIDE = {
  fleet: { show: showFleet, hide: hideFleet },
  safety: { show: showSafety, hide: hideSafety },
  device: { show: showDevice, hide: hideDevice },
  pipeline: { show: showPipeline, hide: hidePipeline },
};
const ALERTS = "alerts";
const VARIABLES = ["model", "fw", "device_id"];

const definitions = new Map();
let dashboards = [];
let shown = null;
let address = readAddress();

/** The alerts belong to the dashboard on safety. */
const tabOf = (route) => (route === ALERTS ? "safety" : route);

async function start() {
  try {
    ({ dashboards } = await api.dashboards());
    await firstSight;
  } catch (error) {
    setText(byId("starting"), `${error.message} Trying again.`);
    setTimeout(start, 2000);
    return;
  }
  byId("tabs").replaceChildren(...dashboards.map(({ uid, title }) => el("a", { "data-route": routeOf(uid), href: href(routeOf(uid)) }, title)));
  byId("tabs").querySelector("[data-route=safety]")?.append(el("span", { class: "count", id: "nav-alerts", hidden: true }));
  setHidden(byId("starting"), true);
  addEventListener("hashchange", route);
  navigationCount();
  await route();
}

async function route() {
  address = readAddress();
  if (address.route !== ALERTS && !dashboards.some(({ uid }) => routeOf(uid) === address.route)) address.route = routeOf(dashboards[0].uid);
  const changed = shown !== address.route;
  if (changed) leave();
  shown = address.route;
  tabs();
  title();
  if (changed) scrollTo(0, 0);
  setHidden(byId("view-alerts"), shown !== ALERTS);
  setHidden(byId("view-board"), shown === ALERTS);
  if (shown === ALERTS) showAlerts(address.argument, address.parameters);
  else await showDashboard();
}

function leave() {
  if (shown === ALERTS) hideAlerts();
  else if (shown) {
    hideBoard();
    BESIDE[shown]?.hide();
  }
}

async function showDashboard() {
  const mine = address;
  const definition = await defined(dashboards.find(({ uid }) => routeOf(uid) === mine.route).uid);
  if (mine !== address || !definition) return;
  const chosen = choices(definition);
  const window = readWindow(address.parameters, definition.shown_s * 1000, now() - (fleet.overview.kept_since_ms ?? now()));
  for (const name of Object.keys(BESIDE)) {
    for (const part of document.querySelectorAll(`[data-beside=${name}]`)) setHidden(part, name !== shown);
  }
  setText(byId("board-title"), definition.single ? chosen[definition.single]?.[0] ?? definition.title : definition.title);
  setText(byId("board-about"), definition.description);
  paintToolbar(definition, chosen, window);
  BESIDE[shown]?.show(chosen);
  const whole = !definition.single || Boolean(chosen[definition.single]);
  setHidden(byId("board"), !whole);
  if (whole) showBoard(definition, chosen, window);
  else hideBoard();
}

/** How a dashboard looks; it is the same as long as the worker runs. */
async function defined(uid) {
  try {
    if (!definitions.has(uid)) definitions.set(uid, await api.dashboard(uid));
    return definitions.get(uid);
  } catch (error) {
    setText(byId("board-about"), error.message);
    return null;
  }
}

function choices({ variables, single }) {
  const chosen = {};
  for (const name of VARIABLES) {
    const values = address.parameters.getAll(name);
    if (variables.includes(name) && name !== single && values.length) chosen[name] = values;
  }
  const one = address.argument || (single ? memory.get("device") : "");
  if (single && one) {
    chosen[single] = [one];
    memory.set("device", one);
  }
  return chosen;
}

/** What a person chose goes into the address: it can be shared, and Back undoes it. */
function choose(change) {
  const parameters = new URLSearchParams(address.parameters);
  let { argument } = address;
  for (const [name, value] of Object.entries(change)) {
    if (name === "device_id" && shown === "device") {
      argument = value[0] ?? "";
    } else if (Array.isArray(value)) {
      parameters.delete(name);
      value.forEach((one) => parameters.append(name, one));
    } else {
      for (const other of name === "range" ? ["from", "to"] : ["range"]) if (!(other in change)) parameters.delete(other);
      parameters.set(name, value);
    }
  }
  location.hash = href(shown, argument, parameters);
}

function zoom(span) {
  if (span) choose(stillAt(...span));
  else if (address.parameters.has("from")) history.back();
}

function tabs() {
  for (const tab of byId("tabs").children) {
    setAttr(tab, "aria-current", tab.dataset.route === tabOf(shown) ? "page" : null);
    setAttr(tab, "href", href(tab.dataset.route, "", carried(address.parameters)));
  }
}

function title() {
  const critical = fleet.alerts.filter((alert) => alert.severity === "critical" && !alert.acknowledged).length;
  const mark = fleet.link === "lost" ? "(lost) " : critical ? `(${critical}) ` : "";
  const name = shown === ALERTS ? "Alerts" : dashboards.find(({ uid }) => routeOf(uid) === shown)?.title;
  const wanted = `${mark}${name ? `${name} · ` : ""}Microcurrent fleet`;
  if (document.title !== wanted) document.title = wanted;
}

function header() {
  setHidden(byId("mode"), fleet.overview.mode !== "demo");
  setText(byId("version"), `Version ${fleet.overview.version}, running since ${clock(fleet.overview.started_ms)}`);
}

function navigationCount() {
  const count = byId("nav-alerts");
  if (!count) return;
  const open = fleet.alerts.length;
  const critical = fleet.alerts.some((alert) => alert.severity === "critical");
  setText(count, open);
  setHidden(count, open === 0);
  setAttr(count, "data-kind", critical ? "critical" : "quiet");
  setAttr(count, "title", `${open} alerts to see to`);
}

let announced = null;

/** A screen reader hears of critical alerts as they open; those open at the start are on the page. */
function announce() {
  const critical = fleet.alerts.filter((alert) => alert.severity === "critical");
  const fresh = announced ? critical.filter((alert) => !announced.has(alert.id)) : [];
  announced = new Set([...(announced ?? []), ...critical.map((alert) => alert.id)]);
  if (fresh.length === 1) {
    byId("announce").textContent = `New critical alert: ${fresh[0].rule} on ${deviceText(fresh[0])}.`;
  } else if (fresh.length) {
    byId("announce").textContent = `${fresh.length} new critical alerts.`;
  }
}

function themeButton() {
  const dark = window.theme.name === "dark";
  const button = byId("theme");
  if (!button.firstChild) button.append(icon("sun"));
  setIcon(button.firstChild, dark ? "sun" : "moon");
  setAttr(button, "aria-label", dark ? "Switch to light colours" : "Switch to dark colours");
}

function tick() {
  setText(byId("clock"), clock(Date.now()));
  setAttr(byId("clock"), "datetime", iso(Date.now()));
  paintSpan();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the route
  byId("main").focus();
});
byId("theme").addEventListener("click", () => window.theme.toggle());
window.theme.onChange(themeButton);
themeButton();
startConditions();
startToolbar(choose);
startBoard(zoom);
startFleet();
startAlerts();
startSafety();
startDevice();
startPipeline();
on("second", tick);
on("overview", header);
on("alerts", navigationCount);
on("alerts", announce);
on("alerts", title);
on("link", title);
const firstSight = startLive();
start();
