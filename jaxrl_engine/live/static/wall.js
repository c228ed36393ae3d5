"use strict";

// The wall: what the server tells, put in its place on the page.

import { Chart } from "./charts.js";
import { RepertoireMap } from "./map.js";
import { Player, Screen } from "./screens.js";
import { clockTime, compact, distinctColour, duration, forgetPalette, isNumber } from "./shared.js";
import { listen, make, redraw, write } from "./shared.js";

const SCREENS_BEFORE = 8; // until the first clip tells how many there are
const FOOT = 40; // pixels below the screens that the remarks need
const CAPTION = 48; // pixels of a tile that are not its picture
const PHONE = 720;
const DESKTOP = 1100;
const SIDE = { charts: [340, 0.24], map: [400, 0.31] }; // beside the screens: at least, in pixels and of the window
const CHARTS_BELOW = 180; // pixels that the charts need below a map
const SPEEDS = [1, 4, 16];
const RETRY_SECONDS = [1, 2, 4, 8];
const AT_END = 0.2; // seconds; nearer to its end than that a recording is over
const ASPECTS = [0.6, 1.8];
const TONES = {
  compiling: "warn", running: "good", finished: "accent", demo: "accent",
  interrupted: "warn", failed: "bad", killed: "bad",
};
const ENDED = ["finished", "interrupted", "failed", "killed"];

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
window.wall = { clips: 0, frames: 0 };

/** The address of a request of this page, with the token it was opened with. */
function address(path, wanted = {}) {
  const query = new URLSearchParams(wanted);
  if (token !== null) query.set("token", token);
  return query.size ? `${path}?${query}` : path;
}

// --- the head ---

let head = null;

function showHead(news) {
  head = news;
  write($("title"), head.title);
  write($("kind"), [head.mode, head.algo?.toUpperCase()].filter(Boolean).join(" · "));
  write($("note"), head.note ?? "");
  showStats();
  showProgress();
  showState();
}

function showStats() {
  const rows = [["steps/s", compact(head.steps_per_second)]];
  if (isNumber(head.policy_version)) rows.push(["policy version", head.policy_version.toLocaleString("en")]);
  if (isNumber(head.updates)) rows.push(["updates", head.updates.toLocaleString("en")]);
  rows.push(...(head.facts ?? []));
  const stats = $("stats");
  while (stats.children.length > rows.length) stats.lastChild.remove();
  while (stats.children.length < rows.length) stats.append(make("div", "", make("dt"), make("dd")));
  rows.forEach(([name, value], index) => {
    write(stats.children[index].firstChild, String(name));
    write(stats.children[index].lastChild, String(value));
  });
}

function showProgress() {
  const { env_steps: done, total_steps: total, eta_seconds: eta } = head;
  $("progress").hidden = !total;
  document.title = `${head.title} · jaxrl_engine`;
  if (!total) return;
  const share = Math.min(done / total, 1);
  const percent = `${Math.floor(100 * share)} %`;
  $("fill").style.transform = `scaleX(${share})`;
  $("track").ariaValueNow = Math.floor(100 * share);
  write($("steps"), `${compact(done, 4)} of ${compact(total, 4)} steps`);
  write($("percent"), percent);
  write($("eta"), isNumber(eta) ? `${duration(eta)} left` : "");
  document.title = `${percent} · ${document.title}`;
}

function showState() {
  const ended = head && ENDED.includes(head.state);
  const lost = link.lost && !ended;
  $("state").classList.toggle("lost", lost);
  $("state").style.setProperty("--tone", `var(--${lost ? "bad" : (TONES[head?.state] ?? "muted")})`);
  write($("state-word"), lost ? "connection lost" : (head?.state ?? "connecting"));
  const over = `The run is over (${head?.state}) and no longer serves this page.`;
  const retry = `What you see is the last that came. Trying again${link.again > 1 ? ` in ${link.again} s` : ""} …`;
  const text = link.lost ? `${ended ? over : "The connection to the run is lost."} ${retry}` : (head?.message ?? "");
  write($("banner"), text);
  $("banner").hidden = !text;
  $("banner").classList.toggle("calm", !link.lost && TONES[head?.state] !== "bad");
  for (const screen of player.screens) screen.wait(waitingText(ended));
}

function waitingText(ended) {
  if (link.lost && !head) return "no connection";
  if (ended) return "no picture came";
  return head?.state === "compiling" ? "compiling …" : "waiting for the first picture";
}

// --- screens, charts and the map ---

const player = new Player(window.wall, beginClip);
const charts = [];
const skillsSeen = { team: 0, own: 0 };
const map = new RepertoireMap($("repertoire"), select, () => !recording.clock);

function select(cell) {
  fetch(address("select", cell === null ? {} : { cell })).catch(() => {}); // a lost connection is told elsewhere
}

function setScreens(count) {
  if (player.screens.length === count) return;
  player.screens = Array.from({ length: count }, (_, index) => new Screen(index));
  $("screens").replaceChildren(...player.screens.map((screen) => screen.figure));
  layOut();
  showState();
}

function beginClip(clip) {
  setScreens(clip.screens.length);
  const { width = 1, height = 1 } = clip.mosaic ?? {};
  const [left, bottom, right, top] = clip.screens[0].extent ?? [0, 0, width, height];
  const aspect = Math.min(Math.max((right - left) / (top - bottom), ASPECTS[0]), ASPECTS[1]);
  if (aspect !== shape.aspect) {
    shape.aspect = aspect;
    layOut();
  }
  noteSkills(clip);
  map.setScreens(clip.screens.map((screen) => screen.cell ?? null));
}

function noteSkills(clip) {
  const { team, own } = skillsSeen;
  for (const { frames } of clip.screens) {
    for (const { skills: [shared, ...each] = [-1] } of frames) {
      skillsSeen.team = Math.max(skillsSeen.team, shared + 1);
      skillsSeen.own = Math.max(skillsSeen.own, ...each.map((skill) => skill + 1));
    }
  }
  if (team !== skillsSeen.team || own !== skillsSeen.own) showSkills();
}

function showSkills() {
  $("skills").hidden = !skillsSeen.team;
  const row = (name, count, className) => {
    const signs = Array.from({ length: count }, () => make("b", className));
    signs.forEach((sign, skill) => (sign.style.borderColor = distinctColour(skill)));
    return make("p", "", name, ...signs.map((sign, skill) => make("i", "", sign, String(skill))));
  };
  $("skills").replaceChildren(row("Team's skill", skillsSeen.team, "strip"), row("Agent's skill", skillsSeen.own, ""));
}

function showCharts({ charts: given }) {
  while (charts.length > given.length) charts.pop().card.remove();
  while (charts.length < given.length) charts.push(new Chart($("charts")));
  given.forEach((data, index) => charts[index].set(data));
}

function showMap(news) {
  if ($("repertoire").hidden) {
    $("repertoire").hidden = false;
    document.querySelector("main").classList.add("mapped");
    layOut();
  }
  map.set(news);
}

// --- the layout of the screens ---

const shape = { aspect: 1 };

/** As many columns as give the largest pictures with all screens in view; two on a phone, which scrolls. */
function layOut() {
  const count = player.screens.length;
  const gap = parseFloat(getComputedStyle($("screens")).columnGap) || 0;
  const around = $("header").offsetHeight + $("player").offsetHeight + 44 + FOOT;
  const [width, height] = [innerWidth, innerHeight - around];
  const [beside, mapped] = [width >= DESKTOP, !$("repertoire").hidden];
  const [least, share] = mapped ? SIDE.map : SIDE.charts;
  const room = document.documentElement.clientWidth - 48 - (beside ? Math.max(least, share * width) + 20 : 0);
  const high = beside ? Math.max(height - (mapped ? CHARTS_BELOW : 0), 420) : Math.max(0.7 * height, 360);
  let [columns, tile] = [Math.min(count, 2), 0];
  for (let across = 1; width >= PHONE && across <= count; across++) {
    const rows = Math.ceil(count / across);
    const byHeight = ((high - (rows - 1) * gap) / rows - CAPTION) * shape.aspect;
    const size = Math.floor(Math.min((room - (across - 1) * gap) / across, byHeight));
    if (size > tile) [columns, tile] = [across, size];
  }
  const root = document.documentElement.style;
  root.setProperty("--columns", columns);
  root.setProperty("--tile", `${Math.max(tile, 80)}px`);
  root.setProperty("--aspect", shape.aspect);
}

// --- recordings ---

const recording = { clock: null, held: false, dragging: false };

function showClock(clock) {
  const first = !recording.clock;
  recording.clock = clock;
  $("player").hidden = false;
  if (first) {
    map.tell();
    layOut();
  }
  if (!recording.dragging) showTime(clock.time);
  showControls();
}

function showTime(time) {
  const { end } = recording.clock;
  const scrubber = $("scrubber");
  scrubber.max = end;
  scrubber.value = time;
  write($("time"), `${clockTime(time)} / ${clockTime(end)}`);
  scrubber.ariaValueText = $("time").textContent;
}

function showControls() {
  write($("play"), isOver() ? "Again" : recording.held ? "Play" : "Pause");
  [...$("speeds").children].forEach((button, index) => {
    button.ariaPressed = SPEEDS[index] === recording.clock.speed;
  });
}

function isOver() {
  const { clock } = recording;
  return clock !== null && clock.time >= clock.end - AT_END;
}

function hold() {
  recording.held = true;
  link.close();
  link.lost = false;
  showState();
  showControls();
}

function seek(time, speed = recording.clock.speed) {
  recording.clock = { ...recording.clock, time, speed };
  showTime(time);
  player.waiting = [];
  if (!recording.held) link.open();
  showControls();
}

function makeControls() {
  listen($("play"), { click: playOrPause });
  listen($("scrubber"), {
    input() {
      recording.dragging = true;
      showTime(Number(this.value));
    },
    change() {
      recording.dragging = false;
      seek(Number(this.value));
    },
  });
  for (const speed of SPEEDS) {
    const button = make("button", "", `${speed}×`);
    listen(button, { click: () => seek(recording.clock.time, speed) });
    $("speeds").append(button);
  }
}

function playOrPause() {
  if (recording.held || isOver()) {
    recording.held = false;
    return seek(isOver() ? 0 : recording.clock.time);
  }
  player.stop();
  hold();
}

// --- the connection ---

const TOPICS = {
  head: showHead, charts: showCharts, screens: (clip) => player.take(clip), map: showMap, clock: showClock,
};

/** Events from the server. It is asked again by hand: a recording must go on where it was, not where it began. */
const link = {
  source: null, lost: false, failures: 0, again: 0, timer: 0,

  open() {
    this.close();
    const { clock } = recording;
    this.source = new EventSource(address("events", clock ? { from: clock.time, speed: clock.speed } : {}));
    this.source.onopen = () => this.found();
    this.source.onerror = () => this.lose();
    for (const [topic, show] of Object.entries(TOPICS)) {
      this.source.addEventListener(topic, (event) => show(JSON.parse(event.data)));
    }
  },

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  },

  found() {
    Object.assign(this, { lost: false, failures: 0 });
    showState();
  },

  lose() {
    this.close();
    if (isOver()) return hold();
    this.lost = true;
    this.again = RETRY_SECONDS[Math.min(this.failures, RETRY_SECONDS.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.open(), 1000 * this.again);
    showState();
  },
};

// --- the theme ---

const dark = matchMedia("(prefers-color-scheme: dark)");

function stored(theme) {
  try {
    if (theme) localStorage.setItem("theme", theme);
    return localStorage.getItem("theme");
  } catch {
    return theme ?? null; // storage may be switched off; the choice then lasts as long as the page
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  write($("theme"), theme === "dark" ? "Light" : "Dark");
  $("theme").title = `Use the ${$("theme").textContent.toLowerCase()} theme`;
  forgetPalette();
  for (const chart of charts) chart.colourLegend();
  for (const view of [...player.screens, ...charts, map]) redraw(view);
  showSkills();
}

function preferred() {
  return stored() ?? (dark.matches ? "dark" : "light");
}

listen($("theme"), {
  click() {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    stored(other);
    setTheme(other);
  },
});
listen(dark, { change: () => setTheme(preferred()) });

makeControls();
setScreens(SCREENS_BEFORE);
setTheme(preferred());
showCharts({ charts: ["Return", "Episode length", "Losses", "Return trend"].map((title) => ({ title, lines: [] })) });
listen(window, { resize: layOut });
new ResizeObserver(layOut).observe($("header"));
link.open();
