// What the list is narrowed to: the fields of the reader's Filter, by the names that the address and the API share.

import { duration, moment, number } from "./figures.mjs";

/** All fields, with the words of a chip that says one; a null has a control of its own instead. */
const FIELDS = new Map([
  ["kind", null],
  ["model", null],
  ["status", null],
  ["tag", null],
  ["name", null],
  ["project", (value) => `project ${value}`],
  ["session_id", (value) => `session ${value}`],
  ["user_id", (value) => `user ${value}`],
  ["min_duration_s", null],
  ["max_duration_s", (value) => `at most ${duration(Number(value) * 1e9)}`],
  ["min_tokens", (value) => `at least ${number(Number(value))} tokens`],
  ["max_tokens", (value) => `at most ${number(Number(value))} tokens`],
  ["min_cost", (value) => `at least $${value}`],
  ["max_cost", (value) => `at most $${value}`],
  ["since_ns", (value) => `from ${spokenTime(value)}`],
  ["until_ns", (value) => `before ${spokenTime(value)}`],
]);

const spokenTime = (ns) => (Number.isFinite(Number(ns)) ? moment(Number(ns)).slice(0, 16) : ns);

/** Return the filters of an address, and nothing else of it. */
export function filtersOf(query) {
  return Object.fromEntries([...FIELDS.keys()].map((name) => [name, query.get(name)]).filter(([, value]) => value));
}

/** Return what to say of the filters that have no control of their own: `[name, words]`. */
export function chipsOf(filters) {
  return Object.entries(filters).flatMap(([name, value]) => {
    const say = FIELDS.get(name);
    return say ? [[name, say(value)]] : [];
  });
}
