"use strict";
// The trace as a tree: each node knows its parent, its children and whether it is on the way to the chosen answer.
const trace = JSON.parse(document.getElementById("trace").textContent);

const nodes = new Map();
for (const [address, known] of Object.entries(trace.nodes)) {
  nodes.set(address, { address, ...known, children: [], parent: null, row: null, dot: null });
}
const roots = [];
for (const node of nodes.values()) {
  const parts = node.address.split(".");
  // a search may leave addresses out
  while (node.parent === null && parts.length > 1) {
    parts.pop();
    node.parent = nodes.get(parts.join(".")) || null;
  }
  (node.parent ? node.parent.children : roots).push(node);
  node.depth = node.parent ? node.parent.depth + 1 : 0;
  // a branch that added nothing has no score but its parent's
  if (node.step === 0) node.value = null;
}
const chosen = nodes.get(trace.chosen) || null;
for (let node = chosen; node; node = node.parent) node.onPath = true;

for (const node of nodes.values()) {
  node.kind = node.fate === "fault" ? "fault" : node.fate === "pruned" ? "pruned"
    : ["end", "length", "budget", "steps"].includes(node.fate) ? "ended" : "kept";
}
(trace.candidates || []).forEach((address, i) => {
  const node = nodes.get(address);
  if (node) node.weight = trace.weights[i];
});

const values = [...nodes.values()].map((node) => node.value).filter((value) => value !== null);
const lowest = values.reduce((a, b) => Math.min(a, b), 0);
const highest = values.reduce((a, b) => Math.max(a, b), lowest < 0 ? lowest : 1);

// viridis: readable without telling red from green; its darkest end is left out, for dark pages
const STOPS = [[72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121],
  [109, 205, 89], [180, 222, 44], [253, 231, 37]];

function colour(value) {
  if (value === null) return "transparent";
  const share = highest > lowest ? (value - lowest) / (highest - lowest) : 1;
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const mixed = STOPS[low].map((part, i) => Math.round(part + (STOPS[low + 1][i] - part) * (at - low)));
  return `rgb(${mixed.join(",")})`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 100 ? value.toFixed(1) : Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3);
}

function score(value) {
  return value === null || value === undefined ? "–" : Math.abs(value) < 100 ? value.toFixed(3) : number(value);
}

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function fateOf(node) {
  const words = { end: "ended", length: "cut at max_tokens", budget: "budget spent", steps: "cut at max_steps",
    fault: "died", grown: "went on" };
  return words[node.fate] || node.fate;
}

function reason(node) {
  return node.why && node.why.length <= 40 ? `: ${node.why}` : "";
}
