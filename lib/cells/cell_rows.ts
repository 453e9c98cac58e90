import type { NdArray } from '../options';

/** Runs of pixels of one cell within a row, in row-major order; the first `count` values of each array. */
export interface CellRows {
  count: number;
  cell: Uint32Array;
  row: Uint32Array;
  /** First column. */
  column: Uint32Array;
  length: Uint32Array;
}

const EMPTY: Uint32Array = new Uint32Array(0);

/** Two pixels at a time as one number, or nothing where the memory does not lie so. */
function pairsOf(data: Uint16Array): Uint32Array {
  return data.byteOffset % 4 === 0 ? new Uint32Array(data.buffer, data.byteOffset, data.length >> 1) : EMPTY;
}

/** The first pixel from `i` on, before `end`, that is not `cell`. */
function endOfRun(data: Uint16Array, pairs: Uint32Array, i: number, end: number, cell: number): number {
  if (pairs.length > 0) {
    if (i % 2 === 1 && i < end && data[i] === cell) i++;
    const both = cell * 65537;
    if (i % 2 === 0) while (i + 1 < end && pairs[i >> 1] === both) i += 2;
  }
  while (i < end && data[i] === cell) i++;
  return i;
}

/** All runs of a mask (H, W), 0 is background: one pass over its pixels, from which all else is found. */
export function cellRows({ data, shape }: NdArray<Uint16Array>): CellRows {
  const [height, width] = shape as [number, number];
  const pairs = pairsOf(data);
  let room = 4096;
  let [cell, row, column, length] = [EMPTY, EMPTY, EMPTY, EMPTY];
  const grow = (): void => {
    room *= 2;
    const larger = (values: Uint32Array): Uint32Array => {
      const out = new Uint32Array(room);
      out.set(values);
      return out;
    };
    [cell, row, column, length] = [larger(cell), larger(row), larger(column), larger(length)];
  };
  grow();
  let count = 0;
  for (let y = 0; y < height; y++) {
    const start = y * width;
    const end = start + width;
    for (let i = start; i < end;) {
      const [from, id] = [i, data[i]!];
      i = endOfRun(data, pairs, i + 1, end, id);
      if (id === 0) continue;
      if (count === room) grow();
      cell[count] = id;
      row[count] = y;
      column[count] = from - start;
      length[count++] = i - from;
    }
  }
  return { count, cell, row, column, length };
}
