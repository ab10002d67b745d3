// Whether there is room for columns only under one another.

import { signal } from "./html.mjs";

const narrow = window.matchMedia("(max-width: 720px)");
export const isNarrow = signal(narrow.matches);
narrow.addEventListener("change", () => {
  isNarrow.value = narrow.matches;
});
