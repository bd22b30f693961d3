// What the server is asked. docs: the page /api lists the same operations.

/** A refusal, in the server's own words. */
export class Refused extends Error {}

async function answer(address, options = {}) {
  let found;
  try {
    found = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer: is priorlens view still running?");
  }
  if (found.ok) return found;
  const told = await found.json().catch(() => null);
  throw new Refused(typeof told?.detail === "string" ? told.detail : `The server answered ${found.status}.`);
}

// The server refuses to change anything without this header, which no other site can send.
const change = (method, address, { headers, ...more } = {}) =>
  answer(address, { method, headers: { "X-Priorlens": "view", ...headers }, ...more });

export const results = async () => (await answer("/api/results")).json();

export const toldCase = async (number, signal) => (await answer(`/api/cases/${number}`, { signal })).json();

/** The bytes of a layer, unpacked: a NIfTI file. */
export async function layer(address, signal) {
  const found = await answer(address, { signal });
  const packed = new Uint8Array(await found.arrayBuffer());
  if (packed[0] !== 0x1f || packed[1] !== 0x8b) return packed.buffer;
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).arrayBuffer();
}

export const openDrop = async () => (await (await change("POST", "/api/drops")).json()).drop;

export const sendFile = (drop, name, file, signal) =>
  change("POST", `/api/drops/${drop}/files`, { body: file, headers: { "X-File-Name": encodeURIComponent(name) }, signal });

export const startDrop = (drop) => change("POST", `/api/drops/${drop}/start`);

export const dropState = async (drop) => (await answer(`/api/drops/${drop}`)).json();

export const cancelDrop = (drop) => change("DELETE", `/api/drops/${drop}`);
