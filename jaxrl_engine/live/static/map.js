"use strict";

// The repertoire of a map-elites run: a cell for every kind of body, coloured by its fitness; a click shows its body.

import { Surface, compact, disc, isNumber, listen, make, palette, redraw, say, ticks, write } from "./shared.js";

// From low to high: lightness rises evenly, so that it also reads in grey and by the colour-blind.
const SCALE = ["#16283a", "#1d4a78", "#1f7396", "#2f9e8b", "#86c268", "#e6d55a", "#fbf3b4"].map((text) =>
  [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)),
);
const LEFT = 52;
const BOTTOM = 36;
const TOP = 8;
const RIGHT = 62; // the scale of colours
const BAR = 10;
const HATCH_STEP = 6;
const GAP_FROM = 9; // pixels; smaller cells touch one another

export class RepertoireMap {
  /** `select(cell)` asks for a cell's body, `select(null)` for the run's choice, where `selectable()`. */
  constructor(parent, select, selectable) {
    Object.assign(this, { select, selectable });
    this.map = this.cursor = null;
    this.cells = [];
    this.numbers = make("span", "numbers");
    const top = make("div", "top", make("h2", "", "Repertoire"), this.numbers);
    const plot = make("div", "plot");
    this.told = make("p");
    this.told.ariaLive = "polite";
    this.back = make("button", "", "Back to the run's choice");
    listen(this.back, { click: () => this.select(null) });
    parent.append(make("article", "card", top, plot, make("div", "told", this.told, this.back)));
    this.surface = new Surface(this, plot, "map");
    this.listen(this.surface.canvas);
  }

  listen(canvas) {
    Object.assign(canvas, { tabIndex: 0, role: "application", ariaRoleDescription: "map" });
    const cell = (event) => this.cellAt(event.offsetX, event.offsetY);
    const leave = () => this.point(null);
    listen(canvas, {
      pointermove: (event) => this.point(cell(event)), pointerleave: leave, blur: leave,
      click: (event) => this.choose(cell(event)), keydown: (event) => this.key(event),
    });
  }

  set(map) {
    this.map = map;
    this.limits = limits(map.fitness);
    const numbers = [`QD score ${compact(map.qd_score)}`, `coverage ${compact(100 * map.coverage)} %`];
    if (isNumber(map.generation)) numbers.push(`generation ${map.generation}`);
    write(this.numbers, numbers.join(" · "));
    const keys = "arrow keys move, Enter shows a cell's body, Escape goes back";
    this.surface.canvas.ariaLabel = `Repertoire, ${map.x.name} by ${map.y.name}: ${keys}`;
    this.tell();
    redraw(this);
  }

  /** Say which cell is on which screen; null where the body on it is in no cell. */
  setScreens(cells) {
    if (String(cells) === String(this.cells)) return;
    this.cells = cells;
    redraw(this);
  }

  tell() {
    if (!this.map) return;
    const { chosen } = this.map;
    this.back.hidden = !this.selectable() || !isNumber(chosen);
    const cell = this.cursor ?? chosen ?? null;
    const hint = this.selectable() ? "Choose a cell to see its body. " : "";
    const key = "Grey: empty. Hatched: no body can be there.";
    write(this.told, cell === null ? hint + key : this.describe(cell));
  }

  describe(cell) {
    const { texts, feasible } = this.map;
    const screen = this.cells.indexOf(cell);
    const where = screen < 0 ? "" : `, on screen ${screen + 1}`;
    if (texts[cell]) return texts[cell] + where;
    return `${this.middle(cell)}: ${feasible[cell] ? "empty" : "no body can be there"}`;
  }

  middle(cell) {
    const { kind, x, y, columns, places } = this.map;
    if (kind === "points") return [x, y].map(({ name }, axis) => `${name} ${compact(places[cell][axis])}`).join(", ");
    const at = [cell % columns, Math.floor(cell / columns)];
    const middle = ({ edges }, axis) => compact((edges[at[axis]] + edges[at[axis] + 1]) / 2);
    return [x, y].map((axis, number) => `${axis.name} ${middle(axis, number)}`).join(", ");
  }

  point(cell) {
    if (this.cursor === cell) return;
    this.cursor = cell;
    this.tell();
    redraw(this);
  }

  choose(cell) {
    if (cell === null) return;
    this.point(cell);
    if (this.selectable() && isNumber(this.map.fitness[cell])) this.select(cell);
  }

  key(event) {
    if (!this.map) return;
    if (event.key === "Enter" || event.key === " ") this.choose(this.cursor);
    else if (event.key === "Escape" && this.selectable()) this.select(null);
    else if (!this.step(event.key)) return;
    event.preventDefault();
  }

  /** Cells in the order in which they are numbered; a row is as many as a grid has columns. */
  step(key) {
    const row = this.map.columns ?? 1;
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: row, ArrowDown: -row }[key];
    if (!move) return false;
    const cell = (this.cursor ?? this.map.chosen ?? 0) + move;
    if (cell in this.map.fitness) this.point(cell);
    return true;
  }

  placing() {
    const { x, y, kind, fitness } = this.map;
    const [width, height] = [this.surface.width - LEFT - RIGHT, this.surface.height - TOP - BOTTOM];
    const across = ({ edges }, value) => (value - edges[0]) / (edges.at(-1) - edges[0]);
    return {
      width,
      height,
      x: (value) => LEFT + across(x, value) * width,
      y: (value) => TOP + (1 - across(y, value)) * height,
      radius: kind === "points" ? Math.max(0.42 * Math.sqrt((width * height) / fitness.length), 2) : 0,
    };
  }

  box(cell, place) {
    const { rows, columns, x, y } = this.map;
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const gap = Math.min(place.width / columns, place.height / rows) > GAP_FROM ? 1 : 0;
    const [left, right] = [column, column + 1].map((at) => Math.round(place.x(x.edges[at])));
    const [bottom, top] = [row, row + 1].map((at) => Math.round(place.y(y.edges[at])));
    return [left, top, right - left - gap, bottom - top - gap];
  }

  centre(cell, place) {
    if (place.radius) return [place.x(this.map.places[cell][0]), place.y(this.map.places[cell][1])];
    const [x, y, width, height] = this.box(cell, place);
    return [x + width / 2, y + height / 2];
  }

  cellAt(x, y) {
    if (!this.map || !this.surface.width) return null;
    const place = this.placing();
    if (place.radius) return this.nearestPlace(x, y, place);
    const { rows, columns } = this.map;
    const column = this.map.x.edges.findLastIndex((edge) => place.x(edge) <= x);
    const row = this.map.y.edges.findLastIndex((edge) => place.y(edge) >= y);
    return column >= 0 && column < columns && row >= 0 && row < rows ? row * columns + column : null;
  }

  nearestPlace(x, y, place) {
    const far = this.map.places.map(([px, py]) => Math.hypot(place.x(px) - x, place.y(py) - y));
    const least = Math.min(...far);
    return least < 1.5 * place.radius ? far.indexOf(least) : null;
  }

  draw() {
    const context = this.surface.begin();
    if (!context || !this.map) return;
    const place = this.placing();
    const hatch = hatching(context);
    this.map.fitness.forEach((_, cell) => this.drawCell(context, cell, place, hatch));
    this.drawAxes(context, place);
    this.drawScale(context, place);
    this.cells.forEach((cell, screen) => isNumber(cell) && this.drawShown(context, cell, screen, place));
    const { text, mark } = palette();
    if (isNumber(this.map.chosen)) this.outline(context, this.map.chosen, place, mark, 2.5);
    if (this.cursor !== null) this.outline(context, this.cursor, place, text, 1.5);
  }

  trace(context, cell, place, room = 0) {
    context.beginPath();
    if (place.radius) context.arc(...this.centre(cell, place), place.radius + room, 0, 2 * Math.PI);
    else {
      const [x, y, width, height] = this.box(cell, place);
      context.rect(x - room, y - room, width + 2 * room, height + 2 * room);
    }
  }

  drawCell(context, cell, place, hatch) {
    const { fitness, feasible } = this.map;
    const free = feasible[cell] ? palette().empty : hatch;
    this.trace(context, cell, place);
    context.fillStyle = isNumber(fitness[cell]) ? scaleColour(this.share(fitness[cell])) : free;
    context.fill();
  }

  share(value) {
    const [low, high] = this.limits;
    return (value - low) / (high - low);
  }

  outline(context, cell, place, colour, width) {
    this.trace(context, cell, place, width / 2);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }

  /** A cell that is on a screen bears the screen's number. */
  drawShown(context, cell, screen, place) {
    const [x, y] = this.centre(cell, place);
    const size = place.radius ? 2 * place.radius : Math.min(...this.box(cell, place).slice(2));
    const value = this.map.fitness[cell];
    const colour = !isNumber(value) ? palette().text : this.share(value) < 0.5 ? "#ffffff" : "#16283a";
    if (size < 11) return disc(context, x, y, Math.max(size / 5, 1.5), colour);
    say(context, String(screen + 1), x, y + 0.5, { colour, weight: "700", size: Math.min(Math.round(size * 0.6), 12) });
  }

  drawAxes(context, place) {
    const { x, y } = this.map;
    const [right, bottom] = [LEFT + place.width, TOP + place.height];
    for (const [value, text] of labels(x, place.width / 40)) {
      say(context, text, place.x(value), bottom + 4, { base: "top" });
    }
    for (const [value, text] of labels(y, place.height / 26)) {
      say(context, text, LEFT - 6, place.y(value), { align: "right" });
    }
    const named = { size: 11, colour: palette().text };
    say(context, x.name, (LEFT + right) / 2, this.surface.height - 1, { ...named, base: "bottom", most: place.width });
    context.save();
    context.translate(2, (TOP + bottom) / 2);
    context.rotate(-Math.PI / 2);
    say(context, y.name, 0, 0, { ...named, base: "top", most: place.height });
    context.restore();
  }

  drawScale(context, place) {
    const x = LEFT + place.width + 14;
    const gradient = context.createLinearGradient(0, TOP + place.height, 0, TOP);
    const steps = SCALE.length - 1;
    for (let step = 0; step <= steps; step++) gradient.addColorStop(step / steps, scaleColour(step / steps));
    context.fillStyle = gradient;
    context.fillRect(x, TOP, BAR, place.height);
    const [low, high] = this.limits;
    for (const [value, text] of ticks(low, high, Math.max(2, Math.floor(place.height / 50)))) {
      say(context, text, x + BAR + 5, TOP + (1 - this.share(value)) * place.height, { align: "left" });
    }
  }
}

function limits(fitness) {
  const values = fitness.filter(isNumber);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

/** Whether each cell of an axis is one whole number. */
function isWhole(edges) {
  return edges.every((edge, index) => edge % 1 === 0.5 && edge - index === edges[0]);
}

/** What stands where along an axis: whole numbers in the middle of their cells, otherwise round values. */
function labels({ edges }, most) {
  return ticks(edges[0], edges.at(-1), most).filter(([value]) => !isWhole(edges) || value % 1 === 0);
}

function scaleColour(share) {
  const from = Number(palette()["scale-from"]);
  const at = (from + (1 - from) * share) * (SCALE.length - 1);
  const index = Math.min(Math.floor(at), SCALE.length - 2);
  const mixed = SCALE[index].map((low, channel) => low + (at - index) * (SCALE[index + 1][channel] - low));
  return `rgb(${mixed.map(Math.round).join(" ")})`;
}

function hatching(context) {
  const tile = Object.assign(make("canvas"), { width: HATCH_STEP, height: HATCH_STEP });
  const pen = tile.getContext("2d");
  pen.strokeStyle = palette().hatch;
  pen.beginPath();
  pen.moveTo(0, HATCH_STEP);
  pen.lineTo(HATCH_STEP, 0);
  pen.stroke();
  return context.createPattern(tile, "repeat");
}
