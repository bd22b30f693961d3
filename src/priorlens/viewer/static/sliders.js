// A number that is set by a slider or typed: the two always say the same.

import { shown, typed } from "./format.js";

// Sliders count whole steps, so that no country's way of writing numbers and no rounding gets in.
const STEPS = 400;

export class Slider {
  /** place: an element with an input of type range and, where it can be typed too, one of type text. */
  constructor(place, act, { digits = 3, words = (value) => shown(value, digits) } = {}) {
    [this.range, this.text] = ["input[type=range]", "input[type=text]"].map((one) => place.querySelector(one));
    this.place = place;
    this.words = words;
    this.act = act;
    this.low = 0;
    this.high = 1;
    this.whole = false;
    this.range.addEventListener("input", () => this.set(this.fromRange(), true));
    this.text?.addEventListener("change", () => {
      const value = typed(this.text.value);
      // What is no number is put back; what lies beyond an end becomes that end.
      this.set(Number.isFinite(value) ? value : this.value, Number.isFinite(value));
    });
  }

  /** The ends; `whole` for numbers that are counted. */
  span(low, high, { whole = false } = {}) {
    Object.assign(this, { low, high: Math.max(high, low), whole });
    this.range.min = whole ? low : 0;
    this.range.max = whole ? high : STEPS;
    this.range.step = 1;
  }

  fromRange() {
    const at = Number(this.range.value);
    return this.whole ? at : this.low + (at / STEPS) * (this.high - this.low);
  }

  set(value, told = false) {
    const inside = Math.min(Math.max(value, this.low), this.high);
    this.value = this.whole ? Math.round(inside) : inside;
    this.range.value = this.whole ? this.value : Math.round((STEPS * (this.value - this.low)) / (this.high - this.low || 1));
    const words = this.words(this.value);
    this.range.setAttribute("aria-valuetext", words);
    if (this.text) this.text.value = this.whole ? String(this.value) : words;
    if (told) this.act(this.value);
  }
}
