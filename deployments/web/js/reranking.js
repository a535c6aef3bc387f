/** Which model re-ranks the first products by the text. */

import { h } from "./dom.js";
import { hasText, MAX_DEPTH } from "./query.js";

/**
 * @param {import("./query.js").QueryStore} store
 * @param {import("./models.js").Model[]} models
 * @returns {HTMLElement | null} null: none of them can do it, or the query has no text
 */
export function reranking(store, models) {
  const { rerank, depth } = store.query;
  const able = models.filter(({ reranks }) => reranks).map(({ model }) => model);
  // The model of a link may be away.
  if (rerank && !able.includes(rerank)) able.push(rerank);
  if (able.length === 0 || !hasText(store.query)) return null;
  const option = (/** @type {string} */ value, /** @type {string} */ text) =>
    h("option", { value, selected: value === rerank }, text);
  const select = h(
    "select",
    { id: "rerank", onchange: () => store.change({ rerank: select.value }) },
    option("", "off"),
    able.map((model) => option(model, `by ${model}`)),
  );
  const input = h("input", { id: "depth", type: "number", min: 1, max: MAX_DEPTH, value: depth });
  input.addEventListener("change", () => {
    const asked = Math.round(Number(input.value)) || store.query.depth;
    input.value = String(Math.min(MAX_DEPTH, Math.max(1, asked)));
    store.change({ depth: Number(input.value) });
  });
  return h(
    "div",
    { class: "span" },
    h("div", { class: "field" }, h("label", { for: "rerank" }, "Re-ranking"), select),
    rerank && h("div", { class: "field" }, h("label", { for: "depth" }, "of the first"), input),
  );
}
