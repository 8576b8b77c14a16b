// The panels of one source. Each has a node and is told the source and its state.

import { TimeChart } from "../charts.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { clock, count, labels, level, rate, span } from "../format.js";
import { link } from "../link.js";
import { COMPONENTS } from "../model.js";
import { bar, phaseBadge, table } from "../parts.js";

const COLOURS = 8; // as the API draws them: a track keeps the colour of its number
const FLOW_S = 120;

/** What the level is made of. */
export function components() {
  const rows = [...COMPONENTS, "confidence"].map((name) => {
    const share = bar(name);
    const value = h("b", {}, "–");
    return {
      name,
      share,
      value,
      node: h("div", { class: "part" }, h("dt", {}, name), h("dd", {}, share, value)),
    };
  });
  const node = h("dl", { class: "parts" }, ...rows.map((row) => row.node));
  return {
    node,
    update(source, state) {
      for (const row of rows) {
        const last =
          row.name === "confidence" ? source.score?.confidence : source.score?.components[row.name];
        const value = last ?? state[row.name] ?? null;
        row.share.update(value);
        setText(row.value, level(value, 2));
      }
    },
  };
}

/** Tracks of the newest frame; what was only detected where there are none. */
export function objects() {
  const sum = h("p", { class: "lead" });
  const { node: list, body } = table("Tracks in the newest frame", [
    { label: "Track" },
    { label: "Object" },
    { label: "Sure", number: true },
    { label: "For", number: true },
    { label: "Speed", number: true },
  ]);
  return {
    node: h("div", {}, sum, list),
    update(source) {
      const tracks = source.frameScore?.tracks ?? [];
      const found = labels(source.labels).map(([label, many]) => `${many} ${label}`);
      setText(
        sum,
        found.length
          ? found.join(" · ")
          : source.detection
            ? "Nothing in sight."
            : source.frames
              ? "Waiting for the next frame."
              : "This source sends no pictures.",
      );
      list.hidden = !tracks.length;
      keyed(
        body,
        tracks,
        (track) => track.id,
        trackRow,
        (row, track) => row.update(track),
      );
    },
  };
}

function trackRow() {
  const swatch = h("i", { class: "swatch" });
  const cells = Array.from({ length: 4 }, (_, index) => h("td", { class: index ? "number" : null }));
  const id = h("span");
  const row = h("tr", {}, h("td", {}, swatch, id), ...cells);
  row.update = (track) => {
    setAttribute(swatch, "data-track", track.id % COLOURS);
    setText(id, `#${track.id % 10_000}`);
    const pace = Math.hypot(...(track.velocity ?? [0, 0]));
    const texts = [track.label, level(track.confidence, 2), span(track.age_ms), `${count(pace)} px/s`];
    texts.forEach((text, index) => setText(cells[index], text));
  };
  return row;
}

const STEPS = [
  ["queued_ms", "Waiting"],
  ["decode_ms", "Decoding"],
  ["infer_ms", "Network"],
  ["total", "Frame to detection"],
];

/** How long the newest frames took, step by step. */
export function stages() {
  const { node, body } = table("Time of each step, of the newest frames", [
    { label: "Step" },
    { label: "p50", number: true },
    { label: "p95", number: true },
    { label: "p99", number: true },
  ]);
  const none = h("p", { class: "lead" }, "No frame was detected while this page looked.");
  return {
    node: h("div", {}, none, node),
    update(source) {
      node.hidden = !source.timings.length;
      none.hidden = !node.hidden;
      const rows = [
        ...STEPS.map(([key, label]) => [label, source.timings.map((each) => each[key])]),
        ["Input to score", source.rows.slice(-60).map((row) => row.latency)],
      ];
      keyed(
        body,
        rows,
        (row) => row[0],
        ([label]) => h("tr", {}, h("td", {}, label), ...[50, 95, 99].map(() => h("td", { class: "number" }))),
        (node_, row) => {
          const sorted = row[1].filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
          [50, 95, 99].forEach((percentile, index) => {
            const at = Math.min(sorted.length - 1, Math.floor((sorted.length * percentile) / 100));
            setText(node_.children[index + 1], span(sorted[at]));
          });
        },
      );
    },
  };
}

/** Frames and events a second. */
export function inputs() {
  let flowS = FLOW_S;
  const chart = new TimeChart({
    label: "Frames and events a second",
    height: 150,
    span_s: () => flowS,
    series: [
      { label: "frames/s", colour: "--level", swatch: "level", format: rate },
      { label: "events/s", colour: "--novelty", swatch: "novelty", format: rate },
    ],
  });
  return {
    node: chart.node,
    update(source) {
      const end = Math.floor(link.now() / 1000) - 1; // the running second is not full yet
      const bySecond = new Map(source.rows.map((row) => [row.at, row]));
      const first = source.rows[0]?.at ?? end;
      flowS = Math.max(30, Math.min(FLOW_S, end - first));
      const data = [[], [], []];
      for (let at = Math.max(end - FLOW_S, first); at <= end; at += 1) {
        data[0].push(at);
        data[1].push(bySecond.get(at)?.frames ?? 0);
        data[2].push(bySecond.get(at)?.events ?? 0);
      }
      chart.set(data);
    },
    close: () => chart.close(),
  };
}

/** The newest changes of phase. */
export function transitions() {
  const list = h("ol", { class: "changes", reversed: true });
  const none = h("p", { class: "lead" }, "No change of phase within the last minutes.");
  return {
    node: h("div", {}, none, list),
    update(source) {
      const newest = source.transitions.slice(-8).reverse();
      none.hidden = newest.length > 0;
      keyed(
        list,
        newest,
        (each) => `${each.ts} ${each.transition}`,
        (each) => {
          const [from, to] = each.transition.split(">");
          const badges = [phaseBadge(), phaseBadge()];
          badges[0].update(from);
          badges[1].update(to);
          return h(
            "li",
            {},
            h("time", {}, clock(each.ts)),
            badges[0],
            h("span", { class: "dim" }, "to"),
            badges[1],
          );
        },
      );
    },
  };
}

const FACTS = [
  ["frames", "Frames scored"],
  ["events", "Events scored"],
  ["frames_dropped", "Frames dropped"],
  ["late", "Late"],
  ["dead", "Dead letters"],
  ["last_problem", "Last problem"],
  ["model", "Model"],
  ["engine_version", "Engine"],
  ["map_version", "Channel map"],
];

/** Counts and versions. */
export function facts() {
  const rows = FACTS.map(([key, label]) => ({ key, value: h("dd", {}, "–"), label: h("dt", {}, label) }));
  return {
    node: h("dl", { class: "fields" }, ...rows.flatMap((row) => [row.label, row.value])),
    update(source, state) {
      for (const { key, value } of rows)
        setText(value, typeof state[key] === "number" ? count(state[key]) : (state[key] ?? "–"));
    },
  };
}
