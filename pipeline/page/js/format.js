// Numbers as people read them. Unknown is always a dash.

const NONE = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 1234567 as `1,234,567`. */
export const count = (value) => (known(value) ? Math.round(value).toLocaleString("en") : NONE);

/** A level or share, `0.531`. */
export const level = (value, digits = 3) => (known(value) ? value.toFixed(digits) : NONE);

/** So many a second, `14.6`. */
export const rate = (value) => (!known(value) ? NONE : value >= 100 ? count(value) : value.toFixed(1));

/** 0.25 as `25 %`. */
export const percent = (value) =>
  known(value) ? `${(100 * value).toFixed(value > 0.99 && value < 1 ? 1 : 0)} %` : NONE;

/** A length of time, given in ms. */
export function span(ms) {
  if (!known(ms)) return NONE;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

/** How long ago, coarse, so that it does not flicker. */
export function ago(ms) {
  if (!known(ms)) return NONE;
  if (ms < 2000) return "now";
  return `${ms < 60000 ? `${Math.round(ms / 1000)} s` : span(ms)} ago`;
}

/** A size, given in bytes. */
export function bytes(value) {
  if (!known(value)) return NONE;
  if (value < 1e6) return `${(value / 1e3).toFixed(0)} kB`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(2)} GB`;
}

/** The time of day of Unix ms. */
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** `car:3,person:1` as `[["car", "3"], ["person", "1"]]`. */
export const labels = (text) =>
  text
    ? text
        .split(",")
        .map((part) => [part.slice(0, part.lastIndexOf(":")), part.slice(part.lastIndexOf(":") + 1)])
    : [];

/** Time in ms of an entry id, with or without its partition. */
export const idMs = (id) => Number(String(id).split("/").pop().split("-")[0]);
