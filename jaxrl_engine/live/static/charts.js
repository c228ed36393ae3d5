"use strict";

// The four charts: lines over environment steps, with a read-out under the pointer or the arrow keys.

import { Surface, compact, disc, distinctColour, isNumber, listen } from "./shared.js";
import { make, palette, redraw, say, ticks, write } from "./shared.js";

const LEFT = 40;
const BOTTOM = 18;
const TOP = 6;
const RIGHT = 10;
const PADDING = 0.06; // of the range of values, above and below

export class Chart {
  constructor(parent) {
    this.lines = [];
    this.at = null;
    this.title = make("h2");
    this.legend = make("ul", "legend");
    const plot = make("div", "plot");
    this.card = make("article", "card", make("div", "top", this.title, this.legend), plot);
    parent.append(this.card);
    this.surface = new Surface(this, plot, "chart");
    this.listen(this.surface.canvas);
  }

  listen(canvas) {
    Object.assign(canvas, { tabIndex: 0, role: "img" });
    const at = (event) => this.point(this.stepsAt(event.offsetX));
    const leave = () => this.point(null);
    listen(canvas, {
      pointermove: at, pointerdown: at, pointerleave: leave, blur: leave, keydown: (event) => this.key(event),
    });
  }

  set({ title, unit, lines }) {
    this.lines = lines;
    write(this.title, unit ? `${title} (${unit})` : title);
    this.range = ranges(lines);
    this.nameLines();
    this.readOut();
    redraw(this);
  }

  nameLines() {
    const names = JSON.stringify(this.lines.map((line) => [line.name, line.faint]));
    if (names === this.names) return;
    this.names = names;
    this.values = this.lines.map(() => make("output"));
    const entries = this.lines.map((line, index) => make("li", "", make("b"), line.name, this.values[index]));
    this.legend.replaceChildren(...entries);
    this.colourLegend();
  }

  colourLegend() {
    [...this.legend.children].forEach((entry, index) => (entry.firstChild.style.color = this.colour(index)));
  }

  colour(index) {
    if (this.lines[index].faint) return palette()["faint-line"];
    return distinctColour(this.lines.slice(0, index).filter((line) => !line.faint).length);
  }

  /** Say each line's value where the pointer is, otherwise its newest. */
  readOut() {
    const told = this.lines.map((line) => {
      const index = this.at === null ? newest(line.y) : nearest(line.x, this.at);
      return compact(line.y[index]);
    });
    told.forEach((text, index) => write(this.values[index], text));
    const spoken = this.lines.map((line, index) => `${line.name} ${told[index]}`).join(", ");
    const where = this.at === null ? "" : ` at ${compact(this.at, 4)} steps`;
    this.surface.canvas.ariaLabel = `${this.title.textContent}${where}: ${spoken || "no values yet"}`;
  }

  stepsAt(pixel) {
    if (!this.range) return null;
    const { first, last } = this.range;
    const share = (pixel - LEFT) / Math.max(this.surface.width - LEFT - RIGHT, 1);
    const xs = this.longest();
    return xs[nearest(xs, first + share * (last - first))];
  }

  longest() {
    return this.lines.reduce((xs, line) => (line.x.length > xs.length ? line.x : xs), []);
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.range) return;
    event.preventDefault();
    const xs = this.longest();
    const index = this.at === null ? xs.length - 1 : nearest(xs, this.at) + move;
    this.point(xs[index] ?? this.at);
  }

  point(steps) {
    if (this.at === steps) return;
    this.at = steps;
    this.readOut();
    redraw(this);
  }

  draw() {
    const context = this.surface.begin();
    if (!context) return;
    if (!this.range) return this.drawEmpty(context);
    const place = this.placing();
    this.drawAxes(context, place);
    this.lines.forEach((line, index) => line.faint && this.drawLine(context, line, index, place));
    this.lines.forEach((line, index) => line.faint || this.drawLine(context, line, index, place));
    this.drawReadOut(context, place);
  }

  placing() {
    const { first, last, low, high } = this.range;
    const [width, height] = [this.surface.width - LEFT - RIGHT, this.surface.height - TOP - BOTTOM];
    return {
      x: (x) => LEFT + (last > first ? (x - first) / (last - first) : 0.5) * width,
      y: (y) => TOP + ((high - y) / (high - low)) * height,
    };
  }

  drawEmpty(context) {
    const { width, height } = this.surface;
    const middle = (TOP + height - BOTTOM) / 2;
    rule(context, width - RIGHT, [TOP, middle, height - BOTTOM]);
    say(context, "no values yet", (LEFT + width - RIGHT) / 2, middle - 4, { size: 12, base: "bottom" });
  }

  drawAxes(context, place) {
    const { width, height } = this.surface;
    const { first, last, low, high } = this.range;
    const rows = ticks(low, high, Math.max(3, Math.floor((height - TOP - BOTTOM) / 24)));
    rule(context, width - RIGHT, rows.map(([value]) => place.y(value)));
    for (const [value, text] of rows) {
      say(context, text, LEFT - 6, place.y(value) + 0.5, { align: "right", most: LEFT - 8 });
    }
    for (const [value, text] of ticks(first, last, Math.max(2, Math.floor(width / 80)))) {
      say(context, text, Math.min(place.x(value), width - 18), height - 4, { base: "alphabetic" });
    }
  }

  drawLine(context, { x, y, faint }, index, place) {
    const colour = this.colour(index);
    context.strokeStyle = colour;
    context.lineWidth = faint ? 1 : 1.5;
    context.lineJoin = context.lineCap = "round"; // with a round cap a point between two gaps is a dot
    context.beginPath();
    for (let i = 0; i < x.length; i++) {
      if (!isNumber(y[i])) continue;
      const point = [place.x(x[i]), place.y(y[i])];
      if (!isNumber(y[i - 1])) context.moveTo(...point);
      context.lineTo(...point);
    }
    context.stroke();
    const end = newest(y);
    if (!faint && end >= 0) disc(context, place.x(x[end]), place.y(y[end]), 2.5, colour);
  }

  drawReadOut(context, place) {
    if (this.at === null) return;
    const { muted, surface, text } = palette();
    const { width, height } = this.surface;
    const middle = Math.round(place.x(this.at));
    const where = Math.min(middle, width - 24);
    context.fillStyle = muted;
    context.fillRect(middle, TOP, 1, height - BOTTOM - TOP);
    context.fillStyle = surface;
    context.fillRect(where - 28, height - BOTTOM + 1, 56, BOTTOM);
    say(context, compact(this.at, 4), where, height - 4, { colour: text, weight: "600", base: "alphabetic" });
    this.lines.forEach((line, index) => {
      const i = nearest(line.x, this.at);
      if (!isNumber(line.y[i])) return;
      disc(context, place.x(line.x[i]), place.y(line.y[i]), 4.5, surface);
      disc(context, place.x(line.x[i]), place.y(line.y[i]), 3, this.colour(index));
    });
  }
}

function rule(context, right, ys) {
  context.fillStyle = palette().grid;
  for (const y of ys) context.fillRect(LEFT, Math.round(y), right - LEFT, 1);
}

function newest(values) {
  return values.findLastIndex(isNumber);
}

/** The index of the number that is nearest to `value`. */
function nearest(xs, value) {
  return xs.reduce((best, x, index) => (Math.abs(x - value) < Math.abs(xs[best] - value) ? index : best), 0);
}

/** What all lines span; null without any value. */
function ranges(lines) {
  const ys = lines.flatMap((line) => line.y.filter(isNumber));
  if (!ys.length) return null;
  const xs = lines.flatMap((line) => [line.x[0], line.x.at(-1)]).filter(isNumber);
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const room = (high - low) * PADDING || Math.abs(high) * 0.1 || 1;
  return { first: Math.min(...xs), last: Math.max(...xs), low: low - room, high: high + room };
}
