/** A labeled slider that says its value. */

import { h } from "./dom.js";

let made = 0;

/**
 * @param {{label: string, value: number, min: number, max: number, step?: number,
 *   name?: string, onchange: (value: number) => void}} settings `name` says it in full to screen readers
 * @returns {HTMLElement}
 */
export function slider({ label, value, min, max, step = 0.05, name, onchange }) {
  const id = `slider-${++made}`;
  const output = h("output", { for: id }, value.toFixed(2));
  const input = h("input", { id, type: "range", min, max, step, value, "aria-label": name });
  input.addEventListener("input", () => {
    output.textContent = Number(input.value).toFixed(2);
    onchange(Number(input.value));
  });
  return h("div", { class: "slider" }, h("label", { for: id }, label), input, output);
}
