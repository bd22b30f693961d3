// What can be set in a pane: each control, and what it does on the stage.

import { drawLegend } from "./colours.js";
import { AS_STORED, inColour, spread } from "./levels.js";
import { element } from "./page.js";
import { Slider } from "./sliders.js";
import { PLANES } from "./slices.js";

let sets = 0;

export class Controls {
  /** actions: picture(reconstruction) changes what lies under the map; plane(name) is told of a change. */
  constructor(place, stage, lines, actions) {
    Object.assign(this, { place, stage, lines, actions, scale: null, scan: false });
    const find = (name) => place.querySelector(name);
    this.planes = [...place.querySelectorAll(".planes input")];
    const name = `plane-${++sets}`;
    for (const one of this.planes) {
      one.name = name;
      one.addEventListener("change", () => this.setPlane(one.value, true));
    }
    this.slice = new Slider(find(".slice"), (number) => stage.goToSlice(this.counted, number));
    this.opacity = new Slider(find(".opacity"), () => this.blend());
    this.threshold = new Slider(find(".threshold"), () => this.colour());
    this.centre = new Slider(find(".centre"), () => this.window(), { digits: 4 });
    this.width = new Slider(find(".width"), () => this.window(), { digits: 4 });
    this.zoom = new Slider(find(".zoom"), (factor) => stage.zoom(factor));
    this.channel = find(".channel");
    this.showMap = find(".show-map");
    this.smooth = find(".smooth");
    this.reconstruction = find(".reconstruction");
    this.opacity.span(0, 1);
    this.opacity.set(0.6);
    this.zoom.span(1, 8);
    this.showMap.addEventListener("change", () => this.blend());
    this.smooth.addEventListener("change", () => stage.setSmooth(this.smooth.checked));
    this.reconstruction.addEventListener("change", () => actions.picture(this.reconstruction.checked));
    this.channel.addEventListener("change", () => this.changeChannel());
    for (const [kind, one] of [["region", ".show-regions"], ["truth", ".show-truth"], ["crosshair", ".show-crosshair"]])
      find(one).addEventListener("change", (event) => { lines.shown[kind] = event.target.checked; stage.redraw(); });
    find(".map-reset").addEventListener("click", () => { this.opacity.set(0.6, true); this.threshold.set(this.startThreshold, true); });
    find(".image-reset").addEventListener("click", () => { this.startLevels(this.stage.image); this.window(); this.zoom.set(1, true); });
  }

  /** Sets all for a new case, before it is drawn: `told` of the API, and its volumes. */
  start(told, image, map, names) {
    const find = (name) => this.place.querySelector(name);
    const has = new Set(told.layers.map((one) => one.layer));
    this.scan = told.dimensions === 3;
    this.scale = told.map_scale;
    find(".scan-only").hidden = !this.scan;
    find(".of-map").hidden = find(".legend").hidden = !map;
    find(".with-regions").hidden = !has.has("segmentation");
    find(".with-truth").hidden = !has.has("truth");
    find(".with-reconstruction").hidden = !has.has("reconstruction");
    find(".with-channels").hidden = names.length < 2;
    this.reconstruction.checked = false;
    this.channel.replaceChildren(...names.map((name, index) => element("option", { value: index, textContent: name || `channel ${index}` })));
    this.startLevels(image);
    image.cal_min = this.low;
    image.cal_max = this.high;
    if (!map) return;
    const top = Math.max(map.global_max, this.scale.high);
    this.startThreshold = this.scale.threshold ?? this.scale.low;
    this.threshold.span(Math.min(this.scale.low, this.startThreshold), top);
    this.threshold.set(this.startThreshold);
  }

  /** All that has to be done once the volumes are on the stage. */
  apply() {
    this.zoom.set(1);
    this.setPlane(this.scan ? this.stage.plane : "axial");
    this.stage.setSmooth(this.smooth.checked);
    this.blend();
    if (this.stage.map) this.colour();
  }

  /** The plane that the slider of slices counts: with all three, the one that was used last. */
  get counted() {
    return this.stage.plane === "all" ? this.last ?? "axial" : this.stage.plane;
  }

  setPlane(plane, told = false) {
    for (const one of this.planes) one.checked = one.value === plane;
    if (plane !== "all") this.last = plane;
    this.stage.setPlane(plane);
    this.countSlices();
    if (told) this.actions.plane(plane);
  }

  /** With three planes, slider and keys go with the one that was pointed at. */
  use(axis) {
    this.last = Object.keys(PLANES).find((plane) => PLANES[plane] === axis);
    this.countSlices();
  }

  countSlices() {
    if (!this.stage.grid || !this.scan) return;
    this.slice.span(0, this.stage.grid.size[PLANES[this.counted]] - 1, { whole: true });
    this.place.querySelector(".slice .name").textContent = `Slice, ${this.counted}`;
    this.slice.set(this.stage.slice(this.counted));
  }

  blend() {
    this.stage.setOpacity(this.showMap.checked ? this.opacity.value : 0);
  }

  colour() {
    this.stage.setMap(this.scale, this.threshold.value);
    drawLegend(this.place.querySelector(".legend"), this.scale, this.threshold.value);
  }

  startLevels(image) {
    const stored = !this.scan && !this.reconstruction.checked;
    const { low, high, least, most } = stored ? AS_STORED : spread(image, image.frame4D);
    this.place.querySelector(".with-window").hidden = inColour(image);
    this.centre.span(least, most);
    this.width.span((most - least) / 1000, most - least);
    this.centre.set((low + high) / 2);
    this.width.set(high - low);
  }

  get low() { return this.centre.value - this.width.value / 2; }
  get high() { return this.centre.value + this.width.value / 2; }

  window() {
    this.stage.setWindow(this.low, this.high);
  }

  changeChannel() {
    this.stage.image.frame4D = Number(this.channel.value);
    this.startLevels(this.stage.image);
    this.window();
    this.stage.onMove(false); // the value at the crosshair is another
  }
}
