/** Which model answers, and how much each counts in the ensemble. */

import { byId, fill, h } from "./dom.js";
import { ALL_MODELS, hasText } from "./query.js";
import { reranking } from "./reranking.js";
import { slider } from "./slider.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */
/** @typedef {import("./query.js").Query} Query */
/** @typedef {{model: string, reranks: boolean | null, serving: {modalities: string[]} | null,
 *   problem: string | null}} Model */

/** The selector and the sliders. */
export class ModelPanel {
  /** @param {QueryStore} store @param {Model[]} models */
  constructor(store, models) {
    this.store = store;
    this.models = models;
    /** @type {Object<string, number>} */
    this.configured = {};
    this.answeredKeyword = 0;
    this.shown = "";
    store.listen(() => this.update());
    this.update();
  }

  /** Take over what an answer was made with. @param {any} answer of a search or a comparison */
  take(answer) {
    const lists = answer.lists ?? [{ model: this.store.query.model, ...answer }];
    const ensemble = lists.find((/** @type {any} */ list) => list.model === "ensemble");
    if (ensemble) this.takeWeights(ensemble.models_used);
    if (!answer.lists) this.takeKeyword(answer.keyword_weight);
  }

  /**
   * Take over the weights that an answer of the ensemble was made with, unless it had fewer members than
   * one before: weights are shares, so those of different members do not go together.
   * @param {{model: string, weight: number}[]} used
   */
  takeWeights(used) {
    if (Object.keys(this.store.query.weights).length || used.length < 2) return;
    if (used.length < Object.keys(this.configured).length) return;
    this.configured = Object.fromEntries(used.map(({ model, weight }) => [model, weight]));
    this.update();
  }

  /** Take over the share of keyword search, where the service has chosen it. @param {number} share */
  takeKeyword(share) {
    this.answeredKeyword = share;
    this.update();
  }

  update() {
    const { model, weights, fusion, keyword, text, rerank, depth } = this.store.query;
    const touched = Object.keys(weights).length > 0;
    const now = JSON.stringify([
      model,
      touched,
      touched || this.configured,
      fusion,
      keyword ?? this.answeredKeyword,
      Boolean(text),
      hasText(this.store.query) && [rerank, depth],
    ]);
    const panel = byId("models");
    const focused = panel.contains(document.activeElement) ? document.activeElement : null;
    // A slider that is held would be taken away, but what undoes it must be there at once.
    byId("as-configured")?.toggleAttribute("hidden", !touched);
    if (now === this.shown || focused?.tagName === "INPUT") return;
    this.shown = now;
    fill(
      panel,
      this.selector(),
      this.fuses() && this.weights(),
      Boolean(text) && this.keyword(),
      reranking(this.store, this.models),
    );
    // What was chosen in is made anew.
    if (focused?.id) byId(focused.id)?.focus();
  }

  fuses() {
    return ["ensemble", ALL_MODELS].includes(this.store.query.model);
  }

  selector() {
    const { model } = this.store.query;
    const option = (/** @type {string} */ value, /** @type {string} */ text) =>
      h("option", { value, selected: value === model }, text);
    const known = ["ensemble", ALL_MODELS, ...this.models.map((each) => each.model)].includes(model);
    const select = h(
      "select",
      { id: "model", onchange: () => this.store.change({ model: select.value }) },
      option("ensemble", "All, as one ensemble"),
      option(ALL_MODELS, "All, side by side"),
      this.models.map((each) => option(each.model, named(each))),
      !known && option(model, model),
    );
    return h("div", { class: "field" }, h("label", { for: "model" }, "Model"), select);
  }

  weights() {
    const { weights, fusion } = this.store.query;
    const touched = Object.keys(weights).length > 0;
    const change = (/** @type {string} */ model, /** @type {number} */ weight) =>
      this.store.change({ weights: { ...this.current(), [model]: weight } }, false);
    const select = h(
      "select",
      { id: "fusion", onchange: () => this.store.change({ fusion: select.value }) },
      [
        ["", "as configured"],
        ["rrf", "by ranks"],
        ["weighted", "by scores"],
      ].map(([value, text]) => h("option", { value, selected: value === fusion }, text)),
    );
    const reset = () => this.store.change({ weights: {} });
    return h(
      "details",
      { open: touched || this.isOpen() },
      h("summary", {}, "Weights in the ensemble"),
      Object.entries(this.current()).map(([model, value]) =>
        slider({
          label: model,
          name: `Weight of ${model}`,
          value,
          min: 0,
          max: 2,
          onchange: (weight) => change(model, weight),
        }),
      ),
      h("div", { class: "field" }, h("label", { for: "fusion" }, "Fused"), select),
      h("button", { id: "as-configured", type: "button", hidden: !touched, onclick: reset }, "As configured"),
    );
  }

  keyword() {
    const { keyword } = this.store.query;
    const change = (/** @type {number} */ value) => this.store.change({ keyword: value }, false);
    const label = keyword === null ? "Keyword search (auto)" : "Keyword search";
    return slider({ label, value: keyword ?? this.answeredKeyword, min: 0, max: 1, onchange: change });
  }

  isOpen() {
    return byId("models").querySelector("details")?.open ?? false;
  }

  current() {
    const usual = Math.min(1, ...Object.values(this.configured));
    const known = Object.fromEntries(
      this.models.map(({ model }) => [model, this.configured[model] ?? usual]),
    );
    return { ...known, ...this.store.query.weights };
  }
}

/** @param {Model} model */
function named({ model, serving, problem }) {
  if (problem !== null || serving === null) return `${model} (not ready)`;
  return serving.modalities.includes("text") ? model : `${model} (images only)`;
}
