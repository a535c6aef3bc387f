/** The page that an evaluation has written. */

import { call } from "./api.js";
import { h } from "./dom.js";
import { key } from "./key.js";

/**
 * Open a report; where a key is needed, which a new tab would not send, it is downloaded.
 * @param {string} jobId
 */
export async function openReport(jobId) {
  const address = `v1/jobs/${encodeURIComponent(jobId)}/report`;
  if (!key()) {
    window.open(address, "_blank", "noopener");
    return;
  }
  const local = URL.createObjectURL(await (await call(address)).blob());
  h("a", { href: local, download: `${jobId}.html` }).click();
  setTimeout(() => URL.revokeObjectURL(local), 60_000);
}
