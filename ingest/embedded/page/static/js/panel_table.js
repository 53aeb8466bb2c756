// A table whose columns sort; cells say their level in colour, shape and word, and lead further.

import { el, icon, setAttr, setHidden, setIcon, setText } from "./dom.js";
import { missing, number } from "./format.js";
import { LOUD, lookOf, meant, unitOf } from "./levels.js";
import { linkHref } from "./links.js";
import { tagsOf } from "./table_data.js";
import { shown } from "./units.js";

const TIME = "time";

export function tablePanel(panel, body) {
  const head = el("tr", { role: "row" });
  const rows = el("tbody", { role: "rowgroup" });
  const table = el("table", { class: "data", role: "table", "aria-label": panel.title },
    el("thead", { role: "rowgroup" }, head), rows);
  const more = el("p", { class: "quiet table-more" });
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${panel.title}, scrollable` }, table, more);
  body.append(scroll);
  let result = null;
  let columns = [];
  let sort = { title: null, down: true };

  function layOut() {
    // A row that tells when it was need not tell when it was written.
    const told = result.columns.some((title) => unitOf(panel, title) === "ms since 1970");
    const wanted = result.columns.filter((title) => !lookOf(panel, title).hidden && !(told && title === TIME));
    if (String(wanted) === String(columns)) return;
    columns = wanted;
    head.replaceChildren(...columns.map((title) => {
      const button = el("button", { type: "button", class: "sort" }, title === TIME ? "Time" : title);
      button.addEventListener("click", () => {
        sort = { title, down: sort.title === title ? !sort.down : isNumber(title) };
        paint();
      });
      return el("th", { role: "columnheader", scope: "col", "data-title": title, "data-number": isNumber(title) }, button);
    }));
    rows.replaceChildren();
  }

  const at = (title) => result.columns.indexOf(title);
  const isNumber = (title) => title !== TIME && unitOf(panel, title) !== "ms since 1970" && result.rows.some((row) => typeof row[at(title)] === "number");

  function sorted() {
    if (sort.title === null) return result.rows;
    const k = at(sort.title);
    const sign = sort.down ? -1 : 1;
    const weight = (a, b) => (missing(a) ? (missing(b) ? 0 : 1) : missing(b) ? -1 : sign * (a < b ? -1 : a > b ? 1 : 0));
    return [...result.rows].sort((a, b) => weight(a[k], b[k]));
  }

  function paint() {
    for (const th of head.children) {
      setAttr(th, "aria-sort", th.dataset.title === sort.title ? (sort.down ? "descending" : "ascending") : null);
    }
    const wanted = sorted();
    while (rows.children.length > wanted.length) rows.lastChild.remove();
    while (rows.children.length < wanted.length) rows.append(createRow());
    wanted.forEach((row, n) => columns.forEach((title, k) => paintCell(rows.children[n].children[k], title, row)));
    setText(more, result.of > result.rows.length ? `${number(result.rows.length)} of ${number(result.of)} are shown.` : "");
  }

  function createRow() {
    return el("tr", { role: "row" }, ...columns.map((title) =>
      el("td", { role: "cell", "data-wide": lookOf(panel, title).wide }, icon("unknown"), el("a", {}))));
  }

  function paintCell(cell, title, row) {
    const value = row[at(title)];
    const { text, level } = title === TIME ? { text: shown(value, "ms since 1970"), level: null } : meant(panel, title, value);
    const [shape, words] = cell.children;
    const { link } = lookOf(panel, title);
    setText(words, text);
    setAttr(words, "href", link ? linkHref(link, tagsOf(result, row), timeOf(row)) : null);
    setAttr(words, "title", link ? link.title : null);
    setAttr(cell, "data-level", level);
    setAttr(cell, "data-number", typeof value === "number" && unitOf(panel, title) !== "ms since 1970" && text !== shown(null));
    setHidden(shape, !LOUD.includes(level));
    if (LOUD.includes(level)) setIcon(shape, level);
  }

  /** When the row was: its own time, or the first that it tells. */
  function timeOf(row) {
    const title = columns.find((name) => unitOf(panel, name) === "ms since 1970") ?? TIME;
    return row[at(title)] ?? null;
  }

  return {
    show(answer) {
      result = answer;
      layOut();
      paint();
      setHidden(table, !answer.rows.length);
      return answer.rows.length > 0;
    },
  };
}
