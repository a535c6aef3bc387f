/** Showing what went wrong: what, where, and under which id the logs have more. */

import { ApiError } from "./api.js";
import { byId, fill, h } from "./dom.js";

/** Take the message away. */
export function clearFailure() {
  fill(byId("failure"));
}

/**
 * Show an error; calls that were given up are none.
 * @param {unknown} error
 * @param {(() => void)} [again] what to do on "Try again"
 */
export function showFailure(error, again) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  if (!(error instanceof ApiError)) throw error;
  fill(
    byId("failure"),
    h("p", {}, h("strong", {}, sentence(error.message)), error.param ? ` (${error.param})` : ""),
    error.requestId && h("p", { class: "hint" }, `Request ${error.requestId}`),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

/** @param {string} text */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
