"use strict";
(() => {
  const table = document.querySelector("table.cases");
  if (!table) return;
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const search = document.getElementById("search"), count = document.getElementById("count");
  const filters = [...document.querySelectorAll("select[data-column]")];
  const column = (name) => headings.findIndex((one) => one.dataset.name === name);
  const shown = () => [...body.rows].filter((row) => !row.hidden);
  const value = (row, index) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const row of rows) {
      const named = value(row, 0).toLowerCase().includes(wanted);
      row.hidden = !(named && filters.every((one) => !one.value || value(row, column(one.dataset.column)) === one.value));
    }
    count.textContent = `${shown().length} of ${rows.length} cases shown`;
  }

  function sort(heading) {
    const down = heading.getAttribute("aria-sort") === "ascending", index = headings.indexOf(heading);
    const numeric = heading.classList.contains("number");
    const compare = (a, b) => {
      const x = value(a, index), y = value(b, index);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
      return down ? -order : order;
    };
    headings.forEach((one) => one.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  }

  // A spreadsheet takes text that begins so for a formula.
  const safe = (text, numeric) => (!numeric && /^[=+\-@\t\r]/.test(text) ? "'" + text : text);
  const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);

  function lines(separator, quote) {
    const cells = (row) => headings.map((one, i) => quote(safe(value(row, i), one.classList.contains("number"))));
    return [headings.map((one) => one.dataset.name), ...shown().map(cells)].map((row) => row.join(separator));
  }

  async function copy() {
    const text = lines("\t", (cell) => cell.replace(/[\t\r\n]+/g, " ")).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    count.textContent = `${shown().length} cases copied, for a spreadsheet`;
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines(",", quoted).join("\n") + "\n"], { type: "text/csv" }));
    link.download = "cases.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  search.addEventListener("input", filter);
  filters.forEach((one) => one.addEventListener("change", filter));
  headings.forEach((one) => one.querySelector("button").addEventListener("click", () => sort(one)));
  document.getElementById("copy").addEventListener("click", copy);
  document.getElementById("download").addEventListener("click", download);
  document.querySelector(".controls").hidden = false;

  filter();

  // A case is told in a dialog, by the address #case-17: links, the history and reloading all lead there.
  const dialog = document.querySelector("dialog");
  if (!dialog) return;
  const content = dialog.querySelector(".content");
  const [previous, next, close] = ["previous", "next", "close"].map((name) => document.getElementById(name));
  let current = null;

  function open() {
    const row = /^#case-\d+$/.test(location.hash) ? document.getElementById(location.hash.slice(1)) : null;
    const told = row && document.getElementById("told-" + row.id.slice(5));
    if (!told) return dialog.open && dialog.close();
    content.replaceChildren(told.content.cloneNode(true));
    current = row;
    const order = shown(), at = order.indexOf(row);
    previous.disabled = at <= 0;
    next.disabled = at < 0 || at === order.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    content.querySelector("h2").focus();
  }

  function step(by) {
    const order = shown(), row = order[order.indexOf(current) + by];
    if (row) location.replace("#" + row.id);
  }

  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#case-")) history.replaceState(null, "", "#cases");
    const link = current && current.querySelector("a");
    if (link) link.focus();
    current = null;
  });
  addEventListener("hashchange", open);
  open();
})();
