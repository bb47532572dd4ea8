"use strict";
function look() {
  const style = getComputedStyle(document.documentElement);
  const value = name => style.getPropertyValue(name).trim();
  const axis = { gridcolor: value("--line"), linecolor: value("--line"), tickcolor: value("--line") };
  return { font: { color: value("--text"), family: "system-ui, sans-serif", size: 12 }, axis };
}
function draw() {
  const { font, axis } = look();
  for (const place of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(document.getElementById("figure-" + place.dataset.figure).textContent);
    figure.layout.font = font;
    for (const name of ["xaxis", "yaxis"]) figure.layout[name] = Object.assign({}, axis, figure.layout[name]);
    Plotly.react(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  }
}
function number(text) { return parseFloat(text.replace(/[,<±\s]/g, "").replace(/\u2212/g, "-")); }
function sort(head, index) {
  const body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const numeric = head.classList.contains("n");
  const key = row => {
    const text = row.cells[index].textContent.trim();
    return numeric ? number(text) : text.toLowerCase();
  };
  const empty = value => numeric ? isNaN(value) : value === "" || value === "-";
  const rows = Array.from(body.rows, row => ({ row, value: key(row) }));
  rows.sort((a, b) => empty(a.value) || empty(b.value) ? empty(a.value) - empty(b.value)
    : (a.value < b.value ? -1 : a.value > b.value ? 1 : 0) * (down ? -1 : 1));
  body.append(...rows.map(({ row }) => row));
}
function filter(table) {
  const box = document.createElement("div"), input = document.createElement("input"), count = document.createElement("span");
  const rows = Array.from(table.tBodies[0].rows);
  box.className = "filter"; count.className = "soft"; input.type = "search";
  input.placeholder = "filter by words"; input.setAttribute("aria-label", "Filter the " + table.dataset.what);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
    count.textContent = words.length ? rows.filter(row => !row.hidden).length + " of " + rows.length : "";
  });
  box.append(input, count);
  table.parentNode.before(box);
}
// Makes the tables of a part of the page sortable, and those with several rows searchable.
function prepare(part) {
  for (const table of part.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length > 1 && !("plain" in table.dataset)) filter(table);
    Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(head, index));
      head.addEventListener("keydown", event => { if (event.key === "Enter") sort(head, index); });
    });
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
