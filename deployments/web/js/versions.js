/** The models, their versions, and how much of the catalog each holds. */

import { byId, fill, h } from "./dom.js";
import { showGaps } from "./gaps.js";

let shown = "";

/** @param {any[]} models @param {any[][]} versions of each model, oldest first */
export function showVersions(models, versions) {
  // What has not changed stays as it is, and keeps the focus.
  const now = JSON.stringify([models, versions]);
  if (now === shown) return;
  shown = now;
  const rows = models.flatMap((model, index) => rowsOf(model, versions[index] ?? []));
  const heads = [
    "Model",
    "Version",
    "State",
    "Indexed",
    "Missing",
    "Quarantine",
    "Gaps",
    "Dimension",
    "Weights",
  ];
  const head = h(
    "tr",
    {},
    heads.map((text) => h("th", { scope: "col" }, text)),
  );
  fill(byId("versions"), h("table", { class: "list" }, h("thead", {}, head), h("tbody", {}, rows)));
}

/** @param {any} model @param {any[]} versions */
function rowsOf(model, versions) {
  const serving = model.serving?.collection;
  const known =
    versions.some((each) => each.collection === serving) || !model.serving
      ? versions
      : [...versions, model.serving];
  const rows = known.map((version) => row(model.model, version, version.collection === serving));
  if (model.problem === null) return rows;
  return [
    ...rows,
    h("tr", {}, h("th", { scope: "row" }, model.model), h("td", { colspan: 8, class: "bad" }, model.problem)),
  ];
}

/** @param {string} name @param {any} version @param {boolean} serves */
function row(name, version, serves) {
  const { counts } = version;
  const state = [serves && "serves", version.live && "live"].filter(Boolean).join(", ") || "kept";
  const cell = (/** @type {string} */ label, /** @type {any} */ ...children) =>
    h("td", { "data-label": label }, ...children);
  const gaps = counts.missing + counts.failed > 0;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, name),
    cell("Version", h("code", {}, version.fingerprint)),
    cell("State", h("span", { class: version.live ? "good" : "" }, state)),
    h(
      "td",
      { "data-label": "Indexed", class: "wide count" },
      h("progress", {
        max: Math.max(1, counts.images),
        value: counts.indexed,
        "aria-label": `${name} ${version.fingerprint} indexed`,
      }),
      ` ${counts.indexed.toLocaleString()} of ${counts.images.toLocaleString()}`,
    ),
    cell("Missing", counts.missing.toLocaleString()),
    cell("Quarantine", h("span", { class: counts.failed ? "bad" : "" }, counts.failed.toLocaleString())),
    cell("Gaps", gaps ? gapsButton(name, version.fingerprint) : "none"),
    cell("Dimension", `${version.dimension}, ${version.precision}`),
    cell("Weights", h("code", {}, version.checkpoint.split("/").slice(-2).join("/"))),
  );
}

/** @param {string} name @param {string} fingerprint */
function gapsButton(name, fingerprint) {
  const label = `Show the gaps of ${name} ${fingerprint}`;
  const button = h("button", { type: "button", "aria-label": label }, "Show");
  button.addEventListener("click", () => showGaps(name, fingerprint, () => button.focus()));
  return button;
}
