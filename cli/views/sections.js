// Sections that are closed: a link to one opens it, and on paper all are open.
"use strict";

const sections = [...document.querySelectorAll("details")];
let closed = [];

const reveal = (hash) => sections.forEach((section) => { if (`#${section.id}` === hash) section.open = true; });
document.querySelectorAll("a[href^='#']").forEach((link) => link.addEventListener("click", () => reveal(link.hash)));
reveal(location.hash);

addEventListener("beforeprint", () => {
  closed = sections.filter((section) => !section.open);
  closed.forEach((section) => { section.open = true; });
});
addEventListener("afterprint", () => closed.forEach((section) => { section.open = false; }));
