// Dead letters: what could not be processed, why, and publishing it anew.

import { get, send } from "../api.js";
import { h, icon, keyed, setText } from "../dom.js";
import { ago, count, idMs } from "../format.js";
import { link } from "../link.js";
import { blank, table, toast } from "../parts.js";
import { session } from "../session.js";
import { status } from "../status.js";

const LIMIT = 200;
const LOOK_MS = 3000;

/** Make the view. */
export function deadLetters() {
  const told = h("p", { class: "told", role: "status" });
  const reasons = h(
    "select",
    { "aria-label": "Reason", onchange: () => draw() },
    h("option", { value: "" }, "every reason"),
  );
  const { node: list, body } = table("Dead letters", [
    { label: "When" },
    { label: "Source" },
    { label: "Reason" },
    { label: "What was wrong" },
    { label: "Tries", number: true },
    { label: "Replay" },
  ]);
  const empty = h("div");
  const node = h(
    "div",
    { class: "page" },
    h("div", { class: "head" }, h("h1", {}, "Dead letters"), reasons, told),
    h(
      "p",
      { class: "lead" },
      "Entries that broke a rule. They stopped nothing else, and are kept until somebody replays or drops them.",
    ),
    list,
    empty,
  );
  let letters = null;
  let timer = 0;
  let isOpen = true;

  function draw() {
    const all = letters ?? [];
    keyed(
      reasons,
      ["", ...new Set(all.map((each) => each.reason))],
      (key) => key,
      (key) => h("option", { value: key }, key || "every reason"),
    );
    const shown = all.filter((each) => !reasons.value || each.reason === reasons.value);
    list.hidden = !shown.length;
    keyed(
      body,
      shown,
      (each) => each.id,
      row,
      (made, each) => made.update(each),
    );
    empty.replaceChildren(...(shown.length ? [] : [none(letters)]));
    const kept = status.now?.partitions.reduce((sum, part) => sum + part.dead, 0);
    setText(
      told,
      letters === null
        ? ""
        : all.length < LIMIT
          ? `${count(all.length)} kept`
          : `newest ${count(LIMIT)} of ${count(kept)} kept`,
    );
  }

  async function load() {
    clearTimeout(timer);
    if (session.may("admin")) {
      try {
        letters = (await get(`v1/dead?limit=${LIMIT}`)).dead;
      } catch (error) {
        if (error.status !== 401) link.down(error);
      }
    }
    if (!isOpen) return;
    draw();
    timer = setTimeout(load, LOOK_MS);
  }

  function row(letter) {
    const when = h("td", { title: letter.id });
    const button = h(
      "button",
      { type: "button", class: "button small", onclick: () => replay(letter, button, load) },
      icon("replay"),
      "Replay",
    );
    button.setAttribute("aria-label", `Replay ${letter.id}`);
    const source = letter.source
      ? h("a", { href: `#/source/${encodeURIComponent(letter.source)}` }, letter.source)
      : "unknown";
    const made = h(
      "tr",
      {},
      when,
      h("td", { class: "name" }, source),
      h("td", {}, h("span", { class: "reason" }, letter.reason)),
      h("td", { class: "why" }, h("details", {}, h("summary", {}, letter.error), entry(letter))),
      h("td", { class: "number" }, count(letter.deliveries)),
      h(
        "td",
        { class: "act" },
        canReplay(letter)
          ? button
          : h(
              "span",
              { class: "dim", title: "only its sizes were kept, or it is a result" },
              "not replayable",
            ),
      ),
    );
    made.update = () => setText(when, ago(link.now() - idMs(letter.id)));
    return made;
  }

  load();
  return {
    node,
    title: "Dead letters",
    close() {
      isOpen = false;
      clearTimeout(timer);
    },
  };
}

const canReplay = (letter) => letter.replayable && letter.stream !== "detections";

async function replay(letter, button, load) {
  button.disabled = true;
  try {
    const answer = await send("POST", `v1/dead/${letter.id}/replay`);
    toast(`${letter.id} was published anew as ${answer.id}.`);
    status.again();
    await load();
    document.getElementById("main").focus({ preventScroll: true });
  } catch (error) {
    button.disabled = false;
    toast(`${letter.id} was not replayed: ${error.message}`, "bad");
  }
}

function entry(letter) {
  const fields = Object.entries(letter.entry ?? {}).map(([name, value]) => [
    h("dt", {}, name),
    h(
      "dd",
      {},
      typeof value === "object" && value !== null && "bytes" in value
        ? `${count(value.bytes)} bytes`
        : String(value),
    ),
  ]);
  const facts = [
    h("dt", {}, "letter"),
    h("dd", {}, letter.id),
    h("dt", {}, "entry"),
    h("dd", {}, `${letter.stream} ${letter.entry_id}`),
  ];
  return h("dl", { class: "fields" }, ...facts, ...fields.flat());
}

function none(letters) {
  if (!session.may("admin")) {
    const kept = status.now?.partitions.reduce((sum, part) => sum + part.dead, 0);
    return blank(
      "key",
      `${count(kept)} dead letters`,
      "Only an admin key shows what is in them and replays them.",
    );
  }
  if (letters === null) return h("div", { class: "bone line", "aria-label": "loading" });
  return blank("dead", "No dead letters", "Everything that came in could be processed.");
}
