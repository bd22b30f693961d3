// Files that someone drops or chooses are sent to the server, which scores them.

import * as api from "./api.js";
import { bytes, counted } from "./format.js";

const PAUSE = 400;
const ENDS = ["done", "failed", "cancelled"];

/** Of each file dropped, folders opened, its path and itself. Has to be called while the event lasts. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ name: file.name, file }));
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) return found.push({ name: path + entry.name, file: await new Promise((yes, no) => entry.file(yes, no)) });
    const reader = entry.createReader();
    // A folder is read in parts, until a part is empty.
    for (let part; (part = await new Promise((yes, no) => reader.readEntries(yes, no))).length; )
      for (const one of part) await walk(one, `${path}${entry.name}/`);
  };
  for (const entry of entries) await walk(entry, "");
  return found;
}

const chosen = (input) => [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

export class Drop {
  /** scoring: what the API says of it; scored(numbers): what to do with new cases. */
  constructor(scoring, scored) {
    this.scoring = scoring;
    this.scored = scored;
    this.find = (name) => document.getElementById(name);
    this.find("drop-tools").hidden = !scoring.possible;
    this.find("why-not").hidden = scoring.possible;
    this.find("why-not").textContent = scoring.why_not;
    if (!scoring.possible) return;
    this.find("limits").textContent = `${scoring.suffixes.filter(Boolean).join(", ")}; at most ${bytes(scoring.most_bytes)} together.`;
    for (const name of ["files", "folder"])
      this.find(name).addEventListener("change", (event) => { this.send(chosen(event.target)); event.target.value = ""; });
    this.find("cancel").addEventListener("click", () => this.cancel());
    this.watchPage();
  }

  watchPage() {
    const zone = this.find("zone"), ours = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => { if (ours(event)) { event.preventDefault(); zone.hidden = false; } });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) zone.hidden = true; });
    addEventListener("drop", async (event) => {
      if (!ours(event)) return;
      event.preventDefault();
      zone.hidden = true;
      this.send(await dropped(event.dataTransfer));
    });
  }

  tell(words, done = 0, total = 0) {
    this.find("drop-state").hidden = false;
    this.find("drop-words").textContent = words;
    const bar = this.find("progress");
    if (total) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
  }

  end(error = "") {
    this.underWay = null;
    this.find("drop-state").hidden = true;
    this.find("drop-error").hidden = !error;
    this.find("drop-error").textContent = error;
  }

  /** Sends files and waits until they are scored. */
  async send(files) {
    if (!files.length || this.underWay) return;
    const size = files.reduce((sum, { file }) => sum + file.size, 0), most = this.scoring.most_bytes;
    if (size > most) return this.end(`Too large to be sent: ${bytes(size)} where at most ${bytes(most)} are taken, all files together.`);
    this.end();
    const underWay = (this.underWay = { sending: new AbortController(), drop: null });
    const { signal } = underWay.sending;
    try {
      this.tell(`Sending ${counted(files.length, "file")}`);
      underWay.drop = await api.openDrop();
      for (const [at, { name, file }] of files.entries()) {
        signal.throwIfAborted();
        this.tell(`Sending ${name}`, at, files.length);
        await api.sendFile(underWay.drop, name, file, signal);
      }
      await api.startDrop(underWay.drop);
      await this.follow(underWay);
    } catch (error) {
      if (underWay.drop !== null) api.cancelDrop(underWay.drop).catch(() => {});
      this.end(signal.aborted ? "Cancelled." : error.message);
    }
  }

  async follow({ drop, sending }) {
    for (;;) {
      const state = await api.dropState(drop);
      sending.signal.throwIfAborted();
      if (ENDS.includes(state.state)) {
        this.end(state.state === "done" ? "" : state.words);
        if (state.cases.length) await this.scored(state.cases);
        return;
      }
      this.tell(state.words, state.done, state.total);
      await new Promise((go) => setTimeout(go, PAUSE));
    }
  }

  cancel() {
    this.underWay?.sending.abort();
  }
}
