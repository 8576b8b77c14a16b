// What surrounds every view: navigation, connection, theme, who is signed in.

import { h, icon, s, setAttribute, setText } from "./dom.js";
import { count, span } from "./format.js";
import { link } from "./link.js";
import { session } from "./session.js";
import { status } from "./status.js";

const PLACES = [
  ["#/", "Sources", "grid"],
  ["#/pipeline", "Pipeline", "flow"],
  ["#/dead", "Dead letters", "dead"],
];
const THEMES = { auto: "auto", light: "sun", dark: "moon" };
const LONG_MS = 15_000;
const WAITING = { frames: "The oldest frame has waited for", events: "The oldest event has waited for" };
const SAYS = { connecting: "Connecting", live: "Live", lost: "Disconnected" };

/** Fill the top bar and the banner; `leave` signs out. */
export function chrome(leave) {
  const top = document.getElementById("top");
  const badge = h("span", { class: "count", hidden: true });
  const links = PLACES.map(([href, label, name]) =>
    h("a", { href }, icon(name), h("span", {}, label), href === "#/dead" ? badge : null),
  );
  const pill = h("span", { class: "pill", role: "status" }, h("i"), h("span"));
  const out = h(
    "button",
    { type: "button", class: "round", "aria-label": "Sign out", onclick: leave },
    icon("leave"),
  );
  top.replaceChildren(
    h(
      "a",
      { class: "brand", href: "#/", "aria-label": "percipio, all sources" },
      mark(),
      h("span", {}, "percipio"),
    ),
    h("nav", { "aria-label": "Main" }, ...links),
    h("div", { class: "tools" }, pill, themeButton(), out),
  );
  const banner = document.getElementById("banner");
  const update = () => {
    setText(pill.lastElementChild, SAYS[link.state]);
    setAttribute(pill, "data-state", link.state);
    setAttribute(
      pill,
      "title",
      link.missed
        ? `${count(link.missed)} results were not sent to this page, which was too slow for them`
        : null,
    );
    document.documentElement.dataset.link = link.state;
    out.hidden = !session.needsKey;
    setAttribute(out, "title", `Signed in: ${session.says}`);
    const dead = status.now?.partitions.reduce((sum, part) => sum + part.dead, 0) ?? 0;
    badge.hidden = !dead;
    setText(badge, count(dead));
    tell(banner);
  };
  link.addEventListener("change", update);
  status.addEventListener("change", update);
  setInterval(update, 1000);
  update();
  return {
    /** Mark where we are. */
    at(hash) {
      for (const each of links) {
        const href = each.getAttribute("href");
        const isHere = href === hash || (href === "#/" && hash.startsWith("#/source/"));
        setAttribute(each, "aria-current", isHere ? "page" : null);
      }
    },
    hide: (isHidden) => top.classList.toggle("bare", isHidden),
    update,
  };
}

function tell(banner) {
  const isLost = link.state === "lost";
  const notices = isLost ? [link.why] : noticesOf(status.now);
  if (!notices.length) {
    if (banner.firstChild) banner.replaceChildren();
    return;
  }
  if (!banner.firstChild) {
    const retry = h(
      "button",
      { type: "button", class: "button small", onclick: () => status.again() },
      "Try now",
    );
    banner.append(h("div", { class: "banner" }, icon("dead"), h("p", {}, h("strong"), h("span")), retry));
  }
  const [strong, rest] = banner.querySelector("p").children;
  setAttribute(banner.firstChild, "data-tone", isLost ? "bad" : "warn");
  setText(strong, notices.join(" "));
  const ageMs = Math.max(1000, Date.now() - link.sinceMs);
  setText(rest, isLost ? ` What you see is what was known ${span(ageMs)} ago. Trying again.` : "");
  banner.querySelector("button").hidden = !isLost;
}

/** What an operator should do something about, in words. */
function noticesOf(now) {
  if (!now) return [];
  const found = [];
  const lonely = now.partitions.filter((part) => !part.owner).length;
  if (lonely)
    found.push(
      `${count(lonely)} of ${count(now.partitions.length)} partitions have no score worker: nothing of them is scored.`,
    );
  if (!now.workers.detect.length) found.push("No detect worker has come yet: frames wait.");
  for (const [name, says] of Object.entries(WAITING)) {
    const oldestMs = Math.max(0, ...now.partitions.map((part) => part.streams[name].oldest_ms));
    if (oldestMs > LONG_MS) found.push(`${says} ${span(oldestMs)}.`);
  }
  return found;
}

function themeButton() {
  const names = Object.keys(THEMES);
  let at = Math.max(0, names.indexOf(document.documentElement.dataset.theme ?? "auto"));
  const button = h("button", {
    type: "button",
    class: "round",
    onclick: () => choose((at + 1) % names.length),
  });
  function choose(next) {
    at = next;
    const name = names[at];
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    try {
      localStorage.setItem("percipio-theme", name);
    } catch {
      // not kept, then
    }
    show();
    document.dispatchEvent(new Event("theme"));
  }
  function show() {
    button.replaceChildren(icon(THEMES[names[at]]));
    button.setAttribute("aria-label", `Theme: ${names[at]}`);
    button.title = `Theme: ${names[at]}`;
  }
  show();
  return button;
}

function mark() {
  return s(
    "svg",
    { class: "mark", viewBox: "0 0 32 32", "aria-hidden": "true" },
    s("path", { d: "M3 16c3.400-6 7.700-9 13-9s9.600 3 13 9c-3.400 6-7.700 9-13 9S6.400 22 3 16Z" }),
    s("circle", { cx: 16, cy: 16, r: 4.6 }),
  );
}
