// Small pieces of the page. Names come from files and DICOM tags: they become text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (className, textContent, ...) and what it holds: elements or words. */
export function element(name, properties = {}, ...held) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...held);
  return made;
}

/** An element of a drawing, with attributes. */
export function drawn(name, attributes = {}, words = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = words;
  return made;
}

/** A list of names and what is said of them. */
export function facts(pairs) {
  return element("dl", {}, ...pairs.flatMap(([name, words]) => [
    element("dt", { textContent: name }), element("dd", { textContent: words }),
  ]));
}

/** Calls `act` at most once a frame, with what was asked for last. */
export function onceAFrame(act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; act(); });
  };
}
