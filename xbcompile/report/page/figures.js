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
    ...keyed("Errors of readings by layer"), height: 340, xaxis: namedAxis(labels), yaxis: { title: { text: data.run.unit } },
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
  const scale = key === "mean_error_lsb" ? { colorscale: "RdBu", reversescale: true, zmin: -largest, zmax: largest } : { colorscale: "Cividis", zmin: 0, zmax: largest || 1 };
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
  const at = plan.site.map((site) => [Math.floor(site / per) * plan.site_columns + (site % plan.site_columns), Math.floor((site % per) / plan.site_columns)]);
  // Of a large floorplan, the part that arrays sit on and their neighbours.
  const span = (which, sites) => (sites <= 60 ? [0, sites - 1] : [
    Math.max(0, at.reduce((least, place) => Math.min(least, place[which]), sites) - 1),
    Math.min(sites - 1, at.reduce((most, place) => Math.max(most, place[which]), 0) + 1)]);
  const [left, right] = span(0, columns), [top, bottom] = span(1, plan.site_rows);
  const empty = () => Array.from({ length: bottom - top + 1 }, () => new Array(right - left + 1).fill(null));
  const z = empty(), text = empty(), [name, key] = SITE_FIGURES[Number(element("site-choice").value)];
  at.forEach(([column, row], array) => {
    z[row - top][column - left] = key ? plan[key][array] : array;
    text[row - top][column - left] = `site row ${row}, column ${column}<br>array ${array}, ${counted(plan.images[array])} images<br>sends ${counted(plan.sent[array])}, receives ${counted(plan.received[array])} values`;
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
  return draw("sites", [{ type: "heatmap", z, text, x0: left, dx: 1, y0: top, dy: 1, xgap: right - left > 60 ? 0 : 2, ygap: right - left > 60 ? 0 : 2, colorscale: "Cividis", colorbar: { thickness: 12, tickformat: "~s" }, hovertemplate: "%{text}<extra></extra>" }, ...lines], {
    title: `${name[0].toUpperCase()}${name.slice(1)}`, height: 480, xaxis: { title: { text: "site column, chip after chip" }, constrain: "domain", range: [left - 0.5, right + 0.5] },
    yaxis: { title: { text: "site row" }, range: [bottom + 0.5, top - 0.5], scaleanchor: "x", constrain: "domain" },
  });
}
