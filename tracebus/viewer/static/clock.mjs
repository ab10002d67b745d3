// What time it is, for what is in flight and for "12 s ago". It stands still in a tab that nobody sees.

import { signal } from "./html.mjs";

/** Milliseconds since the epoch, to the second. */
export const now = signal(Date.now());

export function listen() {
  const tick = () => {
    if (!document.hidden) now.value = Date.now();
  };
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
}
