import type { NdArray } from '../options';
import { type Axis, Enlarger } from './enlarge';
import { between } from './quantile';

// A high quantile needs only the highest pixels. Between four neighbours of a map, a patch, linear enlarging stays below the highest of
// them, so patches are enlarged from the highest on, until no other can hold a pixel that counts. Exact, whatever the map.

/** More than float32 rounds by, as a factor. */
const ROUNDING = 1 + 1e-6;
/** Within a patch a row is a straight line; one that rises by less than this share is not told from a level one. */
const STEEP = 1e-4;

/** Runs of pixels within a row, a region and a patch; of one region and patch they follow each other. */
interface Runs {
  start: Uint32Array;
  length: Uint32Array;
}

/** The part of a region in one patch: runs from `first` to `end`. */
interface Part {
  patch: number;
  first: number;
  end: number;
}

interface Region {
  pixels: number;
  parts: Part[];
}

/** The places of `keys` in ascending order of their keys, equal ones as in `order`: a counting sort. */
function sortedBy(keys: Uint32Array, order: Uint32Array): Uint32Array {
  let last = 0;
  for (const place of order) if (keys[place]! > last) last = keys[place]!;
  const next = new Uint32Array(last + 2);
  for (const place of order) next[keys[place]! + 1]! += 1;
  for (let key = 1; key <= last; key++) next[key]! += next[key - 1]!;
  const sorted = new Uint32Array(order.length);
  for (const place of order) sorted[next[keys[place]!]!++] = place;
  return sorted;
}

/** Runs as they are found. */
class RunList {
  #length = 0;
  #rows = new Uint32Array(4 * 4096);

  add(region: number, patch: number, start: number, pixels: number): void {
    const at = 4 * this.#length++;
    if (at === this.#rows.length) {
      const larger = new Uint32Array(2 * at);
      larger.set(this.#rows);
      this.#rows = larger;
    }
    this.#rows[at] = region;
    this.#rows[at + 1] = patch;
    this.#rows[at + 2] = start;
    this.#rows[at + 3] = pixels;
  }

  /** The runs by region, then by patch, and what each region has. */
  grouped(): [Region[], Runs] {
    const column = (k: number): Uint32Array => {
      const values = new Uint32Array(this.#length);
      for (let i = 0; i < values.length; i++) values[i] = this.#rows[4 * i + k]!;
      return values;
    };
    const [region, patch, start, length] = [column(0), column(1), column(2), column(3)];
    const places = new Uint32Array(this.#length);
    for (let i = 0; i < places.length; i++) places[i] = i;
    const order = sortedBy(region, sortedBy(patch, places));
    const runs = { start: taken(start, order), length: taken(length, order) };
    return [regionsOf(taken(region, order), taken(patch, order), runs.length), runs];
  }
}

function taken(values: Uint32Array, order: Uint32Array): Uint32Array {
  const out = new Uint32Array(order.length);
  for (let i = 0; i < out.length; i++) out[i] = values[order[i]!]!;
  return out;
}

/** What regions have, of runs in order. */
function regionsOf(region: Uint32Array, patch: Uint32Array, length: Uint32Array): Region[] {
  const regions: Region[] = [];
  for (let i = 0; i < region.length; i++) {
    const isNew = i === 0 || region[i] !== region[i - 1];
    if (isNew) regions.push({ pixels: 0, parts: [] });
    const own = regions.at(-1)!;
    if (isNew || patch[i] !== patch[i - 1]) own.parts.push({ patch: patch[i]!, first: i, end: i });
    own.parts.at(-1)!.end = i + 1;
    own.pixels += length[i]!;
  }
  return regions;
}

/** Steps of the floor between 0 and 1; a power of two, so that nothing is rounded. */
const STEPS = 1024;

/** The highest of the values from 0 to 1 that come: those that can be among the `needed` highest, and some more. */
class Highest {
  readonly values: Float32Array;
  count = 0;
  /** What is below cannot be among the needed ones any more. */
  floor = 0;
  /** How many values lie in each step. */
  readonly steps = new Uint32Array(STEPS + 1);
  #needed = 0;
  #step = 0;
  #kept = 0; // values from the floor on

  constructor(most: number) {
    this.values = new Float32Array(most + 1); // one is written before it is refused
  }

  begin(needed: number): void {
    this.#needed = needed;
    this.count = this.floor = this.#step = this.#kept = 0;
    this.steps.fill(0);
  }

  /** Takes over that values up to `count` were added, each counted in its step. */
  added(count: number): void {
    this.#kept += count - this.count;
    this.count = count;
    while (this.#kept - this.steps[this.#step]! >= this.#needed) this.#kept -= this.steps[this.#step++]!;
    this.floor = this.#step / STEPS;
  }

  /** Zeros, as many as are still needed. */
  fillUp(): void {
    if (this.#kept >= this.#needed) return;
    this.values.fill(0, this.count, this.count + this.#needed - this.#kept);
    this.count += this.#needed - this.#kept;
    this.#kept = this.#needed;
  }

  /** What lies `share` of the way from the needed-th highest to the next higher one. */
  result(share: number): number {
    const { values, count, floor } = this;
    let kept = 0;
    for (let i = 0; i < count; i++) if (values[i]! >= floor) values[kept++] = values[i]!;
    return between(values, 0, kept, kept - this.#needed, share);
  }
}

/** A stretch of an axis in which the enlarged map is a straight line. */
interface Segment {
  patch: number;
  start: number;
  end: number;
}

/** A patch is one segment; at the borders, where the map is mirrored, it turns back and is two. */
function segmentsOf({ near, share }: Axis): Segment[] {
  const segments: Segment[] = [];
  let rises = false;
  for (let i = 0; i < near.length; i++) {
    const last = segments.at(-1);
    const risesHere = i > 0 && share[i]! > share[i - 1]!;
    const isSecond = last !== undefined && last.end - last.start === 1;
    if (last?.patch === near[i] && (isSecond || risesHere === rises)) last!.end = i + 1;
    else segments.push({ patch: near[i]!, start: i, end: i + 1 });
    if (isSecond) rises = risesHere;
  }
  return segments;
}

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
  readonly #image: Region;
  readonly #imageRuns: Runs;
  readonly #cells: Region[] = [];
  readonly #cellRuns: Runs;
  readonly #highest: Highest;

  /** @param map [h, w]; @param cells cell numbers, 0 is background; at least as large as the map */
  constructor(map: [h: number, w: number], cells: NdArray<Uint16Array>) {
    const [height, width] = cells.shape as [number, number];
    this.#enlarger = new Enlarger(...map, height, width);
    this.#map = map;
    this.#width = width;
    const [rows, columns] = map.map((n) => Math.max(1, n - 1)) as [number, number];
    this.#columns = columns;
    this.#below = map[0] > 1 ? width : 0;
    this.#bounds = new Float32Array(rows * columns);
    this.#highest = new Highest(height * width);
    const segments = segmentsOf(this.#enlarger.across);
    [this.#image, this.#imageRuns] = this.#wholeImage(height, segments);
    this.#cellRuns = this.#findCells(cells, segments);
  }

  #wholeImage(height: number, segments: Segment[]): [Region, Runs] {
    const { near } = this.#enlarger.down;
    const runs = {
      start: new Uint32Array(height * segments.length),
      length: new Uint32Array(height * segments.length),
    };
    const parts: Part[] = [];
    let run = 0;
    for (let top = 0, bottom = 0; top < height; top = bottom) {
      while (bottom < height && near[bottom] === near[top]) bottom++;
      for (const { patch, start, end } of segments) {
        parts.push({ patch: near[top]! * this.#columns + patch, first: run, end: run + bottom - top });
        for (let y = top; y < bottom; y++, run++) {
          runs.start[run] = y * this.#width + start;
          runs.length[run] = end - start;
        }
      }
    }
    return [{ pixels: height * this.#width, parts }, runs];
  }

  #findCells({ data, shape }: NdArray<Uint16Array>, segments: Segment[]): Runs {
    const [height, width] = shape as [number, number];
    const { near } = this.#enlarger.down;
    const found = new RunList();
    for (let y = 0; y < height; y++) {
      for (const { patch, start, end } of segments) {
        const stop = y * width + end;
        for (let i = y * width + start; i < stop;) {
          const [from, cell] = [i, data[i]!];
          do i++;
          while (i < stop && data[i] === cell);
          if (cell !== 0) found.add(cell, near[y]! * this.#columns + patch, from, i - from);
        }
      }
    }
    const [regions, runs] = found.grouped();
    this.#cells.push(...regions);
    return runs;
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
    return this.#quantile(this.#image, this.#imageRuns, quantile);
  }

  /** The quantile over each cell, by ascending cell number. */
  ofCells(quantile: number): number[] {
    return this.#cells.map((cell) => this.#quantile(cell, this.#cellRuns, quantile));
  }

  #quantile({ pixels, parts }: Region, runs: Runs, quantile: number): number {
    const place = (pixels - 1) * quantile;
    const [bounds, highest] = [this.#bounds, this.#highest];
    parts.sort((a, b) => bounds[b.patch]! - bounds[a.patch]!);
    highest.begin(pixels - Math.floor(place));
    for (const part of parts) {
      const bound = bounds[part.patch]!;
      if (bound < highest.floor) break;
      if (bound === 0) {
        highest.fillUp(); // as all that is left
        break;
      }
      this.#enlarge(part, runs);
    }
    return highest.result(place - Math.floor(place));
  }

  /** Takes over a part, from its higher end on: what comes later is then mostly too low. */
  #enlarge({ first, end }: Part, runs: Runs): void {
    if (this.#peak(first, runs) >= this.#peak(end - 1, runs)) {
      for (let run = first; run < end; run++) this.#enlargeRun(runs.start[run]!, runs.length[run]!);
    } else {
      for (let run = end - 1; run >= first; run--) this.#enlargeRun(runs.start[run]!, runs.length[run]!);
    }
  }

  /** The higher end of a run. */
  #peak(run: number, { start, length }: Runs): number {
    const [at, share] = this.#rowOf(start[run]!);
    return Math.max(this.#at(at, share), this.#at(at + length[run]! - 1, share));
  }

  /** Where a pixel's column lies in the upper of its two rows of `wide`, and the share of the lower one. */
  #rowOf(pixel: number): [at: number, share: number] {
    const { near, share } = this.#enlarger.down;
    const y = Math.floor(pixel / this.#width);
    return [near[y]! * this.#width + (pixel - y * this.#width), share[y]!];
  }

  #at(i: number, share: number): number {
    return this.#enlarger.wide[i]! * (1 - share) + this.#enlarger.wide[i + this.#below]! * share;
  }

  #enlargeRun(start: number, length: number): void {
    const { wide, down } = this.#enlarger;
    const y = Math.floor(start / this.#width);
    const share = down.share[y]!;
    const below = this.#below;
    let i = down.near[y]! * this.#width + (start - y * this.#width);
    let last = i + length - 1;
    const left = wide[i]! * (1 - share) + wide[i + below]! * share;
    const right = wide[last]! * (1 - share) + wide[last + below]! * share;
    const higher = left > right ? left : right;
    const { floor, values, steps } = this.#highest;
    if (higher * ROUNDING < floor) return;
    const rise = right - left;
    if (floor > 0 && Math.abs(rise) > STEEP * higher) {
      // Pixels on the low side of where the run crosses the floor, less one.
      const low = Math.floor(((floor - (rise > 0 ? left : right)) / Math.abs(rise)) * (length - 1)) - 1;
      if (low > 0 && rise > 0) i += low;
      else if (low > 0) last -= low;
    }
    let count = this.#highest.count;
    for (; i <= last; i++) {
      values[count] = wide[i]! * (1 - share) + wide[i + below]! * share;
      const value = values[count]!;
      if (value < floor) continue;
      steps[(value * STEPS) | 0]! += 1;
      count++;
    }
    this.#highest.added(count);
  }
}
