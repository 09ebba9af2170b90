"use strict";
// The pictures of the page. Data is in the element "data"; large arrays there are little-endian, compressed, in base64.
const data = JSON.parse(document.getElementById("data").textContent);
const PALETTE = ["#2a78d6", "#3a9d5d", "#7a5bc7", "#c2476b", "#1f9aa8", "#6b7785", "#8fb339", "#e06666", "#4b6bd6", "#b35fb8"];
const TYPES = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

async function unpacked(text, type) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new TYPES[type](await new Response(stream).arrayBuffer());
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(more) {
  const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: color("--text"), size: 12 },
    margin: { l: 60, r: 20, t: 36, b: 58 }, hoverlabel: { align: "left" },
    ...more, xaxis: { ...axis, ...(more.xaxis || {}) }, yaxis: { ...axis, ...(more.yaxis || {}) },
  };
}

const OPTIONS = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

function draw(id, traces, more) {
  document.getElementById(id).style.height = `${more.height + 14}px`;
  return Plotly.react(id, traces, layout(more), OPTIONS);
}

function layerColor(index) {
  return PALETTE[index % PALETTE.length];
}

function prefixed(value, unit) {
  if (value === 0) return `0 ${unit}`;
  const steps = Math.min(3, Math.max(-5, Math.floor(Math.log10(Math.abs(Number(value.toPrecision(4)))) / 3)));
  return `${(value / 1000 ** steps).toPrecision(4)} ${["f", "p", "n", "µ", "m", "", "k", "M", "G"][steps + 5]}${unit}`;
}

function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

// Arrays -----------------------------------------------------------------------------------------------------------------
const kept = { piece: -1, cells: null, tiles: null, permutation: null, copies: null };

async function prepareImages() {
  const cells = data.cells;
  kept.tiles = await unpacked(cells.tiles, "int32");
  kept.permutation = await unpacked(cells.permutation, "int32");
  kept.copies = await unpacked(cells.copies, "int32");
  const choice = document.getElementById("image-choice");
  choice.max = cells.shown - 1;
  document.getElementById("image-last").textContent = cells.shown - 1;
  const shown = document.getElementById("shown-choice");
  const kinds = ["cell value", "layer", ...Object.keys(cells.quantities).map((name) => name.replaceAll("_", " "))];
  kinds.forEach((kind, i) => shown.add(new Option(kind, i)));
  choice.addEventListener("change", showImage);
  shown.addEventListener("change", showImage);
  if (cells.shown < cells.images) {
    document.getElementById("cells-note").textContent =
      `The page holds the first ${cells.shown.toLocaleString("en")} of ${cells.images.toLocaleString("en")} weight images; ` +
      "'xbcompile inspect --image N' shows any other one, 'xbcompile export' writes all.";
  }
}

async function cellsOf(image) {
  const cells = data.cells, piece = Math.floor(image / cells.piece), size = cells.rows * cells.columns;
  if (kept.piece !== piece) {
    kept.cells = await unpacked(cells.pieces[piece], cells.dtype);
    kept.piece = piece;
  }
  const first = (image - piece * cells.piece) * size;
  return kept.cells.subarray(first, first + size);
}

function ownersOf(image) {
  // For each cell the tile that its weight belongs to, and which weight that is.
  const { rows, columns } = data.cells, owner = new Int32Array(rows * columns).fill(-1), tiles = [];
  for (let t = 0; t < data.cells.tile_count; t++) {
    const tile = kept.tiles.subarray(t * 9, t * 9 + 9);
    if (tile[6] !== image) continue;
    const [, , k0, k1, m0, m1, , row, column] = tile;
    for (let k = 0; k < k1 - k0; k++)
      for (let m = 0; m < m1 - m0; m++)
        owner[(row + k) * columns + kept.permutation[image * columns + column + m]] = (tiles.length << 16) | m;
    tiles.push(tile);
  }
  return { owner, tiles };
}

async function showImage() {
  const panel = data.cells;
  if (!panel.shown) return;
  const choice = document.getElementById("image-choice");
  const image = Math.min(panel.shown - 1, Math.max(0, Math.floor(Number(choice.value) || 0)));
  choice.value = image;
  const kind = Number(document.getElementById("shown-choice").value);
  const cells = await cellsOf(image), { owner, tiles } = ownersOf(image);
  const names = Object.keys(panel.quantities), z = [], text = [];
  for (let r = 0; r < panel.rows; r++) {
    const line = [], words = [];
    for (let c = 0; c < panel.columns; c++) {
      const at = r * panel.columns + c, cell = cells[at], value = panel.levels ? panel.levels[cell] : cell;
      const tile = owner[at] < 0 ? null : tiles[owner[at] >> 16];
      if (kind === 0) line.push(value);
      else if (kind === 1) line.push(tile ? tile[0] : null);
      else line.push(panel.quantities[names[kind - 2]][cell]);
      let said = `row ${r}, column ${c}<br>value ${Number(value.toPrecision(5))}`;
      if (panel.levels) said += ` (level ${cell}${panel.states[cell] ? ", " + escaped(panel.states[cell]) : ""})`;
      names.forEach((name) => { said += `<br>${name.replaceAll("_", " ")} ${panel.quantities[name][cell].toPrecision(5)}`; });
      said += tile
        ? `<br><b>${escaped(data.layers[tile[0]])}</b>[${tile[1] ? tile[1] + "," : ""}${tile[2] + r - tile[7]},${tile[4] + (owner[at] & 0xffff)}]`
        : "<br>unused";
      words.push(said);
    }
    z.push(line);
    text.push(words);
  }
  const scale = kind === 1
    ? { colorscale: data.layers.map((_, i) => [i, layerColor(i)]).flatMap(([i, tone]) => [[i / data.layers.length, tone], [(i + 1) / data.layers.length, tone]]), zmin: -0.5, zmax: data.layers.length - 0.5, showscale: false }
    : { colorscale: "RdBu", reversescale: true, colorbar: { thickness: 12 }, ...(kind === 0 && panel.levels ? { zmin: panel.levels[0], zmax: panel.levels.at(-1) } : {}) };
  const title = document.getElementById("shown-choice").selectedOptions[0].text;
  await draw("cells", [{ type: "heatmap", z, text, hovertemplate: "%{text}<extra></extra>", ...scale }], {
    title: { text: `Image ${image}: ${title}`, font: { size: 13 } }, height: 520,
    xaxis: { title: { text: "physical column" }, constrain: "domain" },
    yaxis: { title: { text: "physical row" }, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
  });
  const arrays = [];
  for (let i = 0; i < panel.copy_count; i++) if (kept.copies[2 * i] === image) arrays.push(kept.copies[2 * i + 1]);
  const used = owner.reduce((count, each) => count + (each >= 0), 0);
  const layers = [...new Set(tiles.map((tile) => data.layers[tile[0]]))];
  document.getElementById("image-words").textContent =
    `In array ${arrays.slice(0, 12).join(", ")}${arrays.length > 12 ? ", ..." : ""}; ${tiles.length} tiles of ${layers.slice(0, 4).join(", ")}` +
    `${layers.length > 4 ? ` and ${layers.length - 4} more layers` : ""}; ${((100 * used) / cells.length).toFixed(1)} % of cells used`;
}

function showUtilisation() {
  const given = data.cells.utilisation;
  return draw("utilisation", [{ type: "bar", x: given.from.map((share) => 100 * share + 2.5), y: given.images, width: 4.6, marker: { color: color("--read") }, hovertemplate: "%{y} images<extra></extra>" }], {
    title: { text: "Weight images by the share of their cells that is used", font: { size: 13 } }, height: 240,
    xaxis: { title: { text: "cells used, %" }, range: [0, 100] }, yaxis: { title: { text: "images" } },
  });
}

// Schedule ---------------------------------------------------------------------------------------------------------------
async function showTimeline() {
  const panel = data.timeline;
  const overlap = panel.stationary && panel.period_s < panel.makespan_s;
  document.getElementById("schedule-words").textContent =
    `${panel.count.toLocaleString("en")} steps on ${panel.arrays.toLocaleString("en")} arrays in ${prefixed(panel.makespan_s, "s")}` +
    (panel.setup_s ? `; before the first batch arrays are written for ${prefixed(panel.setup_s, "s")}` : "") +
    (overlap ? `; the next batch starts after ${prefixed(panel.period_s, "s")}, so batches overlap` : "") + ".";
  const height = Math.min(620, 140 + 22 * Math.min(panel.arrays, 22));
  if (panel.bins) {
    const { rows, bins, arrays_of_each: each } = panel.bins;
    const read = await unpacked(panel.bins.read, "float32"), write = await unpacked(panel.bins.write, "float32");
    const x = Array.from({ length: bins }, (_, i) => ((i + 0.5) * panel.makespan_s) / bins);
    const grid = (values) => Array.from({ length: rows }, (_, r) => Array.from(values.subarray(r * bins, (r + 1) * bins)));
    const y = Array.from({ length: rows }, (_, r) => r * each);
    const heat = (values, tone, name, anchor) => ({ type: "heatmap", x, y, z: grid(values), zmin: 0, zmax: 1, showscale: false, colorscale: [[0, color("--panel")], [1, tone]], name, yaxis: anchor, hovertemplate: `array %{y}, %{x:.4s}s: ${name} %{z:.0%}<extra></extra>` });
    return draw("timeline", [heat(read, color("--read"), "reading", "y"), heat(write, color("--write"), "writing", "y2")], {
      title: { text: "Share of the time that arrays read (above) and write (below)", font: { size: 13 } }, height: 560,
      grid: { rows: 2, columns: 1, pattern: "coupled" }, xaxis: { title: { text: "time, s" }, tickformat: "~s" },
      yaxis: { title: { text: "array" }, domain: [0.54, 1] }, yaxis2: { title: { text: "array" }, domain: [0, 0.46], gridcolor: color("--line") },
    });
  }
  const kinds = [...new Set(panel.steps.kind)].sort((a, b) => a - b);
  const traces = kinds.map((kind) => {
    const mine = panel.steps.kind.map((each, i) => (each === kind ? i : -1)).filter((i) => i >= 0);
    const name = kind < 0 ? "write" : data.layers[kind];
    return {
      type: "bar", orientation: "h", name: escaped(name), base: mine.map((i) => panel.steps.start_s[i]), x: mine.map((i) => panel.steps.length_s[i]), y: mine.map((i) => panel.steps.array[i]),
      marker: { color: kind < 0 ? color("--write") : layerColor(kind), line: { width: 0 } },
      text: mine.map((i) => `image ${panel.steps.image[i]}`), textposition: "none",
      customdata: mine.map((i) => [prefixed(panel.steps.start_s[i], "s"), prefixed(panel.steps.length_s[i], "s")]),
      hovertemplate: `<b>${escaped(name)}</b><br>array %{y}, %{text}<br>at %{customdata[0]} for %{customdata[1]}<extra></extra>`,
    };
  });
  return draw("timeline", traces, {
    title: { text: "Writes and reads of each array", font: { size: 13 } }, height, barmode: "overlay", bargap: 0.25,
    xaxis: { title: { text: "time, s" }, tickformat: "~s" }, yaxis: { title: { text: "array" }, autorange: "reversed", dtick: panel.arrays <= 24 ? 1 : undefined },
    legend: { orientation: "h", y: -0.25 },
  });
}

// Cost and errors --------------------------------------------------------------------------------------------------------
function bars(id, names, values, tone, title, unit) {
  return draw(id, [{ type: "bar", x: names.map(escaped), y: values, marker: { color: tone }, customdata: values.map((each) => prefixed(each, unit)), hovertemplate: "%{x}: %{customdata}<extra></extra>" }], {
    title: { text: title, font: { size: 13 } }, height: 300, xaxis: { type: "category", tickangle: names.length > 8 ? -40 : 0 }, yaxis: { tickformat: "~s", ticksuffix: unit },
  });
}

function showCost() {
  const names = data.layers, energies = data.share.map((row) => row.reads_j), tones = names.map(() => color("--read"));
  return Promise.all([
    bars("energy", [...names, "writes"], [...energies, data.write_j], [...tones, color("--write")], "Energy of reads by layer, and of writes", "J"),
    bars("time", names, data.share.map((row) => row.reads_s), tones, "Time of reads by layer, one read after another", "s"),
  ]);
}

function showErrors() {
  if (!data.run || !data.run.length) return null;
  const names = data.run.map((row) => escaped(row.layer));
  const bar = (name, values, tone) => ({ type: "bar", name, x: names, y: values, marker: { color: tone } });
  return draw("errors", [
    bar("mean error", data.run.map((row) => row.mean_error_lsb), color("--write")),
    bar("mean absolute error", data.run.map((row) => row.mean_absolute_error_lsb), color("--read")),
  ], { title: { text: "Errors of readings by layer", font: { size: 13 } }, height: 300, xaxis: { type: "category" }, legend: { orientation: "h", y: -0.2 } });
}

function showFloorplan() {
  const plan = data.floorplan;
  if (!plan) return null;
  const columns = plan.site_columns * plan.chips, per = plan.site_rows * plan.site_columns;
  const z = Array.from({ length: plan.site_rows }, () => new Array(columns).fill(null));
  plan.site.forEach((site, array) => {
    const chip = Math.floor(site / per), row = Math.floor((site % per) / plan.site_columns);
    z[row][chip * plan.site_columns + (site % plan.site_columns)] = array;
  });
  document.getElementById("floorplan-words").textContent =
    `${plan.site_rows}x${plan.site_columns} sites on ${plan.chips} chip${plan.chips > 1 ? "s" : ""}; ${plan.hop_values.toLocaleString("en")} values x hops per inference, ` +
    `at least ${plan.hop_values_lower_bound.toLocaleString("en")}.`;
  return draw("sites", [{ type: "heatmap", z, xgap: 2, ygap: 2, colorscale: "Viridis", colorbar: { title: { text: "array" }, thickness: 12 }, hovertemplate: "site row %{y}, column %{x}: array %{z}<extra></extra>" }], {
    height: 420, xaxis: { title: { text: "site column, chip after chip" }, constrain: "domain" }, yaxis: { title: { text: "site row" }, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
  });
}

async function showAll() {
  await Promise.all([showImage(), showUtilisation(), showTimeline(), showCost(), showErrors(), showFloorplan()]);
  document.documentElement.dataset.drawn = "yes";
}

prepareImages().then(showAll);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showAll);
