/** Filters from the attributes that the catalog's products have. */

import { byId, fill, h } from "./dom.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */
/** @typedef {{name: string, values: {value: string | boolean, products: number}[], more_values: boolean,
 *   minimum: number | null, maximum: number | null}} Attribute */

/** @param {QueryStore} store @param {Attribute[]} attributes */
export function showFilters(store, attributes) {
  const panel = byId("filters");
  let shown = "";
  const update = () => {
    const now = JSON.stringify(store.query.filter);
    const set = Object.keys(store.query.filter).length;
    panel.querySelector("summary").textContent = set ? `Filters (${set})` : "Filters";
    if (now === shown || panel.contains(document.activeElement)) return;
    shown = now;
    const fields = attributes.map((attribute) => field(store, attribute));
    const none = fields.length === 0 && h("p", { class: "hint" }, "The products have no attributes.");
    fill(panel, panel.querySelector("summary"), fields, none, clearButton(store, panel));
  };
  if (Object.keys(store.query.filter).length) panel.open = true;
  store.listen(update);
  update();
}

/** @param {QueryStore} store @param {HTMLElement} panel */
function clearButton(store, panel) {
  const clear = () => {
    /** @type {HTMLElement} */ (panel.querySelector("summary")).focus();
    for (const input of panel.querySelectorAll("input")) {
      input.checked = false;
      if (input.type === "number") input.value = "";
    }
    store.change({ filter: {} });
  };
  return h("button", { type: "button", onclick: clear }, "Clear filters");
}

/** @param {QueryStore} store @param {Attribute} attribute */
function field(store, attribute) {
  const title = h("legend", {}, attribute.name.replaceAll("_", " "));
  if (attribute.values.length) return h("fieldset", {}, title, values(store, attribute));
  return h("fieldset", {}, title, span(store, attribute));
}

/** @param {QueryStore} store @param {Attribute} attribute */
function values(store, { name, values: known, more_values: more }) {
  const chosen = store.query.filter[name];
  const isChosen = (/** @type {any} */ value) => Array.isArray(chosen) && chosen.includes(value);
  const toggle = (/** @type {any} */ value, /** @type {boolean} */ on) => {
    const held = store.query.filter[name];
    const others = (Array.isArray(held) ? held : []).filter((each) => each !== value);
    setFilter(store, name, on ? [...others, value] : others);
  };
  return h(
    "div",
    { class: "values" },
    known.map(({ value, products }) =>
      h(
        "label",
        { class: "check" },
        h("input", {
          type: "checkbox",
          checked: isChosen(value),
          onchange: (/** @type {any} */ event) => toggle(value, event.target.checked),
        }),
        h("bdi", {}, value === true ? "yes" : value === false ? "no" : value),
        h("span", { class: "hint", title: "Products" }, products),
      ),
    ),
    more && h("span", { class: "hint" }, "… and more"),
  );
}

/** @param {QueryStore} store @param {Attribute} attribute */
function span(store, { name, minimum, maximum }) {
  const held = store.query.filter[name];
  const now = held && !Array.isArray(held) ? held : {};
  const input = (
    /** @type {"gte" | "lte"} */ bound,
    /** @type {string} */ label,
    /** @type {number | null} */ hint,
  ) => {
    const field = h("input", {
      type: "number",
      step: "any",
      value: now[bound],
      placeholder: hint,
      "aria-label": `${name} ${label}`,
    });
    field.addEventListener("change", () => {
      const { [bound]: _, ...others } = /** @type {any} */ (store.query.filter[name] ?? {});
      setFilter(store, name, field.value === "" ? others : { ...others, [bound]: Number(field.value) });
    });
    return h("label", {}, label, field);
  };
  return h("div", { class: "span" }, input("gte", "from", minimum), input("lte", "to", maximum));
}

/** @param {QueryStore} store @param {string} name @param {any} condition */
function setFilter(store, name, condition) {
  const { [name]: _, ...others } = store.query.filter;
  const isEmpty = Object.keys(condition).length === 0;
  store.change({ filter: isEmpty ? others : { ...others, [name]: condition } });
}
