// The page: its head, the list of cases, and one pane or two. The address keeps which cases are open: #case=3&compare=5

import * as api from "./api.js";
import { Cases } from "./cases.js";
import { Drop } from "./drop.js";
import { element, facts } from "./page.js";
import { Pane } from "./pane.js";

const find = (name) => document.getElementById(name);
const NARROW = "(max-width: 60rem)";

class App {
  constructor(results) {
    this.results = results;
    this.panes = [];
    this.cases = new Cases((number) => this.open(number, this.side));
    find("compare").addEventListener("click", () => this.compare());
    find("together").addEventListener("change", () => this.follow(this.panes[0]));
    addEventListener("hashchange", () => this.followAddress());
    if (matchMedia(NARROW).matches) find("list").open = false;
    this.head();
    this.take();
    this.drop = new Drop(results.scoring, (numbers) => this.scored(numbers));
    this.followAddress();
  }

  head() {
    const { title, summary, calibrated, planted, report, tables, asked, learned, calibration } = this.results;
    document.title = `${title}: priorlens view`;
    find("title").textContent = title;
    const labels = [
      ["Research software, not a medical device", true],
      ["uncalibrated: no p-values, no verdicts", !calibrated],
      ["lesions planted", planted],
    ];
    find("labels").replaceChildren(...labels.filter(([, holds]) => holds).map(([words]) => element("span", { textContent: words })));
    find("summary").replaceChildren(element("p", { textContent: summary.join(" ") }));
    const links = tables.map((name) =>
      element("a", { href: `/api/tables/${encodeURIComponent(name)}`, textContent: name, download: name }));
    if (report) links.unshift(element("a", { href: "/report", textContent: "Report", target: "_blank" }));
    find("links").replaceChildren(...links.map((link) => element("li", {}, link)));
    const parts = [["What was asked", asked], ["What it learned from", learned], ["Calibration", calibration]];
    find("about").replaceChildren(...parts.filter(([, pairs]) => pairs.length).map(([heading, pairs]) =>
      element("div", {}, element("h2", { textContent: heading }), facts(pairs))));
  }

  take() {
    this.cases.take(this.results.cases);
    for (const pane of this.panes) pane.offer(this.results.cases);
  }

  get side() {
    return Math.min(Number(document.querySelector("#side input:checked").value), this.panes.length - 1);
  }

  /** Opens a case on one side; the address tells so. */
  open(number, side) {
    if (!this.results.cases.some((one) => one.number === number)) return;
    const narrow = matchMedia(NARROW).matches && find("list").open;
    while (this.panes.length <= side) this.addPane();
    this.panes[side].open(number, this.results.planted);
    this.tellAddress();
    this.cases.mark(this.panes.map((one) => one.number));
    if (!narrow) return;
    find("list").open = false;
    this.panes[side].find("h2").focus();
  }

  addPane() {
    const pane = new Pane({
      opened: (number) => this.open(number, this.panes.indexOf(pane)),
      moved: () => this.follow(pane),
      step: (by) => {
        const number = this.cases.beside(pane.number, by);
        if (number !== undefined) this.open(number, this.panes.indexOf(pane));
      },
      shut: () => this.removePane(pane),
      where: () => this.together && this.panes.find((one) => one !== pane)?.bearings,
    });
    this.panes.push(pane);
    find("panes").append(pane.place);
    pane.offer(this.results.cases);
    this.arrange();
  }

  removePane(pane) {
    pane.close();
    this.panes = this.panes.filter((one) => one !== pane);
    this.arrange();
    this.tellAddress();
    this.cases.mark(this.panes.map((one) => one.number));
    find("compare").focus();
  }

  arrange() {
    const two = this.panes.length > 1;
    find("panes").classList.toggle("two", two);
    find("compare").setAttribute("aria-pressed", String(two));
    find("together").hidden = find("side").hidden = !two;
    const sides = two ? ["Left case", "Right case"] : ["Case"];
    this.panes.forEach((pane, at) => {
      pane.place.setAttribute("aria-label", sides[at]);
      pane.find(".shut").hidden = !two;
    });
  }

  /** A second case beside the first: the next one of the list. */
  compare() {
    if (this.panes.length > 1) return this.removePane(this.panes[1]);
    const first = this.panes[0]?.number;
    const second = this.cases.beside(first, 1) ?? this.cases.beside(first, -1) ?? first;
    if (second === undefined || second === null) return;
    this.open(second, 1);
    document.querySelector("#side input[value='1']").checked = true;
  }

  get together() {
    return this.panes.length > 1 && find("together").querySelector("input").checked;
  }

  /** The other pane goes where this one went. */
  follow(pane) {
    if (this.together) this.panes.find((one) => one !== pane).follow(pane.bearings);
  }

  tellAddress() {
    const [first, second] = this.panes.map((one) => one.number);
    const told = `#case=${first}${second === undefined ? "" : `&compare=${second}`}`;
    if (location.hash !== told) history.replaceState(null, "", told);
  }

  followAddress() {
    const told = new URLSearchParams(location.hash.slice(1));
    const number = (name) => (/^\d+$/.test(told.get(name) ?? "") ? Number(told.get(name)) : undefined);
    const known = (one) => this.results.cases.some((line) => line.number === one);
    const wanted = [number("case"), number("compare")].filter(known);
    if (!wanted.length && !this.panes.length && this.results.cases.length) wanted.push(this.results.cases[0].number);
    if (wanted.length === 1 && this.panes.length > 1) this.removePane(this.panes[1]);
    wanted.forEach((one, side) => this.panes[side]?.number === one || this.open(one, side));
  }

  async scored(numbers) {
    this.results = await api.results();
    this.head();
    this.take();
    this.open(numbers[0], 0);
    this.panes[0].find("h2").focus();
  }
}

try {
  const results = await api.results();
  new App(results);
  find("failed").hidden = results.cases.length > 0;
  find("failed").textContent = "There are no cases among these results.";
} catch (error) {
  find("failed").hidden = false;
  find("failed").textContent = error instanceof api.Refused ? error.message : `This page could not start: ${error.message}`;
  if (!(error instanceof api.Refused)) throw error;
}
