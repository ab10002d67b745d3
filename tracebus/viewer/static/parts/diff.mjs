// A text that has changed, word by word: what was taken out, and what came in. The server finds the words.

import { html } from "../html.mjs";
import { Plain } from "./prose.mjs";

function Piece({ op, text }) {
  if (op === "-") return html`<del><${Plain} text=${text} /></del>`;
  if (op === "+") return html`<ins><${Plain} text=${text} /></ins>`;
  return html`<${Plain} text=${text} />`;
}

/** A word diff, `[[op, text], …]` with "=", "-" or "+" for op; nothing where both are without one. */
export function Diff({ title, diff }) {
  if (!diff?.length) return null;
  const text = html`<p class="diff-text">${diff.map(([op, text]) => html`<${Piece} op=${op} text=${text} />`)}</p>`;
  if (diff.every(([op]) => op === "=")) {
    return html`<details class="diff"><summary class="label">${title} · the same in both</summary>${text}</details>`;
  }
  return html`<section class="diff" aria-label=${title}><h3 class="label">${title}</h3>${text}</section>`;
}
