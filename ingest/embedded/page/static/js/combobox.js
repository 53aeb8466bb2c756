// A searchable choice: type a part, arrows and Enter, or click. One value, or any number of them.

import { el, setAttr } from "./dom.js";

const MOST = 60;
const ANY = Symbol("any");

/**
 * `options()` → [{value, note}]; `choose(values)` is called with what the person takes. With `all`
 * (its words) any number may be chosen, and none means all.
 */
export function combobox({ input, list, options, choose, all = null }) {
  let chosen = [];
  let active = -1;
  let shown = [];

  const words = () => (chosen.length > 1 ? `${chosen.length} chosen` : chosen[0] ?? all ?? "");
  const isChosen = (value) => (value === ANY ? !chosen.length : chosen.includes(value));

  function open() {
    const text = input.value === words() ? "" : input.value.trim().toLowerCase();
    const found = options().filter(({ value, note }) => `${value} ${note}`.toLowerCase().includes(text));
    const first = found.filter(({ value }) => isChosen(value));
    shown = [...(all && !text ? [{ value: ANY, note: "" }] : []), ...first, ...found.filter(({ value }) => !isChosen(value))].slice(0, MOST);
    active = text ? 0 : shown.findIndex(({ value }) => isChosen(value));
    list.replaceChildren(...shown.map(({ value, note }, index) =>
      el("li", { role: "option", id: `${list.id}-${index}`, "data-index": index },
        el("span", { class: "id" }, value === ANY ? all : value), el("span", { class: "quiet" }, note))));
    if (!shown.length) list.replaceChildren(el("li", { class: "quiet", role: "presentation" }, "Nothing matches."));
    list.hidden = false;
    mark();
  }

  function close() {
    list.hidden = true;
    mark();
  }

  function mark() {
    setAttr(input, "aria-expanded", String(!list.hidden));
    [...list.children].forEach((item, index) => {
      setAttr(item, "aria-selected", item.role === "option" ? String(isChosen(shown[index].value)) : null);
      setAttr(item, "data-active", index === active);
    });
    const current = list.hidden ? null : list.children[active];
    setAttr(input, "aria-activedescendant", current && active >= 0 ? current.id : null);
    if (current && active >= 0) current.scrollIntoView({ block: "nearest" });
  }

  function take(index) {
    const option = shown[index];
    if (!option) return;
    if (!all) chosen = [option.value];
    else if (option.value === ANY) chosen = [];
    else chosen = isChosen(option.value) ? chosen.filter((value) => value !== option.value) : [...chosen, option.value];
    if (!all || option.value === ANY) close();
    else mark();
    input.value = words();
    choose(chosen);
  }

  input.addEventListener("focus", () => { input.select(); open(); });
  input.addEventListener("click", open);
  input.addEventListener("input", open);
  input.addEventListener("blur", () => { close(); input.value = words(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); input.value = words(); return; }
    if (event.key === "Enter") {
      if (list.hidden) open();
      else take(active >= 0 ? active : 0);
      return;
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    if (list.hidden) open();
    else if (shown.length) {
      active = (active + (event.key === "ArrowDown" ? 1 : -1) + shown.length) % shown.length;
      mark();
    }
  });
  // Before blur, or the list is gone before the click arrives.
  list.addEventListener("pointerdown", (event) => {
    const item = event.target.closest("[data-index]");
    event.preventDefault();
    if (item) take(Number(item.dataset.index));
    if (item && !all) input.blur();
  });

  return {
    set(values) {
      chosen = values;
      if (list.hidden) input.value = words();
      else mark();
      setAttr(input, "data-chosen", values.length > 0);
    },
  };
}
