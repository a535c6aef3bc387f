/** The operations page: what serves, what is missing, what is at work, and the steps of an upgrade. */

import { callJson } from "./api.js";
import { byId, fill, h } from "./dom.js";
import { clearFailure, showFailure } from "./failure.js";
import { JobList } from "./jobs.js";
import { showUpgrade } from "./upgrade.js";
import { showVersions } from "./versions.js";

const BUSY_MS = 2_000;
const IDLE_MS = 10_000;

const jobs = new JobList(byId("jobs"), () => refresh());
/** @type {number | undefined} */
let waiting;
let known = "";

async function refresh() {
  clearTimeout(waiting);
  let isBusy = false;
  try {
    const [stats, models, latest, health] = await Promise.all([
      callJson("v1/stats"),
      callJson("v1/models"),
      callJson("v1/jobs?limit=20"),
      callJson("health/ready", { accept: [503] }),
    ]);
    const names = models.map((/** @type {any} */ each) => each.model);
    const versions = await Promise.all(
      names.map((/** @type {string} */ name) => callJson(`v1/models/${encodeURIComponent(name)}/versions`)),
    );
    showHealth(stats, health);
    showVersions(models, versions);
    if (known !== String(names)) showUpgrade(names, (job) => started(job));
    known = String(names);
    isBusy = jobs.show(latest);
    clearFailure();
    document.querySelector("main")?.classList.remove("waiting");
    const at = new Date().toLocaleTimeString();
    byId("status").textContent = isBusy ? "Jobs are at work." : "No job is at work.";
    byId("status").title = `as of ${at}`;
  } catch (error) {
    byId("status").textContent = "";
    showFailure(error, refresh);
  }
  // A page that nobody looks at asks for nothing.
  if (!document.hidden) waiting = setTimeout(refresh, isBusy ? BUSY_MS : IDLE_MS);
}

/** @param {any} job */
async function started(job) {
  await refresh();
  byId("status").textContent = `Started ${job.job_id}.`;
  byId("jobs").scrollIntoView({ block: "nearest" });
}

/** @param {any} stats @param {{ready: boolean, problems: Object<string, string>}} health */
function showHealth(stats, health) {
  const figure = (/** @type {any} */ value, /** @type {string} */ what) =>
    h("div", {}, h("strong", {}, value), what);
  fill(
    byId("health"),
    h(
      "div",
      { class: "figures" },
      h(
        "div",
        {},
        h("strong", { class: health.ready ? "good" : "bad" }, health.ready ? "ready" : "not ready"),
        "the service",
      ),
      figure(stats.products.toLocaleString(), "products"),
      figure(stats.images.toLocaleString(), "images"),
    ),
    Object.entries(health.problems).map(([name, problem]) =>
      h("p", { class: "problem" }, h("strong", {}, `${name}: `), problem),
    ),
  );
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) void refresh();
});
void refresh();
