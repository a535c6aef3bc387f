/** The API key: kept for this tab only, asked for when the service wants one. */

import { fill, h } from "./dom.js";

const NAME = "vitrine-key";

/** @type {Promise<boolean> | null} */
let asking = null;

/** @returns {string | null} */
export function key() {
  return sessionStorage.getItem(NAME);
}

/** @returns {Object<string, string>} headers of a call */
export function keyHeaders() {
  const held = key();
  return held ? { Authorization: `Bearer ${held}` } : {};
}

/**
 * Ask for a key; calls that fail at the same time share one question.
 * @param {string} reason what the service said
 * @returns {Promise<boolean>} whether there is a new key to try
 */
export function askForKey(reason) {
  asking ??= ask(reason).finally(() => {
    asking = null;
  });
  return asking;
}

/** @param {string} reason @returns {Promise<boolean>} */
function ask(reason) {
  const input = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const wrong = key() !== null && reason.charAt(0).toUpperCase() + reason.slice(1);
  const dialog = h("dialog", { class: "small", "aria-labelledby": "key-title" });
  fill(
    dialog,
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "key-title" }, "An API key, please"),
      h("p", {}, wrong || "This service answers only who shows one."),
      h("div", { class: "field" }, h("label", { for: "key" }, "Key"), input),
      h("p", { class: "hint" }, "It is kept until this tab closes, and sent to this service only."),
      h(
        "div",
        { class: "row" },
        h("button", { class: "primary", value: "use" }, "Use this key"),
        h("button", { value: "", formnovalidate: true }, "Cancel"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      const given = dialog.returnValue === "use" ? input.value.trim() : "";
      if (given) sessionStorage.setItem(NAME, given);
      resolve(Boolean(given));
    });
  });
}
