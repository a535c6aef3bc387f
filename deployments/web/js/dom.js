/** Making elements. Text goes in as text nodes only, so nothing of the catalog is ever read as HTML. */

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 */

/**
 * Make an element.
 * @param {string} tag
 * @param {Object<string, any>} [settings] attributes; functions under `on…` listen, `class` is a class name,
 *   true is an attribute without a value, and false, null and undefined are left out
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function h(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  element.append(...kept(children));
  return element;
}

/**
 * Replace what an element holds.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...kept(children));
}

/**
 * Find an element of the page by its id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  return document.getElementById(id);
}

/** @param {(Child | Child[])[]} children @returns {(Node | string)[]} */
function kept(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}
