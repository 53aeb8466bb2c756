// A few large numbers; each with a shape where its level is more than a colour.

import { el, icon, reconcile, setAttr, setHidden, setIcon, setText } from "./dom.js";
import { missing } from "./format.js";
import { LOUD, meant } from "./levels.js";
import { named } from "./table_data.js";

export function statPanel(panel, body) {
  const list = el("dl", { class: "stats" });
  body.append(list);
  return {
    show(result) {
      const numbers = named(panel, result);
      setAttr(list, "data-many", numbers.length > 1);
      reconcile(list, numbers, ({ name }) => name,
        () => el("div", { class: "stat" }, el("dt"), el("dd", {}, icon("unknown"), el("span"))),
        (node, { name, column, value }) => {
          const { text, level } = meant(panel, column, value);
          const [shape, words] = node.lastChild.children;
          setText(node.firstChild, name);
          setHidden(node.firstChild, numbers.length === 1);
          setText(words, text);
          setAttr(node, "data-level", level);
          setHidden(shape, !LOUD.includes(level));
          if (LOUD.includes(level)) setIcon(shape, level);
        });
      return numbers.some(({ value }) => !missing(value));
    },
  };
}
