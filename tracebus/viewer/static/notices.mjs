// Short words about what was just done: shown for a moment, and read out by a screen reader.

import { html, signal } from "./html.mjs";

const SHOWN_MS = 2500;
const notice = signal({ text: "", isShown: false });
let timer = 0;

/** Have `text` read out. */
export function announce(text) {
  notice.value = { text, isShown: false };
}

/** Show `text` for a moment, and have it read out. */
export function notify(text) {
  clearTimeout(timer);
  notice.value = { text, isShown: true };
  timer = setTimeout(() => {
    notice.value = { text, isShown: false };
  }, SHOWN_MS);
}

export function Notices() {
  const { text, isShown } = notice.value;
  return html`<div class=${isShown ? "toast" : "unseen"} role="status" aria-live="polite">${text}</div>`;
}
