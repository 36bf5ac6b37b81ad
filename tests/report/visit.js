// A visitor of the report, who uses the page's own functions and leaves what was seen in <pre id=seen>.
const seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
const until = async (ready) => {
  for (let i = 0; i < 300 && !ready(); i++) await new Promise((go) => setTimeout(go, 20));
};
const choose = (id, value) => { const one = byId(id); one.value = value; one.dispatchEvent(new Event("input")); };
const rows = () => [...document.querySelectorAll("#list tbody th")].map((cell) => cell.textContent);
addEventListener("load", async () => {
  seen.all = rows();
  choose("pattern", "gained"); seen.gained = rows();
  choose("pattern", "lost"); seen.lost = rows();
  choose("pattern", ""); choose("text", "DJANGO"); seen.django = rows(); choose("text", "");
  document.querySelector("#list thead th:last-child button").click(); seen.sorted = rows();
  choose("repo", "sympy/sympy"); seen.sympy = rows(); choose("repo", "");
  location.hash = WHERE;
  await until(() => document.querySelector("#reader .message"));
  seen.title = document.title;
  seen.articles = [...document.querySelectorAll("#reader article h2")].map((one) => one.textContent);
  seen.added = document.querySelectorAll("#reader .diff .add").length;
  seen.messages = document.querySelectorAll("#reader article:first-child .message").length;
  seen.marks = [...document.querySelectorAll("#reader .marks li")].map((one) => one.textContent);
  seen.reportHidden = byId("report").hidden;
  const before = document.title;
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  await until(() => document.title !== before); seen.next = document.title;
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  await until(() => byId("reader").hidden); seen.back = !byId("report").hidden;
  location.hash = PART;
  await until(() => document.querySelector("#reader .parts-here"));
  seen.parted = [...document.querySelectorAll("#reader .parts-here + .message .who b")].map((one) => one.textContent);
  seen.patchesShut = !document.querySelector("#reader details[open] > .diff");
  seen.wider = document.documentElement.scrollWidth - innerWidth;
  document.body.replaceChildren(make("pre", { id: "seen" }, JSON.stringify(seen)));
});
