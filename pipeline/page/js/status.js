// The deployment's status, asked for every two seconds, and rates worked out from what was counted.

import { Refused, get } from "./api.js";
import { link } from "./link.js";
import { model } from "./model.js";

const EVERY_MS = 2000;
const KEEP = 450;
const PAGE = 1000;

class Status extends EventTarget {
  now = null;
  /** {at, framesIn, framesOut, eventsIn, scored, dropped, inFlight}: a second each. */
  rates = [];
  #before = null;
  #timer = 0;
  #runs = 0;

  start() {
    this.stop();
    this.#loop(this.#runs);
  }

  stop() {
    this.#runs += 1;
    clearTimeout(this.#timer);
  }

  /** Ask at once. */
  again() {
    this.start();
  }

  async #loop(run) {
    try {
      const [found, sources] = await Promise.all([get("v1/status"), listSources()]);
      if (run !== this.#runs) return;
      this.#take(found);
      model.list(sources);
      link.up();
    } catch (error) {
      if (run !== this.#runs) return;
      const isMine = error instanceof Refused && error.status === 401;
      if (isMine) this.dispatchEvent(new Event("unknown"));
      else link.down(error);
    }
    if (run === this.#runs) this.#timer = setTimeout(() => this.#loop(run), EVERY_MS);
  }

  #take(found) {
    link.setClock(found.now_ms);
    this.now = found;
    const before = this.#before;
    if (!before || found.now_ms - before.now_ms >= 1000) {
      if (before) this.#addRates(before, found);
      this.#before = found;
    }
    this.dispatchEvent(new Event("change"));
  }

  #addRates(before, found) {
    const seconds = (found.now_ms - before.now_ms) / 1000;
    const per = (...names) =>
      Math.max(0, names.reduce((sum, name) => sum + found.ledger[name] - before.ledger[name], 0) / seconds);
    this.rates.push({
      at: found.now_ms / 1000,
      framesIn: per("frames_in"),
      framesOut: per("frames_detected", "frames_cached"),
      eventsIn: per("events_in"),
      scored: per("events_scored"),
      dropped: per("frames_dropped_age", "frames_dropped_overflow"),
      inFlight: found.in_flight,
      p95: found.api.freshness.detections?.p95_ms ?? null,
    });
    if (this.rates.length > KEEP) this.rates.shift();
  }
}

async function listSources() {
  const rows = [];
  let after = null;
  do {
    const query = after === null ? "" : `&after=${encodeURIComponent(after)}`;
    const page = await get(`v1/sources?limit=${PAGE}${query}`);
    rows.push(...page.sources);
    after = page.after;
  } while (after !== null);
  return rows;
}

export const status = new Status();
