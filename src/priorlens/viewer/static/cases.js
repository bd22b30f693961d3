// The list of cases: searched, filtered and sorted here, and shown a hundred at a time, so that 5000 stay quick.

import { counted, shown } from "./format.js";
import { element } from "./page.js";

const PAGE = 100;
const collator = new Intl.Collator("en", { numeric: true });
const missingLast = (a, b) => (a === null) - (b === null);

const ORDERS = {
  p_value: (a, b) => missingLast(a.p_value, b.p_value) || a.p_value - b.p_value || ORDERS.anomaly(a, b),
  anomaly: (a, b) => missingLast(a.anomaly, b.anomaly) || b.anomaly - a.anomaly || ORDERS.name(a, b),
  name: (a, b) => collator.compare(a.name, b.name),
};

export class Cases {
  /** open(number): what a click on a case does. */
  constructor(open) {
    const find = (name) => document.getElementById(name);
    this.open = open;
    this.place = find("cases");
    this.count = find("count");
    [this.search, this.order, this.status, this.kind] = ["search", "sort", "status", "kind"].map(find);
    [this.back, this.more] = ["back", "more"].map(find);
    this.all = [];
    this.chosen = [];
    this.first = 0;
    for (const one of [this.search, this.order, this.status, this.kind]) one.addEventListener("input", () => this.choose());
    this.back.addEventListener("click", () => this.turn(-1));
    this.more.addEventListener("click", () => this.turn(1));
    this.place.addEventListener("keydown", (event) => this.pressed(event));
    this.place.addEventListener("click", (event) => this.clicked(event));
  }

  /** Takes the lines of the API, in their order. */
  take(lines) {
    this.all = lines;
    offer(this.status, lines.map((one) => one.status));
    offer(this.kind, lines.map((one) => one.kind));
    this.order.querySelector("[value=p_value]").disabled = lines.every((one) => one.p_value === null);
    if (this.order.selectedOptions[0].disabled) this.order.value = "anomaly";
    this.choose();
  }

  choose() {
    const wanted = this.search.value.trim().toLowerCase();
    const fits = (one) =>
      one.name.toLowerCase().includes(wanted) && (!this.status.value || one.status === this.status.value) &&
      (!this.kind.value || one.kind === this.kind.value);
    this.chosen = this.all.filter(fits).sort(ORDERS[this.order.value]);
    this.first = 0;
    this.write();
  }

  /** Marks the cases that are open, and shows the page of the first. */
  mark(open) {
    this.shown = open;
    const at = this.chosen.findIndex((one) => one.number === open[0]);
    if (at >= 0 && (at < this.first || at >= this.first + PAGE)) {
      this.first = at - (at % PAGE);
      this.write();
    }
    // Lines that are there stay: one of them may have the focus.
    for (const link of this.place.querySelectorAll("a")) {
      if (open.includes(Number(link.dataset.number))) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    this.reveal(this.place.querySelector("[aria-current]"));
  }

  /** Scrolls the list, and not the page, until a line is seen. */
  reveal(link) {
    if (!link) return;
    const frame = this.place.getBoundingClientRect(), own = link.getBoundingClientRect();
    if (own.top < frame.top) this.place.scrollTop -= frame.top - own.top;
    else if (own.bottom > frame.bottom) this.place.scrollTop += own.bottom - frame.bottom;
  }

  write() {
    const until = Math.min(this.first + PAGE, this.chosen.length);
    this.place.start = this.first + 1;
    this.place.replaceChildren(...this.chosen.slice(this.first, until).map((one) => this.line(one)));
    this.stop(this.place.querySelector("[aria-current]") ?? this.place.querySelector("a"));
    const part = this.chosen.length > PAGE ? `, here ${this.first + 1} to ${until}` : "";
    const words = `${this.chosen.length} of ${counted(this.all.length, "case")} fit${part}`;
    if (this.count.textContent !== words) this.count.textContent = words;
    this.back.hidden = this.first === 0;
    this.more.hidden = until === this.chosen.length;
  }

  line(one) {
    const figure = one.p_value !== null ? `p = ${shown(one.p_value)}` : one.anomaly !== null ? `anomaly ${shown(one.anomaly)}` : "";
    const status = element("span", { className: `status-${one.status}`, textContent: one.status });
    const more = [figure, one.kind, one.dropped && "dropped here"].filter(Boolean).map((words) => ` · ${words}`);
    const link = element("a", { href: `#case=${one.number}`, tabIndex: -1 },
      element("span", { className: "name", textContent: one.name }), element("span", { className: "about" }, status, ...more));
    link.dataset.number = one.number;
    if (this.shown?.includes(one.number)) link.setAttribute("aria-current", "true");
    return element("li", {}, link);
  }

  /** One link of the list is reached by the tabulator key; arrows lead to the others. */
  stop(link, focus = false) {
    this.place.querySelector("a[tabindex='0']")?.setAttribute("tabindex", "-1");
    link?.setAttribute("tabindex", "0");
    if (focus) link?.focus();
  }

  turn(by, last = false) {
    this.first = Math.min(Math.max(this.first + by * PAGE, 0), Math.max(this.chosen.length - 1, 0));
    this.write();
    const links = this.place.querySelectorAll("a");
    this.stop(links[last ? links.length - 1 : 0], true);
  }

  pressed(event) {
    const links = [...this.place.querySelectorAll("a")], at = links.indexOf(document.activeElement);
    const last = links.length - 1;
    const aims = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.min(at + 10, last), PageUp: Math.max(at - 10, 0), Home: 0, End: last,
    };
    if (at < 0 || !(event.key in aims)) return;
    event.preventDefault();
    const aim = aims[event.key];
    if (aim >= links.length) return this.more.hidden || this.turn(1);
    if (aim < 0) return this.back.hidden || this.turn(-1, true);
    this.stop(links[aim], true);
  }

  clicked(event) {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.stop(link);
    this.open(Number(link.dataset.number));
  }

  /** The case before or after one, among those that fit. */
  beside(number, by) {
    const at = this.chosen.findIndex((one) => one.number === number);
    return this.chosen[at < 0 ? 0 : at + by]?.number;
  }
}

/** Fills a choice with the values there are; one of a single value is no choice. */
function offer(choice, values) {
  const kept = choice.value, found = [...new Set(values)].filter(Boolean).sort();
  const options = found.map((one) => element("option", { value: one, textContent: one }));
  choice.replaceChildren(element("option", { value: "", textContent: "all" }), ...options);
  choice.value = found.includes(kept) ? kept : "";
  choice.parentElement.hidden = found.length < 2;
}
