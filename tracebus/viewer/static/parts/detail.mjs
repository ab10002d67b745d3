// Everything that is known of one run, in four tabs.

import { sessionHref, hrefOf } from "../address.mjs";
import { conversationOf, documentsOf, isMessage } from "../conversation.mjs";
import { html, useState } from "../html.mjs";
import { cost, count, duration, flow, moment, number } from "../figures.mjs";
import { hasFailed, isModel, kindWord, wordOf } from "../words.mjs";
import { Failure } from "./failure.mjs";
import { Json } from "./json.mjs";
import { Documents, Fields, Messages } from "./messages.mjs";
import { LeftOut, Plain, Prose } from "./prose.mjs";
import { Facts, Guarded, Lasting } from "./small.mjs";
import { Stream } from "./stream.mjs";
import { Streams } from "./streams.mjs";
import { Tabs } from "./tabs.mjs";

export const TABS = ["messages", "output", "json", "timing"];

/** Whose a run or a trace is, as links to what else is theirs. */
export const whoseOf = ({ tags, session_id, user_id }) => [
  ...tags.map((tag) => html`<a href=${hrefOf([], { tag })}>#${tag}</a>`),
  session_id != null && html`<a href=${sessionHref(session_id)}>session ${session_id}</a>`,
  user_id != null && html`<a href=${hrefOf([], { user_id })}>user ${user_id}</a>`,
];

/** What a run does not share with its trace, whose head has said it. */
const ownOf = (run, trace) => ({
  tags: run.tags.filter((tag) => !trace.tags.includes(tag)),
  session_id: run.session_id === trace.session_id ? null : run.session_id,
  user_id: run.user_id === trace.user_id ? null : run.user_id,
});

function Head({ run, trace }) {
  const shade = hasFailed(run.status) ? "failed" : isModel(run.kind) ? "model" : "";
  const tokens = flow(run.tokens);
  const facts = [
    run.status !== "ok" &&
      run.status !== "open" &&
      html`<span class=${hasFailed(run.status) ? "failed" : ""}>${wordOf(run.status)}</span>`,
    tokens ? `${tokens} tokens` : run.streamed > 0 && count(run.streamed, "token"),
    run.cost == null && run.counted && run.tokens.total ? "cost unknown" : cost(run.cost),
    run.first_token_ns != null && `first token ${duration(run.first_token_ns)}`,
    run.masked > 0 && html`<span class="left-out">${count(run.masked, "secret")} masked</span>`,
    run.cut && html`<span class="left-out">cut to what may be stored</span>`,
    ...whoseOf(ownOf(run, trace)),
  ].filter(Boolean);
  return html`<header class="detail-head">
    <h2>
      <span class=${`name ${shade}`}>${run.name}</span>
      <span class="quiet"> · ${kindWord(run.kind)}${run.model && ` · ${run.model}`} · <${Lasting} of=${run} /></span>
    </h2>
    ${
      facts.length > 0 &&
      html`<p class="fact-line">${facts.map((fact, index) => html`<span key=${index}>${fact}</span>`)}</p>`
    }
  </header>`;
}

/** Said where a body would be. */
function Missing({ run, what }) {
  if (run.status === "open") return html`<p class="quiet">No ${what} yet: the run is in flight.</p>`;
  if (run.status === "lost") return html`<p class="quiet">No ${what}: the process died before the run ended.</p>`;
  if (run.cut) return html`<p class="quiet">The ${what} was dropped: more was said than could be written.</p>`;
  return html`<p class="quiet">No ${what} was recorded.</p>`;
}

function Output({ value, kind, isRaw, label = "output" }) {
  const documents = documentsOf(kind === "retriever" ? asDocuments(value) : value);
  if (documents && !isRaw) return html`<${Documents} documents=${documents} />`;
  if (isMessage(value) || (Array.isArray(value) && value.length && value.every(isMessage))) {
    return html`<${Messages} messages=${conversationOf(null, value).messages} isRaw=${isRaw} />`;
  }
  if (typeof value === "string" && !isRaw) return html`<section aria-label=${label}><${Prose} text=${value} /></section>`;
  return html`<${Json} title=${label} value=${value} isRaw=${isRaw} />`;
}

/** A retriever may answer with plain texts. */
const asDocuments = (value) =>
  Array.isArray(value) ? value.map((item) => (typeof item === "string" ? { content: item } : item)) : value;

/** Say what an event carries on one line. */
function factsOf(data) {
  const said = (value) =>
    typeof value === "string"
      ? value
      : value?.type && value.message
        ? `${value.type}: ${value.message}`
        : JSON.stringify(value);
  return Object.entries(data)
    .map(([name, value]) =>
      name === "wait_s" && typeof value === "number" ? `waits ${duration(value * 1e9)}` : `${name} ${said(value)}`,
    )
    .join(" · ");
}

function Events({ detail }) {
  if (!detail.events.length) return null;
  return html`<section aria-label="Events">
    <h3 class="label">events</h3>
    <ol class="events">
      ${detail.events.map(
        (event, index) => html`<li key=${index}>
          <span class="role">${duration(Math.max(0, event.time_ns - detail.run.started_ns))}</span>
          <div class="event-data">
            <span class="quiet">${event.hook.replaceAll("_", " ")} </span>
            ${
              typeof event.data.text === "string"
                ? html`<${Prose} text=${event.data.text} />`
                : html`<${Plain} text=${factsOf(event.data)} />`
            }
          </div>
        </li>`,
      )}
    </ol>
  </section>`;
}

const soFar = ({ body }) => body.output ?? body.streamed;

function Said({ detail, isRaw }) {
  const { run, body } = detail;
  const output = soFar(detail);
  if (isModel(run.kind)) {
    const { messages, parameters } = conversationOf(body.inputs, output);
    return html`${
      messages.length > 0
        ? html`<${Messages} messages=${messages} isRaw=${isRaw} />`
        : html`<${Missing} run=${run} what="message" />`
    }
      ${messages.length > 0 && output == null && html`<${Missing} run=${run} what="answer" />`}
      ${
        parameters.length > 0 &&
        html`<details class="parameters">
        <summary>
          ${"parameters "}
          ${parameters.map(([name, value], index) => html`${index > 0 && ", "}${name} <${LeftOut} value=${value} />`)}
        </summary>
        <${Fields} fields=${parameters} label="Parameters" />
      </details>`
      }`;
  }
  const inputs = body.inputs;
  const isFields = inputs !== null && typeof inputs === "object" && !Array.isArray(inputs);
  const fields = inputs == null ? [] : isFields ? Object.entries(inputs) : [["input", inputs]];
  const isField = output !== null && typeof output !== "object" && !isRaw;
  return html`${
    fields.length ? html`<${Fields} fields=${fields} label="Inputs" />` : html`<${Missing} run=${run} what="input" />`
  }
    ${
      output == null
        ? !body.error && html`<${Missing} run=${run} what="output" />`
        : isField
          ? html`<${Fields} fields=${[["output", output]]} label="Output" />`
          : html`<${Output} value=${output} kind=${run.kind} isRaw=${isRaw} />`
    }`;
}

function Bodies({ detail, isRaw }) {
  const { run, body } = detail;
  const { run_id, trace_id, span_id, parent_id } = run;
  const known = [
    ["inputs", body.inputs],
    ["output", body.output],
    ["error", body.error],
    ["metadata", Object.keys(body.metadata).length ? body.metadata : null],
    ["events", detail.events.length ? detail.events : null],
    ["ids", { trace_id, span_id, run_id, parent_id }],
  ].filter(([, value]) => value != null);
  return known.map(([name, value]) => html`<${Json} key=${name} title=${name} value=${value} isRaw=${isRaw} />`);
}

function Timing({ detail, below, wanted }) {
  const { run, steps } = detail;
  const facts = [
    ["started", html`<span title=${moment(run.started_ns)}>${moment(run.started_ns).slice(11)}</span>`],
    ["duration", html`<${Lasting} of=${run} />`],
    ["first token", duration(run.first_token_ns)],
    ["tokens in", number(run.tokens.input)],
    ["tokens out", number(run.tokens.output)],
    ["cached", number(run.tokens.cached)],
    ["reasoning", number(run.tokens.reasoning)],
    ["cost", cost(run.cost)],
  ];
  return html`<${Facts} facts=${facts} />
    ${
      steps.length > 0
        ? html`<${Stream} detail=${detail} wanted=${wanted} />`
        : below.length > 0
          ? html`<${Streams} run=${run} runs=${below} wanted=${wanted} />`
          : html`<p class="quiet">
            ${run.streamed ? "The times of its tokens are written when it has ended." : "Nothing was streamed."}
          </p>`
    }
    <${Events} detail=${detail} />`;
}

/** `wanted` grows each time that a replay is asked for; `below` are the runs below this one that have streamed. */
export function Detail({ detail, trace, below, tab, onTab, wanted }) {
  const [isRaw, setIsRaw] = useState(false);
  const { run, body } = detail;
  const tabs = [
    ["messages", isModel(run.kind) ? "Messages" : "Overview"],
    ["output", "Output"],
    ["json", "JSON"],
    ["timing", "Timing"],
  ];
  const output = soFar(detail);
  const failure = body.error && html`<${Failure} key=${run.span_id} error=${body.error} />`;
  const shown = {
    messages: () => html`${failure}<${Said} detail=${detail} isRaw=${isRaw} /><${Events} detail=${detail} />`,
    output: () =>
      html`${failure}${
        output == null
          ? !failure && html`<${Missing} run=${run} what="output" />`
          : html`<${Output} value=${output} kind=${run.kind} isRaw=${isRaw} />`
      }`,
    json: () => html`<${Bodies} detail=${detail} isRaw=${isRaw} />`,
    timing: () => html`<${Timing} detail=${detail} below=${below} wanted=${wanted} />`,
  }[tab];
  const raw =
    tab !== "timing" &&
    html`<button type="button" class="faint" aria-pressed=${isRaw} onClick=${() => setIsRaw(!isRaw)}>raw</button>`;
  return html`<article class="detail" data-run=${run.span_id} aria-label=${`Run ${run.name}`}>
    <${Head} run=${run} trace=${trace} />
    <${Tabs} tabs=${tabs} chosen=${tab} onChoose=${onTab} label="Detail" beside=${raw}>
      <${Guarded} key=${`${run.span_id} ${tab}`} on=${detail}>${html`<${Drawn} draw=${shown} />`}<//>
    <//>
  </article>`;
}

/** Draws inside of the guard what would otherwise fail outside of it. */
const Drawn = ({ draw }) => draw();
