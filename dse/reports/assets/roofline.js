// Roofline of the pinned designs, where their breakdowns say how many bytes an operation moves and how fast the DRAM is.

function startRoofline() {
  listen("pins", drawRoofline);
  listen("theme", drawRoofline);
  drawRoofline();
}

/** Operations (or components) of a design as {name, intensity in op/B, rate in op/s, latency}. */
function rooflinePoints(position) {
  const found = breakdownOf(position);
  if (!found) return [];
  const fromOperations = found.operations.map((row) => ({ name: DATA.breakdowns.operations[row[1]], macs: row[6], bytes: row[7], latency: row[3], bound: DATA.breakdowns.bounds[row[5]] }));
  const fromComponents = found.components.map((row) => ({ name: DATA.breakdowns.components[row[0]], macs: row[3], bytes: row[4], latency: row[1], bound: null }));
  for (const rows of [fromOperations, fromComponents]) {
    const usable = rows.filter((row) => row.macs > 0 && row.bytes > 0 && row.latency > 0);
    if (usable.length) return usable.map((row) => ({ ...row, intensity: (2 * row.macs) / row.bytes, rate: (2 * row.macs) / row.latency }));
  }
  return [];
}

function drawRoofline() {
  const designs = shownDesigns().filter((i) => COLUMNS.metrics.tops && isNumber(COLUMNS.metrics.tops[i]) && isNumber(COLUMNS.bandwidth[i]) && rooflinePoints(i).length);
  byId("roofline").hidden = !designs.length;
  if (!designs.length) return;
  const all = designs.map((position) => ({ position, points: rooflinePoints(position), peak: COLUMNS.metrics.tops[position] * 1e12, bandwidth: COLUMNS.bandwidth[position] }));
  const intensities = all.flatMap((entry) => [...entry.points.map((point) => point.intensity), entry.peak / entry.bandwidth]);
  const low = Math.min(...intensities) / 2, high = Math.max(...intensities) * 2;
  // Tera where giga would need seven digits.
  const scale = Math.max(...all.map((entry) => entry.peak)) >= 1e14 ? { by: 1e12, unit: "Top/s" } : { by: 1e9, unit: "Gop/s" };
  const traces = [];
  for (const entry of all) {
    const place = state.pins.indexOf(entry.position);
    const color = place < 0 ? theme.accent : theme["pin-" + PIN_NAMES[place].toLowerCase()];
    const name = plotText((place < 0 ? "" : PIN_NAMES[place] + ": ") + designName(entry.position));
    const knee = entry.peak / entry.bandwidth;
    const roof = [low, knee, high];
    traces.push({ type: "scatter", mode: "lines", name, x: roof, y: roof.map((x) => Math.min(entry.peak, x * entry.bandwidth) / scale.by), line: { color, width: 2 }, hoverinfo: "skip", legendgroup: name });
    traces.push({
      type: "scatter", mode: "markers", showlegend: false, legendgroup: name, x: entry.points.map((point) => point.intensity), y: entry.points.map((point) => point.rate / scale.by),
      // Area grows with the time that an operation takes, so that what matters is what is seen.
      marker: { color, symbol: place === 1 ? "diamond" : "circle", opacity: 0.75, line: { width: 1, color: theme.panel }, size: entry.points.map((point) => 6 + 22 * Math.sqrt(point.latency / Math.max(...entry.points.map((other) => other.latency)))) },
      hovertext: entry.points.map((point) => plotText(point.name + ": " + short(point.rate / scale.by) + " " + scale.unit + " at " + short(point.intensity) + " op/B, " + inMetricUnit("latency_s", point.latency) + (point.bound ? ", limited by " + point.bound : ""))),
      hoverinfo: "text",
    });
  }
  draw(byId("roofline-plot"), traces, layout({
    height: 340,
    hovermode: "closest",
    xaxis: logAxis("Intensity [op/B of DRAM traffic]", [low, high]),
    yaxis: logAxis("Throughput [" + scale.unit + "]", all.flatMap((entry) => [entry.peak / scale.by, (low * entry.bandwidth) / scale.by, ...entry.points.map((point) => point.rate / scale.by)])),
  }));
}
