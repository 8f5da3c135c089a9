// The Pareto front: two metrics at a time, the whole design on hover, pins on click.

// Marks of what supports the quality of a design differ in shape, not in colour alone.
const SUPPORT_MARKS = {
  published: { symbol: "diamond", size: 11 },
  measured: { symbol: "square", size: 8 },
  interpolated: { symbol: "circle", size: 8 },
  extrapolated: { symbol: "x-thin-open", size: 8 },
};
const SUPPORT_WORDS = {
  published: "a diamond marks a model that was published", measured: "a square marks one that was measured",
  interpolated: "a dot an interpolated one", extrapolated: "a cross an extrapolated one",
};
const PLAIN_MARK = { symbol: "circle", size: 8 };
const PIN_NAMES = ["A", "B"];
// Error bars of more designs than this hide the points.
const ERROR_BAR_LIMIT = 60;

const front = { x: null, y: null, color: "", xlog: false, ylog: false, errors: null };

function startFront() {
  const costs = OBJECTIVES.filter((name) => name !== "quality" && SHOWN[name]);
  front.x = costs[0] || "quality";
  front.y = OBJECTIVES.includes("quality") && costs.length ? "quality" : costs[1] || METRICS.find((name) => name !== front.x) || front.x;
  front.color = OBJECTIVES.length > 2 ? OBJECTIVES.find((name) => name !== front.x && name !== front.y) || "" : "";
  front.errors = COUNT <= ERROR_BAR_LIMIT;
  chooseScales();
  frontControls();
  drawFront();
  const node = byId("front-plot");
  node.on("plotly_hover", (event) => showTip(event.points[0].customdata, event.event));
  node.on("plotly_unhover", hideTip);
  node.on("plotly_click", pinClicked);
  listen("pins", drawFront);
  listen("kept", drawFront);
  listen("theme", drawFront);
}

function chooseScales() {
  front.xlog = front.x !== "quality" && wantsLog(SHOWN[front.x].values);
  front.ylog = front.y !== "quality" && wantsLog(SHOWN[front.y].values);
}

function errorsOf(name) {
  const bands = (DATA.extras.uncertainty || {})[name];
  if (bands && bands.p5 && bands.p95) return { low: bands.p5, high: bands.p95, band: true };
  return name === "quality" && COLUMNS.metrics.quality_se ? { se: COLUMNS.metrics.quality_se } : null;
}

function frontControls() {
  const change = (key) => (value) => {
    front[key] = value;
    if (key === "x" || key === "y") chooseScales();
    frontControls();
    drawFront();
  };
  const log = (name) => SHOWN[name].values.filter(isNumber).every((value) => value > 0);
  replace(
    byId("front-controls"),
    selectControl("Across", metricOptions(), front.x, change("x")),
    selectControl("Up", metricOptions(), front.y, change("y")),
    selectControl("Colour", metricOptions([{ value: "", label: "none" }]), front.color, change("color")),
    log(front.x) ? checkControl("log across", front.xlog, change("xlog")) : null,
    log(front.y) ? checkControl("log up", front.ylog, change("ylog")) : null,
    errorsOf(front.x) || errorsOf(front.y) ? checkControl("errors", front.errors, change("errors")) : null,
  );
}

/** Positions of the designs that no other beats in the two metrics shown, from the best of the first to its worst. */
function pairFront(x, y) {
  const sign = (name) => (DATA.metrics[name].better === "max" ? -1 : 1);
  const cost = (name, i) => sign(name) * SHOWN[name].values[i];
  const order = [...Array(COUNT).keys()].filter((i) => isNumber(SHOWN[x].values[i]) && isNumber(SHOWN[y].values[i]));
  order.sort((a, b) => cost(x, a) - cost(x, b) || cost(y, a) - cost(y, b));
  const found = [];
  let best = Infinity;
  for (const i of order) {
    if (cost(y, i) < best) {
      found.push(i);
      best = cost(y, i);
    }
  }
  return found;
}

function errorBars(name, positions, color) {
  const errors = errorsOf(name);
  if (!errors || !positions.length) return undefined;
  const factor = shownFactor(name), values = SHOWN[name].values;
  const common = { type: "data", color, thickness: 1.2, width: 0 };
  if (errors.se) return { ...common, array: positions.map((i) => errors.se[i] * factor) };
  return {
    ...common,
    symmetric: false,
    array: positions.map((i) => Math.max(0, errors.high[i] * factor - values[i])),
    arrayminus: positions.map((i) => Math.max(0, values[i] - errors.low[i] * factor)),
  };
}

function drawFront() {
  const x = SHOWN[front.x], y = SHOWN[front.y];
  const steps = pairFront(front.x, front.y);
  const traces = [
    {
      type: "scatter", mode: "lines", x: steps.map((i) => x.values[i]), y: steps.map((i) => y.values[i]),
      line: { shape: "hv", color: theme.muted, width: 1.2 }, opacity: 0.7, hoverinfo: "skip", showlegend: false,
    },
  ];
  const groups = HAS_SUPPORT ? distinct(COLUMNS.support) : [null];
  const colors = front.color ? SHOWN[front.color].values : null;
  const sizes = colors ? colors.filter(isNumber) : [];
  const onSteps = new Set(steps);
  let barShown = false;
  for (const group of groups) {
    const positions = [...Array(COUNT).keys()].filter((i) => COLUMNS.support[i] === group);
    const mark = SUPPORT_MARKS[group] || PLAIN_MARK;
    // Designs off the front of this pair are there for another objective: paler, so that the pair's own front stands out.
    const paler = OBJECTIVES.length > 2 && steps.length < COUNT;
    const opacity = state.kept || paler ? positions.map((i) => (!isKept(i) ? 0.08 : paler && !onSteps.has(i) ? 0.5 : 1)) : 1;
    traces.push({
      type: "scatter", mode: "markers", name: plotText(group || "designs"), customdata: positions,
      x: positions.map((i) => x.values[i]), y: positions.map((i) => y.values[i]),
      hoverinfo: "none", showlegend: HAS_SUPPORT,
      error_x: front.errors ? errorBars(front.x, positions, theme.faint) : undefined,
      error_y: front.errors ? errorBars(front.y, positions, theme.faint) : undefined,
      marker: {
        symbol: mark.symbol, opacity,
        size: COUNT > 1000 ? mark.size - 2 : mark.size,
        line: { width: mark.symbol.endsWith("open") ? 2 : 0.8, color: mark.symbol.endsWith("open") ? theme.point : theme.panel },
        ...(colors
          ? {
              color: positions.map((i) => colors[i]), colorscale: plotlyScale(),
              cmin: Math.min(...sizes), cmax: Math.max(...sizes), showscale: !barShown,
              colorbar: { title: { text: plotText(axisLabel(front.color)), side: "right", font: { size: 12 } }, thickness: 10, outlinewidth: 0, tickfont: { size: 11, color: theme.muted } },
            }
          : { color: theme.point }),
      },
    });
    if (colors && mark.symbol.endsWith("open")) delete traces[traces.length - 1].marker.line.color;
    barShown = true;
  }
  state.pins.forEach((position, place) => {
    const color = theme["pin-" + PIN_NAMES[place].toLowerCase()];
    traces.push({
      type: "scatter", mode: "markers+text", x: [x.values[position]], y: [y.values[position]], customdata: [position],
      text: [PIN_NAMES[place]], textposition: "top center", textfont: { color, size: 15, weight: 700 },
      marker: { symbol: "circle-open", size: 19, line: { width: 3, color }, color }, hoverinfo: "none", showlegend: false,
      error_x: errorBars(front.x, [position], color), error_y: errorBars(front.y, [position], color),
    });
  });
  const bounds = [...boundLine("x", front.x, x.values), ...boundLine("y", front.y, y.values)];
  draw(byId("front-plot"), traces, layout({
    height: theme.printing ? 204 : narrow.matches ? 380 : 480,
    uirevision: front.x + front.y + front.xlog + front.ylog,
    hovermode: "closest",
    hoverdistance: 24,
    margin: { l: theme.printing ? 76 : 68, r: colors ? 96 : 16, t: theme.printing ? 20 : narrow.matches ? 64 : 40, b: theme.printing ? 40 : 56 },
    shapes: bounds.map((bound) => bound.shape),
    annotations: [...bounds.map((bound) => bound.annotation), ...recommendedMark(x, y)],
    xaxis: front.xlog ? logAxis(axisTitle(front.x, ["→", "←"]), x.values) : axis(axisTitle(front.x, ["→", "←"]), noLess(x.values)),
    yaxis: lowAxis(front.ylog ? logAxis(axisTitle(front.y, ["↑", "↓"]), y.values) : axis(axisTitle(front.y, ["↑", "↓"]), noLess(y.values))),
  }), true);
  replace(byId("front-note"), document.createTextNode(frontNote(steps)));
}

/** The recommended design by its name, until something is pinned. */
function recommendedMark(x, y) {
  const i = DATA.suggested;
  if (state.pins.length || i === null || !isNumber(x.values[i]) || !isNumber(y.values[i])) return [];
  const left = x.values[i] > (Math.min(...x.values.filter(isNumber)) + Math.max(...x.values.filter(isNumber))) / 2;
  // Beside the front and within the picture: above a point that lies low.
  const scaled = y.values.filter(isNumber).map((value) => front.ylog ? Math.log(value) : value);
  const low = Math.min(...scaled), high = Math.max(...scaled);
  const up = (front.ylog ? Math.log(y.values[i]) : y.values[i]) < low + 0.35 * (high - low);
  return [{
    x: front.xlog ? Math.log10(x.values[i]) : x.values[i], y: front.ylog ? Math.log10(y.values[i]) : y.values[i], ax: left ? -36 : 36, ay: up ? -34 : 34,
    text: lowered(designName(i)), font: { size: 12, color: theme.accent }, arrowcolor: theme.accent, arrowwidth: 1.2, arrowhead: 0, standoff: 6,
  }];
}

/** Room for a label does not carry an axis of what is never negative below zero. */
function noLess(values) {
  return { rangemode: values.filter(isNumber).every((value) => value >= 0) ? "nonnegative" : "normal" };
}

/** A title that is longer than its axis is high is broken where it may be. */
function lowAxis(found) {
  if (!theme.printing && !narrow.matches) return found;
  const title = found.title.text;
  const at = title.includes(", ") ? title.indexOf(", ") + 1 : title.includes(" [") ? title.indexOf(" [") : title.lastIndexOf(" ", title.length / 2);
  if (at > 0) found.title.text = title.slice(0, at) + "<br>" + title.slice(at + 1);
  return found;
}

/** The bound of a constraint as a dashed line, where it lies within the picture. */
function boundLine(letter, name, values) {
  const sizes = values.filter(isNumber);
  const low = Math.min(...sizes), high = Math.max(...sizes), room = 0.15 * (high - low);
  const log = letter === "x" ? front.xlog : front.ylog;
  return DATA.constraints
    .filter((constraint) => constraint.metric === name)
    .map((constraint) => constraint.bound * shownFactor(name))
    .filter((bound) => bound >= low - room && bound <= high + room)
    .map((bound) => {
      const other = letter === "x" ? "y" : "x";
      return {
        shape: { type: "line", [letter + "0"]: bound, [letter + "1"]: bound, [other + "0"]: 0, [other + "1"]: 1, [other + "ref"]: "paper", line: { color: theme.muted, width: 1, dash: "dash" } },
        annotation: { text: "bound", showarrow: false, font: { size: 11, color: theme.muted }, [letter]: log ? Math.log10(bound) : bound, [other]: 1, [other + "ref"]: "paper", xanchor: "right", yanchor: "bottom" },
      };
    });
}

function frontNote(steps) {
  const parts = [];
  if (OBJECTIVES.length > 2 && steps.length < COUNT) {
    parts.push(steps.length.toLocaleString("en-GB") + " of " + COUNT.toLocaleString("en-GB") + " designs are best in this pair alone; the paler ones are on the front for another objective.");
  }
  if (DATA.measured) parts.push("Quality was measured.");
  else if (HAS_SUPPORT) parts.push("Quality is a surrogate's prediction: " + joinedWords(distinct(COLUMNS.support).filter((name) => SUPPORT_WORDS[name]).map((name) => SUPPORT_WORDS[name])) + ".");
  if (front.errors && (errorsOf(front.x) || errorsOf(front.y))) {
    const shown = [errorsOf(front.x), errorsOf(front.y)].filter(Boolean);
    const meant = [
      shown.some((error) => error.se) ? "one standard error of " + (DATA.measured ? "the measurement" : "the surrogate") : null,
      shown.some((error) => error.band) ? "the range from the 5th to the 95th percentile of the uncertain factors" : null,
    ];
    parts.push("Bars are " + meant.filter(Boolean).join(", or ") + ".");
  }
  parts.push(coarse.matches ? "Tap a design to pin it." : "Hover for the whole design; click to pin it, click a second to compare.");
  return parts.join(" ");
}

/** The whole design beside the pointer. */
function showTip(position, event) {
  if (position === undefined) return;
  const tip = byId("tip");
  const row = (name, value, strong) => el("div", { class: strong ? "strong" : null }, el("dt", {}, name), el("dd", {}, value));
  const others = METRICS.filter((name) => !OBJECTIVES.includes(name) && name !== "quality_se" && !(name === "quality"));
  replace(
    tip,
    el("p", { class: "tip-title" }, designName(position), COLUMNS.support[position] ? el("span", { class: "badge" }, "quality " + COLUMNS.support[position]) : null),
    el("dl", {}, OBJECTIVES.filter((name) => SHOWN[name]).map((name) => row(SHOWN[name].label, metricText(name, position), true))),
    el("dl", { class: "two" }, KNOBS.map((name) => row(name, knobText(COLUMNS.knobs[name][position])))),
    // Under a finger the tip lies at the foot of the screen and leaves the rest to the pinned table.
    coarse.matches ? null : el("dl", {}, others.map((name) => row(SHOWN[name].label, metricText(name, position)))),
  );
  tip.hidden = false;
  tip.classList.toggle("docked", coarse.matches);
  if (coarse.matches || !event || event.clientX === undefined) return;
  const box = tip.getBoundingClientRect(), gap = 16;
  const left = event.clientX + gap + box.width > window.innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  const top = Math.min(event.clientY + gap, window.innerHeight - box.height - 8);
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = Math.max(8, top) + "px";
}

function hideTip() {
  byId("tip").hidden = true;
}
