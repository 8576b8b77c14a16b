// Results as they come, of the sources that are looked at and of no others.

import { link } from "./link.js";
import { model } from "./model.js";

const SETTLE_MS = 300;
const MOST_SOURCES = 200;
const AGAIN_MS = 2000;

let wanted = [];
let stream = null;
let timer = 0;
let isBroken = false;

/** Follow these sources from now on. */
export function follow(names) {
  const next = [...new Set(names)].sort().slice(0, MOST_SOURCES);
  if (next.join("\n") === wanted.join("\n")) return;
  wanted = next;
  clearTimeout(timer);
  timer = setTimeout(open, stream ? SETTLE_MS : 0);
}

/** Follow nothing, for a page that nobody is signed in to. */
export function stop() {
  wanted = [];
  clearTimeout(timer);
  close();
}

function close() {
  stream?.close();
  stream = null;
}

function open() {
  close();
  if (!wanted.length) return;
  const query = new URLSearchParams(wanted.map((name) => ["source", name]));
  stream = new EventSource(`v1/live?${query}`);
  const mine = stream;
  const hear = (kind, handle) =>
    mine.addEventListener(kind, (event) => event.data && mine === stream && handle(JSON.parse(event.data)));
  hear("scores", (result) => model.score(result));
  hear("detections", (result) => model.detection(result));
  hear("gap", (gap) => link.miss(gap?.missed ?? 0));
  mine.onopen = () => {
    if (isBroken) model.reopened();
    isBroken = false;
  };
  mine.onerror = () => {
    isBroken = true;
    // what broke, the next poll finds out; a stream that was refused does not come back by itself
    if (mine !== stream || mine.readyState !== EventSource.CLOSED) return;
    stream = null;
    clearTimeout(timer);
    timer = setTimeout(open, AGAIN_MS);
  };
}
