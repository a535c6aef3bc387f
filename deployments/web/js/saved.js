/** Searches that are kept in this browser, and the link to the one that is shown. */

import { toAddress } from "./address.js";
import { byId, fill, h } from "./dom.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */
/** @typedef {{name: string, address: string}} Saved */

const NAME = "vitrine-searches";

/** @param {QueryStore} store */
export function showSaved(store) {
  const panel = byId("saved");
  const list = h("ul", { class: "saved" });
  const input = h("input", { id: "save-name", maxlength: 100, autocomplete: "off" });
  const message = h("p", { class: "hint", role: "status" });
  const save = () => {
    const name = input.value.trim() || store.query.text || "a search";
    write([
      ...read().filter((each) => each.name !== name),
      { name, address: String(toAddress(store.query)) },
    ]);
    input.value = "";
    message.textContent = `Saved as “${name}”.${lost(store)}`;
    show();
  };
  const copy = async () => {
    const link = new URL(`?${toAddress(store.query)}`, location.href).href;
    try {
      await navigator.clipboard.writeText(link);
      message.textContent = `The link is copied.${lost(store)}`;
    } catch {
      message.textContent = `Copy it from here: ${link}${lost(store)}`;
    }
  };
  const remove = (/** @type {string} */ name) => {
    write(read().filter((each) => each.name !== name));
    show();
    input.focus();
  };
  const show = () => {
    const items = read().map(({ name, address }) =>
      h(
        "li",
        {},
        h("a", { href: `?${address}`, dir: "auto" }, name),
        h(
          "button",
          { type: "button", "aria-label": `Forget ${name}`, onclick: () => remove(name) },
          "Forget",
        ),
      ),
    );
    fill(list, items);
  };
  panel.append(
    h(
      "div",
      { class: "field" },
      h("label", { for: "save-name" }, "Name"),
      h("div", { class: "joined" }, input, h("button", { type: "button", onclick: save }, "Save")),
    ),
    h("button", { type: "button", onclick: copy }, "Copy the link"),
    message,
    list,
  );
  input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    save();
  });
  show();
}

/** @param {QueryStore} store */
function lost(store) {
  const uploads = store.query.parts.some((part) => part.kind === "upload");
  return uploads ? " Uploaded images are not part of it: they stay on this machine." : "";
}

/** @returns {Saved[]} */
function read() {
  try {
    const saved = JSON.parse(localStorage.getItem(NAME) ?? "[]");
    return Array.isArray(saved)
      ? saved.filter((each) => typeof each?.name === "string" && typeof each.address === "string")
      : [];
  } catch {
    return [];
  }
}

/** @param {Saved[]} saved */
function write(saved) {
  localStorage.setItem(NAME, JSON.stringify(saved));
}
