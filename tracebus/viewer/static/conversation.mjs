// What was said to a model and by it, of any provider, as one list of messages. No drawing here: `parts/messages.mjs` does.
//
// A message: {role, text, reasoning, calls: [{name, args, result}], other: [anything else], raw}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const textOf = (value) => (typeof value === "string" ? value : value == null ? "" : JSON.stringify(value, null, 2));

function parsed(value) {
  if (typeof value !== "string") return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** A call of a tool as OpenAI, Anthropic and LangChain write it; null when it is none. */
function callOf(given) {
  if (!isObject(given)) return null;
  const inner = isObject(given.function) ? given.function : given;
  if (typeof inner.name !== "string") return null;
  const args = inner.arguments ?? inner.args ?? inner.input ?? given.input;
  return { id: given.id ?? given.call_id ?? null, name: inner.name, args: parsed(args), result: undefined };
}

const PARTS = {
  text: (part, said) => said.text.push(textOf(part.text)),
  input_text: (part, said) => said.text.push(textOf(part.text)),
  output_text: (part, said) => said.text.push(textOf(part.text)),
  thinking: (part, said) => said.reasoning.push(textOf(part.thinking)),
  reasoning: (part, said) => said.reasoning.push(textOf(part.reasoning ?? part.text ?? part.summary)),
  tool_use: (part, said) => said.calls.push(callOf(part) ?? { name: "tool", args: part }),
  tool_result: (part, said) => said.results.push({ id: part.tool_use_id, value: plain(part.content) }),
  refusal: (part, said) => said.text.push(textOf(part.refusal)),
};

/** The text of content that is nothing but text. */
function plain(content) {
  const isText = Array.isArray(content) && content.every((part) => isObject(part) && typeof part.text === "string");
  return isText ? content.map((part) => part.text).join("\n") : content;
}

function readContent(content, said) {
  if (content == null || content === "") return;
  if (!Array.isArray(content)) {
    if (isObject(content)) said.other.push(content);
    else said.text.push(textOf(content));
    return;
  }
  for (const part of content) {
    if (typeof part === "string") said.text.push(part);
    else if (isObject(part) && Object.hasOwn(PARTS, part.type)) PARTS[part.type](part, said);
    else if (isObject(part) && typeof part.text === "string") said.text.push(part.text);
    else said.other.push(part);
  }
}

const listOf = (value) => (Array.isArray(value) ? value : value == null ? [] : [value]);

function readMessage(given, otherwise) {
  const said = { role: otherwise, text: [], reasoning: [], calls: [], results: [], other: [], raw: given };
  if (!isObject(given)) {
    said.text.push(textOf(given));
    return said;
  }
  if (given.type === "function_call") {
    said.role = "assistant";
    said.calls.push(callOf(given) ?? { name: "tool", args: given });
    return said;
  }
  if (given.type === "function_call_output") {
    said.role = "tool";
    said.results.push({ id: given.call_id, value: plain(given.output) });
    return said;
  }
  said.role = String(given.role ?? given.type ?? otherwise);
  const answered = given.tool_call_id ?? null;
  if (said.role === "tool" && answered !== null)
    said.results.push({ id: answered, name: given.name, value: plain(given.content) });
  else readContent(given.content ?? (given.role ? undefined : given), said);
  for (const call of listOf(given.tool_calls)) {
    const known = callOf(call);
    if (known) said.calls.push(known);
    else said.other.push(call);
  }
  for (const text of listOf(given.reasoning ?? given.reasoning_content)) said.reasoning.push(textOf(text));
  if (given.refusal) said.text.push(textOf(given.refusal));
  return said;
}

/** Put each result into the call that it answers; what is left of a message without its results may be nothing. */
function answerCalls(messages) {
  const calls = new Map();
  const left = [];
  for (const message of messages) {
    for (const call of message.calls) if (call.id != null) calls.set(call.id, call);
    const orphans = message.results.filter(({ id, value }) => {
      const call = calls.get(id);
      if (!call || call.result !== undefined) return true;
      call.result = value ?? null;
      return false;
    });
    for (const { value } of orphans) readContent(value, message);
    const isAnswered = message.results.length > 0 && orphans.length === 0;
    const isSilent = !message.text.length && !message.calls.length && !message.reasoning.length && !message.other.length;
    if (!(isAnswered && isSilent)) left.push(message);
  }
  return left;
}

const joined = (messages) =>
  messages.map(({ text, reasoning, ...rest }) => ({ ...rest, text: text.join("\n\n"), reasoning: reasoning.join("\n\n") }));

/** Whether a value is a message, or a list of them. */
export function isMessage(value) {
  return isObject(value) && typeof value.role === "string" && ("content" in value || "tool_calls" in value);
}

/** The fields of a run's inputs that are messages. */
const SPOKEN = new Map([
  ["system", "system"],
  ["instructions", "system"],
  ["messages", "message"],
  ["prompts", "user"],
  ["prompt", "user"],
]);

/**
 * Return the messages of a model's run, and what else went into it: `{messages, parameters}`.
 *
 * `inputs` and `output` are the bodies of the run; what a stream has said so far may stand for the output.
 */
export function conversationOf(inputs, output) {
  const [messages, parameters] = [[], []];
  for (const [name, value] of isObject(inputs) ? Object.entries(inputs) : inputs == null ? [] : [["input", inputs]]) {
    const isSpoken = SPOKEN.has(name) || (name === "input" && (typeof value === "string" || Array.isArray(value)));
    if (!isSpoken) parameters.push([name, value]);
    else for (const one of listOf(value)) messages.push(readMessage(one, SPOKEN.get(name) ?? "user"));
  }
  for (const one of output == null || output === "" ? [] : listOf(output)) messages.push(readMessage(one, "assistant"));
  return { messages: joined(answerCalls(messages)), parameters };
}

/** Return the documents of a value, or null when it is no list of documents. */
export function documentsOf(value) {
  const list = isObject(value) && Array.isArray(value.documents) ? value.documents : value;
  if (!Array.isArray(list) || !list.length) return null;
  const known = list.map(documentOf);
  return known.every(Boolean) ? known : null;
}

const TEXTS = ["content", "page_content", "text"];
const SCORES = ["score", "relevance_score", "similarity", "distance"];
const SOURCES = ["source", "url", "path", "file_name", "title", "id"];

function documentOf(value) {
  if (!isObject(value) || "role" in value) return null;
  const inner = isObject(value.node) ? value.node : value;
  const text = TEXTS.map((name) => inner[name]).find((found) => typeof found === "string");
  if (text === undefined) return null;
  const metadata = isObject(inner.metadata) ? inner.metadata : {};
  const find = (names) => names.map((name) => value[name] ?? inner[name] ?? metadata[name]).find((found) => found != null);
  const [score, source] = [find(SCORES), find(SOURCES)];
  const rest = Object.entries({ ...value, ...metadata }).filter(
    ([name, item]) => ![...TEXTS, "metadata", "node"].includes(name) && item !== score && item !== source && item != null,
  );
  return { text, score, source, rest };
}
