/** What a reader of a list has to know: who answered it, and who did not. */

import { h } from "./dom.js";

/**
 * @param {{models_used: {model: string, fingerprint: string, weight: number}[], lexical_weight?: number,
 *   skipped: Object<string, string>, incomplete: Object<string, string>}} list
 * @returns {HTMLElement[]}
 */
export function notes(list) {
  const used = list.models_used.map(({ model, fingerprint }) =>
    h("span", { class: "used", title: fingerprint }, model),
  );
  if (list.lexical_weight)
    used.push(h("span", { class: "used" }, `words as written ${list.lexical_weight.toFixed(1)}`));
  return [
    h("p", { class: "models-used" }, used),
    ...problems(list.skipped, "left out"),
    ...problems(list.incomplete, "incomplete"),
  ];
}

/**
 * @param {Object<string, string>} reasons by model
 * @param {string} what
 * @returns {HTMLElement[]}
 */
export function problems(reasons, what) {
  return Object.entries(reasons).map(([model, reason]) =>
    h("p", { class: "problem" }, h("strong", {}, `${model} ${what}: `), reason),
  );
}
