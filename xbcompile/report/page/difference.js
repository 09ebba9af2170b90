// The page of two programs.
function bothSides() {
  return [color("--read"), color("--write")];
}

function showRatios() {
  const rows = data.figures.filter((row) => row.ratio);
  return draw("ratios", [{
    type: "bar", orientation: "h", x: rows.map((row) => Math.log2(row.ratio)), y: rows.map((row) => row.figure),
    marker: { color: rows.map((row) => (row.ratio <= 1 ? color("--read") : color("--write"))) }, textposition: "none",
    customdata: rows.map((row) => [row.first, row.second, Number(row.ratio.toPrecision(3))]), hovertemplate: "%{y}: %{customdata[0]} → %{customdata[1]}, %{customdata[2]} times<extra></extra>",
  }], {
    title: "Second program over the first one", height: 120 + 28 * rows.length, yaxis: { autorange: "reversed" },
    xaxis: { title: { text: "times" }, ...ratioTicks(rows.map((row) => Math.log2(row.ratio))) },
  });
}

// Powers of two, so few that they can be read.
function ratioTicks(values) {
  const low = Math.floor(Math.min(-1, ...values)), high = Math.ceil(Math.max(1, ...values)), step = Math.max(1, Math.ceil((high - low) / 10));
  const ticks = [];
  for (let i = Math.ceil(low / step) * step; i <= high; i += step) ticks.push(i);
  return { tickvals: ticks, ticktext: ticks.map((each) => (each < 0 ? `1/${counted(2 ** -each)}` : counted(2 ** each))), range: [low - 0.2, high + 0.2] };
}

function showLayers(picture, i) {
  const labels = picture.layers.map(escaped), tones = bothSides();
  return draw(`picture-${i}`, picture.values.map((values, side) => ({
    type: "bar", name: `${side ? "second" : "first"}: ${escaped(data.names[side])}`, x: labels.map((_, at) => at), y: values, text: labels, textposition: "none",
    marker: { color: tones[side] }, customdata: values.map((each) => (picture.unit ? prefixed(each ?? NaN, picture.unit) : `${each === null ? "-" : Number(each.toPrecision(4))}`)), hovertemplate: "%{text}: %{customdata}",
  })), {
    ...keyed(picture.title), height: 340,
    xaxis: namedAxis(labels), yaxis: { tickformat: picture.unit ? "~s" : "", ticksuffix: picture.unit, rangemode: "tozero" },
  });
}

start(() => Promise.all([showRatios(), ...data.pictures.map(showLayers)]));
