import type { NdArray } from '../../dist';
import { resizeCam } from '../../dist/cells/enlarge';
import { cellRows } from '../../dist/cells/cell_rows';
import { EnlargedQuantiles } from '../../dist/cells/enlarged_quantiles';
import { quantileOf } from '../../dist/cells/quantile';
import { uniform } from '../data/splitmix';

type Size = [height: number, width: number];

/** Every pixel enlarged, each cell's gathered. */
function slowly(cam: Float32Array, map: Size, { data, shape }: NdArray<Uint16Array>, quantile: number) {
  const enlarged = resizeCam(cam, map, shape as Size);
  const ids = [...new Set(data)].filter((id) => id !== 0).sort((a, b) => a - b);
  const cells = ids.map((id) => {
    const own = enlarged.filter((_, i) => data[i] === id);
    return quantileOf(own, 0, own.length, quantile);
  });
  return { image: quantileOf(enlarged.slice(), 0, enlarged.length, quantile), cells };
}

/** Blocks and single pixels of cells with gaps between their numbers. */
function mask([height, width]: Size, seed: number): NdArray<Uint16Array> {
  const draws = uniform('mask', seed, 60);
  const data = new Uint16Array(height * width);
  for (let k = 0; k < 12; k++) {
    const [y, x, h, w, id] = draws.slice(5 * k, 5 * k + 5) as unknown as [number, number, number, number, number];
    const [top, left] = [Math.floor(y * height), Math.floor(x * width)];
    const [bottom, right] = [top + 1 + Math.floor(h * 0.6 * height), left + 1 + Math.floor(w * 0.6 * width)];
    for (let i = top; i < Math.min(bottom, height); i++) data.fill(1 + Math.floor(id * 300), i * width + left, i * width + Math.min(right, width)); // prettier-ignore
  }
  return { data, shape: [height, width] };
}

const KINDS: Record<string, (u: Float64Array) => Float32Array> = {
  noise: (u) => Float32Array.from(u),
  'mostly 0': (u) => Float32Array.from(u, (v) => Math.max(0, 4 * v - 3)),
  'nothing at all': (u) => new Float32Array(u.length),
  'level everywhere': (u) => new Float32Array(u.length).fill(0.7),
  'two levels': (u) => Float32Array.from(u, (v) => (v > 0.5 ? 1 : 0.25)),
  'a faint slope': (u) => Float32Array.from(u, (v, i) => 0.5 + 1e-6 * i + 1e-8 * v),
  'tiny values': (u) => Float32Array.from(u, (v) => 1e-6 * v),
};

const SIZES: [map: Size, mask: Size][] = [
  [[16, 16], [130, 117]],
  [[5, 7], [64, 64]],
  [[1, 9], [40, 60]],
  [[6, 1], [33, 20]],
  [[1, 1], [12, 12]],
  [[8, 8], [8, 8]],
  [[12, 10], [13, 64]],
]; // prettier-ignore

describe.each(Object.keys(KINDS))('a map of %s', (kind) => {
  test.each(SIZES)('of %j enlarged to %j has the quantiles of all its pixels', (map, size) => {
    for (let seed = 0; seed < 4; seed++) {
      const cells = mask(size, seed);
      const fast = new EnlargedQuantiles(map, cells.shape as [number, number]);
      fast.setCells(cellRows(cells));
      for (let again = 0; again < 2; again++) {
        const cam = KINDS[kind]!(uniform(kind, 10 * seed + again, map[0] * map[1]));
        fast.take(cam);
        for (const quantile of [0.99, 0.5, 0, 1, 0.123]) {
          const expected = slowly(cam, map, cells, quantile);
          expect(fast.ofImage(quantile)).toBe(expected.image);
          expect(fast.ofCells(quantile)).toEqual(expected.cells);
        }
      }
    }
  });
});

test('no cells', () => {
  const fast = new EnlargedQuantiles([2, 2], [3, 3]);
  fast.setCells(cellRows({ data: new Uint16Array(9), shape: [3, 3] }));
  fast.take(Float32Array.of(0, 1, 0, 0));
  expect(fast.ofCells(0.99)).toEqual([]);
});
