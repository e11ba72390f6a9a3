// The modules of a page's record as icicles that answer: a click, or Enter, opens a module, Escape and the path above lead back,
// arrows go from box to box. What a width means can be chosen. The figures are the record's; nothing is computed but sums.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 20;
const THINNEST = 0.5; // pixels
const NAMED = 26;
const record = JSON.parse(document.getElementById("record").textContent);

// Exact, or said to be about: beyond 2^53 a browser has not every integer.
function digits(number) {
  return number > Number.MAX_SAFE_INTEGER ? `about ${number.toExponential(4)}` : number.toLocaleString("en");
}

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== undefined) made.textContent = text;
  return made;
}

// The list of modules, in the order of the tree, as nodes that know their parent and children. A record may hold more of a
// model than its count.
function grown(model) {
  const path = [];
  return (model.counted || model).modules.map((module) => {
    const node = { module, parent: path[module.depth - 1] || null, children: [] };
    node.path = module.name || model.model;
    node.name = module.name ? module.name.slice(module.name.lastIndexOf(".") + 1) : model.model;
    node.label = /^\d+$/.test(node.name) ? `${node.name} ${module.kind}` : node.name;
    if (node.parent) node.parent.children.push(node);
    path.length = module.depth;
    path.push(node);
    return node;
  });
}

function icicle(figure) {
  const nodes = grown(record.models[Number(figure.dataset.model)]);
  const svg = figure.querySelector("svg");
  const [select, crumbs, by, told] = ["select", ".crumbs", ".by", ".told"].map((which) => figure.querySelector(which));
  const colours = new Map([...figure.querySelectorAll("[data-kind]")].map((key, place) => [key.dataset.kind, `k${place}`]));
  const metrics = [...select.options].map((option) => ({ label: option.text, fields: option.value.split(" ") }));
  const sum = (node, metric) => metric.fields.reduce((all, field) => all + node.module[field], 0);
  let top = nodes[0];
  let boxes = new Map();

  function tell(node) {
    const figures = metrics.map((metric) => {
      const [part, whole] = [sum(node, metric), sum(nodes[0], metric)];
      return `${digits(part)} ${metric.label}${whole ? ` (${((100 * part) / whole).toFixed(1)} %)` : ""}`;
    });
    told.textContent = `${node.path} (${node.module.kind}): ${figures.join(", ")}`;
  }

  function box(node, left, share, depth, room) {
    const metric = metrics[select.selectedIndex];
    const label = `${node.path} (${node.module.kind}): ${digits(sum(node, metric))} ${metric.label}`;
    const made = element("svg", {
      x: `${100 * left}%`, y: depth * HEIGHT, width: `${100 * share}%`, height: HEIGHT,
      tabindex: depth ? -1 : 0, role: "button", "aria-label": label,
    });
    const rect = element("rect", { width: "100%", height: "100%" });
    if (!node.children.length && colours.has(node.module.kind)) rect.setAttribute("class", colours.get(node.module.kind));
    made.append(element("title", {}, label), rect);
    if (share * room >= NAMED) made.append(element("text", { x: 4, y: 14 }, node.label));
    made.addEventListener("click", () => open(node));
    made.addEventListener("pointermove", () => tell(node)); // not what slides under a pointer at rest
    made.addEventListener("focus", () => tell(node));
    made.addEventListener("keydown", (event) => press(event, node));
    boxes.set(node, made);
  }

  function draw() {
    const metric = metrics[select.selectedIndex];
    const whole = sum(top, metric) || 1;
    const room = svg.clientWidth || 1000; // asked once: each answer lays the page out anew
    let deepest = 0;
    const lay = (node, left, depth) => {
      const share = sum(node, metric) / whole;
      if (depth && share * room < THINNEST) return share;
      deepest = Math.max(deepest, depth);
      box(node, left, depth ? share : 1, depth, room);
      let next = left;
      node.children.forEach((child) => { next += lay(child, next, depth + 1); });
      return share;
    };
    boxes = new Map();
    svg.replaceChildren();
    lay(top, 0, 0);
    svg.append(...boxes.values());
    svg.setAttribute("height", (deepest + 1) * HEIGHT);
    svg.setAttribute("aria-label", `${top.path}: modules by ${metric.label}`);
    crumbs.replaceChildren();
    for (let node = top; node; node = node.parent) {
      const step = document.createElement(node === top ? "b" : "button");
      step.textContent = node.name;
      if (node !== top) step.addEventListener("click", () => open(node));
      crumbs.prepend(step, ...(node === top ? [] : [" › "]));
    }
    by.textContent = `${crumbs.textContent}, by ${metric.label}`; // on paper, where nothing can be chosen
    tell(top);
  }

  function open(node) {
    const focused = [svg, crumbs].some((part) => part.contains(document.activeElement));
    top = node;
    draw();
    if (focused) boxes.get(top).focus();
  }

  function press(event, node) {
    const row = [...boxes.keys()].filter((other) => other.module.depth === node.module.depth);
    const beside = (step) => row[row.indexOf(node) + step];
    const ways = {
      ArrowDown: () => node.children.find((child) => boxes.has(child)),
      ArrowUp: () => node !== top && node.parent,
      ArrowLeft: () => beside(-1),
      ArrowRight: () => beside(1),
    };
    if (event.key === "Enter" || event.key === " ") open(node);
    else if (event.key === "Escape") open(top.parent || top);
    else if (event.key === "Home") open(nodes[0]);
    else if (ways[event.key]) boxes.get(ways[event.key]() || node).focus();
    else return;
    event.preventDefault();
  }

  select.addEventListener("change", draw);
  let width = svg.clientWidth;
  new ResizeObserver(() => {
    if (svg.clientWidth === width) return;
    width = svg.clientWidth;
    draw();
  }).observe(svg);
  draw();
}

document.querySelectorAll("figure.icicle").forEach(icicle);
