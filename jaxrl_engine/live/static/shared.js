"use strict";

// What every part of the page needs: elements, numbers as text, colours, and one place that asks the browser to draw.

const INKS = 14;
const FIRST_DISTINCT = 7;
const DISTINCT = 8;
const MOST_PIXELS = 2; // per CSS pixel: more cannot be seen and costs four times as much

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- numbers ---------------------------------------------------------------------------------------------------------

function trimmed(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

export function compact(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) return value.toExponential(Math.min(digits - 1, 2)).replace("-", "−");
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) return trimmed(value / (letter === "k" ? 1e3 : unit), digits).replace("-", "−") + letter;
  }
  return trimmed(value, size >= 1000 ? 4 : digits).replace("-", "−");
}

export function whole(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const rounded = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(rounded % 60).padStart(2, "0")} s` : `${rounded} s`;
}

export function clockTime(seconds) {
  const rounded = Math.max(0, Math.floor(seconds));
  return `${Math.floor(rounded / 60)}:${String(rounded % 60).padStart(2, "0")}`;
}

/** Round values from `low` to `high`, at most about `count`, each a multiple of 1, 2 or 5 times a power of ten. */
export function niceTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const ticks = [];
  for (let index = first; index * step <= high + step * 1e-9; index++) ticks.push(index * step);
  return ticks;
}

// --- colours ---------------------------------------------------------------------------------------------------------

let colours = null;

/** The colours of the style sheet under the theme in force: by name, and `inks` by number. */
export function palette() {
  if (colours) return colours;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["surface", "text", "muted", "accent", "edge", "grid", "faint-line", "empty", "hatch", "mark"];
  colours = Object.fromEntries(names.map((name) => [name, read(name)]));
  colours.inks = [null, ...Array.from({ length: INKS }, (_, index) => read(`ink-${index + 1}`))];
  colours.font = getComputedStyle(document.body).fontFamily;
  return colours;
}

export function forgetPalette() {
  colours = null;
}

export function inkColour(ink) {
  const { inks } = palette();
  return ink < FIRST_DISTINCT ? inks[ink] : distinctColour(ink - FIRST_DISTINCT);
}

export function distinctColour(index) {
  return palette().inks[FIRST_DISTINCT + (index % DISTINCT)];
}

// --- drawing ---------------------------------------------------------------------------------------------------------

const stale = new Set();
let asked = false;

/** Have `view.draw()` called once before the browser paints next; not while nobody can see it. */
export function redraw(view) {
  stale.add(view);
  if (asked || document.hidden) return;
  asked = true;
  requestAnimationFrame(drawStale);
}

function drawStale() {
  asked = false;
  const views = [...stale];
  stale.clear();
  for (const view of views) view.draw();
}

document.addEventListener("visibilitychange", () => {
  for (const view of stale) redraw(view);
});

/** A canvas that fills its parent and redraws `view` whenever its size in device pixels changes. */
export class Surface {
  constructor(view, parent, className) {
    this.canvas = make("canvas", className);
    this.context = this.canvas.getContext("2d");
    this.width = this.height = 0;
    parent.append(this.canvas);
    new ResizeObserver(() => this.fit(view)).observe(parent);
  }

  fit(view) {
    const parent = this.canvas.parentElement;
    if (!parent) return;
    this.width = parent.clientWidth;
    this.height = parent.clientHeight;
    redraw(view);
  }

  /** Return the context, cleared and in CSS pixels; null where there is nothing to draw on. */
  begin() {
    if (!this.width || !this.height) return null;
    const ratio = Math.min(window.devicePixelRatio || 1, MOST_PIXELS);
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.ratio = ratio;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    return this.context;
  }
}

export function setFont(context, size, weight = "") {
  context.font = `${weight} ${size}px ${palette().font}`;
}
