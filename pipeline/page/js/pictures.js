// Newest frames for whoever is in sight. A browser opens six connections to one address, so pictures
// are fetched one after the other over three, and only those that something has changed in.

import { ask, ofSource } from "./api.js";
import { idMs } from "./format.js";
import { link } from "./link.js";
import { model } from "./model.js";

const AT_ONCE = 3;
const LOOK_MS = 40;
const STILL_MS = 3000;
const NONE_MS = 8000;
const KEPT_MS = 60_000; // so long Redis has the newest frame of a source

const shown = new Set();
let fetching = 0;
let timer = 0;

/** One picture on the page. */
export class Picture {
  #url = null;
  #tag = null;
  #drawn = -1;
  #nextMs = 0;
  #dueMs = 0;
  isBusy = false;

  /**
   * @param image the `img`
   * @param source name
   * @param leastMs between two pictures
   * @param tell called with the frame's time in ms, or null where there is none
   */
  constructor(image, source, leastMs, tell) {
    this.image = image;
    this.source = source;
    this.leastMs = leastMs;
    this.tell = tell;
  }

  show() {
    shown.add(this);
    timer ||= setInterval(look, LOOK_MS);
  }

  hide() {
    shown.delete(this);
  }

  /** Free what it holds; it is not shown again. */
  close() {
    this.hide();
    if (this.#url) URL.revokeObjectURL(this.#url);
  }

  /** When it should be fetched next, ms of `performance.now`. */
  get dueMs() {
    const source = model.source(this.source);
    if (source.lastSeenMs && link.now() - source.lastSeenMs > KEPT_MS) return Infinity;
    const isOld = source.drawn !== this.#drawn;
    return isOld ? this.#nextMs : this.#dueMs;
  }

  async fetch() {
    this.isBusy = true;
    const source = model.source(this.source);
    const drawn = source.drawn;
    try {
      const headers = this.#tag ? { "If-None-Match": this.#tag } : {};
      const response = await ask(ofSource(this.source, "frame.jpg"), { headers });
      if (response.status !== 304) await this.#put(response);
      this.#wait(STILL_MS);
      this.#drawn = drawn;
    } catch (error) {
      this.#wait(NONE_MS);
      this.#drawn = drawn;
      if (error.status === 404) {
        this.#tag = null;
        this.tell(null);
      }
    } finally {
      this.isBusy = false;
    }
  }

  async #put(response) {
    const blob = await response.blob();
    if (!shown.has(this)) return;
    const before = this.#url;
    this.#url = URL.createObjectURL(blob);
    this.image.src = this.#url;
    await this.image.decode().catch(() => undefined); // replaced before it was decoded
    if (before) URL.revokeObjectURL(before);
    this.#tag = response.headers.get("ETag");
    this.tell(idMs(response.headers.get("X-Frame") || "0"));
  }

  #wait(stillMs) {
    const nowMs = performance.now();
    const spacing = Math.max(this.leastMs, shown.size * LOOK_MS);
    this.#nextMs = nowMs + spacing;
    this.#dueMs = nowMs + stillMs;
  }
}

function look() {
  if (!shown.size) {
    clearInterval(timer);
    timer = 0;
    return;
  }
  if (document.hidden || link.state === "lost") return;
  const nowMs = performance.now();
  const due = [...shown]
    .filter((each) => !each.isBusy && each.dueMs <= nowMs)
    .sort((a, b) => a.dueMs - b.dueMs);
  for (const each of due) {
    if (fetching >= AT_ONCE) return;
    fetching += 1;
    each.fetch().finally(() => (fetching -= 1));
  }
}
