/** The search page: a change of the query becomes a call, its answer the results. */

import { fromAddress } from "./address.js";
import { callJson } from "./api.js";
import { card } from "./card.js";
import { columns } from "./columns.js";
import { byId, fill, h } from "./dom.js";
import { clearFailure, showFailure } from "./failure.js";
import { showFilters } from "./filters.js";
import { keepHistory } from "./history.js";
import { ModelPanel } from "./models.js";
import { showParts } from "./parts.js";
import { ALL_MODELS, PAGE, QueryStore, isEmpty } from "./query.js";
import { toRequest } from "./request.js";
import { resultList } from "./results.js";
import { showSaved } from "./saved.js";
import { takeUploads } from "./uploads.js";

const SETTLE_MS = 200;

const { query, lostUploads } = fromAddress(new URLSearchParams(location.search));
const store = new QueryStore(query);
/** @type {ModelPanel | null} */
let models = null;
let running = new AbortController();
/** @type {number | undefined} */
let waiting;

/** @param {boolean} [isStep] whether the visitor waits for the results, rather than moves a slider */
async function search(isStep = false) {
  outdate();
  running = new AbortController();
  const { signal } = running;
  const results = byId("results");
  say("Searching …");
  try {
    const started = performance.now();
    const shown = isEmpty(store.query) ? await browse(signal) : await ask(signal);
    clearFailure();
    fill(results, shown.elements);
    say(`${shown.told}, ${Math.round(performance.now() - started)} ms`);
    if (isStep && !isEmpty(store.query)) bringIntoView();
  } catch (error) {
    if (signal.aborted) return;
    fill(results);
    say("");
    showFailure(error, () => search());
  } finally {
    if (!signal.aborted) results.removeAttribute("aria-busy");
  }
}

/** What is shown no longer answers the query, and what is under way never will. */
function outdate() {
  running.abort();
  byId("results").setAttribute("aria-busy", "true");
}

/** Nothing is asked for: show what there is. @param {AbortSignal} signal */
async function browse(signal) {
  const products = await callJson(`v1/products?limit=${PAGE}`, { signal });
  if (products.length === 0) {
    return {
      elements: [h("p", { class: "empty" }, "The catalogue is empty: import products first.")],
      told: "No products",
    };
  }
  const cards = products.map((/** @type {any} */ product) => card(store, product));
  const hint = h(
    "p",
    { class: "hint" },
    "Drop a picture or type some words. Until then, some products of the catalogue:",
  );
  return {
    elements: [hint, h("ul", { class: "grid" }, cards)],
    told: `${products.length} products of the catalogue`,
  };
}

/** @param {AbortSignal} signal */
async function ask(signal) {
  const compares = store.query.model === ALL_MODELS;
  const { path, body } = toRequest(store.query);
  const answer = await callJson(path, { body, signal });
  if (compares) {
    models?.takeWeights(
      answer.lists.find((/** @type {any} */ list) => list.model === "ensemble")?.models_used ?? [],
    );
    return { elements: columns(store, answer), told: `${answer.lists.length} lists side by side` };
  }
  if (store.query.model === "ensemble") models?.takeWeights(answer.models_used);
  models?.takeLexical(answer.lexical_weight);
  const count = answer.results.length;
  return { elements: resultList(store, answer), told: count === 1 ? "1 product" : `${count} products` };
}

/** On a phone the results lie below the query. */
function bringIntoView() {
  const status = byId("status");
  if (status.getBoundingClientRect().top > innerHeight * 0.8) status.scrollIntoView({ block: "start" });
}

/** @param {string} text */
function say(text) {
  byId("status").textContent = text;
}

function takeWords() {
  const words = byId("words");
  let taken = store.query.words;
  words.value = taken;
  byId("query").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    store.change({ words: words.value });
  });
  // Emptied by its cross.
  words.addEventListener("search", () => {
    if (words.value !== store.query.words) store.change({ words: words.value });
  });
  store.listen(({ words: now }) => {
    // What is being typed stays, whatever else of the query changes meanwhile.
    if (now !== taken) words.value = now;
    taken = now;
  });
}

async function start() {
  takeWords();
  takeUploads(store);
  keepHistory(store);
  showParts(store);
  showSaved(store);
  store.listen((_, isStep) => {
    outdate();
    clearTimeout(waiting);
    waiting = setTimeout(search, isStep ? 0 : SETTLE_MS, isStep);
  });
  await search();
  if (lostUploads) {
    byId("status").append(
      ` · ${lostUploads} uploaded picture(s) of this link stay on the machine that made it`,
    );
  }
  try {
    const [served, summary] = await Promise.all([callJson("v1/models"), callJson("v1/attributes")]);
    models = new ModelPanel(store, served);
    showFilters(store, summary.attributes);
  } catch (error) {
    showFailure(error);
  }
}

void start();
