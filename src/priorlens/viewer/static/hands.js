// What pointer, wheel and keys do on a picture.

import { PLANES } from "./slices.js";

const NOTCH = 50, TOUCH = 30;

/** Lets a canvas answer: a click or drag moves the crosshair, the wheel and keys the slice, the right button the window. */
export function hands(canvas, stage, controls) {
  const point = (event) => {
    const frame = canvas.getBoundingClientRect();
    return stage.voxelUnder(
      ((event.clientX - frame.left) / frame.width) * canvas.width, ((event.clientY - frame.top) / frame.height) * canvas.height,
    );
  };
  const step = (by) => stage.goToSlice(controls.counted, stage.slice(controls.counted) + by);
  let from = null, rolled = 0;

  canvas.addEventListener("pointerdown", (event) => {
    if (!stage.image) return;
    canvas.setPointerCapture(event.pointerId);
    if (event.button === 2) from = { x: event.clientX, y: event.clientY, centre: controls.centre.value, width: controls.width.value };
    const under = event.button === 0 && point(event);
    if (!under) return;
    if (controls.scan) controls.use(under.axis);
    stage.goTo(under.voxel);
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!stage.image) return;
    if (event.buttons === 2 && from) {
      const reach = controls.width.high / 300;
      controls.width.set(from.width + (event.clientX - from.x) * reach);
      controls.centre.set(from.centre + (event.clientY - from.y) * reach);
      controls.window();
    } else if (event.buttons === 1 && event.pointerType !== "touch") {
      const under = point(event);
      if (under && (!controls.scan || PLANES[controls.counted] === under.axis)) stage.goTo(under.voxel);
    }
  });

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());

  canvas.addEventListener("wheel", (event) => {
    if (!stage.image || !controls.scan || event.ctrlKey) return;
    event.preventDefault();
    const under = stage.plane === "all" && point(event);
    if (under) controls.use(under.axis);
    // A wheel tells notches, each a slice; a touch pad tells a stream of small ways, which add up to slices.
    const notch = event.deltaMode !== 0 || Math.abs(event.deltaY) >= NOTCH;
    rolled = notch ? Math.sign(event.deltaY) * TOUCH : rolled + event.deltaY;
    if (Math.abs(rolled) < TOUCH) return;
    step(Math.sign(rolled));
    rolled = 0;
  }, { passive: false });

  canvas.addEventListener("keydown", (event) => {
    if (!stage.image || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    const last = stage.grid.size[PLANES[controls.counted]] - 1, zoom = { "+": 1.25, "-": 0.8 };
    if (controls.scan && event.key in steps) step(steps[event.key]);
    else if (controls.scan && event.key === "Home") stage.goToSlice(controls.counted, 0);
    else if (controls.scan && event.key === "End") stage.goToSlice(controls.counted, last);
    else if (event.key in zoom) controls.zoom.set(controls.zoom.value * zoom[event.key], true);
    else return;
    event.preventDefault();
  });
}
