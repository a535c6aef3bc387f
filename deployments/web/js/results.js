/** Results of one model or of the ensemble. */

import { card } from "./card.js";
import { fill, h } from "./dom.js";
import { notes } from "./notes.js";
import { MAX_COUNT, PAGE } from "./query.js";
import { timings } from "./timings.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */

/** @param {QueryStore} store @param {any} answer of a search @returns {HTMLElement[]} */
export function resultList(store, answer) {
  const cards = answer.results.map((/** @type {any} */ hit) =>
    card(store, hit.product, {
      imageId: hit.image_id,
      score: hit.score,
      match: answer.rerank ? hit.rerank_score : undefined,
    }),
  );
  if (cards.length === 0) return [notes(answer), nothing(store)];
  return [
    notes(answer),
    h("ol", { class: "grid" }, cards),
    more(store, cards.length),
    timings(answer.timings_ms),
  ].filter(Boolean);
}

/**
 * Replace the results; a focus in them stays in them, after "Show more" on the first new product.
 * @param {HTMLElement} results
 * @param {HTMLElement[]} elements
 */
export function showResults(results, elements) {
  const { activeElement } = document;
  const hadFocus = activeElement !== results && results.contains(activeElement);
  const before = activeElement?.matches(".more") ? results.querySelectorAll(".grid .card").length : Infinity;
  fill(results, elements);
  if (!hadFocus) return;
  const next = results.querySelectorAll(".card .open")[before] ?? results;
  /** @type {HTMLElement} */ (next).focus({ preventScroll: true });
}

/** What stands there until the first answer. @returns {HTMLElement} */
export function ghosts() {
  const places = Array.from({ length: PAGE }, () => h("li", { class: "card ghost" }));
  return h("ul", { class: "grid", "aria-hidden": "true" }, places);
}

/** @param {QueryStore} store @returns {HTMLElement} */
export function nothing(store) {
  const hasFilter = Object.keys(store.query.filter).length > 0;
  const advice = hasFilter ? "No product passes the filters: take one away." : "No product was found.";
  return h("p", { class: "empty" }, advice);
}

/** @param {QueryStore} store @param {number} shown @returns {any} */
export function more(store, shown) {
  const { count } = store.query;
  if (shown < count || count >= MAX_COUNT) return null;
  const onclick = () => store.change({ count: Math.min(MAX_COUNT, count + PAGE) }, false);
  return h("button", { type: "button", class: "more", onclick }, "Show more");
}
