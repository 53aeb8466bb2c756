// One tile for each group: its name, and what holds for it, as colour, shape and word.

import { el, icon, reconcile, setAttr, setIcon, setText } from "./dom.js";
import { linkHref } from "./links.js";
import { meant } from "./levels.js";
import { linkOf, named } from "./table_data.js";

export function tilesPanel(panel, body) {
  const list = el("ul", { class: "tiles" });
  const link = linkOf(panel);
  body.append(list);
  return {
    show(result) {
      const tiles = named(panel, result);
      reconcile(list, tiles, ({ name }) => name,
        () => el("li", {}, el("a", { class: "tile" }, icon("unknown"), el("span", { class: "tile-name" }), el("span", { class: "tile-state" }))),
        (node, { name, column, value, tags }) => {
          const { text, level } = meant(panel, column, value);
          const [shape, title, state] = node.firstChild.children;
          setAttr(node.firstChild, "data-level", level ?? "unknown");
          setAttr(node.firstChild, "href", link ? linkHref(link, tags, null) : null);
          setAttr(node.firstChild, "title", `${name}: ${text}`);
          setIcon(shape, level ?? "unknown");
          setText(title, name);
          setText(state, text);
        });
      return tiles.length > 0;
    },
  };
}
