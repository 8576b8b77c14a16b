// The door, where keys are set.

import { Away } from "../api.js";
import { h, icon } from "../dom.js";
import { session } from "../session.js";

/** Make the view; calls `enter` once somebody is signed in. */
export function signIn(enter) {
  const problem = h("p", { class: "problem", id: "key-problem", role: "alert" });
  const key = h("input", {
    type: "password",
    id: "key",
    name: "key",
    required: true,
    maxlength: 512,
    autocomplete: "current-password",
    spellcheck: "false",
    "aria-describedby": "key-problem key-help",
  });
  const button = h("button", { type: "submit", class: "button primary" }, "Sign in");

  async function submit(event) {
    event.preventDefault();
    problem.textContent = "";
    button.disabled = true;
    try {
      await session.signIn(key.value.trim());
      key.value = "";
      enter();
    } catch (error) {
      const isWrong = error.status === 401;
      problem.textContent = isWrong
        ? "This key is not known."
        : error instanceof Away
          ? "The API does not answer. Try again."
          : error.message;
      key.setAttribute("aria-invalid", String(isWrong));
      key.select();
      key.focus();
    } finally {
      button.disabled = false;
    }
  }

  const node = h(
    "div",
    { class: "door" },
    h(
      "form",
      { class: "panel", onsubmit: submit },
      h("div", { class: "door-mark" }, icon("key")),
      h("h1", {}, "Sign in to percipio"),
      h("input", {
        type: "text",
        name: "username",
        autocomplete: "username",
        value: "percipio",
        hidden: true,
      }), // for password managers
      h("label", { for: "key" }, "Key"),
      key,
      problem,
      button,
      h(
        "p",
        { class: "help", id: "key-help" },
        "An operator makes keys with ",
        h("code", {}, "percipio keys new"),
        ". The key is exchanged for a cookie and is not kept by this page.",
      ),
    ),
  );
  return { node, title: "Sign in", focus: () => key.focus(), close() {} };
}
