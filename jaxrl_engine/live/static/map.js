"use strict";

// The repertoire of a map-elites run: a cell for every kind of body, coloured by its fitness; a click shows the cell's body.

import { Surface, compact, make, niceTicks, palette, redraw, setFont, write } from "./shared.js";

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
  /** `select(cell)` asks for a cell's body, `select(null)` for the run's own choice. */
  constructor(parent, select) {
    this.select = select;
    this.map = null;
    this.cursor = null;
    const card = make("article", "card");
    const top = make("div", "top");
    this.numbers = make("span", "numbers");
    top.append(make("h2", "", "Repertoire"), this.numbers);
    const plot = make("div", "plot");
    const told = make("div", "told");
    this.told = make("p");
    this.told.setAttribute("aria-live", "polite");
    this.back = make("button", "", "Back to the run's choice");
    this.back.type = "button";
    this.back.addEventListener("click", () => this.select(null));
    told.append(this.told, this.back);
    card.append(top, plot, told);
    parent.append(card);
    this.surface = new Surface(this, plot, "map");
    this.listen(this.surface.canvas);
  }

  listen(canvas) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "map");
    canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event.offsetX, event.offsetY)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => this.choose(this.cellAt(event.offsetX, event.offsetY)));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  set(map) {
    this.map = map;
    this.limits = limits(map.fitness);
    const [score, share] = [compact(map.qd_score), compact(100 * map.coverage)];
    write(this.numbers, `QD score ${score}   coverage ${share} %   generation ${map.generation}`);
    const label = `Repertoire, ${map.x.name} by ${map.y.name}: arrow keys move, Enter shows a cell's body, Escape goes back`;
    this.surface.canvas.setAttribute("aria-label", label);
    this.tell();
    redraw(this);
  }

  allowSelection(allowed) {
    this.selectable = allowed;
    this.tell();
  }

  tell() {
    if (!this.map) return;
    const { chosen } = this.map;
    this.back.hidden = !this.selectable || chosen === null || chosen === undefined;
    const cell = this.cursor ?? chosen ?? null;
    const hint = this.selectable ? "Choose a cell to see its body on the screens." : "";
    write(this.told, cell === null ? hint : this.describe(cell));
  }

  describe(cell) {
    const { texts, feasible, shown } = this.map;
    const screen = shown?.indexOf(cell) ?? -1;
    const where = screen < 0 ? "" : `, on screen ${screen + 1}`;
    if (texts[cell]) return texts[cell] + where;
    const { x, y } = this.bounds(cell);
    return `${x}, ${y}: ${feasible[cell] ? "empty" : "no body can be here"}`;
  }

  bounds(cell) {
    const { kind, x, y, columns, places } = this.map;
    if (kind === "points") return { x: `${x.name} ${compact(places[cell][0])}`, y: `${y.name} ${compact(places[cell][1])}` };
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const span = ({ name, edges }, at) => `${name} ${compact(edges[at])} to ${compact(edges[at + 1])}`;
    return { x: span(x, column), y: span(y, row) };
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
    if (this.selectable && isHeld(this.map, cell)) this.select(cell);
  }

  key(event) {
    if (!this.map) return;
    if (event.key === "Enter" || event.key === " ") this.choose(this.cursor);
    else if (event.key === "Escape" && this.selectable) this.select(null);
    else if (!this.step(event.key)) return;
    event.preventDefault();
  }

  step(key) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (!move) return false;
    const from = this.cursor ?? this.map.chosen ?? 0;
    this.point(this.map.kind === "points" ? this.towards(from, move) : this.beside(from, move));
    return true;
  }

  beside(cell, [right, up]) {
    const { rows, columns } = this.map;
    const column = Math.min(Math.max((cell % columns) + right, 0), columns - 1);
    const row = Math.min(Math.max(Math.floor(cell / columns) + up, 0), rows - 1);
    return row * columns + column;
  }

  /** The nearest place within 45 degrees of a direction. */
  towards(cell, [right, up]) {
    const place = this.placing();
    const [x0, y0] = this.centre(cell, place);
    let [best, least] = [cell, Infinity];
    this.map.places.forEach((_, other) => {
      const [x, y] = this.centre(other, place);
      const [along, across] = [(x - x0) * right + (y0 - y) * up, (x - x0) * up + (y - y0) * right];
      const far = Math.hypot(along, across);
      if (along >= Math.abs(across) && far > 0 && far < least) [best, least] = [other, far];
    });
    return best;
  }

  // --- places ---

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

  /** Cells of a grid are drawn equally large, whatever their edges are; the labels tell the edges. */
  box(cell, place) {
    const { rows, columns } = this.map;
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const gap = Math.min(place.width / columns, place.height / rows) > GAP_FROM ? 1 : 0;
    const [left, right] = [column, column + 1].map((at) => Math.round(LEFT + (at * place.width) / columns));
    const [top, bottom] = [rows - row - 1, rows - row].map((at) => Math.round(TOP + (at * place.height) / rows));
    return [left, top, right - left - gap, bottom - top - gap];
  }

  centre(cell, place) {
    if (this.map.kind === "points") return [place.x(this.map.places[cell][0]), place.y(this.map.places[cell][1])];
    const [x, y, width, height] = this.box(cell, place);
    return [x + width / 2, y + height / 2];
  }

  cellAt(x, y) {
    if (!this.map || !this.surface.width) return null;
    const place = this.placing();
    if (this.map.kind === "points") return this.nearestPlace(x, y, place);
    const { rows, columns } = this.map;
    const column = Math.floor(((x - LEFT) / place.width) * columns);
    const row = rows - 1 - Math.floor(((y - TOP) / place.height) * rows);
    return column >= 0 && column < columns && row >= 0 && row < rows ? row * columns + column : null;
  }

  nearestPlace(x, y, place) {
    let [best, least] = [null, place.radius * 1.5];
    this.map.places.forEach((_, cell) => {
      const [px, py] = this.centre(cell, place);
      const far = Math.hypot(px - x, py - y);
      if (far < least) [best, least] = [cell, far];
    });
    return best;
  }

  // --- drawing ---

  draw() {
    const context = this.surface.begin();
    if (!context || !this.map) return;
    const place = this.placing();
    this.map.fitness.forEach((_, cell) => this.drawCell(context, cell, place));
    this.drawAxes(context, place);
    this.drawScale(context, place);
    this.map.shown?.forEach((cell, screen) => this.drawShown(context, cell, screen, place));
    const { text, mark } = palette();
    if (this.map.chosen !== null && this.map.chosen !== undefined) this.outline(context, this.map.chosen, place, mark, 2.5);
    if (this.cursor !== null) this.outline(context, this.cursor, place, text, 1.5);
  }

  trace(context, cell, place, room = 0) {
    context.beginPath();
    if (this.map.kind === "points") context.arc(...this.centre(cell, place), place.radius + room, 0, 2 * Math.PI);
    else {
      const [x, y, width, height] = this.box(cell, place);
      context.rect(x - room, y - room, width + 2 * room, height + 2 * room);
    }
  }

  drawCell(context, cell, place) {
    const { fitness, feasible } = this.map;
    const held = isHeld(this.map, cell);
    this.trace(context, cell, place);
    context.fillStyle = held ? this.colour(fitness[cell]) : feasible[cell] ? palette().empty : hatching(context);
    context.fill();
  }

  colour(value) {
    const [low, high] = this.limits;
    return scaleColour((value - low) / (high - low));
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
    const size = this.map.kind === "points" ? 2 * place.radius : Math.min(...this.box(cell, place).slice(2));
    const dark = isHeld(this.map, cell) && lightness(this.map.fitness[cell], this.limits) < 0.55;
    context.fillStyle = dark ? "#ffffff" : "#16283a";
    if (size < 11) {
      context.beginPath();
      context.arc(x, y, Math.max(size / 5, 1.5), 0, 2 * Math.PI);
      return context.fill();
    }
    setFont(context, Math.min(Math.round(size * 0.6), 12), "700");
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(screen + 1), x, y + 0.5);
  }

  drawAxes(context, place) {
    const { x, y, kind } = this.map;
    const [right, bottom] = [LEFT + place.width, TOP + place.height];
    setFont(context, 10.5);
    context.fillStyle = palette().muted;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const [at, text] of labels(x, kind, place.width / 44)) context.fillText(text, LEFT + at * place.width, bottom + 4);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const [at, text] of labels(y, kind, place.height / 26)) context.fillText(text, LEFT - 5, bottom - at * place.height);
    context.fillStyle = palette().text;
    setFont(context, 11);
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(x.name, (LEFT + right) / 2, this.surface.height - 1, place.width);
    context.save();
    context.translate(2, (TOP + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textBaseline = "top";
    context.fillText(y.name, 0, 0, place.height);
    context.restore();
  }

  drawScale(context, place) {
    const x = LEFT + place.width + 14;
    const gradient = context.createLinearGradient(0, TOP + place.height, 0, TOP);
    SCALE.forEach((_, index) => gradient.addColorStop(index / (SCALE.length - 1), scaleColour(index / (SCALE.length - 1))));
    context.fillStyle = gradient;
    context.fillRect(x, TOP, BAR, place.height);
    const [low, high] = this.limits;
    setFont(context, 10.5);
    context.fillStyle = palette().muted;
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const value of niceTicks(low, high, Math.max(2, Math.floor(place.height / 50)))) {
      const y = TOP + (1 - (value - low) / (high - low)) * place.height;
      context.fillText(compact(value), x + BAR + 5, y);
    }
  }
}

function isHeld({ fitness }, cell) {
  return fitness[cell] !== null && fitness[cell] !== undefined;
}

function limits(fitness) {
  const values = fitness.filter((value) => value !== null);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

/** Which edges are named: every one of a grid that has room, round values between the ends of a tessellation's. */
function labels({ edges }, kind, most) {
  if (kind === "points") {
    const [low, high] = [edges[0], edges.at(-1)];
    return niceTicks(low, high, most).map((value) => [(value - low) / (high - low), compact(value)]);
  }
  const every = Math.ceil(edges.length / Math.max(most, 2));
  const named = edges.map((value, index) => [index / (edges.length - 1), compact(value)]);
  return named.filter((_, index) => index % every === 0);
}

function shade(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const index = Math.min(Math.floor(at), SCALE.length - 2);
  return SCALE[index].map((from, channel) => from + (at - index) * (SCALE[index + 1][channel] - from));
}

function scaleColour(share) {
  return `rgb(${shade(share).map(Math.round).join(" ")})`;
}

function lightness(value, [low, high]) {
  const [red, green, blue] = shade((value - low) / (high - low));
  return (0.3 * red + 0.59 * green + 0.11 * blue) / 255;
}

let hatched = { colour: "", pattern: null };

function hatching(context) {
  const { hatch } = palette();
  if (hatched.colour === hatch) return hatched.pattern;
  const tile = make("canvas");
  tile.width = tile.height = HATCH_STEP;
  const pen = tile.getContext("2d");
  pen.strokeStyle = hatch;
  pen.beginPath();
  for (const shift of [-HATCH_STEP, 0, HATCH_STEP]) {
    pen.moveTo(shift, HATCH_STEP);
    pen.lineTo(shift + HATCH_STEP, 0);
  }
  pen.stroke();
  hatched = { colour: hatch, pattern: context.createPattern(tile, "repeat") };
  return hatched.pattern;
}
