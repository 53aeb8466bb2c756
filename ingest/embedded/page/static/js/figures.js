// The headline of the fleet page. Safety numbers stand beside what is not seen: both or neither.

import { badge, byId, el, paintBadge, setAttr, setText } from "./dom.js";
import { NONE, duration, number } from "./format.js";
import { fleet, now } from "./live.js";

const SEVERITIES = ["critical", "warning", "info"];
const parts = {};

export function startFigures() {
  const figure = (name, label) => {
    const value = el("span", { class: "value" }, NONE);
    const note = el("span", { class: "note" }, "\u00a0");
    parts[name] = { value, note };
    return el("div", { class: `figure f-${name}` }, el("span", { class: "label" }, label), value, note);
  };
  const alerts = el("a", { class: "figure f-alerts", href: "#/alerts" }, el("span", { class: "label" }, "Open alerts"));
  const row = el("span", { class: "value badges" });
  parts.severities = SEVERITIES.map((severity) => {
    const shown = badge();
    const item = el("span", { class: "severity" }, shown, el("span", { class: "unit" }, severity));
    paintBadge(shown, severity, NONE);
    row.append(item);
    return shown;
  });
  parts.alertNote = el("span", { class: "note" }, "\u00a0");
  alerts.append(row, parts.alertNote);
  byId("figures").append(
    alerts,
    figure("online", "Devices online"),
    figure("running", "Running now"),
    figure("unseen", "Devices not seen"),
    figure("rate", "Messages"),
    figure("stored", "Stored"),
  );
}

function write(name, value, note) {
  setText(parts[name].value, value);
  setText(parts[name].note, note || "\u00a0");
}

export function paintFigures() {
  const { overview, devices } = fleet;
  if (!overview) return;
  SEVERITIES.forEach((severity, index) => {
    const count = overview.alerts_open[severity];
    paintBadge(parts.severities[index], severity, number(count));
    setAttr(parts.severities[index].parentNode, "data-zero", count === 0);
  });
  const { critical, warning, info, unacknowledged } = overview.alerts_open;
  const open = critical + warning + info;
  setText(parts.alertNote, unacknowledged ? `${number(unacknowledged)} not acknowledged` : open ? "all acknowledged" : "none open in what was seen");
  write("online", number(overview.devices.online), `of ${number(overview.devices.known)} known`);
  write("running", number(overview.devices.running), "delivering output");
  const dark = devices.filter(({ health }) => health === "silent" || health === "unknown").length;
  const lacking = devices.reduce((sum, device) => sum + (device.missing ?? 0), 0);
  write("unseen", number(dark), `${number(lacking)} messages missing`);
  setAttr(parts.unseen.value.parentNode, "data-some", dark + lacking > 0);
  write("rate", `${number(overview.pipeline.rate_per_s, overview.pipeline.rate_per_s < 100 ? 1 : 0)} /s`,
    overview.pipeline.observed_until_ms === null ? "nothing judged yet" : `judged until ${duration(now() - overview.pipeline.observed_until_ms)} ago`);
  write("stored", number(overview.ledger.stored), `${number(overview.ledger.pending)} pending · ${number(overview.ledger.quarantined)} refused`);
}
