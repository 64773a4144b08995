// The live page of the federation. Snapshots (GET) are the truth; the event stream says when to fetch the next one,
// fills the log, and moves the progress of a learner between two snapshots.

import { EventStream, Lost, Refused, getJson, getText, token } from "./api.js";
import { byId, setText } from "./dom.js";
import * as overview from "./overview.js";
import * as tables from "./tables.js";
import { count, number } from "./words.js";

const LOG_LINES = 300;
const EACH_TASK = new Set(["task-offered", "update-accepted", "run-state"]);
const POLL_MS = 4000; // without an event; last-seen times and a stream that is down

const known = {
  federation: null,
  learners: [],
  run: null,
  rounds: new Map(),
  metrics: [],
  kind: "evaluation_metrics", // the training's own scores where no model is evaluated
  events: [], // the newest first, without task-progress
  news: [], // the same without the events of EACH_TASK
  tasks: new Map(), // id -> {kind, round} of the tasks that the log told of
  live: new Map(), // task id -> progress newer than the snapshot
  at: 0, // performance.now() of the snapshot
  skew: 0,

  // A round that is still open has been scored by some of its members only.
  score: (round, metric) => (round.state === "closed" ? (round[known.kind]?.combined?.[metric] ?? null) : null),
  nameOf: (learner) => known.learners.find((one) => one.id === learner)?.name ?? learner,
  task(learner) {
    const task = known.tasks.get(learner.task);
    if (!task) return "working";
    return task.round ? `${task.kind ?? "task"} · round ${task.round}` : (task.kind ?? "task");
  },
  progress(learner) {
    const progress = known.live.get(learner.task) ?? learner.progress;
    if (!learner.task || !progress) return "";
    const epochs = known.run?.config.train?.epochs;
    const told = (value) => value !== null && value !== undefined;
    const parts = [];
    if (told(progress.epoch))
      parts.push(`epoch ${count(progress.epoch)}${Number.isInteger(epochs) ? ` of ${epochs}` : ""}`);
    if (told(progress.batch)) parts.push(`batch ${count(progress.batch)}`);
    if (told(progress.loss)) parts.push(`loss ${number(progress.loss)}`);
    return parts.join(" · ");
  },
  async tasksOf(run) {
    let tasks;
    await guarded(async () => (tasks = (await getJson(`v1/runs/${run}/results`)).value.tasks));
    return tasks;
  },
};

/** Runs `work` when asked, one at a time, and leaves pauses in proportion to what it costs. */
class Repeated {
  constructor(work, pause) {
    Object.assign(this, { work, pause, busy: false, again: false });
  }

  async ask() {
    this.again = true;
    if (this.busy) return;
    this.busy = true;
    while (this.again) {
      this.again = false;
      const start = performance.now();
      await guarded(this.work);
      const cost = performance.now() - start;
      await new Promise((resolve) => setTimeout(resolve, Math.max(this.pause, 5 * cost)));
    }
    this.busy = false;
  }
}

const federation = new Repeated(async () => {
  const { value, skew } = await getJson("v1/federation");
  const other = value.run?.id !== known.run?.id;
  Object.assign(known, { federation: value, learners: value.learners, run: value.run, at: performance.now(), skew });
  if (other) {
    known.rounds.clear();
    rounds.ask();
  }
  const tasks = new Set(value.learners.map((learner) => learner.task));
  for (const task of known.live.keys()) if (!tasks.has(task)) known.live.delete(task);
  opened();
  stream.start();
  if (stream.up) showLink(true);
  show();
}, 250);

const rounds = new Repeated(async () => {
  if (!known.run) return;
  const run = known.run.id;
  const { value } = await getJson("v1/runs/latest/rounds");
  if (known.run?.id !== run) return;
  known.rounds = new Map(value.map((round) => [round.round, round]));
  show();
}, 250);

const stream = new EventStream({ onEvent, onLink, onRefused: refused });

/** One event of the log. */
function onEvent(event) {
  const { data = {}, kind } = event;
  if (kind === "task-progress") {
    if (data.task) known.live.set(data.task, data);
    paintSoon();
    return;
  }
  if (kind === "task-offered" && data.task) known.tasks.set(data.task, { kind: data.task_kind, round: event.round });
  if (kind === "update-accepted" || kind === "task-failed") known.live.delete(data.task);
  if (known.events.length && event.id <= known.events[0].id) known.events = known.news = []; // a new log begins
  known.events = [event, ...known.events].slice(0, LOG_LINES);
  if (!EACH_TASK.has(kind)) known.news = [event, ...known.news].slice(0, LOG_LINES);
  federation.ask();
  if (event.run_id === known.run?.id) {
    if (kind === "round-closed" && typeof data.round === "number") known.rounds.set(data.round, data);
    if (kind.startsWith("round-") || kind.startsWith("run-") || kind === "update-accepted" || kind === "task-failed")
      rounds.ask();
  }
  paintSoon();
}

let painting = false;
function paintSoon() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    if (known.federation) show();
  });
}

function show() {
  overview.show(known);
  tables.learners(known, show);
  tables.rounds(known, show);
  tables.log(known, byId("log-tasks").checked ? known.events : known.news);
}

// ---- the connection and the token

function onLink(up) {
  showLink(up);
  if (!up) return;
  federation.ask();
  rounds.ask();
}

function showLink(up) {
  byId("link").dataset.link = up ? "up" : "down";
  setText(byId("link-text"), up ? "live" : "connection lost, trying again");
  byId("main").classList.toggle("stale", !up);
}

/** Runs `work`; a refusal asks for a token, another failure shows as a lost connection and is tried again. */
async function guarded(work) {
  try {
    await work();
  } catch (error) {
    if (error instanceof Refused) refused(error);
    else if (error instanceof Lost) showLink(false);
    else reportError(error);
  }
}

function refused(error) {
  stream.stop();
  known.federation = null;
  byId("main").hidden = true;
  byId("token-form").hidden = false;
  byId("forget").hidden = true;
  byId("link").dataset.link = "wait";
  setText(byId("link-text"), "a token is needed");
  document.title = "Token · Federation";
  byId("token").focus();
  if (token.value === null) return;
  const why =
    error.status === 403
      ? "This token may not read the federation: a viewer's or an operator's may."
      : "The controller does not know this token.";
  setText(byId("token-error"), why);
  token.set(null);
  federation.ask(); // perhaps it asks for none any more
}

function opened() {
  byId("main").hidden = false;
  byId("token-form").hidden = true;
  byId("forget").hidden = token.value === null;
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = byId("token").value.trim();
  if (!typed) return;
  byId("token").value = "";
  setText(byId("token-error"), "");
  token.set(typed);
  federation.ask();
});

byId("log-tasks").addEventListener("change", show);

// A link carries no token: with one, the metrics are fetched and shown here.
byId("metrics").addEventListener("click", async (event) => {
  if (token.value === null) return;
  event.preventDefault();
  await guarded(async () => {
    setText(byId("metrics-text"), await getText("metrics"));
    byId("metrics-dialog").showModal();
  });
});
byId("metrics-close").addEventListener("click", () => byId("metrics-dialog").close());

byId("forget").addEventListener("click", () => {
  token.set(null);
  location.reload();
});

// A hidden page holds no connection: browsers allow six per controller, over all tabs.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream.stop();
  else federation.ask();
});

setInterval(() => {
  if (document.hidden || !byId("token-form").hidden) return;
  federation.ask();
}, POLL_MS);

setInterval(() => {
  if (!known.federation) return;
  tables.tick(known);
  overview.showFacts(known);
}, 1000);

federation.ask();
