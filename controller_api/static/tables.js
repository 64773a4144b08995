// The tables and the log. Each function takes what is known and makes the document say it.

import { byId, el, keyed, setText } from "./dom.js";
import { active, ago, bytes, clock, count, milliseconds, number } from "./words.js";

const STATES = { active: "good", lost: "wait", left: "idle" };
const HEALTH = { aside: "bad", failing: "wait" };
const ORDER = { active: 0, lost: 1, left: 2 };
const TONES = {
  "learner-lost": "wait",
  "learner-aside": "bad",
  "update-refused": "wait",
  "factor-capped": "wait",
  "result-shortened": "wait",
  "task-failed": "bad",
  "round-closed": "good",
  "round-failed": "bad",
  "run-started": "busy",
  "run-ended": "busy",
};
const ROWS = 100;
const wanted = { learners: ROWS, rounds: ROWS };

/** The newest `wanted` of the items; a button shows more. */
function capped(items, what, again) {
  const button = byId(`${what}-more`);
  const left = items.length - wanted[what];
  button.hidden = left <= 0;
  setText(button, left > 0 ? `Show ${count(Math.min(left, 10 * ROWS))} more of ${count(items.length)}` : "");
  button.onclick = () => {
    wanted[what] += 10 * ROWS;
    again();
  };
  return items.slice(0, wanted[what]);
}

/** A row of cells, given by their classes; the first is the row's header. Roles are spelled out: on a narrow screen the
 * style sheet lays a row out as a card, and a browser may then forget that it is one. */
function row(...classes) {
  const [first, ...others] = classes;
  const cells = others.map((name) => el("td", { role: "cell", class: name }));
  return el("tr", { role: "row" }, el("th", { role: "rowheader", scope: "row", class: first }), ...cells);
}

export function learners(known, again) {
  const all = [...known.learners].sort(
    (a, b) => ORDER[a.state] - ORDER[b.state] || a.name.localeCompare(b.name, "en", { numeric: true }),
  );
  const here = active(all);
  setText(
    byId("learners-count"),
    all.length ? `${count(here)} active${all.length > here ? ` of ${count(all.length)}` : ""}` : "",
  );
  byId("learners-empty").hidden = all.length > 0;
  const make = () => {
    const made = row("", "", "nowrap seen", "nowrap", "", "number examples");
    made.children[0].append(el("span", { class: "title" }), el("small"));
    made.children[1].append(
      el("span", { class: "pill" }, el("span", { class: "dot", "aria-hidden": "true" }), el("span")),
      el("small"),
    );
    return made;
  };
  keyed(
    byId("learners"),
    capped(all, "learners", again),
    (learner) => learner.id,
    make,
    (line, learner) => {
      const [name, state, seen, task, progress, examples] = line.children;
      setText(name.children[0], learner.name);
      setText(
        name.children[1],
        Object.entries(learner.labels ?? {})
          .map(([key, value]) => `${key}: ${value}`)
          .join(" · "),
      );
      const ill = learner.health === "aside" || learner.health === "failing";
      state.firstChild.dataset.tone = (ill ? HEALTH[learner.health] : STATES[learner.state]) ?? "idle";
      setText(state.firstChild.lastChild, ill ? `${learner.state}, ${learner.health}` : learner.state);
      setText(
        state.lastChild,
        learner.health === "aside"
          ? ` Gets no tasks: ${learner.health_reason}. Once that is mended, metis readmit ${learner.name} or its restart lets it back.`
          : "",
      );
      line.seen = [seen, learner];
      line.classList.toggle("gone", learner.state === "left");
      setText(task, learner.task ? known.task(learner) : "");
      setText(progress, known.progress(learner));
      setText(examples, count(learner.num_training_examples));
    },
  );
  tick(known);
}

/** Counts "last seen" up; a learner that left is seen no more. */
export function tick(known) {
  for (const line of byId("learners").children) {
    const [cell, learner] = line.seen;
    setText(cell, ago(learner.last_seen_s + (performance.now() - known.at) / 1000));
  }
}

export function rounds(known, again) {
  const all = [...known.rounds.values()].sort((a, b) => b.round - a.round);
  const section = byId("rounds-section");
  section.hidden = all.length === 0;
  if (!all.length) return;
  setText(byId("rounds-count"), count(all.length));
  const columns = ["Round", ...known.metrics, "Learners", "Time", "Down", "Up", "Model"];
  const head = byId("rounds-head");
  if (JSON.stringify(columns) !== head.dataset.columns) {
    head.dataset.columns = JSON.stringify(columns);
    const plain = new Set(["Round", "Learners", "Model"]);
    head.replaceChildren(
      ...columns.map((column, index) => {
        const metric = index > 0 && index <= known.metrics.length;
        return el(
          "th",
          { role: "columnheader", scope: "col", class: metric || !plain.has(column) ? "number" : "" },
          column,
        );
      }),
    );
    byId("rounds").held?.clear();
    byId("rounds").replaceChildren();
  }
  const make = () => {
    const made = row(
      "",
      ...known.metrics.map(() => "number metric"),
      "members",
      "number time",
      "number nowrap down",
      "number nowrap up",
      "nowrap model",
    );
    known.metrics.forEach((metric, index) => (made.children[index + 1].dataset.label = metric));
    return made;
  };
  keyed(
    byId("rounds"),
    capped(all, "rounds", again),
    (round) => round.round,
    make,
    (line, round) => {
      const best = known.run.best_round === round.round;
      const said = JSON.stringify([round, best]); // an unchanged row keeps its opened details
      if (line.said === said) return;
      line.said = said;
      const [name, ...rest] = line.children;
      name.replaceChildren(
        el("span", { class: "only-narrow" }, "Round "),
        String(round.round),
        ...(best ? [" ", el("span", { class: "tag" }, "best")] : []),
      );
      const values = rest.splice(0, known.metrics.length);
      values.forEach((cell, index) => setText(cell, number(known.score(round, known.metrics[index]), "")));
      const [who, time, down, up, model] = rest;
      who.replaceChildren(...members(known, round));
      const t = round.timings_ms ?? {};
      const share = [
        ["train", t.train_round],
        ["combine", t.aggregation],
        ["evaluate", t.evaluation_round],
      ].filter(([, ms]) => ms !== null && ms !== undefined);
      if (share.length)
        time.replaceChildren(
          el("span", { class: "nowrap" }, milliseconds(t.federation_round)),
          " ",
          el("small", {}, share.map(([what, ms]) => `${what} ${milliseconds(ms)}`).join(" · ")),
        );
      setText(down, round.bytes?.down ? bytes(round.bytes.down) : "");
      setText(up, round.bytes?.up ? bytes(round.bytes.up) : "");
      model.replaceChildren(...(round.model ? [el("code", {}, round.model.replace("sha256-", "").slice(0, 10))] : []));
    },
  );
}

/** Who completed a round, and who did not and why. */
function members(known, round) {
  const failed = Object.entries(round.failed ?? {});
  const parts = [
    el("span", { class: "nowrap" }, `${count(round.completed.length)} of ${count(round.selected.length)} completed`),
  ];
  if (round.state !== "closed") parts.push(" ", el("small", {}, `${round.state} now`));
  else if (round.closed_by) parts.push(" ", el("small", {}, round.closed_by));
  if (round.failure) parts.push(" ", el("small", {}, `no model, the one before stays: ${round.failure}`));
  for (const [learner, { factor, counts }] of Object.entries(round.capped ?? {}))
    parts.push(" ", el("small", {}, `${learner}'s factor ${number(factor)} counts as ${number(counts)}`));
  if (failed.length) {
    const list = failed.map(([learner, reason]) =>
      el(
        "li",
        {},
        el("b", {}, known.nameOf(learner)),
        `: ${reason}`,
        traceback(known, (task) => task.kind === "train" && task.round === round.round && task.learner === learner),
      ),
    );
    parts.push(el("details", {}, el("summary", {}, `${count(failed.length)} failed`), el("ul", {}, ...list)));
  }
  return parts;
}

/** The traceback of the failed task that `is` picks from the run's results, which are fetched when it is opened. */
function traceback(known, is, run = known.run.id) {
  const text = el("pre", { tabindex: "0" });
  const made = el("details", {}, el("summary", {}, "traceback"), text);
  made.addEventListener("toggle", async () => {
    if (!made.open || text.textContent) return;
    const found = (await known.tasksOf(run))?.find((task) => task.state === "failed" && is(task));
    if (found) setText(text, found.traceback ?? "none was told");
  });
  return made;
}

export function log(known, events) {
  byId("log-empty").hidden = events.length > 0;
  const make = (event) => {
    const time = el("time", {}, clock(event.at));
    time.dateTime = event.at;
    return el(
      "li",
      { class: "entry" },
      time,
      el("span", { class: "dot", "aria-hidden": "true" }),
      el(
        "div",
        {},
        event.kind === "run-state" ? `the run is ${event.text}` : event.text || event.kind,
        ...(event.kind === "task-failed" ? [traceback(known, (task) => task.id === event.data.task, event.run_id)] : []),
      ),
    );
  };
  keyed(
    byId("log"),
    events,
    (event) => event.id,
    make,
    (item, event) => {
      item.dataset.tone = TONES[event.kind] ?? "idle";
    },
  );
}
