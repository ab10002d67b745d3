// Where the words that were searched for stand in a text. The address says which: its `q`, as the search box wrote it.
//
// A word is what the store's index takes for one (https://sqlite.org/fts5.html, "unicode61"): letters and digits, in any case
// and with any accents. Words in quotes, and those that a sign joins as in `new_token`, stand next to one another.

import { address } from "./address.mjs";
import { computed } from "./html.mjs";

const WORD = /[\p{L}\p{N}\p{M}\p{Co}]+/gu;
const [BEFORE, BETWEEN, BEHIND] = ["(?<![\\p{L}\\p{N}])", "[^\\p{L}\\p{N}]+", "(?![\\p{L}\\p{N}])"];

/** A character as the index keeps it. */
const plain = (character) => character.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/** The words of a text as the index keeps them, and for each of its characters which one of the text it is from. */
function folded(text) {
  if (/^[\x20-\x7e\s]*$/.test(text)) return { folds: text.toLowerCase(), placeOf: (index) => index };
  const places = [];
  let [folds, place] = ["", 0];
  for (const character of text) {
    const fold = plain(character);
    for (let unit = 0; unit < fold.length; unit += 1) places.push(place);
    folds += fold;
    place += character.length;
  }
  return { folds, placeOf: (index) => places[index] ?? text.length };
}

/** What a search looks for: each word, and each part in quotes as it stands. */
function phrasesOf(search) {
  return search.split('"').flatMap((part, index) => (index % 2 ? [part] : part.split(/\s+/)));
}

function patternOf(search) {
  const phrases = phrasesOf(search).flatMap((phrase) => {
    const words = (phrase.match(WORD) ?? []).map((word) => [...word].map(plain).join("")).filter(Boolean);
    return words.length ? [BEFORE + words.join(BETWEEN) + (phrase.endsWith("*") ? "[\\p{L}\\p{N}]*" : BEHIND)] : [];
  });
  return phrases.length ? new RegExp(phrases.join("|"), "gu") : null;
}

const pattern = computed(() => patternOf(address.value.query.get("q") ?? ""));

/** Return a text in pieces, of which every second one was searched for: `["How do I ", "subscribe", " …"]`. */
export function piecesOf(text) {
  if (pattern.value === null) return [text];
  const { folds, placeOf } = folded(text);
  const pieces = [];
  let done = 0;
  for (const { 0: hit, index } of folds.matchAll(pattern.value)) {
    const [from, to] = [placeOf(index), placeOf(index + hit.length)];
    pieces.push(text.slice(done, from), text.slice(from, to));
    done = to;
  }
  return [...pieces, text.slice(done)];
}

/** Return where in a text the first of what was searched for begins; -1 where nothing of it is there. */
export function firstHit(text) {
  const [before, hit] = piecesOf(text);
  return hit === undefined ? -1 : before.length;
}
