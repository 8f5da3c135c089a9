// Sections that appear where a search has the data for them: uncertainty, convergence, importance of knobs.

const uncertainty = { metric: null };

function startExtras() {
  const extras = DATA.extras;
  if (extras.uncertainty && byId("uncertainty-plot")) {
    uncertainty.metric = OBJECTIVES.find((name) => extras.uncertainty[name]) || Object.keys(extras.uncertainty)[0];
    drawUncertainty();
    listen("theme", drawUncertainty);
    listen("pins", drawUncertainty);
  }
  if (extras.convergence) {
    drawConvergence();
    listen("theme", drawConvergence);
  }
  if (extras.importance) {
    drawImportance();
    listen("theme", drawImportance);
  }
}

function drawUncertainty() {
  const bands = DATA.extras.uncertainty, name = uncertainty.metric, band = bands[name], factor = shownFactor(name);
  const labelOf = (key) => (SHOWN[key] ? axisLabel(key) : key);
  const options = Object.keys(bands).map((key) => ({ value: key, label: labelOf(key) }));
  replace(byId("uncertainty-controls"), options.length > 1 ? selectControl("Metric", options, name, (value) => { uncertainty.metric = value; drawUncertainty(); }) : null);
  const order = [...Array(COUNT).keys()].filter((i) => isNumber(band.p50[i])).sort((a, b) => band.p50[a] - band.p50[b] || a - b);
  const rank = order.map((_, k) => k + 1), at = (q) => order.map((i) => band[q][i] * factor);
  const label = (i) => plotText(designName(i) + ": " + short(band.p50[i] * factor) + ", from " + short(band.p5[i] * factor) + " to " + short(band.p95[i] * factor));
  const traces = [
    { type: "scatter", mode: "lines", x: rank, y: at("p95"), line: { width: 0 }, hoverinfo: "skip", showlegend: false },
    { type: "scatter", mode: "lines", x: rank, y: at("p5"), line: { width: 0 }, fill: "tonexty", fillcolor: theme.faint, name: "5th to 95th percentile", hoverinfo: "skip" },
    { type: "scatter", mode: order.length > 80 ? "lines" : "lines+markers", x: rank, y: at("p50"), line: { color: theme.accent, width: 2 }, name: "median", hovertext: order.map(label), hoverinfo: "text" },
  ];
  state.pins.forEach((position, place) => {
    const k = order.indexOf(position), color = theme["pin-" + PIN_NAMES[place].toLowerCase()];
    if (k >= 0) traces.push({ type: "scatter", mode: "markers+text", x: [k + 1], y: [band.p50[position] * factor], text: [PIN_NAMES[place]], textposition: "top center", textfont: { color }, marker: { color, size: 11 }, hoverinfo: "skip", showlegend: false });
  });
  draw(byId("uncertainty-plot"), traces, layout({ height: 360, hovermode: "closest", xaxis: axis("Designs, by median"), yaxis: axis(labelOf(name)) }));
}

function drawConvergence() {
  const { evaluations, hypervolume } = DATA.extras.convergence;
  draw(byId("convergence-plot"), [{ type: "scatter", mode: "lines+markers", x: evaluations, y: hypervolume, line: { shape: "hv", color: theme.accent, width: 2 }, marker: { size: 5 }, hoverinfo: "x+y" }],
    layout({ height: 320, xaxis: axis("Evaluations", { rangemode: "tozero" }), yaxis: axis("Hypervolume of the front so far") }));
}

function drawImportance() {
  const rows = DATA.extras.importance, metrics = distinct(rows.map((row) => row.metric)), knobs = distinct(rows.map((row) => row.knob));
  const traces = metrics.map((metric, k) => {
    const found = new Map(rows.filter((row) => row.metric === metric).map((row) => [row.knob, row.share]));
    return { type: "bar", orientation: "h", name: plotText(SHOWN[metric] ? SHOWN[metric].label : metric), y: knobs.map(plotText), x: knobs.map((knob) => 100 * (found.get(knob) || 0)), hoverinfo: "name+x", marker: { color: theme.series[k % theme.series.length] } };
  });
  draw(byId("importance-plot"), traces, layout({ height: 120 + knobs.length * (14 + 12 * metrics.length), barmode: "group", xaxis: axis("Share of the variation [%]", { rangemode: "tozero" }), yaxis: axis("", { type: "category", autorange: "reversed", showgrid: false, automargin: true }) }));
}
