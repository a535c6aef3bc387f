/** The text field of the query. */

import { byId } from "./dom.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */

/** @param {QueryStore} store */
export function watchText(store) {
  const field = byId("text");
  let known = store.query.text;
  field.value = known;
  byId("query").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    store.change({ text: field.value });
  });
  // Emptied by its cross.
  field.addEventListener("search", () => {
    if (field.value !== store.query.text) store.change({ text: field.value });
  });
  store.listen(({ text: now }) => {
    // What is being typed stays, whatever else of the query changes meanwhile.
    if (now !== known) field.value = now;
    known = now;
  });
}
