/** The search page: a change of the query becomes a call, its answer the results. */

import { fromAddress } from "./address.js";
import { ApiError, callJson } from "./api.js";
import { readSettings } from "./attributes.js";
import { card } from "./card.js";
import { columns } from "./columns.js";
import { byId, fill, h } from "./dom.js";
import { clearFailure, showFailure } from "./failure.js";
import { showFilters } from "./filters.js";
import { keepHistory } from "./history.js";
import { ModelPanel } from "./models.js";
import { showParts } from "./parts.js";
import { ALL_MODELS, isEmpty, PAGE, QueryStore } from "./query.js";
import { toRequest } from "./request.js";
import { ghosts, resultList, showResults } from "./results.js";
import { showSaved } from "./saved.js";
import { watchText } from "./text_field.js";
import { takeUploads } from "./uploads.js";

const SETTLE_MS = 200;

const { query, lostUploads } = fromAddress(new URLSearchParams(location.search));
const store = new QueryStore(query);
/** @type {ModelPanel | null} */
let models = null;
let hasPanels = false;
/** The latest answer of a search or a comparison. @type {any} */
let answered = null;
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
  if (!results.firstChild) fill(results, ghosts());
  try {
    const started = performance.now();
    const shown = isEmpty(store.query) ? await browse(signal) : await ask(signal);
    clearFailure();
    showResults(results, shown.elements);
    document.title = store.query.text ? `${store.query.text} · Vitrine` : "Vitrine: search";
    say(`${shown.message}, ${Math.round(performance.now() - started)} ms`);
    if (isStep && !isEmpty(store.query)) bringIntoView();
    showPanels();
  } catch (error) {
    if (signal.aborted) return;
    // Who has no key is not asked for it twice.
    if (!(error instanceof ApiError && error.status === 401)) showPanels();
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
      elements: [h("p", { class: "empty" }, "The catalog is empty: import products first.")],
      message: "No products",
    };
  }
  const cards = products.map((/** @type {any} */ product) => card(store, product));
  const hint = h(
    "p",
    { class: "hint" },
    "Drop an image or type some text. Until then, some products of the catalog:",
  );
  return {
    elements: [hint, h("ul", { class: "grid" }, cards)],
    message: `${products.length} products of the catalog`,
  };
}

/** @param {AbortSignal} signal */
async function ask(signal) {
  const compares = store.query.model === ALL_MODELS;
  const { path, body } = toRequest(store.query);
  const answer = await callJson(path, { body, signal });
  answered = answer;
  models?.take(answer);
  if (compares)
    return { elements: columns(store, answer), message: `${answer.lists.length} lists side by side` };
  const count = answer.results.length;
  return { elements: resultList(store, answer), message: count === 1 ? "1 product" : `${count} products` };
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

async function start() {
  watchText(store);
  takeUploads(store);
  keepHistory(store);
  showParts(store);
  showSaved(store);
  store.listen((_, isStep) => {
    outdate();
    clearTimeout(waiting);
    waiting = setTimeout(search, isStep ? 0 : SETTLE_MS, isStep);
  });
  await readSettings();
  await search();
  if (lostUploads) {
    byId("status").append(
      ` · ${lostUploads} uploaded image(s) of this link stay on the machine that made it`,
    );
  }
}

/** Models and filters, once; tried again with the next answer where they cannot be had. */
function showPanels() {
  if (hasPanels) return;
  hasPanels = true;
  readPanels().catch((error) => {
    hasPanels = false;
    showFailure(error, () => search());
  });
}

async function readPanels() {
  const [served, summary] = await Promise.all([callJson("v1/models"), callJson("v1/attributes")]);
  models = new ModelPanel(store, served);
  if (answered) models.take(answered);
  showFilters(store, summary.attributes);
}

void start();
