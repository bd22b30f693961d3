// The anomaly of each slice of a scan, as a line; a click or a key leads to a slice.

import { drawn } from "./page.js";
import { shown } from "./format.js";

const WIDTH = 600, HEIGHT = 110, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 24;

export class Profile {
  /** place: an element that becomes a slider over the slices; act(number) goes to one. */
  constructor(place, act) {
    this.place = place;
    this.act = act;
    place.addEventListener("pointerdown", (event) => this.pointed(event));
    place.addEventListener("pointermove", (event) => event.buttons === 1 && this.pointed(event));
    place.addEventListener("keydown", (event) => this.pressed(event));
  }

  show({ index, height_mm, anomaly }) {
    Object.assign(this, { index, height_mm, anomaly });
    const finite = anomaly.filter(Number.isFinite), low = Math.min(...finite, 0), high = Math.max(...finite, low + 1e-9);
    this.x = (at) => LEFT + (at / Math.max(index.length - 1, 1)) * (WIDTH - LEFT - RIGHT);
    this.y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    this.peak = anomaly.indexOf(Math.max(...finite));
    const title = `Anomaly by slice, highest in slice ${index[this.peak]}: ${shown(anomaly[this.peak])}`;
    const points = anomaly.map((value, at) => (Number.isFinite(value) ? `${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}` : null));
    this.mark = drawn("line", { class: "here", y1: TOP, y2: HEIGHT - BOTTOM });
    const chart = drawn("svg", { class: "profile", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    chart.append(
      drawn("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
      drawn("path", { class: "own", d: `M${points.filter(Boolean).join("L")}` }),
      drawn("circle", { class: "peak", cx: this.x(this.peak), cy: this.y(anomaly[this.peak]), r: 4 }),
      this.mark,
      drawn("text", { x: LEFT - 6, y: TOP + 8, "text-anchor": "end" }, shown(high)),
      drawn("text", { x: LEFT - 6, y: HEIGHT - BOTTOM, "text-anchor": "end" }, shown(low)),
      drawn("text", { x: LEFT, y: HEIGHT - 6 }, `slice ${index[0]}`),
      drawn("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `slice ${index.at(-1)}`),
    );
    this.place.replaceChildren(chart);
    this.place.setAttribute("aria-label", title);
    this.place.setAttribute("aria-valuemin", 0);
    this.place.setAttribute("aria-valuemax", index.length - 1);
    this.at = null;
  }

  /** Marks the slice that is shown. */
  point(number) {
    const at = this.index.indexOf(number);
    this.mark.classList.toggle("none", at < 0);
    if (at < 0 || at === this.at) return;
    this.at = at;
    this.mark.setAttribute("x1", this.x(at));
    this.mark.setAttribute("x2", this.x(at));
    this.place.setAttribute("aria-valuenow", at);
    this.place.setAttribute("aria-valuetext", `slice ${number}, anomaly ${shown(this.anomaly[at])}`);
  }

  to(at) {
    this.act(this.index[Math.min(Math.max(at, 0), this.index.length - 1)]);
  }

  pointed(event) {
    const frame = this.place.firstChild.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * WIDTH;
    this.to(Math.round(((x - LEFT) / (WIDTH - LEFT - RIGHT)) * (this.index.length - 1)));
  }

  pressed(event) {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    const ends = { Home: 0, End: this.index.length - 1 };
    if (event.key in steps) this.to((this.at ?? 0) + steps[event.key]);
    else if (event.key in ends) this.to(ends[event.key]);
    else return;
    event.preventDefault();
  }
}
