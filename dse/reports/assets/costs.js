// Where a design spends its time and its carbon: components by bound for the pinned designs, carbon by part along the front.

const costs = { measure: "latency_s" };
const carbon = { order: null, shares: false };
// More bars than this are thinner than a reader can tell apart.
const CARBON_BARS = 60;

function startCosts() {
  listen("pins", drawCosts);
  listen("theme", drawCosts);
  drawCosts();
  if (!COLUMNS.metrics.operational_kgco2e && !Object.keys(COLUMNS.parts).length) {
    byId("carbon").hidden = true;
    return;
  }
  carbon.order = OBJECTIVES.find((name) => /kgco2e/.test(name)) || (COLUMNS.metrics.total_kgco2e ? "total_kgco2e" : OBJECTIVES[0]);
  carbonControls();
  drawCarbon();
  listen("theme", drawCarbon);
  listen("pins", drawCarbon);
  byId("carbon-plot").on("plotly_click", pinClicked);
}

function breakdownOf(position) {
  return DATA.breakdowns.designs[String(position)] || null;
}

function drawCosts() {
  const designs = shownDesigns(), known = designs.filter((i) => breakdownOf(i));
  const host = byId("pinned-plots");
  replace(byId("pinned-controls"), known.length
    ? selectControl("Components by", [{ value: "latency_s", label: "Latency and its bound" }, { value: "energy_j", label: "Dynamic energy" }], costs.measure, (value) => {
        costs.measure = value;
        drawCosts();
      })
    : null);
  for (const old of host.querySelectorAll(".plot")) Plotly.purge(old);
  if (!known.length) {
    replace(host, designs.length ? el("p", { class: "note" }, "The study keeps no breakdown by component for this design.") : null);
    replace(byId("pinned-operations"));
    return;
  }
  const factor = shownFactor(costs.measure);
  const column = costs.measure === "latency_s" ? 1 : 2;
  const largest = Math.max(...known.map((i) => Math.max(...breakdownOf(i).components.map((row) => row[column] || 0)))) * factor;
  const nodes = known.map((position) => {
    const name = state.pins.length ? PIN_NAMES[designs.indexOf(position)] + ": " : "";
    const node = el("div", { class: "plot", role: "img", "aria-label": "Components of " + designName(position) });
    return { position, node, box: el("figure", {}, el("figcaption", {}, el("strong", {}, name + designName(position)), " · " + costSentence(position)), node) };
  });
  replace(host, nodes.map((entry) => entry.box));
  nodes.forEach((entry) => drawComponents(entry.node, entry.position, largest));
  replace(byId("pinned-operations"), known.map((position) => operationsTable(position, designs.indexOf(position))));
}

/** What takes the time of a design, in words. */
function costSentence(position) {
  const rows = breakdownOf(position).components;
  if (costs.measure !== "latency_s") {
    const total = rows.reduce((sum, row) => sum + (row[2] || 0), 0);
    const energy = COLUMNS.metrics.energy_j ? COLUMNS.metrics.energy_j[position] : null;
    const leakage = isNumber(energy) && energy > total ? ", leakage " + percent(energy - total, energy) + " of all energy" : "";
    return inMetricUnit("energy_j", total) + " dynamic" + leakage;
  }
  const byBound = {};
  for (const row of rows) for (const [bound, seconds] of Object.entries(row[5])) byBound[bound] = (byBound[bound] || 0) + (seconds || 0);
  const total = Object.values(byBound).reduce((sum, seconds) => sum + seconds, 0);
  const order = Object.entries(byBound).filter((entry) => entry[1] > 0).sort((a, b) => b[1] - a[1]);
  return "limited by " + order.map(([bound, seconds]) => DATA.breakdowns.bounds[bound] + " " + percent(seconds, total)).join(", ");
}

function drawComponents(node, position, largest) {
  const rows = breakdownOf(position).components, names = rows.map((row) => plotText(DATA.breakdowns.components[row[0]]));
  const factor = shownFactor(costs.measure);
  const hover = (row, value, what) => plotText(DATA.breakdowns.components[row[0]] + what + ": " + inMetricUnit(costs.measure, value));
  const traces = costs.measure === "latency_s"
    ? DATA.breakdowns.bounds.map((bound, code) => ({
        type: "bar", orientation: "h", name: plotText(bound), y: names,
        x: rows.map((row) => (row[5][code] || 0) * factor),
        hovertext: rows.map((row) => hover(row, row[5][code] || 0, ", limited by " + bound)), hoverinfo: "text", textposition: "none",
        marker: { color: theme.series[code % theme.series.length] },
      })).filter((trace) => trace.x.some((value) => value > 0))
    : [{
        type: "bar", orientation: "h", name: "dynamic energy", y: names, x: rows.map((row) => (row[2] || 0) * factor), showlegend: false,
        hovertext: rows.map((row) => hover(row, row[2] || 0, "")), hoverinfo: "text", textposition: "none", marker: { color: theme.series[0] },
      }];
  draw(node, traces, layout({
    height: 110 + 30 * rows.length,
    barmode: "stack",
    bargap: 0.35,
    showlegend: costs.measure === "latency_s",
    margin: { l: 8, r: 12, t: 30, b: 44 },
    xaxis: axis(DATA.metrics[costs.measure] ? axisLabel(costs.measure) : costs.measure, { range: [0, largest * 1.04], fixedrange: true }),
    yaxis: axis("", { type: "category", autorange: "reversed", showgrid: false, ticks: "", fixedrange: true, automargin: true }),
  }));
}

function operationsTable(position, place) {
  const found = breakdownOf(position);
  if (!found.operations.length) return null;
  const total = found.operations.reduce((sum, row) => sum + (row[3] || 0), 0);
  const rows = [...found.operations].sort((a, b) => b[3] - a[3]).map((row) =>
    el("tr", {},
      el("td", {}, DATA.breakdowns.operations[row[1]]), el("td", {}, DATA.breakdowns.components[row[0]]), el("td", { class: "num" }, short(row[2])),
      el("td", { class: "num" }, inMetricUnit("latency_s", row[3])), el("td", { class: "num" }, percent(row[3], total)),
      el("td", { class: "num" }, inMetricUnit("energy_j", row[4])), el("td", {}, DATA.breakdowns.bounds[row[5]])));
  const head = ["Operation", "Component", "Runs", "Latency", "Of all", "Dynamic energy", "Bound"];
  const numeric = [2, 3, 4, 5];
  return el("details", {}, el("summary", {}, "Operations of " + (state.pins.length ? PIN_NAMES[place] + ", d" : "d") + designName(position).slice(1)),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Operations" },
      el("table", {}, el("thead", {}, el("tr", {}, head.map((name, i) => el("th", { scope: "col", class: numeric.includes(i) ? "num" : null }, name)))), el("tbody", {}, rows))));
}

function carbonControls() {
  const entry = (name) => ({ value: name, label: SHOWN[name].label });
  const orders = distinct([...["total_kgco2e", "embodied_kgco2e", "operational_kgco2e"].filter((name) => SHOWN[name]), ...OBJECTIVES.filter((name) => SHOWN[name])]);
  replace(
    byId("carbon-controls"),
    selectControl("In order of", orders.map(entry), carbon.order, (value) => {
      carbon.order = value;
      drawCarbon();
    }),
    checkControl("shares", carbon.shares, (value) => {
      carbon.shares = value;
      drawCarbon();
    }),
  );
}

/** Embodied parts in the order of their size, and operational carbon last: it is the one that grows with use. */
function carbonSeries() {
  const size = (values) => values.reduce((sum, value) => sum + (value || 0), 0);
  const parts = Object.entries(COLUMNS.parts).map(([name, values]) => ({ name: "embodied: " + name, values, total: size(values) }));
  parts.sort((a, b) => b.total - a.total);
  if (!parts.length && COLUMNS.metrics.embodied_kgco2e) parts.push({ name: "embodied", values: COLUMNS.metrics.embodied_kgco2e });
  if (COLUMNS.metrics.operational_kgco2e) parts.push({ name: "operational", values: COLUMNS.metrics.operational_kgco2e, operational: true });
  return parts;
}

function drawCarbon() {
  const sorted = [...Array(COUNT).keys()].sort((a, b) => SHOWN[carbon.order].values[a] - SHOWN[carbon.order].values[b] || a - b);
  const limit = narrow.matches || theme.printing ? CARBON_BARS / 2 : CARBON_BARS;
  const step = (sorted.length - 1) / (limit - 1);
  const chosen = new Set([...Array(limit).keys()].map((i) => sorted[Math.round(i * step)]).concat(state.pins));
  const shown = sorted.length > limit ? sorted.filter((i) => chosen.has(i)) : sorted;
  const series = carbonSeries();
  const totals = shown.map((i) => series.reduce((sum, part) => sum + (part.values[i] || 0), 0));
  const unit = DATA.metrics.total_kgco2e ? "total_kgco2e" : "embodied_kgco2e";
  const factor = carbon.shares ? null : shownFactor(unit);
  let colored = 0;
  const traces = series.map((part) => ({
    type: "bar", name: plotText(part.name), customdata: shown, x: shown.map((i) => String(COLUMNS.design[i])),
    y: shown.map((i, k) => (carbon.shares ? (100 * part.values[i]) / totals[k] : part.values[i] * factor)),
    hovertext: shown.map((i, k) => plotText(designName(i) + ", " + part.name + ": " + inMetricUnit(unit, part.values[i]) + ", " + percent(part.values[i], totals[k]))),
    hoverinfo: "text", textposition: "none",
    // Operational carbon carries a pattern, so that the line between making and using is seen without colour.
    marker: part.operational
      ? { color: theme.series[1], pattern: { shape: "/", size: 6, solidity: 0.25, bgcolor: theme.series[1], fgcolor: theme.panel } }
      : { color: theme.series[[0, 2, 4, 3, 5, 6][colored++ % 6]] },
  }));
  const marks = state.pins.map((position, place) => ({ place, at: shown.indexOf(position) })).filter((mark) => mark.at >= 0);
  draw(byId("carbon-plot"), traces, layout({
    height: narrow.matches ? 340 : 380,
    barmode: "stack",
    margin: { l: 68, r: 16, t: narrow.matches ? 64 : 40, b: 68 },
    bargap: shown.length > 30 ? 0.12 : shown.length > 5 ? 0.25 : 0.7,
    hovermode: "closest",
    xaxis: axis("Designs, by " + lowered(SHOWN[carbon.order].label), { type: "category", showgrid: false, ticks: "", fixedrange: true, tickangle: shown.length > 24 ? -90 : 0 }),
    yaxis: axis(carbon.shares ? "Share [%]" : "Carbon over the lifetime [" + SHOWN[unit].unit + "]", { rangemode: "tozero", fixedrange: true }),
    annotations: marks.map((mark) => ({
      x: mark.at, y: carbon.shares ? 100 : totals[mark.at] * factor, yshift: 10, text: PIN_NAMES[mark.place], showarrow: false,
      font: { color: theme["pin-" + PIN_NAMES[mark.place].toLowerCase()], size: 14, weight: 700 },
    })),
  }));
  replace(byId("carbon-note"), document.createTextNode(
    (shown.length < COUNT ? shown.length + " of " + COUNT.toLocaleString("en-GB") + " designs, evenly spaced" + (state.pins.length ? ", and the pinned ones. " : ". ") : "") +
    "Embodied carbon is that of making the device; operational carbon is that of its electricity over the lifetime at the same request rate for all."));
}
