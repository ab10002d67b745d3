// A JSON value as a tree that folds.

import { html, useState } from "../html.mjs";
import { count, number } from "../figures.mjs";
import { CopyButton } from "./small.mjs";
import { Plain } from "./prose.mjs";

const OPEN_TO = 3;
const ITEMS = 100;
const CHARACTERS = 2000;

function Text({ text }) {
  const [isWhole, setIsWhole] = useState(false);
  if (isWhole || text.length <= CHARACTERS) return html`<span class="json-text">"<${Plain} text=${text} />"</span>`;
  return html`<span class="json-text">"<${Plain} text=${text.slice(0, CHARACTERS)} /></span>
    <button class="faint" type="button" onClick=${() => setIsWhole(true)}>all ${number(text.length)} characters</button>`;
}

function Leaf({ value }) {
  return typeof value === "string" ? html`<${Text} text=${value} />` : html`<span class="json-other">${String(value)}</span>`;
}

function Branch({ name, value, depth }) {
  const [isOpen, setIsOpen] = useState(depth < OPEN_TO);
  const [shown, setShown] = useState(ITEMS);
  const isList = Array.isArray(value);
  const entries = isList ? value.map((item, index) => [index, item]) : Object.entries(value);
  const size = count(entries.length, isList ? "item" : "field");
  return html`<details open=${isOpen} onToggle=${(event) => setIsOpen(event.currentTarget.open)}>
    <summary>${name}<span class="quiet">${isList ? `[ ${size} ]` : `{ ${size} }`}</span></summary>
    ${
      isOpen &&
      entries.slice(0, shown).map(([key, item]) => html`<${Node} key=${key} name=${key} value=${item} depth=${depth + 1} />`)
    }
    ${
      isOpen &&
      entries.length > shown &&
      html`<button class="faint" type="button" onClick=${() => setShown(shown + 10 * ITEMS)}>
      ${number(entries.length - shown)} more
    </button>`
    }
  </details>`;
}

function Node({ name, value, depth }) {
  const label = html`<span class="json-name">${String(name)}</span> `;
  if (value !== null && typeof value === "object") return html`<${Branch} name=${label} value=${value} depth=${depth} />`;
  return html`<div class="json-leaf">${label}<${Leaf} value=${value} /></div>`;
}

/** A value under a heading, as a tree or, when `isRaw`, as text; with a button that copies it. */
export function Json({ title, value, isRaw }) {
  const text = () => JSON.stringify(value, null, 2);
  return html`<section class="json" aria-label=${title}>
    <header><h3>${title}</h3><${CopyButton} text=${text} what=${`JSON of ${title}`} /></header>
    ${
      isRaw
        ? html`<pre tabindex="0">${text()}</pre>`
        : html`<div class="json-tree"><${Node} name="" value=${value} depth=${0} /></div>`
    }
  </section>`;
}
