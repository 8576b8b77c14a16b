// Level and components of a source over time, phases as bands, transitions as marks.

import { TimeChart } from "../charts.js";
import { h } from "../dom.js";
import { level } from "../format.js";
import { link } from "../link.js";
import { COMPONENTS, PHASES } from "../model.js";

const SPANS = { "1 min": 60, "3 min": 180, "10 min": 600 };
const LEAST_S = 30;
let chosen = "3 min";

/** Make the chart and the buttons that choose its span. */
export function levelChart(name) {
  let source = { rows: [], transitions: [] };
  const chart = new TimeChart({
    label: `Level of ${name} over time, its components, phases and transitions`,
    height: 260,
    range: () => [0, 1],
    span_s: () => spanOf(source.rows),
    series: [
      {
        label: "level",
        colour: "--level",
        fill: "--level-fill",
        width: 2.2,
        swatch: "level",
        format: (value) => level(value),
      },
      ...COMPONENTS.map((each) => ({
        label: each,
        colour: `--${each}`,
        width: 1,
        swatch: each,
        format: (value) => level(value, 2),
      })),
    ],
    bands: () => bands(source.rows),
    marks: () =>
      source.transitions.map((each) => [each.ts / 1000, `--phase-${each.transition.split(">")[1]}`]),
  });
  const buttons = Object.keys(SPANS).map((text) =>
    h(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": String(text === chosen),
        onclick: () => {
          chosen = text;
          for (const each of buttons) each.setAttribute("aria-pressed", String(each.textContent === chosen));
          draw();
        },
      },
      text,
    ),
  );

  function draw() {
    chart.set(series(source.rows));
  }

  return {
    node: chart.node,
    spans: h("div", { class: "chips", role: "group", "aria-label": "Span of the chart" }, ...buttons),
    update(found) {
      source = found;
      draw();
    },
    close: () => chart.close(),
  };
}

/** What is chosen, or as much of it as there is. */
function spanOf(rows) {
  const known = rows.length ? link.now() / 1000 - rows[0].at : 0;
  return Math.max(LEAST_S, Math.min(SPANS[chosen], known));
}

/** A column a second; one without a score is a gap, and the axis goes on in silence. */
function series(rows) {
  const end = Math.floor(link.now() / 1000);
  const start = end - SPANS[chosen];
  const names = ["level", ...COMPONENTS];
  const data = [[], ...names.map(() => [])];
  let before = null;
  for (const row of rows) {
    if (row.at < start) continue;
    if (before !== null && row.at - before > 5) push(data, before + 1, names, {});
    push(data, row.at, names, row);
    before = row.at;
  }
  if (before === null || end > before + 1) push(data, end, names, {});
  return data;
}

function push(data, at, names, row) {
  data[0].push(at);
  names.forEach((name, index) => data[index + 1].push(row[name] ?? null));
}

function bands(rows) {
  const found = [];
  for (const row of rows) {
    const colour = PHASES[row.phase] ? `--phase-${PHASES[row.phase]}` : null;
    const last = found.at(-1);
    if (last && last[2] === colour && row.at - last[1] <= 5) last[1] = row.at + 1;
    else found.push([row.at, row.at + 1, colour]);
  }
  return found.filter((each) => each[2]);
}
