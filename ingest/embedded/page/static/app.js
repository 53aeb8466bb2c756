// Wires the page: routes, header, live data. Each view module shows one page.

import { hideAlerts, showAlerts, startAlerts } from "./js/alerts.js";
import { startConditions } from "./js/conditions.js";
import { hideDevice, showDevice, startDevice } from "./js/device.js";
import { byId, icon, setAttr, setHidden, setIcon, setText } from "./js/dom.js";
import { hideFleet, showFleet, startFleet } from "./js/fleet.js";
import { clock, deviceText, iso } from "./js/format.js";
import { fleet, on, startLive } from "./js/live.js";
import { hidePipeline, showPipeline, startPipeline } from "./js/pipeline.js";

const VIEWS = {
  fleet: { title: "Fleet", show: showFleet, hide: hideFleet },
  alerts: { title: "Alerts", show: showAlerts, hide: hideAlerts },
  device: { title: "Device", show: showDevice, hide: hideDevice },
  pipeline: { title: "Pipeline", show: showPipeline, hide: hidePipeline },
};
let shown = null;

/** "#/device/mc-1?range=1h" → view "device", argument "mc-1", parameters {range: "1h"}. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const view = VIEWS[name] ? name : "fleet";
  let argument = rest.join("/");
  try { argument = decodeURIComponent(argument); } catch { /* shown as it is */ }
  const changed = shown !== view;
  if (changed && shown) VIEWS[shown].hide();
  for (const other of Object.keys(VIEWS)) {
    setHidden(byId(`view-${other}`), other !== view);
    setAttr(document.querySelector(`.tabs [data-view=${other}]`), "aria-current", other === view ? "page" : null);
  }
  shown = view;
  VIEWS[view].show(argument, new URLSearchParams(query));
  if (changed) scrollTo(0, 0);
  title();
}

function title() {
  const critical = fleet.alerts.filter((alert) => alert.severity === "critical" && !alert.acknowledged).length;
  const mark = fleet.link === "lost" ? "(lost) " : critical ? `(${critical}) ` : "";
  const wanted = `${mark}${VIEWS[shown].title} · Microcurrent fleet`;
  if (document.title !== wanted) document.title = wanted;
}

function header() {
  setHidden(byId("mode"), fleet.overview.mode !== "demo");
  setText(byId("version"), `Version ${fleet.overview.version}, running since ${clock(fleet.overview.started_ms)}`);
}

function navigationCount() {
  const open = fleet.alerts.length;
  const critical = fleet.alerts.some((alert) => alert.severity === "critical");
  setText(byId("nav-alerts"), open);
  setHidden(byId("nav-alerts"), open === 0);
  setAttr(byId("nav-alerts"), "data-kind", critical ? "critical" : "quiet");
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
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the route
  byId("main").focus();
});
byId("theme").addEventListener("click", () => window.theme.toggle());
window.theme.onChange(themeButton);
themeButton();
tick();
startConditions();
startFleet();
startAlerts();
startDevice();
startPipeline();
on("second", tick);
on("overview", header);
on("alerts", navigationCount);
on("alerts", announce);
on("alerts", title);
on("link", title);
addEventListener("hashchange", route);
route();
startLive();
