// The ledger: three sums that must come out even, each as a bar of what became of its entries.

import { h, setAttribute, setText } from "../dom.js";
import { count } from "../format.js";

const EQUATIONS = [
  {
    name: "frames",
    label: "Frames",
    total: (terms) => terms.frames_in,
    parts: [
      ["frames_detected", "detected", "good"],
      ["frames_cached", "from cache", "good"],
      ["frames_dropped_age", "dropped: too old", "warn"],
      ["frames_dropped_overflow", "dropped: overflow", "warn"],
      ["frames_dropped_duplicate", "dropped: duplicate", "warn"],
      ["frames_dead", "dead letters", "bad"],
      ["frames_lost_trimmed", "lost", "bad"],
    ],
  },
  {
    name: "events",
    label: "Events",
    total: (terms) => terms.events_in,
    parts: [
      ["events_scored", "scored", "good"],
      ["events_dropped_duplicate", "dropped: duplicate", "warn"],
      ["events_dead", "dead letters", "bad"],
      ["events_lost_trimmed", "lost", "bad"],
    ],
  },
  {
    name: "detections",
    label: "Detections",
    total: (terms) => terms.frames_detected + terms.frames_cached,
    parts: [
      ["frames_scored", "scored", "good"],
      ["detections_dead", "dead letters", "bad"],
      ["detections_lost_trimmed", "lost", "bad"],
    ],
  },
];

/** What became of everything that came in. */
export function ledger() {
  const note = h("span", { class: "verdict" });
  const rows = EQUATIONS.map((equation) => {
    const pieces = equation.parts.map(([key, label, tone]) => ({
      key,
      label,
      bar: h("i", { data: { tone } }),
      text: h("li", { data: { tone } }),
    }));
    const total = h("b");
    const open = h("li", { data: { tone: "open" } });
    const node = h(
      "div",
      { class: "equation" },
      h("h3", {}, equation.label, total),
      h("div", { class: "stack", "aria-hidden": "true" }, ...pieces.map((each) => each.bar)),
      h("ul", { class: "terms" }, ...pieces.map((each) => each.text), open),
    );
    return { equation, pieces, total, open, node };
  });
  return {
    note,
    node: h("div", { class: "ledger" }, ...rows.map((row) => row.node)),
    update(now) {
      for (const { equation, pieces, total, open } of rows) {
        const sum = equation.total(now.ledger);
        setText(total, count(sum));
        for (const piece of pieces) {
          const value = now.ledger[piece.key] ?? 0;
          piece.bar.style.width = sum ? `${((100 * value) / sum).toFixed(2)}%` : "0";
          piece.text.hidden = !value && piece !== pieces[0];
          setText(piece.text, `${piece.label} ${count(value)}`);
        }
        const gap = now.difference[equation.name];
        open.hidden = !gap;
        setText(open, `${gap > 0 ? "on their way" : "beyond"} ${count(Math.abs(gap))}`);
      }
      setText(
        note,
        now.balanced ? "balances: everything is accounted for" : `${count(now.in_flight)} in flight`,
      );
      setAttribute(note, "data-tone", now.balanced ? "good" : null);
    },
  };
}
