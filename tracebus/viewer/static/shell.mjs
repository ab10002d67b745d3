// What is around every view: the way to the others, whether the page is live, the help.

import { address, go, hrefOf } from "./address.mjs";
import { html, signal, useEffect, useRef } from "./html.mjs";
import { HELP, useKeys } from "./keys.mjs";
import { connection, info, isPaused, missed, togglePause } from "./live.mjs";
import { Notices } from "./notices.mjs";
import { theme, toggleTheme } from "./theme.mjs";
import { Guarded, Trouble } from "./parts/small.mjs";
import { Compare } from "./views/compare.mjs";
import { hasLosses, Losses } from "./views/losses.mjs";
import { Session, Sessions } from "./views/sessions.mjs";
import { Statistics } from "./views/statistics.mjs";
import { Trace } from "./views/trace.mjs";
import { Traces } from "./views/traces.mjs";

const VIEWS = [
  ["", "traces"],
  ["sessions", "sessions"],
  ["statistics", "statistics"],
  ["losses", "losses"],
];
const HAS_LIVE_MARK = { connecting: ["○", "connecting"], live: ["●", "live"], offline: ["○", "offline, trying again"] };

const isHelping = signal(false);

/** A key, or a word between two of them. */
function Key({ of }) {
  return of === "then" || of === "…" ? html` <span class="quiet">${of}</span> ` : html`<kbd>${of}</kbd>`;
}

function Help() {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} class="help" aria-labelledby="help-title" onClose=${() => (isHelping.value = false)}>
    <h2 id="help-title">Keys</h2>
    <dl>
      ${HELP.map(
        ([keys, does]) => html`<div key=${keys}>
          <dt>${keys.split(" ").map((key) => html`<${Key} of=${key} />`)}</dt>
          <dd>${does}</dd>
        </div>`,
      )}
    </dl>
    <p class="dialog-line">
      <button type="button" class="button" autofocus onClick=${() => dialog.current.close()}>Close</button>
    </p>
  </dialog>`;
}

function Live() {
  const [glyph, words] = HAS_LIVE_MARK[connection.value];
  if (connection.value !== "live") return html`<span class="live quiet" role="status">${glyph} ${words}</span>`;
  return html`<button type="button" class="faint live" aria-pressed=${isPaused.value} title="Pause: p" onClick=${togglePause}>
    <span aria-hidden="true" class=${isPaused.value ? "" : "live-mark"}>${isPaused.value ? "‖ " : "● "}</span>
    ${isPaused.value ? "paused" : "live"}${isPaused.value && missed.value > 0 && ` · ${missed.value}`}
  </button>`;
}

function Header() {
  const here = address.value.path[0] ?? "";
  const current = here === "traces" ? "" : here;
  return html`<header class="top">
    <a class="brand" href=${hrefOf([])}>tracebus</a>
    <nav aria-label="Views">
      ${VIEWS.map(
        ([
          path,
          title,
        ]) => html`<a key=${path} href=${hrefOf(path ? [path] : [])} aria-current=${path === current ? "page" : undefined}>
          ${title}
          ${path === "losses" && hasLosses(info.value) && html`<span class="left-out" title="Something is missing"> !</span>`}
        </a>`,
      )}
    </nav>
    <span class="top-end">
      <${Live} />
      <button type="button" class="faint" aria-label=${`Change to ${theme.value === "dark" ? "light" : "dark"} colours`}
        title="Light or dark: t" onClick=${toggleTheme}>
        ${theme.value === "dark" ? "light" : "dark"}
      </button>
      <button type="button" class="faint" aria-label="All keys" title="All keys: ?"
        onClick=${() => (isHelping.value = true)}>?</button>
    </span>
  </header>`;
}

function View() {
  const { path, href } = address.value;
  const [first, second, third, fourth, ...rest] = path;
  if (!path.length) return html`<${Traces} />`;
  if (first === "traces" && second && !third) return html`<${Trace} key=${second} trace=${second} run=${null} />`;
  if (first === "traces" && third === "runs" && fourth && !rest.length)
    return html`<${Trace} key=${second} trace=${second} run=${fourth} />`;
  if (first === "sessions" && second) return html`<${Session} key=${second} session=${second} />`;
  const known = { sessions: Sessions, compare: Compare, statistics: Statistics, losses: Losses };
  if (path.length === 1 && Object.hasOwn(known, first)) return html`<${known[first]} />`;
  return html`<main class="view">
    <${Trouble} error=${new Error(`There is no page ${href} here.`)}><p><a href=${hrefOf([])}>All traces</a></p><//>
  </main>`;
}

export function App() {
  const keys = {
    "?": () => (isHelping.value = true),
    t: toggleTheme,
    p: togglePause,
    "/": () => {
      go(hrefOf([]));
      requestAnimationFrame(() => document.querySelector("input[type=search]")?.focus());
    },
    "g t": () => go(hrefOf([])),
    "g s": () => go(hrefOf(["sessions"])),
    "g a": () => go(hrefOf(["statistics"])),
    "g d": () => go(hrefOf(["losses"])),
  };
  useKeys(keys, { isPage: true });
  return html`<${Header} />
    <${Guarded} on=${address.value.href}><${View} /><//>
    <${Notices} />
    ${isHelping.value && html`<${Help} />`}`;
}
