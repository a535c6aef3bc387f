/** The images that a version has not indexed, with the reasons. */

import { callJson } from "./api.js";
import { byId, fill, h } from "./dom.js";
import { showFailure } from "./failure.js";
import { thumbnail } from "./thumbnail.js";

const MOST = 50;

/**
 * @param {string} model
 * @param {string} fingerprint
 * @param {() => void} closed
 */
export async function showGaps(model, fingerprint, closed) {
  const place = byId("gaps");
  try {
    const gaps = await callJson(
      `v1/models/${encodeURIComponent(model)}/versions/${fingerprint}/gaps?limit=${MOST}`,
    );
    const title = h("h3", { tabindex: "-1" }, `Gaps of ${model} ${fingerprint}`);
    const close = () => {
      fill(place);
      closed();
    };
    fill(
      place,
      h(
        "div",
        { class: "gaps" },
        title,
        list("In quarantine, tried again when they change", gaps.failed),
        list("Missing", gaps.missing),
        h("button", { type: "button", onclick: close }, "Close"),
      ),
    );
    title.focus();
  } catch (error) {
    showFailure(error);
  }
}

/** @param {string} title @param {{image_id: string, product_id: string, error?: string}[]} images */
function list(title, images) {
  if (images.length === 0) return null;
  const items = images.map(({ image_id: id, product_id: product, error }) =>
    h(
      "li",
      {},
      thumbnail(id, ""),
      h("span", {}, h("strong", {}, product), error && h("span", { class: "bad" }, error)),
    ),
  );
  const message = h("p", {}, `${title}${images.length === MOST ? `, the first ${MOST}` : ""}:`);
  return h("div", {}, message, h("ul", { class: "gap-list" }, items));
}
