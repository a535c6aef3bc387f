/** A product in a list of results. */

import { money, summary } from "./attributes.js";
import { showDetails } from "./details.js";
import { h } from "./dom.js";
import { thumbnail } from "./thumbnail.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */
/** @typedef {{product_id: string, title: string, attributes: Object<string, any>, images: {image_id: string}[]}} Product */

/**
 * @param {QueryStore} store
 * @param {Product} product
 * @param {{imageId?: string, score?: number, match?: number | null, ranks?: [string, number][]}} [hit]
 *   `match`: its score of the second stage, null where it has none; `ranks`: its places in the other models' lists
 * @returns {HTMLElement}
 */
export function card(store, product, { imageId, score, match, ranks = [] } = {}) {
  const about = summary(product.attributes);
  const name = product.title || product.product_id;
  const image = imageId ?? product.images[0]?.image_id;
  const like = (/** @type {number} */ weight) => {
    store.addPart("product", product.product_id, { weight });
    document.getElementById("status")?.scrollIntoView({ block: "nearest" });
  };
  return h(
    "li",
    { class: "card", "data-product": product.product_id },
    h(
      "button",
      { type: "button", class: "open", onclick: () => showDetails(store, product) },
      image ? thumbnail(image, "") : h("span", { class: "nothing" }, "no image"),
      h("span", { class: "name", dir: "auto", title: name }, name),
    ),
    h(
      "p",
      { class: "facts" },
      about && h("span", { class: "about", dir: "auto", title: about }, about),
      score !== undefined &&
        h("span", { class: "score" }, h("span", { class: "unseen" }, "Score "), score.toFixed(3)),
      match !== undefined &&
        h("span", { class: "match" }, match === null ? "not re-ranked" : `match ${match.toFixed(2)}`),
      "price" in product.attributes &&
        h("span", { class: "price" }, h("span", { class: "unseen" }, "Price "), money(product.attributes)),
      ranks.length > 0 &&
        h(
          "span",
          { class: "ranks" },
          h("span", { class: "unseen" }, "Rank elsewhere: "),
          ranks.map(([model, rank]) => h("span", {}, `${model} #${rank} `)),
        ),
    ),
    h(
      "div",
      { class: "likes" },
      h("button", { type: "button", "aria-label": `More like ${name}`, onclick: () => like(1) }, "More"),
      h("button", { type: "button", "aria-label": `Less like ${name}`, onclick: () => like(-0.5) }, "Less"),
    ),
  );
}
