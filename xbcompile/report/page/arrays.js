// Arrays: all weight images as a map, and one of them cell by cell.
const MOST_BOXES = 40000; // of the map; with more images, a box is the first of several
const FIELDS = 9; // of a tile: layer, group, k0, k1, m0, m1, image, row, column
const held = { piece: -1, cells: null };

async function readImages() {
  const cells = data.cells;
  if (!cells.images) return;
  for (const name of ["image_layer", "shown", "permutation", "tiles", "copies"]) held[name] = await unpacked(cells[name], "int32");
  held.image_used = await unpacked(cells.image_used, "float32");
  held.place = new Map(Array.from(held.shown, (image, i) => [image, i]));
  held.byImage = new Map();
  const count = held.tiles.length / FIELDS;
  for (let t = 0; t < count; t++) {
    const image = held.tiles[6 * count + t];
    if (!held.byImage.has(image)) held.byImage.set(image, []);
    held.byImage.get(image).push(t);
  }
  held.arraysOf = new Map();
  const copies = held.copies.length / 2;
  for (let i = 0; i < copies; i++) {
    const image = held.copies[i];
    if (!held.arraysOf.has(image)) held.arraysOf.set(image, []);
    held.arraysOf.get(image).push(held.copies[copies + i]);
  }
  element("image-choice").max = Math.max(0, cells.images - 1);
  element("image-last").textContent = counted(Math.max(0, cells.images - 1));
  element("image-choice").addEventListener("change", showImage);
  for (const [id, last] of [["cell-row", cells.rows - 1], ["cell-column", cells.columns - 1]]) {
    element(id).max = last;
    element(id).addEventListener("change", sayCell);
  }
  const kinds = ["cell value", "layer", ...Object.keys(cells.quantities.values).map((name) => name.replaceAll("_", " "))];
  choices("shown-choice", kinds, showImage);
  element("layer-choice").add(new Option("choose a layer", ""));
  cells.first_image.forEach((image, layer) => { if (image < cells.images) element("layer-choice").add(new Option(data.layers[layer], image)); });
  element("layer-choice").addEventListener("change", () => choose(element("layer-choice").value || 0));
  choices("map-choice", ["share of cells used", "layer"], showMap);
  element("cells-note").textContent = held.shown.length < cells.images
    ? `The page holds the cells of ${counted(held.shown.length)} of ${counted(cells.images)} weight images, some of every layer, and of the others ` +
      "where their tiles are; 'xbcompile inspect --image N' shows any one, 'xbcompile export' writes all."
    : "The page holds the cells of all weight images.";
}

function choose(image) {
  element("image-choice").value = image;
  return showImage();
}

function showMap() {
  const { images } = data.cells;
  if (!images) return null;
  const each = Math.ceil(images / MOST_BOXES), boxes = Math.ceil(images / each); // images in a box
  const across = Math.ceil(Math.sqrt(boxes * 3)), down = Math.ceil(boxes / across);
  const byLayer = element("map-choice").value === "1", z = [], text = [];
  for (let r = 0; r < down; r++) {
    const line = [], words = [];
    for (let c = 0; c < across; c++) {
      const image = (r * across + c) * each;
      if (image >= images) { line.push(null); words.push(""); continue; }
      line.push(byLayer ? held.image_layer[image] : 100 * held.image_used[image]);
      words.push(`image ${image}${each > 1 ? `, first of ${each}` : ""}<br>${escaped(data.layers[held.image_layer[image]])}<br>${(100 * held.image_used[image]).toFixed(1)} % of cells used` +
        (held.place.has(image) ? "" : "<br>cells not in this page"));
    }
    z.push(line);
    text.push(words);
  }
  const scale = byLayer ? layerScale(data.layers.length) : { colorscale: "Cividis", zmin: 0, zmax: 100, colorbar: { title: { text: "%" }, thickness: 12 } };
  const gap = boxes < 1200 ? 1 : 0;
  return draw("map", [{ type: "heatmap", z, text, xgap: gap, ygap: gap, hovertemplate: "%{text}<extra></extra>", ...scale }], {
    title: `All weight images, row by row: ${byLayer ? "layer" : "share of cells used"}. Click one to see its cells.`,
    height: Math.min(420, 110 + Math.max(60, 14 * down)),
    xaxis: { showticklabels: false, showgrid: false, zeroline: false }, yaxis: { autorange: "reversed", showticklabels: false, showgrid: false, zeroline: false },
  }).then((graph) => {
    graph.removeAllListeners("plotly_click");
    graph.on("plotly_click", (event) => choose((event.points[0].y * across + event.points[0].x) * each));
  });
}

async function cellsOf(image) {
  const { rows, columns, pieces, piece, bits } = data.cells, place = held.place.get(image), size = rows * columns;
  if (place === undefined) return null;
  const number = Math.floor(place / piece);
  if (held.piece !== number) {
    held.cells = await unpacked(pieces[number], bits === 32 ? "float32" : "uint8");
    held.piece = number;
  }
  const first = (place - number * piece) * size;
  if (bits === 32) return held.cells.subarray(first, first + size);
  const each = 8 / bits, mask = (1 << bits) - 1;
  return Uint8Array.from({ length: size }, (_, i) => (held.cells[Math.floor((first + i) / each)] >> (bits * ((first + i) % each))) & mask);
}

function tilesOf(image) {
  const count = held.tiles.length / FIELDS;
  return (held.byImage.get(image) || []).map((t) => Array.from({ length: FIELDS }, (_, field) => held.tiles[field * count + t]));
}

function ownersOf(image, tiles) {
  // For each cell the tile that its weight belongs to, and which weight that is.
  const { rows, columns } = data.cells, owner = new Int32Array(rows * columns).fill(-1), place = held.place.get(image);
  tiles.forEach(([, , k0, k1, m0, m1, , row, column], t) => {
    for (let k = 0; k < k1 - k0; k++)
      for (let m = 0; m < m1 - m0; m++) {
        const physical = place === undefined ? column + m : held.permutation[place * columns + column + m];
        owner[(row + k) * columns + physical] = (t << 16) | m;
      }
  });
  return owner;
}

function quantityOf(name, cell) {
  const { at, values } = data.cells.quantities, table = values[name];
  if (!at) return table[cell];
  const share = ((cell - at[0]) / (at.at(-1) - at[0])) * (at.length - 1), i = Math.min(at.length - 2, Math.max(0, Math.floor(share)));
  return table[i] + (share - i) * (table[i + 1] - table[i]);
}

function wordsOf(r, c) {
  const panel = data.cells, { cells, owner, tiles } = held.now, at = r * panel.columns + c;
  const words = [`row ${r}, column ${c}`];
  if (cells) {
    const cell = cells[at], value = panel.levels ? panel.levels[cell] : cell;
    const state = panel.levels && panel.states[cell] ? `, ${panel.states[cell]}` : "";
    words.push(`value ${Number(value.toPrecision(5))}${panel.levels ? ` (level ${cell}${state})` : ""}`);
    Object.keys(panel.quantities.values).forEach((name) => words.push(quantity(name, quantityOf(name, cell))));
  }
  if (owner[at] < 0) return [...words, "unused"];
  const [layer, group, k0, , m0, , , row] = tiles[owner[at] >> 16];
  return [...words, `${data.layers[layer]}[${group ? `${group},` : ""}${k0 + r - row},${m0 + (owner[at] & 0xffff)}]`];
}

async function showImage() {
  const panel = data.cells;
  if (!panel.images) return;
  const image = Math.min(panel.images - 1, Math.max(0, Math.floor(Number(element("image-choice").value) || 0)));
  element("image-choice").value = image;
  if (element("layer-choice").value !== `${image}`) element("layer-choice").value = "";
  const cells = await cellsOf(image), tiles = tilesOf(image), owner = ownersOf(image, tiles);
  held.now = { image, cells, tiles, owner };
  const kind = cells ? Number(element("shown-choice").value) : 1, names = Object.keys(panel.quantities.values);
  const shownOf = (at) => {
    if (kind === 1) return owner[at] < 0 ? null : tiles[owner[at] >> 16][0];
    if (kind === 0) return panel.levels ? panel.levels[cells[at]] : cells[at];
    return quantityOf(names[kind - 2], cells[at]);
  };
  const z = [], text = [];
  for (let r = 0; r < panel.rows; r++) {
    z.push(Array.from({ length: panel.columns }, (_, c) => shownOf(r * panel.columns + c)));
    text.push(Array.from({ length: panel.columns }, (_, c) => wordsOf(r, c).map(escaped).join("<br>")));
  }
  const unit = kind > 1 ? UNITS[names[kind - 2].split("_").at(-1)] || "" : "";
  const scale = kind === 1 ? layerScale(data.layers.length)
    : { colorscale: kind ? "Cividis" : "RdBu", reversescale: !kind, colorbar: { thickness: 12, title: { text: unit }, tickformat: kind ? "~s" : "" }, ...(kind ? {} : panel.levels ? { zmin: panel.levels[0], zmax: panel.levels.at(-1) } : { zmid: 0 }) };
  await draw("cells", [{ type: "heatmap", z, text, hovertemplate: "%{text}<extra></extra>", ...scale }], {
    title: `Image ${image}: ${cells ? element("shown-choice").selectedOptions[0].text : "layer (its cells are not in this page)"}`, height: 520,
    xaxis: { title: { text: cells ? "physical column" : "column before permutation" }, constrain: "domain" },
    yaxis: { title: { text: "physical row" }, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
  });
  const layers = [...new Set(tiles.map((tile) => data.layers[tile[0]]))];
  const where = image < panel.described
    ? `In array ${listed(held.arraysOf.get(image) || [], 12)}; ${tiles.length} tile${tiles.length === 1 ? "" : "s"} of ${listed(layers, 4)}; `
    : "Its tiles are not in this page; ";
  element("image-words").textContent = `${where}${(100 * held.image_used[image]).toFixed(1)} % of cells used`;
  sayCell();
}

function sayCell() {
  const { rows, columns } = data.cells;
  const [r, c] = [["cell-row", rows], ["cell-column", columns]].map(([id, count]) => Math.min(count - 1, Math.max(0, Math.floor(Number(element(id).value) || 0))));
  element("cell-words").textContent = held.now ? wordsOf(r, c).join("; ") : "";
}

function showUtilisation() {
  if (!data.cells.images) return null;
  const given = data.cells.utilisation;
  return draw("utilisation", [{ type: "bar", x: given.from.map((share) => 100 * share + 2.5), y: given.images, width: 4.6, marker: { color: color("--read") }, hovertemplate: "%{y} images<extra></extra>" }], {
    title: "Weight images by the share of their cells that is used", height: 240,
    xaxis: { title: { text: "cells used, %" }, range: [0, 100] }, yaxis: { title: { text: "images" } },
  });
}
