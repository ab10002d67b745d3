// The runs of one trace as its tree shows them, loaded page by page and kept up to date. No drawing here.

import { get, pathOf } from "./api.mjs";
import { computed, signal } from "./html.mjs";
import { nextPlace } from "./selecting.mjs";

/** The first page is small, so that its rows are there at once. */
const PAGES = [400, 5000];
/** A browser holds so many without trouble; a larger tree is loaded as far as that, and on when it is asked for. */
const AT_ONCE = 200_000;
/** With more new runs than this at a time the tree is read again. */
const NEW_AT_ONCE = 300;

const endOf = ({ started_ns, duration_ns }) => started_ns + (duration_ns ?? 0);

export class Tree {
  constructor(trace) {
    this.trace = trace;
    /** Every row that is loaded: `{run, depth, has_children}`, each before those below it. */
    this.rows = signal([]);
    this.error = signal(null);
    /** The spans of the runs whose children are not shown. */
    this.folded = signal(new Set());
    /** Where the next page begins; null once all is loaded. */
    this.after = signal(undefined);
    this.isLoading = signal(false);
    this.shown = computed(() => visible(this.rows.value, this.folded.value));
    this.span = computed(() => spanOf(this.rows.value));
    this.abort = new AbortController();
  }

  /** Read everything, the first rows first. Returns when all is there. */
  async load() {
    this.abort.abort();
    const abort = (this.abort = new AbortController());
    await this.#read([], null, abort);
  }

  /** Read on after a very large tree was read as far as is read by itself. */
  async more() {
    if (!this.isLoading.value) await this.#read(this.rows.value, this.after.value, this.abort);
  }

  async #read(before, from, abort) {
    const path = `${pathOf("traces", this.trace)}/tree`;
    let [rows, after, page] = [before, from, before.length ? 1 : 0];
    const until = before.length + AT_ONCE;
    this.isLoading.value = true;
    try {
      do {
        const answer = await get(path, { limit: PAGES[Math.min(page++, PAGES.length - 1)], after }, abort.signal);
        if (abort.signal.aborted) return;
        rows = rows.concat(answer.items);
        after = answer.after;
        // While it is read again, what was shown stays until there is as much.
        if (rows.length >= this.rows.value.length || after === null) this.rows.value = rows;
        this.after.value = after;
      } while (after !== null && rows.length < until);
      this.error.value = null;
    } catch (error) {
      if (!abort.signal.aborted) this.error.value = error;
    } finally {
      if (!abort.signal.aborted) this.isLoading.value = false;
    }
  }

  close() {
    this.abort.abort();
  }

  /** Take over runs that have changed; those that are new find their place. */
  apply(runs) {
    if (!runs.length) return;
    const places = new Map(this.rows.value.map((row, index) => [row.run.span_id, index]));
    const rows = [...this.rows.value];
    const fresh = [];
    for (const run of runs) {
      const place = places.get(run.span_id);
      if (place === undefined) fresh.push(run);
      else rows[place] = { ...rows[place], run };
    }
    if (fresh.length > NEW_AT_ONCE || (fresh.length && this.after.value !== null)) {
      this.load();
      return;
    }
    for (const run of fresh.sort((a, b) => a.started_ns - b.started_ns)) insert(rows, run);
    this.rows.value = rows;
  }

  fold(span, isFolded) {
    const folded = new Set(this.folded.value);
    if (isFolded) folded.add(span);
    else folded.delete(span);
    this.folded.value = folded;
  }

  /** Unfold whatever hides a run. */
  reveal(index) {
    const rows = this.rows.value;
    const folded = new Set(this.folded.value);
    let depth = rows[index].depth;
    for (let above = index - 1; above >= 0 && depth > 0; above -= 1) {
      if (rows[above].depth >= depth) continue;
      depth = rows[above].depth;
      folded.delete(rows[above].run.span_id);
    }
    if (folded.size !== this.folded.value.size) this.folded.value = folded;
  }

  /** Return the runs below a run that have streamed, as far as they are loaded. */
  streamedBelow(span) {
    const rows = this.rows.value;
    const place = rows.findIndex((row) => row.run.span_id === span);
    if (place < 0) return [];
    const end = rows.findIndex((row, index) => index > place && row.depth <= rows[place].depth);
    const below = rows.slice(place + 1, end < 0 ? rows.length : end);
    return below.map(({ run }) => run).filter(({ streamed }) => streamed > 0);
  }

  /** Return the place of the next run that failed after the place given, from the beginning again at the end; else -1. */
  nextFailing(index) {
    return nextPlace(this.rows.value, index, ({ run }) => run.status === "error");
  }
}

/** The rows that no folded one hides. */
function visible(rows, folded) {
  if (!folded.size) return rows;
  const shown = [];
  let hidden = Infinity;
  for (const row of rows) {
    if (row.depth > hidden) continue;
    hidden = folded.has(row.run.span_id) ? row.depth : Infinity;
    shown.push(row);
  }
  return shown;
}

/** From when to when the runs went on, and whether one still does. */
function spanOf(rows) {
  let [begin, end, isOpen] = [Infinity, 0, false];
  for (const { run } of rows) {
    if (run.started_ns < begin) begin = run.started_ns;
    if (endOf(run) > end) end = endOf(run);
    if (run.status === "open") isOpen = true;
  }
  return { begin, end, isOpen };
}

/** Put a new run behind the siblings that began before it, and what is below them. */
function insert(rows, run) {
  const above = rows.findIndex((row) => row.run.span_id === run.parent_id);
  const depth = above < 0 ? 0 : rows[above].depth + 1;
  let place = above + 1;
  while (place < rows.length && rows[place].depth >= depth) {
    if (rows[place].depth === depth && rows[place].run.started_ns > run.started_ns) break;
    place += 1;
  }
  if (above >= 0) rows[above] = { ...rows[above], has_children: true };
  rows.splice(place, 0, { run, depth, has_children: false });
}
