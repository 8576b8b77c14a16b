// One source in the overview: its picture, or its level where it has none, and what is in it now.

import { h, icon, setAttribute, setText } from "./dom.js";
import { ago, labels, level } from "./format.js";
import { link } from "./link.js";
import { model } from "./model.js";
import { phaseBadge } from "./parts.js";
import { Picture } from "./pictures.js";
import { spark } from "./spark.js";

const LEAST_MS = 180;
const SHOWN_S = 90;
const QUIET_MS = 15_000;
const MOST_LABELS = 4;

/** Make a tile. `see(isInSight)` starts and stops it, `update()` draws, `close()` frees it. */
export function tile(source) {
  const { name } = source;
  const image = h("img", { alt: "", decoding: "async", hidden: true });
  const none = h("div", { class: "no-picture" }, icon("wave"), h("span", {}, "events only"));
  const large = spark("large");
  const badge = phaseBadge();
  const age = h("span", { class: "age" });
  const line = spark();
  const number = h("b", { class: "tile-level" }, "–");
  const things = h("span", { class: "things" });
  const node = h(
    "a",
    { class: "tile", href: `#/source/${encodeURIComponent(name)}` },
    h("div", { class: "view" }, large, none, image, h("div", { class: "over" }, badge, age)),
    h("div", { class: "foot" }, h("strong", { title: name }, name), number, line, things),
  );
  let frameMs = null;
  let isSeen = false;
  const picture = new Picture(image, name, LEAST_MS, (atMs) => {
    frameMs = atMs;
    image.hidden = atMs === null;
  });

  node.name = name;
  node.see = (isInSight) => {
    isSeen = isInSight;
    if (!isInSight) return picture.hide();
    return node.update();
  };
  node.close = () => picture.close();
  node.update = () => {
    const now = model.source(name);
    if (!isSeen) return;
    if (now.frames || now.detection) picture.show();
    model.loadPast(name).catch(() => undefined); // the link tells that the API is away
    badge.update(now.phase);
    setText(number, level(now.level));
    const quietMs = link.now() - now.lastSeenMs;
    setText(age, frameMs ? ago(link.now() - frameMs) : ago(quietMs));
    setAttribute(node, "data-quiet", quietMs > QUIET_MS);
    setText(
      none.lastElementChild,
      now.frames || now.detection ? "no picture within the last minute" : "events only",
    );
    none.hidden = !image.hidden;
    setAttribute(large, "class", `spark large${image.hidden ? "" : " unseen"}`);
    const levels = recent(now.rows);
    line.update(levels, 1);
    if (image.hidden) large.update(levels, 1);
    setAttribute(node, "data-phase", now.phase ?? "none");
    setText(things, sayThings(now));
  };
  return node;
}

/** Levels of the last seconds, one each; a second without a score has the one before it. */
function recent(rows) {
  const end = Math.floor(link.now() / 1000);
  const found = new Array(SHOWN_S).fill(Number.NaN);
  let last = Number.NaN;
  let at = 0;
  for (let index = 0; index < SHOWN_S; index += 1) {
    const second = end - SHOWN_S + 1 + index;
    while (at < rows.length && rows[at].at <= second) {
      last = rows[at].level;
      at += 1;
    }
    found[index] = last;
  }
  return found;
}

function sayThings(source) {
  const found = labels(source.labels);
  if (!found.length)
    return source.detection
      ? "nothing in sight"
      : source.frames
        ? ""
        : `${source.events.toLocaleString("en")} events`;
  const shown = found.slice(0, MOST_LABELS).map(([label, many]) => `${many} ${label}`);
  return shown.join(" · ") + (found.length > MOST_LABELS ? ` · +${found.length - MOST_LABELS}` : "");
}
