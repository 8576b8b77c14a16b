// Small lines without axes, as SVG.

import { s, setAttribute } from "./dom.js";

const WIDTH = 200;
const HEIGHT = 40;

/** A line of the last values; `update(values, top)` draws it, null leaves a gap. */
export function spark(className = "") {
  const area = s("path", { class: "spark-area" });
  const line = s("path", { class: "spark-line" });
  const node = s(
    "svg",
    {
      class: `spark ${className}`,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    area,
    line,
  );
  node.update = (values, top) => {
    const [stroke, shape] = paths(values, top);
    setAttribute(line, "d", stroke);
    setAttribute(area, "d", shape);
  };
  return node;
}

function paths(values, top) {
  const highest = top ?? Math.max(...values.filter(Number.isFinite), 1e-9) * 1.15;
  const step = WIDTH / Math.max(1, values.length - 1);
  let stroke = "";
  let shape = "";
  let start = null;
  values.forEach((value, index) => {
    if (!Number.isFinite(value)) {
      if (start !== null) shape += `L${(index - 1) * step} ${HEIGHT}Z`;
      start = null;
      return;
    }
    const x = (index * step).toFixed(1);
    const y = (HEIGHT - 1.5 - (HEIGHT - 4) * Math.min(1, Math.max(0, value / highest))).toFixed(1);
    stroke += `${start === null ? "M" : "L"}${x} ${y}`;
    shape += start === null ? `M${x} ${HEIGHT}L${x} ${y}` : `L${x} ${y}`;
    start ??= index;
  });
  if (start !== null) shape += `L${WIDTH} ${HEIGHT}Z`;
  return [stroke, shape];
}
