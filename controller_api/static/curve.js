// One metric over the rounds, drawn as SVG: axes, the combined score, the span of the learners' own, a target.
// Pointer and arrow keys move along the rounds; to a screen reader the drawing is a slider that speaks each value.

import { el, setText, svg } from "./dom.js";
import { number } from "./words.js";

const HEIGHT = 210;
const MARGIN = { top: 12, right: 14, bottom: 40, left: 58 };
const MOST_POINTS = 2000;
let serial = 0;

export class Curve {
  constructor(metric) {
    const id = `curve-${(serial += 1)}`;
    this.clip = `${id}-clip`;
    this.metric = metric;
    this.points = [];
    this.target = null;
    this.at = null; // index of the point that is looked at; null: the newest
    this.readout = el("span", { class: "readout" });
    this.summary = el("p", { class: "hush", id: `${id}-summary` });
    this.drawing = svg("svg", {
      role: "slider",
      tabindex: "0",
      height: HEIGHT,
      "aria-labelledby": `${id}-name`,
      "aria-describedby": `${id}-summary`,
      "aria-valuemin": 0,
      "aria-readonly": "true",
    });
    const name = el("h3", { id: `${id}-name` }, metric);
    this.figure = el(
      "figure",
      { class: "card curve" },
      el("figcaption", {}, name, this.readout),
      this.drawing,
      this.summary,
    );
    this.listen();
  }

  listen() {
    new ResizeObserver(() => this.draw()).observe(this.figure);
    this.drawing.addEventListener("pointermove", (event) => this.look(this.nearest(event.offsetX)));
    this.drawing.addEventListener("pointerdown", (event) => this.look(this.nearest(event.offsetX)));
    this.drawing.addEventListener("pointerleave", () => this.look(null));
    this.drawing.addEventListener("blur", () => this.look(null));
    this.drawing.addEventListener("keydown", (event) => {
      const last = this.points.length - 1;
      const at = this.at ?? last;
      const next = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last }[
        event.key
      ];
      if (next === undefined) return;
      event.preventDefault();
      this.look(Math.min(last, Math.max(0, next)));
    });
  }

  /** `points` are {round, value, low, high} in the order of the rounds; `low` and `high` may be null. The axis reaches
   * at least to round `until`. */
  show(points, target, until) {
    const shown = JSON.stringify([points, target, until]);
    if (shown === this.shown) return;
    this.shown = shown;
    this.until = until;
    const stride = Math.ceil(points.length / MOST_POINTS);
    this.points = points.filter((_, index) => (points.length - 1 - index) % stride === 0);
    this.target = target;
    this.at = null;
    this.draw();
  }

  draw() {
    const width = this.drawing.clientWidth;
    if (!width || !this.points.length) return;
    const [bottom, top] = range(this.points, this.target);
    const ticks = steps(bottom, top, 4);
    const low = Math.min(bottom, ticks[0]);
    const high = Math.max(top, ticks.at(-1));
    const first = this.points[0].round;
    const last = Math.max(this.points.at(-1).round, this.until, first + 1);
    const right = width - MARGIN.right;
    const base = HEIGHT - MARGIN.bottom;
    this.x = (round) => MARGIN.left + ((round - first) / (last - first)) * (right - MARGIN.left);
    this.y = (value) => base - ((value - low) / (high - low)) * (base - MARGIN.top);

    const parts = [
      svg(
        "clipPath",
        { id: this.clip },
        svg("rect", { x: MARGIN.left - 6, y: 0, width: right - MARGIN.left + 12, height: base + 6 }),
      ),
    ];
    for (const tick of ticks) {
      parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: this.y(tick), y2: this.y(tick) }));
      parts.push(svg("text", { class: "tick end", x: MARGIN.left - 8, y: this.y(tick) + 4 }, number(tick)));
    }
    const rounds = steps(first, last, Math.min(8, Math.floor(width / 70))).filter(
      (tick) => Number.isInteger(tick) && tick >= first && tick <= last,
    );
    for (const tick of rounds) parts.push(svg("text", { class: "tick", x: this.x(tick), y: base + 18 }, String(tick)));
    parts.push(svg("text", { class: "axis", x: (MARGIN.left + right) / 2, y: HEIGHT - 4 }, "round"));
    const middle = (base + MARGIN.top) / 2;
    parts.push(
      svg("text", { class: "axis", x: 12, y: middle, transform: `rotate(-90 12 ${middle})` }, shorten(this.metric, 22)),
    );
    parts.push(svg("line", { class: "floor", x1: MARGIN.left, x2: right, y1: base, y2: base }));

    const inside = svg("g", { "clip-path": `url(#${this.clip})` });
    if (this.target !== null) {
      inside.append(
        svg("line", { class: "target", x1: MARGIN.left, x2: right, y1: this.y(this.target), y2: this.y(this.target) }),
      );
      parts.push(
        svg("text", { class: "tick end", x: right, y: this.y(this.target) - 5 }, `target ${number(this.target)}`),
      );
    }
    inside.append(svg("path", { class: "span", d: this.area() }), svg("path", { class: "line", d: this.line() }));
    if (this.points.length <= 40) {
      for (const { round, value } of this.points) {
        if (value !== null)
          inside.append(svg("circle", { class: "point", r: 3, cx: this.x(round), cy: this.y(value) }));
      }
    }
    this.rule = svg("line", { class: "rule", y1: MARGIN.top, y2: base });
    this.mark = svg("circle", { class: "mark", r: 5 });
    inside.append(this.rule, this.mark);
    parts.push(inside);
    this.drawing.replaceChildren(...parts);
    this.look(this.at);
  }

  line() {
    let path = "";
    let pen = "M";
    for (const { round, value } of this.points) {
      if (value === null) pen = "M";
      else {
        path += `${pen}${this.x(round).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
      }
    }
    return path;
  }

  area() {
    const known = this.points.filter((point) => point.low !== null && point.high !== null);
    if (known.length < 2) return "";
    const corner = (round, value) => `${this.x(round).toFixed(1)} ${this.y(value).toFixed(1)}`;
    const above = known.map((point) => corner(point.round, point.high));
    const below = known.map((point) => corner(point.round, point.low)).reverse();
    return `M${[...above, ...below].join("L")}Z`;
  }

  nearest(x) {
    let best = null;
    this.points.forEach((point, index) => {
      if (best === null || Math.abs(this.x(point.round) - x) < Math.abs(this.x(this.points[best].round) - x))
        best = index;
    });
    return best;
  }

  /** Shows the value of one point; null returns to the newest. */
  look(index) {
    if (!this.mark) return;
    this.at = index;
    const point = this.points[index ?? this.points.length - 1];
    const span =
      point.low === null || point.low === point.high ? "" : ` (learners ${number(point.low)} to ${number(point.high)})`;
    this.readout.replaceChildren(
      el("strong", {}, number(point.value)),
      el("span", {}, `round ${point.round}`),
      el("small", {}, span.trim()),
    );
    this.drawing.setAttribute("aria-valuemax", this.points.at(-1).round);
    this.drawing.setAttribute("aria-valuemin", this.points[0].round);
    this.drawing.setAttribute("aria-valuenow", point.round);
    this.drawing.setAttribute("aria-valuetext", `round ${point.round}: ${number(point.value)}${span}`);
    const x = this.x(point.round);
    this.rule.setAttribute("x1", x);
    this.rule.setAttribute("x2", x);
    this.rule.toggleAttribute("hidden", index === null);
    this.mark.toggleAttribute("hidden", point.value === null);
    if (point.value !== null) {
      this.mark.setAttribute("cx", x);
      this.mark.setAttribute("cy", this.y(point.value));
    }
    const [start, end] = [this.points[0], this.points.at(-1)];
    setText(
      this.summary,
      `From ${number(start.value)} in round ${start.round} to ${number(end.value)} in round ${end.round}.`,
    );
  }
}

/** The values that must be seen; learners' own scores widen the range, but an outlier cannot flatten the curve. */
function range(points, target) {
  const values = points.map((point) => point.value).filter((value) => value !== null);
  if (target !== null) values.push(target);
  if (!values.length) return [0, 1];
  let low = Math.min(...values);
  let high = Math.max(...values);
  const room = high - low || Math.abs(high) * 0.1 || 1;
  const lows = points.map((point) => point.low).filter((value) => value !== null);
  const highs = points.map((point) => point.high).filter((value) => value !== null);
  if (lows.length) low = Math.max(low - room, Math.min(low, ...lows));
  if (highs.length) high = Math.min(high + room, Math.max(high, ...highs));
  return low === high ? [low - room / 2, high + room / 2] : [low, high];
}

/** About `wanted` round numbers that enclose low and high. */
function steps(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const start = Math.floor(low / step + 1e-9);
  const stop = Math.ceil(high / step - 1e-9);
  return Array.from({ length: stop - start + 1 }, (_, index) => Number(((start + index) * step).toPrecision(12)));
}

const shorten = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
