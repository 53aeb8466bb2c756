// A small line without axes. A null, or more silence than `gapMs`, is a gap, never a bridge.

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let colours = null;
window.theme.onChange(() => { colours = null; });
const palette = () =>
  (colours ??= { line: token("--line-1"), fill: token("--line-1-soft") });

/** Draw points [[ms, value|null] …] from `fromMs` to `toMs`; `topValue` is the least full height. */
export function sparkline(canvas, points, { fromMs, toMs, gapMs, topValue, width, height }) {
  if (!width) return;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const top = Math.max(topValue, ...points.map(([, value]) => value ?? 0));
  const x = (ms) => ((ms - fromMs) / (toMs - fromMs)) * width;
  const y = (value) => height - 2 - (value / top) * (height - 4);
  const { line, fill } = palette();

  for (const run of runs(points, gapMs)) {
    pen.beginPath();
    run.forEach(([ms, value], index) => (index ? pen.lineTo(x(ms), y(value)) : pen.moveTo(x(ms), y(value))));
    pen.strokeStyle = line;
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.stroke();
    pen.lineTo(x(run.at(-1)[0]), height);
    pen.lineTo(x(run[0][0]), height);
    pen.fillStyle = fill;
    pen.fill();
  }
}

/** Unbroken stretches of points. */
function runs(points, gapMs) {
  const found = [];
  let run = [];
  for (const point of points) {
    const broken = run.length && point[0] - run.at(-1)[0] > gapMs;
    if ((point[1] === null || broken) && run.length) {
      found.push(run);
      run = [];
    }
    if (point[1] !== null) run.push(point);
  }
  if (run.length) found.push(run);
  return found;
}

/** Slanted lines: the sign of silence everywhere on this page. */
export function hatchBetween(pen, left, right, top, height, colour, spacing = 7) {
  if (right - left < 1) return;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, right - left, height);
  pen.clip();
  pen.beginPath();
  // The pattern hangs on the canvas, not on the gap, so it stands still while a gap grows.
  const first = Math.floor((left - height) / spacing) * spacing;
  for (let at = first; at < right + height; at += spacing) {
    pen.moveTo(at, top + height);
    pen.lineTo(at + height, top);
  }
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.stroke();
  pen.restore();
}
