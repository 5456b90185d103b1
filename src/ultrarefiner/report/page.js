"use strict";
const root = document.documentElement;

// Layers: every checkbox of a layer, in the page and in the viewer, says the same.
const boxesOf = (layer) => document.querySelectorAll(`input[data-layer="${layer}"]`);

function show(layer, on) {
  for (const box of boxesOf(layer)) box.checked = on;
  root.classList.toggle(`hide-${layer}`, !on);
  if (layer === "window") for (const svg of document.querySelectorAll("svg.overlay")) frame(svg);
}

function frame(svg) {
  const whole = root.classList.contains("hide-window");
  svg.setAttribute("viewBox", whole ? svg.dataset.whole : svg.dataset.window);
}

for (const box of document.querySelectorAll("input[data-layer]")) {
  box.addEventListener("change", () => show(box.dataset.layer, box.checked));
  show(box.dataset.layer, box.checked); // a reload may have restored an unchecked box
}

// Viewer: a dialog that shows a copy of a tile and steps through all of them.
const viewer = document.getElementById("viewer");
const tiles = [...document.querySelectorAll(".tile")];
let current = 0;

function view(index) {
  current = (index + tiles.length) % tiles.length;
  const tile = tiles[current];
  const [stem, ...facts] = [...tile.querySelector("figcaption").children].map((part) => part.textContent.trim());
  viewer.querySelector(".stage").replaceChildren(tile.querySelector("svg.overlay").cloneNode(true));
  viewer.querySelector("#viewer-name").textContent = stem;
  viewer.querySelector(".viewer-facts").textContent = [...facts, `${current + 1} of ${tiles.length}`].join("   ·   ");
  if (!viewer.open) viewer.showModal();
}

tiles.forEach((tile, index) => tile.querySelector("button").addEventListener("click", () => view(index)));

if (viewer) {
  viewer.addEventListener("close", () => tiles[current].querySelector("button").focus());
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === viewer || button?.matches("[data-close]")) viewer.close();
    else if (button?.dataset.step) view(current + Number(button.dataset.step));
  });
}

const layerOfKey = { t: "truth", c: "coarse", r: "refined", p: "prompts", z: "window" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const layer = layerOfKey[event.key.toLowerCase()];
  const [box] = layer ? boxesOf(layer) : [];
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (box) show(layer, !box.checked);
  else if (step && viewer?.open) view(current + step);
  else return;
  event.preventDefault();
});

// Table: a header sorts by its column, once more turns round; unknown values stay last.
const words = new Intl.Collator("en", { numeric: true });

function compareKeys(a, b, numeric) {
  return numeric ? Number(a) - Number(b) : words.compare(a, b);
}

for (const header of document.querySelectorAll("table.cases thead th")) {
  header.querySelector("button").addEventListener("click", () => {
    const turn = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of header.parentElement.children) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const numeric = header.classList.contains("number");
    const body = header.closest("table").tBodies[0];
    const keyed = [...body.rows].map((row) => [row.children[header.cellIndex].dataset.key, row]);
    keyed.sort(([a], [b]) => (a === "") - (b === "") || turn * compareKeys(a, b, numeric));
    body.append(...keyed.map(([, row]) => row));
  });
}

// A mark in a figure and its row in the table point at each other.
const markOf = (index) => document.querySelector(`svg.chart [data-case="${index}"]`);
const rowOf = (index) => document.querySelector(`table.cases [data-case="${index}"]`);

for (const mark of document.querySelectorAll("svg.chart [data-case]")) {
  mark.addEventListener("click", () => {
    document.querySelector("tr.found")?.classList.remove("found");
    const row = rowOf(mark.dataset.case);
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
  });
}
for (const row of document.querySelectorAll("table.cases tbody tr")) {
  row.addEventListener("pointerenter", () => markOf(row.dataset.case)?.classList.add("on"));
  row.addEventListener("pointerleave", () => markOf(row.dataset.case)?.classList.remove("on"));
}
