/** What a reader of a list has to know: who answered it, and who did not. */

import { h } from "./dom.js";

/**
 * @param {{models_used: {model: string, fingerprint: string, weight: number}[], keyword_weight?: number,
 *   skipped: Object<string, string>, incomplete: Object<string, string>, degraded: boolean}} list
 * @param {string} [title] of the list, where it is the name of the model
 * @returns {HTMLElement}
 */
export function notes(list, title) {
  const used = list.models_used.map(({ model, fingerprint }) =>
    model === title
      ? h("span", { class: "used", title: "Version" }, h("code", {}, fingerprint))
      : h("span", { class: "used", title: `Version ${fingerprint}` }, model),
  );
  if (list.keyword_weight)
    used.push(h("span", { class: "used" }, `keyword search ${list.keyword_weight.toFixed(2)}`));
  return h(
    "div",
    {},
    h("p", { class: "models-used" }, used),
    ...remarks(list.skipped, "left out", list.degraded),
    ...remarks(list.incomplete, "incomplete", list.degraded),
  );
}

/**
 * @param {Object<string, string>} reasons by model
 * @param {string} what
 * @param {boolean} isProblem whether someone should look at it, or it lies in the query
 * @returns {HTMLElement[]}
 */
export function remarks(reasons, what, isProblem) {
  return Object.entries(reasons).map(([model, reason]) =>
    h("p", { class: isProblem ? "problem" : "note" }, h("strong", {}, `${model} ${what}: `), reason),
  );
}
