// Energy, time, errors, floorplan.
function bars(id, names, values, tone, title, unit) {
  const labels = names.map(escaped);
  return draw(id, [{ type: "bar", x: labels.map((_, i) => i), y: values, marker: { color: tone }, text: labels, textposition: "none", customdata: values.map((each) => prefixed(each, unit)), hovertemplate: "%{text}: %{customdata}<extra></extra>" }], {
    title, height: 300, xaxis: namedAxis(labels), yaxis: { tickformat: "~s", ticksuffix: unit, rangemode: "tozero" },
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
  if (!data.run || !data.run.layers.length) return null;
  const labels = data.run.layers.map((row) => escaped(row.layer));
  const bar = (name, key, tone) => ({ type: "bar", name, x: labels.map((_, i) => i), y: data.run.layers.map((row) => row[key]), text: labels, textposition: "none", marker: { color: tone }, hovertemplate: "%{text}: %{y:.4g}<extra></extra>" });
  return draw("errors", [bar("mean error", "mean_error_lsb", color("--write")), bar("mean absolute error", "mean_absolute_error_lsb", color("--read"))], {
    title: "Errors of readings by layer", height: 320, xaxis: namedAxis(labels), yaxis: { title: { text: data.run.unit } }, legend: { orientation: "h", y: 1.12, x: 1, xanchor: "right" },
  });
}

const COLUMN_FIGURES = [["mean absolute error", "mean_absolute_error_lsb"], ["mean error", "mean_error_lsb"], ["range used", "range_used_fraction"], ["readings", "readings"]];

function showColumns() {
  if (!data.run || !data.run.columns.length) return null;
  const [name, key] = COLUMN_FIGURES[Number(element("column-choice").value)];
  const rows = data.run.columns, z = rows.map((row) => row[key] || row.readings.map(() => null));
  const unit = key.endsWith("_lsb") ? data.run.unit : key === "readings" ? "" : "share";
  const largest = z.flat().reduce((found, each) => Math.max(found, Math.abs(each ?? 0)), 0);
  const labels = rows.map((row) => escaped(row.layer));
  const scale = key === "mean_error_lsb" ? { colorscale: "RdBu", reversescale: true, zmin: -largest, zmax: largest } : { colorscale: "Cividis", zmin: 0 };
  const axis = namedAxis(labels);
  return draw("columns", [{ type: "heatmap", z, text: z.map((line, i) => line.map(() => labels[i])), ygap: rows.length < 60 ? 1 : 0, colorbar: { thickness: 12, title: { text: unit } }, hovertemplate: `%{text}, column %{x}: ${name} %{z:.4g}<extra></extra>`, ...scale }], {
    title: `${name[0].toUpperCase()}${name.slice(1)} of each layer on each physical column`, height: Math.min(620, 150 + 22 * Math.max(3, Math.min(rows.length, 24))),
    xaxis: { title: { text: "physical column" } }, yaxis: { tickvals: axis.tickvals, ticktext: axis.ticktext, autorange: "reversed" },
  });
}

const SITE_FIGURES = [["values sent per inference", "sent"], ["values received per inference", "received"], ["weight images held", "images"], ["array", null]];

function showFloorplan() {
  const plan = data.floorplan;
  if (!plan) return null;
  const columns = plan.site_columns * plan.chips, per = plan.site_rows * plan.site_columns;
  const empty = () => Array.from({ length: plan.site_rows }, () => new Array(columns).fill(null));
  const z = empty(), text = empty(), at = [], [name, key] = SITE_FIGURES[Number(element("site-choice").value)];
  plan.site.forEach((site, array) => {
    const row = Math.floor((site % per) / plan.site_columns), column = Math.floor(site / per) * plan.site_columns + (site % plan.site_columns);
    at.push([column, row]);
    z[row][column] = key ? plan[key][array] : array;
    text[row][column] = `site row ${row}, column ${column}<br>array ${array}, ${counted(plan.images[array])} images<br>sends ${counted(plan.sent[array])}, receives ${counted(plan.received[array])} values`;
  });
  element("floorplan-words").textContent =
    `${plan.site_rows}x${plan.site_columns} sites on ${plan.chips} chip${plan.chips > 1 ? "s" : ""}; ${counted(plan.hop_values)} values x hops per inference, ` +
    `at least ${counted(plan.hop_values_lower_bound)}; ${counted(plan.flow_count)} pairs of arrays exchange values` +
    (plan.flows.length ? `, the ${plan.flows.length} with the most traffic are drawn.` : ".");
  const most = plan.flows.reduce((found, each) => Math.max(found, each.values * each.hops), 1);
  const lines = element("flow-choice").checked ? plan.flows.map((flow) => ({
    type: "scatter", mode: "lines", x: [at[flow.from][0], at[flow.to][0]], y: [at[flow.from][1], at[flow.to][1]], showlegend: false, hoverinfo: "skip",
    line: { color: color("--write"), width: 1 + (5 * flow.values * flow.hops) / most }, opacity: 0.8,
  })) : [];
  return draw("sites", [{ type: "heatmap", z, text, xgap: columns > 60 ? 0 : 2, ygap: columns > 60 ? 0 : 2, colorscale: "Cividis", colorbar: { thickness: 12, tickformat: "~s" }, hovertemplate: "%{text}<extra></extra>" }, ...lines], {
    title: `${name[0].toUpperCase()}${name.slice(1)}`, height: 480, xaxis: { title: { text: "site column, chip after chip" }, constrain: "domain", range: [-0.5, columns - 0.5] },
    yaxis: { title: { text: "site row" }, range: [plan.site_rows - 0.5, -0.5], scaleanchor: "x", constrain: "domain" },
  });
}
