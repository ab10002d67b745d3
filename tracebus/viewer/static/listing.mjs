// A list that comes in pages and changes while it is looked at: traces, or the runs that a search finds, by when they began,
// the latest on top.
//
// It is kept when another view is shown, so that "back" leads to the same place in it.

import { get } from "./api.mjs";
import { signal } from "./html.mjs";

const PAGE = 100;
/** The first page is read again at most this often, in milliseconds. */
const REREAD_MS = 500;

export class Listing {
  constructor(path, query, idOf) {
    this.path = path;
    this.query = query;
    this.idOf = idOf;
    this.items = signal(null);
    this.error = signal(null);
    this.after = null;
    this.isReading = false;
    /** Where the items are that came in last, in ascending order. */
    this.arrived = signal([]);
    this.selected = signal(null);
    this.top = 0;
    this.timer = 0;
  }

  async #ask(after) {
    return get(this.path, { ...this.query, limit: PAGE, after });
  }

  /** Read the first page; what is known already stays, and what is new comes on top. */
  async refresh() {
    try {
      const page = await this.#ask(null);
      this.error.value = null;
      if (this.items.value === null || !this.#merge(page.items)) this.#replace(page);
    } catch (error) {
      this.error.value = error;
    }
  }

  #replace(page) {
    this.items.value = page.items;
    this.after = page.after;
  }

  /** Put a first page on top of what is known; false when the two do not meet. */
  #merge(items) {
    const known = this.items.value;
    const ids = new Set(items.map(this.idOf));
    const begin = known.findIndex((item) => ids.has(this.idOf(item)));
    if (begin < 0 || items.length < PAGE) return false;
    const last = this.idOf(items.at(-1));
    const rest = known.slice(known.findIndex((item) => this.idOf(item) === last) + 1);
    this.#show([...items, ...rest]);
    return true;
  }

  /** Show these instead, and say which are new; returns how many. */
  #show(items) {
    const known = new Set(this.items.value.map(this.idOf));
    const arrived = items.flatMap((item, index) => (known.has(this.idOf(item)) ? [] : [index]));
    this.arrived.value = arrived;
    this.items.value = items;
    return arrived.length;
  }

  /** Read the first page again, soon. */
  refreshSoon() {
    if (this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.refresh();
    }, REREAD_MS);
  }

  /** Read the next page. */
  async more() {
    if (this.isReading || this.after === null || this.items.value === null) return;
    this.isReading = true;
    try {
      const page = await this.#ask(this.after);
      const known = new Set(this.items.value.map(this.idOf));
      this.items.value = [...this.items.value, ...page.items.filter((item) => !known.has(this.idOf(item)))];
      this.after = page.after;
    } catch (error) {
      this.error.value = error;
    } finally {
      this.isReading = false;
    }
  }

  /**
   * Take over items that have changed; returns how many of them are new.
   *
   * Not all of those belong on top: another process may write later what has begun earlier. What belongs behind the last
   * item comes with the next page, if there is one.
   */
  apply(changed, removed) {
    if (this.items.value === null) return 0;
    const now = new Map(changed.map((item) => [this.idOf(item), item]));
    const gone = new Set(removed);
    const items = this.items.value.map((item) => now.get(this.idOf(item)) ?? item);
    for (const item of this.items.value) now.delete(this.idOf(item));
    for (const item of now.values()) {
      const place = items.findIndex((other) => other.started_ns <= item.started_ns);
      if (place >= 0) items.splice(place, 0, item);
      else if (this.after === null) items.push(item);
    }
    return this.#show(items.filter((item) => !gone.has(this.idOf(item))));
  }
}

const KEPT = 8;
const kept = new Map();

/** Return the list of a question; the same one as before when it was asked before. */
export function listingOf(path, query, idOf) {
  const key = `${path}?${new URLSearchParams(query)}`;
  const found = kept.get(key) ?? new Listing(path, query, idOf);
  kept.delete(key);
  kept.set(key, found);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return found;
}
