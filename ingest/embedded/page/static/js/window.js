// The stretch of time that a dashboard shows: the last so many minutes, following, or from one time to another.

import { moment } from "./format.js";
import { now } from "./live.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const LEAST_MS = 5_000;
const LEAST_DEFAULT_MS = 15 * MINUTE;

/** Each with the name that it has in an address. */
export const RANGES = [
  ["5m", 5 * MINUTE, "5 m", "5 minutes"], ["15m", 15 * MINUTE, "15 m", "15 minutes"], ["1h", HOUR, "1 h", "hour"], ["6h", 6 * HOUR, "6 h", "6 hours"],
  ["24h", DAY, "24 h", "24 hours"], ["7d", 7 * DAY, "7 d", "7 days"], ["30d", 30 * DAY, "30 d", "30 days"],
];

/** As long as a dashboard wants, but no longer than there is anything on record: hours of nothing say nothing. */
function fitting(shownMs, keptMs) {
  return RANGES.find(([, ms]) => ms >= Math.min(shownMs, Math.max(keptMs, LEAST_DEFAULT_MS))) ?? RANGES.at(-1);
}

/** {name, ms, still}: `still` is [from, to] where the window does not follow the clock. */
export function readWindow(parameters, shownMs, keptMs) {
  const [from, to] = ["from", "to"].map((name) => Number(parameters.get(name)));
  const [name, ms] = RANGES.find(([known]) => known === parameters.get("range")) ?? fitting(shownMs, keptMs);
  return { name, ms, still: from > 0 && to > from ? [Math.round(from), Math.round(to)] : null };
}

export function spanOf(window) {
  return window.still ?? [Math.round(now() - window.ms), Math.round(now())];
}

/** The parameters that show one stretch of time; never less than there is something to see in. */
export function stillAt(from, to) {
  const lacking = Math.max(0, LEAST_MS - (to - from)) / 2;
  return { from: Math.round(from - lacking), to: Math.round(to + lacking) };
}

export function spanText([from, to]) {
  return `${moment(from, now())} to ${moment(to, now())}`;
}
