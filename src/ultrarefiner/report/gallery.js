"use strict";
const root = document.documentElement;
root.classList.add("live");

// Layers: every checkbox of a layer, in the page and in the viewer, says the same.
const boxesOf = (layer) => document.querySelectorAll(`input[data-layer="${layer}"]`);
const isOn = (layer) => [...boxesOf(layer)].some((box) => box.checked);

function show(layer, on) {
  for (const box of boxesOf(layer)) box.checked = on;
  root.classList.toggle(`hide-${layer}`, !on);
  if (layer === "window") {
    for (const svg of document.querySelectorAll(".tile svg.overlay")) {
      svg.setAttribute("viewBox", on ? svg.dataset.window : svg.dataset.whole);
    }
    fit();
  } else if (layer === "slider") drawLine();
}

// Slider: left of a line the coarse mask, right of it the refined one.
function visiblePart(svg) {
  const box = svg.viewBox.baseVal, { width, height } = svg.getBoundingClientRect();
  const scale = Math.min(width / box.width, height / box.height) || 1;
  const [w, h] = [width / scale, height / scale];
  return { x: box.x + (box.width - w) / 2, y: box.y + (box.height - h) / 2, w, h };
}

function wipe(svg, share) {
  const seen = visiblePart(svg), line = seen.x + share * seen.w;
  const spans = { coarse: [seen.x, line], refined: [line, seen.x + seen.w] };
  for (const side of svg.querySelectorAll(".side")) {
    const [from, to] = spans[side.dataset.side];
    const frame = { x: from, y: seen.y, width: to - from, height: seen.h };
    for (const [name, value] of Object.entries(frame)) side.setAttribute(name, value);
    side.setAttribute("viewBox", Object.values(frame).join(" "));
  }
  for (const part of svg.querySelectorAll(".divider")) {
    const grip = part.classList.contains("grip");
    part.setAttribute("d", grip ? `M${line} ${seen.y + seen.h / 2}h0` : `M${line} ${seen.y}v${seen.h}`);
  }
  svg.classList.add("split");
}

function unwipe(svg) {
  svg.classList.remove("split");
  for (const side of svg.querySelectorAll(".side")) {
    for (const name of ["x", "y", "width", "height", "viewBox"]) side.removeAttribute(name);
  }
}

function say(slider) {
  slider.setAttribute("aria-valuetext", `${slider.value} % coarse, ${100 - slider.value} % refined`);
}

// A tile shows both outlines until its slider is moved, and again once another one is.
const tiles = new Map([...document.querySelectorAll(".tile")].map((tile) => [Number(tile.dataset.case), tile]));
const restTiles = () => document.querySelectorAll(".tile svg.split").forEach(unwipe);

for (const [index, tile] of tiles) {
  const slider = tile.querySelector("input[type=range]");
  slider.value = 50;
  say(slider);
  slider.addEventListener("input", () => {
    restTiles();
    wipe(tile.querySelector("svg.overlay"), slider.value / 100);
    say(slider);
  });
  tile.querySelector("button").addEventListener("click", () => openViewer(index, [...tiles.keys()]));
}
window.addEventListener("beforeprint", restTiles);

// Viewer: a dialog on one case that steps through the tiles, or through the rows of the table.
const viewer = document.getElementById("viewer");
const cases = viewer ? JSON.parse(document.getElementById("case-data").textContent) : {};
const stage = viewer?.querySelector(".stage");
const line = viewer?.querySelector("input[type=range]");
let current, order, opener;
let look; // what of the picture is seen: its centre, and px of the picture per px of the screen

// Closed, the stage has no size and its picture none to fit.
const picture = () => (viewer?.open ? stage.querySelector("svg.overlay") : null);

function openViewer(index, others) {
  if (!viewer || !cases[index]) return;
  [opener, order] = [document.activeElement, others];
  line.value = 50;
  if (!viewer.open) viewer.showModal();
  view(index);
}

function view(index) {
  current = index;
  const about = cases[index];
  const svg = draw(index);
  stage.querySelector(".canvas").replaceChildren(...(svg ? [svg] : []));
  stage.querySelector(".no-picture").hidden = svg !== null;
  viewer.querySelector("#viewer-name").textContent = about.stem;
  viewer.querySelector(".viewer-place").textContent = `${order.indexOf(index) + 1} of ${order.length}`;
  fillNumbers(about);
  fit();
}

function step(by) {
  const at = order.indexOf(current) + by;
  view(order[(at + order.length) % order.length]);
}

function draw(index) {
  const parts = cases[index].picture;
  const own = tiles.get(index)?.querySelector("svg.overlay").cloneNode(true);
  const svg = own ?? document.getElementById("blank-picture").content.querySelector("svg").cloneNode(true);
  if (!own && !parts) return null;
  unwipe(svg);
  svg.setAttribute("preserveAspectRatio", "none"); // its frame always has the shape of the stage
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Image of ${cases[index].stem} with outlines of its masks`);
  svg.removeAttribute("aria-hidden");
  if (own) return svg;
  svg.dataset.window = parts.window;
  svg.dataset.whole = `0 0 ${parts.width_px} ${parts.height_px}`;
  for (const [kind, href] of [["photo", parts.jpeg], ["gate", parts.gate]]) {
    const image = svg.querySelector(`image.${kind}`);
    image.setAttribute("width", parts.width_px);
    image.setAttribute("height", parts.height_px);
    if (href) image.setAttribute("href", href);
  }
  for (const name of ["coarse", "refined", "truth", "points_on", "points_beside"]) {
    for (const path of svg.querySelectorAll(`path.${name}`)) path.setAttribute("d", parts[name]);
  }
  svg.querySelector("path.prompts.line").setAttribute("d", parts.boxes);
  return svg;
}

function make(tag, text, more = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...more });
}

function fillNumbers(about) {
  const table = viewer.querySelector("table.numbers");
  const paired = about.metrics.some((row) => row[1] !== "");
  const columns = paired ? ["Coarse", "Refined", "Change"] : ["Mask"];
  const head = make("tr", "");
  head.append(make("td", ""), ...columns.map((name) => make("th", name, { scope: "col" })));
  table.hidden = about.metrics.length === 0;
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...about.metrics.map(([label, before, after, change, verdict]) => {
    const row = make("tr", "");
    const last = make("td", change, { className: `change ${verdict}`, title: verdict });
    row.append(make("th", label, { scope: "row" }));
    row.append(...(paired ? [make("td", before), make("td", after), last] : [make("td", after)]));
    return row;
  }));
  viewer.querySelector("dl").replaceChildren(...about.facts.map(([name, value]) => {
    const pair = make("div", "");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
}

// Zoom and pan: the frame of the picture always has the shape of the stage.
function fit() {
  const svg = picture();
  if (!svg) return;
  const [x, y, w, h] = (isOn("window") ? svg.dataset.window : svg.dataset.whole).split(" ").map(Number);
  const { clientWidth, clientHeight } = stage;
  look = { x: x + w / 2, y: y + h / 2, per: Math.max(w / clientWidth, h / clientHeight) };
  drawLook();
}

function drawLook() {
  const svg = picture();
  const [, , width, height] = svg.dataset.whole.split(" ").map(Number);
  const whole = Math.max(width / stage.clientWidth, height / stage.clientHeight);
  look.per = Math.min(Math.max(look.per, whole / 40), whole);
  look.x = Math.min(Math.max(look.x, 0), width);
  look.y = Math.min(Math.max(look.y, 0), height);
  const [w, h] = [stage.clientWidth * look.per, stage.clientHeight * look.per];
  svg.setAttribute("viewBox", `${look.x - w / 2} ${look.y - h / 2} ${w} ${h}`);
  drawLine();
}

function drawLine() {
  const svg = picture();
  if (!svg) return;
  if (isOn("slider")) wipe(svg, line.value / 100);
  else unwipe(svg);
  say(line);
}

function zoom(factor, clientX, clientY) {
  if (!picture()) return;
  const box = stage.getBoundingClientRect();
  const dx = (clientX ?? box.x + box.width / 2) - (box.x + box.width / 2);
  const dy = (clientY ?? box.y + box.height / 2) - (box.y + box.height / 2);
  const before = look.per;
  look.per /= factor;
  drawLook();
  pan((before / look.per - 1) * dx, (before / look.per - 1) * dy);
}

function pan(dx, dy) {
  if (!picture()) return;
  look.x += dx * look.per;
  look.y += dy * look.per;
  drawLook();
}

if (viewer) {
  viewer.addEventListener("close", () => {
    const tile = tiles.get(current)?.querySelector("button");
    const row = document.querySelector(`table.cases tr[data-case="${current}"] button`);
    const back = opener?.closest(".tile") ? tile : opener?.closest("table.cases") ? row : opener;
    back?.focus();
  });
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === viewer || button?.matches("[data-close]")) viewer.close();
    else if (button?.dataset.step) step(Number(button.dataset.step));
    else if (button?.dataset.zoom === "0") fit();
    else if (button?.dataset.zoom) zoom(Number(button.dataset.zoom));
  });
  line.addEventListener("input", () => {
    if (isOn("slider")) drawLine();
    else show("slider", true);
  });
  window.addEventListener("resize", fit);

  const canvas = stage.querySelector(".canvas");
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
  }, { passive: false });
  let drag = null; // "line", "picture" or nothing
  let last; // where the pointer was
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const { x, width } = canvas.getBoundingClientRect();
    const near = Math.abs(event.clientX - x - (line.value / 100) * width) < 16;
    drag = isOn("slider") && near ? "line" : "picture";
    last = event;
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.toggle("panning", drag === "picture");
  });
  canvas.addEventListener("pointermove", (event) => {
    const { x, width } = canvas.getBoundingClientRect();
    if (drag === "picture") {
      pan(last.clientX - event.clientX, last.clientY - event.clientY);
      last = event;
    } else if (drag === "line") {
      line.value = (100 * (event.clientX - x)) / width;
      drawLine();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      drag = null;
      canvas.classList.remove("panning");
    });
  }
}

// A row of the table or a mark in a figure asks for its case; then the rows on show are stepped through.
document.addEventListener("show-case", ({ detail }) => {
  const rows = [...document.querySelectorAll("table.cases tbody tr[data-case]:not([hidden])")];
  const shown = rows.map((row) => Number(row.dataset.case));
  openViewer(detail, shown.includes(detail) ? shown : Object.keys(cases).map(Number));
});

for (const box of document.querySelectorAll("input[data-layer]")) {
  box.addEventListener("change", () => show(box.dataset.layer, box.checked));
  show(box.dataset.layer, box.checked); // a reload may have restored another state
}

const layerOfKey = { t: "truth", c: "coarse", r: "refined", p: "prompts", g: "gate", z: "window", s: "slider" };
const panOfKey = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox], [type=range]), select, textarea")) return;
  const layer = layerOfKey[event.key.toLowerCase()];
  if (layer) {
    if (boxesOf(layer).length === 0 || (layer === "slider" && !viewer.open)) return;
    show(layer, !isOn(layer));
  } else if (!viewer?.open || !useViewerKey(event)) return;
  event.preventDefault();
});

function useViewerKey({ key, shiftKey, target }) {
  const arrow = panOfKey[key];
  if (arrow && shiftKey) pan(...arrow);
  else if (arrow && target.matches("input[type=range], .viewer-facts")) return false; // theirs
  else if (arrow && arrow[0]) step(Math.sign(arrow[0]));
  else if (arrow) pan(...arrow);
  else if (key === "+" || key === "=") zoom(1.5);
  else if (key === "-") zoom(1 / 1.5);
  else if (key === "0") fit();
  else return false;
  return true;
}
