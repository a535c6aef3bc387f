/** Calls of the HTTP API. Addresses are relative, so the page also works below a prefix. */

import { askForKey, keyHeaders } from "./key.js";

/** What the service answers when it does not do what was asked. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {{message: string, type?: string, param?: string | null, request_id?: string}} error
   */
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.type = error.type ?? "unknown";
    this.param = error.param ?? null;
    this.requestId = error.request_id ?? null;
  }
}

/**
 * Call the service; asks for a key when it wants one.
 * @param {string} path relative to the page
 * @param {{method?: string, body?: FormData | object, signal?: AbortSignal, accept?: number[]}} [options]
 *   `accept`: statuses beside 2xx that are answers too
 * @returns {Promise<Response>}
 * @throws {ApiError}
 */
export async function call(path, options = {}) {
  for (;;) {
    const answer = await send(path, options);
    if (answer.ok || options.accept?.includes(answer.status)) return answer;
    const error = await errorOf(answer);
    if (answer.status !== 401 || !(await askForKey(error.message))) throw error;
  }
}

/**
 * Call the service and read its JSON.
 * @param {string} path
 * @param {{method?: string, body?: FormData | object, signal?: AbortSignal, accept?: number[]}} [options]
 * @returns {Promise<any>}
 */
export async function callJson(path, options) {
  return (await call(path, options)).json();
}

/** @param {string} path @param {{method?: string, body?: any, signal?: AbortSignal}} options */
async function send(path, { method, body, signal }) {
  /** @type {Object<string, string>} */
  const headers = keyHeaders();
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body === undefined || isForm ? body : JSON.stringify(body),
      signal,
      credentials: "omit",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "the service cannot be reached; is it running?", type: "unreachable" });
  }
}

/** @param {Response} answer @returns {Promise<ApiError>} */
async function errorOf(answer) {
  try {
    return new ApiError(answer.status, (await answer.json()).error);
  } catch {
    return new ApiError(answer.status, { message: `the service answered ${answer.status}` });
  }
}
