// Light or dark: the person's choice, else the system's. A classic script in the head, so that
// the first paint already has the right colours; modules read and change it via window.theme.
"use strict";
(() => {
  const KEY = "microcurrent.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try { return localStorage.getItem(KEY); } catch { return null; }
  };
  const listeners = new Set();
  let chosen = stored();
  const apply = () => {
    document.documentElement.dataset.theme = window.theme.name;
    listeners.forEach((listener) => listener());
  };
  window.theme = {
    get name() { return chosen ?? (system.matches ? "dark" : "light"); },
    toggle() {
      chosen = this.name === "dark" ? "light" : "dark";
      try { localStorage.setItem(KEY, chosen); } catch { /* private mode: until reload */ }
      apply();
    },
    /** Returns what forgets the listener. */
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  system.addEventListener("change", apply);
  apply();
})();
