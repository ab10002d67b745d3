// Deleting a trace, after it was asked whether that is meant.

import { go, hrefOf } from "../address.mjs";
import { pathOf, remove } from "../api.mjs";
import { count } from "../figures.mjs";
import { html, useEffect, useRef, useState } from "../html.mjs";
import { notify } from "../notices.mjs";
import { Trouble } from "./small.mjs";

export function DeleteDialog({ trace, onClose }) {
  const dialog = useRef(null);
  const [error, setError] = useState(null);
  useEffect(() => dialog.current.showModal(), []);
  const confirm = async () => {
    try {
      await remove(pathOf("traces", trace.trace_id));
      notify("Deleted the trace");
      go(hrefOf([]), { replace: true });
    } catch (failed) {
      setError(failed);
    }
  };
  return html`<dialog ref=${dialog} aria-labelledby="delete-title" onClose=${onClose}>
    <h2 id="delete-title">Delete this trace?</h2>
    <p>
      ${trace.name ?? "It"} and its ${count(trace.runs, "run")} are taken out of the store.
      ${" Nothing of them stays in the file."}
    </p>
    ${error && html`<${Trouble} error=${error} />`}
    <p class="dialog-line">
      <button type="button" class="button" autofocus onClick=${() => dialog.current.close()}>Keep it</button>
      <button type="button" class="button danger" onClick=${confirm}>Delete</button>
    </p>
  </dialog>`;
}
