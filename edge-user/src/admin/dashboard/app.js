// The page asks the admin API what it shows, every few seconds, and draws it. Everything that comes from outside goes
// in as text, never as markup. Nothing is loaded from, or sent to, anywhere else.
"use strict";

const EVERY_MS = 2000;
const HISTORY_EVERY_MS = 30000;
const TIMEOUT_MS = 10000;
const POINTS = 300;
const BANS_SHOWN = 100;
const ROUTES_SHOWN = 200;
const HISTORIES = 50;

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";
let paused = false;
let before = null;
let compared = null;
const charts = {};
const packets = [[], [], []];
const hour = new Map();

// ---- Asking

class Refused extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

async function ask(path, method = "GET") {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  const value = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, value.detail || answer.statusText);
  return value;
}

// What this daemon does not have (503), or was not asked to remember (409, 404), is absent, not a fault.
async function maybe(path) {
  try {
    return await ask(path);
  } catch (error) {
    if (error instanceof Refused && [404, 409, 503].includes(error.status)) return null;
    throw error;
  }
}

// ---- Writing

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Keeps rows by their key, so that the focus stays on a button while figures change.
function rows(table, list, key, cells, empty) {
  const body = $(table).tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  if (list.length === 0) {
    const row = element("tr");
    const cell = element("td", empty);
    cell.colSpan = $(table).tHead.rows[0].cells.length;
    row.append(cell);
    body.replaceChildren(row);
    return;
  }
  const wanted = list.map((item) => {
    const row = known.get(key(item)) || element("tr");
    row.dataset.key = key(item);
    cells(item).forEach((cell, at) => {
      const [text, className = ""] = Array.isArray(cell) ? cell : [cell];
      const old = row.cells[at];
      if (text instanceof Function) {
        if (!old) { const made = element("td"); made.append(text()); row.append(made); }
        return;
      }
      const place = old || row.insertCell();
      if (place.textContent !== text) place.textContent = text;
      place.className = className;
    });
    return row;
  });
  const has = [...body.rows];
  if (has.length !== wanted.length || has.some((row, at) => row !== wanted[at])) body.replaceChildren(...wanted);
}

function definitions(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([term, text, className]) => {
    const group = element("div");
    group.append(element("dt", term), element("dd", text, className));
    return group;
  }));
}

const number = (value) => value == null ? "–" : Math.round(value).toLocaleString("en");
const rate = (value) => value == null ? "–" : value >= 100 ? number(value) : value.toFixed(1);
function seconds(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size >= 1) return `${value.toFixed(2)} s`;
  if (size >= 1e-3) return `${(value * 1e3).toFixed(2)} ms`;
  return `${(value * 1e6).toFixed(1)} µs`;
}
function span(value) {
  const whole = Math.round(value);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([size]) => whole >= size);
  if (at < 0) return "0 s";
  const [size, unit] = parts[at];
  const rest = parts[at + 1] && Math.floor((whole % size) / parts[at + 1][0]);
  return `${Math.floor(whole / size)} ${unit}` + (rest ? ` ${rest} ${parts[at + 1][1]}` : "");
}
const moment = (at) => new Date(at * 1000).toLocaleString();
const percent = (value) => `${(value * 100).toFixed(2)} %`;
const sum = (values) => values.reduce((all, value) => all + value, 0);

function since(now, then, took) {
  // A counter that fell was begun anew.
  return then == null || now < then || took <= 0 ? null : (now - then) / took;
}

// ---- Drawing

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function chart(place, data, series, format, marks = []) {
  const parent = $(place);
  charts[place]?.destroy();
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  charts[place] = new uPlot({
    width: Math.max(parent.clientWidth, 240),
    height: 220,
    cursor: { drag: { x: false, y: false } },
    legend: { live: false },
    axes: [axis, { ...axis, size: 70, values: (_, ticks) => ticks.map(format) }],
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
    series: [{}, ...series.map(([label, name, dash]) => ({ label, stroke: colour(name), width: 2, dash, spanGaps: false }))],
    hooks: {
      draw: [(plot) => {
        plot.ctx.save();
        plot.ctx.strokeStyle = colour("--warn");
        plot.ctx.setLineDash([4, 4]);
        for (const at of marks) {
          const x = plot.valToPos(at, "x", true);
          plot.ctx.beginPath();
          plot.ctx.moveTo(x, plot.bbox.top);
          plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
          plot.ctx.stroke();
        }
        plot.ctx.restore();
      }],
    },
  }, data, parent);
}

function drawPackets() {
  chart("packets-chart", packets, [["passed/s", "--good"], ["dropped/s", "--bad", [6, 4]]], (value) => number(value));
}

// ---- What is shown

function showStatus(status, bans) {
  const stage = $("state");
  stage.textContent = status.ready ? `ready, version ${status.version}` : `not ready: ${status.reasons.join("; ") || status.stage}`;
  stage.className = status.ready ? "good" : "bad";
  const shield = status.shield && !status.shield.error ? status.shield : null;
  const told = [
    ["Up for", span(Date.now() / 1000 - status.started)],
    ["Configuration", `number ${status.configuration.generation}, ${span(Date.now() / 1000 - status.configuration.since)} old`,
      status.configuration.last_reload_failed ? "bad" : ""],
    ["Connections", status.gateway ? number(status.gateway.connections) : "no gateway"],
    ["Shield", shield ? shield.interfaces.map((own) => `${own.interface} (${own.mode})`).join(", ") || "attached to nothing" : "none",
      shield && !shield.attached ? "bad" : ""],
    ["Bans", bans ? number(bans.total) : "–"],
    ["Cookies", shield ? (shield.cookies_ready ? "ready" : "not ready") : "–"],
  ];
  definitions($("glance"), told);
  const notes = [];
  if (status.configuration.last_reload_failed) notes.push("The last reload failed; what was in force before still is.");
  if (status.shield?.error) notes.push(`The shield cannot be read: ${status.shield.error}`);
  for (const missing of shield?.missing_features || []) notes.push(`This kernel refused ${missing.feature}: ${missing.why}`);
  const lost = (status.gateway?.access_lines_lost || 0) + (status.gateway?.offences_lost || 0);
  if (lost) notes.push(`${number(lost)} lines of the access log or reports of offences were lost.`);
  for (const [reason, count] of Object.entries(status.gateway?.refusals || {}).sort((a, b) => b[1] - a[1]).slice(0, 5)) {
    notes.push(`Requests refused, ${reason}: ${number(count)}`);
  }
  $("notes").replaceChildren(...notes.map((note) => element("li", note)));
}

function packetRows(status) {
  const shield = status.shield && !status.shield.error ? status.shield : null;
  if (!shield) return [];
  const groups = [...shield.services.map((service) => [service.name, service.reasons]), ["(no service)", shield.unjudged]];
  return groups.flatMap(([service, reasons]) => reasons
    .filter((counted) => counted.packets > 0 || counted.observed > 0)
    .map((counted) => ({ service, ...counted, key: `${service}\u0000${counted.reason}` })));
}

function showPackets(now, then, took) {
  const old = new Map((then || []).map((row) => [row.key, row.packets]));
  const shown = now.map((row) => ({ ...row, rate: since(row.packets, then ? old.get(row.key) ?? 0 : null, took) }));
  shown.sort((a, b) => (b.rate || 0) - (a.rate || 0) || b.packets - a.packets);
  const verdicts = { pass: "good", drop: "bad", answer: "", forward: "good" };
  rows("packets", shown, (row) => row.key,
    (row) => [row.service, row.reason, [row.outcome, verdicts[row.outcome]], [rate(row.rate), "n"], [number(row.packets), "n"]],
    "no packet was judged yet, or there is no shield");
  if (!then) return;
  const of = (outcomes) => sum(shown.filter((row) => outcomes.includes(row.outcome)).map((row) => row.rate || 0));
  [Date.now() / 1000, of(["pass", "forward", "answer"]), of(["drop"])].forEach((value, at) => {
    packets[at].push(value);
    if (packets[at].length > POINTS) packets[at].shift();
  });
  drawPackets();
}

function showSources(seen) {
  $("sources-said").textContent = seen?.seconds ? `estimated from ${number(seen.samples)} samples of ${span(seen.seconds)}` : "";
  rows("sources", seen?.sources || [], (source) => source.address, (source) => [
    source.address, [rate(source.packets_per_second), "n"], [percent(source.share), "n"], source.reason, source.service,
  ], seen ? "nobody is dropped" : "there is no shield, or it cannot be read");
}

function showBans(bans) {
  const list = bans?.bans || [];
  $("bans-total").textContent = bans && bans.total > list.length ? `the first ${list.length} of ${number(bans.total)}` : "";
  rows("bans", list, (ban) => ban.net, (ban) => [
    ban.net, [() => unban(ban.net)], ban.reason, ban.source, [number(ban.repeats + 1), "n"], moment(ban.since),
    [ban.seconds_left == null ? "for ever" : span(ban.seconds_left), "n"],
  ], bans ? "nobody is banned" : "there is no shield");
}

function unban(net) {
  const button = element("button", "Unban");
  button.type = "button";
  button.setAttribute("aria-label", `Unban ${net}`);
  button.addEventListener("click", async () => {
    // A second press within a few seconds does it: one slip of a finger pardons nobody.
    if (!button.dataset.sure) {
      button.dataset.sure = "yes";
      button.textContent = "Sure?";
      setTimeout(() => { delete button.dataset.sure; button.textContent = "Unban"; }, 4000);
      return;
    }
    button.disabled = true;
    try {
      await ask(`/v1/bans/${encodeURIComponent(net)}`, "DELETE");
      await refresh();
    } catch (error) {
      trouble(error);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

const asked = (route) => sum(Object.values(route.responses)) + route.unanswered;

function showRoutes(now, then, took) {
  const old = new Map((then?.routes || []).map((route) => [route.name, route]));
  const shown = (now?.routes || []).map((route) => {
    const was = old.get(route.name);
    return {
      ...route,
      rate: since(asked(route), was && asked(was), took),
      errors: since(route.responses["5xx"], was && was.responses["5xx"], took),
    };
  });
  shown.sort((a, b) => (b.rate || 0) - (a.rate || 0) || a.name.localeCompare(b.name));
  const most = shown.slice(0, ROUTES_SHOWN);
  $("routes-total").textContent = shown.length > most.length ? `the busiest ${most.length} of ${number(shown.length)}` : "";
  rows("routes", most, (route) => route.name, (route) => {
    const last = hour.get(route.name);
    const share = route.rate ? (route.errors || 0) / route.rate : null;
    return [
      route.name, route.action || "gone", route.upstreams.join(", "), [rate(route.rate), "n"],
      [share == null ? "–" : percent(share), share > 0 ? "n bad" : "n"],
      [seconds(last?.p50), "n"], [seconds(last?.p99), "n"],
      [seconds(route.tax_median_seconds), "n"], [seconds(route.tax_p99_seconds), "n"],
    ];
  }, now ? "the configuration has no route" : "there is no gateway");
}

function showUpstreams(upstreams) {
  const list = (upstreams?.upstreams || []).flatMap((upstream) => upstream.endpoints.map((endpoint) => ({ upstream, endpoint })));
  const health = { up: "good", unchecked: "warn", down: "bad", ejected: "bad" };
  rows("upstreams", list, ({ upstream, endpoint }) => `${upstream.name}\u0000${endpoint.address}`, ({ upstream, endpoint }) => [
    upstream.name, endpoint.address, [endpoint.state, health[endpoint.state]], [number(endpoint.weight), "n"],
    [number(endpoint.active), "n"], [number(endpoint.requests), "n"],
    [number(endpoint.failures), endpoint.failures > 0 ? "n warn" : "n"],
  ], upstreams ? "there is no endpoint" : "there is no gateway");
}

// ---- History

async function history() {
  const known = await maybe("/v1/history/routes");
  const select = $("c-route");
  const names = (known?.routes || []).map((route) => route.name);
  if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => element("option", name)));
    if (names.includes(chosen)) select.value = chosen;
  }
  $("compare").hidden = names.length === 0;
  if (names.length === 0) {
    $("compare-said").textContent = known
      ? "The history is empty: its first cell is not over yet, or nobody asked for anything."
      : "There is no history: the configuration has no [history].";
    compared = null;
    drawCompared();
    return;
  }
  const now = Math.floor(Date.now() / 1000);
  // Not all at once: the listener has few connections, and others need them too.
  const shown = [...$("routes").tBodies[0].rows].map((row) => row.dataset.key).filter((name) => names.includes(name));
  for (const name of shown.slice(0, HISTORIES)) {
    const series = await maybe(`/v1/history/series?route=${encodeURIComponent(name)}&from=${now - 3600}&to=${now}&step=3600`);
    const point = series?.points.at(-1);
    if (point) hour.set(name, point); else hour.delete(name);
  }
  await compare();
}

async function compare() {
  const [route, other, length] = ["c-route", "c-with", "c-for"].map((id) => $(id).value);
  const query = new URLSearchParams({ route, with: other, for: length });
  try {
    compared = await ask(`/v1/history/compare?${query}`);
    const [now, then] = [compared.now, compared.before];
    $("compare-said").textContent = `${number(now.requests)} requests to ${moment(now.to)}, ${number(then.requests)} to ${moment(then.to)}`;
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    compared = null;
    $("compare-said").textContent = error.message;
  }
  const changes = compared ? compared.changes : (await maybe("/v1/history/changes?limit=20"))?.changes || [];
  $("changes").replaceChildren(...(changes.length
    ? changes.map((change) => element("li", `${moment(change.at)}: ${change.kind}: ${change.detail}`))
    : [element("li", "none in this time")]));
  drawCompared();
}

function drawCompared() {
  const show = { errors: percent, rate: rate };
  rows("compare-rows", compared?.rows || [], (row) => row.figure, (row) => {
    const format = show[row.figure] || seconds;
    const worse = row.figure === "rate" ? "" : { higher: "bad", lower: "good" }[row.verdict] || "";
    return [row.figure, [format(row.before), "n"], [format(row.now), "n"], [format(row.difference), "n"],
      [row.interval ? row.interval.map(format).join(" to ") : "–", "n"], [row.verdict, worse]];
  }, "nothing to compare");
  if (!compared) {
    charts["compare-chart"]?.destroy();
    delete charts["compare-chart"];
    return;
  }
  const figure = $("c-figure").value;
  const { now, before: then } = compared;
  const at = [...new Set([...now.curve, ...then.curve].map((point) => point.offset))].sort((a, b) => a - b);
  const line = (side) => {
    const points = new Map(side.curve.filter((point) => point.requests > 0).map((point) => [point.offset, point[figure]]));
    return at.map((offset) => points.get(offset) ?? null);
  };
  chart("compare-chart", [at.map((offset) => now.from + offset), line(now), line(then)],
    [["now", "--link"], [$("c-with").value, "--then", [6, 4]]],
    figure === "requests" ? number : seconds,
    compared.changes.map((change) => change.at).filter((change) => change >= now.from && change <= now.to));
}

// ---- The round

function trouble(error) {
  if (error instanceof Refused && error.status === 401) {
    if (token) $("trouble").textContent = "That is not the token.";
    $("trouble").hidden = !token;
    token = "";
    sessionStorage.removeItem("token");
    $("login").hidden = false;
    $("main").hidden = true;
    $("state").textContent = "the token is needed";
    $("state").className = "warn";
    if (document.activeElement !== $("token")) $("token").focus();
    return;
  }
  $("trouble").textContent = error instanceof Refused ? error.message : "The daemon does not answer; what is shown is old.";
  $("trouble").hidden = false;
  $("state").textContent = "no answer";
  $("state").className = "bad";
}

let round = Promise.resolve();

// One round after another: two that overlap would take each other's counts for their own.
function refresh() {
  round = round.then(refreshOnce, refreshOnce);
  return round;
}

async function refreshOnce() {
  try {
    const status = await ask("/v1/status");
    const [routes, upstreams, bans, sources] = await Promise.all([
      maybe("/v1/routes"), maybe("/v1/upstreams"), maybe(`/v1/bans?limit=${BANS_SHOWN}`), maybe("/v1/sources"),
    ]);
    $("login").hidden = true;
    $("main").hidden = false;
    $("trouble").hidden = true;
    const at = performance.now() / 1000;
    const took = before ? at - before.at : 0;
    const judged = packetRows(status);
    showStatus(status, bans);
    showPackets(judged, before?.judged, took);
    showSources(sources);
    showBans(bans);
    showRoutes(routes, before?.routes, took);
    showUpstreams(upstreams);
    // Rates over less than this are noise: a press of a button asks in between.
    if (!before || took > 0.5) before = { at, judged, routes };
    return true;
  } catch (error) {
    trouble(error);
    before = null;
    return false;
  }
}

let historyDue = 0;

async function tick() {
  if (!paused && !document.hidden && $("login").hidden) {
    const answered = await refresh();
    if (answered && performance.now() >= historyDue) {
      historyDue = performance.now() + HISTORY_EVERY_MS;
      try { await history(); } catch (error) { trouble(error); }
    }
  }
  setTimeout(tick, EVERY_MS);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  // For this tab and no longer.
  sessionStorage.setItem("token", token);
  historyDue = 0;
  refresh();
});
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
});
for (const id of ["c-route", "c-with", "c-for"]) $(id).addEventListener("change", () => compare().catch(trouble));
$("c-figure").addEventListener("change", drawCompared);
const redraw = () => { if (packets[0].length) drawPackets(); drawCompared(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
tick();
