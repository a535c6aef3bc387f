/** The query that the page shows, and who wants to know when it changes. */

/**
 * @typedef {{x: number, y: number, width: number, height: number}} Box shares of the image, from the top left
 * @typedef {"upload" | "url" | "product" | "image"} PartKind
 * @typedef {{key: string, kind: PartKind, value: string, weight: number, box: Box | null,
 *   file?: File, preview?: string}} Part
 * @typedef {Object<string, any[] | {gte?: number, lte?: number}>} Filter
 * @typedef {{text: string, textWeight: number, parts: Part[], model: string,
 *   weights: Object<string, number>, fusion: string, keyword: number | null, rerank: string, depth: number,
 *   filter: Filter, count: number}} Query `rerank`: the model that orders the first `depth` products, or ""
 */

export const PAGE = 12;
export const MAX_COUNT = 96;
export const ALL_MODELS = "all";
export const DEPTH = 50;
export const MAX_DEPTH = 500;

/** @returns {Query} */
export function emptyQuery() {
  return {
    text: "",
    textWeight: 1,
    parts: [],
    model: "ensemble",
    weights: {},
    fusion: "",
    keyword: null,
    rerank: "",
    depth: DEPTH,
    filter: {},
    count: PAGE,
  };
}

/** @param {Query} query */
export function isEmpty(query) {
  return !query.text.trim() && query.parts.length === 0;
}

/** Whether there is a text to look for, by which products can be re-ranked. @param {Query} query */
export function hasText({ text, textWeight }) {
  return Boolean(text.trim()) && textWeight > 0;
}

/** Holds the query; each change calls all listeners. */
export class QueryStore {
  /** @param {Query} query */
  constructor(query) {
    this.query = query;
    /** @type {((query: Query, isStep: boolean) => void)[]} */
    this.listeners = [];
  }

  /** @param {(query: Query, isStep: boolean) => void} listener */
  listen(listener) {
    this.listeners.push(listener);
  }

  /**
   * Change the query, back to its first page unless the change says otherwise.
   * @param {Partial<Query>} change
   * @param {boolean} [isStep] whether "back" should lead to before it; not so for every move of a slider
   */
  change(change, isStep = true) {
    this.query = { ...this.query, count: PAGE, ...change };
    for (const listener of this.listeners) listener(this.query, isStep);
  }

  /** @param {PartKind} kind @param {string} value @param {Partial<Part>} [more] */
  addPart(kind, value, more = {}) {
    const others = this.query.parts.filter(
      (part) => part.kind === "upload" || part.kind !== kind || part.value !== value,
    );
    this.change({ parts: [...others, newPart(kind, value, more)] });
  }

  /** @param {string} key @param {Partial<Part>} change @param {boolean} [isStep] */
  changePart(key, change, isStep = true) {
    const parts = this.query.parts.map((part) => (part.key === key ? { ...part, ...change } : part));
    this.change({ parts }, isStep);
  }

  /** @param {string} key */
  removePart(key) {
    this.change({ parts: this.query.parts.filter((part) => part.key !== key) });
  }
}

/** @param {PartKind} kind @param {string} value @param {Partial<Part>} [more] @returns {Part} */
export function newPart(kind, value, more = {}) {
  return {
    key: crypto.getRandomValues(new Uint32Array(2)).join("-"),
    kind,
    value,
    weight: 1,
    box: null,
    ...more,
  };
}
