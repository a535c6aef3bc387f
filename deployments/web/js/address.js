/** The query in the address of the page, so that it can be shared; uploaded images do not fit in there. */

import { DEPTH, emptyQuery, MAX_COUNT, MAX_DEPTH, newPart, PAGE } from "./query.js";

/** @typedef {import("./query.js").Query} Query */
/** @typedef {import("./query.js").Part} Part */
/** @typedef {import("./query.js").PartKind} PartKind */

/** @type {PartKind[]} */
const SHARED = ["product", "image", "url"];
// Two signs that an address holds as they are.
const SEPARATOR = "*";
const BOX_SEPARATOR = "_";

/**
 * Write a query as search parameters; what is as usual is left out.
 * @param {Query} query
 * @returns {URLSearchParams}
 */
export function toAddress(query) {
  const usual = emptyQuery();
  const address = new URLSearchParams();
  if (query.text) address.set("q", query.text);
  if (query.textWeight !== 1) address.set("qw", String(query.textWeight));
  for (const part of query.parts) {
    if (part.kind !== "upload")
      address.append(part.kind, [part.weight, boxText(part.box), part.value].join(SEPARATOR));
  }
  const uploads = query.parts.filter((part) => part.kind === "upload").length;
  if (uploads) address.set("uploads", String(uploads));
  if (query.model !== usual.model) address.set("model", query.model);
  for (const [model, weight] of Object.entries(query.weights))
    address.append("weight", [weight, model].join(SEPARATOR));
  if (query.fusion) address.set("fusion", query.fusion);
  if (query.keyword !== null) address.set("keyword", String(query.keyword));
  if (query.rerank) address.set("rerank", [query.depth, query.rerank].join(SEPARATOR));
  if (Object.keys(query.filter).length) address.set("filter", JSON.stringify(query.filter));
  if (query.count !== PAGE) address.set("n", String(query.count));
  return address;
}

/**
 * Read a query; what cannot be read is left out, for people edit addresses.
 * @param {URLSearchParams} address
 * @returns {{query: Query, lostUploads: number}}
 */
export function fromAddress(address) {
  const query = emptyQuery();
  query.text = address.get("q") ?? "";
  query.textWeight = number(address.get("qw"), 1);
  query.parts = SHARED.flatMap((kind) => address.getAll(kind).flatMap((text) => readPart(kind, text)));
  query.model = address.get("model") ?? query.model;
  for (const text of address.getAll("weight")) {
    const [weight, model] = split(text);
    if (model) query.weights[model] = number(weight, 1);
  }
  query.fusion = address.get("fusion") ?? "";
  query.keyword = address.has("keyword") ? number(address.get("keyword"), 0.5) : null;
  const [depth, rerank] = split(address.get("rerank") ?? "");
  query.rerank = rerank;
  query.depth = whole(depth, DEPTH, MAX_DEPTH);
  query.filter = readFilter(address.get("filter"));
  query.count = whole(address.get("n"), PAGE, MAX_COUNT);
  return { query, lostUploads: number(address.get("uploads"), 0) };
}

/** @param {PartKind} kind @param {string} text @returns {Part[]} */
function readPart(kind, text) {
  const [weight, rest] = split(text);
  const [box, value] = split(rest);
  return value ? [newPart(kind, value, { weight: number(weight, 1), box: readBox(box) })] : [];
}

/** @param {import("./query.js").Box | null} box */
function boxText(box) {
  return box
    ? [box.x, box.y, box.width, box.height].map((share) => share.toFixed(4)).join(BOX_SEPARATOR)
    : "";
}

/** @param {string} text @returns {import("./query.js").Box | null} */
function readBox(text) {
  const [x = NaN, y = NaN, width = NaN, height = NaN] = text.split(BOX_SEPARATOR).map(Number);
  return [x, y, width, height].every(Number.isFinite) ? { x, y, width, height } : null;
}

/** @param {string | null} text @returns {import("./query.js").Filter} */
function readFilter(text) {
  try {
    const filter = JSON.parse(text ?? "{}");
    return filter !== null && typeof filter === "object" && !Array.isArray(filter) ? filter : {};
  } catch {
    return {};
  }
}

/** @param {string} text @returns {[string, string]} */
function split(text) {
  const at = text.indexOf(SEPARATOR);
  return at < 0 ? ["", text] : [text.slice(0, at), text.slice(at + 1)];
}

/** A number from 1. @param {string | null} text @param {number} otherwise @param {number} most */
function whole(text, otherwise, most) {
  return Math.min(most, Math.max(1, Math.round(number(text, otherwise))));
}

/** @param {string | null} text @param {number} otherwise */
function number(text, otherwise) {
  const value = Number(text);
  return text === null || text === "" || !Number.isFinite(value) ? otherwise : value;
}
