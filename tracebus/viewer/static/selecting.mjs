// Going from row to row by key.

import { useKeys } from "./keys.mjs";

/** Return the place of the next item that is wanted, from the beginning again at the end; -1 when none is. */
export function nextPlace(items, index, isWanted) {
  for (let step = 1; step <= items.length; step += 1) {
    const place = (index + step) % items.length;
    if (isWanted(items[place])) return place;
  }
  return -1;
}

/** j, k and enter in a plain table: they move the focus from the link of one row to that of the next. */
export function useListKeys(table, more = {}) {
  const move = (by) => {
    const links = [...(table.current?.querySelectorAll("tbody th a, tbody th button") ?? [])];
    const here = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, here + by))]?.focus();
  };
  useKeys({ j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), ...more });
}
