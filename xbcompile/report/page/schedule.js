// Schedule: steps of the batches that overlap, or of many steps the share of time that arrays are busy.
async function showTimeline() {
  const panel = data.timeline;
  element("schedule-words").textContent =
    `${counted(panel.count)} steps on ${counted(panel.arrays)} array${panel.arrays === 1 ? "" : "s"} in ${prefixed(panel.makespan_s, "s")}` +
    (panel.setup_s ? `; before the first batch arrays are written for ${prefixed(panel.setup_s, "s")}` : "") +
    (panel.overlapping ? `; the next batch starts after ${prefixed(panel.period_s, "s")}, so batches overlap: ${panel.batches} are drawn` : "") + ".";
  return panel.bins && element("timeline-choice").value === "0" ? showShares(panel) : showSteps(panel);
}

async function showShares(panel) {
  const { rows, bins, arrays_of_each: each } = panel.bins;
  const read = await unpacked(panel.bins.read, "float32"), write = await unpacked(panel.bins.write, "float32");
  const x = Array.from({ length: bins }, (_, i) => ((i + 0.5) * panel.span_s) / bins);
  const grid = (values) => Array.from({ length: rows }, (_, r) => Array.from(values.subarray(r * bins, (r + 1) * bins)));
  const y = Array.from({ length: rows }, (_, r) => r * each);
  const heat = (values, tone, name, anchor) => ({ type: "heatmap", x, y, z: grid(values), zmin: 0, zmax: 1, showscale: false, colorscale: [[0, color("--panel")], [1, tone]], name, yaxis: anchor, hovertemplate: `array %{y}, %{x:.4s}s: ${name} %{z:.0%}<extra></extra>` });
  const axis = { title: { text: "array" }, tickformat: ",d", nticks: Math.min(8, rows) };
  return draw("timeline", [heat(read, color("--read"), "reading", "y"), heat(write, color("--write"), "writing", "y2")], {
    title: "Share of the time that arrays read (above) and write (below)", height: rows === 1 ? 260 : 560,
    grid: { rows: 2, columns: 1, pattern: "coupled" }, xaxis: { title: { text: "time, s" }, tickformat: "~s" },
    yaxis: { ...axis, domain: [0.54, 1] }, yaxis2: { ...axis, domain: [0, 0.46], gridcolor: color("--line"), automargin: true },
  });
}

function showSteps(panel) {
  const { array, kind: kinds, image, start_s: starts, length_s: lengths } = panel.steps;
  const traces = [];
  const batches = panel.bins ? 1 : panel.batches;
  for (let batch = 0; batch < batches; batch++)
    for (const kind of [...new Set(kinds)].sort((a, b) => a - b)) {
      const mine = kinds.map((each, i) => (each === kind ? i : -1)).filter((i) => i >= 0), shift = batch * panel.period_s;
      const name = kind < 0 ? "write" : data.layers[kind];
      traces.push({
        type: "bar", orientation: "h", name: escaped(name), legendgroup: `${kind}`, showlegend: batch === 0, opacity: 1 / (1 + 0.9 * batch),
        base: mine.map((i) => starts[i] + shift), x: mine.map((i) => lengths[i]), y: mine.map((i) => array[i]),
        marker: { color: kind < 0 ? color("--write") : layerColor(kind), line: { width: 0 } },
        text: mine.map((i) => `image ${image[i]}`), textposition: "none",
        customdata: mine.map((i) => [prefixed(starts[i] + shift, "s"), prefixed(lengths[i], "s")]),
        hovertemplate: `<b>${escaped(name)}</b>${batches > 1 ? `, batch ${batch}` : ""}<br>array %{y}, %{text}<br>at %{customdata[0]} for %{customdata[1]}<extra></extra>`,
      });
    }
  return draw("timeline", traces, {
    ...keyed(panel.bins ? `The first ${counted(array.length)} steps` : batches > 1 ? "Reads and writes of each array; later batches are paler" : "Reads and writes of each array"),
    height: Math.min(620, 170 + 22 * Math.min(panel.arrays, 22)),
    barmode: "overlay", bargap: 0.25, xaxis: { title: { text: "time, s" }, tickformat: "~s" },
    yaxis: { title: { text: "array" }, autorange: "reversed", dtick: panel.arrays <= 24 ? 1 : undefined },
  });
}
