import type { CellRows } from './cell_rows';
import { CellParts, roomFor, segmentsOf, type Part, type Region, type Runs, type Segment } from './cell_parts';
import { Enlarger } from './enlarge';
import { Highest, STEPS } from './highest';

// A high quantile needs only the highest pixels. Between four neighbours of a map, a patch, linear enlarging stays below the highest of
// them, so patches are enlarged from the highest on, until no other can hold a pixel that counts. Exact, whatever the map.

/** More than float32 rounds by, as a factor. */
const ROUNDING = 1 + 1e-6;
/** Within a patch a row is a straight line; one that rises by less than this share is not told from a level one. */
const STEEP = 1e-4;

/** Quantiles of a map enlarged to the size of a mask: over all of it, and over each of its cells. */
export class EnlargedQuantiles {
  readonly #enlarger: Enlarger;
  readonly #map: [h: number, w: number];
  readonly #width: number;
  readonly #columns: number;
  /** From a value of the enlarger's `wide` to the one below it. */
  readonly #below: number;
  /** The highest value of each patch. */
  readonly #bounds: Float32Array;
  /** The same as whole numbers: bits of floats that are not negative are ordered as they are. */
  readonly #order: Uint32Array;
  readonly #image: Region;
  readonly #imageRuns: Runs;
  #cells: Region[] = [];
  #cellRuns = roomFor(0);
  readonly #highest: Highest;
  readonly #segments: Segment[];
  /** Which segment a column lies in. */
  readonly #segmentAt: Uint32Array;

  /** @param map [h, w]; @param size [H, W] of the masks, at least as large as the map */
  constructor(map: [h: number, w: number], [height, width]: [height: number, width: number]) {
    this.#enlarger = new Enlarger(...map, height, width);
    this.#map = map;
    this.#width = width;
    const [rows, columns] = map.map((n) => Math.max(1, n - 1)) as [number, number];
    this.#columns = columns;
    this.#below = map[0] > 1 ? width : 0;
    this.#bounds = new Float32Array(rows * columns);
    this.#order = new Uint32Array(this.#bounds.buffer);
    this.#highest = new Highest(height * width);
    this.#segments = segmentsOf(this.#enlarger.across);
    this.#segmentAt = new Uint32Array(width);
    this.#segments.forEach(({ start, end }, k) => this.#segmentAt.fill(k, start, end));
    [this.#image, this.#imageRuns] = this.#wholeImage(height, this.#segments);
  }

  /** Whether it was made for these sizes. */
  fits([h, w]: [h: number, w: number], [height, width]: [height: number, width: number]): boolean {
    return (
      this.#map[0] === h && this.#map[1] === w && this.#enlarger.down.near.length === height && this.#width === width
    );
  }

  #wholeImage(height: number, segments: Segment[]): [Region, Runs] {
    const { near } = this.#enlarger.down;
    const runs = roomFor(height * segments.length);
    const parts: Part[] = [];
    let run = 0;
    for (let top = 0, bottom = 0; top < height; top = bottom) {
      while (bottom < height && near[bottom] === near[top]) bottom++;
      for (const { patch, start, end } of segments) {
        parts.push({ patch: near[top]! * this.#columns + patch, first: run, end: run + bottom - top });
        for (let y = top; y < bottom; y++, run++) {
          runs.row[run] = y;
          runs.column[run] = start;
          runs.length[run] = end - start;
        }
      }
    }
    return [{ pixels: height * this.#width, parts, keys: new Float64Array(parts.length) }, runs];
  }

  /** Takes over the cells of a mask, in the place of those before. */
  setCells(rows: CellRows): void {
    const { near } = this.#enlarger.down;
    const split = new CellParts(rows, near, this.#segments, this.#segmentAt, this.#columns).split();
    [this.#cells, this.#cellRuns] = split;
  }

  /** Takes over a map of h * w values from 0 to 1. */
  take(cam: Float32Array): void {
    this.#enlarger.widen(cam);
    const [h, w] = this.#map;
    const [down, right] = [h > 1 ? w : 0, w > 1 ? 1 : 0];
    for (let patch = 0; patch < this.#bounds.length; patch++) {
      const at = Math.floor(patch / this.#columns) * w + (patch % this.#columns);
      this.#bounds[patch] = Math.max(cam[at]!, cam[at + right]!, cam[at + down]!, cam[at + down + right]!);
    }
  }

  /** The quantile over the whole image. */
  ofImage(quantile: number): number {
    return this.#quantile(this.#image, this.#imageRuns, quantile, true);
  }

  /** A step that the `needed` highest values of the image probably reach, by a sample of its pixels. */
  #guess(needed: number): number {
    const { wide, down } = this.#enlarger;
    const steps = this.#highest.steps.fill(0);
    const width = this.#width;
    const height = down.near.length;
    for (let y = SAMPLE >> 1; y < height; y += SAMPLE) {
      const share = down.share[y]!;
      const from = down.near[y]! * width;
      for (let i = from + (SAMPLE >> 1); i < from + width; i += SAMPLE) {
        const value = wide[i]! * (1 - share) + wide[i + this.#below]! * share;
        steps[(value * STEPS) | 0]! += 1;
      }
    }
    const enough = (1.25 * needed) / SAMPLE ** 2 + 6;
    let step = STEPS;
    for (let sum = steps[step]!; step > 0 && sum < enough; sum += steps[step]!) step--;
    return step;
  }

  /** The quantile over each cell, by ascending cell number. */
  ofCells(quantile: number): number[] {
    return this.#cells.map((cell) => this.#quantile(cell, this.#cellRuns, quantile));
  }

  #quantile(region: Region, runs: Runs, quantile: number, isImage = false): number {
    const place = (region.pixels - 1) * quantile;
    const needed = region.pixels - Math.floor(place);
    const highest = this.#highest;
    highest.begin(needed, isImage ? this.#guess(needed) : 0);
    if (highest.floor > 0) for (const part of region.parts) this.#enlarge(part, runs);
    if (highest.floor === 0 || !highest.isEnough()) {
      highest.begin(needed, 0);
      this.#gather(region, runs);
    }
    return highest.result(place - Math.floor(place));
  }

  /** The highest parts first. */
  #gather(region: Region, runs: Runs): void {
    const [bounds, highest] = [this.#bounds, this.#highest];
    const { parts, keys } = region;
    const count = parts.length;
    sortByBound(region, this.#order);
    for (let i = keys.length - 1; i >= 0; i--) {
      const key = keys[i]!;
      const part = parts[key - Math.floor(key / count) * count]!;
      const bound = bounds[part.patch]!;
      if (bound < highest.floor) break;
      if (bound === 0) {
        highest.fillUp(); // as all that is left
        break;
      }
      this.#enlarge(part, runs);
    }
  }

  /** Takes over a part, from its higher end on: what comes later is then mostly too low. */
  #enlarge({ patch, first, end }: Part, { row, column, length }: Runs): void {
    const { wide, down } = this.#enlarger;
    const [highest, width, below] = [this.#highest, this.#width, this.#below];
    if (this.#bounds[patch]! < highest.floor) return;
    const { values, steps } = highest;
    const up = this.#peak(first, row, column, length) >= this.#peak(end - 1, row, column, length) ? 1 : -1;
    let { floor, count } = highest;
    for (let left = end - first, run = up > 0 ? first : end - 1; left > 0; left--, run += up) {
      const y = row[run]!;
      const share = down.share[y]!;
      const rest = 1 - share;
      let i = down.near[y]! * width + column[run]!;
      let last = i + length[run]! - 1;
      const start = wide[i]! * rest + wide[i + below]! * share;
      const stop = wide[last]! * rest + wide[last + below]! * share;
      const higher = start > stop ? start : stop;
      if (higher * ROUNDING < floor) continue;
      const rise = stop - start;
      if (floor > 0 && Math.abs(rise) > STEEP * higher) {
        // Pixels on the low side of where the run crosses the floor, less one.
        const low = Math.floor(((floor - (rise > 0 ? start : stop)) / Math.abs(rise)) * (last - i)) - 1;
        if (low > 0 && rise > 0) i += low;
        else if (low > 0) last -= low;
      }
      for (; i <= last; i++) {
        const value = Math.fround(wide[i]! * rest + wide[i + below]! * share);
        if (value < floor) continue;
        values[count++] = value;
        steps[(value * STEPS) | 0]! += 1;
      }
      if (count > highest.count) floor = highest.added(count);
    }
  }

  /** The higher end of a run. */
  #peak(run: number, row: Uint32Array, column: Uint32Array, length: Uint32Array): number {
    const { wide, down } = this.#enlarger;
    const share = down.share[row[run]!]!;
    const at = down.near[row[run]!]! * this.#width + column[run]!;
    const value = (i: number): number => wide[i]! * (1 - share) + wide[i + this.#below]! * share;
    return Math.max(value(at), value(at + length[run]! - 1));
  }
}

/** Fills `keys`, ascending by the bound of a part's patch; a key modulo the number of parts is the part's place. */
function sortByBound({ parts, keys }: Region, order: Uint32Array): void {
  const count = parts.length;
  for (let i = 0; i < count; i++) keys[i] = order[parts[i]!.patch]! * count + i;
  if (count > SHORT) {
    keys.sort();
    return;
  }
  for (let i = 1; i < count; i++) {
    const key = keys[i]!;
    let at = i;
    for (; at > 0 && keys[at - 1]! > key; at--) keys[at] = keys[at - 1]!;
    keys[at] = key;
  }
}

/** Every so many pixels along both axes one is looked at for a guess. */
const SAMPLE = 12;
/** Up to so many keys are sorted by insertion. */
const SHORT = 40;
