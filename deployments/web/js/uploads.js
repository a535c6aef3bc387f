/** Images that come in: dropped, pasted, chosen, or by their address. */

import { byId, fill, h } from "./dom.js";

/** @typedef {import("./query.js").QueryStore} QueryStore */

/** @param {QueryStore} store */
export function takeUploads(store) {
  const drop = byId("drop");
  byId("files").addEventListener("change", (/** @type {any} */ event) => {
    addFiles(store, event.target.files);
    event.target.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addTransfer(store, event.dataTransfer);
  });
  document.addEventListener("paste", (event) => {
    const isTyping = event.target instanceof HTMLInputElement;
    if (event.clipboardData?.files.length || !isTyping) addTransfer(store, event.clipboardData);
  });
  byId("add-url").addEventListener("click", () => addTyped(store));
  byId("url").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    addTyped(store);
  });
}

/** @param {QueryStore} store @param {Iterable<File>} files */
function addFiles(store, files) {
  const isImage = (/** @type {File} */ { type }) => type.startsWith("image/");
  const others = [...files].filter((file) => !isImage(file)).map(({ name }) => name || "a file");
  const message = others.length > 0 && h("p", { class: "problem" }, `Not an image: ${others.join(", ")}`);
  fill(byId("refused"), message);
  for (const file of [...files].filter(isImage)) {
    store.addPart("upload", file.name || "pasted image", { file, preview: URL.createObjectURL(file) });
  }
}

/** An image of another page comes as its address. @param {QueryStore} store @param {DataTransfer | null} data */
function addTransfer(store, data) {
  if (data === null) return;
  if (data.files.length) addFiles(store, data.files);
  else addUrl(store, data.getData("text/uri-list") || data.getData("text/plain"));
}

/** @param {QueryStore} store */
function addTyped(store) {
  const input = byId("url");
  if (addUrl(store, input.value)) input.value = "";
  else input.reportValidity();
}

/** @param {QueryStore} store @param {string} text @returns {boolean} whether it was one */
function addUrl(store, text) {
  const [address = ""] = text.trim().split("\n");
  if (!/^https?:\/\/\S+$/i.test(address)) return false;
  store.addPart("url", address);
  return true;
}
