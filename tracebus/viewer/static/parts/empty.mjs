// What an empty store shows: the three lines that fill it.

import { html } from "../html.mjs";
import { CopyButton } from "./small.mjs";

const linesFor = (path) =>
  ["from tracebus import traced", "from tracebus.outputs.store import save", `save(${path ? JSON.stringify(path) : ""})`].join(
    "\n",
  );

export function Empty({ path, trouble }) {
  const lines = linesFor(path);
  return html`<div class="notice empty">
    <p class="notice-head">Nothing is here yet.</p>
    <p>
      ${"Put these lines at the top of your app and "}<code>@traced</code>${" on its functions. "}
      Their runs appear here as they happen.
    </p>
    <div class="code-box"><pre tabindex="0"><code>${lines}</code></pre><${CopyButton} text=${() => lines} what="lines" /></div>
    <p class="quiet">Or leave the app as it is: <code>tracebus run --save app.py</code></p>
    ${trouble && html`<p class="quiet">${trouble.message}</p>`}
  </div>`;
}
