// Numbers and names as a reader sees them. Every metric has one unit for the whole page, chosen when the page was made.

function decimalsOf(values) {
  const sizes = values.filter((value) => isNumber(value) && value !== 0).map(Math.abs);
  if (!sizes.length || values.every((value) => !isNumber(value) || Number.isInteger(value))) return 0;
  const largest = Math.max(...sizes), smallest = Math.min(...sizes);
  // Four digits for the largest; more where the smallest would lose its second digit, within reason.
  const wanted = Math.max(3 - Math.floor(Math.log10(largest)), 1 - Math.floor(Math.log10(smallest)));
  return Math.min(Math.max(wanted, 0), 4);
}

const SHOWN = {};
for (const name of METRICS) {
  const factor = DATA.metrics[name].factor;
  const values = COLUMNS.metrics[name].map((value) => (isNumber(value) ? value * factor : null));
  SHOWN[name] = { values, decimals: decimalsOf(values), label: DATA.metrics[name].label, unit: DATA.metrics[name].unit };
}

function fixed(value, decimals) {
  return value.toLocaleString("en-GB", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** A number to four significant digits. */
function short(value) {
  if (!isNumber(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e7)) return value.toExponential(3);
  return value.toLocaleString("en-GB", { maximumSignificantDigits: Math.abs(value) >= 1e4 ? 7 : 4 });
}

function metricNumber(name, position) {
  const value = SHOWN[name].values[position];
  return isNumber(value) ? fixed(value, SHOWN[name].decimals) : "–";
}

/** A standard error: two digits say what it can say. */
function errorText(error) {
  return short(Number(error.toPrecision(2)));
}

function metricText(name, position) {
  const text = metricNumber(name, position);
  const error = name === "quality" ? standardError(position) : null;
  return text + (error === null ? "" : " ± " + errorText(error)) + (SHOWN[name].unit ? " " + SHOWN[name].unit : "");
}

function standardError(position) {
  const errors = COLUMNS.metrics.quality_se;
  return errors && isNumber(errors[position]) && errors[position] > 0 ? errors[position] : null; // 0: nobody stated one
}

function axisLabel(name) {
  return SHOWN[name].label + (SHOWN[name].unit ? " [" + SHOWN[name].unit + "]" : "");
}

/** An axis title that says which way is better. */
function axisTitle(name, arrows) {
  const better = DATA.metrics[name].better;
  if (!better) return axisLabel(name);
  return axisLabel(name) + "  " + (better === "max" ? arrows[0] : arrows[1]) + " better";
}

function shownFactor(name) {
  return DATA.metrics[name] ? DATA.metrics[name].factor : 1;
}

function designName(position) {
  return "Design " + COLUMNS.design[position];
}

function knobText(value) {
  return isNumber(value) ? value.toLocaleString("en-GB", { useGrouping: false }) : value === null ? "–" : String(value);
}

/** Seconds, joules and the like in the unit in which the page shows the metric of the whole design. */
function inMetricUnit(name, value) {
  return short(value * shownFactor(name)) + (DATA.metrics[name] ? " " + DATA.metrics[name].unit : "");
}

function percent(part, whole) {
  if (!whole) return "–";
  const share = (100 * part) / whole;
  return share > 0 && share < 0.1 ? "< 0.1 %" : share.toFixed(share < 10 ? 1 : 0) + " %";
}

/** a, b and c. */
function joinedWords(words) {
  return words.length < 2 ? words.join("") : words.slice(0, -1).join(", ") + " and " + words[words.length - 1];
}

/** A label inside a sentence. */
function lowered(label) {
  return /^.[A-Z]/.test(label) ? label : label.charAt(0).toLowerCase() + label.slice(1);
}

/** Round values between two: 1, 2 and 5 of each decade, or the decades alone where there are many. */
function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const ticks = [];
  for (let decade = first; decade <= last; decade++) {
    for (const step of last - first > 4 ? [1] : [1, 2, 5]) ticks.push(Number((step * 10 ** decade).toPrecision(3)));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

/** Some five round values between two. */
function linearTicks(low, high) {
  const rough = (high - low) / 5 || 1;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = decade * [1, 2, 5, 10].find((factor) => factor * decade >= rough * 0.99);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-12); k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

/** Whether an axis of these values reads better in logarithms. */
function wantsLog(values) {
  const sizes = values.filter(isNumber);
  if (!sizes.length || sizes.some((value) => value <= 0)) return false;
  return Math.max(...sizes) / Math.min(...sizes) > 30;
}
