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
  startParallel();
  startTable();
}

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

window.dseStartCharts = () => {
  if (COUNT) startFront();
  else waiting.length = 0;
  document.documentElement.dataset.ready = "true";
  setTimeout(drawNext, 0);
};

darkScheme.addEventListener("change", redraw);
narrow.addEventListener("change", redraw);
window.addEventListener("beforeprint", () => setPrinting(true));
window.addEventListener("afterprint", () => setPrinting(false));
window.matchMedia("print").addEventListener("change", (event) => setPrinting(event.matches));
window.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
