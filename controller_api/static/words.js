// Numbers, times and states as words.

export const TERMINAL = new Set(["completed", "stopped", "failed"]);

/** A metric: four significant digits, or the whole of a count; `none` where there is no value. */
export function number(value, none = "–") {
  if (value === null || value === undefined || Number.isNaN(value)) return none;
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 10 ? Number(value.toFixed(1)) : count(Math.round(value))} ms`;
}

export function bytes(value) {
  let size = value ?? 0;
  let unit = "B";
  for (const next of ["kB", "MB", "GB", "TB"]) {
    if (size < 1000) break;
    size /= 1000;
    unit = next;
  }
  return `${size < 10 && unit !== "B" ? size.toFixed(1) : Math.round(size)} ${unit}`;
}

export function ago(seconds) {
  if (seconds < 1) return "now";
  return `${duration(seconds)} ago`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days`;
}

export const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour12: false });

export const active = (learners) => learners.filter((learner) => learner.state === "active").length;
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** The state of the federation in words, and the tone of colour that goes with it. */
export function headline(federation) {
  const run = federation.run;
  if (federation.state === "over") return ["The federation is over", "idle"];
  if (!run) {
    return active(federation.learners) ? ["Ready for a run", "idle"] : ["Ready for learners", "idle"];
  }
  const total = run.config.termination?.federation_rounds;
  const round = `round ${count(run.round)}${total ? ` of ${count(total)}` : ""}`;
  switch (run.state) {
    case "waiting":
      if (run.config.advance === "manual" && run.model && active(federation.learners) >= run.config.min_learners)
        return ["Ready for the next round", "wait"];
      return ["Waiting for learners", "wait"];
    case "initializing":
      return ["Fetching the initial model", "busy"];
    case "training":
      return [run.round ? `Training · ${round}` : "Training", "busy"];
    case "aggregating":
      return [`Combining updates · ${round}`, "busy"];
    case "evaluating":
      return [run.round ? `Evaluating · ${round}` : "Evaluating the initial model", "busy"];
    case "completed":
      return [`Completed after ${plural(run.round, "round")}`, "good"];
    case "stopped":
      return [run.round ? `Stopped in round ${count(run.round)}` : "Stopped before the first round", "wait"];
    case "failed":
      return [run.round ? `Failed in round ${count(run.round)}` : "Failed before the first round", "bad"];
    default:
      return [run.state, "busy"];
  }
}

/** When a run ends, in words. */
export function ends(termination = {}) {
  const signals = [];
  if (termination.federation_rounds) signals.push(plural(termination.federation_rounds, "round"));
  if (termination.execution_cutoff_time_mins) signals.push(`${number(termination.execution_cutoff_time_mins)} min`);
  if (termination.evaluation_metric && typeof termination.evaluation_metric_cutoff_score === "number") {
    const sign = termination.evaluation_metric_mode === "min" ? "≤" : "≥";
    signals.push(`${termination.evaluation_metric} ${sign} ${number(termination.evaluation_metric_cutoff_score)}`);
  }
  if (termination.patience_rounds)
    signals.push(`${plural(termination.patience_rounds, "round")} without a better score`);
  return signals.join(", or ");
}
