/** All that is known of a product. */

import { label, money, text } from "./attributes.js";
import { fill, h } from "./dom.js";
import { thumbnail } from "./thumbnail.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */

/** @param {QueryStore} store @param {any} product as the API shows it */
export function showDetails(store, product) {
  const dialog = h("dialog", { class: "details", "aria-labelledby": "details-title" });
  const search = (/** @type {"product" | "image"} */ kind, /** @type {string} */ value, weight = 1) => {
    dialog.close();
    store.addPart(kind, value, { weight });
  };
  fill(
    dialog,
    h("h2", { id: "details-title", dir: "auto" }, product.title || product.product_id),
    h(
      "div",
      { class: "images" },
      product.images.map((/** @type {any} */ image, /** @type {number} */ index) =>
        figure(image, index, product, search),
      ),
    ),
    h(
      "dl",
      {},
      facts(product).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "auto" }, value))),
    ),
    product.description && h("p", { class: "description" }, product.description),
    h(
      "div",
      { class: "row" },
      h(
        "button",
        { type: "button", class: "primary", onclick: () => search("product", product.product_id) },
        "More like this",
      ),
      h(
        "button",
        { type: "button", onclick: () => search("product", product.product_id, -0.5) },
        "Less like this",
      ),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {any} image @param {number} index @param {any} product @param {Function} search */
function figure(image, index, product, search) {
  const alt = image.caption || `Image ${index + 1} of ${product.title || product.product_id}`;
  return h(
    "figure",
    {},
    thumbnail(image.image_id, alt, "large"),
    image.caption && h("figcaption", { dir: "auto" }, image.caption),
    h(
      "button",
      {
        type: "button",
        "aria-label": `Search by image ${index + 1}`,
        onclick: () => search("image", image.image_id),
      },
      "Search by this image",
    ),
  );
}

/** @param {any} product @returns {[string, string][]} */
function facts(product) {
  const attributes = Object.entries(product.attributes).map(([name, value]) => [
    label(name),
    name === "price" ? money(product.attributes) : text(value),
  ]);
  return /** @type {[string, string][]} */ ([
    ["id", product.product_id],
    ...attributes,
    [
      "changed",
      new Date(product.updated_at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }),
    ],
  ]);
}
