// Where a case is drawn: the only file that knows NiiVue. Positions are voxels of the turned grid (slices.js).

import { table } from "./colours.js";
import { PLANES, gridOf, numberOf, sliceOf } from "./slices.js";
import { onceAFrame } from "./page.js";

const KINDS = { axial: 0, coronal: 1, sagittal: 2, all: 3 };
let stages = 0;

/** A NIfTI file as a volume of NiiVue. */
export function volumeOf(buffer, name) {
  return window.niivue.NVImage.loadFromUrl({ url: buffer, name: `${name}.nii` });
}

/** Whether this browser can draw volumes at all. */
export function canDraw() {
  const gl = window.niivue && document.createElement("canvas").getContext("webgl2");
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(gl);
}

export class Stage {
  constructor(canvas, onDraw, onMove) {
    this.canvas = canvas;
    this.onDraw = onDraw;
    this.onMove = onMove;
    this.colours = `inferno of stage ${++stages}`;
    this.grid = null;
    this.plane = "axial";
    this.redraw = onceAFrame(() => this.draw());
    this.recolourMap = onceAFrame(() => this.repaint(1));
    this.recolourImage = onceAFrame(() => this.repaint(0));
  }

  /** Starts NiiVue, before it reads any volume. */
  prepare() {
    const { Niivue, SHOW_RENDER } = window.niivue;
    this.niivue = new Niivue({
      interactive: false, // pane.js answers to pointer and keys: NiiVue's own keys are no ones' that people know
      dragAndDropEnabled: false,
      logLevel: "silent",
      loadingText: "",
      crosshairWidth: 0, // lines.js draws it, thin on large voxels too
      multiplanarShowRender: SHOW_RENDER.NEVER,
      multiplanarPadPixels: 4,
      isOrientationTextVisible: false,
      fontColor: [0.85, 0.85, 0.85, 1],
      showAllOrientationMarkers: true,
    });
  }

  async open() {
    await this.niivue.attachToCanvas(this.canvas, false);
    // The canvas follows its frame; what is drawn over it follows the canvas.
    this.watcher = new ResizeObserver(() => this.redraw());
    this.watcher.observe(this.canvas);
  }

  /** Shows an image, with its map over it, in place of what was there. */
  show(image, map, { scan }) {
    const { niivue } = this;
    this.free();
    niivue.volumes = map ? [image, map] : [image];
    niivue.back = image;
    niivue.overlays = niivue.volumes.slice(1);
    // Scans as in the pictures of the report, as a radiologist looks at them; images as they are.
    const { opts } = niivue;
    opts.isRadiologicalConvention = opts.sagittalNoseLeft = opts.isOrientationTextVisible = scan;
    const grid = gridOf(image);
    if (!this.grid || !grid.size.every((size, axis) => size === this.grid.size[axis])) this.zoom(1);
    this.grid = grid;
    this.image = image;
    this.map = map;
    this.update();
  }

  /** Lets go of volumes and of their textures: NiiVue leaves those to the garbage collector, which is in no hurry. */
  free() {
    const { niivue } = this;
    if (!this.watcher) return;
    niivue.volumes = [];
    niivue.overlays = [];
    niivue.back = null;
    this.image = this.map = null;
    for (const name of ["volumeTexture", "overlayTexture", "gradientTexture"]) {
      if (niivue[name]) niivue.gl.deleteTexture(niivue[name]);
      niivue[name] = null;
    }
    niivue.overlayTextureID = null;
  }

  close() {
    this.watcher?.disconnect();
    if (!this.watcher) return;
    this.free();
    this.niivue.cleanup();
    this.niivue.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  /** Grey values between `low` and `high`. */
  setWindow(low, high) {
    this.image.cal_min = low;
    this.image.cal_max = high;
    this.recolourImage();
  }

  /** Colours of the map by `scale`, none below `threshold`. */
  setMap(scale, threshold) {
    const least = 1e-4 * Math.abs(scale.high - scale.low) + 1e-6, top = Math.max(scale.high, threshold + least);
    this.niivue.addColormap(this.colours, table(scale, threshold, top));
    this.map.colormap = this.colours;
    this.map.cal_min = threshold - least; // NiiVue shows what lies above; what reaches the threshold counts too
    this.map.cal_max = top;
    this.recolourMap();
  }

  setOpacity(share) {
    this.niivue.overlayAlphaShader = share;
    this.redraw();
  }

  setSmooth(smooth) {
    this.niivue.opts.isNearestInterpolation = !smooth;
    this.niivue.volumes.forEach((_, layer) => this.niivue.updateInterpolation(layer));
    this.redraw();
  }

  setPlane(plane) {
    this.plane = plane;
    this.niivue.opts.sliceType = KINDS[plane];
    this.redraw();
  }

  /** 1 shows all; the crosshair stays where it is. */
  zoom(factor) {
    const { scene } = this.niivue, pan = scene.pan2Dxyzmm, change = pan[3] - factor;
    if (factor === 1 || !this.image) scene.pan2Dxyzmm = [0, 0, 0, 1];
    else {
      const at = this.niivue.frac2mm(scene.crosshairPos);
      scene.pan2Dxyzmm = [0, 1, 2].map((axis) => pan[axis] + change * at[axis]).concat(factor);
    }
    this.redraw();
  }

  get voxel() {
    return this.image ? [...this.niivue.frac2vox(this.niivue.scene.crosshairPos)] : [0, 0, 0];
  }

  /** Moves the crosshair to the middle of a voxel. */
  goTo(voxel, told = true) {
    const { size } = this.grid;
    const inside = voxel.map((one, axis) => Math.min(Math.max(Math.round(one), 0), size[axis] - 1));
    this.niivue.scene.crosshairPos = this.niivue.vox2frac(inside);
    this.redraw();
    this.onMove(told);
  }

  /** The voxel of a place in mm, as the files' affines tell it. */
  voxelAt(position) {
    return [...this.niivue.frac2vox(this.niivue.mm2frac(position, 0, true))];
  }

  /** Where a voxel lies, in mm along right, forward and up. */
  placeOf(voxel) {
    return [...this.niivue.frac2mm(this.niivue.vox2frac(voxel), 0, true)].slice(0, 3);
  }

  /** What image and map say at the crosshair. */
  values() {
    const at = this.placeOf(this.voxel);
    const value = (volume) => volume && volume.getValue(...volume.mm2vox(at), volume.frame4D);
    return { image: value(this.image), map: value(this.map) };
  }

  /** The number of the slice of a plane that is shown, as the files count. */
  slice(plane) {
    return numberOf(this.grid, PLANES[plane], this.voxel[PLANES[plane]]);
  }

  goToSlice(plane, number) {
    const voxel = this.voxel, axis = PLANES[plane];
    voxel[axis] = numberOf(this.grid, axis, Math.min(Math.max(number, 0), this.grid.size[axis] - 1));
    this.goTo(voxel);
  }

  /** To where the map is highest in the slice that is shown of a turned axis. */
  goToHighest(axis) {
    if (!this.map) return;
    const { values, width, across, up } = sliceOf(this.map, gridOf(this.map), axis, Math.round(this.voxel[axis]));
    const highest = values.reduce((best, value, at) => (value > values[best] ? at : best), 0), voxel = this.voxel;
    [voxel[across], voxel[up]] = [highest % width, Math.floor(highest / width)];
    this.goTo(voxel);
  }

  /** The slices on the canvas: their turned axis, their frame in pixels of the canvas, and where voxels lie in it. */
  tiles() {
    return this.niivue.screenSlices.flatMap((tile, index) => {
      if (tile.axCorSag > 2) return [];
      const [start, top, length, height] = tile.leftTopWidthHeight, axis = 2 - tile.axCorSag;
      const width = Math.abs(length), left = Math.min(start, start + length); // a mirrored tile runs backwards
      const [across, up] = [0, 1, 2].filter((one) => one !== axis), { size } = this.grid;
      // NiiVue tells which voxel lies at a pixel; two pixels of a tile say where all its voxels lie.
      const at = (share) => this.niivue.screenXY2TextureFrac(left + share * width, top + share * height, index, false);
      const [a, b] = [at(0.25), at(0.75)];
      const line = (one, start, length) => {
        const perVoxel = (0.5 * length) / ((b[one] - a[one]) * size[one]);
        return { perVoxel, zero: start + 0.25 * length - a[one] * size[one] * perVoxel };
      };
      return [{ axis, across, up, left, top, width, height, x: line(across, left, width), y: line(up, top, height) }];
    });
  }

  /** The turned voxel under a point of the canvas, and the axis of its slice; null between slices. */
  voxelUnder(x, y) {
    const tile = this.tiles().find((one) => x >= one.left && x < one.left + one.width && y >= one.top && y < one.top + one.height);
    if (!tile) return null;
    const voxel = this.voxel;
    voxel[tile.across] = Math.floor((x - tile.x.zero) / tile.x.perVoxel);
    voxel[tile.up] = Math.floor((y - tile.y.zero) / tile.y.perVoxel);
    return { voxel, axis: tile.axis };
  }

  /** Colours one layer anew; the other stays as it is. */
  repaint(layer) {
    const volume = this.niivue.volumes[layer];
    if (!volume) return;
    const { overlayTexture, gl } = this.niivue;
    this.niivue.refreshLayers(volume, layer);
    if (layer === 1 && overlayTexture && overlayTexture !== this.niivue.overlayTexture) gl.deleteTexture(overlayTexture);
    this.draw();
  }

  update() {
    this.niivue.updateGLVolume();
    this.redraw();
  }

  draw() {
    if (!this.image) return;
    this.niivue.drawScene();
    this.onDraw();
  }
}
