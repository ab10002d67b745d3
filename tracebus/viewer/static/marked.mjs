// The traces that are marked to be compared: at most two, the latest two. Kept while the tab is open.

import { go, hrefOf } from "./address.mjs";
import { signal } from "./html.mjs";
import { notify } from "./notices.mjs";

/** `[{trace_id, name}]` */
export const marked = signal([]);

export const isMarked = (trace) => marked.value.some(({ trace_id }) => trace_id === trace);
export const compareHref = (left, right) => hrefOf(["compare"], { left, right });

/** Mark a trace, or unmark it; with the second one, compare the two. */
export function toggleMark({ trace_id, name }) {
  if (isMarked(trace_id)) {
    marked.value = marked.value.filter((one) => one.trace_id !== trace_id);
    notify("No longer marked");
    return;
  }
  marked.value = [...marked.value, { trace_id, name }].slice(-2);
  if (marked.value.length < 2) {
    notify("Marked: mark another trace to compare");
    return;
  }
  const [left, right] = marked.value;
  marked.value = [];
  go(compareHref(left.trace_id, right.trace_id));
}
