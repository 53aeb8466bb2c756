// From the API's series to what can be drawn, keeping silence visible as silence.

const empty = (value) => value === null || value === undefined;

/** How far apart two readings may be and still be joined; `gapMs` is between readings, not between buckets. */
export const joinedWithin = (stepMs, gapMs) => (gapMs ?? stepMs / 2) + stepMs;

/**
 * Rows for uPlot, [times, ...columns], of lines {times, values, gapMs}. Over longer silence than its
 * `gapMs` a line is broken, so that nothing is drawn across. Also says where no line has anything.
 */
export function rowsWithGaps(lines, fromMs, toMs) {
  const breaks = lines.map(({ times, values, gapMs }) => {
    const kept = times.filter((_, i) => !empty(values[i]));
    return kept.slice(1).flatMap((at, i) => (at - kept[i] > gapMs ? [kept[i] + 1] : []));
  });
  const xs = [...new Set([...lines.flatMap(({ times }) => times), ...breaks.flat()])].sort((a, b) => a - b);
  const columns = lines.map(({ times, values }, k) => {
    const known = new Map(times.map((at, i) => [at, values[i]]));
    const broken = new Set(breaks[k]);
    // uPlot joins over undefined and breaks at null: one line may be silent while others speak.
    return xs.map((at) => (broken.has(at) ? null : known.get(at) ?? undefined));
  });
  return { data: [xs, ...columns], silences: silences(lines, fromMs, toMs) };
}

function silences(lines, fromMs, toMs) {
  const gapMs = Math.max(0, ...lines.map((line) => line.gapMs));
  const spoken = [...new Set(lines.flatMap(({ times, values }) => times.filter((_, i) => !empty(values[i]))))].sort((a, b) => a - b);
  const found = [];
  let last = fromMs;
  for (const at of [...spoken, toMs]) {
    if (at - last > gapMs) found.push([last, at]);
    last = Math.max(last, at);
  }
  return found;
}

/** Each line on top of those before it; where some line speaks, one that says nothing adds nothing. */
export function stackedRows([xs, ...columns]) {
  const below = xs.map(() => 0);
  return [xs, ...columns.map((column) => column.map((value, i) => {
    if (columns.every((other) => empty(other[i]))) return null;
    below[i] += value ?? 0;
    return below[i];
  }))];
}

/** Stretches of one state [{from, to, value}]; a stretch ends with the silence after it. */
export function stretches(times, values, stepMs, gapMs) {
  const found = [];
  times.forEach((at, i) => {
    const value = values[i];
    if (empty(value)) return;
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
export function nearest(xs, ms, withinMs, speaks = () => true) {
  let low = 0;
  let high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < ms) low = middle + 1;
    else high = middle;
  }
  const before = (i) => { while (i >= 0 && !speaks(i)) i -= 1; return i; };
  const after = (i) => { while (i < xs.length && !speaks(i)) i += 1; return i; };
  let best = null;
  for (const i of [before(low - 1), after(low)]) {
    if (i >= 0 && i < xs.length && Math.abs(xs[i] - ms) <= withinMs && (best === null || Math.abs(xs[i] - ms) < Math.abs(xs[best] - ms))) best = i;
  }
  return best;
}

/** Readings with silence on both sides: a line cannot show them, a dot can. */
export function lonely(column) {
  const said = column.map((_, i) => i).filter((i) => column[i] !== undefined);
  return said.filter((i, k) => !empty(column[i]) && (k === 0 || column[said[k - 1]] === null) && (k === said.length - 1 || column[said[k + 1]] === null));
}
