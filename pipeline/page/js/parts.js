// Pieces that several views use.

import { h, icon, setAttribute, setText } from "./dom.js";

/** A phase in its colour and in words. */
export function phaseBadge() {
  const node = h("span", { class: "phase" });
  node.update = (phase) => {
    setText(node, phase ?? "no score yet");
    setAttribute(node, "data-phase", phase ?? "none");
  };
  return node;
}

/** A panel with a heading. */
export function panel(title, props, ...children) {
  const { note, ...rest } = props ?? {};
  const id = `panel-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h(
    "section",
    { class: "panel", "aria-labelledby": id, ...rest },
    h("header", {}, h("h2", { id }, title), note ?? null),
    ...children,
  );
}

/** Something that is not there (yet), with what to do about it. */
export function blank(name, title, text, ...more) {
  return h("div", { class: "blank" }, icon(name), h("h2", {}, title), h("p", {}, text), ...more);
}

/** A share of a whole as a bar; `update(share)`, null for unknown. */
export function bar(className = "") {
  const inner = h("i", { class: className });
  const node = h("span", { class: "bar", "aria-hidden": "true" }, inner);
  node.update = (share) => {
    const known = Number.isFinite(share);
    inner.style.width = known ? `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%` : "0";
    node.classList.toggle("unknown", !known);
  };
  return node;
}

/** A table with named columns; `{label, number}` of each. Gives the node and its body. */
export function table(caption, columns) {
  const body = h("tbody");
  const heads = columns.map((each) =>
    h("th", { scope: "col", class: each.number ? "number" : null }, each.label),
  );
  const node = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), body),
  );
  return { node, body };
}

/** Tell something for a few seconds. */
export function toast(text, kind = "good") {
  const node = h("div", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}
