/** The result of a job, as text and figures. */

import { h } from "./dom.js";

/**
 * @param {any} job that has ended
 * @returns {HTMLElement[]}
 */
export function outcome({ result, args }) {
  const facts = Object.entries(result ?? {})
    .filter(([name, value]) => isFigure(value) && name !== "diff" && !(name in args))
    .map(([name, value]) => h("div", {}, h("dt", {}, spaced(name)), h("dd", {}, text(value))));
  return [
    verdict(result?.quality_gate),
    facts.length > 0 && h("dl", {}, facts),
    result?.diff && h("pre", { tabindex: "0", "aria-label": "Change of the configuration" }, result.diff),
  ].filter(Boolean);
}

/** @param {any} value */
function isFigure(value) {
  return ["number", "string", "boolean"].includes(typeof value) && value !== "";
}

/** @param {{passed: boolean | null, reason: string} | null | undefined} gate */
function verdict(gate) {
  if (!gate?.reason) return null;
  return h("p", { class: gate.passed === false ? "bad" : "good" }, `Quality gate ${gate.reason}`);
}

/** A name of the API for people: seconds and rates keep their unit. @param {string} name */
function spaced(name) {
  return name
    .replace(/_per_s\b/, " per second")
    .replace(/_s$/, " in s")
    .replaceAll("_", " ");
}

/** @param {number | string | boolean} value */
function text(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number"
    ? value.toLocaleString(undefined, { maximumSignificantDigits: Number.isInteger(value) ? 21 : 3 })
    : value;
}
