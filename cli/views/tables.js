// Tables of class "sortable": a click on a column's name sorts by it, the third click gives the first order back. Rows that
// know their depth are shown down to one that can be chosen, where all of them would be too many to look at.
"use strict";
document.documentElement.classList.add("scripted");

const MANY = 150;

function key(cell) {
  const text = cell.textContent.trim();
  const number = Number(text.replace(/,|\s?%$/g, ""));
  return text && !Number.isNaN(number) ? number : text;
}

// Numbers before words, and what is empty or unknown last, whichever way the rest goes.
function compare(a, b, way) {
  const rank = (value) => (typeof value === "number" ? 0 : value && value !== "?" ? 1 : 2);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (rank(a) === 2) return 0;
  return way * (rank(a) ? a.localeCompare(b, "en", { numeric: true }) : a - b);
}

function sortable(table) {
  const body = table.tBodies[0];
  const first = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const keys = new Map(first.map((row) => [row, key(row.cells[place])]));
      const numbers = [...keys.values()].some((value) => typeof value === "number");
      const ways = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
      const next = ways[ways.indexOf(head.getAttribute("aria-sort")) + 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      const way = next === "ascending" ? 1 : -1;
      if (next) head.setAttribute("aria-sort", next);
      body.append(...(next ? [...first].sort((a, b) => compare(keys.get(a), keys.get(b), way)) : first));
    });
  });
}

function foldable(table) {
  const rows = [...table.tBodies[0].rows].filter((row) => row.dataset.depth);
  const deepest = Math.max(0, ...rows.map((row) => Number(row.dataset.depth)));
  const within = (depth) => rows.filter((row) => Number(row.dataset.depth) <= depth);
  if (rows.length <= MANY || deepest < 2) return;
  let depth = deepest;
  while (depth > 1 && within(depth).length > MANY) depth -= 1;
  const select = document.createElement("select");
  select.name = "depth";
  for (let each = 1; each <= deepest; each += 1) {
    select.add(new Option(`${each}: ${within(each).length.toLocaleString("en")} rows`, each, false, each === depth));
  }
  const show = () => rows.forEach((row) => { row.hidden = Number(row.dataset.depth) > Number(select.value); });
  select.addEventListener("change", show);
  const label = document.createElement("label");
  label.className = "live";
  label.append("down to depth ", select);
  table.parentElement.before(label);
  show();
}

document.querySelectorAll("table.sortable").forEach((table) => {
  foldable(table);
  sortable(table);
});
