// What is said of a case beside its picture. The sentences come from the server, which the report takes them from too.

import { shown } from "./format.js";
import { element, facts } from "./page.js";

/** Writes what is known of a case into a pane; `find` looks there, goTo(position) is what a region's button does. */
export function tell(find, told, planted, goTo) {
  const status = element("span", { className: `status-${told.status}`, textContent: told.status });
  const more = [told.kind && `kind: ${told.kind}`, told.patient && `patient: ${told.patient}`, told.dropped && "dropped here"];
  if (planted && told.kind && told.kind !== "good") more.push("lesion planted");
  find("h2").textContent = told.name;
  find(".what").replaceChildren(status, ...more.filter(Boolean).map((one) => ` · ${one}`));
  find(".verdict").textContent = [told.verdict_words, told.place_words].filter(Boolean).join(" ");
  find(".error").hidden = !told.error;
  find(".error").textContent = told.error || "";
  find(".truth-words").textContent = planted ? "planted lesion" : "truth";
  tellRegions(find, told, goTo);
  find(".spectrum").hidden = !told.spectrum_words;
  find(".spectrum p").textContent = told.spectrum_words || "";
  const figures = told.anomaly === null ? told.figures : [["anomaly", told.anomaly], ...told.figures];
  find(".figures").hidden = !figures.length;
  find(".figures").replaceChildren(
    element("summary", { textContent: "Figures" }), facts(figures.map(([name, value]) => [name, shown(value, 5)])),
  );
}

function tellRegions(find, { regions_found: found, region_words: words }, goTo) {
  find(".found").hidden = !words && !found.length;
  const said = [words, found.some((one) => one.position) && "A button goes there."];
  find(".region-words").textContent = said.filter(Boolean).join(" ");
  find(".regions").replaceChildren(...found.map((one) => {
    const figures = [one.size, `peak ${shown(one.peak)}`, one.q_value === null ? "" : `q = ${shown(one.q_value)}`];
    const held = [
      element("strong", { textContent: `Region ${one.number}` }),
      element("span", { textContent: one.centre }),
      element("span", { className: "quiet", textContent: figures.filter(Boolean).join(", ") }),
    ];
    if (!one.position) return element("li", {}, ...held);
    const button = element("button", { type: "button", className: "button region" }, ...held);
    button.addEventListener("click", () => goTo(one.position));
    return element("li", {}, button);
  }));
}
