/** A product's attributes as text, those that the shop wants shown first. */

import { callJson } from "./api.js";

/** @typedef {Object<string, any>} Attributes */

const SHOWN = 3;
/** Attributes of a price, which has a place of its own. */
const PRICE = ["price", "currency"];

/** @type {{attributes: string[] | null, currency: string | null}} */
let settings = { attributes: null, currency: null };

/** Ask the service what the shop wants shown; until it answers, the first attributes are. */
export async function readSettings() {
  try {
    settings = await callJson("web/settings.json");
  } catch {
    // The search that follows says why the service cannot be reached.
  }
}

/** The attributes below a title, in one line. @param {Attributes} attributes */
export function summary(attributes) {
  const names = settings.attributes ?? Object.keys(attributes).filter((name) => !PRICE.includes(name));
  const known = names.filter((name) => (attributes[name] ?? "") !== "");
  return (settings.attributes ? known : known.slice(0, SHOWN))
    .map((name) => labeled(name, attributes[name]))
    .join(" · ");
}

/** A value that says nothing without its name, with it. @param {string} name @param {any} value */
function labeled(name, value) {
  return typeof value === "string" || Array.isArray(value) ? text(value) : `${label(name)}: ${text(value)}`;
}

/** @param {string} name */
export function label(name) {
  return name.replaceAll("_", " ");
}

/** @param {any} value */
export function text(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The price with its currency; a text that is no number, such as "12 EUR", stays as it is. @param {Attributes} attributes */
export function money({ price, currency = settings.currency }) {
  const amount = typeof price === "string" && price.trim() ? Number(price) : price;
  if (typeof amount !== "number" || Number.isNaN(amount)) return text(price);
  if (/^[a-z]{3}$/i.test(currency)) return amount.toLocaleString(undefined, { style: "currency", currency });
  const minimumFractionDigits = Number.isInteger(amount) ? 0 : 2;
  const figures = amount.toLocaleString(undefined, { minimumFractionDigits, maximumFractionDigits: 2 });
  return currency ? `${figures} ${text(currency)}` : figures;
}
