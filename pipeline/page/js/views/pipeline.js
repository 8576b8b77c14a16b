// The deployment: rates, freshness, streams, workers, partitions, the ledger, the API's own cache.

import { TimeChart } from "../charts.js";
import { h, keyed, setAttribute, setText } from "../dom.js";
import { bytes, count, percent, rate, span } from "../format.js";
import { bar, panel, table } from "../parts.js";
import { status } from "../status.js";
import { ledger } from "./ledger.js";

const SPAN_S = 600;
const SILENT_MS = 30_000;

/** Make the view. */
export function pipeline() {
  const parts = [rates(), freshness(), streams(), workers(), partitions(), ledger(), cache()];
  const [flow, fresh, flows, crew, owned, sums, hits] = parts;
  const node = h(
    "div",
    { class: "page" },
    h("div", { class: "head" }, h("h1", {}, "Pipeline")),
    h(
      "div",
      { class: "detail" },
      panel("Throughput", {}, flow.node),
      panel("Ledger", { note: sums.note }, sums.node),
      h(
        "div",
        { class: "columns" },
        panel("Freshness", {}, fresh.node),
        panel("Streams", {}, flows.node),
        panel("Workers", {}, crew.node),
        panel("Partitions and owners", {}, owned.node),
        panel("Served from memory", {}, hits.node),
      ),
    ),
  );
  const draw = () => {
    if (status.now) for (const each of parts) each.update(status.now);
  };
  status.addEventListener("change", draw);
  requestAnimationFrame(draw);
  return {
    node,
    title: "Pipeline",
    close() {
      status.removeEventListener("change", draw);
      flow.close();
    },
  };
}

function rates() {
  const chart = new TimeChart({
    label: "Frames and events a second of the whole deployment",
    height: 220,
    span_s: () => Math.min(SPAN_S, Math.max(60, (status.rates.at(-1)?.at ?? 0) - (status.rates[0]?.at ?? 0))),
    series: [
      { label: "frames in", colour: "--dim", swatch: "dim", format: rate },
      {
        label: "frames detected",
        colour: "--level",
        fill: "--level-fill",
        swatch: "level",
        width: 2,
        format: rate,
      },
      { label: "events scored", colour: "--novelty", swatch: "novelty", format: rate },
      { label: "frames dropped", colour: "--bad", swatch: "bad", format: rate },
    ],
  });
  return {
    node: chart.node,
    update() {
      const pick = (name) => status.rates.map((each) => each[name]);
      chart.set([pick("at"), pick("framesIn"), pick("framesOut"), pick("scored"), pick("dropped")]);
    },
    close: () => chart.close(),
  };
}

function freshness() {
  const { node, body } = table("Time from an input to its result", [
    { label: "Result" },
    { label: "p50", number: true },
    { label: "p95", number: true },
    { label: "p99", number: true },
  ]);
  const kinds = [
    ["detections", "Frame to detection"],
    ["scores", "Input to score"],
  ];
  return {
    node: h(
      "div",
      {},
      node,
      h("p", { class: "help" }, "Of the newest 1,024 results of each kind, by Redis's clock."),
    ),
    update(now) {
      keyed(
        body,
        kinds,
        (kind) => kind[0],
        (kind) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, kind[1]),
            ...[0, 1, 2].map(() => h("td", { class: "number" })),
          ),
        (row, [kind]) => {
          const found = now.api.freshness[kind] ?? {};
          ["p50_ms", "p95_ms", "p99_ms"].forEach((name, index) => {
            const cell = row.children[index + 1];
            setText(cell, span(found[name]));
            setAttribute(cell, "data-tone", found[name] > 1000 ? "warn" : null);
          });
        },
      );
    },
  };
}

function streams() {
  const { node, body } = table("Streams of all partitions", [
    { label: "Stream" },
    { label: "Lag", number: true },
    { label: "Pending", number: true },
    { label: "Oldest", number: true },
    { label: "Held", number: true },
  ]);
  return {
    node,
    update(now) {
      const names = Object.keys(now.partitions[0]?.streams ?? {});
      const rows = names.map((name) => {
        const all = now.partitions.map((part) => part.streams[name]);
        const sum = (field) => all.reduce((total, each) => total + (each[field] ?? 0), 0);
        const oldest = Math.max(...all.map((each) => each.oldest_ms));
        const isKnown = all.every((each) => each.lag !== null);
        return {
          name,
          texts: [
            isKnown ? count(sum("lag")) : "unknown",
            count(sum("pending")),
            oldest ? span(oldest) : "–",
            count(sum("length")),
          ],
        };
      });
      keyed(
        body,
        rows,
        (row) => row.name,
        (row) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, row.name),
            ...row.texts.map(() => h("td", { class: "number" })),
          ),
        (made, row) => row.texts.forEach((text, index) => setText(made.children[index + 1], text)),
      );
    },
  };
}

function workers() {
  const { node, body } = table("Workers that are known", [
    { label: "Worker" },
    { label: "Does" },
    { label: "Has", number: true },
    { label: "Last sign", number: true },
  ]);
  const none = h("p", { class: "problem" }, "No worker is known: nothing is being processed.");
  return {
    node: h("div", {}, none, node),
    update(now) {
      const rows = [
        ...now.workers.detect.map((each) => ({
          ...each,
          job: "detect",
          has: `${count(each.pending)} in hand`,
        })),
        ...now.workers.score.map((each) => ({
          ...each,
          job: "score",
          has: each.partitions ? `${count(each.partitions)} partitions` : "standing by",
        })),
      ];
      none.hidden = rows.length > 0;
      node.hidden = !rows.length;
      keyed(
        body,
        rows,
        (row) => `${row.job} ${row.name}`,
        (row) =>
          h(
            "tr",
            {},
            h("td", { class: "name" }, row.name),
            h("td", {}, row.job),
            h("td", { class: "number" }),
            h("td", { class: "number" }),
          ),
        (made, row) => {
          setText(made.children[2], row.has);
          setText(made.children[3], row.idle_ms < 1500 ? "now" : span(row.idle_ms));
          setAttribute(made.children[3], "data-tone", row.idle_ms > SILENT_MS ? "warn" : null);
        },
      );
    },
  };
}

function partitions() {
  const grid = h("ul", { class: "cells" });
  const told = h("p", { class: "lead" });
  return {
    node: h("div", {}, told, grid),
    update(now) {
      const owners = [...new Set(now.partitions.map((part) => part.owner).filter(Boolean))].sort();
      const lonely = now.partitions.filter((part) => !part.owner).length;
      setText(
        told,
        lonely
          ? `${count(lonely)} of ${count(now.partitions.length)} have no owner.`
          : `${count(now.partitions.length)} partitions, ${owners.length === 1 ? "one owner" : `${owners.length} owners`}.`,
      );
      setAttribute(told, "data-tone", lonely ? "bad" : null);
      keyed(
        grid,
        now.partitions,
        (part) => part.partition,
        (part) => h("li", {}, h("span", {}, part.partition.slice(1)), h("b")),
        (cell, part) => {
          const busy = Object.values(part.streams).reduce(
            (sum, each) => sum + (each.lag ?? 0) + each.pending,
            0,
          );
          setAttribute(cell, "data-owner", part.owner ? owners.indexOf(part.owner) % 8 : "none");
          setText(cell.lastElementChild, busy ? count(busy) : part.sources ? "·" : "");
          setAttribute(
            cell,
            "title",
            `${part.partition}: ${part.owner ?? "no owner"}, ${part.sources} sources, ${busy} in flight, ${part.dead} dead letters`,
          );
        },
      );
    },
  };
}

const READS = {
  state: "States",
  results: "Results",
  frame: "Pictures",
  replay: "After a break",
  session: "Sessions",
};

function cache() {
  const list = h("dl", { class: "parts" });
  const rest = h("p", { class: "help" });
  return {
    node: h("div", {}, list, rest),
    update(now) {
      const frames = now.ledger.frames_detected + now.ledger.frames_cached;
      const rows = [
        { name: "Frames seen before", hit: now.ledger.frames_cached, all: frames },
        ...Object.entries(READS).map(([what, name]) => {
          const { hit = 0, miss = 0 } = now.api.lookups[what] ?? {};
          return { name, hit, all: hit + miss };
        }),
      ].filter((row) => row.all);
      keyed(
        list,
        rows,
        (row) => row.name,
        (row) =>
          h(
            "div",
            { class: "part" },
            h("dt", {}, row.name),
            h("dd", {}, bar("level"), h("b"), h("span", { class: "dim" })),
          ),
        (made, row) => {
          made.querySelector(".bar").update(row.hit / row.all);
          setText(made.querySelector("b"), percent(row.hit / row.all));
          setText(made.querySelector("dd > span:last-child"), `of ${count(row.all)}`);
        },
      );
      setText(
        rest,
        `This API process holds ${bytes(now.api.held.bytes)} of ${count(now.api.held.sources)} sources; ${count(now.api.live)} live connections.`,
      );
    },
  };
}
