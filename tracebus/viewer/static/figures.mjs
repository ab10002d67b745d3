// How figures are said: durations, counts, costs, times. As tracebus/figures.py says them on log lines and the terminal.

const grouped = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, " ");

/** Say a duration given in nanoseconds: `412 ms`, `1.41 s`, `3 min`; nothing for null. */
export function duration(ns) {
  if (ns == null) return "";
  const seconds = ns / 1e9;
  if (seconds < 0.0005) return "<1 ms";
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const [amount, unit] = seconds < 59.95 * 60 ? [seconds / 60, "min"] : [seconds / 3600, "h"];
  return `${amount.toFixed(1).replace(/\.0$/, "")} ${unit}`;
}

const UNITS = [
  ["h", 3600e9],
  ["min", 60e9],
  ["s", 1e9],
  ["ms", 1e6],
  ["µs", 1e3],
];
const toTenths = (amount) => Number(amount.toFixed(1));

/** Say a round duration, given in nanoseconds, exactly, as at a line of a plot: `500 µs`, `2 s`, `80 s`, `1.5 min`. */
export function tick(ns) {
  const isSaid = ([, size]) => ns >= size && Math.abs(toTenths(ns / size) - ns / size) < 1e-6;
  const [unit, size] = UNITS.find(isSaid) ?? UNITS.at(-1);
  return `${toTenths(ns / size)} ${unit}`;
}

/** Say how long something has been going on, in nanoseconds, as a clock does: `0:04`. */
export function elapsed(ns) {
  const seconds = Math.max(0, Math.floor(ns / 1e9));
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** Write a whole number in groups of three digits. */
export function number(whole) {
  return whole == null ? "" : grouped(String(Math.round(whole)));
}

/** Say how many there are: `no documents`, `1 document`, `1 012 documents`. */
export function count(whole, thing) {
  return whole === 1 ? `1 ${thing}` : `${whole ? number(whole) : "no"} ${thing}s`;
}

/** Say what something cost in US dollars: `$0.0021`, `$1.20`; nothing for null. */
export function cost(dollars) {
  if (dollars == null) return "";
  if (dollars >= 0.995) {
    const [whole, cents] = dollars.toFixed(2).split(".");
    return `$${grouped(whole)}.${cents}`;
  }
  if (dollars === 0) return "$0";
  if (dollars < 0.000095) return "<$0.0001";
  return `$${dollars.toFixed(dollars >= 0.095 ? 2 : dollars >= 0.0095 ? 3 : 4)}`;
}

/** Say a cost at a line of a plot whose lines are `step` dollars apart, with the digits that tell one from the next. */
export function costTick(dollars, step) {
  let digits = 0;
  while (Math.abs(Number(step.toFixed(digits)) - step) > step * 1e-6) digits = Math.max(2, digits + 1);
  const [whole, cents] = dollars.toFixed(digits).split(".");
  return `$${grouped(whole)}${cents ? `.${cents}` : ""}`;
}

/** Say the cost of a trace, session or statistic, that it is more where some of it is unknown, `?` where all of it is. */
export function costOf({ cost: dollars, cost_is_partial: isPartial }) {
  if (dollars == null) return isPartial ? "?" : "";
  return (isPartial ? "≥ " : "") + cost(dollars);
}

/** Say the tokens of a run: `1 012 → 86`, or the total where only that is known. */
export function flow(tokens) {
  if (tokens.input != null && tokens.output != null) return `${number(tokens.input)} → ${number(tokens.output)}`;
  return tokens.total == null ? "" : `${number(tokens.total)}`;
}

/** Say how large something is: `812 B`, `1.4 MB`. */
export function size(bytes) {
  let amount = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (amount < 999.5) return `${amount.toFixed(unit === "B" || amount >= 9.95 ? 0 : 1)} ${unit}`;
    amount /= 1000;
  }
  return `${amount.toFixed(1)} TB`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat("en-US", { month: "short", day: "numeric" });
const full = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

/** Say a time as people do: `now`, `12 s`, `5 min`, `14:02`, `Nov 20 14:02`, `2025-11-20`. */
export function when(ns, nowMs) {
  const ago = nowMs / 1000 - ns / 1e9;
  if (ago >= -5 && ago < 60) return ago < 1 ? "now" : `${Math.floor(ago)} s`;
  if (ago >= 0 && ago < 3600) return `${Math.floor(ago / 60)} min`;
  const then = new Date(ns / 1e6);
  const today = new Date(nowMs);
  if (then.toDateString() === today.toDateString()) return clock.format(then);
  if (then.getFullYear() !== today.getFullYear()) return full.format(then).slice(0, 10);
  return `${dayAndClock.format(then)} ${clock.format(then)}`;
}

/** Say a time in full, for a title: `2026-11-22 14:02:07`. */
export function moment(ns) {
  return full.format(new Date(ns / 1e6));
}

/** The same for `<time datetime>`. */
export function iso(ns) {
  return new Date(ns / 1e6).toISOString();
}
