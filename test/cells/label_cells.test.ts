import sharp from 'sharp';
import { labelCells, type NdArray } from '../../dist';
import { describeShared, fixture, readJson, readLabelImage, shared } from '../reference_cases';

async function readMap(path: string): Promise<NdArray<Uint8Array>> {
  const { data, info } = await sharp(path).raw().toBuffer({ resolveWithObject: true });
  return { data: new Uint8Array(data), shape: [info.height, info.width, info.channels] };
}

async function check(path: (name: string) => string, scale: number): Promise<void> {
  const maps = await Promise.all([readMap(path('nuclei_prob.png')), readMap(path('cell_prob.png'))]);
  const { nuclei, cells } = await labelCells(...maps, { scale });
  expect(nuclei.shape).toEqual(maps[0].shape.slice(0, 2));
  const same = async (labels: Uint16Array, name: string): Promise<boolean> =>
    Buffer.from(labels.buffer).equals(Buffer.from((await readLabelImage(path(name))).data.buffer));
  expect(await same(cells.data, 'cell_label.png')).toBe(true);
  expect(await same(nuclei.data, 'nuclei_label.png')).toBe(true);
}

test('the labels of a reference case at full size', () =>
  check((name) => fixture('segmentation', `c_full_${name}`), 1));

describeShared('all reference cases', () => {
  test('exact', async () => {
    const cases = readJson<{ name: string; scale_factor: number }[]>(shared('segment', 'segment.json'));
    expect(cases).toHaveLength(3);
    for (const c of cases) await check((name) => shared('segment', `${c.name}_${name}`), c.scale_factor);
  });
});

/** Square cells of `side` pixels, `columns` a row, each with a nucleus, a dim border around and gaps between. */
function squares(rows: number, columns: number, side: number) {
  const [height, width] = [rows * side, columns * side];
  const [nuclei, cells] = [new Uint8Array(height * width * 3), new Uint8Array(height * width * 3)];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const edge = Math.min(x % side, y % side, side - 1 - (x % side), side - 1 - (y % side));
      if (edge >= 3) nuclei[3 * i + 2] = 255;
      if (edge >= 2) cells[3 * i + 2] = 250;
    }
  }
  const shape = [height, width, 3];
  return { nuclei: { data: nuclei, shape }, cells: { data: cells, shape } };
}

const distinct = (labels: Uint16Array): number => new Set(labels.filter((v) => v > 0)).size;

test('more than 255 cells: kept, or lost as the original loses them', async () => {
  const { nuclei, cells } = squares(20, 20, 12);
  const scale = 1 / 400;
  expect(distinct((await labelCells(nuclei, cells, { scale })).cells.data)).toBe(400);
  const original = await labelCells(nuclei, cells, { scale, compat: 'original' });
  expect(distinct(original.cells.data)).toBe(399);
});

test('maps without anything, and maps that are all one cell', async () => {
  const blank = { data: new Uint8Array(64 * 64 * 3), shape: [64, 64, 3] };
  expect(distinct((await labelCells(blank, blank, { scale: 1 / 16 })).cells.data)).toBe(0);
  const full = { data: new Uint8Array(64 * 64 * 3).map((_, i) => (i % 3 === 2 ? 255 : 0)), shape: [64, 64, 3] };
  const { cells, nuclei } = await labelCells(full, full, { scale: 1 / 16 });
  expect([distinct(cells.data), distinct(nuclei.data)]).toEqual([1, 1]);
});

test('many fields at once give what each gives alone', async () => {
  const fields = [squares(3, 4, 16), squares(5, 2, 20), squares(2, 2, 30)];
  const alone = [];
  for (const f of fields) alone.push(await labelCells(f.nuclei, f.cells, { scale: 1 / 100 }));
  const together = await Promise.all(
    [...fields, ...fields].map((f) => labelCells(f.nuclei, f.cells, { scale: 1 / 100 })),
  );
  expect(together).toEqual([...alone, ...alone]);
});

test('wrong arguments', async () => {
  const map = { data: new Uint8Array(12), shape: [2, 2, 3] };
  await expect(labelCells(map, { data: new Uint8Array(6), shape: [1, 2, 3] }, { scale: 1 })).rejects.toThrow(
    /one size .* \(2, 2, 3\) and \(1, 2, 3\)/,
  );
  await expect(labelCells(map, map, { scale: 0 })).rejects.toThrow(/scale/);
  await expect(labelCells(map, map, {} as never)).rejects.toThrow(/scale/);
});
