// Whether the API answers, for the whole page; and Redis's clock as the API tells it.

import { Away } from "./api.js";

class Link extends EventTarget {
  state = "connecting"; // connecting, live, lost
  why = "";
  sinceMs = Date.now();
  missed = 0;
  #skewMs = 0;

  /** Something answered. */
  up() {
    this.#become("live", "");
  }

  /** Something did not, or said that it cannot: a Redis that is away is told apart. */
  down(error) {
    const why = error instanceof Away ? "The API does not answer." : `The API says: ${error.message}.`;
    this.#become("lost", why);
  }

  /** Results that this page should have been sent, and was not. */
  miss(count) {
    this.missed += count;
    this.dispatchEvent(new Event("change"));
  }

  /** Take the server's clock over. */
  setClock(nowMs) {
    this.#skewMs = nowMs - Date.now();
  }

  /** Redis's time in Unix ms. */
  now() {
    return Date.now() + this.#skewMs;
  }

  #become(state, why) {
    if (state === this.state && why === this.why) return;
    if (state !== this.state) this.sinceMs = Date.now();
    this.state = state;
    this.why = why;
    this.dispatchEvent(new Event("change"));
  }
}

export const link = new Link();
