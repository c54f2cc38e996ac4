// The picture: depth from left to right, leaves from top to bottom; it shrinks with their number, and scrolls.
// A node lies level with the child that most of the tree is behind, so that a long branch is a straight line.
const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function place() {
  let leaves = 0;
  const visit = [...roots].reverse().map((node) => [node, false]);
  while (visit.length) {
    const [node, seen] = visit.pop();
    if (!node.children.length) [node.y, node.size] = [leaves++, 1];
    else if (seen) {
      node.size = node.children.reduce((sum, child) => sum + child.size, 0);
      const rank = (child) => (child.onPath ? Infinity : child.size);
      node.y = node.children.reduce((best, child) => (rank(child) > rank(best) ? child : best)).y;
    } else visit.push([node, true], ...[...node.children].reverse().map((child) => [child, false]));
  }
  return leaves;
}

function picture(host, choose) {
  const leaves = place();
  const depth = [...nodes.values()].reduce((most, node) => Math.max(most, node.depth), 0) + 1;
  const high = Math.min(Math.max(640 / Math.max(leaves, 1), 6), 30);
  const wide = Math.min(Math.max((host.clientWidth - 60) / (depth + 0.5), 12), 130);
  const radius = Math.min(Math.max(Math.min(high, wide) / 2 - 1, 2.6), 7);
  const x = (node) => 16 + (node ? node.depth + 1 : 0) * wide;
  const y = (node) => 34 + node.y * high;
  const middle = chosen ? roots.find((node) => node.onPath).y : roots.length ? (roots[0].y + roots[roots.length - 1].y) / 2 : 0;
  const svg = drawn("svg", { width: 46 + depth * wide, height: 50 + Math.max(leaves, 1) * high, "aria-hidden": "true" });
  const every = Math.ceil(30 / wide);
  for (let step = 1; step <= depth; step += every) {
    svg.append(drawn("text", { x: 16 + step * wide, y: 16, "text-anchor": "middle" }, step === 1 ? "step 1" : step));
  }
  const edge = (node) => {
    const [x1, y1] = [x(node.parent), 34 + (node.parent ? node.parent.y : middle) * high];
    const [x2, y2, bend] = [x(node), y(node), wide * 0.5];
    const way = `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
    return drawn("path", { class: node.onPath ? "edge chosen" : "edge", d: way });
  };
  const all = [...nodes.values()];
  for (const node of [...all.filter((n) => !n.onPath), ...all.filter((n) => n.onPath)]) svg.append(edge(node));
  svg.append(drawn("circle", { class: "root", cx: 16, cy: 34 + middle * high, r: 4, fill: "var(--soft)" }));
  for (const node of all) {
    const r = node.kind === "pruned" ? radius * 0.85 : radius;
    node.dot = drawn("circle", { class: `node ${node.kind}${node.onPath ? " on-path" : ""}`, cx: x(node), cy: y(node), r,
      fill: colour(node.value), "data-address": node.address });
    const why = node.why ? ` (${node.why})` : "";
    node.dot.append(drawn("title", {}, `${node.address}: ${number(node.value)}, ${fateOf(node)}${why}\n${node.text}`));
    node.dot.addEventListener("click", () => choose(node));
    svg.append(node.dot);
    if (node.kind === "pruned") {
      const [cx, cy, d] = [x(node), y(node), r * 0.6];
      svg.append(drawn("path", { class: "cross", d: `M${cx - d},${cy - d} l${2 * d},${2 * d} m0,${-2 * d} l${-2 * d},${2 * d}` }));
    }
  }
  if (chosen) svg.append(drawn("text", { class: "star", x: x(chosen) + radius + 4, y: y(chosen) + 5 }, "★"));
  host.append(svg);
  if (chosen) host.scrollTop = y(chosen) - host.clientHeight / 2;
}

function legend(host) {
  const scale = made("span", "");
  const bar = made("b", "scale");
  bar.style.background = `linear-gradient(to right, ${STOPS.map((stop) => `rgb(${stop.join(",")})`).join(",")})`;
  scale.append(`score ${number(lowest)}`, bar, number(highest));
  host.append(scale);
  for (const [kind, text] of [["pruned", "pruned"], ["fault", "died"]]) {
    const part = made("span");
    part.append(made("i", kind), text);
    host.append(part);
  }
  host.append(made("span", "", "★ chosen"));
}
