// A conversation with a model, by role; and documents, as a retriever finds them.

import { html } from "../html.mjs";
import { count, number } from "../figures.mjs";
import { CopyButton } from "./small.mjs";
import { Plain, Prose } from "./prose.mjs";

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const onOneLine = (value, room) => {
  const text = value == null ? "" : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > room ? `${text.slice(0, room)}…` : text;
};

/** The arguments of a call as Python writes them: `city="Bern", guests=2`. */
function argumentsOf(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.entries(value)
    .map(([name, item]) => `${name}=${JSON.stringify(item)}`)
    .join(", ");
}

function Call({ call }) {
  return html`<details class="call">
    <summary>
      <span class="call-name">${call.name}</span>(
      <span class="call-args"><${Plain} text=${onOneLine(argumentsOf(call.args), 120)} /></span>)
    </summary>
    ${call.args != null && html`<pre tabindex="0" aria-label="Arguments"><${Plain} text=${asText(call.args)} /></pre>`}
  </details>
  ${
    call.result !== undefined &&
    html`<details class="call result">
    <summary><span aria-hidden="true">→ </span><span class="unseen">Result: </span>
      <${Plain} text=${onOneLine(call.result, 140)} /></summary>
    <pre tabindex="0" aria-label="Result"><${Plain} text=${asText(call.result)} /></pre>
  </details>`
  }`;
}

function Reasoning({ text }) {
  return html`<details class="reasoning">
    <summary>reasoning <span class="quiet">${number(text.length)} characters</span></summary>
    <${Prose} text=${text} />
  </details>`;
}

function Message({ message, isRaw }) {
  const { role, text, reasoning, calls, other, raw } = message;
  return html`<li class="message" data-role=${role}>
    <span class="role">${role}</span>
    <div class="said">
      ${
        isRaw
          ? html`<pre tabindex="0">${asText(raw)}</pre>`
          : html`${reasoning && html`<${Reasoning} text=${reasoning} />`}
            ${text && html`<${Prose} text=${text} />`}
            ${calls.map((call) => html`<${Call} call=${call} />`)}
            ${other.map((one) => html`<pre class="other" tabindex="0"><${Plain} text=${asText(one)} /></pre>`)}`
      }
    </div>
    <${CopyButton} text=${() => text || asText(raw)} what=${`text of ${role}`} />
  </li>`;
}

export function Messages({ messages, isRaw }) {
  return html`<ol class="messages" aria-label="Conversation">
    ${messages.map((message, index) => html`<${Message} key=${index} message=${message} isRaw=${isRaw} />`)}
  </ol>`;
}

/** Names with values of any kind, as a run's inputs are. */
export function Fields({ fields, label }) {
  return html`<ol class="messages" aria-label=${label}>
    ${fields.map(
      ([name, value]) => html`<li class="message field" key=${name}>
        <span class="role">${name}</span>
        <div class="said">
          ${
            typeof value === "string"
              ? html`<${Prose} text=${value} />`
              : typeof value === "object" && value !== null
                ? html`<pre tabindex="0"><${Plain} text=${asText(value)} /></pre>`
                : html`<p>${String(value)}</p>`
          }
        </div>
        <${CopyButton} text=${() => asText(value)} what=${name} />
      </li>`,
    )}
  </ol>`;
}

const score = (value) => (typeof value === "number" ? value.toFixed(Math.abs(value) < 10 ? 3 : 1) : String(value));

function Document({ document, place }) {
  return html`<li class="document">
    <header>
      <span class="document-place">${place}</span>
      ${document.source != null && html`<span class="document-source"><${Plain} text=${asText(document.source)} /></span>`}
      ${document.score != null && html`<span class="document-score" title="Score">${score(document.score)}</span>`}
    </header>
    <${Prose} text=${document.text} />
    ${
      document.rest.length > 0 &&
      html`<p class="quiet">${document.rest.map(([name, value]) => `${name} ${onOneLine(value, 80)}`).join(" · ")}</p>`
    }
  </li>`;
}

export function Documents({ documents }) {
  return html`<section aria-label="Documents">
    <h3 class="label">${count(documents.length, "document")}</h3>
    <ol class="documents">
      ${documents.map((document, index) => html`<${Document} key=${index} document=${document} place=${index + 1} />`)}
    </ol>
  </section>`;
}
