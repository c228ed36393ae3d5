"use strict";

// The screens: each a canvas that shows one world, and the player that gives all of them their frames in time.

import { Surface, disc, distinctColour, inkColour, make, palette, redraw, ring, say, steady, write } from "./shared.js";

const MARGIN = 0.04; // of the picture, around the scene
const FLASH_FRAMES = 4;
const WRITTEN_EVERY = 2; // frames; laying out text costs more than drawing a scene, and nobody reads faster
const MOST_WAITING = 2;
const HURRY = 1.3; // how much faster frames follow one another while clips wait
const STRIP = 5;
const NUMBERED_RADIUS = 8; // pixels; a disc smaller than that has no room for a digit

export class Screen {
  constructor(index) {
    this.index = index;
    this.frame = null;
    this.flash = 0;
    this.waiting = "";
    this.cellsDrawn = { key: "", canvas: null };
    const glass = make("div", "glass");
    this.surface = new Surface(this, glass, "screen");
    this.surface.canvas.dataset.index = index;
    this.surface.canvas.role = "img";
    this.label = make("span", "label", `world ${index + 1}`);
    this.last = make("span", "last");
    this.now = make("span", "now", "R –  S –");
    this.figure = make("figure", "tile", glass, make("figcaption", "", this.label, this.last, this.now));
    this.describe();
  }

  describe() {
    const what = this.frame ? "" : `, ${this.waiting || "waiting"}`;
    this.surface.canvas.ariaLabel = `Screen ${this.index + 1}: ${this.label.textContent}${what}`;
  }

  wait(text) {
    if (this.frame || this.waiting === text) return;
    this.waiting = text;
    this.describe();
    redraw(this);
  }

  /** Begin a clip: what all of its frames share. */
  begin(source, mosaic) {
    this.source = source;
    this.mosaic = mosaic;
    write(this.label, source.label ?? `world ${this.index + 1}`);
    this.label.title = this.label.textContent;
    this.frame = source.frames[0];
    this.describe();
  }

  show(number) {
    this.number = number;
    this.frame = this.source.frames[number];
    const held = number === this.source.frames.length - 1;
    if (held || this.frame.ended || number % WRITTEN_EVERY === 0) this.writeNow();
    if (this.frame.ended) {
      write(this.last, `last ${steady(this.frame.return)}`);
      this.flash = FLASH_FRAMES;
    } else if (this.flash) this.flash -= 1;
    redraw(this);
  }

  writeNow() {
    write(this.now, `R ${steady(this.frame.return)}  S ${this.frame.step}`);
  }

  fade() {
    this.flash -= 1;
    redraw(this);
  }

  draw() {
    const context = this.surface.begin();
    if (!context) return;
    if (!this.frame) this.drawWaiting(context);
    else if (this.mosaic) this.drawTile(context);
    else this.drawScene(context);
    if (this.flash) this.drawFlash(context);
  }

  drawWaiting(context) {
    const { width, height } = this.surface;
    const { edge } = palette();
    const [x, y, radius] = [width / 2, height / 2 - 10, Math.min(width, height) * 0.2];
    for (const share of [1, 0.62]) ring(context, x, y, radius * share, edge, 1.5);
    const [outside, tick] = [1.15 * radius, 1.5];
    context.lineDashOffset = tick / 2;
    context.setLineDash([tick, (outside * Math.PI) / 6 - tick]); // a ring of twelve ticks
    ring(context, x, y, outside, edge, 0.16 * radius);
    context.setLineDash([]);
    say(context, this.waiting, x, y + radius * 1.25 + 12, { size: 12, base: "top", most: width - 12 });
  }

  drawTile(context) {
    const { columns, width, height, pictures } = this.mosaic;
    const picture = pictures[this.number ?? 0];
    if (!picture) return;
    const scale = Math.min(this.surface.width / width, this.surface.height / height);
    const [w, h] = [width * scale, height * scale];
    const [left, top] = [(this.surface.width - w) / 2, (this.surface.height - h) / 2];
    const [column, row] = [this.index % columns, Math.floor(this.index / columns)];
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(picture, column * width, row * height, width, height, left, top, w, h);
  }

  drawScene(context) {
    const place = fitting(this.source.extent, this.surface);
    this.drawCells(context, place);
    drawLines(context, this.frame.lines ?? [], place);
    drawDiscs(context, this.frame.discs ?? [], place);
    if (this.frame.skills) drawSkills(context, this.frame, place, this.surface.width);
  }

  /** Cells seldom change, so they are drawn once and copied after that. */
  drawCells(context, place) {
    const { cells } = this.frame;
    if (!cells || !this.source.grid) return;
    const { width, height } = this.surface.canvas;
    const key = `${cells} ${width} ${height} ${palette().surface} ${this.source.extent}`;
    if (this.cellsDrawn.key !== key) this.cellsDrawn = { key, canvas: paintCells(cells, this, place) };
    context.drawImage(this.cellsDrawn.canvas, 0, 0, this.surface.width, this.surface.height);
  }

  drawFlash(context) {
    const { width, height } = this.surface;
    context.globalAlpha = this.flash / FLASH_FRAMES;
    context.strokeStyle = palette().accent;
    context.lineWidth = 6; // half of it lies outside of the canvas
    context.strokeRect(0, 0, width, height);
    context.globalAlpha = 1;
  }
}

/** From the world's unit to CSS pixels: the scene in the middle, as large as fits. */
function fitting([left, bottom, right, top], { width, height }) {
  const scale = (1 - 2 * MARGIN) * Math.min(width / (right - left), height / (top - bottom));
  const [x0, y0] = [(width - scale * (right - left)) / 2, (height - scale * (top - bottom)) / 2];
  return { scale, x: (x) => x0 + scale * (x - left), y: (y) => y0 + scale * (top - y) };
}

function paintCells(cells, { source, surface }, place) {
  const { width, height } = surface.canvas;
  const canvas = Object.assign(make("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const [rows, columns] = source.grid;
  const [left, bottom, right, top] = source.extent;
  const edge = (value) => Math.round(value * surface.ratio); // whole device pixels: no seams between cells
  const xs = Array.from({ length: columns + 1 }, (_, c) => edge(place.x(left + ((right - left) * c) / columns)));
  const ys = Array.from({ length: rows + 1 }, (_, r) => edge(place.y(top - ((top - bottom) * r) / rows)));
  for (let cell = 0; cell < cells.length; cell++) {
    const ink = parseInt(cells[cell], 36);
    if (!ink) continue;
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    context.fillStyle = inkColour(ink);
    context.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  }
  return canvas;
}

function drawLines(context, lines, place) {
  context.lineCap = "round";
  for (let i = 0; i + 5 < lines.length; i += 6) {
    context.strokeStyle = inkColour(lines[i + 5]);
    context.lineWidth = Math.max(place.scale * lines[i + 4], 1);
    context.beginPath();
    context.moveTo(place.x(lines[i]), place.y(lines[i + 1]));
    context.lineTo(place.x(lines[i + 2]), place.y(lines[i + 3]));
    context.stroke();
  }
}

function drawDiscs(context, discs, place) {
  for (let i = 0; i + 3 < discs.length; i += 4) {
    const radius = Math.max(place.scale * discs[i + 2], 1);
    disc(context, place.x(discs[i]), place.y(discs[i + 1]), radius, inkColour(discs[i + 3]));
  }
}

/** The radius of the largest disc around an agent, so that its ring lies outside of it. */
function bodyRadius(discs, x, y, scale) {
  let radius = 0;
  for (let i = 0; i + 3 < discs.length; i += 4) {
    if (Math.hypot(discs[i] - x, discs[i + 1] - y) < discs[i + 2] / 2) radius = Math.max(radius, discs[i + 2]);
  }
  return radius * scale;
}

function drawSkills(context, { skills, agents = [], discs = [] }, place, width) {
  const [team, ...own] = skills;
  context.fillStyle = distinctColour(team);
  context.fillRect(0, 0, width, STRIP);
  own.forEach((skill, agent) => {
    const [x, y] = [agents[2 * agent], agents[2 * agent + 1]];
    if (x !== undefined) drawRing(context, skill, place.x(x), place.y(y), bodyRadius(discs, x, y, place.scale));
  });
}

function drawRing(context, skill, x, y, inside) {
  const { surface } = palette();
  const radius = Math.max(inside, 3) + 3.5;
  ring(context, x, y, radius, surface, 6);
  ring(context, x, y, radius, distinctColour(skill), 3);
  if (inside < NUMBERED_RADIUS) return;
  const size = Math.min(Math.round(inside * 1.1), 13);
  say(context, String(skill), x, y + 0.5, { size, weight: "700", colour: surface });
}

// --- the player ---

/** Gives the screens their frames: a clip after the other, the last frame held, nothing while the tab is hidden. */
export class Player {
  constructor(counters, begun) {
    this.counters = counters;
    this.begun = begun;
    this.screens = [];
    this.waiting = [];
    this.taking = Promise.resolve();
    this.clip = null;
    this.next = this.timer = this.due = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.resume()));
  }

  /** Clips are shown in the order in which they came, however long their pictures take to decode. */
  take(clip) {
    if (clip.screens[0]?.frames.length) this.taking = this.taking.then(() => this.prepare(clip)).catch(console.error);
  }

  async prepare(clip) {
    const ready = { ...clip, screens: clip.screens.map(withCells), mosaic: await withPictures(clip.mosaic) };
    this.counters.clips += 1;
    this.waiting.push(ready);
    if (this.waiting.length > MOST_WAITING || document.hidden) this.waiting = [ready];
    this.resume();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
  }

  resume() {
    if (this.timer || document.hidden) return;
    this.due = Math.max(this.due, performance.now());
    this.plan();
  }

  plan() {
    this.timer = setTimeout(() => this.tick(), Math.max(0, this.due - performance.now()));
  }

  tick() {
    this.timer = 0;
    if (!this.advance() && !this.fade()) return;
    const late = performance.now() - this.due;
    const interval = 1000 / (this.clip.fps || 10) / (this.waiting.length === MOST_WAITING ? HURRY : 1);
    this.due += late > interval ? late + interval : interval;
    this.plan();
  }

  /** Show the next frame; false when the last one is shown and no clip waits. */
  advance() {
    if (!this.clip || this.next >= this.clip.length) {
      if (!this.waiting.length) return false;
      this.start(this.waiting.shift());
    }
    for (const screen of this.screens) screen.show(this.next);
    this.next += 1;
    this.counters.frames += this.screens.length;
    return true;
  }

  /** A flash ends even while the last frame is held. */
  fade() {
    const lit = this.screens.filter((screen) => screen.flash);
    for (const screen of lit) screen.fade();
    return lit.length > 0;
  }

  start(clip) {
    this.clip = clip;
    this.clip.length = clip.screens[0].frames.length;
    this.next = 0;
    this.begun(clip);
    clip.screens.forEach((source, index) => this.screens[index].begin(source, clip.mosaic));
  }
}

/** Give every frame its cells, also those that repeat the frame before. */
function withCells(screen) {
  let cells;
  return { ...screen, frames: screen.frames.map((frame) => ({ ...frame, cells: (cells = frame.cells ?? cells) })) };
}

async function withPictures(mosaic) {
  if (!mosaic) return null;
  return { ...mosaic, pictures: await Promise.all(mosaic.images.map(decoded)) };
}

/** A picture that cannot be read leaves its frame empty; the rest of the clip is shown. */
function decoded(address) {
  const image = Object.assign(new Image(), { src: address });
  return image.decode().then(() => image, () => null);
}
