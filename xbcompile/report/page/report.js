// The page of one program.
if (data.run) choices("column-choice", COLUMN_FIGURES.map(([name]) => name), showColumns);
if (data.floorplan) {
  choices("site-choice", SITE_FIGURES.map(([name]) => name), showFloorplan);
  element("flow-choice").addEventListener("change", showFloorplan);
}
if (data.timeline.bins) {
  choices("timeline-choice", ["all arrays over the batch", "the first steps one by one"], showTimeline);
  element("timeline-controls").hidden = false;
}
const ready = readImages();
start(async () => {
  await ready;
  await Promise.all([showMap(), showImage(), showUtilisation(), showTimeline(), showCost(), showErrors(), showColumns(), showFloorplan()]);
});
