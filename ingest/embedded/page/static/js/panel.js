// The frame of a panel: its title, what it is about, what it shows or why it shows nothing.

import { barsPanel } from "./panel_bars.js";
import { linesPanel } from "./panel_lines.js";
import { statPanel } from "./panel_stat.js";
import { statesPanel } from "./panel_states.js";
import { tablePanel } from "./panel_table.js";
import { tilesPanel } from "./panel_tiles.js";
import { el, setAttr, setHidden, setText } from "./dom.js";

const KINDS = { series: linesPanel, states: statesPanel, stat: statPanel, table: tablePanel, bars: barsPanel, tiles: tilesPanel };

/** Rows of the grid are so high; a title and a legend take so much of a panel. */
const ROW_PX = 30;
const FRAME_PX = { series: 74, states: 74 };
const WHOLE = 24;

let made = 0;

/** `view` is what all panels of a dashboard look at; `markers`: the alerts are links above this one. */
export function createPanel(panel, view, markers) {
  const id = `panel-${(made += 1)}`;
  const note = el("p", { class: "panel-about", id: `${id}-about`, hidden: true }, panel.description);
  const about = el("button", { type: "button", class: "about", "aria-expanded": "false", "aria-controls": note.id, "aria-label": `About ${panel.title}` }, "?");
  const body = el("div", { class: "panel-body" });
  const said = el("p", { class: "panel-said", hidden: true });
  const node = el("section", { class: "board-panel", "data-kind": panel.kind, "aria-labelledby": id, "data-waiting": true },
    el("header", {}, el("h3", { id }, panel.title), about), note, body, said);
  for (const [name, value] of [["--w", panel.width], ["--w-tablet", Math.min(WHOLE, 2 * panel.width)], ["--h", panel.height]]) node.style.setProperty(name, value);
  const height = Math.max(90, panel.height * ROW_PX - (FRAME_PX[panel.kind] ?? 0)) + (markers ? 20 : 0);
  const renderer = KINDS[panel.kind](panel, body, view, { height, markers });

  const tell = (open) => { setHidden(note, !open); setAttr(about, "aria-expanded", String(open)); };
  about.addEventListener("click", () => tell(note.hidden));
  node.addEventListener("keydown", (event) => { if (event.key === "Escape" && !note.hidden) { tell(false); about.focus(); } });

  return {
    node,
    show(result) {
      setAttr(node, "data-waiting", null);
      const filled = result.error ? false : renderer.show(result);
      setAttr(node, "data-empty", !filled);
      setAttr(said, "data-error", Boolean(result.error));
      setHidden(said, filled);
      setText(said, result.error ? `Not known: ${result.error}.` : panel.empty);
    },
    wait: () => setAttr(node, "data-waiting", true),
    redraw: () => renderer.redraw?.(),
    end: () => renderer.end?.(),
  };
}
