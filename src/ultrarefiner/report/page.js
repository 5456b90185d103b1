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

// Filters: a row stays if it has every word of the search and is what a ticked box asks for.
const rows = [...document.querySelectorAll("table.cases tbody tr")];
const filters = document.querySelector(".filters");

function filterRows() {
  const wanted = filters.querySelector("input[type=search]").value.toLowerCase().split(/\s+/);
  const only = [...filters.querySelectorAll("[data-only]:checked")].map((box) => box.dataset.only);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const kinds = [row.dataset.change, row.classList.contains("rejected") ? "rejected" : ""];
    const fits = only.length === 0 || only.some((kind) => kinds.includes(kind));
    row.hidden = !(fits && wanted.every((word) => text.includes(word)));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  filters.querySelector("output").textContent = `${shown} of ${rows.length} cases`;
}

if (filters) {
  filters.hidden = false;
  filters.addEventListener("input", filterRows);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("keydown", (event) => event.stopPropagation()); // letters are layers
  filterRows(); // a reload may have restored what was typed
}

// A mark in a figure and its row in the table point at each other, and both open the image.
const marksOf = (index) => document.querySelectorAll(`svg.chart [data-case="${index}"]`);
const rowOf = (index) => document.getElementById(`case-${index}`);

function openCase(index) {
  document.querySelector("tr.found")?.classList.remove("found");
  const row = rowOf(index);
  row?.classList.add("found");
  document.dispatchEvent(new CustomEvent("show-case", { detail: Number(index) }));
  if (!document.getElementById("viewer")?.open) row?.scrollIntoView({ block: "center" });
}

for (const mark of document.querySelectorAll("svg.chart [data-case]")) {
  mark.addEventListener("click", () => openCase(mark.dataset.case));
}
for (const row of rows) {
  const light = (on) => {
    for (const mark of marksOf(row.dataset.case)) mark.classList.toggle("on", on);
  };
  row.addEventListener("pointerenter", () => light(true));
  row.addEventListener("pointerleave", () => light(false));
}
for (const name of document.querySelectorAll(".open-case")) {
  name.addEventListener("click", (event) => {
    event.preventDefault(); // of a link to the row, which is for pages without a script
    openCase(name.closest("[data-case]").dataset.case);
  });
}
