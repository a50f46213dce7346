// How the page writes and draws: numbers with units, rows that are updated in place, bars, and charts of the last five minutes.
//
// Text of strangers comes through here: it is cut, cleaned, and set as text or as an attribute, never as markup.

export const SPAN_S = 300;
export const COLOURS = 6; // as many series have a colour of their own; the others share a grey
const GAP_S = 3; // between readings further apart than this, only the average is known
const SVG = "http://www.w3.org/2000/svg";

// ---- Words and numbers ----

export const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// What would reorder or hide the text around it is shown as what it is: something that does not belong there.
const clean = (text) => String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "\ufffd");

export function cut(text, max) {
  const letters = Array.from(clean(text).slice(0, 4 * max));
  return letters.length > max ? letters.slice(0, max - 1).join("") + "…" : letters.join("");
}

// Identities begin alike: the end tells them apart.
export const shortId = (id) => (id.length > 20 ? `${cut(id, 9)}${clean(id.slice(-8))}` : clean(id));

const digits = (n) => (n >= 100 || Number.isInteger(n) ? whole.format(n) : n >= 10 ? n.toFixed(1) : n.toFixed(2));

function scaled(n, step, units) {
  let at = 0;
  for (; n >= step * 0.9995 && at < units.length - 1; at += 1) n /= step;
  return `${at ? digits(n) : whole.format(n)} ${units[at]}`;
}

export const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
export const byteRate = (n) => scaled(n, 1000, ["B/s", "kB/s", "MB/s", "GB/s"]);
export const countRate = (n) => (n > 0 && n < 0.005 ? "< 0.01 /s" : `${digits(n)} /s`);
export const percent = (part, all) => (all > 0 ? (100 * part) / all : 0);

export function time(s) {
  if (s < 1) return s < 0.01 ? `${digits(s * 1000)} ms` : `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s < 10 && s % 1 ? s.toFixed(1) : Math.floor(s)} s`;
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : `${m} min ${Math.floor(s) % 60} s`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

// ---- The document ----

export const $ = (id) => document.getElementById(id);

// What has not changed is not touched: with a thousand rows, that is most.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function attr(node, attrs) {
  for (const [name, value] of Object.entries(attrs)) if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  return node;
}

export function make(tag, attrs = {}, ...children) {
  const node = attr(document.createElement(tag), attrs);
  node.append(...children);
  return node;
}

export function draw(tag, attrs = {}, ...children) {
  const node = attr(document.createElementNS(SVG, tag), attrs);
  node.append(...children);
  return node;
}

// Keeps the children of `parent` in step with a list of items that have a `key`: rows are made and dropped with what they show, filled in place, and
// moved only if their order changed.
export function keyed(parent, create, fill, first = null) {
  const rows = new Map();
  return (items) => {
    const keys = new Set(items.map((item) => item.key));
    for (const [key, row] of rows) {
      if (keys.has(key)) continue;
      row.node.remove();
      rows.delete(key);
    }
    let at = first ? first.nextElementSibling : parent.firstElementChild;
    for (const item of items) {
      let row = rows.get(item.key);
      if (!row) rows.set(item.key, (row = create(item)));
      fill(row, item);
      if (row.node === at) at = at.nextElementSibling;
      else {
        // Moving a node takes the keyboard's focus from what is in it.
        const focused = row.node.contains(document.activeElement) ? document.activeElement : null;
        parent.insertBefore(row.node, at);
        focused?.focus({ preventScroll: true });
      }
    }
  };
}

// A row of a table. `columns` are names, as a narrow screen shows them above each cell. What a name begins with says what is in its column: "#" numbers,
// "+" something that takes two of the three places in a line of a narrow screen, "=" all. The first cell is the row's header.
export function tableRow(columns, scope = "row") {
  const cells = columns.map((column, at) => {
    const name = column.replace(/^[#+=]/, "");
    const cell = make(at ? "td" : "th", at ? { "data-label": name } : { scope });
    if (name !== column) cell.className = { "#": "n", "+": "two", "=": "all" }[column[0]];
    return cell.appendChild(make("div"));
  });
  return { node: make("tr", {}, ...cells.map((cell) => cell.parentNode)), cells };
}

export function button(text, title, act) {
  const node = make("button", { type: "button", class: "name", title });
  node.textContent = text;
  node.addEventListener("click", act);
  return node;
}

export function meter() {
  const fill = draw("rect", { class: "fill", x: 0, y: 0, height: 8, width: 0 });
  const track = draw("rect", { class: "track", x: 0.5, y: 0.5, width: "100%", height: 7 });
  return { node: draw("svg", { class: "meter", role: "img" }, track, fill), fill };
}

export function fillMeter(row, part, all, words) {
  const share = Math.min(100, percent(part, all));
  attr(row.fill, { width: `${share.toFixed(1)}%` });
  attr(row.node, { class: share >= 85 ? "meter high" : "meter", "aria-label": `${words}: ${Math.round(share)} of 100` });
}

// ---- Charts ----

// What is drawn: rates between successive readings, `{ from, to, wire, by }`, oldest first; and which protocol has which colour.
export const history = { points: [], colours: new Map() };

// A protocol keeps the colour that it got when it first did something.
export function colour(name, active) {
  if (!history.colours.has(name) && active && history.colours.size < COLOURS) history.colours.set(name, history.colours.size);
  return history.colours.get(name) ?? COLOURS;
}

export const CHARTS = [
  { title: "Received", at: 0, unit: byteRate, wire: true },
  { title: "Sent", at: 1, unit: byteRate, wire: true },
  { title: "Requests and streams begun", at: 2, unit: countRate, wire: false },
];

const HEIGHT = 150;
const [TOP, BOTTOM] = [14, 132];

export function chart(of) {
  const layers = draw("g");
  const parts = { of, layers, wire: draw("path", { class: "wire" }), cross: draw("line", { class: "cross", y1: TOP, y2: BOTTOM, visibility: "hidden" }) };
  parts.lines = [TOP, (TOP + BOTTOM) / 2, BOTTOM].map((y) => draw("line", { class: "grid", x1: 0, x2: "100%", y1: y, y2: y }));
  parts.marks = [TOP, (TOP + BOTTOM) / 2].map((y) => draw("text", { x: 2, y: y + 12 }));
  parts.times = [5, 4, 3, 2, 1, 0].map((minute) => {
    const text = draw("text", { x: `${100 - 20 * minute}%`, y: HEIGHT - 4, "text-anchor": minute === 5 ? "start" : minute ? "middle" : "end" });
    text.textContent = minute === 5 ? "−5 min" : minute ? `−${minute}` : "now";
    return text;
  });
  parts.svg = draw("svg", { role: "img" }, ...parts.lines, layers, parts.wire, parts.cross, ...parts.marks, ...parts.times);
  parts.read = make("p", { class: "read" });
  const title = make("h3");
  title.textContent = of.title;
  // The picture itself has a name for who does not see it; moving over it, or the arrow keys, read single moments.
  parts.frame = make("div", { tabindex: 0, role: "group", "aria-label": `${of.title}: arrow keys read a moment` }, parts.svg);
  parts.node = make("div", { class: "chart" }, title, parts.frame, parts.read);
  parts.svg.addEventListener("pointermove", (event) => look(parts, SPAN_S * (1 - (event.clientX - parts.svg.getBoundingClientRect().left) / width(parts))));
  parts.svg.addEventListener("pointerleave", () => look(parts, null));
  parts.frame.addEventListener("blur", () => look(parts, null));
  parts.frame.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: 5, ArrowRight: -5, Home: SPAN_S, End: -SPAN_S }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    look(parts, Math.min(SPAN_S, Math.max(0, (parts.ago ?? 0) + by)));
  });
  parts.read.setAttribute("aria-live", "off");
  parts.frame.addEventListener("focus", () => parts.read.setAttribute("aria-live", "polite"));
  parts.frame.addEventListener("blur", () => parts.read.setAttribute("aria-live", "off"));
  return parts;
}

const width = (parts) => Math.max(50, parts.svg.clientWidth);

function look(parts, ago) {
  parts.ago = ago;
  drawChart(parts);
}

// The end of the axis: 1, 2 or 5 times a power of ten.
function ceiling(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((by) => by * power).find((end) => end >= most * 0.9999);
}

// Sums of a point's rates by colour, so that a chart has at most seven layers.
function layersOf(point, at) {
  const sums = new Array(COLOURS + 1).fill(0);
  for (const [name, values] of point.by) sums[colour(name, false)] += values[at];
  return sums;
}

export function drawChart(parts) {
  const { of, svg } = parts;
  const points = history.points;
  const end = points.length ? points[points.length - 1].to : 0;
  const wide = width(parts);
  const x = (t) => (wide * (1 - (end - t) / SPAN_S)).toFixed(1);
  const sums = points.map((point) => layersOf(point, of.at));
  const totals = sums.map((by) => by.reduce((a, b) => a + b, 0));
  const wires = of.wire ? points.map((point) => point.wire[of.at]) : [];
  const most = points.length ? Math.max(...totals, ...wires) : 0;
  const top = ceiling(most);
  const y = (value) => (BOTTOM - ((BOTTOM - TOP) * value) / top).toFixed(1);
  // Where readings are far apart, their average is drawn flat over the gap.
  const line = (values) => points.map((point, i) => {
    const flat = i === 0 || point.to - point.from > GAP_S;
    return `${flat ? `${x(point.from)} ${y(values[i])}L` : ""}${x(point.to)} ${y(values[i])}`;
  });
  const lower = totals.map(() => 0);
  for (let index = 0; index <= COLOURS; index += 1) {
    let path = parts.layers.children[index];
    if (!path) parts.layers.append((path = draw("path", { class: `area c${index}` })));
    const upper = lower.map((value, i) => value + sums[i][index]);
    const drawn = sums.some((by) => by[index] > 0);
    attr(path, { d: drawn ? `M${line(upper).join("L")}L${reversed(line(lower))}Z` : "" });
    upper.forEach((value, i) => (lower[i] = value));
  }
  attr(parts.wire, { d: wires.length ? `M${line(wires).join("L")}` : "" });
  [top, top / 2].forEach((value, i) => put(parts.marks[i], points.length ? of.unit(value) : ""));
  const now = points.length ? of.unit(totals[totals.length - 1]) : "not known yet";
  attr(svg, { "aria-label": `${of.title} by protocol, last five minutes: now ${now}, most ${of.unit(most)}. The table below has the numbers by protocol.` });
  readMoment(parts, points, totals, wires, end, x);
}

const reversed = (line) => line.join("L").split("L").reverse().join("L");

// The words below a chart: those of the moment that is looked at, else of now.
function readMoment(parts, points, totals, wires, end, x) {
  const { of, ago } = parts;
  const looked = ago !== null && ago !== undefined;
  const t = end - (looked ? ago : 0);
  const at = looked ? points.findIndex((point) => t <= point.to) : points.length - 1;
  const point = points[at];
  attr(parts.cross, { visibility: looked && point ? "visible" : "hidden", x1: x(t), x2: x(t) });
  if (!point) return put(parts.read, looked ? "Nothing was read there." : "");
  const names = [...point.by].filter(([, values]) => values[of.at] > 0).sort((a, b) => b[1][of.at] - a[1][of.at]);
  const most = names.slice(0, 3).map(([name, values]) => `${cut(name, 40)} ${of.unit(values[of.at])}`);
  const wire = of.wire ? [`dashed: ${of.unit(wires[at])} on the network, overhead included`] : [];
  put(parts.read, [`${looked ? `${time(Math.round(end - t))} ago` : "Now"}: ${of.unit(totals[at])}`, ...most, ...wire].join(" · "));
}
