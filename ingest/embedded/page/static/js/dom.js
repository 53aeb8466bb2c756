// Small tools that change the document in place. Data reaches it as text only, never as HTML.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is not a node becomes text. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Write only what differs: an untouched node keeps selection, focus and layout. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

export function setHidden(node, hidden) {
  // The attribute: drawings have no such property.
  if (node.hasAttribute("hidden") !== hidden) node.toggleAttribute("hidden", hidden);
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing from the sprite in index.html; decorative, the word beside it carries the meaning. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function setIcon(svg, name) {
  setAttr(svg.firstChild, "href", `#i-${name}`);
}

/** Health or severity as shape, colour and word at once; `paintBadge` changes it in place. */
export function badge() {
  return el("span", { class: "badge" }, icon("unknown"), el("span"));
}

export function paintBadge(node, kind, word = kind) {
  setAttr(node, "data-kind", kind);
  setIcon(node.firstChild, kind);
  setText(node.lastChild, word);
}

/**
 * Make the children of `parent` follow `items`, one node for each key, reusing nodes.
 * `create(item)` builds a node, `update(node, item)` writes the item into it. With
 * `keepOrder` nodes that are already there stay where they are (a person is using the list).
 */
export function reconcile(parent, items, keyOf, create, update, keepOrder = false) {
  const nodes = (parent.nodesByKey ??= new Map());
  const wanted = new Set();
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let node = nodes.get(key);
    if (!node) {
      node = create(item);
      nodes.set(key, node);
      if (keepOrder) parent.append(node);
    }
    update(node, item);
  }
  for (const [key, node] of nodes) {
    if (!wanted.has(key)) {
      node.remove();
      nodes.delete(key);
    }
  }
  if (keepOrder) return;
  let next = parent.firstChild;
  for (const item of items) {
    const node = nodes.get(keyOf(item));
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

/** Run `work` once the person pauses typing. */
export function debounce(work, ms = 150) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), ms);
  };
}

/** Remembered on this machine only; a browser that forbids it just forgets. */
export const memory = {
  get(key) {
    try { return localStorage.getItem(`microcurrent.${key}`); } catch { return null; }
  },
  set(key, value) {
    try { localStorage.setItem(`microcurrent.${key}`, value); } catch { /* private mode */ }
  },
};
