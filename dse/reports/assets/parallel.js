// Parallel coordinates: knobs and objectives of every design as a line. Drawn on a canvas (thousands of lines) under axes in SVG.
// Plotly's own chart of this kind needs WebGL, which a reader's machine may not have.

const SVG_SPACE = "http://www.w3.org/2000/svg";
const PAD = { top: 72, bottom: 34, side: 46 };
const parallel = { axes: [], color: null, ranges: {}, width: 0, height: 420, hover: null };

function svg(name, attributes, ...children) {
  const node = document.createElementNS(SVG_SPACE, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

function startParallel() {
  const knobs = VARYING_KNOBS.map(knobAxis);
  const metrics = distinct([...OBJECTIVES, "latency_s", "area_mm2"]).filter((name) => SHOWN[name] && distinct(SHOWN[name].values).length > 1).map(metricAxis);
  parallel.axes = [...knobs, ...metrics];
  parallel.color = OBJECTIVES.find((name) => SHOWN[name] && distinct(SHOWN[name].values).length > 1) || OBJECTIVES.find((name) => SHOWN[name]) || METRICS[0];
  parallelControls();
  buildParallel();
  listen("pins", paintLines);
  listen("theme", buildParallel);
  new ResizeObserver(() => {
    if (!theme.printing && byId("parallel-plot").clientWidth !== parallel.seen) buildParallel();
  }).observe(byId("parallel-plot"));
}

/** Few values stand evenly apart, whatever their size: powers of two are choices, not distances. */
function knobAxis(name) {
  const values = COLUMNS.knobs[name];
  const kinds = distinct(values);
  const numeric = kinds.every(isNumber);
  kinds.sort(numeric ? (a, b) => a - b : (a, b) => (knobText(a) < knobText(b) ? -1 : 1));
  if (!numeric || kinds.length <= 12) {
    const share = new Map(kinds.map((kind, i) => [kind, kinds.length > 1 ? i / (kinds.length - 1) : 0.5]));
    return { key: "knob " + name, label: name, unit: "", shares: values.map((value) => share.get(value)), ticks: kinds.map((kind) => [share.get(kind), knobText(kind)]) };
  }
  return scaleAxis("knob " + name, name, "", values, false);
}

function metricAxis(name) {
  return scaleAxis("metric " + name, SHOWN[name].label, SHOWN[name].unit, SHOWN[name].values, name !== "quality" && wantsLog(SHOWN[name].values));
}

function scaleAxis(key, label, unit, values, log) {
  const map = (value) => (log ? Math.log10(value) : value);
  const known = values.filter(isNumber);
  const low = map(Math.min(...known)), high = map(Math.max(...known)), span = high - low || 1;
  const round = log ? logTicks(10 ** low, 10 ** high) : linearTicks(low, high);
  // As many digits as tell neighbours apart.
  const digits = round.length > 1 && !log ? Math.min(6, Math.max(0, -Math.floor(Math.log10(round[1] - round[0]) + 1e-9))) : null;
  const ticks = round.map((value) => [(map(value) - low) / span, digits === null || Math.abs(value) >= 1e7 ? short(value) : value.toLocaleString("en-GB", { maximumFractionDigits: digits })]);
  return { key, label, unit, shares: values.map((value) => (isNumber(value) ? (map(value) - low) / span : null)), ticks };
}

function parallelControls() {
  replace(
    byId("parallel-controls"),
    selectControl("Colour", metricOptions(), parallel.color, (value) => {
      parallel.color = value;
      paintLines();
      colorKey();
    }),
    el("span", { id: "parallel-key", class: "key" }),
    el("button", { type: "button", class: "quiet screen", id: "parallel-clear", hidden: true, on: { click: () => setRanges({}) } }, "Keep all"),
    el("span", { id: "parallel-kept", class: "note" }),
  );
  colorKey();
}

function colorKey() {
  const known = SHOWN[parallel.color].values.filter(isNumber), decimals = SHOWN[parallel.color].decimals;
  replace(byId("parallel-key"), fixed(Math.min(...known), decimals), el("span", { class: "ramp", style: { background: "linear-gradient(90deg," + scaleColors().join(",") + ")" } }), fixed(Math.max(...known), decimals), " " + SHOWN[parallel.color].unit);
}

function axisX(place) {
  return PAD.side + ((parallel.width - 2 * PAD.side) * place) / Math.max(1, parallel.axes.length - 1);
}

function axisY(share) {
  return parallel.height - PAD.bottom - share * (parallel.height - PAD.top - PAD.bottom);
}

function buildParallel() {
  const host = byId("parallel-plot");
  const available = theme.printing ? Math.min(host.clientWidth, 680) : host.clientWidth;
  parallel.seen = host.clientWidth;
  parallel.width = Math.max(available, parallel.axes.length * 74);
  // A screen scrolls where the axes do not fit; paper shows them smaller.
  const shrink = theme.printing ? available / parallel.width : 1;
  const ratio = theme.printing ? 2 : Math.min(3, window.devicePixelRatio || 1);
  const size = { width: parallel.width + "px", height: parallel.height + "px" };
  parallel.canvas = el("canvas", { width: Math.round(parallel.width * ratio), height: Math.round(parallel.height * ratio), style: size });
  parallel.context = parallel.canvas.getContext("2d");
  parallel.context.scale(ratio, ratio);
  const drawing = svg("svg", { width: parallel.width, height: parallel.height, viewBox: "0 0 " + parallel.width + " " + parallel.height });
  parallel.brushes = parallel.axes.map((entry, place) => axisGroup(drawing, entry, place));
  const layers = el("div", { class: "layers", style: { ...size, transform: "scale(" + shrink + ")", transformOrigin: "0 0" } }, parallel.canvas, drawing);
  const room = theme.printing ? { width: available + "px", height: parallel.height * shrink + "px", overflow: "hidden" } : {};
  replace(host, el("div", { style: room }, layers));
  drawing.addEventListener("pointermove", hoverLine);
  drawing.addEventListener("pointerleave", () => setHover(null));
  drawing.addEventListener("click", (event) => {
    const nearest = nearestLine(event);
    if (nearest !== null && !event.target.closest(".axis")) pin(nearest);
  });
  colorKey();
  paintBrushes();
  paintLines();
}

function axisGroup(drawing, entry, place) {
  const x = axisX(place);
  const text = (label, y, name, anchor) => svg("text", { x: 0, y, class: name, "text-anchor": anchor || "middle" }, document.createTextNode(label));
  const brush = svg("rect", { x: -7, width: 14, y: 0, height: 0, class: "brush" });
  const group = svg("g", { class: "axis", transform: "translate(" + x + " 0)" },
    svg("line", { x1: 0, x2: 0, y1: axisY(1), y2: axisY(0) }),
    ...wrapLabel(entry.label).map((line, i, lines) => text(line, PAD.top - 16 - 13 * (lines.length - 1 - i), "axis-label")),
    ...entry.ticks.map(([share, label]) => svg("g", { transform: "translate(0 " + axisY(share) + ")" }, svg("line", { x1: -3, x2: 3 }), svg("text", { x: 6, y: 4, class: "tick" }, document.createTextNode(label)))),
    text(entry.unit, parallel.height - 10, "axis-unit"),
    brush,
    svg("rect", { x: -14, width: 28, y: axisY(1) - 8, height: axisY(0) - axisY(1) + 16, class: "grip" }));
  drawing.append(group);
  dragToBrush(group.lastChild, entry);
  return brush;
}

/** A label on at most four lines that fit between the axes. */
function wrapLabel(label) {
  const room = Math.max(8, Math.floor((axisX(1) - axisX(0)) / 7.2));
  const lines = [];
  for (const word of label.replace(", surrogate", " (surrogate)").split(/\s+|(?<=[-_])/)) {
    const last = lines[lines.length - 1];
    const joint = last && /[-_]$/.test(last) ? "" : " ";
    if (last !== undefined && (last + joint + word).length <= room) lines[lines.length - 1] = last + joint + word;
    else lines.push(word);
  }
  if (lines.length > 4) lines.splice(3, lines.length, lines.slice(3).join(" "));
  return lines.map((line) => (line.length > room + 1 ? line.slice(0, room) + "…" : line));
}

function dragToBrush(grip, entry) {
  let start = null;
  const shareAt = (event) => {
    const box = parallel.canvas.getBoundingClientRect();
    const share = (parallel.height - PAD.bottom - (event.clientY - box.top)) / (parallel.height - PAD.top - PAD.bottom);
    return Math.min(1, Math.max(0, share));
  };
  grip.addEventListener("pointerdown", (event) => {
    start = shareAt(event);
    grip.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  grip.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const end = shareAt(event);
    if (Math.abs(end - start) < 0.01) return;
    setRanges({ ...parallel.ranges, [entry.key]: [Math.min(start, end), Math.max(start, end)] });
  });
  grip.addEventListener("pointerup", (event) => {
    // A click without a drag lets the axis go.
    if (start !== null && Math.abs(shareAt(event) - start) < 0.01) {
      const rest = { ...parallel.ranges };
      delete rest[entry.key];
      setRanges(rest);
    }
    start = null;
  });
  grip.addEventListener("pointercancel", () => { start = null; });
}

let pendingKeep = 0;

function setRanges(ranges) {
  parallel.ranges = ranges;
  const active = parallel.axes.filter((entry) => ranges[entry.key]);
  const slack = 0.004;
  const flags = active.length
    ? COLUMNS.design.map((_, i) => active.every((entry) => {
        const [low, high] = ranges[entry.key], share = entry.shares[i];
        return share !== null && share >= low - slack && share <= high + slack;
      }))
    : null;
  const kept = flags ? flags.filter(Boolean).length : COUNT;
  byId("parallel-clear").hidden = !flags;
  byId("parallel-kept").textContent = flags ? kept.toLocaleString("en-GB") + " of " + COUNT.toLocaleString("en-GB") + " designs kept" : "";
  state.kept = flags;
  paintBrushes();
  paintLines();
  // The other charts follow when the pointer rests: they take longer than a frame.
  clearTimeout(pendingKeep);
  pendingKeep = setTimeout(() => keep(flags), 80);
}

function paintBrushes() {
  parallel.axes.forEach((entry, place) => {
    const range = parallel.ranges[entry.key], brush = parallel.brushes[place];
    brush.setAttribute("y", range ? axisY(range[1]) : 0);
    brush.setAttribute("height", range ? Math.max(2, axisY(range[0]) - axisY(range[1])) : 0);
  });
}

function tracePath(context, position) {
  context.beginPath();
  let drawing = false;
  parallel.axes.forEach((entry, place) => {
    const share = entry.shares[position];
    if (share === null || share === undefined) { drawing = false; return; }
    if (drawing) context.lineTo(axisX(place), axisY(share));
    else context.moveTo(axisX(place), axisY(share));
    drawing = true;
  });
  context.stroke();
}

function paintLines() {
  const context = parallel.context;
  if (!context) return;
  context.clearRect(0, 0, parallel.width, parallel.height);
  context.lineJoin = "round";
  const values = SHOWN[parallel.color].values, known = values.filter(isNumber);
  const low = Math.min(...known), span = Math.max(...known) - low || 1;
  const rest = [], kept = [];
  for (let i = 0; i < COUNT; i++) (isKept(i) ? kept : rest).push(i);
  context.lineWidth = 1;
  context.strokeStyle = theme.line;
  context.globalAlpha = 0.6;
  for (const i of rest) tracePath(context, i);
  // Many lines are drawn thin and clear, so that where they gather shows.
  context.lineWidth = kept.length > 300 ? 1 : 1.6;
  context.globalAlpha = Math.max(0.12, Math.min(0.85, 120 / Math.sqrt(kept.length * 60 + 1)));
  for (const i of kept) {
    context.strokeStyle = isNumber(values[i]) ? colorAt((values[i] - low) / span) : theme.muted;
    tracePath(context, i);
  }
  context.globalAlpha = 1;
  if (parallel.hover !== null) {
    context.lineWidth = 3;
    context.strokeStyle = theme.ink;
    tracePath(context, parallel.hover);
  }
  state.pins.forEach((position, place) => {
    context.lineWidth = 3;
    context.strokeStyle = theme["pin-" + PIN_NAMES[place].toLowerCase()];
    tracePath(context, position);
  });
}

function nearestLine(event) {
  const box = parallel.canvas.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  const place = (x - PAD.side) / ((parallel.width - 2 * PAD.side) / Math.max(1, parallel.axes.length - 1));
  const left = Math.floor(place), part = place - left;
  if (left < 0 || left >= parallel.axes.length - 1) return null;
  let nearest = null, distance = 10;
  for (let i = 0; i < COUNT; i++) {
    const a = parallel.axes[left].shares[i], b = parallel.axes[left + 1].shares[i];
    if (!isKept(i) || a === null || b === null) continue;
    const away = Math.abs(axisY(a + (b - a) * part) - y);
    if (away < distance) {
      distance = away;
      nearest = i;
    }
  }
  return nearest;
}

function hoverLine(event) {
  if (event.pointerType === "touch" || event.buttons) return;
  const nearest = nearestLine(event);
  setHover(nearest, event);
}

function setHover(position, event) {
  if (position === null) hideTip();
  else showTip(position, event);
  if (position === parallel.hover) return;
  parallel.hover = position;
  paintLines();
}
