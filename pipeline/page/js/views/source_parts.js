// The panels of one source. Each has a node and is told the source and its state.

import { TimeChart } from "../charts.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { clock, count, labels, level, percent, rate, span } from "../format.js";
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

/** What each channel brings, and the groups of channels that the level is worked out from. */
export function channels() {
  const values = channelValues();
  const { node: list, body } = table("Groups of channels and their part in the level", [
    { label: "Group" },
    { label: "Share" },
    { label: "Coupling" },
    { label: "Core" },
  ]);
  const none = h("p", { class: "lead" }, "No score yet.");
  const note = h("span", { class: "dim" });
  return {
    node: h("div", {}, none, values.node, list),
    note,
    update(source) {
      values.update(source.score?.channels);
      const groups = rowsOf(source.score);
      none.hidden = groups.length > 0;
      list.hidden = !groups.length;
      const pair = source.score?.correlation?.pair;
      setText(note, pair ? `${pair.vision} and ${pair.event} move together (r ${level(pair.r, 2)})` : "");
      keyed(
        body,
        groups,
        (group) => group.name,
        channelRow,
        (row, group) => row.update(group),
      );
    },
  };
}

/** The value a bin of each channel, its bar against the most seen of it here. */
function channelValues() {
  const most = new Map();
  const { node, body } = table("What a bin brings on each channel", [
    { label: "Channel" },
    { label: "A bin", number: true },
    { label: "Of its most here" },
  ]);
  return {
    node,
    update(found) {
      const rows = Object.entries(found ?? {});
      node.hidden = !rows.length;
      for (const [name, value] of rows) most.set(name, Math.max(most.get(name) ?? 0, Math.abs(value)));
      keyed(
        body,
        rows,
        ([name]) => name,
        valueRow,
        (row, [name, value]) => row.update(name, value, most.get(name)),
      );
    },
  };
}

function valueRow() {
  const [name, number, part] = [h("td", { class: "name" }), h("td", { class: "number" }), bar("level")];
  const row = h("tr", {}, name, number, h("td", {}, h("span", { class: "barred" }, part)));
  row.update = (channel, value, most) => {
    setText(name, channel);
    setText(number, String(Number(value.toPrecision(3))));
    part.update(most ? Math.abs(value) / most : 0);
  };
  return row;
}

function rowsOf(score) {
  const found = score?.populations;
  if (!found?.population_id) return [];
  const core = new Set(score.core ?? []);
  return found.population_id.map((name, index) => ({
    name,
    kind: found.specialization?.[index],
    active: found.active_neurons?.[index],
    size: found.size?.[index],
    share: found.share?.[index],
    coupling: found.fitness?.[index],
    isCore: core.has(name),
  }));
}

function channelRow(group) {
  const [share, coupling] = [bar("level"), bar("integration")];
  const shareText = h("b");
  const couplingText = h("b");
  const core = h("td");
  const row = h(
    "tr",
    {},
    h("td", { class: "name", title: group.kind ?? "" }, group.name),
    h("td", {}, h("span", { class: "barred" }, share, shareText)),
    h("td", {}, h("span", { class: "barred" }, coupling, couplingText)),
    core,
  );
  row.update = (now) => {
    share.update(now.share);
    setText(shareText, percent(now.share));
    coupling.update(now.coupling);
    setText(couplingText, level(now.coupling, 2));
    setText(core, now.isCore ? "in" : "out");
    setAttribute(core, "class", now.isCore ? "good" : "dim");
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
