// One bar for each column or group: its name, its length, its value.

import { el, icon, reconcile, setAttr, setHidden, setIcon, setText } from "./dom.js";
import { missing } from "./format.js";
import { LOUD, meant } from "./levels.js";
import { named } from "./table_data.js";

/** More than fit at one look come with the longest first. */
const MOST_IN_ORDER = 16;

export function barsPanel(panel, body) {
  const list = el("dl", { class: "bars" });
  body.append(list);
  return {
    show(result) {
      const bars = named(panel, result);
      if (bars.length > MOST_IN_ORDER) bars.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity));
      const most = panel.highest ?? Math.max(...bars.map(({ value }) => value ?? 0), Number.MIN_VALUE);
      reconcile(list, bars, ({ name }) => name,
        () => el("div", { class: "one-bar" }, el("dt", {}, icon("unknown"), el("span")), el("dd", {}, el("i"), el("span"))),
        (node, { name, column, value }) => {
          const { text, level } = meant(panel, column, value);
          const [shape, label] = node.firstChild.children;
          const [bar, words] = node.lastChild.children;
          setText(label, name);
          setAttr(label, "title", name);
          setText(words, text);
          setAttr(node, "data-level", level);
          setHidden(shape, !LOUD.includes(level));
          if (LOUD.includes(level)) setIcon(shape, level);
          setHidden(bar, missing(value));
          bar.style.setProperty("--part", missing(value) ? 0 : Math.min(1, Math.max(0, value / most)));
        });
      return bars.some(({ value }) => !missing(value));
    },
  };
}
