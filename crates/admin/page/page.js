// Draws what this node does now, from /now.json, read once a second, and /explain.json.
//
// Agents, addresses and names come from strangers: they enter the page as text only (`textContent`, attributes), never as markup. All that is kept
// is bounded, whatever comes: 300 points of history, a minute of histograms, and the rows that the last reading named.
import { $, attr, button, byteRate, bytes, chart, CHARTS, clock, colour, countRate, cut, draw, drawChart, fillMeter,
  history, keyed, make, meter, percent, put, shortId, SPAN_S, tableRow, time, whole } from "/charts.js";

const POINTS_MAX = 300; // five minutes, read once a second
const MINUTE_S = 60;
const EVERY_MS = 1000;
const EXPLAIN_EVERY_MS = 5000;
const BACKOFF_MAX_MS = 15000;
const ANSWER_MAX_MS = 5000;
const ROWS_MAX = 100; // of protocols: their names are the program's own, so there are few

// ---- What was read ----

// `last` is the last reading, `marks` are the histograms of the last minute.
const state = { last: null, marks: [], failures: 0, why: "", readAt: 0, restarted: 0, timer: 0, tryAt: 0, reading: false };

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MAX_MS) });
  if (!answer.ok) throw new Error(`The node does not serve ${path} now: it answered with status ${answer.status}.`);
  return answer.json();
}

const protocolBytesIn = (p) => p.reply_bytes_in + p.request_bytes_in;
const protocolBytesOut = (p) => p.request_bytes_out + p.reply_bytes_out;
const wireIn = (now) => now.totals.datagram_bytes_in + now.totals.pipe_bytes_in;
const wireOut = (now) => now.totals.datagram_bytes_out + now.totals.pipe_bytes_out;

// Counters only grow: if one is lower than it was, the node that counts is another one.
function isRestart(before, now) {
  if (before.peer_id !== now.peer_id || now.uptime_s < before.uptime_s) return true;
  return Object.entries(now.totals).some(([name, count]) => count < (before.totals[name] ?? 0));
}

function forget() {
  Object.assign(state, { last: null, marks: [] });
  Object.assign(history, { points: [], colours: new Map() });
  paths.clear();
}

function takePoint(before, now) {
  const seconds = now.uptime_s - before.uptime_s;
  if (!(seconds > 0.05)) return false;
  const rate = (of, a, b) => Math.max(0, of(b) - of(a)) / seconds;
  const point = { from: before.uptime_s, to: now.uptime_s, wire: [rate(wireIn, before, now), rate(wireOut, before, now), 0], by: new Map() };
  for (const [name, p] of Object.entries(now.protocols).slice(0, ROWS_MAX)) {
    const old = Object.hasOwn(before.protocols, name) ? before.protocols[name] : null;
    const diff = (of) => Math.max(0, of(p) - (old ? of(old) : 0)) / seconds;
    const values = [diff(protocolBytesIn), diff(protocolBytesOut), diff((x) => x.sent + x.received), diff((x) => x.sent), diff((x) => x.received)];
    colour(name, p.sent + p.received > 0);
    if (values.some((value) => value > 0)) point.by.set(name, values);
  }
  history.points.push(point);
  while (history.points.length > POINTS_MAX || history.points[0].to < now.uptime_s - SPAN_S) history.points.shift();
  return true;
}

function takeMark(now) {
  const histograms = new Map(Object.entries(now.protocols).slice(0, ROWS_MAX).map(([name, p]) => [name, [p.asked?.counts, p.served_in?.counts]]));
  state.marks.push({ at: now.uptime_s, histograms });
  while (state.marks[0].at < now.uptime_s - MINUTE_S - 0.5 || state.marks.length > 2 * MINUTE_S) state.marks.shift();
}

function take(now) {
  if (state.last && isRestart(state.last, now)) {
    forget();
    state.restarted = Date.now();
  }
  const before = state.last;
  const fresh = !before || takePoint(before, now);
  if (!fresh) return;
  takeMark(now);
  state.last = now;
  show(before, now);
}

// ---- Reading, once a second ----

async function poll() {
  clearTimeout(state.timer);
  state.timer = 0;
  if (document.hidden || state.reading) return;
  state.reading = true;
  const begun = performance.now();
  let wait = EVERY_MS;
  try {
    const now = await get("/now.json");
    try {
      take(now);
    } catch (error) {
      console.error(error);
      throw new Error("The node answered with something that this page cannot read.");
    }
    state.failures = 0;
    state.readAt = Date.now();
    wait = Math.max(250, EVERY_MS - (performance.now() - begun));
  } catch (error) {
    state.failures += 1;
    state.why = whyNot(error);
    wait = Math.min(BACKOFF_MAX_MS, EVERY_MS * 2 ** (state.failures - 1));
  }
  state.reading = false;
  state.tryAt = Date.now() + wait;
  showStatus();
  if (!document.hidden) state.timer = setTimeout(poll, wait);
}

// What is thrown where there is no answer has words of the browser's own, which help nobody.
function whyNot(error) {
  if (error.name === "TimeoutError") return `The node has not answered within ${ANSWER_MAX_MS / 1000} s.`;
  if (error.name === "SyntaxError") return "The node answered with something that is no JSON.";
  return error instanceof TypeError ? "The node does not answer: it was stopped, or it is out of reach." : error.message;
}

function showStatus() {
  const bad = state.failures > 0;
  attr($("status"), { class: bad ? "status bad" : "status" });
  const shown = state.readAt ? `What is shown is from ${clock(state.readAt)}.` : "Nothing was read yet.";
  const since = state.restarted ? ` The node was started again: its history here begins at ${clock(state.restarted)}.` : "";
  put($("status-text"), bad ? `${cut(state.why, 120)} ${shown}` : `Live: read once a second.${since}`);
  put($("status-next"), bad ? `Next try in ${Math.max(0, Math.ceil((state.tryAt - Date.now()) / 1000))} s.` : "");
  $("retry").hidden = !bad;
}

function visible() {
  clearTimeout(state.timer);
  // A hidden page asks for nothing. Its next reading then covers the whole gap, of which only the average is known.
  if (document.hidden) return;
  poll();
  explainNode();
}

// ---- Explanations ----

const ended = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

function sentences(list) {
  const fill = keyed(list, () => {
    const [is, since, why, next] = ["strong", "small", "span", "span"].map((tag) => make(tag));
    next.className = "next";
    return { node: make("li", {}, is, " ", since, why, next), parts: [is, since, why, next] };
  }, ({ node, parts }, { says }) => {
    const words = [says.is, says.since && `(${says.since})`, says.why && `Why: ${ended(says.why)}`, says.next && `Next: ${ended(says.next)}`];
    words.forEach((text, at) => {
      put(parts[at], text ? cut(text, 600) : "");
      parts[at].hidden = !text;
    });
  });
  return (all) => {
    list.querySelector(":scope > .waiting")?.remove();
    fill(all.slice(0, 50).map((says, key) => ({ key, says })));
  };
}

const shownOf = { node: null, dialog: null, query: "" };

async function explainNode() {
  if (document.hidden || state.failures) return;
  try {
    shownOf.node((await get("/explain.json")).sentences);
  } catch {
    // The status line says when the node does not answer.
  }
}

async function explainOpen() {
  const query = shownOf.query;
  if (!query || document.hidden) return;
  let said;
  try {
    said = (await get(`/explain.json?${query}`)).sentences;
    if (!said.length) said = [{ is: "The node has nothing to say of it." }];
  } catch {
    said = [{ is: "The node gave no explanation.", why: "It does not answer, or it does not know this name any more." }];
  }
  // Another one may have been opened, or this one closed, while it was on its way.
  if (query === shownOf.query) shownOf.dialog(said);
}

function explain(kind, name) {
  shownOf.query = `${kind}=${encodeURIComponent(name)}`;
  put($("dialog-title"), kind === "peer" ? "Peer" : "Protocol");
  put($("dialog-name"), cut(name, 200));
  shownOf.dialog([{ is: "Asking the node…" }]);
  $("dialog").showModal();
  explainOpen();
}

// ---- Parts of the page ----

const tile = keyed($("tiles"), () => {
  const [name, value, more, bar] = [make("dt"), make("b"), make("span"), meter()];
  return { node: make("div", {}, name, make("dd", {}, value, " ", more, bar.node)), name, value, more, bar };
}, (row, { key, value, more, part, all }) => {
  put(row.name, key);
  put(row.value, value);
  put(row.more, more);
  row.bar.node.toggleAttribute("hidden", all === undefined);
  if (all !== undefined) fillMeter(row.bar, part, all, key);
});

function showNow({ now }) {
  const of = (key, part, all, unit) => ({ key, value: unit(part), more: `of ${unit(all)} (${Math.round(percent(part, all))} %)`, part, all });
  const kinds = Object.entries(now.connections).map(([name, count]) => `${whole.format(count)} ${cut(name, 10).toUpperCase()}`);
  const connections = Object.values(now.connections).reduce((a, b) => a + b, 0);
  tile([
    { key: "Peers", value: whole.format(now.peers), more: "connected" },
    { key: "Connections", value: whole.format(connections), more: kinds.join(", ") },
    { key: "Streams", value: whole.format(now.streams), more: now.subscriptions ? `and ${whole.format(now.subscriptions)} subscriptions of peers` : "" },
    { key: "Wait for memory", value: whole.format(now.starved), more: now.starved === 1 ? "connection" : "connections" },
    of("Memory promised", now.memory, now.memory_max, bytes),
    of("Slots taken", now.slots, now.slots_max, (n) => whole.format(n)),
    of("Handshakes under way", now.handshakes, now.handshakes_max, (n) => whole.format(n)),
    of("Address book", now.book, now.book_max, bytes),
  ]);
}

const protocolRow = keyed($("protocols"), ({ key }) => {
  const row = tableRow(["Protocol", "#In", "#Out", "#Asked by us", "#Asked by peers", "#Failed, in all", "#Broken by peers"]);
  row.swatch = draw("svg", { class: "swatch", "aria-hidden": "true" }, draw("rect", { width: 11, height: 11, rx: 2 }));
  row.cells[0].append(make("span", { class: "with" }, row.swatch, button(cut(key, 60), cut(key, 300), () => explain("protocol", key))));
  return row;
}, ({ node, cells, swatch }, { key, p, values }) => {
  attr(swatch.firstChild, { class: `c${colour(key, false)}` });
  attr(node, { class: p.sent + p.received + p.failed + p.broken ? "" : "quiet" });
  const rates = values ? [byteRate(values[0]), byteRate(values[1]), countRate(values[3]), countRate(values[4])] : ["…", "…", "…", "…"];
  const failed = `${whole.format(p.failed)}${p.timeouts ? ` (${whole.format(p.timeouts)} too slow)` : ""}`;
  [...rates, failed, whole.format(p.broken)].forEach((text, at) => put(cells[at + 1], text));
});

function showTraffic(now) {
  const point = history.points[history.points.length - 1];
  put($("rates-note"), point ? "" : "Rates appear with the second reading.");
  const all = Object.entries(now.protocols);
  protocolRow(all.slice(0, ROWS_MAX).map(([key, p]) => ({ key, p, values: point && (point.by.get(key) ?? [0, 0, 0, 0, 0]) })));
  const note = all.length > ROWS_MAX ? `${all.length - ROWS_MAX} more protocols are not shown.` : all.length ? "" : "The node has no protocols yet.";
  put($("protocols-note"), note);
  state.charts.forEach(drawChart);
}

// The end of the bucket in which so many of all lie.
function within(counts, total, share, bounds) {
  let left = Math.ceil(total * share);
  const at = counts.findIndex((count) => (left -= count) <= 0);
  return at < bounds.length ? time(bounds[at]) : `over ${time(bounds[bounds.length - 1])}`;
}

const latencyRow = keyed($("latency"), ({ name, counts, direction }) => {
  const row = tableRow(["Protocol", "Requests", "+How long", "#Half within (p50)", "#99 of 100 within (p99)", "#Count"]);
  row.cells[0].append(button(cut(name, 60), cut(name, 300), () => explain("protocol", name)));
  row.cells[1].textContent = direction ? "of peers" : "ours";
  row.bars = counts.map((_, at) => draw("rect", { x: 9 * at + 1, width: 7 }));
  const base = draw("line", { class: "base", x1: 0, x2: 162, y1: 29.5, y2: 29.5 });
  row.svg = draw("svg", { class: "buckets", role: "img", viewBox: "0 0 162 30", preserveAspectRatio: "none" }, base, ...row.bars);
  row.cells[2].append(row.svg);
  return row;
}, ({ cells, bars, svg }, { counts, total, bounds }) => {
  const most = Math.max(...counts);
  // What is there at all stays visible beside what is there a thousand times.
  bars.forEach((bar, at) => {
    const height = counts[at] ? Math.max(2, (28 * counts[at]) / most) : 0;
    attr(bar, { height: height.toFixed(1), y: (29 - height).toFixed(1) });
  });
  const [half, most99] = [within(counts, total, 0.5, bounds), within(counts, total, 0.99, bounds)];
  attr(svg, { "aria-label": `${whole.format(total)} requests: half within ${half}, 99 of 100 within ${most99}` });
  [half, most99, whole.format(total)].forEach((text, at) => put(cells[at + 3], text));
});

function showLatency(now) {
  const first = state.marks[0];
  const bounds = now.bounds_s;
  const rows = [];
  for (const [name, p] of Object.entries(now.protocols).slice(0, ROWS_MAX)) {
    [p.asked?.counts, p.served_in?.counts].forEach((after, direction) => {
      if (!Array.isArray(after)) return;
      const old = first.histograms.get(name)?.[direction];
      const counts = after.map((count, at) => Math.max(0, count - (old?.[at] ?? 0)));
      const total = counts.reduce((a, b) => a + b, 0);
      if (total) rows.push({ key: `${direction} ${name}`, name, direction, counts, total, bounds });
    });
  }
  const covered = now.uptime_s - first.at;
  latencyRow(covered > 0 ? rows : []);
  $("latency-table").hidden = !(covered > 0 && rows.length);
  put($("latency-window"), covered > MINUTE_S - 2 || !(covered > 0) ? "last minute" : `last ${Math.max(1, Math.round(covered))} s`);
  put($("latency-from"), time(bounds[0]));
  put($("latency-to"), `over ${time(bounds[bounds.length - 1])}`);
  put($("latency-note"), !(covered > 0) ? "Latencies appear with the second reading." : rows.length ? "" : "No request ended in this time.");
}

const transportRow = keyed($("transports"), () => {
  const row = tableRow(["Transport", "+Connections now", "#In", "#Out", "#Opened, in all", "#Dials", "#Handshakes of others"]);
  row.meter = meter();
  row.count = make("span");
  row.cells[1].append(row.count, row.meter.node);
  return row;
}, ({ cells, meter: bar, count }, { key, t, here, all, rates }) => {
  put(cells[0], cut(key, 20).toUpperCase());
  put(count, `${whole.format(here)} of ${whole.format(all)}`);
  fillMeter(bar, here, all, `Share of ${cut(key, 20)}`);
  const ofThese = (n, word) => (n ? `, ${whole.format(n)} ${word}` : "");
  const dials = whole.format(t.dials) + ofThese(t.dials_ended, "in vain");
  const handshakes = whole.format(t.handshakes_in) + ofThese(t.handshakes_in_failed, "failed");
  [...rates, whole.format(t.connections_opened), dials, handshakes].forEach((text, at) => put(cells[at + 2], text));
});

function showTransports(before, now) {
  const all = Object.values(now.now.connections).reduce((a, b) => a + b, 0);
  const seconds = before ? now.uptime_s - before.uptime_s : 0;
  transportRow(Object.entries(now.transports).slice(0, 10).map(([key, t]) => {
    const old = before?.transports[key];
    const rates = ["stream_bytes_in", "stream_bytes_out"].map((name) => (old ? byteRate(Math.max(0, t[name] - old[name]) / seconds) : "…"));
    return { key, t, here: now.now.connections[key] ?? 0, all, rates };
  }));
}

// ---- Peers ----

// Bytes of each path at the last reading. Only those that it named are kept.
const paths = new Map();

const PEER_COLUMNS = ["Peer", "=Path", "#Round trip", "#Since", "#In", "#Out", "+Memory", "=Streams"];

function pathRow() {
  const row = tableRow(PEER_COLUMNS, "rowgroup");
  const [, path, , since, , , memory] = row.cells;
  Object.assign(row, { meter: meter(), granted: make("span"), tag: make("span", { class: "tag" }) });
  Object.assign(row, { address: make("code"), kind: make("small"), age: make("span"), silent: make("small") });
  path.append(row.address, row.kind);
  since.append(row.age, row.silent);
  memory.append(row.meter.node, row.granted, " ", row.tag);
  return row;
}

const WAITS = [["to_open", "not open yet"], ["queued", "in the queue"], ["resting", "kept for the next request"], ["for_peer", "wait for the peer"], ["for_room", "wait until the peer takes more"],
  ["for_memory", "wait for memory"], ["for_app", "wait for this side's application"]];

function streamsText(streams) {
  const waits = WAITS.filter(([name]) => streams[name]).map(([name, words]) => `${whole.format(streams[name])} ${words}`);
  return whole.format(streams.all) + (waits.length ? `: ${waits.join(", ")}` : "");
}

function fillPath(row, { c, rates }) {
  const [, , trip, , bytesIn, bytesOut, , streams] = row.cells;
  put(row.address, cut(c.address, 100));
  attr(row.address, { title: cut(c.address, 300) });
  const retired = c.retired ? ", replaced: it goes when it is not used any more" : "";
  put(row.kind, `${cut(c.transport, 10).toUpperCase()}, ${c.dialled ? "we dialled" : "they dialled"}${retired}`);
  put(trip, time(c.rtt_ms / 1000));
  put(row.age, time(c.age_s));
  put(row.silent, c.silent_s >= 5 ? `silent for ${time(c.silent_s)}` : "");
  put(bytesIn, rates[0]);
  put(bytesOut, rates[1]);
  put(row.granted, `${bytes(c.granted)} of ${bytes(c.granted_max)}`);
  fillMeter(row.meter, c.granted, c.granted_max, "Memory of this connection");
  put(row.tag, c.starved ? "waits for memory" : "");
  row.tag.hidden = !c.starved;
  put(streams, streamsText(c.streams));
}

// A peer is a group of rows, one for each path; the first one names it.
const peerGroup = keyed($("peers"), ({ key }) => {
  const node = make("tbody");
  const [who, agent] = [button(shortId(key), cut(key, 100), () => explain("peer", key)), make("small")];
  return { node, who, agent, rows: keyed(node, pathRow, fillPath) };
}, ({ node, who, agent, rows }, { peer, connections }) => {
  const said = `${peer.agent === null || peer.agent === undefined ? "says nothing of itself" : cut(peer.agent, 60)}${peer.protected ? ", protected" : ""}`;
  put(agent, said);
  attr(agent, { title: cut(peer.agent, 300) });
  rows(connections);
  const first = node.querySelector("th > div");
  if (first && who.parentNode !== first) first.append(who, agent);
}, document.querySelector("#peers thead"));

function showPeers(now) {
  const seen = new Map();
  const peers = now.peers.slice(0, ROWS_MAX).map((peer) => ({
    key: peer.peer,
    peer,
    connections: peer.connections.slice(0, 8).map((c) => {
      // Paths have no number: two that look the same are told apart by their order.
      let key = `${peer.peer} ${c.transport} ${c.dialled} ${c.address}`;
      while (seen.has(key)) key += "+";
      seen.set(key, { at: now.uptime_s, in: c.bytes_in, out: c.bytes_out });
      const old = paths.get(key);
      const known = old && now.uptime_s > old.at && c.bytes_in >= old.in && c.bytes_out >= old.out;
      const rate = (a, b) => (known ? byteRate((b - a) / (now.uptime_s - old.at)) : "…");
      return { key, c, rates: [rate(old?.in, c.bytes_in), rate(old?.out, c.bytes_out)] };
    }),
  }));
  paths.clear();
  for (const [key, value] of seen) paths.set(key, value);
  peerGroup(peers);
  $("peers").hidden = !peers.length;
  const left = now.peers_left_out + Math.max(0, now.peers.length - ROWS_MAX);
  const more = `${whole.format(left)} more peers are connected. Those listed have moved the most bytes.`;
  put($("peers-note"), left ? more : peers.length ? "" : "No peer is connected.");
}

// ---- Refusals and limits ----

// What was counted, in words if there are any, and the counter's name, as it is in metrics and settings.
function withName(row) {
  Object.assign(row, { words: make("span"), name: make("small") });
  row.cells[0].append(row.words, row.name);
  return row;
}

function countTable(id, none) {
  const rows = keyed($(id), () => withName(tableRow(["", "#In all", "#Now"])), ({ cells, words, name }, { says, key, count, rate }) => {
    put(words, cut(says, 200));
    put(name, cut(key, 60));
    put(cells[1], whole.format(count));
    put(cells[2], rate === null ? "…" : countRate(rate));
    attr(cells[2], { class: rate > 0 ? "rate on" : "rate" });
  });
  return (items) => {
    const shown = items.filter((item) => item.count > 0).slice(0, ROWS_MAX);
    rows(shown);
    $(`${id}-table`).hidden = !shown.length;
    put($(`${id}-note`), shown.length ? "" : none);
  };
}

const refusedTable = countTable("refused", "Nothing was refused or dropped since the node was started.");
const limitsTable = countTable("limits", "No limit was reached since the node was started.");

function showRefusals(before, now) {
  const seconds = before ? now.uptime_s - before.uptime_s : 0;
  const rate = (old, count) => (before ? Math.max(0, count - (old ?? 0)) / seconds : null);
  const old = new Map(before?.refused.map(({ name, count }) => [name, count]));
  refusedTable(now.refused.map(({ name, words, count }) => ({ key: name, says: words, count, rate: rate(old.get(name), count) })));
  const limits = Object.entries(now.limits_reached);
  limitsTable(limits.map(([key, count]) => ({ key, says: "", count, rate: rate(before?.limits_reached[key], count) })));
}

// ---- All of it ----

const listenRow = keyed($("listen"), () => ({ node: make("li") }), ({ node }, { key }) => put(node, cut(key, 200)));

function showNode(now) {
  const draining = now.state === "draining";
  put($("state"), draining ? "draining: it takes nobody new" : cut(now.state, 20));
  attr($("state"), { class: draining ? "pill warn" : "pill good" });
  put($("node"), `version ${cut(now.version, 30)}, up ${time(Math.floor(now.uptime_s))}`);
  put($("id"), cut(now.peer_id, 100));
  put($("listen-count"), now.listen.length === 1 ? "1 address" : `${now.listen.length} addresses`);
  listenRow([...new Set(now.listen)].slice(0, 50).map((key) => ({ key })));
  document.title = `strait ${shortId(now.peer_id)}: ${now.now.peers} ${now.now.peers === 1 ? "peer" : "peers"}`;
}

function show(before, now) {
  showNode(now);
  showNow(now);
  showTraffic(now);
  showLatency(now);
  showTransports(before, now);
  showPeers(now);
  showRefusals(before, now);
}

function begin() {
  state.charts = CHARTS.map(chart);
  $("charts").append(...state.charts.map((parts) => parts.node));
  shownOf.node = sentences($("explain"));
  shownOf.dialog = sentences($("dialog-list"));
  const dialog = $("dialog");
  $("dialog-close").addEventListener("click", () => dialog.close());
  // This comes later than the closing itself: something else may have been opened since.
  dialog.addEventListener("close", () => dialog.open || (shownOf.query = ""));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  $("retry").addEventListener("click", poll);
  document.addEventListener("visibilitychange", visible);
  new ResizeObserver(() => state.charts.forEach(drawChart)).observe($("charts"));
  // The time until the next try counts down.
  setInterval(() => state.failures && !document.hidden && showStatus(), 1000);
  setInterval(() => {
    explainNode();
    explainOpen();
  }, EXPLAIN_EVERY_MS);
  explainNode();
  poll();
}

begin();
