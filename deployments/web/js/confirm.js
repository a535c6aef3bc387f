/** Asking before a step that changes what serves, and for what it leaves to choose. */

import { fill, h } from "./dom.js";

/**
 * @typedef {{name: string, label: string, type: "text" | "checkbox" | "number", value?: number}} Option
 */

/**
 * @param {string} title
 * @param {string} what it will do
 * @param {Option[]} options
 * @returns {Promise<Object<string, any> | null>} what was chosen of the options; null: not to be done
 */
export function confirm(title, what, options) {
  const inputs = options.map((option) => ({ option, input: inputOf(option) }));
  const dialog = h("dialog", { class: "small", "aria-labelledby": "confirm-title" });
  fill(
    dialog,
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "confirm-title" }, title),
      h("p", {}, `It will ${what}.`),
      inputs.map(({ option, input }) => field(option, input)),
      h(
        "div",
        { class: "row" },
        h("button", { class: "primary", value: "yes" }, "Go ahead"),
        h("button", { value: "", formnovalidate: true }, "Cancel"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      const chosen = inputs.map(({ option, input }) => [option.name, chosenValue(option, input)]);
      const given = chosen.filter(([, value]) => value !== undefined);
      resolve(dialog.returnValue === "yes" ? Object.fromEntries(given) : null);
    });
  });
}

/** @param {Option} option @returns {HTMLInputElement} */
function inputOf({ name, type, value }) {
  return h("input", { id: `option-${name}`, type, value, min: type === "number" ? 0 : null });
}

/** @param {Option} option @param {HTMLInputElement} input */
function field({ label, type, name }, input) {
  const text = h("label", { for: `option-${name}` }, label);
  return type === "checkbox"
    ? h("div", { class: "field check" }, input, text)
    : h("div", { class: "field" }, text, input);
}

/** @param {Option} option @param {HTMLInputElement} input */
function chosenValue({ type }, input) {
  if (type === "checkbox") return input.checked || undefined;
  const text = input.value.trim();
  if (!text) return undefined;
  return type === "number" ? Number(text) : text;
}
