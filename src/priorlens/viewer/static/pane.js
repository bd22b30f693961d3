// A pane: one case, its picture, and what is said of it.

import * as api from "./api.js";
import { Controls } from "./controls.js";
import { shown } from "./format.js";
import { hands } from "./hands.js";
import { Lines } from "./lines.js";
import { element } from "./page.js";
import { Profile } from "./profile.js";
import { PLANES, gridOf, turnedAxis, numberOf } from "./slices.js";
import { Stage, canDraw, volumeOf } from "./stage.js";
import { tell } from "./words.js";

const QUIET = 700;
const MANY = 300;
const drawable = canDraw();
const NO_IMAGE = "These results hold no image to look around in: they are older, or were written with --no-overlays.";
const NO_WEBGL =
  "This browser has no WebGL 2, so there are no slices to move through: here is the picture that was written with the results.";
const LOST = "The graphics of this browser gave up. Reload the page to look around again.";

export class Pane {
  /** actions: opened(number), moved(), step(by), shut(), where(): the bearings to start at, if there are any. */
  constructor(actions) {
    const template = document.getElementById("pane");
    this.place = template.content.firstElementChild.cloneNode(true);
    this.actions = actions;
    this.number = null;
    this.find = (name) => this.place.querySelector(name);
    this.stage = new Stage(this.find(".scene"), () => this.lines.draw(), (told) => this.moved(told));
    this.lines = new Lines(this.find(".lines"), this.stage);
    this.controls = new Controls(this.place, this.stage, this.lines, {
      picture: (reconstruction) => this.changePicture(reconstruction),
      plane: () => this.moved(true),
    });
    this.profile = new Profile(this.find(".profile-slider"), (number) => this.goToOwnSlice(number));
    if (drawable) this.stage.prepare();
    hands(this.find(".scene"), this.stage, this.controls);
    this.find(".scene").addEventListener("webglcontextlost", () => this.place.isConnected && this.fallBack(LOST));
    for (const name of ["pointerdown", "focus"])
      this.find(".chosen").addEventListener(name, (event) => event.target.length < this.cases.length && this.fillChoice(true));
    this.find(".chosen").addEventListener("blur", () => this.cases.length > MANY && this.fillChoice(false));
    this.find(".chosen").addEventListener("change", (event) => this.actions.opened(Number(event.target.value)));
    this.find(".previous").addEventListener("click", () => this.actions.step(-1));
    this.find(".next").addEventListener("click", () => this.actions.step(1));
    this.find(".shut").addEventListener("click", () => this.actions.shut());
  }

  /** Takes all cases to choose from. */
  offer(cases) {
    this.cases = cases;
    this.fillChoice(cases.length <= MANY);
  }

  /** Browsers measure every choice at every layout: of thousands only the own is listed, until someone chooses. */
  fillChoice(all) {
    const listed = all ? this.cases : this.cases.filter((one) => one.number === this.number);
    this.find(".chosen").replaceChildren(...listed.map((one) => {
      const words = `${one.name} · ${one.status}`;
      return element("option", { value: one.number, textContent: words, selected: one.number === this.number });
    }));
  }

  close() {
    this.loading?.abort();
    this.stage.close();
    this.place.remove();
  }

  /** Opens a case; what was still under way for another is given up. */
  async open(number, planted) {
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    this.number = number;
    if (this.find(".chosen").length === this.cases.length) this.find(".chosen").value = number;
    else this.fillChoice(false);
    this.clear();
    try {
      const told = await api.toldCase(number, signal);
      signal.throwIfAborted();
      this.told = told;
      tell(this.find, told, planted, (position) => this.goToPlace(position));
      await this.show(told, signal);
    } catch (error) {
      if (signal.aborted) return;
      this.say("");
      const words = error instanceof api.Refused ? error.message : "This case cannot be shown here as a picture to look around in.";
      this.fallBack(words);
      if (!(error instanceof api.Refused)) console.warn(error);
    }
  }

  clear() {
    for (const name of [".look", ".still", ".found", ".spectrum", ".figures", ".by-slice", ".error"]) this.find(name).hidden = true;
    for (const name of ["h2", ".what", ".verdict", ".read", ".read-aloud"]) this.find(name).textContent = "";
    this.lines.take({});
    this.told = this.scan = null;
    this.stage.free();
    this.say("Loading …");
  }

  say(words) {
    this.find(".loading").textContent = words;
  }

  async load(layer, signal) {
    const buffer = await api.layer(layer.address, signal);
    signal.throwIfAborted();
    const volume = await volumeOf(buffer, layer.layer);
    signal.throwIfAborted();
    return volume;
  }

  async show(told, signal) {
    const layers = Object.fromEntries(told.layers.map((one) => [one.layer, one]));
    if (!layers.image) return this.fallBack(told.error ? "" : NO_IMAGE);
    if (!drawable) return this.fallBack(NO_WEBGL);
    this.say("Loading image and map …");
    const mapped = layers.map && told.map_scale;
    const [image, map] = await Promise.all([this.load(layers.image, signal), mapped ? this.load(layers.map, signal) : null]);
    // The canvas starts when it can be seen, and so has a size.
    this.find(".look").hidden = false;
    await (this.opening ??= this.stage.open());
    signal.throwIfAborted();
    this.scan = told.dimensions === 3;
    this.image = image;
    this.controls.start(told, image, map, layers.image.channels);
    this.stage.show(image, map, { scan: this.scan });
    this.controls.apply();
    this.label(told);
    this.startProfile(told);
    this.startPlace(told);
    this.say("");
    for (const [kind, layer] of [["region", layers.segmentation], ["truth", layers.truth]]) {
      if (!layer) continue;
      const volume = await this.load(layer, signal);
      this.lines.take({ ...this.lines.layers, [kind]: { volume, grid: gridOf(volume) } });
      this.stage.redraw();
    }
  }

  label(told) {
    const keys = "Arrow keys, Page Up, Page Down, Home and End move through the slices; plus and minus zoom.";
    this.find(".scene").setAttribute("aria-label", this.scan ? `Slices of ${told.name} with map. ${keys}` : `${told.name} with map.`);
  }

  /** A scan opens where its anomaly is highest, else at its first region, else in its middle. */
  startPlace(told) {
    const bearings = this.scan && this.actions.where();
    if (bearings) return this.follow(bearings);
    const region = told.regions_found.find((one) => one.position);
    const { size } = this.stage.grid, middle = size.map((one) => Math.floor(one / 2));
    if (region) this.goToPlace(region.position);
    else this.stage.goTo(middle);
    const highest = this.profile.index?.[this.profile.peak];
    const here = numberOf(this.stage.grid, this.axis, Math.round(this.stage.voxel[this.axis]));
    if (highest === undefined || (region && here === highest)) return;
    this.goToOwnSlice(highest);
    this.stage.goToHighest(this.axis);
  }

  startProfile({ slices }) {
    this.profile.index = null;
    this.find(".by-slice").hidden = !slices || slices.index.length < 2;
    if (this.find(".by-slice").hidden) return;
    this.axis = turnedAxis(this.stage.grid, slices.axis);
    this.heights = new Map(slices.index.map((number, at) => [number, slices.height_mm[at]]));
    this.profile.show(slices);
  }

  goToPlace(position) {
    this.stage.goTo(this.stage.voxelAt(position));
  }

  /** A slice along the axis that the scan was cut in: the plane turns to it. */
  goToOwnSlice(number) {
    const plane = Object.keys(PLANES).find((one) => PLANES[one] === this.axis);
    if (this.stage.plane !== "all" && this.stage.plane !== plane) this.controls.setPlane(plane, true);
    this.stage.goToSlice(plane, number);
  }

  async changePicture(reconstruction) {
    const { signal } = this.loading, layer = this.told.layers.find((one) => one.layer === "reconstruction");
    try {
      this.say(reconstruction ? "Loading the reconstruction …" : "");
      const volume = reconstruction ? await this.load(layer, signal) : this.image;
      this.say("");
      const voxel = this.stage.voxel;
      this.controls.startLevels(volume);
      [volume.cal_min, volume.cal_max] = [this.controls.low, this.controls.high];
      this.stage.show(volume, this.stage.map, { scan: this.scan });
      this.stage.goTo(voxel);
    } catch (error) {
      if (signal.aborted) return;
      this.controls.reconstruction.checked = false;
      this.say(error instanceof api.Refused ? error.message : "The reconstruction cannot be shown.");
    }
  }

  /** The picture that was written with the results, where the browser cannot draw the case itself. */
  fallBack(words) {
    this.say("");
    this.find(".look").hidden = true;
    const still = this.find(".still"), image = still.querySelector("img"), address = this.told?.overlay;
    still.hidden = !words && !address;
    still.querySelector("p").hidden = !words;
    still.querySelector("p").textContent = words;
    image.hidden = !address;
    if (address) image.src = address;
    image.alt = address ? `Image, map of surprise, and what stands out in ${this.told.name}` : "";
  }

  /** The crosshair moved: slider, profile and words follow; told: the other pane too. */
  moved(told) {
    const { stage, controls } = this;
    controls.countSlices();
    if (this.profile.index) this.profile.point(numberOf(stage.grid, this.axis, stage.voxel[this.axis]));
    const words = this.read();
    this.find(".read").textContent = words;
    // Read aloud only when it has come to rest: else a screen reader never finishes a sentence.
    clearTimeout(this.aloud);
    this.aloud = setTimeout(() => { this.find(".read-aloud").textContent = words; }, QUIET);
    if (told) this.actions.moved();
  }

  read() {
    const { stage, controls } = this, said = [], { image, map } = stage.values();
    if (this.scan) {
      const axis = PLANES[controls.counted], number = stage.slice(controls.counted), last = stage.grid.size[axis] - 1;
      const told = axis === this.axis ? this.heights?.get(number) : undefined, place = told ?? stage.placeOf(stage.voxel)[axis];
      said.push(`${controls.counted} slice ${number} (0 to ${last})`, `${["x", "y", "height"][axis]} ${shown(place)} mm`);
    } else said.push(`column ${numberOf(stage.grid, 0, stage.voxel[0])}, row ${numberOf(stage.grid, 1, stage.voxel[1])}`);
    said.push(stage.map ? `map ${shown(map)}${controls.scale.unit === "bits" ? " bits" : ""}` : "no map");
    said.push(`${controls.reconstruction.checked ? "reconstruction" : "image"} ${shown(image, 4)}`);
    return `At the crosshair: ${said.join(" · ")}`;
  }

  /** Where this pane is, for one that moves with it. */
  get bearings() {
    if (!this.scan || !this.stage.grid) return null;
    const { voxel, grid, plane } = this.stage;
    return { plane, shares: voxel.map((one, axis) => (one + 0.5) / grid.size[axis]) };
  }

  follow(bearings) {
    if (!bearings || !this.bearings) return;
    if (this.stage.plane !== bearings.plane) this.controls.setPlane(bearings.plane);
    this.stage.goTo(bearings.shares.map((share, axis) => share * this.stage.grid.size[axis] - 0.5), false);
  }
}
