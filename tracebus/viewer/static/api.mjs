// Asking the server: JSON, or an error that says what happened and what to do. And a hook that asks while a part is shown.

import { ROOT } from "./address.mjs";
import { useEffect, useRef, useState } from "./html.mjs";

/** What the server answered instead, in words for people. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The viewer does not answer. Is `tracebus ui` still running?";

async function answerOf(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const said = typeof body?.error === "string" ? body.error : `The viewer answered with status ${response.status}.`;
  throw new ApiError(said, response.status);
}

async function request(method, path, query, abort) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) if (one != null && one !== "") parameters.append(name, one);
  }
  const text = parameters.toString();
  const asked = fetch(`${ROOT}/api/${path}${text ? `?${text}` : ""}`, {
    method,
    signal: abort,
    headers: { accept: "application/json" },
  });
  return answerOf(
    await asked.catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(UNREACHABLE, 0);
    }),
  );
}

/** Return the JSON at `path` below /api/; a list in `query` is a parameter that comes several times. */
export const get = (path, query, abort) => request("GET", path, query, abort);
export const remove = (path) => request("DELETE", path);

/** Join the parts of a path, each escaped. */
export const pathOf = (...parts) => parts.map((part) => encodeURIComponent(part)).join("/");

/**
 * Ask for `path` while this part is shown, and again when it or its query changes.
 *
 * Returns `{data, error, reload}`. What was shown stays until the new answer is there; `reload` asks again, at most once
 * at a time and four times a second, however often it is called. A null path asks for nothing.
 */
export function useAnswer(path, query = {}) {
  const key = path === null ? null : `${path}?${JSON.stringify(query)}`;
  const [state, setState] = useState({ key, data: null, error: null });
  const reload = useRef(() => {});
  useEffect(() => {
    if (path === null) return undefined;
    const abort = new AbortController();
    let [isAsking, isWanted] = [false, false];
    const ask = async () => {
      isWanted = isAsking;
      if (isAsking) return;
      isAsking = true;
      try {
        const data = await get(path, query, abort.signal);
        if (!abort.signal.aborted) setState({ key, data, error: null });
      } catch (error) {
        if (!abort.signal.aborted) setState({ key, data: null, error });
      }
      await new Promise((resolve) => setTimeout(resolve, 250));
      isAsking = false;
      if (isWanted && !abort.signal.aborted) ask();
    };
    reload.current = ask;
    ask();
    return () => abort.abort();
  }, [key]);
  const isCurrent = state.key === key;
  return {
    data: isCurrent ? state.data : null,
    previous: state.data,
    error: isCurrent ? state.error : null,
    reload: () => reload.current(),
  };
}
