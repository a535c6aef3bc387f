/** Results of several models side by side; products that several have found share a color and name their ranks. */

import { card } from "./card.js";
import { h } from "./dom.js";
import { notes, remarks } from "./notes.js";
import { more, nothing } from "./results.js";
import { timings } from "./timings.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */

const COLORS = 12;

/** @param {QueryStore} store @param {any} answer of a comparison @returns {HTMLElement[]} */
export function columns(store, answer) {
  const joined = shared(answer.lists);
  const lists = answer.lists.map((/** @type {any} */ list) => {
    // What was left out of all is said once, above.
    const skipped = Object.entries(list.skipped).filter(([model]) => !(model in answer.skipped));
    return column(store, { ...list, skipped: Object.fromEntries(skipped) }, answer.products, joined);
  });
  const board = h(
    "div",
    { class: "columns", role: "group", "aria-label": "Results side by side", tabindex: "0" },
    lists,
  );
  lightUp(board);
  const longest = Math.max(0, ...answer.lists.map((/** @type {any} */ list) => list.results.length));
  return [
    ...remarks(answer.skipped, "left out", answer.degraded),
    board,
    more(store, longest),
    agreements(answer.agreements),
  ].filter(Boolean);
}

/**
 * Rank the products that stand in several lists, best places first.
 * @param {any[]} lists
 * @returns {Map<string, Map<string, number>>} ranks by product, then by model
 */
function shared(lists) {
  /** @type {Map<string, Map<string, number>>} */
  const ranks = new Map();
  for (const { model, results } of lists)
    results.forEach((/** @type {any} */ { product_id: id }, /** @type {number} */ index) => {
      ranks.set(id, (ranks.get(id) ?? new Map()).set(model, index + 1));
    });
  return new Map([...ranks].filter(([, places]) => places.size > 1));
}

/**
 * @param {QueryStore} store
 * @param {any} list
 * @param {any} products
 * @param {Map<string, Map<string, number>>} joined
 */
function column(store, list, products, joined) {
  const colors = [...joined.keys()];
  const cards = list.results.map((/** @type {any} */ hit) => {
    const places = joined.get(hit.product_id);
    const ranks = [...(places ?? [])].filter(([model]) => model !== list.model);
    const made = card(store, products[hit.product_id], {
      imageId: hit.image_id,
      score: hit.score,
      match: list.rerank ? hit.rerank_score : undefined,
      ranks,
    });
    if (places) made.classList.add("shared", `shared-${colors.indexOf(hit.product_id) % COLORS}`);
    return made;
  });
  const title = `column-${list.model}`;
  return h(
    "section",
    { class: "column", "aria-labelledby": title },
    h("h2", { id: title }, list.model),
    notes(list, list.model),
    cards.length ? h("ol", {}, cards) : nothing(store),
    timings(list.timings_ms),
  );
}

/** Light up a product in all columns while one of its cards is pointed at or has the focus. @param {HTMLElement} board */
function lightUp(board) {
  const light = (/** @type {Event} */ event) => {
    const here = /** @type {Element} */ (event.target)
      .closest("[data-product]")
      ?.getAttribute("data-product");
    for (const each of board.querySelectorAll("[data-product]")) {
      each.classList.toggle(
        "lit",
        each.getAttribute("data-product") === here && each.classList.contains("shared"),
      );
    }
  };
  for (const name of ["pointerover", "focusin"]) board.addEventListener(name, light);
}

/** @param {{models: string[], shared: number, jaccard: number | null, rank_correlation: number | null}[]} pairs */
function agreements(pairs) {
  if (pairs.length === 0) return null;
  const figure = (/** @type {number | null} */ value) =>
    h("td", { class: "number" }, value === null ? "–" : value.toFixed(2));
  const rows = pairs.map((pair) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, pair.models.join(" and ")),
      h("td", { class: "number" }, pair.shared),
      figure(pair.jaccard),
      figure(pair.rank_correlation),
    ),
  );
  const heads = ["Models", "Shared", "Overlap (Jaccard)", "Order (Kendall's tau)"].map((text) =>
    h("th", { scope: "col" }, text),
  );
  return h(
    "details",
    { class: "timings" },
    h("summary", {}, "Agreement"),
    h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)),
  );
}
