// Elements from data. Text only ever becomes a text node, so no name or label can be markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `h("a", {class: "x", href: "#", onclick: f}, "text", child)`. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Make an SVG element. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Put text in a node, touching the document only if it changes. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set or remove an attribute, touching the document only if it changes. */
export function setAttribute(node, name, value) {
  if (value === null || value === false || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/** Keep children of `parent` in step with `items`: made once per key, updated, put in order. */
export function keyed(parent, items, keyOf, make, update) {
  const known = (parent.keyedNodes ??= new Map());
  const left = new Set(known.keys());
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = known.get(key);
    if (!node) known.set(key, (node = make(item)));
    left.delete(key);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
    update?.(node, item);
  }
  for (const key of left) {
    known.get(key).remove();
    known.delete(key);
  }
}

/** Drawings of 24 by 24, by name; all are decoration beside text or a label. */
const PATHS = {
  grid: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  flow: "M4 12h4l3-7 4 14 3-7h2",
  dead: "M12 3 2.500 20h19zM12 10v4M12 17v.500",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600 19 19M19 5l-1.400 1.400M6.400 17.600 5 19",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  leave: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  back: "M15 5l-7 7 7 7",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.500 4.500",
  replay: "M4 12a8 8 0 1 0 2.500-5.800M4 4v4.500h4.500",
  eye: "M3 12c2.400-4.200 5.400-6.300 9-6.300s6.600 2.100 9 6.300c-2.400 4.200-5.400 6.300-9 6.300S5.400 16.200 3 12zM12 9.200a2.800 2.800 0 1 0 0 5.600 2.800 2.800 0 0 0 0-5.600z",
  wave: "M3 12h3l2-5 4 10 3-8 2 3h4",
  key: "M14.500 4a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11zM10.500 13.500 4 20M6 18l2 2M9 15l2 2",
};

/** Give a drawing. */
export function icon(name) {
  return s(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    s("path", { d: PATHS[name] }),
  );
}
