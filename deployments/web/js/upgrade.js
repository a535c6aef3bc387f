/** The steps of an upgrade, each a job. */

import { confirm } from "./confirm.js";
import { byId, fill, h } from "./dom.js";
import { clearFailure, showFailure } from "./failure.js";
import { submit } from "./jobs.js";

/** @typedef {import("./confirm.js").Option} Option */
/** @typedef {{kind: string, label: string, what: string, options?: Option[],
 *   of: "candidate" | "model"}} Step with `options` it asks first */

/** Names, labels, and values that are usual. @type {[string, string, string[]][]} */
const CANDIDATE = [
  ["family", "Family", ["openclip", "dinov2", "blip2", "timm"]],
  ["checkpoint", "Checkpoint", []],
  ["pretrained", "Pretrained tag (openclip)", []],
  ["revision", "Revision", []],
  ["precision", "Precision", ["fp32", "bf16", "fp16", "int8"]],
  ["int8_threshold", "Threshold of int8", []],
  ["pooling", "Pooling", ["cls", "mean", "cls+mean"]],
  ["draft", "Decode JPEG at a reduced size", ["true", "false"]],
  ["decode_on_gpu", "Decode JPEG on the GPU", ["true", "false"]],
];

/**
 * Values of the fields that are no text. What is none stays as it is, and the service refuses it.
 * @type {Object<string, (text: string) => string | number | boolean>}
 */
const PARSE = {
  int8_threshold: (text) => (Number.isFinite(Number(text)) ? Number(text) : text),
  draft: trueOrFalse,
  decode_on_gpu: trueOrFalse,
};

/** @param {string} text @returns {string | boolean} */
function trueOrFalse(text) {
  return ["true", "false"].includes(text) ? text === "true" : text;
}

/** @type {Step[]} */
const STEPS = [
  {
    kind: "plan",
    label: "Plan",
    what: "say what would change and what it would cost; writes nothing",
    of: "candidate",
  },
  { kind: "build", label: "Build", what: "fill the candidate's own collection", of: "candidate" },
  {
    kind: "evaluate",
    label: "Evaluate",
    what: "compare the candidate with the live version",
    of: "candidate",
  },
  {
    kind: "promote",
    label: "Promote",
    what: "let the candidate take over, if the quality gate passes it",
    of: "candidate",
    options: [{ name: "force", label: "Promote whatever the quality gate says, because", type: "text" }],
  },
  {
    kind: "rollback",
    label: "Roll back",
    what: "go back to the version before",
    of: "model",
    options: [{ name: "fingerprint", label: "Or to this fingerprint", type: "text" }],
  },
  {
    kind: "prune",
    label: "Prune",
    what: "drop the collections of versions that nobody needs",
    of: "model",
    options: [
      { name: "keep", label: "Earlier versions to keep", type: "number", value: 1 },
      { name: "dry_run", label: "Only say what would be dropped", type: "checkbox" },
    ],
  },
  {
    kind: "verify",
    label: "Verify",
    what: "compare catalog, ledger and Milvus",
    of: "model",
    options: [{ name: "repair", label: "Repair what can be repaired", type: "checkbox" }],
  },
];

/** @param {string[]} models @param {(job: any) => void} started */
export function showUpgrade(models, started) {
  const form = byId("upgrade");
  const field = (/** @type {string} */ name, /** @type {string} */ label, /** @type {any} */ input) =>
    h("div", { class: "field" }, h("label", { for: `candidate-${name}` }, label), input);
  const model = h(
    "select",
    { id: "candidate-model", name: "model" },
    models.map((each) => h("option", {}, each)),
  );
  const inputs = CANDIDATE.map(([name, label, usual]) =>
    field(name, label, [
      h("input", { id: `candidate-${name}`, name, autocomplete: "off", list: `usual-${name}` }),
      usual.length > 0 &&
        h(
          "datalist",
          { id: `usual-${name}` },
          usual.map((value) => h("option", { value })),
        ),
    ]),
  );
  const run = async (/** @type {Step} */ step, /** @type {HTMLButtonElement} */ button) => {
    const { label, what, options } = step;
    const chosen = options ? await confirm(`${label} ${model.value}?`, what, options) : {};
    if (chosen === null) return;
    button.disabled = true;
    try {
      const job = await submit(step.kind, { ...args(step, new FormData(form)), ...chosen });
      clearFailure();
      started(job);
    } catch (error) {
      showFailure(error);
    } finally {
      button.disabled = false;
    }
  };
  fill(
    form,
    h(
      "p",
      { class: "hint" },
      "The candidate is what differs from the configured encoder; fields that are left empty stay as they are.",
    ),
    h("div", { class: "upgrade" }, field("model", "Model", model), inputs),
    h(
      "ol",
      { class: "steps" },
      STEPS.map((step) => {
        const button = h("button", { type: "button", onclick: () => run(step, button) }, step.label);
        return h("li", {}, button, h("span", { class: "hint" }, step.what));
      }),
    ),
  );
  form.onsubmit = (/** @type {Event} */ event) => event.preventDefault();
}

/** @param {Step} step @param {FormData} data */
function args({ of }, data) {
  const model = data.get("model");
  if (of === "model") return { model };
  /** @type {Object<string, any>} */
  const given = { model };
  for (const [name] of CANDIDATE) {
    const text = String(data.get(name) ?? "").trim();
    if (text) given[name] = PARSE[name]?.(text) ?? text;
  }
  return given;
}
