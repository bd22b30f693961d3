// The window of an image: which values are black, which white.

const SAMPLE = 200_000;

/** The 0.5 and 99.5 percentile of one channel in its own units, as pictures of the report are shown, and its ends. */
export function spread(volume, channel = 0) {
  const { img, nVox3D, hdr } = volume, step = Math.max(1, Math.floor(nVox3D / SAMPLE));
  const own = (raw) => raw * hdr.scl_slope + hdr.scl_inter;
  const found = [];
  for (let at = channel * nVox3D; at < Math.min((channel + 1) * nVox3D, img.length); at += step)
    if (Number.isFinite(img[at])) found.push(img[at]);
  found.sort((a, b) => a - b);
  if (!found.length) return { low: 0, high: 1, least: 0, most: 1 };
  const at = (share) => own(found[Math.min(Math.floor(share * found.length), found.length - 1)]);
  const least = at(0), most = Math.max(at(1), least + 1e-6);
  const low = at(0.005), high = at(0.995);
  return high > low ? { low, high, least, most } : { low: least, high: most, least, most };
}

/** Pictures in colour have no window. */
export const inColour = (volume) => [128, 2304].includes(volume.hdr.datatypeCode);

/** An image that was stored as it is seen, 0 black and 255 white, is shown so. */
export const AS_STORED = { low: 0, high: 255, least: 0, most: 255 };
