// A searchable choice of devices: type a part of the id, arrows and Enter, or click.

import { el, setAttr } from "./dom.js";

const MOST = 60;

/** `options()` → [{value, note}]; `choose(value)` is called with what the person takes. */
export function combobox(input, list, options, choose) {
  let active = -1;
  let shown = [];

  function open() {
    const text = input.value.trim().toLowerCase();
    const untouched = input.value === input.dataset.chosen;
    shown = options().filter(({ value, note }) => untouched || `${value} ${note}`.toLowerCase().includes(text)).slice(0, MOST);
    active = shown.findIndex(({ value }) => value === input.dataset.chosen);
    list.replaceChildren(...shown.map(({ value, note }, index) =>
      el("li", { role: "option", id: `${list.id}-${index}`, "data-index": index }, el("span", { class: "id" }, value), el("span", { class: "quiet" }, note))));
    if (!shown.length) list.replaceChildren(el("li", { class: "quiet", role: "presentation" }, "No device matches."));
    list.hidden = false;
    mark();
  }

  function close() {
    list.hidden = true;
    mark();
  }

  function mark() {
    setAttr(input, "aria-expanded", String(!list.hidden));
    [...list.children].forEach((item, index) => setAttr(item, "aria-selected", item.role === "option" ? String(index === active) : null));
    const current = list.hidden ? null : list.children[active];
    setAttr(input, "aria-activedescendant", current && active >= 0 ? current.id : null);
    if (current && active >= 0) current.scrollIntoView({ block: "nearest" });
  }

  function take(index) {
    const option = shown[index];
    if (!option) return;
    close();
    choose(option.value);
  }

  input.addEventListener("focus", () => { input.select(); open(); });
  input.addEventListener("click", open);
  input.addEventListener("input", open);
  input.addEventListener("blur", () => { close(); input.value = input.dataset.chosen ?? ""; });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); return; }
    if (event.key === "Enter") { take(active >= 0 ? active : 0); return; }
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
    if (item) { take(Number(item.dataset.index)); input.blur(); }
  });

  return {
    set(value) {
      input.dataset.chosen = value;
      if (document.activeElement !== input) input.value = value;
    },
  };
}
