// A value in the unit of its panel, as a person reads it.

import { NONE, celsius, clock, duration, millivolts, missing, moment, number, ohms, plain, significant } from "./format.js";

const followed = (sign) => (value, places) => `${digits(value, places)}${sign}`;
const digits = (value, places) => (missing(places) ? significant(value) : number(value, places));

function seconds(value, places) {
  if (Math.abs(value) < 120) return `${missing(places) ? plain(`${number(value, value < 10 && !Number.isInteger(value) ? 1 : 0)} `).trim() : number(value, places)} s`;
  return duration(value * 1000);
}

/** Of what is counted in MB, as a person says it. */
function megabytes(value, places) {
  return Math.abs(value) < 10_000 ? `${digits(value, places)} MB` : `${number(value / 1000, 1)} GB`;
}

const UNITS = {
  "": digits,
  count: (value, places) => number(value, places ?? (Number.isInteger(value) ? 0 : 1)),
  "0–1 as %": (value, places) => `${number(value * 100, places ?? (value > 0.999 && value < 1 ? 2 : Number.isInteger(value * 100) ? 0 : 1))} %`,
  "µA": (value, places) => `${number(value, places ?? (Math.abs(value) < 100 && !Number.isInteger(value) ? 1 : 0))} µA`,
  mV: (value, places) => (missing(places) ? millivolts(value) : `${number(value, places)} mV`),
  "Ω": ohms,
  "°C": (value, places) => (missing(places) ? celsius(value) : `${number(value, places)} °C`),
  s: seconds,
  MB: megabytes,
  "ms since 1970": (value) => moment(value),
  "per second": followed(" /s"),
  "per 100 h": followed(" /100 h"),
};

/** `unit` is one of the product's names of units; text and truth values are shown as they are. */
export function shown(value, unit, places) {
  if (missing(value)) return NONE;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  return (UNITS[unit] ?? followed(` ${unit}`))(value, places);
}

const KNOWN_TICKS = new Set(["0–1 as %", "µA", "mV", "Ω", "°C", "s", "MB"]);
const SIGNS = { "": "", count: "", "per second": " /s", "per 100 h": " /100 h" };

/** On an axis, where needless digits are in the way. */
export function tick(value, unit) {
  if (unit === "ms since 1970") return clock(value);
  if (KNOWN_TICKS.has(unit)) return plain(shown(value, unit));
  const places = [0, 1, 2].find((digits_) => Math.abs(value - Number(value.toFixed(digits_))) < 1e-9) ?? 3;
  return `${number(value, places)}${SIGNS[unit] ?? ` ${unit}`}`;
}
