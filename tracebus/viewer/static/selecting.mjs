// j, k and enter in a plain table: they move the focus from the link of one row to that of the next.

import { useKeys } from "./keys.mjs";

export function useListKeys(table, more = {}) {
  const move = (by) => {
    const links = [...(table.current?.querySelectorAll("tbody th a, tbody th button") ?? [])];
    const here = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, here + by))]?.focus();
  };
  useKeys({ j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), ...more });
}
