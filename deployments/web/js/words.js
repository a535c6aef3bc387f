/** The field for words. */

import { byId } from "./dom.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */

/** @param {QueryStore} store */
export function takeWords(store) {
  const words = byId("words");
  let taken = store.query.words;
  words.value = taken;
  byId("query").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    store.change({ words: words.value });
  });
  // Emptied by its cross.
  words.addEventListener("search", () => {
    if (words.value !== store.query.words) store.change({ words: words.value });
  });
  store.listen(({ words: now }) => {
    // What is being typed stays, whatever else of the query changes meanwhile.
    if (now !== taken) words.value = now;
    taken = now;
  });
}
