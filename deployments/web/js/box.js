/** Drawing a box on an image: by pointer, or by four numbers. */

import { fill, h } from "./dom.js";

/** @typedef {import("./query.js").Box} Box */

const SMALLEST = 0.02;
/** @type {[keyof Box, string][]} */
const SIDES = [
  ["x", "Left"],
  ["y", "Top"],
  ["width", "Width"],
  ["height", "Height"],
];

/**
 * A frame that shows a box over the image beside it.
 * @param {Box | null} box
 * @returns {HTMLElement}
 */
export function frame(box) {
  const element = h("div", { class: "frame", "aria-hidden": "true" });
  place(element, box);
  return element;
}

/**
 * Ask for the part of an image that is meant.
 * @param {string} preview address of the image
 * @param {Box | null} box the box until now
 * @returns {Promise<Box | null | undefined>} null: the whole image; undefined: nothing changes
 */
export function askForBox(preview, box) {
  const drawing = { box: box ?? { x: 0.1, y: 0.1, width: 0.8, height: 0.8 } };
  const shown = frame(drawing.box);
  const inputs = SIDES.map(([side, label]) => ({ side, ...numberInput(side, label) }));
  const show = () => {
    place(shown, drawing.box);
    for (const { side, input } of inputs) input.value = Math.round(drawing.box[side] * 100);
  };
  for (const { side, input } of inputs) {
    input.addEventListener("change", () => {
      drawing.box = fit({ ...drawing.box, [side]: Number(input.value) / 100 });
      show();
    });
  }
  const canvas = h(
    "div",
    { class: "canvas" },
    h("img", { src: preview, alt: "The image to draw on", draggable: "false" }),
    shown,
  );
  drawOn(canvas, (drawn) => {
    drawing.box = drawn;
    show();
  });
  show();
  const dialog = h("dialog", { "aria-labelledby": "box-title" });
  fill(
    dialog,
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "box-title" }, "Which part of the image?"),
      h("p", { class: "hint" }, "Draw a box on the image, or give its place in percent."),
      canvas,
      h(
        "div",
        { class: "numbers" },
        inputs.map(({ label }) => label),
      ),
      h(
        "div",
        { class: "row" },
        h("button", { class: "primary", value: "box", autofocus: true }, "Use this part"),
        h("button", { value: "whole" }, "Whole image"),
        h("button", { value: "", formnovalidate: true }, "Cancel"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue === "box") resolve(drawing.box);
      else resolve(dialog.returnValue === "whole" ? null : undefined);
    });
  });
}

/** @param {string} side @param {string} text */
function numberInput(side, text) {
  const input = h("input", { id: `box-${side}`, type: "number", min: 0, max: 100, step: 1 });
  return { input, label: h("label", {}, `${text} `, input) };
}

/** @param {HTMLElement} canvas @param {(box: Box) => void} draw */
function drawOn(canvas, draw) {
  /** @type {{x: number, y: number} | null} */
  let start = null;
  canvas.addEventListener("pointerdown", (event) => {
    start = at(canvas, event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (start !== null) draw(between(start, at(canvas, event)));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      start = null;
    });
  }
}

/** @param {HTMLElement} canvas @param {PointerEvent} event */
function at(canvas, event) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return { x: clamp((event.clientX - left) / width), y: clamp((event.clientY - top) / height) };
}

/** @param {{x: number, y: number}} a @param {{x: number, y: number}} b @returns {Box} */
function between(a, b) {
  const [x, y] = [Math.min(a.x, b.x), Math.min(a.y, b.y)];
  return fit({ x, y, width: Math.abs(a.x - b.x), height: Math.abs(a.y - b.y) });
}

/** Keep a box within the image, and larger than nothing. @param {Box} box @returns {Box} */
function fit(box) {
  const width = Math.max(SMALLEST, clamp(box.width));
  const height = Math.max(SMALLEST, clamp(box.height));
  return { x: Math.min(clamp(box.x), 1 - width), y: Math.min(clamp(box.y), 1 - height), width, height };
}

/** @param {number} share */
function clamp(share) {
  return Math.min(1, Math.max(0, share || 0));
}

/** @param {HTMLElement} element @param {Box | null} box */
function place(element, box) {
  element.hidden = box === null;
  if (box === null) return;
  const { x, y, width, height } = box;
  const sides = { left: x, top: y, width, height };
  for (const [side, share] of Object.entries(sides)) element.style.setProperty(side, `${share * 100}%`);
}
