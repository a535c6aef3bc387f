/** The parts of the query, each with its weight, below the text field. */

import { callJson } from "./api.js";
import { askForBox, frame } from "./box.js";
import { byId, fill, h } from "./dom.js";
import { slider } from "./slider.js";
import { thumbnail } from "./thumbnail.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */
/** @typedef {import("./query.js").Query} Query */
/** @typedef {import("./query.js").Part} Part */

/** @param {QueryStore} store */
export function showParts(store) {
  let shown = "";
  const update = (/** @type {Query} */ query) => {
    // A slider that is being moved must stay the same element.
    const now = JSON.stringify([Boolean(query.text), query.parts.map(({ key, box }) => [key, box])]);
    if (now === shown) return;
    shown = now;
    const weight = query.text && query.parts.length ? [textWeight(store, query)] : [];
    fill(
      byId("parts"),
      weight,
      query.parts.map((part) => row(store, part)),
    );
  };
  store.listen(update);
  update(store.query);
}

/** @param {QueryStore} store @param {Query} query */
function textWeight(store, query) {
  const settings = { label: "Weight of the text", value: query.textWeight, min: -2, max: 2 };
  return slider({ ...settings, onchange: (value) => store.change({ textWeight: value }, false) });
}

/** @param {QueryStore} store @param {Part} part */
function row(store, part) {
  const title = h("bdi", { class: "title" }, part.value);
  const image = h("div", { class: "image" });
  void showImage(part, image, title);
  return h(
    "article",
    { class: "part", "aria-label": `${kindName(part)}: ${part.value}` },
    image,
    h(
      "div",
      { class: "about" },
      h("p", {}, h("span", { class: "kind" }, kindName(part)), " ", title),
      slider({
        label: "Weight",
        name: `Weight of ${kindName(part).toLowerCase()} ${part.value}`,
        value: part.weight,
        min: -2,
        max: 2,
        onchange: (weight) => store.changePart(part.key, { weight }, false),
      }),
      h("div", { class: "row" }, boxButton(store, part), removeButton(store, part)),
    ),
  );
}

/** @param {Part} part */
function kindName({ kind }) {
  return { upload: "Uploaded image", url: "Image at", product: "Product", image: "Image" }[kind];
}

/** @param {Part} part @param {HTMLElement} place @param {HTMLElement} title */
async function showImage(part, place, title) {
  if (part.preview) fill(place, h("img", { src: part.preview, alt: "" }), frame(part.box));
  if (part.kind === "image") fill(place, thumbnail(part.value, ""));
  if (part.kind !== "product") return;
  try {
    const product = await callJson(`v1/products/${encodeURIComponent(part.value)}`);
    title.textContent = product.title || part.value;
    if (product.images.length) fill(place, thumbnail(product.images[0].image_id, ""));
  } catch {
    // The search itself says that there is no such product.
  }
}

/** @param {QueryStore} store @param {Part} part */
function boxButton(store, part) {
  const { preview } = part;
  if (!preview) return null;
  const change = async () => {
    const box = await askForBox(preview, part.box);
    if (box !== undefined) store.changePart(part.key, { box });
  };
  return h("button", { type: "button", onclick: change }, part.box ? "Change the box" : "Draw a box");
}

/** @param {QueryStore} store @param {Part} part */
function removeButton(store, part) {
  const remove = () => {
    store.removePart(part.key);
    byId("text").focus();
  };
  return h("button", { type: "button", "aria-label": `Remove ${part.value}`, onclick: remove }, "Remove");
}
