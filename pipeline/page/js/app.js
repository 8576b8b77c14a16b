// The page at `/`: finds out who is there, then shows the view that the address names.

import { Refused } from "./api.js";
import { chrome } from "./chrome.js";
import { h } from "./dom.js";
import { follow, stop } from "./live.js";
import { link } from "./link.js";
import { blank } from "./parts.js";
import { session } from "./session.js";
import { status } from "./status.js";
import { deadLetters } from "./views/dead.js";
import { overview } from "./views/overview.js";
import { pipeline } from "./views/pipeline.js";
import { signIn } from "./views/signin.js";
import { sourceView } from "./views/source.js";

const main = document.getElementById("main");
const around = chrome(leave);
let view = null;
let isIn = false;

function show(next) {
  view?.close();
  view = next;
  main.replaceChildren(next.node);
  document.title = `${next.title} · percipio`;
}

function route() {
  if (!isIn) return;
  const hash = location.hash || "#/";
  const [, place, rest] = hash.split("/");
  around.at(hash);
  follow([]);
  if (place === "source" && rest) show(sourceView(decoded(rest)));
  else if (place === "pipeline") show(pipeline());
  else if (place === "dead") show(deadLetters());
  else show(overview());
  scrollTo(0, 0);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function enter() {
  if (!session.may("read")) {
    show({
      node: blank(
        "key",
        "This key may not read",
        "Sign in with one that has the role read or admin.",
        h("button", { class: "button", type: "button", onclick: leave }, "Sign out"),
      ),
      title: "Sign in",
      close() {},
    });
    return;
  }
  isIn = true;
  around.hide(false);
  around.update();
  status.start();
  route();
}

function ask() {
  isIn = false;
  status.stop();
  stop();
  around.hide(true);
  const door = signIn(enter);
  show(door);
  door.focus();
}

async function leave() {
  await session.signOut().catch((error) => link.down(error));
  ask();
}

async function begin() {
  show({
    node: h(
      "div",
      { class: "page" },
      h("div", { class: "bone line", role: "status", "aria-label": "loading" }),
    ),
    title: "percipio",
    close() {},
  });
  try {
    await session.load();
    link.up();
    enter();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      link.up();
      ask();
      return;
    }
    link.down(error);
    show({
      node: blank(
        "dead",
        "The API does not answer",
        error.message,
        h("button", { class: "button primary", type: "button", onclick: begin }, "Try again"),
      ),
      title: "Away",
      close() {},
    });
  }
}

addEventListener("hashchange", () => {
  route();
  main.focus({ preventScroll: true });
});
status.addEventListener("unknown", ask);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
begin();
