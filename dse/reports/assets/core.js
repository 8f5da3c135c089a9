// Data of the page, small helpers to build elements, and the state that all charts share.
// Names in the data are text: elements get them as text nodes, and Plotly gets them through plotText().

const DATA = JSON.parse(document.getElementById("data").textContent);

function unpack(column) {
  return Array.isArray(column) ? column : column.index.map((code) => column.values[code]);
}

function unpackAll(columns) {
  const found = {};
  for (const name of Object.keys(columns)) found[name] = unpack(columns[name]);
  return found;
}

const COLUMNS = {
  design: unpack(DATA.columns.design),
  support: unpack(DATA.columns.support),
  metrics: unpackAll(DATA.columns.metrics),
  knobs: unpackAll(DATA.columns.knobs),
  parts: unpackAll(DATA.columns.parts),
  mix: Object.fromEntries(Object.entries(DATA.columns.mix).map(([part, own]) => [part, { share: own.share, latency_s: unpack(own.latency_s), energy_j: unpack(own.energy_j) }])),
  bandwidth: unpack(DATA.columns.dram_bytes_per_s),
};
const COUNT = COLUMNS.design.length;
const OBJECTIVES = DATA.objectives.map((objective) => objective.metric);
const DIRECTION = {};
for (const objective of DATA.objectives) DIRECTION[objective.metric] = objective.direction;
const HAS_SUPPORT = COLUMNS.support.some((name) => name !== null);

function byId(id) {
  return document.getElementById(id);
}

/** An element; strings among the children become text nodes, `on` holds listeners, other attributes are set as they are. */
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (key === "style") Object.assign(node.style, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

function replace(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

/** A name that may be broken after an underscore. */
function breakable(name) {
  return String(name).split(/(?<=_)/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
}

/** Plotly reads a little HTML in its texts; this makes sure that it finds none. */
function plotText(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function distinct(values) {
  return [...new Set(values)];
}

const KNOBS = DATA.knobs;
const VARYING_KNOBS = KNOBS.filter((name) => distinct(COLUMNS.knobs[name]).length > 1);
const FIXED_KNOBS = KNOBS.filter((name) => !VARYING_KNOBS.includes(name));
const METRICS = Object.keys(DATA.metrics);

// pins: at most two positions, A and B. kept: null, or for each design whether the ranges set on the axes keep it.
const state = { pins: [], kept: null, listeners: { pins: [], kept: [], theme: [] } };

function listen(event, listener) {
  state.listeners[event].push(listener);
}

function tell(event) {
  for (const listener of state.listeners[event]) listener();
}

/** Pin a design: the first is A, the next is B, a third takes B's place; pinning a pinned one lets it go. */
function pin(position) {
  const place = state.pins.indexOf(position);
  if (place >= 0) state.pins.splice(place, 1);
  else if (state.pins.length < 2) state.pins.push(position);
  else state.pins[1] = position;
  tell("pins");
}

// A tap reaches a chart twice: Plotly answers the touch, and then the mouse events that the browser makes of it, by then often with
// the design that lay under the finger before. Times are those of the input, so that a busy page does not confuse them.
const ECHO_MS = 1000;
let lastTouch = -Infinity;

/** Pin the design that was clicked or tapped in a Plotly chart. */
function pinClicked(event) {
  const position = event.points[0].customdata, cause = event.event;
  if (position === undefined) return;
  if (cause && cause.type.startsWith("touch")) lastTouch = cause.timeStamp;
  else if (cause && cause.timeStamp - lastTouch < ECHO_MS) return;
  pin(position);
}

function unpinAll() {
  state.pins = [];
  tell("pins");
}

/** What the panels show: the pinned designs, or the suggested one until something is pinned. */
function shownDesigns() {
  if (state.pins.length) return state.pins;
  return DATA.suggested === null ? [] : [DATA.suggested];
}

function isKept(position) {
  return state.kept === null || state.kept[position];
}

function keep(flags) {
  state.kept = flags;
  tell("kept");
}
