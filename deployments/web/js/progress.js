/** What a job is to do, when, and how far it is. */

import { h } from "./dom.js";

export const AT_WORK = ["queued", "running"];

/** @param {any} job @returns {HTMLElement | null} null: nothing is left to tell */
export function progress({ state, progress: now }) {
  if (state === "succeeded" || (!now.total && !AT_WORK.includes(state))) return null;
  const bar = h("progress", {
    max: Math.max(1, now.total),
    value: now.total ? now.done : null,
    "aria-label": now.stage || state,
  });
  const facts = [
    now.stage,
    now.total ? `${now.done.toLocaleString()} of ${now.total.toLocaleString()}` : "",
    now.failed ? `${now.failed} failed` : "",
    now.images_per_s ? `${now.images_per_s.toFixed(0)} images/s` : "",
    now.eta_s && state === "running" ? `${Math.ceil(now.eta_s)} s to go` : "",
  ];
  return h("div", {}, bar, h("p", { class: "hint" }, facts.filter(Boolean).join(" · ")));
}

/** Arguments as people write them: names and values in a row. @param {Object<string, any>} args @returns {string} */
export function argumentText(args) {
  const isGroup = (/** @type {any} */ value) => typeof value === "object" && !Array.isArray(value) && value;
  return Object.entries(args)
    .map(([name, value]) => `${name} ${isGroup(value) ? argumentText(value) : plain(value)}`)
    .join(", ");
}

/** @param {any} job */
export function when({ created_at: created, started_at: started, finished_at: finished }) {
  const at = new Date(created).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  if (!started || !finished) return at;
  return `${at}, took ${Math.max(1, Math.round((Date.parse(finished) - Date.parse(started)) / 1000))} s`;
}

/** @param {any} value */
function plain(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
