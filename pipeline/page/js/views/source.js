// One source: its picture, its level over time, what is in it, and what became of its inputs.

import { get, ofSource } from "../api.js";
import { h, icon, setAttribute, setText } from "../dom.js";
import { ago, level, rate } from "../format.js";
import { link } from "../link.js";
import { follow } from "../live.js";
import { model } from "../model.js";
import { blank, panel, phaseBadge } from "../parts.js";
import { Picture } from "../pictures.js";
import { channels } from "./source_channels.js";
import { components, facts, inputs, objects, stages, transitions } from "./source_parts.js";
import { levelChart } from "./source_chart.js";

const LEAST_MS = 90;
const DRAW_MS = 250;
const STATE_MS = 1000;
const RATE_S = 10;

/** Make the view of a source. */
export function sourceView(name) {
  const badge = phaseBadge();
  const number = h("b", { class: "huge" }, "–");
  const seen = h("span", { class: "dim" });
  const speed = h("span", { class: "dim" });
  const stage = picture(name);
  const chart = levelChart(name);
  const parts = [components(), objects(), channels(), stages(), inputs(), transitions(), facts()];
  const [shares, things, groups, times, flow, changes, about] = parts;
  const body = h(
    "div",
    { class: "detail" },
    h(
      "div",
      { class: "hero" },
      h("div", { class: "stage" }, stage.node),
      h(
        "div",
        { class: "side" },
        panel("Now", {}, h("div", { class: "now" }, h("div", { class: "dial" }, number, badge), shares.node)),
        panel("Objects and tracks", {}, things.node),
      ),
    ),
    panel("Level over time", { note: chart.spans }, chart.node),
    h(
      "div",
      { class: "columns" },
      panel("Channels", { note: groups.note }, groups.node),
      panel("Inputs", {}, flow.node),
      panel("From frame to result", {}, times.node),
      panel("Transitions", {}, changes.node),
      panel("About", {}, about.node),
    ),
  );
  const gone = h("div");
  const node = h(
    "div",
    { class: "page" },
    h(
      "div",
      { class: "head" },
      h("a", { class: "back", href: "#/", "aria-label": "All sources" }, icon("back")),
      h("h1", { class: "name" }, name),
      seen,
      speed,
    ),
    body,
    gone,
  );
  let state = {};
  let timer = 0;
  let isOpen = true;

  async function loadState() {
    try {
      state = await get(ofSource(name, "state"));
      gone.replaceChildren();
      body.hidden = false;
    } catch (error) {
      if (error.status === 404 || error.status === 403) {
        body.hidden = true;
        gone.replaceChildren(
          blank(
            "eye",
            "Nothing of this source",
            error.message,
            h("a", { class: "button", href: "#/" }, "All sources"),
          ),
        );
      }
    }
    if (isOpen) timer = setTimeout(loadState, STATE_MS);
  }

  function loadPast() {
    model.loadPast(name).catch(() => undefined); // the link tells that the API is away
  }

  function draw() {
    if (document.hidden) return;
    const source = model.source(name);
    badge.update(source.phase ?? state.phase);
    setText(number, level(source.level ?? state.level));
    setText(seen, source.lastSeenMs ? `seen ${ago(link.now() - source.lastSeenMs)}` : "");
    setText(speed, sayRates(source));
    loadPast();
    stage.update(source);
    chart.update(source);
    for (const each of parts) each.update(source, state);
  }

  follow([name]);
  loadState();
  const drawing = setInterval(draw, DRAW_MS);
  requestAnimationFrame(draw);
  return {
    node,
    title: name,
    close() {
      isOpen = false;
      clearTimeout(timer);
      clearInterval(drawing);
      stage.close();
      chart.close();
      flow.close();
    },
  };
}

function sayRates(source) {
  const end = Math.floor(link.now() / 1000);
  const rows = source.rows.filter((row) => row.at >= end - RATE_S && row.at < end);
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0) / RATE_S;
  return `${rate(sum("frames"))} frames/s · ${rate(sum("events"))} events/s`;
}

function picture(name) {
  const image = h("img", { alt: `Newest frame of ${name} with what was found in it`, hidden: true });
  const none = h(
    "div",
    { class: "no-picture" },
    icon("eye"),
    h("span", {}, "no picture within the last minute"),
  );
  const age = h("span", { class: "age" });
  const node = h("div", { class: "view big" }, none, image, h("div", { class: "over" }, h("span"), age));
  let frameMs = null;
  const shown = new Picture(image, name, LEAST_MS, (atMs) => {
    frameMs = atMs;
    image.hidden = atMs === null;
    none.hidden = atMs !== null;
    if (atMs !== null && image.naturalWidth) {
      node.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
    }
  });
  shown.show();
  return {
    node,
    update(source) {
      setText(
        none.lastElementChild,
        source.frames ? "no picture within the last minute" : "this source sends events only",
      );
      const oldMs = frameMs ? Math.max(0, link.now() - frameMs) : null;
      setText(age, oldMs === null ? "" : oldMs < 10_000 ? `${(oldMs / 1000).toFixed(1)} s old` : ago(oldMs));
      setAttribute(age, "data-tone", oldMs > 10_000 ? "warn" : null);
    },
    close: () => shown.close(),
  };
}
