// The upper half of the page: the state in words, what to do next, the run's facts, its curves.

import { Curve } from "./curve.js";
import { byId, el, keyed, setText } from "./dom.js";
import { TERMINAL, active, bytes, count, duration, ends, headline, number, plural, sentence } from "./words.js";

const MOST_METRICS = 12;
const FIXED_AXIS = 50; // a run of so many rounds gets its whole axis at once
const ORIGIN = new URL(".", document.baseURI).href.replace(/\/$/, "");
const TOKENS =
  "This controller asks for tokens: set METIS_ENROLL_TOKEN where a learner starts, " +
  "METIS_OPERATOR_TOKEN where the run is started.";

export function show(known) {
  const { federation: now, run } = known;
  const [state, tone] = headline(now);
  setText(byId("state"), state);
  byId("now").dataset.tone = tone;
  setText(byId("waiting"), reason(now, run));
  announce(state, reason(now, run));
  document.title = `${state} · Federation`;
  setText(byId("about"), about(now));
  showBar(known);
  showFacts(known);
  showNext(known);
  showCurves(known);
}

function reason(now, run) {
  if (run && now.state === "over")
    return `The last run ${TERMINAL.has(run.state) ? run.state : "was cut off"}: ${run.reason ?? "no reason given"}`;
  if (run && TERMINAL.has(run.state)) return sentence(run.reason ?? "");
  return sentence(run?.waiting_for ?? now.waiting_for ?? "");
}

let announced = "";

/** Speaks a new state to a screen reader; a countdown alone is no news. */
function announce(state, why) {
  const news = `${state}. ${why}`;
  const kept = news.replace(/[\d.]+ (s|min|minutes)\b/g, "");
  if (announced === kept) return;
  announced = kept;
  setText(byId("announce"), news);
}

function showBar({ run, rounds }) {
  const total = run?.config.termination?.federation_rounds;
  byId("bar").hidden = !total;
  if (!total) return;
  const done = [...rounds.values()].filter((round) => round.model).length;
  const bar = byId("bar-value");
  bar.max = total;
  bar.value = Math.min(done, total);
  setText(byId("bar-text"), `${count(done)} of ${plural(total, "round")} done`);
}

export function showFacts(known) {
  const { run } = known;
  const facts = [];
  if (run) {
    const config = run.config;
    facts.push(
      ["Run", run.name ?? run.id],
      ["Rule", config.aggregation_rule],
      ["Scheduler", config.scheduler],
      ["Weighted by", config.scaling_factor],
    );
    if (config.transforms?.length) facts.push(["Transforms", config.transforms.map((one) => one.name).join(", ")]);
    if (config.server_optimizer !== "None") facts.push(["Server optimizer", config.server_optimizer]);
    if (config.selection?.participation_ratio < 1)
      facts.push(["Drawn each round", `${number(100 * config.selection.participation_ratio)} %`]);
    const until = ends(config.termination);
    if (until) facts.push(["Ends at", until]);
    const end = run.ended_at ? Date.parse(run.ended_at) : Date.now() + known.skew;
    facts.push([run.ended_at ? "Took" : "Running for", duration((end - Date.parse(run.started_at)) / 1000)]);
  }
  facts.push(["Learners", `${count(active(known.learners))} active`]);
  const moved = [...known.rounds.values()].reduce(
    (sum, round) => sum + (round.bytes?.up ?? 0) + (round.bytes?.down ?? 0),
    0,
  );
  if (moved) facts.push(["Weights moved", bytes(moved)]);
  const make = () => el("div", {}, el("dt"), el("dd"));
  keyed(
    byId("facts"),
    facts,
    ([name]) => name,
    make,
    (item, [name, value]) => {
      setText(item.firstChild, name);
      setText(item.lastChild, String(value));
    },
  );
}

function about(now) {
  const store = `models in ${now.model_store}${now.durable ? "" : ", which ends with the controller"}`;
  const access = now.open ? "open: no token is configured, every caller is an operator" : "callers show a token";
  return [`Version ${now.version}`, store, access].join(" · ");
}

/** What to type next, as long as something is missing. */
function showNext({ federation: now, learners, run }) {
  const here = active(learners);
  const ended = !run || TERMINAL.has(run.state);
  const wanted = ended ? 1 : run.config.min_learners;
  const missing = here < wanted;
  byId("next").hidden = now.state === "over" || (!missing && !ended);
  if (byId("next").hidden) return;
  const steps = [];
  const join = `metis-learner --controller ${ORIGIN} --learner learner_agent.digits:digits_learner`;
  if (!run || missing) {
    const joined = here ? `${plural(here, "learner")} joined` : "";
    steps.push(["Start learners, each in its own terminal or machine", joined, join]);
  }
  if (ended) {
    steps.push([
      run ? "Start another run" : "Start a run",
      "",
      `metis run --controller ${ORIGIN} --learners 3 --rounds 5`,
    ]);
  }
  const make = () => el("li", {}, el("p", {}, el("span"), el("span", { class: "here" })), command());
  keyed(
    byId("steps"),
    steps,
    ([title]) => title,
    make,
    (item, [title, here, text]) => {
      setText(item.firstChild.firstChild, title);
      setText(item.firstChild.lastChild, here);
      const code = item.querySelector("code");
      if (code.textContent === text) return;
      code.replaceChildren(...text.split(/( )/).map((word) => (word === " " ? word : el("span", {}, word))));
    },
  );
  setText(byId("next-note"), now.open ? "" : TOKENS);
}

/** A command with a button that copies it, where the browser lets a page do so. */
function command() {
  const code = el("code", { tabindex: "0" });
  const box = el("div", { class: "command" }, code);
  if (navigator.clipboard) {
    const button = el("button", { type: "button", class: "quiet" }, "Copy");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      setText(button, "Copied");
      setTimeout(() => setText(button, "Copy"), 1500);
    });
    box.append(button);
  }
  return box;
}

const curves = new Map();

/** A round's score, and the lowest and highest of its learners' own. */
function point(known, round, metric) {
  const own = Object.values(round[known.kind].learners ?? {})
    .map((scores) => scores[metric])
    .filter((value) => typeof value === "number");
  const [low, high] = own.length ? [Math.min(...own), Math.max(...own)] : [null, null];
  return { round: round.round, value: known.score(round, metric), low, high };
}

function showCurves(known) {
  const { run } = known;
  const all = [...known.rounds.values()].filter((round) => round.state === "closed").sort((a, b) => a.round - b.round);
  const named = (kind) => [...new Set(all.flatMap((round) => Object.keys(round[kind]?.combined ?? {})))];
  known.kind = named("evaluation_metrics").length ? "evaluation_metrics" : "train_metrics";
  known.metrics = named(known.kind).slice(0, MOST_METRICS);
  byId("curves-section").hidden = known.metrics.length === 0;
  setText(byId("curves-title"), known.kind === "evaluation_metrics" ? "Evaluation" : "Training");
  const signals = run?.config.termination ?? {};
  const total = signals.federation_rounds;
  for (const metric of curves.keys()) if (!known.metrics.includes(metric)) curves.delete(metric);
  const make = (metric) => {
    curves.set(metric, new Curve(metric));
    return curves.get(metric).figure;
  };
  keyed(
    byId("curves"),
    known.metrics,
    (metric) => metric,
    make,
    (_, metric) => {
      const points = all
        .filter((round) => metric in (round[known.kind]?.combined ?? {}))
        .map((round) => point(known, round, metric));
      const target = signals.evaluation_metric === metric ? (signals.evaluation_metric_cutoff_score ?? null) : null;
      curves.get(metric).show(points, target, total && total <= FIXED_AXIS && !TERMINAL.has(run.state) ? total : 0);
    },
  );
}
