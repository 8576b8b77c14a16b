// What is known of every source, from the list, from results and from its past. Views read it.

import { get, ofSource } from "./api.js";
import { idMs } from "./format.js";
import { link } from "./link.js";

export const PHASES = ["dormant", "awakening", "active", "focused", "emergent"];
export const COMPONENTS = ["arousal", "differentiation", "integration", "workspace", "novelty"];
const KEEP_S = 600;
const RECENT = 200;

/** One source. `rows` are one a second: {at, level, phase, components, frames, events, …}. */
class Source {
  level = null;
  phase = null;
  lastSeenMs = 0;
  frames = 0;
  events = 0;
  labels = "";
  detection = null;
  score = null;
  frameScore = null;
  rows = [];
  transitions = [];
  timings = [];
  hasPast = false;
  /** Rises with every result of a frame: a picture drawn before it is old. */
  drawn = 0;

  constructor(name) {
    this.name = name;
  }

  addRow(row) {
    const last = this.rows.at(-1);
    if (!last || last.at < row.at) {
      this.rows.push({ ...row, tracks: row.tracks ?? last?.tracks ?? null });
      if (this.rows.length > KEEP_S) this.rows.shift();
      return;
    }
    const latency = Math.max(last.latency ?? -1, row.latency ?? -1);
    Object.assign(last, {
      ...row,
      at: last.at,
      frames: last.frames + row.frames,
      events: last.events + row.events,
      latency: latency < 0 ? null : latency,
      tracks: row.tracks ?? last.tracks,
    });
  }
}

class Model extends EventTarget {
  sources = new Map();
  isLoaded = false;

  source(name) {
    let found = this.sources.get(name);
    if (!found) this.sources.set(name, (found = new Source(name)));
    return found;
  }

  /** Take the list over; what is no longer in it is forgotten. */
  list(rows) {
    const names = new Set(rows.map((row) => row.source));
    for (const name of this.sources.keys()) if (!names.has(name)) this.sources.delete(name);
    for (const row of rows) {
      const source = this.source(row.source);
      if (row.level !== null) source.level = row.level;
      if (row.phase !== null) source.phase = row.phase;
      source.lastSeenMs = Math.max(source.lastSeenMs, row.last_seen_ms);
      source.frames = row.frames;
      source.events = row.events;
    }
    this.isLoaded = true;
    this.dispatchEvent(new Event("list"));
  }

  score(result) {
    const source = this.source(result.source);
    const atMs = idMs(result.id);
    source.level = result.level;
    source.phase = result.phase;
    source.lastSeenMs = Math.max(source.lastSeenMs, atMs);
    source.score = result;
    if (result.kind === "frame") {
      source.frameScore = result;
      source.drawn += 1;
    }
    if (result.transition)
      source.transitions = [...source.transitions.slice(-49), { ts: atMs, transition: result.transition }];
    source.addRow({
      at: Math.floor(atMs / 1000),
      level: result.level,
      phase: PHASES.indexOf(result.phase),
      confidence: result.confidence ?? null,
      ...Object.fromEntries(COMPONENTS.map((name) => [name, result.components?.[name] ?? null])),
      tracks: result.tracks?.length ?? null,
      frames: result.kind === "frame" ? result.inputs : 0,
      events: result.kind === "event" ? result.inputs : 0,
      latency: result.latency_ms ?? null,
    });
  }

  detection(result) {
    const source = this.source(result.source);
    source.labels = result.labels;
    source.detection = result;
    source.drawn += 1;
    source.lastSeenMs = Math.max(source.lastSeenMs, idMs(result.id));
    if (result.timing) {
      source.timings.push({ ...result.timing, total: idMs(result.id) - idMs(result.frame) });
      if (source.timings.length > RECENT) source.timings.shift();
    }
  }

  /** The stream broke and is open anew: what came meanwhile is in the past that the API keeps. */
  reopened() {
    for (const source of this.sources.values()) source.hasPast = false;
  }

  /** Have the last minutes of a source, once; there are none before its first score. */
  async loadPast(name) {
    const source = this.source(name);
    if (source.hasPast || source.level === null || link.state === "lost") return;
    source.hasPast = true;
    try {
      const past = await get(ofSource(name, "history"));
      source.rows = past.rows.map((row) => readRow(past.columns, row));
      source.transitions = past.transitions;
    } catch (error) {
      source.hasPast = false;
      if (error.status !== 404) throw error;
    }
  }
}

function readRow(columns, values) {
  const row = Object.fromEntries(columns.map((name, index) => [name, values[index]]));
  return { ...row, at: row.at_s, latency: row.latency_ms };
}

export const model = new Model();
