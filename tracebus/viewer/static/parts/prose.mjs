// Text as people read it: code, lists, headings and emphasis of Markdown, lightly. What was left out of it is said, and what
// was searched for is marked.
//
// A text becomes elements made here with text inside, never HTML of its own; links and images stay the text they are, so
// that no answer of a model can make the browser ask another host.

import { html, useState } from "../html.mjs";
import { number } from "../figures.mjs";
import { firstHit, piecesOf } from "../hits.mjs";

/** A longer text is folded. */
const SHOWN_CHARACTERS = 6000;

const LEFT_OUT = /(\*{10}|…\[\d+ (?:characters|items)\]|…\[\w+ of \d+ items\])/;
const INLINE = /(`[^`\n]+`|\*\*[^*\n]+\*\*|(?<![\w*])\*(?=\S)[^*\n]+(?<=\S)\*(?![\w*]))/;
const BULLET = /^\s*(?:[-*•]|\d+[.)])\s+/;
const HEADING = /^#{1,6}\s+/;

const marked = (piece, index) => (index % 2 ? html`<mark class="hit">${piece}</mark>` : piece);

function said(piece, index) {
  if (index % 2 === 0) return piecesOf(piece).map(marked);
  if (piece.startsWith("*"))
    return html`<mark class="left-out" title="A secret was masked before it was stored">masked</mark>`;
  const of = piece.slice(2, -1).replace(/\d+/, (digits) => number(Number(digits)));
  return html`<mark class="left-out" title="The rest was not stored">… cut, of ${of}</mark>`;
}

/** The first that was masked or cut in a value, said; nothing where all of it is there. */
export function LeftOut({ value }) {
  const found = LEFT_OUT.exec(JSON.stringify(value) ?? "");
  return found && said(found[0], 1);
}

/** A text in which what was masked or cut is said, and what was searched for is marked. */
export const Plain = ({ text }) => String(text).split(LEFT_OUT).map(said);

/** A line with its code and its emphasis. */
export function inline(text) {
  return text.split(INLINE).map((piece, index) => {
    if (index % 2 === 0 || LEFT_OUT.test(piece)) return html`<${Plain} text=${piece} />`;
    if (piece.startsWith("`")) return html`<code><${Plain} text=${piece.slice(1, -1)} /></code>`;
    if (piece.startsWith("**")) return html`<strong><${Plain} text=${piece.slice(2, -2)} /></strong>`;
    return html`<em><${Plain} text=${piece.slice(1, -1)} /></em>`;
  });
}

function listOf(lines) {
  const items = lines.map((line) => html`<li>${inline(line.replace(BULLET, ""))}</li>`);
  return /^\s*\d/.test(lines[0]) ? html`<ol start=${parseInt(lines[0], 10)}>${items}</ol>` : html`<ul>${items}</ul>`;
}

function paragraphs(text) {
  const blocks = [];
  const add = (kind, line) => {
    const last = blocks.at(-1);
    if (last?.kind === kind && kind !== "heading") last.lines.push(line);
    else blocks.push({ kind, lines: [line] });
  };
  for (const line of text.split("\n")) {
    add(!line.trim() ? "gap" : BULLET.test(line) ? "list" : HEADING.test(line) ? "heading" : "text", line);
  }
  return blocks.map(({ kind, lines }) => {
    if (kind === "gap") return null;
    if (kind === "list") return listOf(lines);
    if (kind === "heading") return html`<p class="prose-heading">${inline(lines[0].replace(HEADING, ""))}</p>`;
    return html`<p>${inline(lines.join("\n"))}</p>`;
  });
}

function code(block) {
  const end = block.indexOf("\n");
  const text = end < 0 ? block : block.slice(end + 1).replace(/\n$/, "");
  return html`<pre tabindex="0"><code><${Plain} text=${text} /></code></pre>`;
}

/** A text with light formatting; whole, as it is, when `isRaw`. */
export function Prose({ text, isRaw = false }) {
  const whole = String(text);
  const [isWhole, setIsWhole] = useState(() => firstHit(whole) >= SHOWN_CHARACTERS);
  const isCut = !isWhole && whole.length > SHOWN_CHARACTERS * 1.2;
  const shown = isCut ? whole.slice(0, SHOWN_CHARACTERS) : whole;
  const more = html`<button class="faint" type="button" onClick=${() => setIsWhole(true)}>
    show all ${number(whole.length)} characters
  </button>`;
  const body = isRaw
    ? html`<pre tabindex="0"><${Plain} text=${shown} /></pre>`
    : shown.split("```").map((block, index) => (index % 2 ? code(block) : paragraphs(block)));
  return html`<div class="prose">${body}${isCut && more}</div>`;
}
