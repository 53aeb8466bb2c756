// Numbers, units and times as a person reads them. A missing value is a dash, never a zero.

export const NONE = "–";
const THIN = "\u202f";

const grouped = (places) =>
  new Intl.NumberFormat("en", { minimumFractionDigits: places, maximumFractionDigits: places });
const FORMATS = [grouped(0), grouped(1), grouped(2), grouped(3)];

export const missing = (value) => value === null || value === undefined || Number.isNaN(value);

/** 12345.6 → "12 346" at 0 places, with thin spaces. */
export function number(value, places = 0) {
  return missing(value) ? NONE : FORMATS[places].format(value).replaceAll(",", THIN);
}

/** As many places as leave three or four meaningful digits. */
export function significant(value) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 1000) return number(value);
  if (size >= 100) return number(value, 1);
  return size >= 1 ? number(value, 2) : size === 0 ? "0" : size >= 0.01 ? number(value, 3) : value.toPrecision(2);
}

export const microamps = (value) => (missing(value) ? NONE : `${number(value, value < 100 ? 1 : 0)} µA`);
export const celsius = (value) => (missing(value) ? NONE : `${number(value, 1)} °C`);
export const millivolts = (value) => (missing(value) ? NONE : `${number(value)} mV`);

export function ohms(value) {
  if (missing(value)) return NONE;
  if (value >= 1e6) return `${number(value / 1e6, value >= 1e7 ? 0 : 1)} MΩ`;
  if (value >= 1e3) return `${number(value / 1e3, value >= 1e5 ? 0 : 1)} kΩ`;
  return `${number(value)} Ω`;
}

/** Without a needless ".0": for round limits and axes, where nothing jitters. */
export const plain = (text) => text.replace(/\.0(?= )/, "");

const OHM = new Set(["ohm", "Ω"]);
const MICROAMP = new Set(["uA", "ua", "µA", "μA"]);

const CELSIUS = new Set(["°C", "C", "degC"]);
export const isCelsius = (unit) => CELSIUS.has(unit);

/** A value of an alert in its own unit. */
export function quantity(value, unit) {
  if (missing(value)) return NONE;
  if (isCelsius(unit)) return celsius(value);
  if (OHM.has(unit)) return ohms(value);
  if (MICROAMP.has(unit)) return `${significant(value)} µA`;
  const text = `${significant(value)}${unit ? ` ${unit.replace("cm2", "cm²")}` : ""}`;
  return unit === "s" && value >= 120 ? `${text} (${duration(value * 1000)})` : text;
}

export function bytes(value) {
  return missing(value) ? NONE : `${number(value)} bytes`;
}

/** "4 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function duration(ms) {
  if (missing(ms)) return NONE;
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.round(s / 60)} min`;
  const minutes = Math.round(s / 60);
  if (s < 86_400) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export function ago(then, now) {
  if (missing(then)) return "never";
  const gone = now - then;
  if (gone < 1500) return "just now";
  return `${gone < 3_600_000 && gone >= 60_000 ? `${Math.floor(gone / 60_000)} min` : duration(gone)} ago`;
}

const two = (n) => String(n).padStart(2, "0");

export function clock(ms) {
  if (missing(ms)) return NONE;
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const dayOf = (ms) => DAY.format(ms);

/** Local time; with the day when it is not today's. */
export function moment(ms, now = Date.now()) {
  if (missing(ms)) return NONE;
  const sameDay = new Date(ms).toDateString() === new Date(now).toDateString();
  return sameDay ? clock(ms) : `${DAY.format(ms)} ${clock(ms)}`;
}

export const iso = (ms) => {
  if (missing(ms)) return "";
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
};

/** "under_eye_l" → "under eye, left". */
export function zone(name) {
  if (missing(name)) return NONE;
  const side = name.endsWith("_l") ? ", left" : name.endsWith("_r") ? ", right" : "";
  return (side ? name.slice(0, -2) : name).replaceAll("_", " ") + side;
}

/** The name under which there are alerts about several devices at once. */
export const FLEET_ID = "~fleet";

export const isLineId = (id) => id.startsWith("~worker-");

/** Whether an alert is about several devices at once. */
export const isFleet = (alert) => alert.device_id === FLEET_ID;

/** Whether an alert is about the line itself: what it cannot see or hold, and who tries to get in. */
export const isLine = (alert) => isLineId(alert.device_id);

/** Whether there is a device whose readings can be shown. */
export const isDevice = (alert) => !isFleet(alert) && !isLine(alert);

export const deviceText = (alert) => (isFleet(alert) ? `${number(alert.value)} devices` : isLine(alert) ? "the line itself" : alert.device_id);
