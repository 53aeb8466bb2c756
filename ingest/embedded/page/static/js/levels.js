// What a value means: its words, and its level, which is a colour, a shape and a word at once.

import { missing } from "./format.js";
import { shown } from "./units.js";

const NO_LOOK = { meanings: {}, thresholds: [] };

/** How a column or series is shown where it differs from its panel. */
export const lookOf = (panel, title) => panel.looks[title] ?? NO_LOOK;

export const unitOf = (panel, title) => lookOf(panel, title).unit ?? panel.unit;

/** {text, level}; the level is null where nothing says what the value means. */
export function meant(panel, title, value) {
  const look = lookOf(panel, title);
  if (missing(value)) return { text: shown(value), level: null };
  const meaning = look.meanings[String(value)] ?? panel.meanings[String(value)];
  if (meaning) return meaning;
  const level = look.level ?? (typeof value === "number" ? levelAt(thresholdsOf(panel, title), panel.base, value) : null);
  return { text: shown(value, unitOf(panel, title), look.decimals ?? panel.decimals), level };
}

/** Thresholds of a panel are in its unit: a column of another unit has its own or none. */
function thresholdsOf(panel, title) {
  const look = lookOf(panel, title);
  if (look.thresholds.length) return look.thresholds;
  return missing(look.unit) || look.unit === panel.unit ? panel.thresholds : [];
}

function levelAt(thresholds, base, value) {
  if (!thresholds.length) return null;
  return thresholds.reduce((level, threshold) => (value >= threshold.value ? threshold.level : level), base);
}

/** Levels that need a shape beside their colour, in the order of their weight. */
export const LOUD = ["critical", "warning", "silent", "unknown"];
