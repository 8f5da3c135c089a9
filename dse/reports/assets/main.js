// Start, and follow the reader's colour scheme, screen and printer.

function redraw() {
  readTheme();
  tell("theme");
}

function print(on) {
  if (theme.printing === on) return;
  theme.printing = on;
  redraw();
}

readTheme();
if (COUNT) {
  startFront();
  startPinned();
  startCosts();
  startRoofline();
  startParallel();
  startTable();
  startExtras();
}
darkScheme.addEventListener("change", redraw);
narrow.addEventListener("change", redraw);
window.addEventListener("beforeprint", () => print(true));
window.addEventListener("afterprint", () => print(false));
window.matchMedia("print").addEventListener("change", (event) => print(event.matches));
window.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
document.documentElement.dataset.ready = "true";
