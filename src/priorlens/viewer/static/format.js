// Numbers as a reader sees them, the same in every country: the report writes them so too.

/** Three significant digits, a decimal point, no separators; a dash where there is no number. */
export function shown(value, digits = 3) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

/** The number that someone typed, with a decimal point or a decimal comma; NaN where it is none. */
export function typed(words) {
  const plain = words.trim().replace("−", "-").replace(",", ".");
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}

/** "1 case", "2 cases". */
export function counted(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** Bytes in the unit that people know: 25 MB. */
export function bytes(number) {
  if (number >= 1e9) return `${shown(number / 1e9)} GB`;
  return number >= 1e6 ? `${shown(number / 1e6)} MB` : `${shown(number / 1e3)} kB`;
}
