"use strict";

// What every part of the page needs: elements, numbers as text, colours, and the one place that has things drawn.

const FIRST_DISTINCT = 7;
const DISTINCT = 8;
const MOST_PIXELS = 2; // per CSS pixel: more cannot be seen and costs four times as much

export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

export function listen(element, handlers) {
  for (const [name, handle] of Object.entries(handlers)) element.addEventListener(name, handle);
}

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- numbers ---

export const isNumber = Number.isFinite;

const UNITS = [[1e12, 1e12, "T"], [1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"], [0, 1, ""]];

export function compact(value, digits = 3) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  const [, unit, letter] = UNITS.find(([from]) => size >= from);
  const short = Number((value / unit).toPrecision(size >= 1e3 ? Math.max(digits, 4) : digits));
  const extreme = size && (size < 1e-3 || size >= 1e15);
  return (extreme ? Number(value.toPrecision(digits)).toExponential() : short + letter).replaceAll("-", "−");
}

/** With a fixed number of decimals, so that a number that changes often does not jump about. */
export function steady(value) {
  if (!isNumber(value) || Math.abs(value) >= 1e4) return compact(value);
  const text = value.toFixed(Math.abs(value) < 100 ? 2 : 1);
  return Number(text) < 0 ? `−${text.slice(1)}` : text.replace("-", "");
}

const two = (value) => String(value).padStart(2, "0");

export function duration(seconds) {
  const rounded = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  if (hours) return `${hours} h ${two(minutes)} min`;
  return minutes ? `${minutes} min ${two(rounded % 60)} s` : `${rounded} s`;
}

export function clockTime(seconds) {
  const rounded = Math.max(0, Math.floor(seconds));
  return `${Math.floor(rounded / 60)}:${two(rounded % 60)}`;
}

/** About `count` round values from `low` to `high`, multiples of 1, 2 or 5 times a power of ten, each with its text. */
export function ticks(low, high, count) {
  if (low === high) return [[low, compact(low, 4)]];
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.7) ?? 10);
  const digits = Math.max(3, 1 + Math.ceil(Math.log10(Math.max(-low, high) / step))); // so that no two read alike
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
    found.push([n * step, compact(n * step, digits)]);
  }
  return found;
}

// --- colours ---

let colours = null;

/** The colours of the style sheet under the theme in force: by name, and `inks` by number. */
export function palette() {
  if (colours) return colours;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = "surface text muted accent edge grid faint-line empty hatch mark scale-from".split(" ");
  colours = Object.fromEntries(names.map((name) => [name, read(name)]));
  colours.inks = Array.from({ length: FIRST_DISTINCT + DISTINCT }, (_, ink) => read(`ink-${ink}`));
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

// --- drawing ---

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
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    Object.assign(this, { width, height });
    redraw(view);
  }

  /** Return the context, cleared and in CSS pixels; null where there is nothing to draw on. */
  begin() {
    if (!this.width || !this.height) return null;
    const ratio = Math.min(devicePixelRatio, MOST_PIXELS);
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.ratio = ratio;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    return this.context;
  }
}

export function say(context, text, x, y, how = {}) {
  const { colour, size = 10.5, weight = "", align = "center", base = "middle", most } = how;
  context.font = `${weight} ${size}px ${palette().font}`;
  context.fillStyle = colour ?? palette().muted;
  context.textAlign = align;
  context.textBaseline = base;
  context.fillText(text, x, y, most);
}

export function disc(context, x, y, radius, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

export function ring(context, x, y, radius, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.stroke();
}
