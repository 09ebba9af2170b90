"use strict";
// What the pictures of all pages share. Data is in the element "data"; large arrays there are compressed, in base64.
const data = JSON.parse(document.getElementById("data").textContent);
const PALETTE = ["#2a78d6", "#3a9d5d", "#7a5bc7", "#c2476b", "#1f9aa8", "#6b7785", "#8fb339", "#e06666", "#4b6bd6", "#b35fb8"];
const TYPES = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };
const OPTIONS = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const UNITS = { ohm: "Ω", siemens: "S", volt: "V", ampere: "A" };

const element = (id) => document.getElementById(id);
const counted = (value) => value.toLocaleString("en");

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
}

async function unpacked(text, type) {
  return new TYPES[type](await (await inflated(text)).arrayBuffer());
}

async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await (await inflated(element("plotly").textContent.trim())).text();
  document.head.append(script);
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(more) {
  const line = color("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ticks: "" };
  const titled = (given) => (given && given.title ? { ...given, title: { standoff: 8, ...given.title } } : given);
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: color("--text"), size: 12 },
    margin: { l: 60, r: 20, t: 36, b: 58 }, hoverlabel: { align: "left" },
    ...more, xaxis: { ...axis, ...titled(more.xaxis) }, yaxis: { ...axis, ...titled(more.yaxis) },
  };
}

function draw(id, traces, more) {
  element(id).style.height = `${more.height + 14}px`;
  const title = typeof more.title === "string" ? { text: more.title, font: { size: 13 } } : more.title;
  return Plotly.react(id, traces, layout({ ...more, title }), OPTIONS);
}

// Title, and below it a legend, which may take two lines in a narrow window.
function keyed(title) {
  return { title: { text: title, font: { size: 13 }, y: 0.98, yanchor: "top" }, margin: { l: 60, r: 20, t: 74, b: 50 }, legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 } };
}

function layerColor(index) {
  return PALETTE[index % PALETTE.length];
}

function layerScale(count) {
  const bands = Array.from({ length: count }, (_, i) => [[i / count, layerColor(i)], [(i + 1) / count, layerColor(i)]]);
  return { colorscale: bands.flat(), zmin: -0.5, zmax: count - 0.5, showscale: false };
}

function prefixed(value, unit) {
  if (!Number.isFinite(value)) return `- ${unit}`;
  if (value === 0) return `0 ${unit}`;
  const steps = Math.min(3, Math.max(-5, Math.floor(Math.log10(Math.abs(Number(value.toPrecision(4)))) / 3)));
  return `${(value / 1000 ** steps).toPrecision(4)} ${["f", "p", "n", "µ", "m", "", "k", "M", "G"][steps + 5]}${unit}`;
}

function quantity(name, value) {
  const words = name.split("_"), unit = UNITS[words.at(-1)];
  return unit ? `${words.slice(0, -1).join(" ")} ${prefixed(value, unit)}` : `${words.join(" ")} ${Number(value.toPrecision(5))}`;
}

function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function listed(numbers, most) {
  return numbers.slice(0, most).join(", ") + (numbers.length > most ? ` and ${counted(numbers.length - most)} more` : "");
}

function choices(id, names, changed) {
  names.forEach((name, i) => element(id).add(new Option(name, i)));
  element(id).addEventListener("change", changed);
}

// Of many names some are written; hovering tells all of them.
function namedAxis(labels) {
  const step = Math.ceil(labels.length / 40), kept = labels.map((_, i) => i).filter((i) => i % step === 0);
  return { tickvals: kept, ticktext: kept.map((i) => (labels[i].length > 18 ? `${labels[i].slice(0, 17)}…` : labels[i])), tickangle: labels.length > 8 ? -50 : 0, showgrid: false, zeroline: false };
}

// Everything is drawn, and again where light becomes dark; a page that is printed shows what it holds folded.
function start(showAll) {
  const all = async () => {
    await showAll();
    document.documentElement.dataset.drawn = "yes";
  };
  const told = (error) => {
    element("trouble").hidden = false;
    element("trouble").textContent = `The pictures cannot be drawn in this browser: ${error.message}. The tables hold all numbers.`;
    throw error;
  };
  loadPlotly().then(all).catch(told);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all().catch(told));
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
}
