// The front as a table: sorted by any column, fifty rows at a time, pins and kept ranges shared with the charts.

const PAGE_ROWS = 50;
const table = { columns: [], sort: "design", descending: false, rows: PAGE_ROWS };

function startTable() {
  const metric = (name) => ({
    key: "metric " + name, label: SHOWN[name].label, unit: SHOWN[name].unit, title: name, numeric: true, values: SHOWN[name].values,
    text: (i) => (name === "quality" && standardError(i) !== null ? metricNumber(name, i) + " ± " + errorText(standardError(i)) : metricNumber(name, i)),
  });
  const objectives = OBJECTIVES.filter((name) => SHOWN[name]);
  const others = METRICS.filter((name) => !objectives.includes(name) && name !== "quality_se" && distinct(SHOWN[name].values).length > 1);
  const knob = (name) => ({ key: "knob " + name, label: name, unit: "", title: name, numeric: COLUMNS.knobs[name].every((v) => v === null || isNumber(v)), values: COLUMNS.knobs[name], text: (i) => knobText(COLUMNS.knobs[name][i]) });
  table.columns = [
    { key: "design", label: "Design", unit: "", title: "rank in canonical order", numeric: true, values: COLUMNS.design, text: (i) => String(COLUMNS.design[i]) },
    ...objectives.map(metric),
    ...Object.keys(COLUMNS.mix).map(partLatency),
    ...(HAS_SUPPORT ? [{ key: "support", label: "Support", unit: "", title: "what supports the quality", numeric: false, values: COLUMNS.support, text: (i) => COLUMNS.support[i] || "–" }] : []),
    ...VARYING_KNOBS.map(knob),
    // On paper the width goes to objectives and knobs.
    ...others.map((name) => ({ ...metric(name), secondary: true })),
  ];
  listen("pins", markPins);
  listen("kept", drawTable);
  drawTable();
}

/** The latency of one request of a part of a mix, beside the mean of all. */
function partLatency(part) {
  const factor = shownFactor("latency_s"), values = COLUMNS.mix[part].latency_s.map((value) => (isNumber(value) ? value * factor : null));
  const decimals = decimalsOf(values);
  return { key: "part " + part, label: "Latency, " + part, unit: DATA.metrics.latency_s.unit, title: "one request of " + part, numeric: true, values, text: (i) => (values[i] === null ? "–" : fixed(values[i], decimals)) };
}

function sortedRows() {
  const column = table.columns.find((entry) => entry.key === table.sort);
  const rows = [...Array(COUNT).keys()].filter(isKept);
  const sign = table.descending ? -1 : 1;
  // Missing values stay at the end either way; equal ones keep the canonical order.
  rows.sort((a, b) => {
    const x = column.values[a], y = column.values[b];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    if (isNumber(x) && isNumber(y)) return sign * (x - y) || a - b;
    return sign * (String(x) < String(y) ? -1 : String(x) > String(y) ? 1 : 0) || a - b;
  });
  return rows;
}

function drawTable() {
  const rows = sortedRows(), shown = rows.slice(0, table.rows);
  const head = table.columns.map((column) => {
    const sorted = column.key === table.sort;
    const arrow = sorted ? (table.descending ? "▾" : "▴") : "";
    return el("th", { scope: "col", class: cellClass(column), "aria-sort": sorted ? (table.descending ? "descending" : "ascending") : "none" },
      el("button", { type: "button", title: column.title, "data-sort": column.key, on: { click: () => sortBy(column.key) } }, breakable(column.label), column.unit ? el("small", {}, " " + column.unit) : null, sorted ? el("span", { class: "arrow", "aria-hidden": "true" }, " " + arrow) : null));
  });
  const body = shown.map((i) =>
    el("tr", { "data-position": i, tabindex: "-1" }, table.columns.map((column, place) =>
      place === 0
        ? el("th", { scope: "row", class: "num" }, el("button", { type: "button", class: "pin-button", "aria-pressed": "false", title: "Pin " + designName(i), on: { click: () => pin(i) } }, column.text(i)))
        : el("td", { class: cellClass(column) }, column.text(i)))));
  replace(byId("table"), el("table", { class: "designs" }, el("caption", { class: "sr-only" }, "Designs of the front"), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
  markPins();
  const more = (count, label) => el("button", { type: "button", on: { click: () => { table.rows = count; drawTable(); } } }, label);
  replace(byId("table-more"),
    rows.length > table.rows ? more(table.rows + PAGE_ROWS, "Show " + Math.min(PAGE_ROWS, rows.length - table.rows) + " more") : null,
    rows.length > table.rows ? more(COUNT, "Show all " + rows.length.toLocaleString("en-GB")) : null,
    table.rows > PAGE_ROWS && rows.length > PAGE_ROWS ? more(PAGE_ROWS, "Show fewer") : null);
  replace(byId("table-note"), document.createTextNode(tableNote(shown.length, rows.length)));
}

function tableNote(shown, all) {
  const parts = [shown < all ? shown.toLocaleString("en-GB") + " of " + all.toLocaleString("en-GB") + " designs." : all.toLocaleString("en-GB") + (all === 1 ? " design." : " designs.")];
  if (state.kept) parts.push("Only those within the ranges kept above.");
  if (FIXED_KNOBS.length) parts.push("The same for all: " + FIXED_KNOBS.map((name) => name + " " + knobText(COLUMNS.knobs[name][0])).join(", ") + ".");
  if (COLUMNS.metrics.quality) parts.push((DATA.measured ? "Quality was measured" : "Quality is a surrogate's prediction") + (COLUMNS.design.some((_, i) => standardError(i)) ? " ± its standard error." : ", without a standard error."));
  return parts.join(" ");
}

function cellClass(column) {
  return [column.numeric ? "num" : "", column.secondary ? "secondary" : ""].join(" ").trim() || null;
}

function sortBy(key) {
  if (table.sort === key) table.descending = !table.descending;
  else {
    table.sort = key;
    const name = key.startsWith("metric ") ? key.slice(7) : null;
    table.descending = Boolean(name && DATA.metrics[name].better === "max");
  }
  drawTable();
  const again = [...byId("table").querySelectorAll("th button")].find((button) => button.dataset.sort === key);
  if (again) again.focus({ preventScroll: true });
}

function markPins() {
  for (const row of byId("table").querySelectorAll("tr[data-position]")) {
    const place = state.pins.indexOf(Number(row.dataset.position));
    row.classList.toggle("pinned-a", place === 0);
    row.classList.toggle("pinned-b", place === 1);
    row.querySelector("button").setAttribute("aria-pressed", String(place >= 0));
  }
}
