// Who is signed in. The key itself is sent once and kept nowhere; a cookie that scripts cannot read
// stands for it.

import { get, send } from "./api.js";

class Session {
  needsKey = false;
  grants = [];

  /** Find out; raises Refused with 401 when a key is needed. */
  async load() {
    this.#take(await get("v1/session"));
  }

  async signIn(key) {
    this.#take(await send("POST", "v1/session", { key }));
  }

  async signOut() {
    await send("DELETE", "v1/session");
    this.grants = [];
  }

  may(role) {
    return this.grants.some((grant) => grant.role === role || grant.role === "admin");
  }

  /** The roles in words, `admin` or `read of cam-*`. */
  get says() {
    const words = this.grants.map((grant) =>
      grant.sources === "*" ? grant.role : `${grant.role} of ${grant.sources}`,
    );
    return [...new Set(words)].join(", ");
  }

  #take(found) {
    this.needsKey = found.keys;
    this.grants = found.grants;
  }
}

export const session = new Session();
