// An error: its stack first, the failing frame open, then what caused it.

import { html } from "../html.mjs";
import { CopyButton } from "./small.mjs";
import { Plain } from "./prose.mjs";

const OURS = /[\\/]tracebus[\\/](?:decorator|tracing|streams|awaiting|calls|dispatch|loops|ownloop)\.py$/;
const nameOf = (path) => path.split(/[\\/]/).pop();
const folderOf = (path) => path.slice(0, path.length - nameOf(path).length);

function Frame({ frame, isOpen }) {
  const file = String(frame.file ?? "?");
  const place = `${file}:${frame.line ?? "?"}`;
  return html`<li>
    <details class="frame" open=${isOpen}>
      <summary>
        <span class="frame-function">${String(frame.function ?? "?")}</span>
        <span class="frame-place">${nameOf(file)}:${String(frame.line ?? "?")}</span>
      </summary>
      <p class="frame-file">
        <span class="quiet">${folderOf(file)}</span>${nameOf(file)}, line ${String(frame.line ?? "?")}
        <${CopyButton} text=${() => place} what="place" />
      </p>
    </details>
  </li>`;
}

function textOf({ type, message, frames, causes }) {
  const said = (error) => [error.type, error.message].filter(Boolean).join(": ");
  const lines = frames.map((frame) => `  File "${frame.file}", line ${frame.line}, in ${frame.function}`);
  return [...lines, said({ type, message }), ...causes.map((cause) => `caused by ${said(cause)}`)].join("\n");
}

export function Failure({ error }) {
  // The innermost frame is where it failed. Those of tracebus itself, through which every call goes, tell nothing.
  const frames = error.frames.filter((frame) => !OURS.test(String(frame.file ?? ""))).reverse();
  return html`<section class="failure" aria-label="Error">
    <header>
      <h3><span class="failed" aria-hidden="true">✗ </span>${error.type || "Error"}</h3>
      <${CopyButton} text=${() => textOf(error)} what="stack" />
    </header>
    ${error.message && html`<p class="failure-message"><${Plain} text=${error.message} /></p>`}
    ${
      frames.length > 0 &&
      html`<ol class="frames" aria-label="Stack, the failing frame first">
      ${frames.map((frame, index) => html`<${Frame} key=${index} frame=${frame} isOpen=${index === 0} />`)}
    </ol>`
    }
    ${error.causes.map(
      (cause) => html`<p class="failure-cause">
        <span class="quiet">caused by </span><strong>${String(cause.type ?? "")}</strong> <${Plain}
          text=${String(cause.message ?? "")} />
      </p>`,
    )}
  </section>`;
}
