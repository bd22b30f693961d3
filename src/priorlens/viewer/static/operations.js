// The page of the API, from the server's own description of itself.

import { element } from "./page.js";

/** A schema in a few words: "Line or null", "list of number". */
function words(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const many = schema.anyOf ?? schema.oneOf;
  if (many) return many.map(words).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (schema.type === "array") return `list of ${schema.prefixItems ? `(${schema.prefixItems.map(words).join(", ")})` : words(schema.items)}`;
  return schema.format ?? schema.type ?? "anything";
}

function operation(path, method, told) {
  const answers = Object.entries(told.responses ?? {}).map(([code, { description, content = {} }]) => {
    const [type, { schema } = {}] = Object.entries(content)[0] ?? [];
    const form = schema && Object.keys(schema).length ? words(schema) : type;
    return element("li", {}, element("code", { textContent: code }), ` ${[description, form].filter(Boolean).join(": ")}`);
  });
  const takes = (told.parameters ?? []).map((one) => {
    const said = [`in the ${one.in}`, words(one.schema), one.required ? "" : "may be left out", one.description];
    return element("li", {}, element("code", { textContent: one.name }), ` ${said.filter(Boolean).join(", ")}`);
  });
  return element("section", { className: "operation" },
    element("h2", {}, element("code", { textContent: `${method.toUpperCase()} ${path}` })),
    element("p", { textContent: told.description ?? told.summary ?? "" }),
    ...(takes.length ? [element("p", { textContent: "Takes" }), element("ul", {}, ...takes)] : []),
    element("p", { textContent: "Answers" }), element("ul", {}, ...answers));
}

function form(name, schema) {
  const parts = Object.entries(schema.properties ?? {}).flatMap(([part, told]) => [
    element("dt", {}, element("code", { textContent: part })),
    element("dd", { textContent: [words(told), told.description].filter(Boolean).join(": ") }),
  ]);
  return element("details", {}, element("summary", { textContent: name }),
    element("p", { textContent: schema.description ?? "" }), element("dl", {}, ...parts));
}

try {
  const told = await (await fetch("/openapi.json")).json();
  document.getElementById("operations").replaceChildren(...Object.entries(told.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => operation(path, method, one))));
  document.getElementById("schemas").replaceChildren(...Object.entries(told.components?.schemas ?? {}).map(([name, one]) => form(name, one)));
} catch {
  document.getElementById("failed").hidden = false;
  document.getElementById("failed").textContent = "The server does not answer: is priorlens view still running?";
}
