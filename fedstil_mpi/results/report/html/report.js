"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const config = { responsive: true, displaylogo: false };
// at the top there is room for plotly's buttons, which else lie on what is drawn
const look = { margin: { l: 60, r: 10, t: 36, b: 45 }, showlegend: false, barmode: "stack", hovermode: "closest" };

for (const figure of data.figures) {
  Plotly.newPlot(`plot-${figure.name}`, figure.traces, { ...look, ...figure.layout }, config);
}

// -- variants on and off

const boxes = [...document.querySelectorAll("#variants input")];

function showChosen() {
  const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  for (const figure of data.figures) {
    Plotly.restyle(`plot-${figure.name}`, { visible: figure.traces.map((trace) => shown.has(trace.meta)) });
  }
}

for (const box of boxes) box.addEventListener("change", showChosen);
for (const button of document.querySelectorAll("#variants button")) {
  button.addEventListener("click", () => {
    for (const box of boxes) box.checked = button.dataset.show === "all" || box.closest(".reference") !== null;
    showChosen();
  });
}

// -- relevance, round by round

const relevance = document.getElementById("relevance");

function showRelevance() {
  const { rounds, matrices } = data.relevances[relevance.querySelector("select").value];
  const slider = relevance.querySelector("input");
  slider.max = rounds.length - 1;
  const at = Number(slider.value);
  relevance.querySelector("output").textContent = rounds[at];
  const weights = matrices.flat(2).filter((weight) => weight !== null);
  const axis = { tick0: 0, dtick: Math.ceil(matrices[at][0].length / 15), constrain: "domain" };
  const layout = {
    ...look,
    xaxis: { ...axis, title: { text: "taken from client" } },
    yaxis: { ...axis, title: { text: "receiving client" }, autorange: "reversed", scaleanchor: "x" },
  };
  const [zmin, zmax] = weights.reduce(([low, high], w) => [Math.min(low, w), Math.max(high, w)], [Infinity, -Infinity]);
  const text = matrices[at].length <= 12 ? "%{z:.2f}" : "";
  const trace = { type: "heatmap", z: matrices[at], zmin, zmax, colorscale: "Cividis", texttemplate: text };
  Plotly.react("plot-relevance", [trace], layout, config);
}

if (relevance) {
  relevance.querySelector("input").value = 0;
  for (const control of relevance.querySelectorAll("select, input")) control.addEventListener("input", showRelevance);
  showRelevance();
}

// -- tables that sort by the column that is clicked

function worth(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = text.match(/^[+-]?\d[\d,]*(\.\d+)?/);
  if (!number) return text;
  const value = Number(number[0].replaceAll(",", ""));
  return text.endsWith(" times") ? 100 - 100 * value : value; // a saving: 11 times as much is -1000 %
}

function ordered(a, b, up) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number comes last
  return (up ? 1 : -1) * (typeof a === "number" ? a - b : a.localeCompare(b));
}

function sortBy(head) {
  const table = head.closest("table");
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const worths = new Map([...table.tBodies[0].rows].map((row) => [row, worth(row, head.cellIndex)]));
  const rows = [...worths.keys()].sort((a, b) => ordered(worths.get(a), worths.get(b), up));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  const frame = document.createElement("div");
  frame.className = "scroll";
  table.replaceWith(frame);
  frame.append(table);
  for (const head of table.tHead.rows[0].cells) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sortBy(head));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sortBy(head));
  }
}
