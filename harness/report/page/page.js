"use strict";
// The list of tasks and the reader of trajectories. Everything shown comes from this file; text is only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const GLYPHS = { resolved: "●", unresolved: "○", not_applied: "⊘", empty_patch: "∅", test_timeout: "◷", error: "×", "": "·" };
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// --- the tasks, each with its rollouts by arm ------------------------------------------------------------------------

const columns = data.rollouts;
const tasks = data.tasks.map(([id, repo, difficulty, date], index) => ({
  index, id, repo, difficulty, date, arms: data.arms.map(() => []), search: id.toLowerCase(),
}));
for (let i = 0; i < columns.task.length; i++) {
  const rollout = { arm: columns.arm[i], seed: columns.seed[i], outcome: data.outcomes[columns.outcome[i]], row: i };
  const task = tasks[columns.task[i]];
  task.arms[rollout.arm].push(rollout);
  if (columns.cause[i]) task.search += " " + columns.cause[i].toLowerCase();
}
for (const task of tasks) {
  for (const rollouts of task.arms) rollouts.sort((a, b) => a.seed - b.seed);
  task.rates = task.arms.map((rollouts) => {
    const scored = rollouts.filter((one) => one.outcome && one.outcome !== "error");
    return scored.length ? scored.filter((one) => one.outcome === "resolved").length / scored.length : null;
  });
  const steps = task.arms.flat().map((one) => columns.steps[one.row]).filter((value) => value !== null);
  task.steps = steps.length ? steps.reduce((a, b) => a + b, 0) / steps.length : null;
  task.lost = task.arms.flat().some((one) => !one.outcome || one.outcome === "error");
  task.marked = task.arms.flat().some((one) => columns.marks[one.row]);
}
const byTask = new Map(tasks.map((task) => [task.id, task]));

// --- the list --------------------------------------------------------------------------------------------------------

const CHUNK = 80;
const state = { text: "", repo: "", difficulty: "", pattern: "", candidate: 1, sort: "task", down: false, shown: CHUNK };
const change = (task) => {
  const [a, b] = [task.rates[0], task.rates[state.candidate]];
  return a === null || b === null || b === undefined ? null : b - a;
};
const PATTERNS = {
  "": ["all", () => true],
  lost: ["lost: rate fell", (task) => change(task) < 0],
  gained: ["gained: rate rose", (task) => change(task) > 0],
  moved: ["moved either way", (task) => change(task)],
  both: ["resolved always by all", (task) => task.rates.every((rate) => rate === 1)],
  neither: ["resolved by none", (task) => task.rates.every((rate) => !rate)],
  unsteady: ["unsteady: sometimes resolved", (task) => task.rates.some((rate) => rate > 0 && rate < 1)],
  lostrun: ["with rollouts without a verdict", (task) => task.lost],
  marked: ["with integrity marks", (task) => task.marked],
};

function chosen() {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const keep = PATTERNS[state.pattern][1];
  const found = tasks.filter((task) =>
    (!state.repo || task.repo === state.repo) && (!state.difficulty || task.difficulty === state.difficulty) &&
    words.every((word) => task.search.includes(word)) && keep(task));
  const key = {
    task: (task) => task.index, repo: (task) => task.repo, difficulty: (task) => task.difficulty,
    change, steps: (task) => task.steps,
  }[state.sort] || ((task) => task.rates[Number(state.sort)]);
  const sign = state.down ? -1 : 1;
  return found.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === y) return a.index - b.index;
    if (x === null) return 1;
    if (y === null) return -1;
    return (x < y ? -1 : 1) * sign;
  });
}

function seedLink(task, one, current) {
  const name = data.arms[one.arm];
  const marks = columns.marks[one.row];
  const words = `${name}, seed ${one.seed}: ${(one.outcome || "no verdict").replace("_", " ")}${marks ? ", with integrity marks" : ""}`;
  return make("a", {
    class: `seed ${one.outcome || "none"}${marks ? " marked" : ""}`, href: address(task, [[one.arm, one.seed]]),
    title: words, "aria-label": words, "aria-current": current || null,
  }, GLYPHS[one.outcome] ?? "·");
}

const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(100 * value).toFixed(0);

function row(task) {
  const delta = change(task);
  return make("tr", {},
    make("th", { scope: "row" }, make("a", { href: address(task, sideBySide(task)) }, task.id)),
    hasDifficulty ? make("td", { class: "soft" }, task.difficulty) : null,
    task.arms.map((rollouts) => make("td", { class: "seeds" }, rollouts.map((one) => seedLink(task, one)))),
    make("td", { class: `number ${delta > 0 ? "up" : delta < 0 ? "down" : ""}` }, delta === null ? "" : signed(delta)),
    hasSteps ? make("td", { class: "number soft" }, task.steps === null ? "" : task.steps.toFixed(0)) : null);
}

const hasDifficulty = tasks.some((task) => task.difficulty);
const hasSteps = tasks.some((task) => task.steps !== null);
let listed = [];

function head() {
  const heads = [["task", "task"], hasDifficulty ? ["difficulty", "difficulty"] : null,
    ...data.arms.map((arm, i) => [String(i), arm]), ["change", "change, points"], hasSteps ? ["steps", "steps"] : null].filter(Boolean);
  byId("list").tHead.replaceChildren(make("tr", {}, heads.map(([key, words]) => make("th", {
    scope: "col", class: { change: "number", steps: "number soft", difficulty: "soft" }[key],
    "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : null,
  }, make("button", { type: "button", onclick: () => sortBy(key) }, words)))));
}

function sortBy(key) {
  state.down = state.sort === key ? !state.down : key !== "task" && key !== "difficulty" && key !== "change";
  state.sort = key;
  list();
}

function list() {
  listed = chosen();
  state.shown = CHUNK;
  head();
  byId("count").value = `${listed.length} of ${tasks.length} tasks`;
  byId("list").tBodies[0].replaceChildren(...listed.slice(0, CHUNK).map(row));
  byId("more").hidden = listed.length <= CHUNK;
}

function more() {
  byId("list").tBodies[0].append(...listed.slice(state.shown, state.shown + CHUNK).map(row));
  state.shown += CHUNK;
  byId("more").hidden = listed.length <= state.shown;
}

function options(id, values) {
  byId(id).append(...values.map(([value, words]) => make("option", { value }, words)));
  byId(id).addEventListener("input", (event) => { state[id] = id === "candidate" ? Number(event.target.value) : event.target.value; list(); });
}

function setUp() {
  const counts = (name) => [...new Set(tasks.map((task) => task[name]))].filter(Boolean).sort().map((value) => [value, value]);
  options("repo", counts("repo"));
  options("difficulty", counts("difficulty"));
  options("pattern", Object.entries(PATTERNS).map(([key, [words]]) => [key, words]));
  options("candidate", data.arms.slice(1).map((arm, i) => [String(i + 1), arm]));
  byId("difficulty-label").hidden = !hasDifficulty;
  byId("candidate-label").hidden = data.arms.length < 3;
  byId("text").addEventListener("input", (event) => { state.text = event.target.value; list(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", more);
  new IntersectionObserver((entries) => entries[0].isIntersecting && !byId("more").hidden && more(), { rootMargin: "400px" }).observe(byId("more"));
  const used = new Set(tasks.flatMap((task) => task.arms.flat().map((one) => one.outcome)));
  byId("legend").textContent = "One mark per rollout, in the order of seeds: " +
    Object.entries(GLYPHS).filter(([name]) => used.has(name)).map(([name, glyph]) => `${glyph} ${(name || "no verdict").replace("_", " ")}`).join("  ") +
    ". A wavy line: integrity marks.";
  list();
}

// --- the reader ------------------------------------------------------------------------------------------------------

function address(task, pairs) {
  return "#/" + [task.id, ...pairs.map(([arm, seed]) => `${encodeURIComponent(data.arms[arm])}:${seed}`)]
    .map((part, i) => (i ? part : encodeURIComponent(part))).join("/");
}

const parting = new Map(data.flips.map(([id, a, b, seeds, step]) => [`${id}\n${a}\n${b}`, { seeds, step }]));

function sideBySide(task) {
  const known = parting.get(`${task.id}\n${data.arms[0]}\n${data.arms[state.candidate]}`);
  const wanted = known ? [[0, known.seeds[0]], [state.candidate, known.seeds[1]]] : [[0, null], [state.candidate, null]];
  return wanted.map(([arm, seed]) => {
    const found = task.arms[arm]?.find((one) => one.seed === seed) ?? task.arms[arm]?.[0];
    return found ? [arm, found.seed] : null;
  }).filter(Boolean);
}

async function unpack(number) {
  const packed = Uint8Array.from(atob(byId(`page${number}`).textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function diff(text) {
  const kind = (line) => line.startsWith("+++") || line.startsWith("---") || line.startsWith("diff ") || line.startsWith("index ") ? "file"
    : line.startsWith("@@") ? "hunk" : line.startsWith("+") ? "add" : line.startsWith("-") ? "cut" : "";
  return make("pre", { class: "diff", tabindex: "0" }, text.replace(/\n$/, "").split("\n").map((line) => make("span", { class: kind(line) }, line || " ")));
}

function prose(text) {
  return text.split(/^```/m).map((part, i) => {
    if (i % 2 === 0) return part.trim() ? make("p", {}, part.trim()) : null;
    return make("pre", {}, part.replace(/^\w*\n/, "").replace(/\n$/, ""));
  });
}

function message(one, number, turn, arm) {
  const facts = [one.tokens && `${one.tokens} tokens`, one.seconds && `${one.seconds.toFixed(1)} s`,
    one.entropy !== undefined && `${one.entropy.toFixed(2)} nats`, one.malformed && "malformed"].filter(Boolean);
  const who = make("div", { class: "who" }, make("b", {}, one.role === "assistant" ? `turn ${turn}` : one.role), facts.map((fact) => make("span", {}, fact)));
  const thought = one.reasoning ? make("p", { class: "thought" }, one.reasoning) : null;
  const body = one.role === "assistant" ? prose(one.text)
    : one.text ? [make("pre", { class: "output", tabindex: "0" }, one.text)] : [];
  const inside = number < 2 && ["system", "user"].includes(one.role) ? make("details", {}, make("summary", {}, "prompt"), body) : body;
  return make("div", { class: `message ${one.role} a${arm % 8}` }, who, thought, inside);
}

function conversation(page, arm, step) {
  let turn = 0;
  let parted = step < 0;
  const [alike, after] = [[], []];
  page.messages.forEach((one, number) => {
    if (one.role === "assistant" && turn++ === step) {
      parted = true;
      after.push(make("div", { class: "parts-here", id: `part${arm}` }, "here the two part"));
    }
    (parted ? after : alike).push(message(one, number, turn, arm));
  });
  if (step < 1) return [alike, after].flat();
  const words = step === 1 ? "Turn 1: the same commands in both" : `Turns 1 to ${step}: the same commands in both`;
  return [make("details", { class: "alike" }, make("summary", {}, words), alike), after].flat();
}

function rolloutFacts(i) {
  const facts = [[columns.steps[i], (x) => `${x} turns`], [columns.tokens[i], (x) => `${x.toLocaleString("en")} tokens`],
    [columns.seconds[i], (x) => `${x.toFixed(0)} s`], [columns.entropy[i], (x) => `${x.toFixed(3)} nats`]];
  return facts.filter(([value]) => value !== null).map(([value, words]) => words(value));
}

async function article(task, arm, seed, step, atPart) {
  const one = task.arms[arm]?.find((rollout) => rollout.seed === seed);
  const title = make("h2", { class: `a${arm % 8}` }, `${data.arms[arm]}, seed ${seed}`);
  if (!one) return make("article", {}, title, make("p", {}, "There is no such rollout."));
  const i = one.row;
  const outcome = make("p", { class: "outcome" }, make("b", {}, `${GLYPHS[one.outcome]} ${(one.outcome || "no verdict").replace("_", " ")}`),
    [columns.exit[i], ...rolloutFacts(i)].filter(Boolean).map((fact) => ` · ${fact}`));
  const cause = columns.cause[i] ? make("p", {}, columns.cause[i]) : null;
  const path = columns.path[i];
  const link = path ? make("p", { class: "note" }, make("a", { href: encodeURI(path) }, path)) : null;
  if (columns.page[i] < 0) {
    const why = path ? "This trajectory is not in the file; it lies here:" : "No trajectory is known of this rollout.";
    return make("article", {}, title, outcome, cause, make("p", {}, why), link);
  }
  const page = await unpack(columns.page[i]);
  if (page.problem) return make("article", {}, title, outcome, make("p", {}, page.problem));
  const marks = page.marks.length ? make("ul", { class: "marks", "aria-label": "Integrity marks" }, page.marks.map((mark) =>
    make("li", {}, make("b", {}, mark.name + (mark.grave ? " (grave)" : "")), ` ${mark.file}: ${mark.why}`))) : null;
  const tests = page.tests.map(([kind, passed, failed]) => make("details", {},
    make("summary", {}, `${kind}: ${passed} passed, ${failed.length} failed`), make("pre", {}, failed.join("\n") || "none failed")));
  return make("article", {}, title, outcome, cause, marks,
    make("details", { open: !atPart }, make("summary", {}, "Patch"), page.patch ? diff(page.patch) : make("p", { class: "note" }, "empty")),
    tests,
    page.log ? make("details", {}, make("summary", {}, "Test log, its end"), make("pre", { class: "log", tabindex: "0" }, page.log)) : null,
    make("details", { open: true }, make("summary", {}, "Conversation"), conversation(page, arm, step)), link);
}

async function read(task, pairs, atPart) {
  const reader = byId("reader");
  const shown = pairs.length ? pairs : sideBySide(task);
  const [first, second] = shown;
  const known = second && parting.get(`${task.id}\n${data.arms[first[0]]}\n${data.arms[second[0]]}`);
  const step = known && known.seeds[0] === first[1] && known.seeds[1] === second[1] ? known.step : -1;
  const current = new Set(shown.map(([arm, seed]) => `${arm}:${seed}`));
  const place = listed.indexOf(task);
  const go = (to, words, key) => to ? make("a", { href: address(to, sideBySide(to)), rel: key }, words) : null;
  const choice = make("div", { class: "choice" }, task.arms.flatMap((rollouts, arm) => [make("span", {}, data.arms[arm]),
    make("span", {}, rollouts.map((one) => seedLink(task, one, current.has(`${arm}:${one.seed}`))))]));
  const both = sideBySide(task);
  const articles = await Promise.all(shown.map(([arm, seed]) => article(task, arm, seed, step, atPart)));
  reader.replaceChildren(...[
    make("div", { class: "bar-top" }, make("a", { href: "#tasks", id: "back" }, "← Report"),
      make("span", { class: "right" }, go(listed[place - 1], "← previous task", "prev"), place >= 0 ? go(listed[place + 1], "next task →", "next") : null)),
    make("h1", {}, task.id),
    make("p", { class: "note" }, [task.repo, task.difficulty, task.date].filter(Boolean).join(" · ")),
    choice,
    both.length > 1 && shown.length < 2 ? make("p", {}, make("a", { href: address(task, both) }, "side by side")) : null,
    step >= 0 ? make("p", {}, atPart ? make("a", { href: address(task, shown) }, "with the patches") : make("a", { href: `${address(task, shown)}/part` }, `they differ from turn ${step + 1}`)) : null,
    make("div", { class: shown.length > 1 ? "columns two" : "columns" }, articles),
  ].filter(Boolean));
  document.title = task.id;
}

const home = { title: document.title, scroll: 0, reading: false };

async function route() {
  const hash = location.hash;
  if (!hash.startsWith("#/")) {
    if (!home.reading) return;
    home.reading = false;
    byId("reader").hidden = true;
    byId("report").hidden = false;
    document.title = home.title;
    window.scrollTo({ top: home.scroll, behavior: "instant" });
    return;
  }
  const [id, ...rest] = hash.slice(2).split("/").map(decodeURIComponent);
  const task = byTask.get(id);
  if (!task) return;
  const pairs = rest.map((part) => [data.arms.indexOf(part.slice(0, part.lastIndexOf(":"))), Number(part.slice(part.lastIndexOf(":") + 1))]).filter(([arm]) => arm >= 0);
  await read(task, pairs, rest.at(-1) === "part");
  if (!home.reading) home.scroll = window.scrollY;
  home.reading = true;
  byId("report").hidden = true;
  byId("reader").hidden = false;
  window.scrollTo({ top: 0, behavior: "instant" });
  byId("reader").focus({ preventScroll: true });
}

window.addEventListener("hashchange", route);
window.addEventListener("keydown", (event) => {
  if (!home.reading || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") location.hash = "#tasks";
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (rel && !event.target.closest("pre")) document.querySelector(`#reader a[rel=${rel}]`)?.click();
});
setUp();
route();
