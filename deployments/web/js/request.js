/** From the query of the page to the body of a search or a comparison. */

import { ALL_MODELS, hasText } from "./query.js";

/** @typedef {import("./query.js").Query} Query */
/** @typedef {import("./query.js").Part} Part */

/**
 * The call that answers a query: JSON, or a form where images travel with it.
 * @param {Query} query
 * @returns {{path: string, body: FormData | object}}
 */
export function toRequest(query) {
  const compares = query.model === ALL_MODELS;
  const path = compares ? "v1/compare" : "v1/search";
  /** @type {Object<string, any>} */
  const json = { query: parts(query), limit: query.count };
  if (!compares) json.model = query.model;
  if (compares || query.model === "ensemble") {
    if (Object.keys(query.weights).length) json.weights = query.weights;
    if (query.fusion) json.fusion = query.fusion;
  }
  if (query.keyword !== null && query.text.trim()) json.keyword_weight = query.keyword;
  if (query.rerank && hasText(query)) json.rerank = { model: query.rerank, depth: query.depth };
  const conditions = Object.entries(query.filter).map(([name, condition]) => [escaped(name), condition]);
  if (conditions.length) json.filter = Object.fromEntries(conditions);
  const files = query.parts.filter((part) => part.file);
  if (files.length === 0) return { path, body: json };
  const form = new FormData();
  form.append("request", JSON.stringify(json));
  for (const part of files) form.append(part.key, /** @type {File} */ (part.file));
  return { path, body: form };
}

/** @param {Query} query */
function parts(query) {
  const trimmed = query.text.trim();
  const text = trimmed ? [{ type: "text", text: trimmed, weight: query.textWeight }] : [];
  return [...text, ...query.parts.map(part)];
}

/** @param {Part} part */
function part({ key, kind, value, weight, box }) {
  if (kind === "product") return { type: "product_id", product_id: value, weight };
  if (kind === "image") return { type: "image_id", image_id: value, weight };
  const where = kind === "url" ? { type: "image_url", image_url: value } : { type: "image", upload: key };
  return box ? { ...where, weight, box } : { ...where, weight };
}

/** An attribute may be named like a word that joins filters. @param {string} name */
function escaped(name) {
  return ["and", "or", "not"].includes(name) || name.startsWith("\\") ? `\\${name}` : name;
}
