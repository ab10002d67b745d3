// What statuses, kinds and losses are called, and the glyph that stands for each status.

const STATUSES = {
  ok: ["■", "ok"],
  open: ["●", "in flight"],
  error: ["✗", "failed"],
  cancelled: ["⊘", "cancelled"],
  closed_early: ["◧", "closed early"],
  paused: ["‖", "paused"],
  aborted: ["⊗", "aborted: the program ended first"],
  lost: ["⊗", "lost: its process died before it ended"],
};

/** Statuses that are drawn in red. */
const FAILED = new Set(["error", "aborted", "lost"]);
const MODELS = new Set(["llm", "chat_model"]);

export const glyphOf = (status) => (Object.hasOwn(STATUSES, status) ? STATUSES[status][0] : "·");
export const wordOf = (status) => (Object.hasOwn(STATUSES, status) ? STATUSES[status][1] : String(status));
export const hasFailed = (status) => FAILED.has(status);
export const isModel = (kind) => MODELS.has(kind);
export const kindWord = (kind) => String(kind ?? "").replaceAll("_", " ");

const REASONS = {
  queue_full: "more was said than could be written, and the oldest gave way",
  not_writable: "the disk was full or the file could not be written",
  loop_closed: "the event loop had closed",
  closed: "it came after saving had ended",
};

/** Say why events were dropped. */
export const reasonOf = (reason) => (Object.hasOwn(REASONS, reason) ? REASONS[reason] : reason.replaceAll("_", " "));
