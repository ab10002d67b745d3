// Light or dark: as the system has it, until somebody chooses.

import { signal } from "./html.mjs";
import { notify } from "./notices.mjs";
import { recall, remember } from "./memory.mjs";

const system = window.matchMedia("(prefers-color-scheme: dark)");

/** "light" or "dark", for what is drawn on a canvas; everything else takes its colours from the stylesheet. */
export const theme = signal("light");

function apply() {
  const chosen = recall("theme", null);
  const isChosen = chosen === "light" || chosen === "dark";
  if (isChosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  theme.value = isChosen ? chosen : system.matches ? "dark" : "light";
}

/** Go to the other one; back to the system's choice where that is the same. */
export function toggleTheme() {
  const next = theme.value === "dark" ? "light" : "dark";
  remember("theme", (next === "dark") === system.matches ? null : next);
  apply();
  notify(`${next === "dark" ? "Dark" : "Light"} colours`);
}

export function listen() {
  apply();
  system.addEventListener("change", apply);
}

/** Return the colour that a custom property of the stylesheet stands for now. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
