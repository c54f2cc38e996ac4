// The page: totals, the list of steps, and what happens at a click or a key.
const tree = document.getElementById("tree");
let selected = null;

function row(node, level) {
  const item = made("li", `${node.kind}${node.onPath ? " on-path" : ""}`);
  item.id = `n-${node.address}`;
  item.setAttribute("role", "treeitem");
  item.setAttribute("aria-level", level);
  item.setAttribute("aria-selected", "false");
  item.tabIndex = -1;
  const line = made("div", "row");
  const toggle = made("span", "toggle");
  toggle.setAttribute("aria-hidden", "true");
  const value = made("span", "value");
  const chip = made("i");
  chip.style.background = colour(node.value);
  value.append(chip, score(node.value));
  const end = node === chosen ? "★ chosen" : `${fateOf(node)}${reason(node)}`;
  const fate = made("span", `fate${node === chosen ? " chosen" : node.kind === "fault" ? " fault" : ""}`, end);
  if (node.why) fate.title = node.why;
  const tokens = made("span", "tokens", `+${number(node.step)} / ${number(node.tokens)}`);
  tokens.title = "tokens of this step, and of the answer up to it";
  line.append(toggle, value, made("span", "said", node.text.trim() || "(no text)"), fate, tokens);
  item.append(line);
  toggle.addEventListener("click", (event) => { event.stopPropagation(); open(node, item.getAttribute("aria-expanded") !== "true"); });
  line.addEventListener("click", () => select(node, true));
  node.row = item;
  if (node.children.length) {
    const list = made("ul");
    list.setAttribute("role", "group");
    for (const child of node.children) list.append(row(child, level + 1));
    item.append(list);
    open(node, false);
  }
  return item;
}

function open(node, whether) {
  if (!node.children.length) return;
  node.row.setAttribute("aria-expanded", whether);
  node.row.querySelector(":scope > .row > .toggle").textContent = whether ? "▾" : "▸";
  node.row.querySelector(":scope > ul").hidden = !whether;
}

function show(node, whether) {
  const there = node.row.querySelector(":scope > .text");
  if (there) there.remove();
  if (!whether) return;
  const text = made("div", "text");
  const facts = made("dl");
  const told = [["branch", node.address], ["fate", fateOf(node)], ["why", node.why], ["score", score(node.value)],
    ["scores of its steps", node.scores.map(score).join(", ")], ["tokens of the step", number(node.step)],
    ["of the answer so far", number(node.tokens)], ["weight", node.weight === undefined ? "" : number(node.weight)]];
  for (const [name, value] of told) {
    if (!value) continue;
    const fact = made("div");
    fact.append(made("dt", "", name), made("dd", "", value));
    facts.append(fact);
  }
  text.append(made("pre", "", node.text), facts);
  node.row.querySelector(":scope > .row").after(text);
}

function select(node, toggled) {
  const wasOpen = node.row.querySelector(":scope > .text") !== null;
  if (selected) {
    selected.row.setAttribute("aria-selected", "false");
    selected.row.tabIndex = -1;
    selected.dot.classList.remove("selected");
    if (toggled) show(selected, false);
  }
  for (let above = node.parent; above; above = above.parent) open(above, true);
  selected = node;
  node.row.setAttribute("aria-selected", "true");
  node.row.tabIndex = 0;
  node.dot.classList.add("selected");
  if (toggled) show(node, !wasOpen);
  node.row.focus({ preventScroll: true });
  node.row.querySelector(":scope > .row").scrollIntoView({ block: "nearest" });
}

function fromPicture(node) {
  document.getElementById("hide").checked = false;
  tree.classList.remove("without-pruned");
  if (selected === node) show(node, false);
  select(node, true);
}

function visible() {
  return [...tree.querySelectorAll("li")].filter((item) => item.offsetParent !== null).map((item) => nodes.get(item.id.slice(2)));
}

function key(event) {
  if (!selected) return;
  const seen = visible();
  const at = seen.indexOf(selected);
  const isOpen = selected.row.getAttribute("aria-expanded") === "true";
  const moves = { ArrowDown: seen[at + 1], ArrowUp: seen[at - 1], Home: seen[0], End: seen[seen.length - 1] };
  if (event.key in moves) { if (moves[event.key]) select(moves[event.key], false); }
  else if (event.key === "ArrowRight") { if (isOpen) select(selected.children[0], false); else open(selected, true); }
  else if (event.key === "ArrowLeft") { if (isOpen) open(selected, false); else if (selected.parent) select(selected.parent, false); }
  else if (event.key === "Enter" || event.key === " ") show(selected, !selected.row.querySelector(":scope > .text"));
  else return;
  event.preventDefault();
}

function onlyChosen() {
  for (const node of nodes.values()) open(node, Boolean(node.onPath));
}

function totals() {
  const spent = trace.spent;
  const all = [["tokens of the engine", spent.engine], ["of these in no answer", spent.discarded],
    ["tokens of the reward", spent.reward], ["budget", trace.budget], ["prompt tokens sent", spent.prompt],
    ["from the prefix cache", spent.cached], ["calls", spent.calls], ["branches", nodes.size],
    ["pruned", [...nodes.values()].filter((node) => node.kind === "pruned").length], ["seconds", trace.seconds]];
  for (const [name, value] of all) {
    if (value === null || value === undefined) continue;
    const part = made("div");
    part.append(made("dt", "", name), made("dd", "", name === "seconds" ? value.toFixed(2) : number(value)));
    document.getElementById("totals").append(part);
  }
}

function begin() {
  document.getElementById("title").textContent = trace.search;
  const settings = Object.entries(trace.params || {}).map(([name, value]) => `${name} = ${value}`);
  settings.push(`reward = ${trace.reward || "none"}`, `seed = ${trace.seed}`);
  document.getElementById("settings").textContent = settings.join(" · ");
  totals();
  for (const [id, text] of [["question", trace.question], ["answer", trace.text]]) {
    const part = document.getElementById(id);
    part.hidden = !text;
    part.querySelector("pre").textContent = text || "";
  }
  const depth = [...nodes.values()].reduce((most, node) => Math.max(most, node.depth), 0) + 1;
  tree.style.setProperty("--indent", `${Math.min(Math.max(260 / depth, 5), 18)}px`);
  for (const node of roots) tree.append(row(node, 1));
  legend(document.getElementById("legend"));
  picture(document.getElementById("picture"), fromPicture);
  if (nodes.size > 120) onlyChosen();
  else for (const node of nodes.values()) open(node, true);
  const first = chosen || roots[0];
  if (first) { selected = first; first.row.tabIndex = 0; first.row.setAttribute("aria-selected", "true"); first.dot.classList.add("selected"); }
  tree.addEventListener("keydown", key);
  document.getElementById("open-chosen").addEventListener("click", () => { onlyChosen(); if (chosen) select(chosen, false); });
  document.getElementById("open-all").addEventListener("click", () => nodes.forEach((node) => open(node, true)));
  document.getElementById("close-all").addEventListener("click", () => nodes.forEach((node) => open(node, false)));
  document.getElementById("hide").addEventListener("change", (event) => tree.classList.toggle("without-pruned", event.target.checked));
}

begin();
