/** The pictures that a version has not indexed, with the reasons. */

import { callJson } from "./api.js";
import { byId, fill, h } from "./dom.js";
import { showFailure } from "./failure.js";
import { thumbnail } from "./thumbnail.js";

/** @param {string} model @param {string} fingerprint */
export async function showGaps(model, fingerprint) {
  const place = byId("gaps");
  try {
    const gaps = await callJson(
      `v1/models/${encodeURIComponent(model)}/versions/${fingerprint}/gaps?limit=50`,
    );
    const title = h("h3", { tabindex: "-1" }, `Gaps of ${model} ${fingerprint}`);
    fill(
      place,
      title,
      list("In quarantine", gaps.failed),
      list("Missing", gaps.missing),
      h("button", { type: "button", onclick: () => fill(place) }, "Close"),
    );
    title.focus();
  } catch (error) {
    showFailure(error);
  }
}

/** @param {string} title @param {{image_id: string, product_id: string, error?: string}[]} pictures */
function list(title, pictures) {
  if (pictures.length === 0) return null;
  const items = pictures.map(({ image_id: id, product_id: product, error }) =>
    h(
      "li",
      {},
      thumbnail(id, ""),
      h("span", {}, h("strong", {}, product), error && h("span", { class: "bad" }, ` ${error}`)),
    ),
  );
  return [
    h("p", {}, `${title}${pictures.length === 50 ? ", the first 50" : ""}:`),
    h("ul", { class: "gap-list" }, items),
  ];
}
