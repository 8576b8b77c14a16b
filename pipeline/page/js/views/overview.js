// All sources as tiles, and what the deployment does now. Only tiles in sight cost anything.

import { h, icon, keyed, setAttribute, setText } from "../dom.js";
import { count, rate, span } from "../format.js";
import { follow } from "../live.js";
import { PHASES, model } from "../model.js";
import { blank } from "../parts.js";
import { spark } from "../spark.js";
import { status } from "../status.js";
import { tile } from "../tile.js";

const DRAW_MS = 500;
const ORDERS = {
  name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
  level: (a, b) => (b.level ?? -1) - (a.level ?? -1),
  newest: (a, b) => b.lastSeenMs - a.lastSeenMs,
};
const filter = { text: "", phase: null, order: "name" };

/** Make the view; gives its node and what ends it. */
export function overview() {
  const inSight = new Set();
  const grid = h("div", { class: "tiles", "aria-busy": "true" });
  const empty = h("div");
  const told = h("p", { class: "told", role: "status" });
  const numbers = figures();
  const node = h(
    "div",
    { class: "page" },
    h("h1", { class: "unseen" }, "Sources"),
    numbers.node,
    toolbar(draw, told),
    grid,
    empty,
  );
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) inSight.add(entry.target);
        else inSight.delete(entry.target);
        entry.target.see(entry.isIntersecting);
      }
      follow([...inSight].map((each) => each.name));
    },
    { rootMargin: "120px" },
  );

  function draw() {
    const shown = pick();
    grid.setAttribute("aria-busy", String(!model.isLoaded));
    if (!model.isLoaded) {
      keyed(
        grid,
        [1, 2, 3, 4, 5, 6],
        (key) => `bone-${key}`,
        () => h("div", { class: "tile bone", "aria-hidden": "true" }),
      );
      return;
    }
    keyed(
      grid,
      shown,
      (source) => source.name,
      (source) => {
        const made = tile(source);
        watcher.observe(made);
        return made;
      },
    );
    for (const each of inSight) {
      if (!each.isConnected) {
        inSight.delete(each);
        each.close();
      } else each.update();
    }
    empty.replaceChildren(...(shown.length ? [] : [model.sources.size ? noneMatch(node) : noSources()]));
    const all = model.sources.size;
    setText(
      told,
      shown.length === all
        ? `${count(all)} source${all === 1 ? "" : "s"}`
        : `${count(shown.length)} of ${count(all)} sources`,
    );
    numbers.update();
  }

  const timer = setInterval(() => document.hidden || draw(), DRAW_MS);
  model.addEventListener("list", draw);
  draw();
  return {
    node,
    title: "Sources",
    close() {
      clearInterval(timer);
      model.removeEventListener("list", draw);
      watcher.disconnect();
      for (const each of grid.keyedNodes?.values() ?? []) each.close?.();
    },
  };
}

function pick() {
  const text = filter.text.trim().toLowerCase();
  return [...model.sources.values()]
    .filter(
      (source) =>
        !text || source.name.toLowerCase().includes(text) || source.labels.toLowerCase().includes(text),
    )
    .filter((source) => !filter.phase || source.phase === filter.phase)
    .sort(ORDERS[filter.order]);
}

function toolbar(draw, told) {
  const search = h("input", {
    type: "search",
    id: "search",
    placeholder: "Search sources or objects",
    "aria-label": "Search sources or objects",
    autocomplete: "off",
    spellcheck: "false",
    value: filter.text,
    oninput: (event) => {
      filter.text = event.target.value;
      draw();
    },
  });
  const chips = PHASES.map((phase) =>
    h(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": String(filter.phase === phase),
        data: { phase },
        onclick: (event) => {
          filter.phase = filter.phase === phase ? null : phase;
          for (const chip of chips)
            chip.setAttribute("aria-pressed", String(chip.dataset.phase === filter.phase));
          event.currentTarget.focus();
          draw();
        },
      },
      phase,
    ),
  );
  const order = h(
    "select",
    {
      "aria-label": "Order",
      onchange: (event) => {
        filter.order = event.target.value;
        draw();
      },
    },
    ...Object.keys(ORDERS).map((name) =>
      h("option", { value: name, selected: filter.order === name }, `by ${name}`),
    ),
  );
  return h(
    "div",
    { class: "toolbar" },
    h("label", { class: "search" }, icon("search"), search),
    h("div", { class: "chips", role: "group", "aria-label": "Only sources in this phase" }, ...chips),
    order,
    told,
  );
}

function figures() {
  const cards = [
    card(
      "Frames detected",
      "/s",
      (rates) => rates.framesOut,
      (now, last) => `${rate(last?.framesIn)}/s in`,
    ),
    card(
      "Events scored",
      "/s",
      (rates) => rates.scored,
      (now, last) => `${rate(last?.eventsIn)}/s in`,
    ),
    fresh("Frame to detection", "detections"),
    fresh("Input to score", "scores"),
    card(
      "In flight",
      "",
      (rates) => rates.inFlight,
      (now) => `oldest ${span(oldest(now))}`,
      count,
    ),
    ledger(),
  ];
  return {
    node: h(
      "dl",
      { class: "figures", "aria-label": "The deployment now" },
      ...cards.map((each) => each.node),
    ),
    update() {
      for (const each of cards) each.update(status.now, status.rates);
    },
  };
}

function frame(label, ...parts) {
  const value = h("b", {}, "–");
  const unit = h("span", { class: "unit" });
  const note = h("span", { class: "note" }, "\u00a0");
  const node = h(
    "div",
    { class: "figure" },
    h("dt", {}, label),
    h("dd", {}, h("span", { class: "value" }, value, unit), note, ...parts),
  );
  return { node, value, unit, note };
}

function card(label, unit, pickValue, say, write = rate) {
  const line = spark();
  const parts = frame(label, line);
  setText(parts.unit, unit);
  return {
    node: parts.node,
    update(now, rates) {
      const last = rates.at(-1);
      setText(parts.value, write(last ? pickValue(last) : null));
      if (now) setText(parts.note, say(now, last));
      line.update(rates.slice(-60).map(pickValue));
    },
  };
}

function fresh(label, kind) {
  const parts = frame(label);
  setText(parts.unit, "p95");
  return {
    node: parts.node,
    update(now) {
      const found = now?.api.freshness[kind];
      setText(parts.value, span(found?.p95_ms));
      setText(
        parts.note,
        found ? `p50 ${span(found.p50_ms)} · p99 ${span(found.p99_ms)}` : "nothing measured yet",
      );
      setAttribute(parts.node, "data-tone", found?.p95_ms > 1000 ? "warn" : null);
    },
  };
}

function ledger() {
  const parts = frame("Ledger");
  return {
    node: parts.node,
    update(now) {
      if (!now) return;
      const open = Object.values(now.difference).reduce((sum, each) => sum + Math.abs(each), 0);
      const isIn = open <= 2 * now.in_flight + 8;
      setText(parts.value, now.balanced || isIn ? "Balanced" : "Open");
      setText(
        parts.note,
        now.balanced
          ? "every entry accounted for"
          : isIn
            ? `${count(open)} on their way`
            : `${count(open)} unaccounted for`,
      );
      setAttribute(parts.node, "data-tone", now.balanced || isIn ? "good" : "bad");
    },
  };
}

const oldest = (now) =>
  Math.max(0, ...now.partitions.flatMap((part) => Object.values(part.streams).map((each) => each.oldest_ms)));

function noSources() {
  return blank(
    "eye",
    "No sources yet",
    "A source appears here with its first frame or event. Publish one:",
    h("pre", { tabindex: "0" }, "percipio produce frames --source cam-1 --input video.mp4"),
    h("p", {}, "or over HTTP, as ", h("a", { href: "docs" }, "the API"), " describes."),
  );
}

function noneMatch(node) {
  const reset = () => {
    filter.text = "";
    filter.phase = null;
    node.querySelector("#search").value = "";
    for (const chip of node.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", "false");
    model.dispatchEvent(new Event("list"));
  };
  return blank(
    "search",
    "Nothing matches",
    "No source has this name, object or phase now.",
    h("button", { type: "button", class: "button", onclick: reset }, "Show all"),
  );
}
