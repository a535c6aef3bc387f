/** What a reader of a list has to know: who answered it, and who did not. */

import { h } from "./dom.js";

/** @typedef {{model: string, fingerprint: string | null, depth: number, reranked: number,
 *   skipped: Object<string, number>}} Reranked */

/**
 * @param {{models_used: {model: string, fingerprint: string, weight: number}[], keyword_weight?: number,
 *   skipped: Object<string, string>, incomplete: Object<string, string>, degraded: boolean,
 *   rerank?: Reranked | null}} list
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
  if (list.rerank?.reranked) {
    const version = list.rerank.fingerprint && `Version ${list.rerank.fingerprint}`;
    const said = `re-ranked by ${list.rerank.model}: ${list.rerank.reranked}`;
    used.push(h("span", { class: "used", title: version }, said));
  }
  return h(
    "div",
    {},
    h("p", { class: "models-used" }, used),
    ...remarks(list.skipped, "left out", list.degraded),
    ...remarks(list.incomplete, "incomplete", list.degraded),
    notReranked(list.rerank),
  );
}

/** The products that the second stage has left in their places, in one line. @param {Reranked | null} [rerank] */
function notReranked(rerank) {
  const reasons = Object.entries(rerank?.skipped ?? {});
  if (reasons.length === 0) return null;
  const count = reasons.reduce((sum, [, products]) => sum + products, 0);
  const why = reasons.map(([reason, products]) => (reasons.length > 1 ? `${reason} (${products})` : reason));
  const which = count === 1 ? "1 product keeps its place" : `${count} products keep their places`;
  return h("p", { class: "problem" }, h("strong", {}, "Not re-ranked: "), `${which}: ${why.join("; ")}`);
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
