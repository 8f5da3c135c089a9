// Colours follow the reader's scheme; on paper they are the light ones. The values stand in the style sheet.

const darkScheme = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 640px)");
const coarse = window.matchMedia("(pointer: coarse)");
const theme = { printing: false };

function readTheme() {
  // The printer is announced before the style sheet knows of it, so the class takes dark colours back.
  document.documentElement.classList.toggle("paper", theme.printing);
  theme.dark = darkScheme.matches && !theme.printing;
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "muted", "line", "panel", "accent", "point", "pin-a", "pin-b", "faint"]) {
    theme[name] = style.getPropertyValue("--" + name).trim();
  }
  theme.font = getComputedStyle(document.body).fontFamily;
  theme.series = style.getPropertyValue("--series").split(",").map((color) => color.trim());
}

// Cividis (Nuñez, Anderton, Renslow 2018), a scale that reads the same with any colour vision; its dark end is lifted on dark paper.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

function scaleColors() {
  return theme.dark ? ["#3f6fb5", ...CIVIDIS.slice(4)] : CIVIDIS.slice(0, 9);
}

function colorAt(share) {
  const colors = scaleColors();
  return colors[Math.min(colors.length - 1, Math.max(0, Math.floor(share * colors.length)))];
}

function plotlyScale() {
  const colors = scaleColors();
  return colors.map((color, i) => [i / (colors.length - 1), color]);
}

function axis(title, extra) {
  return {
    title: { text: plotText(title), standoff: 8, font: { size: 13, color: theme.ink } },
    color: theme.muted,
    gridcolor: theme.line,
    linecolor: theme.line,
    zeroline: false,
    ticks: "outside",
    ticklen: 4,
    tickcolor: theme.line,
    tickfont: { size: 12, color: theme.muted },
    // Margins stand fixed where the labels are numbers: finding them makes Plotly draw thousands of points twice.
    automargin: false,
    exponentformat: "power",
    ...extra,
  };
}

/** A logarithmic axis with ticks at 1, 2 and 5 of each decade, or at each decade where there are many. */
function logAxis(title, values, extra) {
  const sizes = values.filter((value) => isNumber(value) && value > 0);
  const ticks = logTicks(Math.min(...sizes) / 3, Math.max(...sizes) * 3);
  return axis(title, { type: "log", tickvals: ticks, ticktext: ticks.map(short), ...extra });
}

function layout(extra) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: theme.font, size: 13, color: theme.ink },
    margin: { l: 68, r: 16, t: 40, b: 52 },
    hoverlabel: { bgcolor: theme.panel, bordercolor: theme.line, font: { family: theme.font, size: 13, color: theme.ink } },
    legend: { traceorder: "normal", orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12, color: theme.ink } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: theme.muted, activecolor: theme.accent },
    dragmode: coarse.matches ? false : "zoom",
    ...extra,
  };
}

const PLOT_CONFIG = {
  displaylogo: false,
  responsive: true,
  showTips: false,
  // Named one by one: the buttons that Plotly offers by itself include one that sends the data to its maker's server.
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
  plotlyServerURL: "",
  toImageButtonOptions: { format: "svg", filename: "dse" },
};

/** Draw or redraw a chart. On paper it takes the width of the page, which no observer reports in time. */
function draw(node, traces, chart, buttons = false) {
  const width = theme.printing ? { width: Math.min(node.clientWidth || 680, 680), autosize: false } : {};
  return Plotly.react(node, traces, { ...chart, ...width }, { ...PLOT_CONFIG, displayModeBar: buttons && !coarse.matches ? "hover" : false });
}

function selectControl(label, options, value, onChange) {
  const groups = options.map((option) =>
    option.group
      ? el("optgroup", { label: option.group }, option.entries.map((entry) => el("option", { value: entry.value }, entry.label)))
      : el("option", { value: option.value }, option.label),
  );
  const select = el("select", { on: { change: () => onChange(select.value) } }, groups);
  select.value = value;
  return el("label", {}, el("span", {}, label), select);
}

function checkControl(label, checked, onChange) {
  const box = el("input", { type: "checkbox", on: { change: () => onChange(box.checked) } });
  box.checked = checked;
  return el("label", { class: "check" }, box, el("span", {}, label));
}

function metricOptions(extra) {
  const entry = (name) => ({ value: name, label: SHOWN[name].label });
  const others = METRICS.filter((name) => !OBJECTIVES.includes(name) && name !== "quality_se" && distinct(SHOWN[name].values).length > 1);
  return [
    ...(extra || []),
    { group: "Objectives", entries: OBJECTIVES.filter((name) => SHOWN[name]).map(entry) },
    ...(others.length ? [{ group: "Other metrics", entries: others.map(entry) }] : []),
  ];
}
