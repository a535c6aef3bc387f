/** Keeps the query in the address, and follows "back" and "forward". */

import { fromAddress, toAddress } from "./address.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */
/** @typedef {import("./query.js").Part} Part */

/** @param {QueryStore} store */
export function keepHistory(store) {
  /** @type {Map<string, Part>} */
  const uploads = new Map();
  let follows = false;
  const stateOf = () => ({
    uploads: store.query.parts
      .filter((part) => part.file)
      .map(({ key, weight, box }) => ({ key, weight, box })),
  });
  store.listen((query, isStep) => {
    for (const part of query.parts) if (part.file) uploads.set(part.key, part);
    if (follows) return;
    const text = String(toAddress(query));
    const address = text ? `?${text}` : location.pathname;
    if (isStep && address !== location.search) history.pushState(stateOf(), "", address);
    else history.replaceState(stateOf(), "", address);
  });
  addEventListener("popstate", (event) => {
    const { query } = fromAddress(new URLSearchParams(location.search));
    for (const { key, weight, box } of event.state?.uploads ?? []) {
      const held = uploads.get(key);
      if (held) query.parts.push({ ...held, weight, box });
    }
    follows = true;
    store.change(query);
    follows = false;
  });
}
