// Slices of a scan. NiiVue turns every scan so that its axes lead right, forward and up ("turned" here); files and
// tables count along the scan's own axes from 0 ("own"), and so does everything that is shown.

/** Which turned axis a plane is counted along. */
export const PLANES = { axial: 2, coronal: 1, sagittal: 0 };

/** The grid of a NiiVue volume: `size` along turned axes, their own axes, and whether they run the other way. */
export function gridOf(volume) {
  return {
    size: volume.dimsRAS.slice(1, 4),
    own: volume.permRAS.map((one) => Math.abs(one) - 1),
    backward: volume.permRAS.map((one) => one < 0),
    step: volume.img2RASstep,
    start: volume.img2RASstart,
  };
}

/** Turns the number of a slice along a turned axis into the scan's own, and back. */
export function numberOf(grid, axis, index) {
  return grid.backward[axis] ? grid.size[axis] - 1 - index : index;
}

/** The turned axis that an axis of the scan itself lies along. */
export const turnedAxis = (grid, own) => grid.own.indexOf(own);

/** Whether two volumes have the same voxels. */
export const sameGrid = (a, b) =>
  a.size.every((size, axis) => size === b.size[axis] && a.own[axis] === b.own[axis] && a.backward[axis] === b.backward[axis]);

/** Values of one slice: those of the two other turned axes, the lower one fastest. */
export function sliceOf(volume, grid, axis, index) {
  const [across, up] = [0, 1, 2].filter((one) => one !== axis);
  const [width, height] = [grid.size[across], grid.size[up]];
  const first = grid.start[0] + grid.start[1] + grid.start[2] + index * grid.step[axis];
  const values = new volume.img.constructor(width * height);
  for (let y = 0, to = 0; y < height; y++)
    for (let x = 0, from = first + y * grid.step[up]; x < width; x++, from += grid.step[across]) values[to++] = volume.img[from];
  return { values, width, height, across, up };
}
