"use strict";
// Text from trajectories reaches the document through `text` alone, which makes text nodes.
const $ = (id) => document.getElementById(id);
const main = $("main");
const PAGE = 100, FOLD_LINES = 24, KEEP_CHUNKS = 4;

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const fill = (node, ...children) => node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));

// Controls, marks that reorder text and characters without a width are shown, not obeyed.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\u{e0000}-\u{e007f}]/gu;
function visible(string) {
  return String(string).replace(/\r\n/g, "\n").replace(HIDDEN, (c) => {
    const code = c.codePointAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : "<U+" + code.toString(16).toUpperCase().padStart(4, "0") + ">";
  });
}

function text(string, pattern) {
  const shown = visible(string);
  if (!pattern) return [document.createTextNode(shown)];
  const nodes = [];
  let at = 0, found = 0;
  for (const match of shown.matchAll(pattern)) {
    if (!match[0] || ++found > 2000) continue;
    nodes.push(document.createTextNode(shown.slice(at, match.index)));
    const mark = document.createElement("mark");
    mark.append(document.createTextNode(match[0]));
    nodes.push(mark);
    at = match.index + match[0].length;
  }
  nodes.push(document.createTextNode(shown.slice(at)));
  return nodes;
}

function pattern(query) {
  if (!query) return null;
  const written = /^\/(.+)\/$/s.exec(query);
  try {
    return new RegExp(written ? written[1] : query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  } catch {
    return null;
  }
}

async function inflate(id) {
  const packed = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
const chunks = new Map();
async function body(row) {
  if (!chunks.has(row.c)) {
    if (chunks.size >= KEEP_CHUNKS) chunks.delete(chunks.keys().next().value);
    chunks.set(row.c, await inflate("chunk-" + row.c));
  }
  return chunks.get(row.c)[row.i];
}

const state = { query: "", outcome: "", phase: "", sort: "", down: false, page: 0, find: "", tokens: false, cursor: 0 };
let data = null, shown = [], current = null;

const COLUMNS = [
  ["id", "Trajectory"], ["outcome", "Outcome"], ["stop", "Ended by", "wide"], ["phase", "Phase", "wide"],
  ["step", "Step", "wide"], ["turns", "Turns"], ["tokens", "Tokens", "wide"], ["seconds", "Seconds", "wide"],
];

function filtered() {
  const wanted = pattern(state.query);
  const rows = data.runs.filter((row) => {
    if (wanted) wanted.lastIndex = 0;
    return (!state.outcome || row.outcome === state.outcome) && (!state.phase || row.phase === state.phase) &&
      (!wanted || wanted.test(row.id + " " + row.policy));
  });
  if (state.sort) {
    const key = state.sort, sign = state.down ? -1 : 1;
    rows.sort((a, b) => (a[key] < b[key] ? -sign : a[key] > b[key] ? sign : 0));
  }
  return rows;
}

const tone = (outcome) => (outcome === "resolved" ? "good" : outcome === "infrastructure" || outcome === "ungraded" ? "dim" : "bad");
const link = (row, step) => "#/t/" + encodeURIComponent(row.id) + (step === undefined ? "" : "/s/" + (step + 1));

function overview() {
  document.title = visible(data.title);
  const counts = new Map();
  for (const row of data.runs) counts.set(row.outcome, (counts.get(row.outcome) || 0) + 1);
  const graded = data.runs.filter((row) => row.score !== null && row.outcome !== "infrastructure");
  const mean = (rows, key) => (rows.length ? rows.reduce((sum, row) => sum + row[key], 0) / rows.length : NaN);
  const figure = (value, name) => el("li", {}, el("b", {}, value), name);
  main.replaceChildren();
  if (data.runs.length) {
    main.append(
      el("ul", { class: "figures" },
        figure(String(data.runs.length), "trajectories"),
        figure(graded.length ? mean(graded, "score").toFixed(3) : "-", "mean reward of " + graded.length),
        figure(mean(data.runs, "turns").toFixed(1), "turns, mean"),
        figure(mean(data.runs, "seconds") ? mean(data.runs, "seconds").toFixed(1) : "-", "seconds, mean")),
      el("div", { class: "charts" }, taxonomy(counts), histogram(), ...rewards(graded), ...data.series.map(curve)),
      el("h2", {}, "Trajectories"), tools(counts), el("div", { id: "table", class: "scroll" }));
    table();
  }
  if (data.pairs.length) main.append(el("h2", {}, "Pairs"), pairsTable());
}

function taxonomy(counts) {
  const rows = [...counts].sort((a, b) => b[1] - a[1]);
  const most = rows[0][1];
  return chart("What became of them", 300, rows.length * 20 + 4, rows.flatMap(([name, count], n) => [
    svg("text", { x: 0, y: n * 20 + 14 }, name),
    svg("rect", { class: "bar", x: 110, y: n * 20 + 4, width: Math.max(1, (140 * count) / most), height: 13 }),
    svg("text", { x: 116 + (140 * count) / most, y: n * 20 + 14 }, String(count)),
  ]), rows.map(([name, count]) => name + " " + count).join(", "));
}

function histogram() {
  const turns = data.runs.map((row) => row.turns), most = Math.max(1, ...turns.slice(0, 50000));
  const width = Math.ceil((most + 1) / 20), bins = Array(Math.ceil((most + 1) / width)).fill(0);
  for (const each of turns) bins[Math.min(bins.length - 1, Math.floor(each / width))]++;
  const top = Math.max(...bins);
  return chart("Turns", 300, 110, [
    ...bins.map((count, n) => svg("rect", { class: "bar", x: (n * 300) / bins.length + 1, width: 300 / bins.length - 2,
      y: 90 - (84 * count) / top, height: (84 * count) / top })),
    svg("text", { x: 0, y: 106 }, "0"), svg("text", { x: 300, y: 106, "text-anchor": "end" }, String(most)),
  ], "most " + most + " turns");
}

function rewards(rows) {
  const steps = new Map();
  for (const row of rows) if (row.phase === "train") steps.set(row.step, [...(steps.get(row.step) || []), row.score]);
  if (steps.size < 2) return [];
  const points = [...steps].sort((a, b) => a[0] - b[0]).map(([step, all]) => [step, all.reduce((x, y) => x + y) / all.length]);
  return [curve({ name: "Training reward by step", points })];
}

function curve({ name, points }) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [Math.min(0, ...ys), Math.max(1e-9, ...ys)];
  const place = ([x, y]) => [30 + (260 * (x - x0)) / (x1 - x0 || 1), 90 - (80 * (y - y0)) / (y1 - y0)];
  const at = points.map(place);
  return chart(name, 300, 110, [
    svg("line", { class: "axis", x1: 30, x2: 290, y1: 90, y2: 90 }),
    svg("polyline", { class: "curve", points: at.map((p) => p.join(",")).join(" ") }),
    ...at.map(([cx, cy]) => svg("circle", { class: "dot", cx, cy, r: 2.5 })),
    svg("text", { x: 0, y: 14 }, y1.toPrecision(2)), svg("text", { x: 0, y: 92 }, y0.toPrecision(2)),
    svg("text", { x: 30, y: 106 }, String(x0)), svg("text", { x: 290, y: 106, "text-anchor": "end" }, String(x1)),
  ], points.map(([x, y]) => x + ": " + y.toFixed(3)).join(", "));
}

function svg(name, attributes, content) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (content !== undefined) node.append(document.createTextNode(visible(content)));
  return node;
}
function chart(caption, width, height, nodes, said) {
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": visible(caption + ": " + said) });
  drawing.append(...nodes);
  return el("figure", {}, el("figcaption", {}, text(caption)), drawing);
}

function tools(counts) {
  const select = (key, name, values) => el("label", {}, name, el("select", { id: key, onchange: (event) => {
    state[key] = event.target.value; state.page = 0; table();
  } }, el("option", { value: "" }, "all"), values.map((value) => el("option", { value, selected: state[key] === value ? "" : null }, text(value)))));
  return el("div", { class: "tools", role: "search" },
    el("label", {}, "Filter by id or policy", el("input", { id: "query", type: "search", value: state.query, oninput: (event) => {
      state.query = event.target.value; state.page = 0; table();
    } })),
    select("outcome", "Outcome", [...counts.keys()].sort()),
    select("phase", "Phase", [...new Set(data.runs.map((row) => row.phase))].sort()));
}

function table() {
  shown = filtered();
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  state.page = Math.min(state.page, pages - 1);
  const rows = shown.slice(state.page * PAGE, (state.page + 1) * PAGE);
  const heads = COLUMNS.map(([key, name, wide]) => el("th", { scope: "col", class: wide,
    "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : "none" },
    el("button", { type: "button", "data-name": key, onclick: () => {
      state.down = state.sort === key ? !state.down : false; state.sort = key; state.page = 0; table();
    } }, name, el("span", { "aria-hidden": "true" }, state.sort === key ? (state.down ? " \u2193" : " \u2191") : ""))));
  const line = (row) => el("tr", {},
    el("td", {}, row.parent ? "\u21b3 " : null, el("a", { href: link(row) }, text(row.id))),
    el("td", { class: tone(row.outcome) }, text(row.outcome)), el("td", { class: "wide" }, text(row.stop)),
    el("td", { class: "wide" }, text(row.phase)), el("td", { class: "number wide" }, String(row.step)),
    el("td", { class: "number" }, String(row.turns)), el("td", { class: "number wide" }, String(row.tokens || "-")),
    el("td", { class: "number wide" }, row.seconds ? row.seconds.toFixed(1) : "-"));
  const turn = (by, name) => el("button", { type: "button", "data-name": name, disabled: state.page + by < 0 || state.page + by >= pages ? "" : null,
    onclick: () => { state.page += by; table(); } }, name);
  const held = document.activeElement?.dataset?.name;
  $("table").replaceChildren(
    el("table", {}, el("caption", { class: "sr" }, "Trajectories"), el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows.map(line))),
    el("div", { class: "tools" }, turn(-1, "Previous"),
      el("span", { role: "status" }, `${shown.length} of ${data.runs.length}, page ${state.page + 1} of ${pages}`), turn(1, "Next")));
  // The button that was pressed is a new one now.
  if (held) $("table").querySelector(`[data-name="${held}"]`)?.focus();
}

async function reader(id, step) {
  const row = data.runs.find((each) => each.id === id);
  if (!row) return missing(id);
  const content = await body(row);
  if (!shown.length) shown = filtered();
  current = { row, content, step: Math.max(0, Math.min(step || 0, (content.steps || []).length - 1)) };
  document.title = visible(id);
  if (content.problem) {
    main.replaceChildren(el("h2", {}, text(id)), el("p", { class: "bad" }, text(content.problem)));
    return;
  }
  const children = data.runs.filter((each) => each.parent === id);
  fill(main,
    el("h2", {}, text(id)),
    el("p", {}, el("span", { class: tone(row.outcome) }, text(row.outcome)), text(`  ended by ${row.stop} ${content.detail}`),
      el("span", { class: "dim" }, text(`  ${row.policy}${row.seconds ? `, ${row.seconds} s` : ""}`))),
    content.branch ? el("p", {}, "Branched off ", el("a", { href: link({ id: content.branch[0] }, content.branch[1]) }, text(content.branch[0])),
      ` before step ${content.branch[1] + 1}`) : null,
    children.length ? el("p", {}, "Branches: ", children.flatMap((each) => [el("a", { href: link(each) }, text(each.id)), " "])) : null,
    content.lacks.length ? el("ul", { class: "dim" }, content.lacks.map((each) => el("li", {}, text(each)))) : null,
    el("div", { class: "tools" },
      el("label", {}, "Search this trajectory", el("input", { id: "find", type: "search", value: state.find, oninput: (event) => {
        state.find = event.target.value; steps(); } })),
      el("span", { id: "found", role: "status", class: "dim" }),
      el("button", { type: "button", "aria-pressed": String(state.tokens), id: "tokens", onclick: toggleTokens }, "Tokens")),
    el("div", { class: "reader" }, el("nav", { class: "steps", id: "nav", "aria-label": "Steps" }), el("div", { id: "steps" })));
  steps();
  if (step === null) {  // opened from the table: what became of it comes first
    scrollTo(0, 0);
    $("step-0")?.focus({ preventScroll: true });
  } else go(current.step, true);
}

function toggleTokens() {
  state.tokens = !state.tokens;
  $("tokens").setAttribute("aria-pressed", String(state.tokens));
  steps();
}

function foldable(string, wanted, kind) {
  const lines = string.split("\n").length;
  const block = el("pre", { class: kind }, text(string, wanted));
  if (lines <= FOLD_LINES && string.length < 4000) return [block];
  block.classList.add("folded");
  const button = el("button", { type: "button", class: "fold", "aria-expanded": "false", onclick: () => {
    const folded = block.classList.toggle("folded");
    button.setAttribute("aria-expanded", String(!folded));
    button.textContent = folded ? `Show all ${lines} lines` : "Fold";
  } }, `Show all ${lines} lines`);
  return [block, button];
}

function steps() {
  const { row, content } = current, wanted = pattern(state.find);
  const details = (name, string) => (string ? el("details", {}, el("summary", {}, name), el("pre", {}, text(string, wanted))) : null);
  let hits = 0;
  const sections = content.steps.map((step, n) => {
    const whole = [step.thought, step.command, step.observation].join("\n");
    const hit = wanted && whole.match(wanted);
    if (hit) hits += hit.length;
    const facts = [step.kind, step.exit === null ? "" : "exit " + step.exit, step.timed_out ? "time limit" : "",
      step.policy_s + step.sandbox_s ? `policy ${step.policy_s} s, sandbox ${step.sandbox_s} s` : "",
      step.context === null ? "" : `context ${step.context} tokens`].filter(Boolean);
    return el("article", { id: "step-" + n, "aria-labelledby": "head-" + n, tabindex: "-1", onclick: () => mark(n) },
      el("div", { class: "head" }, el("h3", { id: "head-" + n }, el("a", { href: link(row, n) }, `Step ${n + 1}`)),
        facts.map((fact) => el("span", { class: /^exit [^0]|time limit/.test(fact) ? "bad" : "dim" }, text(fact))),
        step.failing ? el("span", { class: "bad" }, "failing tests") : null, hit ? el("span", { class: "warn" }, hit.length + " found") : null),
      el("div", {}, step.thought && step.thought !== step.command ? el("pre", {}, text(step.thought, wanted)) : null,
        step.command !== null ? foldable(step.command, wanted, "command") : null,
        step.observation ? foldable(step.observation, wanted, "observation") : null,
        state.tokens ? heat(step) : null));
  });
  const tests = Object.entries(content.tests).map(([name, outcome]) => outcome + "  " + name).join("\n");
  $("steps").replaceChildren(
    ...content.prompt.map(([role, said]) => details(role + " prompt" + (content.prompt_tokens ? `, ${content.prompt_tokens} tokens in all, masked` : ""), said)).filter(Boolean),
    ...sections, ...[details("Diff it left", content.submission), details("Verdict: " + (content.verdict || "none"),
      (content.reward_detail + "\n" + tests).trim()), details("Configuration", content.config)].filter(Boolean));
  $("nav").replaceChildren(...content.steps.map((step, n) => el("a", { href: link(row, n) },
    text(`${n + 1} ${step.failing ? "x" : step.error ? "!" : step.kind === "edit" ? "*" : "\u00b7"} ${(step.command || step.kind).slice(0, 80)}`))));
  $("found").textContent = state.find ? (wanted ? hits + " found" : "not a regular expression") : "";
  mark(current.step);
}

function heat(step) {
  if (!step.logprobs) return el("p", { class: "dim" }, "No tokens in this record.");
  const spans = step.logprobs.map((logprob, n) => {
    const span = el("span", { title: `log p ${logprob}` }, text(step.texts ? step.texts[n] : "\u25a0"));
    span.style.borderColor = `hsl(${Math.round(120 * Math.exp(logprob))} 75% 45%)`;
    return span;
  });
  return el("div", { class: "tokens", "aria-label": `${spans.length} sampled tokens` }, spans,
    step.masked ? el("span", { class: "masked" }, `${step.masked} tokens masked: observation and template`) : null,
    step.texts ? null : el("p", { class: "dim" }, "Their text needs the run's tokenizer: pass --tokenizer."));
}

function mark(n) {
  current.step = n;
  document.querySelectorAll("article").forEach((each, m) => each.classList.toggle("on", m === n));
  document.querySelectorAll("#nav a").forEach((each, m) => (m === n ? each.setAttribute("aria-current", "step") : each.removeAttribute("aria-current")));
  document.querySelector("#nav a[aria-current]")?.scrollIntoView({ block: "nearest" });
}
function go(n, quiet) {
  if (n < 0 || n >= current.content.steps.length) return;
  mark(n);
  $("step-" + n).scrollIntoView();
  $("step-" + n).focus({ preventScroll: true });
  if (!quiet) history.replaceState(null, "", link(current.row, n));
}
function jump(holds) {
  const n = current.content.steps.findIndex((step, m) => m > current.step && holds(step));
  if (n >= 0) go(n);
}

function pairsTable() {
  return el("div", { class: "scroll" }, el("table", {}, el("caption", { class: "sr" }, "Pairs"), el("thead", {}, el("tr", {}, ["Pair", "Where", "Label", "Margins"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, data.pairs.slice(0, 2000).map((row) => el("tr", {}, el("td", {}, el("a", { href: "#/p/" + encodeURIComponent(row.id) }, text(row.id))),
      el("td", {}, text(row.where)), el("td", {}, text(row.label || "-")), el("td", {}, text(margins(row.margins))))))));
}
const margins = (all) => Object.entries(all).map(([order, value]) => `${order} ${value.toFixed(2)}`).join(", ") || "-";

async function pair(id) {
  const row = data.pairs.find((each) => each.id === id);
  if (!row) return missing(id);
  const content = await body(row);
  current = null;
  const cell = (side, same, right) => el("div", { class: same ? (right ? "same twin" : "same") : "differs" }, side ? [
    el("b", { class: "dim" }, text(side.role + (same ? ", both" : right ? ", does not support it" : ", supports the answer"))),
    el("pre", {}, text(side.text, side.decisive.length ? decisive(side.decisive) : null))] : null);
  main.replaceChildren(el("h2", {}, text(id)), el("p", { class: "dim" }, text(`${content.where ? content.where + "; " : ""}margins: ${margins(content.margins)}; label: ${content.label || "none"}`)),
    el("details", { open: "" }, el("summary", {}, "Question"), el("pre", {}, text(content.question))),
    el("details", { open: "" }, el("summary", {}, "Answer"), el("pre", {}, text(content.answer))),
    el("div", { class: "pair" }, el("h3", {}, text("Supports the answer: " + content.positive_id)), el("h3", {}, text("Does not: " + content.negative_id)),
      content.rows.flatMap((each) => [cell(each.left, each.same), cell(each.right, each.same, true)])));
}
function decisive(lines) {
  return new RegExp(lines.map((line) => visible(line).replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "g");
}
function missing(id) {
  main.replaceChildren(el("p", { class: "bad" }, text(`Nothing here is called ${id}.`)), el("a", { href: "#/" }, "All"));
}

async function route() {
  const [, kind, id, , step] = location.hash.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  if (kind === "t") await reader(id, step === undefined ? null : (parseInt(step, 10) || 1) - 1);
  else if (kind === "p") await pair(id);
  else if (location.hash !== "#main") { current = null; overview(); scrollTo(0, 0); }
}

function neighbour(by) {
  const at = shown.findIndex((row) => row.id === current.row.id) + by;
  if (shown[at]) location.hash = link(shown[at]);
}
const KEYS = {
  j: () => (current ? go(current.step + 1) : row(1)), k: () => (current ? go(current.step - 1) : row(-1)),
  n: () => current && neighbour(1), p: () => current && neighbour(-1),
  e: () => current && jump((step) => step.kind === "edit"), x: () => current && jump((step) => step.failing),
  "!": () => current && jump((step) => step.error), f: () => current && $("step-" + current.step).querySelector("pre.observation ~ .fold, .fold")?.click(),
  t: () => current && toggleTokens(), u: () => { location.hash = "#/"; }, "/": () => (($("find") || $("query"))?.focus()),
  "?": () => $("keys").showModal(),
};
function row(by) {
  const links = [...document.querySelectorAll("#table tbody a")], at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.matches("input")) event.target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || $("keys").open) return;
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});
addEventListener("hashchange", route);
$("help").addEventListener("click", KEYS["?"]);
const root = document.documentElement, theme = (name) => { root.dataset.theme = name; $("theme").textContent = name === "dark" ? "Light" : "Dark"; };
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").addEventListener("click", () => theme(root.dataset.theme === "dark" ? "light" : "dark"));
inflate("index").then((read) => { data = read; return route(); });
