/** How long each stage of an answer took. */

import { h } from "./dom.js";

/**
 * @param {Object<string, number>} timings milliseconds by stage
 * @returns {HTMLElement}
 */
export function timings(timings) {
  const longest = Math.max(1, ...Object.values(timings));
  const rows = Object.entries(timings).map(([stage, ms]) => {
    const bar = h("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * ms) / longest}%`;
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, stage),
      h("td", { class: "number" }, `${ms.toFixed(1)} ms`),
      h("td", { class: "bars" }, bar),
    );
  });
  return h("details", { class: "timings" }, h("summary", {}, "Stages"), h("table", {}, h("tbody", {}, rows)));
}
