// Small things that every view is made of: a status, a time, a link to a run, what to say where nothing is.

import { now } from "../clock.mjs";
import { Component, html } from "../html.mjs";
import { duration, elapsed, iso, moment, when } from "../figures.mjs";
import { glyphOf, hasFailed, kindWord, wordOf } from "../words.mjs";
import { notify } from "../notices.mjs";
import { inline } from "./prose.mjs";

export function Status({ status, isSpoken = true }) {
  const shade = hasFailed(status) ? "failed" : status === "open" ? "open" : "calm";
  return html`<span class="status ${shade}" title=${wordOf(status)}
    ><span aria-hidden="true">${glyphOf(status)}</span>${isSpoken && html`<span class="unseen">${wordOf(status)}</span>`}</span
  >`;
}

/** How long something took, or has taken so far. */
export function Lasting({ of }) {
  if (of.status !== "open") return html`${duration(of.duration_ns)}`;
  return html`<span class="running">${elapsed(now.value * 1e6 - of.started_ns)} …</span>`;
}

export function When({ ns }) {
  return html`<time datetime=${iso(ns)} title=${moment(ns)}>${when(ns, now.value)}</time>`;
}

export function Kind({ kind }) {
  return html`<span class="kind">${kindWord(kind)}</span>`;
}

const capitalised = (text) => text.replace(/^\p{Ll}/u, (letter) => letter.toUpperCase());

/** One thing that went wrong, or is not there, in words: what it is, and behind a colon why, or what to do. */
export function Trouble({ error, children }) {
  const [, what = "", more = ""] = /^(.+?)(?:: (.+))?$/su.exec(error.message) ?? [];
  return html`<div class="notice" role="alert">
    <p class="notice-head">${inline(capitalised(what))}</p>
    ${more && html`<p class="notice-more">${inline(capitalised(more))}</p>`}
    ${children}
  </div>`;
}

export function Loading() {
  return html`<p class="quiet loading" role="status">Loading …</p>`;
}

/** Names and what they are: a fact without a value is left out. */
export function Facts({ facts }) {
  const known = facts.filter(([, value]) => value != null && value !== "" && value !== false);
  return html`<dl class="facts">
    ${known.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** The headings of a table: those of its texts, then those of its numbers, which are at the right. */
export function Headings({ texts, numbers }) {
  return html`<thead>
    <tr>
      ${texts.map((text) => html`<th scope="col">${text}</th>`)}
      ${numbers.map((text) => html`<th scope="col" class="number">${text}</th>`)}
    </tr>
  </thead>`;
}

async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not a secure context: another host without TLS.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** Copy a text, and say so. */
export async function copy(text, what = "text") {
  await put(text);
  notify(`Copied the ${what}`);
}

export function CopyButton({ text, what }) {
  return html`<button class="faint copy" type="button" aria-label=${`Copy the ${what}`} onClick=${() => copy(text(), what)}>
    copy
  </button>`;
}

/** Draws its children; where drawing them fails, says so in their place, and the rest of the page goes on. */
export class Guarded extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  componentDidUpdate(before) {
    if (before.on !== this.props.on && this.state.error) this.setState({ error: null });
  }

  render({ children }, { error }) {
    if (!error) return children;
    console.error(error);
    return html`<div class="notice" role="alert">
      <p class="notice-head">This could not be drawn: ${String(error.message)}</p>
      <p class="quiet">What was recorded is not touched by that. The JSON tab shows it as it is.</p>
    </div>`;
  }
}
