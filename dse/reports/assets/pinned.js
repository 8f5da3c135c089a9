// The pinned designs: every figure side by side.

function startPinned() {
  for (const button of document.querySelectorAll("button[data-pin]")) {
    button.addEventListener("click", () => {
      const position = Number(button.dataset.pin);
      if (!state.pins.includes(position)) pin(position);
      byId("pinned").scrollIntoView({ behavior: "smooth" });
    });
  }
  listen("pins", showPinned);
  showPinned();
}

function pinnedNote() {
  if (state.pins.length === 2) return "B is compared with A. Another click on the front replaces B.";
  if (state.pins.length === 1) return "Pin a second design to compare the two.";
  return "Nothing is pinned yet: this is the recommended design.";
}

function showPinned() {
  const designs = shownDesigns();
  replace(
    byId("pinned-note"),
    document.createTextNode(pinnedNote() + " "),
    state.pins.length ? el("button", { type: "button", class: "quiet screen", on: { click: unpinAll } }, "Unpin") : null,
  );
  if (!designs.length) return replace(byId("pinned-table"));
  const both = designs.length === 2;
  const body = [];
  const group = (title, rows) => {
    if (rows.length) body.push(el("tr", { class: "group" }, el("th", { colspan: both ? 4 : 2, scope: "colgroup" }, title)), ...rows);
  };
  const others = METRICS.filter((name) => !OBJECTIVES.includes(name) && name !== "quality_se");
  group("Objectives", OBJECTIVES.filter((name) => SHOWN[name]).map((name) => metricRow(name, designs)));
  group("Model and hardware", [
    ...KNOBS.map((name) => plainRow(name, designs.map((i) => knobText(COLUMNS.knobs[name][i])))),
    ...(HAS_SUPPORT ? [plainRow("support of the quality", designs.map((i) => COLUMNS.support[i] || "–"))] : []),
  ]);
  group("Other metrics", others.map((name) => metricRow(name, designs)));
  const mix = Object.entries(COLUMNS.mix);
  group("One request of each part", mix.flatMap(([part, own]) => ["latency_s", "energy_j"].filter((name) => SHOWN[name]).map((name) => {
    const values = designs.map((i) => own[name][i]);
    return numberRow(part + " (" + percent(own.share, 1) + "): " + (name === "latency_s" ? "latency" : "dynamic energy"), null, values.map((value) => (isNumber(value) ? inMetricUnit(name, value) : "–")), values, "min", null);
  })));
  group("Embodied carbon by part", Object.keys(COLUMNS.parts).map((name) => partRow(name, designs)));
  const head = el("tr", {}, el("td", {}), designs.map((i, place) =>
    el("th", { scope: "col", class: "num" }, state.pins.length ? el("span", { class: "pin pin-" + PIN_NAMES[place].toLowerCase() }, PIN_NAMES[place]) : null, " " + designName(i))),
  both ? el("th", { scope: "col", class: "num" }, "B against A") : null);
  replace(byId("pinned-table"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Pinned designs" },
    el("table", { class: "compare" }, el("caption", { class: "sr-only" }, "Pinned designs"), el("thead", {}, head), el("tbody", {}, body))));
}

function plainRow(name, cells) {
  const differ = cells.length === 2 && cells[0] !== cells[1];
  return el("tr", { class: differ ? "differs" : null }, el("th", { scope: "row" }, breakable(name)), cells.map((cell) => el("td", { class: "num" }, cell)),
    cells.length === 2 ? el("td", { class: "num" }, differ ? changeText(cells) : "same") : null);
}

function changeText(cells) {
  const [a, b] = cells.map(Number);
  return Number.isFinite(a) && Number.isFinite(b) && a !== 0 ? "× " + short(Number((b / a).toPrecision(2))) : "differs";
}

function metricRow(name, designs) {
  const values = designs.map((i) => SHOWN[name].values[i]);
  return numberRow(SHOWN[name].label, name, designs.map((i) => metricText(name, i)), values, DATA.metrics[name].better, name === "quality" ? designs : null);
}

function partRow(name, designs) {
  const factor = shownFactor("embodied_kgco2e"), unit = (DATA.metrics.embodied_kgco2e || { unit: "kgCO₂e" }).unit;
  const values = designs.map((i) => COLUMNS.parts[name][i]);
  return numberRow(name, null, values.map((value) => (isNumber(value) ? short(value * factor) + " " + unit : "–")), values, "min", null);
}

function numberRow(label, title, texts, values, better, qualityOf) {
  const row = el("tr", {}, el("th", { scope: "row", title }, label), texts.map((text) => el("td", { class: "num" }, text)));
  if (values.length === 2) {
    const change = differenceText(values, qualityOf);
    const sign = values[1] === values[0] || !better ? 0 : (values[1] > values[0]) === (better === "max") ? 1 : -1;
    row.append(el("td", { class: "num " + (sign > 0 ? "better" : sign < 0 ? "worse" : "") }, change, sign ? el("span", { class: "verdict" }, sign > 0 ? " better" : " worse") : null));
    if (values[0] !== values[1]) row.classList.add("differs");
  }
  return row;
}

function differenceText([a, b], qualityOf) {
  if (!isNumber(a) || !isNumber(b)) return "–";
  if (a === b) return "same";
  if (qualityOf) {
    const error = Math.max(...qualityOf.map((i) => standardError(i) || 0));
    return (b > a ? "+" : "−") + short(Math.abs(b - a)) + " points" + (Math.abs(b - a) < error ? ", within the standard error," : "");
  }
  if (a === 0) return (b > a ? "+" : "−") + short(Math.abs(b - a));
  const share = (100 * (b - a)) / Math.abs(a);
  return (share > 0 ? "+" : "−") + short(Math.abs(Number(share.toPrecision(3)))) + " %";
}
