import type { CellRows } from './cell_rows';
import type { Axis } from './enlarge';

/** Runs of pixels within a row, a region and a patch; of one region and patch they follow each other, rows ascending. */
export interface Runs {
  row: Uint32Array;
  /** First column. */
  column: Uint32Array;
  length: Uint32Array;
}

/** The part of a region in one patch: runs from `first` to `end`. */
export interface Part {
  patch: number;
  first: number;
  end: number;
}

export interface Region {
  pixels: number;
  parts: Part[];
  /** Room to sort them. */
  keys: Float64Array;
}

/** A stretch of an axis in which the enlarged map is a straight line. */
export interface Segment {
  patch: number;
  start: number;
  end: number;
}

/** A patch is one segment; at the borders, where the map is mirrored, it turns back and is two. */
export function segmentsOf({ near, share }: Axis): Segment[] {
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

/** The patches that a cell lies in are numbered row by row within their rectangle, the cells one after the other. */
interface Rectangle {
  /** Number of the first patch. */
  base: number;
  top: number;
  bottom: number;
  left: number;
  right: number;
}

export function roomFor(count: number): Runs {
  return { row: new Uint32Array(count), column: new Uint32Array(count), length: new Uint32Array(count) };
}

/** Splits cells into parts: runs by cell, then by patch. Two passes over the runs, one to count and one to place. */
export class CellParts {
  readonly #rectangles = new Map<number, Rectangle>();

  constructor(
    private readonly cells: CellRows,
    private readonly down: Int32Array,
    private readonly segments: Segment[],
    private readonly segmentAt: Uint32Array,
    private readonly columns: number,
  ) {
    const { count, cell, row, column, length } = cells;
    for (let i = 0; i < count; i++) {
      const [y, left, right] = [down[row[i]!]!, this.#patchAt(column[i]!), this.#patchAt(column[i]! + length[i]! - 1)];
      const [low, high] = left < right ? [left, right] : [right, left]; // at the borders the map turns back
      const own = this.#rectangles.get(cell[i]!);
      if (own === undefined) {
        this.#rectangles.set(cell[i]!, { base: 0, top: y, bottom: y, left: low, right: high });
        continue;
      }
      own.top = Math.min(own.top, y);
      own.bottom = Math.max(own.bottom, y);
      own.left = Math.min(own.left, low);
      own.right = Math.max(own.right, high);
    }
  }

  #patchAt(x: number): number {
    return this.segments[this.segmentAt[x]!]!.patch;
  }

  /** Cells by ascending number, and their runs. */
  split(): [Region[], Runs] {
    const ordered = [...this.#rectangles].sort(([a], [b]) => a - b).map(([, rectangle]) => rectangle);
    let patches = 0;
    for (const own of ordered) {
      own.base = patches;
      patches += (own.bottom - own.top + 1) * (own.right - own.left + 1);
    }
    const starts = new Uint32Array(patches + 1);
    this.#each((place) => starts[place + 1]!++);
    for (let place = 0; place < patches; place++) starts[place + 1]! += starts[place]!;
    const next = starts.slice();
    const runs = roomFor(starts[patches]!);
    this.#each((place, row, column, length) => {
      const at = next[place]!++;
      runs.row[at] = row;
      runs.column[at] = column;
      runs.length[at] = length;
    });
    return [ordered.map((own) => this.#regionOf(own, starts, runs.length)), runs];
  }

  /** Every run, cut where one patch ends and the next begins. */
  #each(use: (place: number, row: number, column: number, length: number) => void): void {
    const { count, cell, row, column, length } = this.cells;
    for (let i = 0; i < count; i++) {
      const own = this.#rectangles.get(cell[i]!)!;
      const base = own.base + (this.down[row[i]!]! - own.top) * (own.right - own.left + 1) - own.left;
      const stop = column[i]! + length[i]!;
      for (let x = column[i]!, k = this.segmentAt[x]!; x < stop; k++) {
        const { patch, end } = this.segments[k]!;
        const until = end < stop ? end : stop;
        use(base + patch, row[i]!, x, until - x);
        x = until;
      }
    }
  }

  #regionOf({ base, top, bottom, left, right }: Rectangle, starts: Uint32Array, length: Uint32Array): Region {
    const parts: Part[] = [];
    for (let y = top, place = base; y <= bottom; y++) {
      for (let x = left; x <= right; x++, place++) {
        const [first, end] = [starts[place]!, starts[place + 1]!];
        if (first < end) parts.push({ patch: y * this.columns + x, first, end });
      }
    }
    let pixels = 0;
    for (const { first, end } of parts) for (let run = first; run < end; run++) pixels += length[run]!;
    return { pixels, parts, keys: new Float64Array(parts.length) };
  }
}
