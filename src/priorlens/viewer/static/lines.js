// What is drawn over the picture: outlines of regions and of the truth, and the crosshair. NiiVue has no dashed lines,
// and here a line is told from another by more than its colour: the report's orange is solid, its sky blue dashed.

import { sameGrid, sliceOf } from "./slices.js";

const LINES = { region: { ink: "#e69f00", dash: [] }, truth: { ink: "#56b4e9", dash: [6, 4] } };
const RIM = "#141414";

/** The closed outlines of one label in a slice, as corners of voxels [x, y, x, y, ...]. */
export function outlines({ values, width, height }, label) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] === label;
  // Every side of a voxel that looks outwards leads from one corner to the next, the inside on its left.
  const next = new Map(), corner = (x, y) => y * (width + 1) + x;
  const side = (from, to) => next.get(from)?.push(to) ?? next.set(from, [to]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] !== label) continue;
      if (!inside(x, y - 1)) side(corner(x, y), corner(x + 1, y));
      if (!inside(x + 1, y)) side(corner(x + 1, y), corner(x + 1, y + 1));
      if (!inside(x, y + 1)) side(corner(x + 1, y + 1), corner(x, y + 1));
      if (!inside(x - 1, y)) side(corner(x, y + 1), corner(x, y));
    }
  }
  const found = [];
  for (const first of next.keys()) {
    while (next.get(first)?.length) {
      const line = [];
      for (let at = first; next.get(at)?.length; at = next.get(at).pop()) line.push(at % (width + 1), Math.floor(at / (width + 1)));
      found.push(line);
    }
  }
  return found;
}

/** The outlines of all labels in a slice of a volume: [{label, lines}]. */
function labelsIn(volume, grid, axis, index) {
  const cut = sliceOf(volume, grid, axis, index);
  const labels = [...new Set(cut.values)].filter((one) => one !== 0);
  return labels.map((label) => ({ label, lines: outlines(cut, label) }));
}

export class Lines {
  constructor(canvas, stage) {
    this.canvas = canvas;
    this.stage = stage;
    this.layers = {};
    this.shown = { region: true, truth: true, crosshair: true };
    this.kept = new Map();
  }

  /** Takes volumes with labels by what they are: region, truth. */
  take(layers) {
    this.layers = layers;
    this.kept.clear();
  }

  draw() {
    const { canvas, stage } = this, under = stage.canvas;
    if (canvas.width !== under.width || canvas.height !== under.height) {
      canvas.width = under.width;
      canvas.height = under.height;
    }
    const pen = canvas.getContext("2d"), scale = canvas.width / (under.clientWidth || 1);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const voxel = stage.voxel;
    for (const tile of stage.tiles()) {
      pen.save();
      pen.beginPath();
      pen.rect(tile.left, tile.top, tile.width, tile.height);
      pen.clip();
      // The truth comes last: where the two coincide, the other shows between its dashes.
      for (const kind of ["region", "truth"]) if (this.shown[kind]) this.drawLabels(pen, tile, kind, voxel[tile.axis], scale);
      if (this.shown.crosshair) drawCrosshair(pen, tile, voxel, scale);
      pen.restore();
    }
  }

  drawLabels(pen, tile, kind, index, scale) {
    const layer = this.layers[kind];
    if (!layer || !sameGrid(layer.grid, this.stage.grid)) return;
    const name = `${kind} ${tile.axis}`;
    if (this.kept.get(name)?.index !== index)
      this.kept.set(name, { index, labels: labelsIn(layer.volume, layer.grid, tile.axis, index) });
    const { ink, dash } = LINES[kind], point = (line, at) => [
      tile.x.zero + line[at] * tile.x.perVoxel, tile.y.zero + line[at + 1] * tile.y.perVoxel,
    ];
    for (const { label, lines } of this.kept.get(name).labels) {
      const way = new Path2D();
      for (const line of lines) {
        way.moveTo(...point(line, 0));
        for (let at = 2; at < line.length; at += 2) way.lineTo(...point(line, at));
        way.closePath();
      }
      pen.lineJoin = "round";
      for (const [width, colour] of [[4.5, RIM], [2.2, ink]]) {
        pen.setLineDash(dash.map((one) => one * scale));
        pen.lineWidth = width * scale;
        pen.strokeStyle = colour;
        pen.stroke(way);
      }
      if (kind === "region" && lines.length) write(pen, String(label), rightmost(lines, point), ink, scale);
    }
  }
}

/** Where a label's number is written: beside its rightmost corner. */
function rightmost(lines, point) {
  let best = [-Infinity, 0];
  for (const line of lines)
    for (let at = 0; at < line.length; at += 2) {
      const found = point(line, at);
      if (found[0] > best[0]) best = found;
    }
  return best;
}

function write(pen, words, [x, y], ink, scale) {
  pen.setLineDash([]);
  pen.font = `bold ${13 * scale}px system-ui, "DejaVu Sans", sans-serif`;
  pen.textBaseline = "middle";
  pen.lineWidth = 3.5 * scale;
  pen.strokeStyle = RIM;
  pen.strokeText(words, x + 4 * scale, y);
  pen.fillStyle = ink;
  pen.fillText(words, x + 4 * scale, y);
}

/** Two thin lines that leave the place itself free. */
function drawCrosshair(pen, tile, voxel, scale) {
  const x = tile.x.zero + (voxel[tile.across] + 0.5) * tile.x.perVoxel;
  const y = tile.y.zero + (voxel[tile.up] + 0.5) * tile.y.perVoxel;
  const gap = 9 * scale, right = tile.left + tile.width, bottom = tile.top + tile.height;
  const way = new Path2D();
  const sides = [[tile.left, y, x - gap, y], [x + gap, y, right, y], [x, tile.top, x, y - gap], [x, y + gap, x, bottom]];
  for (const [x1, y1, x2, y2] of sides) {
    way.moveTo(x1, y1);
    way.lineTo(x2, y2);
  }
  pen.setLineDash([]);
  for (const [width, colour] of [[3, "rgb(0 0 0 / .45)"], [1, "rgb(255 255 255 / .75)"]]) {
    pen.lineWidth = width * scale;
    pen.strokeStyle = colour;
    pen.stroke(way);
  }
}
