import type { NdArray } from '../options';
import { areaPositions, roundHalfEven } from './inter_area';

/**
 * How one axis of n pixels is enlarged to N: output d mixes pixels `source[d]` and the next, in 2048ths. `first[s]` is
 * the first output whose source is at least s.
 */
export interface Axis {
  source: Int32Array;
  near: Int32Array;
  far: Int32Array;
  first: Int32Array;
}

/** OpenCV's positions and fixed-point weights of INTER_AREA where it enlarges. */
export function enlargedAxis(n: number, size: number): Axis {
  const { source, rest } = areaPositions(n, size);
  const first = new Int32Array(n + 1).fill(size);
  for (let d = size - 1; d >= 0; d--) first[source[d]!] = d;
  for (let s = n - 1; s >= 0; s--) first[s] = Math.min(first[s]!, first[s + 1]!);
  const near = Int32Array.from(rest, (r) => roundHalfEven(Math.fround(1 - r) * 2048));
  const far = Int32Array.from(rest, (r) => roundHalfEven(r * 2048));
  return { source, near, far, first };
}

/** One cell's 0/1 mask as it looks enlarged; nothing outside its own window is touched. */
export class EnlargedCell {
  constructor(
    private readonly cells: NdArray<Uint16Array>,
    private readonly id: number,
    private readonly rows: Axis,
    private readonly columns: Axis,
  ) {}

  /** OpenCV's integer arithmetic: columns first, then rows, each product cut to 8 bits and rounded once. */
  has(y: number, x: number): boolean {
    const row = this.rows.source[y]!;
    const upper = (this.rows.near[y]! * (this.mix(row, x) >> 4)) >> 16;
    const weight = this.rows.far[y]!;
    const lower = weight === 0 ? 0 : (weight * (this.mix(row + 1, x) >> 4)) >> 16;
    return upper + lower >= 2;
  }

  private mix(row: number, x: number): number {
    const at = row * this.cells.shape[1]! + this.columns.source[x]!;
    const near = this.cells.data[at] === this.id ? this.columns.near[x]! : 0;
    const far = this.columns.far[x]!;
    return far !== 0 && this.cells.data[at + 1] === this.id ? near + far : near;
  }
}

/** Outputs that a range of source pixels can reach: a pixel also spreads to outputs whose source is the one before it. */
export function reach(axis: Axis, first: number, last: number): [from: number, to: number] {
  return [axis.first[Math.max(first - 1, 0)]!, axis.first[last + 1]!];
}
