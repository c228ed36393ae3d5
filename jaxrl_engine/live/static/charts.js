"use strict";

// The four charts: lines over environment steps, with a read-out under the pointer or the arrow keys.

import { Surface, compact, distinctColour, make, niceTicks, palette, redraw, setFont, write } from "./shared.js";

const LEFT = 40;
const BOTTOM = 18;
const TOP = 6;
const RIGHT = 10;
const PADDING = 0.06; // of the range of values, above and below

export class Chart {
  constructor(parent) {
    this.lines = [];
    this.at = null;
    this.card = make("article", "card");
    const top = make("div", "top");
    this.title = make("h2");
    this.where = make("span", "at");
    this.legend = make("ul", "legend");
    top.append(this.title, this.where, this.legend);
    const plot = make("div", "plot");
    this.card.append(top, plot);
    parent.append(this.card);
    this.surface = new Surface(this, plot, "chart");
    this.listen(this.surface.canvas);
  }

  listen(canvas) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointermove", (event) => this.point(this.stepsAt(event.offsetX)));
    canvas.addEventListener("pointerdown", (event) => this.point(this.stepsAt(event.offsetX)));
    for (const name of ["pointerleave", "blur"]) canvas.addEventListener(name, () => this.point(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  set({ title, unit, lines }) {
    this.lines = lines;
    this.unit = unit ?? "";
    write(this.title, this.unit ? `${title} (${this.unit})` : title);
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
    const entries = this.lines.map((line, index) => {
      const entry = make("li");
      entry.append(make("b"), document.createTextNode(line.name), this.values[index]);
      return entry;
    });
    this.legend.replaceChildren(...entries);
    this.colourLegend();
  }

  colourLegend() {
    [...this.legend.children].forEach((entry, index) => {
      entry.firstChild.style.color = this.colour(index);
    });
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
    write(this.where, this.at === null ? "" : `at ${compact(this.at, 4)}`);
    const spoken = this.lines.map((line, index) => `${line.name} ${told[index]}`).join(", ");
    const label = `${this.title.textContent}: ${spoken || "no values yet"}`;
    this.surface.canvas.setAttribute("aria-label", label);
  }

  stepsAt(pixel) {
    if (!this.range) return null;
    const { first, last } = this.range;
    const share = (pixel - LEFT) / Math.max(this.surface.width - LEFT - RIGHT, 1);
    return this.snapped(first + Math.min(Math.max(share, 0), 1) * (last - first));
  }

  snapped(steps) {
    const xs = this.longest();
    return xs[nearest(xs, steps)];
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
    this.point(xs[Math.min(Math.max(index, 0), xs.length - 1)]);
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
    const { grid, muted } = palette();
    context.strokeStyle = grid;
    context.beginPath();
    for (const share of [0, 0.5, 1]) ruled(context, LEFT, width - RIGHT, TOP + share * (height - TOP - BOTTOM));
    context.stroke();
    setFont(context, 12);
    context.fillStyle = muted;
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText("no values yet", (LEFT + width - RIGHT) / 2, TOP + (height - TOP - BOTTOM) / 2 - 4);
  }

  drawAxes(context, place) {
    const { width, height } = this.surface;
    const { first, last, low, high } = this.range;
    const { grid, muted } = palette();
    const rows = niceTicks(low, high, Math.max(2, Math.floor((height - TOP - BOTTOM) / 34)));
    context.strokeStyle = grid;
    context.lineWidth = 1;
    context.beginPath();
    for (const value of rows) ruled(context, LEFT, width - RIGHT, place.y(value));
    context.stroke();
    setFont(context, 10.5);
    context.fillStyle = muted;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of rows) context.fillText(compact(value), LEFT - 6, place.y(value) + 0.5, LEFT - 8);
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    const columns = last > first ? niceTicks(first, last, Math.max(2, Math.floor(width / 80))) : [first];
    for (const value of columns) {
      const text = compact(value, 4);
      const half = context.measureText(text).width / 2;
      context.fillText(text, Math.min(place.x(value), width - half - 1), height - 4);
    }
  }

  drawLine(context, { x, y, faint }, index, place) {
    context.strokeStyle = context.fillStyle = this.colour(index);
    context.lineWidth = faint ? 1 : 1.5;
    context.lineJoin = "round";
    context.beginPath();
    for (let i = 0; i < x.length; i++) {
      if (!isNumber(y[i])) continue;
      if (isNumber(y[i - 1])) context.lineTo(place.x(x[i]), place.y(y[i]));
      else context.moveTo(place.x(x[i]), place.y(y[i]));
    }
    context.stroke();
    for (let i = 0; i < x.length; i++) {
      const alone = isNumber(y[i]) && !isNumber(y[i - 1]) && !isNumber(y[i + 1]);
      if (alone) dot(context, place.x(x[i]), place.y(y[i]), 1.5);
    }
    const end = newest(y);
    if (!faint && end >= 0) dot(context, place.x(x[end]), place.y(y[end]), 2.5);
  }

  drawReadOut(context, place) {
    if (this.at === null) return;
    const { muted, surface } = palette();
    const middle = Math.round(place.x(this.at)) + 0.5;
    context.strokeStyle = muted;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(middle, TOP);
    context.lineTo(middle, this.surface.height - BOTTOM);
    context.stroke();
    context.setLineDash([]);
    this.lines.forEach((line, index) => {
      const i = nearest(line.x, this.at);
      if (!isNumber(line.y[i])) return;
      context.fillStyle = surface;
      dot(context, place.x(line.x[i]), place.y(line.y[i]), 4.5);
      context.fillStyle = this.colour(index);
      dot(context, place.x(line.x[i]), place.y(line.y[i]), 3);
    });
  }
}

function isNumber(value) {
  return value !== null && value !== undefined;
}

function ruled(context, left, right, y) {
  const crisp = Math.round(y) + 0.5;
  context.moveTo(left, crisp);
  context.lineTo(right, crisp);
}

function dot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function newest(values) {
  return values.findLastIndex(isNumber);
}

/** The index of the number of a rising list that is nearest to `value`. */
function nearest(xs, value) {
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle;
    else high = middle;
  }
  return Math.abs((xs[low] ?? 0) - value) <= Math.abs((xs[high] ?? 0) - value) ? low : high;
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
