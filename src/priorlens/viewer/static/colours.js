// Colours of a map: inferno from the low to the high end of its scale, the same in all cases; nothing below a threshold.

import { INFERNO } from "./inferno.js";
import { element } from "./page.js";
import { shown } from "./format.js";

const colour = (value, { low, high }) =>
  INFERNO[Math.round(255 * Math.min(Math.max((value - low) / (high - low || 1), 0), 1))];

/** A table of colours for NiiVue, from `threshold` to the end of the scale; its first entry, all below, is clear. */
export function table(scale, threshold, top) {
  const found = { R: [], G: [], B: [], A: [], I: [] };
  for (let index = 0; index < 256; index++) {
    const [red, green, blue] = colour(threshold + (index / 255) * (top - threshold), scale);
    found.R.push(red), found.G.push(green), found.B.push(blue), found.A.push(index ? 255 : 0), found.I.push(index);
  }
  return found;
}

/** "in bits", or in words how it is counted; older results do not tell. */
const inUnit = ({ unit }) => (unit === "bits" ? "in bits" : unit);

/** Draws the scale of a map into `place`, with its ends, its unit, and what the threshold hides. */
export function drawLegend(place, scale, threshold) {
  const bar = place.querySelector("canvas"), [low, middle, high] = place.querySelectorAll(".ends span");
  const pen = bar.getContext("2d");
  for (let x = 0; x < bar.width; x++) {
    const value = scale.low + (x / (bar.width - 1)) * (scale.high - scale.low);
    pen.fillStyle = `rgb(${colour(value, scale)})`;
    pen.clearRect(x, 0, 1, bar.height);
    // What the threshold hides is left out but for a thin line, so that the bar tells it without words too.
    if (value >= threshold) pen.fillRect(x, 0, 1, bar.height);
    else pen.fillRect(x, bar.height - 3, 1, 3);
  }
  low.textContent = shown(scale.low);
  middle.textContent = shown((scale.low + scale.high) / 2);
  high.textContent = `${shown(scale.high)} or more`;
  place.querySelector(".unit").replaceChildren(
    `${["Surprise", inUnit(scale)].filter(Boolean).join(" ")}; shown from ${shown(threshold)}.`,
    ...(scale.own ? [" ", element("strong", { textContent: "Colours are this image's own: do not compare them with another's." })] : []),
  );
}
