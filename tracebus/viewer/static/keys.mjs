// The keyboard: what each key does, in the order of the help, and which part of the page hears it.
//
// A part says what its keys do while it is shown. The part that was shown last is asked first, and the page itself last.

import { useLayoutEffect, useRef } from "./html.mjs";

/** What the help shows: keys, and what they do. */
export const HELP = [
  ["/", "search"],
  ["j k", "next, previous row or run"],
  ["enter", "open"],
  ["esc", "back"],
  ["h l", "fold, unfold"],
  ["e", "next failing run"],
  ["1 … 4", "tab of the detail"],
  ["r", "replay what was streamed"],
  ["c", "copy link"],
  ["x", "mark for compare"],
  ["p", "pause live"],
  ["g then t s a d", "go to traces, sessions, statistics, losses"],
  ["t", "light or dark"],
  ["?", "all keys"],
];

const layers = [];
let isGoing = false;

const isText = ({ tagName, type, isContentEditable }) =>
  isContentEditable ||
  tagName === "TEXTAREA" ||
  tagName === "SELECT" ||
  (tagName === "INPUT" && !["checkbox", "radio", "range", "button"].includes(type));

/** Keys that mean something to the element that has the focus are left to it. */
function isTaken(event) {
  const { target, key } = event;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return true;
  if (!(target instanceof Element)) return false;
  if (target.closest("dialog[open]")) return true;
  if (isText(target)) return key !== "Escape";
  if (key === "Enter" || key === " ") return target.closest("a, button, summary, [role=tab], [role=separator]") !== null;
  if (key.startsWith("Arrow") || key === "Home" || key === "End") {
    return target.closest("input, [role=tab], [role=separator], .detail-body") !== null;
  }
  return false;
}

function press(event) {
  if (isTaken(event)) return;
  const name = isGoing ? `g ${event.key}` : event.key;
  isGoing = event.key === "g" && !isGoing;
  for (const layer of [...layers].reverse()) {
    const action = layer.current[name];
    if (action && action(event) !== false) {
      event.preventDefault();
      return;
    }
  }
}

/**
 * Hear these keys while the part is shown: an object of functions by key. One that returns false passes the key on.
 *
 * From the moment on when the part can be seen: who types at once is heard, too. `isPage` is for what is around all parts.
 */
export function useKeys(actions, { isPage = false } = {}) {
  const layer = useRef(actions);
  layer.current = actions;
  useLayoutEffect(() => {
    if (isPage) layers.unshift(layer);
    else layers.push(layer);
    return () => layers.splice(layers.indexOf(layer), 1);
  }, []);
}

export function listen() {
  document.addEventListener("keydown", press);
}
