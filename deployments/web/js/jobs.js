/** The latest jobs, with their progress; kept up to date in place. */

import { call, callJson } from "./api.js";
import { fill, h } from "./dom.js";
import { showFailure } from "./failure.js";
import { outcome } from "./outcome.js";
import { AT_WORK, argumentText, progress, when } from "./progress.js";
import { openReport } from "./report.js";

/** Shows jobs; each keeps its element, so that what is unfolded or has the focus stays so. */
export class JobList {
  /** @param {HTMLElement} place @param {() => void} onchange when a job was canceled */
  constructor(place, onchange) {
    this.place = place;
    this.onchange = onchange;
    /** @type {Map<string, {element: HTMLElement, shown: string}>} */
    this.known = new Map();
  }

  /** @param {any[]} jobs newest first @returns {boolean} whether one is at work */
  show(jobs) {
    if (jobs.length === 0) fill(this.place, h("p", { class: "hint" }, "There has been no job yet."));
    else if (this.known.size === 0) fill(this.place);
    for (const [index, job] of jobs.entries()) {
      const element = this.element(job);
      if (this.place.children[index] !== element)
        this.place.insertBefore(element, this.place.children[index] ?? null);
    }
    for (const extra of [...this.place.children].slice(Math.max(1, jobs.length))) extra.remove();
    return jobs.some(({ state }) => AT_WORK.includes(state));
  }

  /** @param {any} job @returns {HTMLElement} */
  element(job) {
    const held = this.known.get(job.job_id) ?? {
      element: h("article", { class: "job", "aria-label": job.job_id }),
      shown: "",
    };
    const now = JSON.stringify([job.state, job.progress, job.error]);
    if (held.shown !== now) {
      const open = [...held.element.querySelectorAll("details[open]")].map((each) =>
        each.getAttribute("data-kind"),
      );
      fill(held.element, this.rows(job));
      for (const each of held.element.querySelectorAll("details"))
        each.open = open.includes(each.getAttribute("data-kind"));
      held.shown = now;
    }
    this.known.set(job.job_id, held);
    return held.element;
  }

  /** @param {any} job */
  rows(job) {
    const tone =
      { succeeded: "good", failed: "bad", interrupted: "bad" }[/** @type {string} */ (job.state)] ?? "";
    const isReport = job.result?.files?.["report.html"];
    const report = () => openReport(job.job_id).catch(showFailure);
    return [
      h(
        "header",
        {},
        h("h3", {}, job.kind),
        h("span", { class: `state ${tone}` }, job.state),
        Object.keys(job.args).length > 0 && h("span", {}, argumentText(job.args)),
        h("span", { class: "hint" }, h("code", {}, job.job_id), ` · ${when(job)}`),
      ),
      progress(job),
      job.error && h("p", { class: "problem" }, job.error),
      ...outcome(job),
      isReport && h("div", {}, h("button", { type: "button", onclick: report }, "Evaluation report")),
      AT_WORK.includes(job.state) && h("div", {}, this.cancelButton(job.job_id)),
      h("div", { class: "folds" }, logs(job.job_id), job.result && inFull(job.result)),
    ];
  }

  /** @param {string} id */
  cancelButton(id) {
    const onclick = () => this.cancel(id);
    return h("button", { type: "button", "aria-label": `Cancel ${id}`, onclick }, "Cancel");
  }

  /** @param {string} id */
  async cancel(id) {
    try {
      await call(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch (error) {
      showFailure(error);
    }
    this.onchange();
  }
}

/** @param {any} result */
function inFull(result) {
  const text = h("pre", { tabindex: "0" }, JSON.stringify(result, null, 1));
  return h("details", { "data-kind": "result" }, h("summary", {}, "Result in full"), text);
}

/** @param {string} id */
function logs(id) {
  const text = h("pre", { tabindex: "0" }, "…");
  const load = async (/** @type {any} */ event) => {
    if (!event.target.open) return;
    try {
      text.textContent =
        (await (await call(`v1/jobs/${encodeURIComponent(id)}/logs?lines=200`)).text()) || "nothing yet";
    } catch (error) {
      text.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  return h("details", { "data-kind": "logs", ontoggle: load }, h("summary", {}, "Log"), text);
}

/** @param {string} kind @param {object} args @returns {Promise<any>} the job */
export function submit(kind, args) {
  return callJson("v1/jobs", { body: { kind, args } });
}
