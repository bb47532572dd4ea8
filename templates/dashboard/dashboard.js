"use strict";
const PAUSE_MS = 1000;
let plotly = null;

// Loads plotly once, for the first page that has a figure.
function loadPlotly() {
  plotly ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "plotly.js";
    script.onload = done;
    script.onerror = () => { plotly = null; failed(); };
    document.head.append(script);
  });
  return plotly;
}

async function drawAll() {
  if (!document.querySelector(".plot")) return;
  await loadPlotly();
  draw();
}

function say(text) {
  const status = document.getElementById("status");
  if (status.textContent !== text) status.textContent = text;
}

// What the reader chose in a part of the page that is about to be replaced.
function choices(part) {
  const sorted = Array.from(part.querySelectorAll("table.sortable"), table =>
    Array.from(table.tHead.rows[0].cells, head => head.getAttribute("aria-sort")));
  const scrolled = Array.from(part.querySelectorAll(".scroll"), box => [box.scrollLeft, box.scrollTop]);
  const words = Array.from(part.querySelectorAll(".filter input"), input => input.value);
  const active = part.contains(document.activeElement) ? document.activeElement : null;
  return { sorted, scrolled, words, active: active && [active.tagName, active.getAttribute("href") || active.textContent] };
}

function restore(part, chosen) {
  part.querySelectorAll("table.sortable").forEach((table, number) =>
    (chosen.sorted[number] || []).forEach((order, index) => {
      const head = table.tHead.rows[0].cells[index];
      if (!order || !head) return;
      sort(head, index);
      if (order === "descending") sort(head, index);
    }));
  part.querySelectorAll(".scroll").forEach((box, number) => {
    [box.scrollLeft, box.scrollTop] = chosen.scrolled[number] || [0, 0];
  });
  part.querySelectorAll(".filter input").forEach((input, number) => {
    if (!chosen.words[number]) return;
    input.value = chosen.words[number];
    input.dispatchEvent(new Event("input"));
  });
  if (chosen.active) {
    const [tag, name] = chosen.active;
    const same = Array.from(part.querySelectorAll(tag)).find(one => (one.getAttribute("href") || one.textContent) === name);
    if (same) same.focus({ preventScroll: true });
  }
}

// Reads the page again and puts its changing part in place of the old one; figures stay, with new data.
async function refresh() {
  const answer = await fetch(location.href);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const old = document.getElementById("live"), fresh = document.adoptNode(next.getElementById("live"));
  const chosen = choices(old);
  const drawn = new Map(Array.from(old.querySelectorAll(".plot"), place => [place.dataset.figure, place]));
  old.replaceWith(fresh);
  for (const place of fresh.querySelectorAll(".plot")) {
    const same = drawn.get(place.dataset.figure);
    if (same) place.replaceWith(same);
  }
  prepare(fresh);
  restore(fresh, chosen);
  document.body.dataset.version = next.body.dataset.version;
  await drawAll();
}

async function compare() {
  // Nobody sees a hidden page, and a text that is being selected or typed must stay.
  if (document.hidden || !getSelection().isCollapsed || document.activeElement.matches("#live input")) return;
  try {
    const answer = await fetch("state?campaign=" + encodeURIComponent(document.body.dataset.watch));
    if (answer.status === 403) return say("The dashboard was started anew: open the address that it printed.");
    if (!answer.ok) return say("The archive cannot be read at the moment.");
    say("");
    if ((await answer.json()).version !== Number(document.body.dataset.version)) await refresh();
  } catch {
    say("The dashboard does not answer; this is what it showed last.");
  }
}

async function follow() {
  await compare();
  setTimeout(follow, PAUSE_MS);
}

document.addEventListener("click", async event => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
for (const choice of document.querySelectorAll(".filters select, .filters input[type=checkbox]"))
  choice.addEventListener("change", () => choice.form.requestSubmit());
prepare(document);
drawAll();
setTimeout(follow, PAUSE_MS);
