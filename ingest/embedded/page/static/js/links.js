// Addresses within the page: a dashboard, its device, what is chosen, and the stretch of time.

import { FLEET_ID, isLineId } from "./format.js";

const PREFIX = "microcurrent-";

/** Time and choices that go along from one dashboard to another. */
const CARRIED = ["range", "from", "to", "model", "fw"];

export const routeOf = (uid) => uid.replace(PREFIX, "");

export function href(route, argument = "", parameters = null) {
  const query = parameters ? new URLSearchParams(parameters).toString() : "";
  return `#/${route}${argument ? `/${encodeURIComponent(argument)}` : ""}${query ? `?${query}` : ""}`;
}

/** "#/device/mc-1?range=1h" → route "device", argument "mc-1", parameters {range: "1h"}. */
export function readAddress() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [route, ...rest] = path.split("/");
  let argument = rest.join("/");
  try { argument = decodeURIComponent(argument); } catch { /* shown as it is */ }
  return { route, argument, parameters: new URLSearchParams(query) };
}

export function carried(parameters, names = CARRIED) {
  return new URLSearchParams([...parameters].filter(([name]) => names.includes(name)));
}

/** Another dashboard for what a row is about, and its time; null if the row does not say whose it is. */
export function linkHref(link, tags, ms) {
  const around = link.around_ms !== null && ms ? { from: Math.round(ms - link.around_ms), to: Math.round(ms + link.around_ms) } : {};
  const { device_id: device, ...others } = tags;
  const route = routeOf(link.uid);
  if (route === "device") return !device || device === FLEET_ID ? null : isLineId(device) ? href("pipeline", "", around) : href(route, device, around);
  return href(route, "", { ...others, ...(device ? { device_id: device } : {}), ...around });
}
