// Calls of the API. Paths are relative, so the page works behind a prefix too.

/** What the API answered instead of a result: an RFC 9457 problem. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Nobody answered. */
export class Away extends Error {}

const PATIENCE_MS = 10_000;
const MOST_KEPT = 8;
const kept = new Map();

/** Get JSON. What has not changed since is not sent again. */
export async function get(path) {
  const had = kept.get(path);
  const response = await ask(path, { headers: had ? { "If-None-Match": had.tag } : {} });
  if (response.status === 304) return had.value;
  const value = await response.json();
  const tag = response.headers.get("ETag");
  kept.delete(path);
  if (tag) kept.set(path, { tag, value });
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return value;
}

/** Send JSON, or nothing; gives the answer, if there is one. */
export async function send(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const response = await ask(path, { method, headers, body: body && JSON.stringify(body) });
  return response.status === 204 ? null : response.json();
}

/** Ask and give the response, also a 304. Raises Refused or Away. */
export async function ask(path, options = {}) {
  let response;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", signal, ...options });
  } catch (error) {
    throw new Away(`no answer from ${location.host}`, { cause: error });
  }
  if (response.ok || response.status === 304) return response;
  throw new Refused(response.status, await detailOf(response));
}

async function detailOf(response) {
  try {
    return (await response.json()).detail ?? response.statusText;
  } catch {
    return response.statusText || `status ${response.status}`;
  }
}

/** The address of something of a source. */
export const ofSource = (source, what) => `v1/sources/${encodeURIComponent(source)}/${what}`;
