// Start, and follow the reader's colour scheme, screen and printer.

function redraw() {
  readTheme();
  tell("theme");
}

function setPrinting(on) {
  if (theme.printing === on) return;
  drawWaiting();
  theme.printing = on;
  redraw();
}

// What needs no Plotly stands before Plotly is read; the front is drawn next, and charts further down when there is time.
readTheme();
if (COUNT) {
  startPinned();
  if (byId("parallel")) startParallel();
  if (byId("designs")) startTable();
}
document.documentElement.dataset.usable = "true";

const waiting = [startCosts, startRoofline, startExtras];

function drawWaiting() {
  while (waiting.length) waiting.shift()();
  document.documentElement.dataset.complete = "true";
}

function drawNext() {
  if (waiting.length) waiting.shift()();
  if (waiting.length) setTimeout(drawNext, 0);
  else document.documentElement.dataset.complete = "true";
}

function startCharts() {
  if (byId("front")) startFront();
  if (!COUNT) waiting.length = 0;
  document.documentElement.dataset.ready = "true";
  setTimeout(drawNext, 0);
}

/** Plotly's script lies in the page deflated: unpacked it is run as a script of the page, whose policy names its hash. */
async function runPlotly() {
  const letters = atob(byId("plotly").textContent), packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i); // a loop: Uint8Array.from takes thirty times as long
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  document.body.append(el("script", {}, text));
}

runPlotly().then(startCharts, () => {
  replace(byId("front-note") || byId("pinned-note"), document.createTextNode("This browser cannot unpack the charts (it needs DecompressionStream, of 2023); the tables and pareto.csv hold the same figures."));
  waiting.length = 0;
  Object.assign(document.documentElement.dataset, { ready: "true", complete: "true" });
});

darkScheme.addEventListener("change", redraw);
narrow.addEventListener("change", redraw);
window.addEventListener("beforeprint", () => setPrinting(true));
window.addEventListener("afterprint", () => setPrinting(false));
window.matchMedia("print").addEventListener("change", (event) => setPrinting(event.matches));
window.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
