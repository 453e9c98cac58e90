// Around the networks at full size: fields shrunk to a quarter, maps brought back, as HPA-Cell-Segmentation's CellSegmentator does.
import { resizeImage } from '../data/resize';
import type { NdArray } from '../options';
import { areaPositions, roundHalfEven, type AreaPositions } from './inter_area';

export const FULL_SCALE = 0.25;
const MULTIPLE = 32;

/** An input of the network and how it was made. */
export interface ShrunkField {
  /** (1, 3, h, w), sides multiples of 32. */
  images: NdArray<Float32Array>;
  /** Rows and columns that were added before the image, and its size without them. */
  offset: [rows: number, columns: number];
  size: [height: number, width: number];
}

/** Position i of a line of n pixels that goes on mirrored, its ends repeated. */
function mirrored(i: number, n: number): number {
  const at = ((i % (2 * n)) + 2 * n) % (2 * n);
  return at < n ? at : 2 * n - 1 - at;
}

/** (h, w, 3) to planes with 32 pixels or more around it, mirrored; nothing is added where both sides are multiples of 32. */
function padded(image: NdArray<Float32Array>): ShrunkField {
  const [h, w] = image.shape as [number, number];
  const pads = h % MULTIPLE !== 0 || w % MULTIPLE !== 0;
  const offset = pads ? MULTIPLE : 0;
  const [height, width] = pads ? [h, w].map((n) => offset + n + MULTIPLE - (n % MULTIPLE)) : [h, w];
  const data = new Float32Array(3 * height! * width!);
  for (let y = 0, i = 0; y < height!; y++) {
    for (let x = 0; x < width!; x++, i++) {
      const from = 3 * (mirrored(y - offset, h) * w + mirrored(x - offset, w));
      for (let c = 0; c < 3; c++) data[c * height! * width! + i] = image.data[from + c]!;
    }
  }
  return { images: { data, shape: [1, 3, height!, width!] }, offset: [offset, offset], size: [h, w] };
}

/** @param planes three of one size, values 0…1 */
export function shrinkField(planes: Float32Array[], [height, width]: [number, number]): ShrunkField {
  const stack = new Float32Array(3 * height * width);
  planes.forEach((plane, c) => {
    for (let i = 0; i < plane.length; i++) stack[3 * i + c] = plane[i]!;
  });
  const size = [height, width].map((n) => Math.max(1, roundHalfEven(n * FULL_SCALE))) as [number, number];
  return padded(resizeImage({ data: stack, shape: [height, width, 3] }, size));
}

/** One class of (3, h, w) probabilities, without padding, enlarged; as bytes, channel c of (H, W, 3). */
function enlarge(
  from: Float32Array,
  width: number,
  rows: AreaPositions,
  columns: AreaPositions,
  out: Uint8Array,
): void {
  const wide = columns.source.length;
  for (let y = 0, at = 0; y < rows.source.length; y++) {
    const upper = rows.source[y]! * width;
    const below = rows.rest[y]! > 0 ? upper + width : upper;
    for (let x = 0; x < wide; x++, at += 3) {
      const left = columns.source[x]!;
      const right = columns.rest[x]! > 0 ? left + 1 : left;
      const [u, v] = [columns.rest[x]!, rows.rest[y]!];
      const top = from[upper + left]! * (1 - u) + from[upper + right]! * u;
      const bottom = from[below + left]! * (1 - u) + from[below + right]! * u;
      out[at] = toByte(top * (1 - v) + bottom * v);
    }
  }
}

/** A probability as the networks' maps hold it: 255·p in float32, halves to even. */
export function toByte(p: number): number {
  return roundHalfEven(Math.fround(Math.fround(p) * 255));
}

/**
 * Probabilities (1, 3, h, w) of a shrunk field as bytes (height, width, 3) of the field itself; the background is left out. A field that is
 * not square stays as it is: the original swaps its sides.
 */
export function enlargeMaps(
  probabilities: NdArray<Float32Array>,
  shrunk: ShrunkField,
  [height, width]: [number, number],
): NdArray<Uint8Array> {
  const [, , h, w] = probabilities.shape as [number, number, number, number];
  const data = new Uint8Array(height * width * 3);
  const rows = areaPositions(shrunk.size[0], height);
  const columns = areaPositions(shrunk.size[1], width);
  const start = shrunk.offset[0] * w + shrunk.offset[1];
  for (const c of [1, 2]) {
    enlarge(probabilities.data.subarray(c * h * w + start, (c + 1) * h * w), w, rows, columns, data.subarray(c));
  }
  return { data, shape: [height, width, 3] };
}
