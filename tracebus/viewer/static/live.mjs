// What changes in the store while we look: one stream of server-sent events, given to whoever listens.
//
// A tab that nobody sees closes its stream and takes up where it left when it is seen again: a browser holds six
// connections to a server, and a viewer in the background should cost nothing.

import { ROOT } from "./address.mjs";
import { get } from "./api.mjs";
import { signal } from "./html.mjs";
import { announce } from "./notices.mjs";

/** "connecting", "live" or "offline". */
export const connection = signal("connecting");
export const isPaused = signal(false);
/** How many traces have changed since the pause began. */
export const missed = signal(0);
/** What the store holds, as of the start of the page; null until it is known. */
export const info = signal(null);
/** Why that is not known. */
export const trouble = signal(null);

const RETRY_MS = [1000, 2000, 5000, 15000];
const EVERYTHING = { traces: [], runs: [], removed: [], is_complete: false };

const listeners = new Set();
let cursor = null;
let source = null;
let tries = 0;
let retry = 0;
let changedWhilePaused = new Set();

/** Call `listener` with what has changed, a `Changes` of the reader; returns what ends that. */
export function onChanges(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(changes) {
  for (const listener of [...listeners]) listener(changes);
}

function hear(event) {
  const changes = JSON.parse(event.data);
  cursor = changes.cursor;
  if (!isPaused.value) {
    tell(changes);
    return;
  }
  for (const trace of changes.traces) changedWhilePaused.add(trace.trace_id);
  missed.value = changedWhilePaused.size;
}

function open() {
  clearTimeout(retry);
  if (source !== null || cursor === null || document.hidden) return;
  source = new EventSource(`${ROOT}/api/events?since=${cursor}`);
  source.addEventListener("changes", hear);
  source.addEventListener("open", () => {
    tries = 0;
    connection.value = "live";
  });
  source.addEventListener("error", () => {
    connection.value = "offline";
    if (source?.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    close();
    retry = setTimeout(open, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  });
}

function close() {
  source?.close();
  source = null;
}

/** Begin to listen. */
export function listen() {
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  return begin();
}

/** Ask what the store holds, and hear what comes after that. Tries again while there is no store or no server. */
async function begin() {
  try {
    info.value = await get("info");
    tries = 0;
    trouble.value = null;
    cursor = info.value.cursor;
    open();
  } catch (error) {
    connection.value = "offline";
    trouble.value = error;
    setTimeout(begin, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  }
}

/** Ask again what the store holds. */
export async function refreshInfo() {
  info.value = await get("info").catch(() => info.value);
}

/** Stop what is shown from changing, or let it catch up. */
export function togglePause() {
  isPaused.value = !isPaused.value;
  announce(isPaused.value ? "Paused: new runs are held back" : "Live");
  if (isPaused.value) return;
  changedWhilePaused = new Set();
  missed.value = 0;
  tell(EVERYTHING);
}
