// Where we are: the address as a signal, and going elsewhere without loading the page again.

import { signal } from "./html.mjs";

/** What the viewer's own addresses begin with, where it is a part of another app; "" where it is not. */
export const ROOT = document.querySelector("meta[name=root]")?.content ?? "";

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a stray % is itself
  }
}

function read() {
  const { pathname, search } = window.location;
  const own = pathname.startsWith(ROOT) ? pathname.slice(ROOT.length) : pathname;
  return { path: own.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(search), href: pathname + search };
}

/** `{path, query, href}`: the parts of the path, decoded; the query as URLSearchParams. */
export const address = signal(read());

/** How many steps inside the viewer lie behind us. With the address, so that the browser's own buttons change both. */
const steps = () => window.history.state?.steps ?? 0;
/** Whether a step back is under way, which takes a moment: a second one could lead out of the viewer. */
let isLeaving = false;

/** Go to an address of the viewer. With `replace`, "back" does not come here again. */
export function go(href, { replace = false } = {}) {
  if (href === address.value.href) return;
  if (replace) window.history.replaceState({ steps: steps() }, "", href);
  else window.history.pushState({ steps: steps() + 1 }, "", href);
  address.value = read();
}

/** Go back to where we came from; to `otherwise` when this is where we came in, as "back" never leaves the viewer. */
export function back(otherwise) {
  if (isLeaving) return;
  isLeaving = steps() > 0;
  if (isLeaving) window.history.back();
  else go(otherwise);
}

/** Return this page's address with some of its query changed; null or "" takes a field away. */
export function withQuery(changes) {
  const { query } = address.value;
  const changed = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value == null || value === "") changed.delete(name);
    else changed.set(name, value);
  }
  const text = changed.toString();
  return window.location.pathname + (text ? `?${text}` : "");
}

/** Return an address from the parts of its path, each escaped, and a query. */
export function hrefOf(path, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value != null && value !== ""));
  const text = parameters.toString();
  return `${ROOT}/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export const traceHref = (trace) => hrefOf(["traces", trace]);
export const runHref = (trace, run, query) => hrefOf(["traces", trace, "runs", run], query);
export const sessionHref = (session) => hrefOf(["sessions", session]);

function follow(event) {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href^='/']");
  if (!link || link.target || link.hasAttribute("download")) return;
  if (!link.pathname.startsWith(`${ROOT}/`) || link.pathname.startsWith(`${ROOT}/static/`)) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

/** Follow links and the browser's own buttons without loading the page again. */
export function listen() {
  document.addEventListener("click", follow);
  window.addEventListener("popstate", () => {
    isLeaving = false;
    address.value = read();
  });
}
