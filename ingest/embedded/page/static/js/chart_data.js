// From the API's columns to what can be drawn, keeping silence visible as silence.

const SILENCE_MS = 15_000;
/** Health is published once a minute: two and a half periods without it are silence. */
const HEALTH_SILENCE_MS = 150_000;

export const gapLimit = (stepMs) => Math.max(3 * stepMs, SILENCE_MS);
export const healthGapLimit = (stepMs) => Math.max(3 * stepMs, HEALTH_SILENCE_MS);

/**
 * Rows for uPlot: [times, ...columns]. Within `gapMs` readings are joined, over longer silence a
 * row of nulls is put in, so that nothing can be drawn across it. Also says where the silence is.
 */
export function rowsWithGaps(times, columns, gapMs, fromMs, toMs) {
  const kept = times.map((_, i) => i).filter((i) => columns.some((column) => column[i] !== null && column[i] !== undefined));
  const xs = [];
  const ys = columns.map(() => []);
  const silences = [];
  const spoke = columns.map(() => -Infinity);
  let last = null;
  for (const i of kept) {
    const at = times[i];
    if (last !== null && at - last > gapMs) {
      xs.push(last + 1);
      ys.forEach((column) => column.push(null));
    }
    if (at - (last ?? fromMs) > gapMs) silences.push([last ?? fromMs, at]);
    xs.push(at);
    columns.forEach((column, k) => {
      const value = column[i] ?? null;
      if (value !== null) spoke[k] = at;
      // uPlot joins over undefined and breaks at null: one column may be silent while others speak.
      ys[k].push(value ?? (at - spoke[k] > gapMs ? null : undefined));
    });
    last = at;
  }
  if (toMs - (last ?? fromMs) > gapMs) silences.push([last ?? fromMs, toMs]);
  return { data: [xs, ...ys], silences };
}

/** Stretches of one state [{from, to, value}]; a stretch ends with the silence after it. */
export function stretches(times, values, stepMs, gapMs) {
  const found = [];
  times.forEach((at, i) => {
    const value = values[i];
    if (value === null || value === undefined) return;
    const open = found.at(-1);
    const near = open && at - open.seen <= gapMs;
    if (near) open.to = at;
    if (near && open.value === value) {
      open.seen = at;
      open.to = at + stepMs;
    } else {
      found.push({ from: at, to: at + stepMs, seen: at, value });
    }
  });
  return found;
}

export function stateAt(found, ms) {
  const stretch = found.find(({ from, to }) => from <= ms && ms < to);
  return stretch ? stretch.value : null;
}

/** Index of the reading nearest to a time, or null where none is near enough to speak for it. */
export function nearest(xs, ms, withinMs) {
  let low = 0;
  let high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < ms) low = middle + 1;
    else high = middle;
  }
  let best = null;
  for (const i of [low - 1, low]) {
    if (i >= 0 && i < xs.length && Math.abs(xs[i] - ms) <= withinMs && (best === null || Math.abs(xs[i] - ms) < Math.abs(xs[best] - ms))) best = i;
  }
  return best;
}
