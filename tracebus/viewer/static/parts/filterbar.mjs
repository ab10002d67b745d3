// The search box and the filters over the list. What they say goes into the address, and nowhere else.

import { go, withQuery } from "../address.mjs";
import { get } from "../api.mjs";
import { html, useEffect, useState } from "../html.mjs";
import { kindWord, wordOf } from "../words.mjs";

const SLOWER = [
  ["", "any duration"],
  ["0.5", "> 500 ms"],
  ["1", "> 1 s"],
  ["5", "> 5 s"],
  ["30", "> 30 s"],
  ["300", "> 5 min"],
];
const NOTHING = { kinds: [], models: [], statuses: [], tags: [], names: [], projects: [] };
const RANGES = [
  ["max_duration_s", "at most, seconds", "any"],
  ["min_tokens", "tokens from", "1"],
  ["max_tokens", "tokens to", "1"],
  ["min_cost", "cost from, $", "any"],
  ["max_cost", "cost to, $", "any"],
];
const TEXTS = [
  ["session_id", "session"],
  ["user_id", "user"],
];

const set = (name, value) => go(withQuery({ [name]: value }));

function Choice({ name, label, value = "", options }) {
  const known = options.some(([one]) => one === value) ? options : [...options, [value, value]];
  return html`<select
    class=${value ? "chosen" : ""}
    aria-label=${label}
    value=${value}
    onChange=${(event) => set(name, event.currentTarget.value)}
  >
    ${known.map(([one, words]) => html`<option key=${one} value=${one} selected=${one === value}>${words}</option>`)}
  </select>`;
}

function useChoices() {
  const [choices, setChoices] = useState(NOTHING);
  const ask = () => get("choices").then(setChoices, () => {});
  useEffect(() => void ask(), []);
  return [choices, ask];
}

const optionsOf = (label, values, say = (value) => value) => [["", label], ...values.map((value) => [value, say(value)])];

function More({ filters }) {
  return html`<details class="more-filters">
    <summary>more</summary>
    <form class="more-box" onSubmit=${(event) => event.preventDefault()}>
      ${TEXTS.map(
        ([name, label]) =>
          html`<label key=${name}>
            ${label}
            <input
              type="text"
              value=${filters[name] ?? ""}
              onChange=${(event) => set(name, event.currentTarget.value.trim())}
            />
          </label>`,
      )}
      ${RANGES.map(
        ([name, label, step]) => html`<label key=${name}
          >${label}<input type="number" min="0" step=${step} value=${filters[name] ?? ""}
            onChange=${(event) => set(name, event.currentTarget.value)}
        /></label>`,
      )}
    </form>
  </details>`;
}

export function FilterBar({ search, words, filters, chips }) {
  const [choices, askAgain] = useChoices();
  // Not a value of the element, which would take back what is being typed when the page changes meanwhile.
  useEffect(() => {
    search.current.value = words;
  }, [words]);
  const find = (event) => {
    event.preventDefault();
    go(withQuery({ q: search.current.value.trim() }));
  };
  return html`<search class="filters" onFocusIn=${askAgain}>
    <form class="search" onSubmit=${find}>
      <input
        ref=${search}
        type="search"
        name="q"
        placeholder="search prompts, outputs, errors …"
        aria-label="Search prompts, outputs and errors"
        aria-keyshortcuts="/"
        autocomplete="off"
        spellcheck="false"
        onChange=${(event) => !event.currentTarget.value && words && find(event)}
      />
    </form>
    <div class="choices">
      <${Choice} name="kind" label="Kind" value=${filters.kind} options=${optionsOf("kind", choices.kinds, kindWord)} />
      <${Choice} name="model" label="Model" value=${filters.model} options=${optionsOf("model", choices.models)} />
      <${Choice} name="status" label="Status" value=${filters.status}
        options=${optionsOf("status", choices.statuses, (status) => wordOf(status).replace(/:.*/, ""))} />
      ${
        (choices.tags.length > 0 || filters.tag) &&
        html`<${Choice} name="tag" label="Tag" value=${filters.tag}
        options=${optionsOf("tag", choices.tags)} />`
      }
      <${Choice} name="name" label="Name" value=${filters.name} options=${optionsOf("name", choices.names)} />
      <${Choice} name="min_duration_s" label="Slower than" value=${filters.min_duration_s} options=${SLOWER} />
      ${
        choices.projects.length > 1 &&
        html`<${Choice} name="project" label="Project" value=${filters.project}
        options=${optionsOf("project", choices.projects)} />`
      }
    </div>
    <${More} filters=${filters} />
    ${
      chips.length > 0 &&
      html`<p class="chips">
      ${chips.map(
        ([name, said]) => html`<button key=${name} type="button" class="chip" aria-label=${`Take away the filter: ${said}`}
          onClick=${() => set(name, null)}>
          ${said} <span aria-hidden="true">×</span>
        </button>`,
      )}
    </p>`
    }
  </search>`;
}
