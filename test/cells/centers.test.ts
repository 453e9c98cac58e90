import { cellBoxes } from '../../dist/cells/centers';
import { fixture, readJson, readLabelImage } from '../reference_cases';

interface Resized {
  cell_id: number;
  orig_width: number;
  orig_height: number;
  bbox_x1_x2_y1_y2: number[];
  center_xy: number[];
}
interface Mask {
  data: Uint16Array;
  shape: number[];
}

const mask = (rows: number[][]): Mask => ({
  data: Uint16Array.from(rows.flat()),
  shape: [rows.length, rows[0]!.length],
});
const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error;

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  return x - floor > 0.5 || (x - floor === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

function taps(n: number, size: number, d: number): [source: number, near: number, far: number] {
  const s = Math.floor(d * (n / size));
  if (s >= n - 1) return [n - 1, 2048, 0];
  const f = Math.fround(d + 1 - (s + 1) * (size / n));
  const rest = f <= 0 ? 0 : Math.fround(f - Math.floor(f));
  return [s, roundHalfEven(Math.fround(1 - rest) * 2048), roundHalfEven(rest * 2048)];
}

/** The whole enlarged mask, pixel by pixel, and its box. */
function wholeBox({ data, shape: [h, w] }: Mask, id: number, height: number, width: number): number[] | undefined {
  const at = (y: number, x: number) => (data[Math.min(y, h! - 1) * w! + Math.min(x, w! - 1)] === id ? 1 : 0);
  const xs: number[] = [];
  const ys: number[] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [r, b0, b1] = taps(h!, height, y);
      const [c, a0, a1] = taps(w!, width, x);
      const row = (i: number) => at(i, c) * a0 + at(i, c + 1) * a1;
      const sum = ((b0 * (row(r) >> 4)) >> 16) + ((b1 * (row(r + 1) >> 4)) >> 16) + 2;
      if (sum >> 2 === 0) continue;
      xs.push(x);
      ys.push(y);
    }
  }
  return xs.length === 0 ? undefined : [Math.min(...xs), Math.min(...ys), Math.max(...xs) + 1, Math.max(...ys) + 1];
}

describe('cellBoxes', () => {
  it('refuses what is no mask or size', () => {
    expect(() => cellBoxes(undefined as never, [1, 1])).toThrow(invalid);
    expect(() => cellBoxes({ data: new Uint16Array(3), shape: [2, 2] }, [1, 1])).toThrow(invalid);
    expect(() => cellBoxes({ data: new Uint8Array(4), shape: [2, 2] } as never, [1, 1])).toThrow(invalid);
    expect(() => cellBoxes(mask([[1]]), undefined as never)).toThrow('originalSize[0]');
    expect(() => cellBoxes(mask([[1]]), [1, 0])).toThrow('originalSize[1]');
  });

  it('equals the reference boxes', async () => {
    const cells = await readLabelImage(fixture('cells', 'labels_a.png'));
    for (const expected of readJson<Resized[]>(fixture('cells', 'resized.json'))) {
      const box = cellBoxes(cells, [expected.orig_height, expected.orig_width]).find(
        (b) => b.cellId === expected.cell_id,
      )!;
      expect([box.x1, box.x2, box.y1, box.y2]).toEqual(expected.bbox_x1_x2_y1_y2);
      expect(box.center).toEqual(expected.center_xy);
    }
  });

  it.each([
    [9, 11, 20, 23],
    [9, 11, 10, 12],
    [9, 11, 27, 33],
    [9, 11, 9, 40],
    [16, 16, 54, 54],
    [12, 7, 13, 31],
  ])('equals enlarging the whole mask: %i x %i to %i x %i', (h, w, height, width) => {
    // Scattered pixels, ragged edges and tips, of five cells.
    const data = Uint16Array.from({ length: h * w }, (_, i) => (i * i * 7 + i * 3) % 6);
    const cells = { data, shape: [h, w] };
    const tip = mask(Array.from({ length: h }, (_, y) => Array.from({ length: w }, (_, x) => (x === y ? 3 : 0))));
    for (const each of [cells, tip]) {
      for (const { cellId, x1, y1, x2, y2 } of cellBoxes(each, [height, width])) {
        expect([x1, y1, x2, y2]).toEqual(wholeBox(each, cellId, height, width));
      }
    }
  });

  it('keeps a cell that enlarging wipes out', () => {
    const cells = mask([[0, 0, 0], [0, 7, 0], [0, 0, 0]]); // prettier-ignore
    const wiped = [4, 5, 6].filter((size) => wholeBox(cells, 7, size, size) === undefined);
    expect(wiped).toEqual([4]);
    expect(cellBoxes(cells, [4, 4])).toEqual([{ cellId: 7, x1: 1, y1: 1, x2: 3, y2: 3, center: [2, 2] }]);
  });

  it('widens to whole pixels where an axis shrinks', () => {
    const cells = mask([[0, 0, 0, 0], [0, 0, 5, 5], [0, 0, 5, 0], [0, 0, 0, 0]]); // prettier-ignore
    expect(cellBoxes(cells, [2, 2])).toEqual([{ cellId: 5, x1: 1, y1: 0, x2: 2, y2: 2, center: [2, 1] }]);
    expect(cellBoxes(cells, [2, 8])).toEqual([{ cellId: 5, x1: 4, y1: 0, x2: 8, y2: 2, center: [6, 1] }]);
  });

  it('rounds halves to even and sorts by number', () => {
    const cells = mask([[9, 0, 4, 4, 4]]);
    expect(cellBoxes(cells, [1, 5]).map((b) => [b.cellId, ...b.center])).toEqual([[4, 4, 0], [9, 0, 0]]); // prettier-ignore
    expect(cellBoxes({ data: new Uint16Array(4), shape: [2, 2] }, [8, 8])).toEqual([]);
    expect(cellBoxes({ data: new Uint16Array(0), shape: [0, 2] }, [8, 8])).toEqual([]);
  });
});
