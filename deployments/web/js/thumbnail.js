/** Images of the catalog in their small sizes; never the originals. */

import { call } from "./api.js";
import { h } from "./dom.js";
import { key } from "./key.js";

/**
 * An <img> of an image of the catalog.
 * @param {string} imageId
 * @param {string} alt
 * @param {"small" | "large"} [size]
 * @returns {HTMLImageElement}
 */
export function thumbnail(imageId, alt, size = "small") {
  const address = `v1/images/${encodeURIComponent(imageId)}/thumbnail?size=${size}`;
  const image = h("img", { alt, loading: "lazy", decoding: "async" });
  // The browser sends no key with images, so with one they are fetched.
  if (key()) void show(image, address);
  else image.src = address;
  return image;
}

/** @param {HTMLImageElement} image @param {string} address */
async function show(image, address) {
  try {
    const local = URL.createObjectURL(await (await call(address)).blob());
    image.addEventListener("load", () => URL.revokeObjectURL(local), { once: true });
    image.src = local;
  } catch {
    image.classList.add("broken");
  }
}
