import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import {
  decodeMask,
  intersectCams,
  mergePredictions,
  predictCells,
  Predictor,
  PuzzleCam,
  type NdArray,
  type PredictOptions,
} from '../../dist';
import { readFieldImage } from '../../dist/cells/field_image';
import { readMask } from '../../dist/data/masks';
import { readGrey, writeGrey16 } from '../../dist/data/png';
import { cellCrops } from '../../dist/inference/cell_crops';
import { cellcam } from '../cli/run_cellcam';
import { makeSmallSet, SIZE, type SmallSet } from '../training/small_set';

const FIELDS = 6;
let small: SmallSet;
let weights: string;

beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-predict-')), FIELDS);
  using model = await PuzzleCam.forSpec(small.set.spec, { backbone: 'resnet18', device: 'cpu', seed: 4 });
  weights = join(small.folder, 'weights.safetensors');
  await model.saveWeights(weights);
});
afterAll(() => rmSync(small.folder, { recursive: true }));

function options(o: Partial<PredictOptions> = {}): PredictOptions & { output: string } {
  const { spec, imageSize } = small.options;
  return {
    home: small.folder,
    imagesFolder: small.set.imagesFolder,
    masks: small.set.masksFolder,
    output: join(small.folder, 'out'),
    weightsFiles: [weights],
    backbone: 'resnet18',
    batchSize: 4,
    imageSize,
    device: 'cpu',
    precision: 'fp32',
    spec,
    ...o,
  };
}

/** Predicts into a folder of its own. */
async function predict(name: string, o: Partial<PredictOptions> = {}) {
  const output = join(small.folder, name);
  const result = await predictCells(options({ output, ...o }));
  return { output, result, cells: table(join(output, 'cells.csv')), submission: readFileSync(join(output, 'submission.csv'), 'utf8') }; // prettier-ignore
}

function table(path: string): Record<string, string>[] {
  return parse(readFileSync(path, 'utf8'), { columns: true });
}

const probabilities = (row: Record<string, string>, prefix = ''): number[] =>
  small.set.spec.classes.map((_, c) => Number(row[`${prefix}${c}`]));

function expectClose(got: number[], want: ArrayLike<number>): void {
  expect(got).toHaveLength(want.length);
  got.forEach((v, i) => expect(Math.abs(v - want[i]!)).toBeLessThan(1e-5));
}

function stacked(pixels: Uint8Array, size: number): NdArray<Uint8Array> {
  return { data: pixels, shape: [1, size, size, pixels.length / size ** 2] };
}

describe('both steps', () => {
  test('each cell holds what step 1 and step 2 say by themselves, and their mean', async () => {
    const { cells, result } = await predict('both');
    expect(result).toMatchObject({ images: FIELDS, failed: [], resumed: 0, cells: cells.length });
    const { spec } = small.set;
    using predictor = await Predictor.create({ backbone: 'resnet18', weights: [weights], device: 'cpu', precision: 'fp32', spec }); // prettier-ignore
    const id = small.set.fields[1]!.id;
    const field = await readFieldImage(small.set.imagesFolder, id, SIZE, spec);
    const mask = await readMask(join(small.set.masksFolder, `${id}.png`));
    const { logits, maps } = await predictor.predict(stacked(field.pixels, SIZE));
    const first = intersectCams({ logits: logits.data, maps: { data: maps.data, shape: maps.shape.slice(1) } }, mask, {
      originalSize: field.original,
      spec,
    });
    const rows = cells.filter((row) => row['ID'] === id);
    expect(rows.map((row) => Number(row['cell_id']))).toEqual(first.map(({ cellId }) => cellId));
    let at = 0;
    for await (const { cellId, pixels } of cellCrops(field, mask, SIZE)) {
      const row = rows[at]!;
      expect(Number(row['cell_id'])).toBe(cellId);
      const alone = (await predictor.predict(stacked(pixels, SIZE))).logits.data.map((x) => 1 / (1 + Math.exp(-x)));
      expectClose(probabilities(row, 'step1_'), first[at]!.probabilities);
      expectClose(probabilities(row, 'step2_'), alone);
      expectClose(
        probabilities(row),
        alone.map((v, c) => (v + first[at]!.probabilities[c]!) / 2),
      );
      at++;
    }
    expect(at).toBe(rows.length);
  });

  test('one step alone', async () => {
    const both = await predict('both');
    for (const steps of ['1', '2'] as const) {
      const { cells } = await predict(`only${steps}`, { steps });
      cells.forEach((row, i) => expectClose(probabilities(row), probabilities(both.cells[i]!, `step${steps}_`)));
    }
  });

  test('a cell alone: its pixels in the middle of a square, all others 0', async () => {
    const pixels = new Uint8Array(4 * 4 * 2).fill(9);
    const cells = { data: new Uint16Array(16), shape: [4, 4] };
    for (const i of [1, 5, 6]) cells.data[i] = 3;
    const crops = [];
    for await (const crop of cellCrops({ pixels, size: 4, original: [8, 8] }, cells, 2)) crops.push(crop);
    expect(crops).toEqual([{ cellId: 3, pixels: Uint8Array.of(9, 9, 0, 0, 9, 9, 9, 9) }]);
  });
});

describe('the tables', () => {
  test('a submission: every field, triplets of class, confidence and mask at the original size', async () => {
    const { submission, cells, output } = await predict('tables', { cells: ['csv', 'jsonl', 'parquet'] });
    const rows: Record<string, string>[] = parse(submission, { columns: true });
    expect(rows.map((row) => row['ID'])).toEqual(small.set.fields.map(({ id }) => id).sort());
    for (const row of rows) {
      const words = row['PredictionString']!.split(' ');
      const size: [number, number] = [Number(row['ImageHeight']), Number(row['ImageWidth'])];
      const truth = await readMask(join(small.set.masksFolder, `${row['ID']}.png`));
      const own = cells.filter((cell) => cell['ID'] === row['ID']);
      expect(words).toHaveLength(3 * own.length * small.set.spec.classes.length);
      own.forEach((cell, i) => {
        const at = 3 * i * small.set.spec.classes.length;
        const mask = decodeMask(words[at + 2]!, size);
        const area = mask.data.reduce((sum, v) => sum + v, 0);
        expect(area).toBe(Number(cell['area']));
        expect(mask.data.every((v, k) => (v === 1) === (truth.data[k] === Number(cell['cell_id'])))).toBe(true);
        expectClose([Number(words[at + 1])], [probabilities(cell)[0]!]);
      });
    }
    const lines = readFileSync(join(output, 'cells.jsonl'), 'utf8').trim().split('\n');
    const objects = lines.map((line) => JSON.parse(line) as { id: string; cellId: number; step2: number[] });
    expect(objects.map((o) => [o.id, String(o.cellId)])).toEqual(cells.map((c) => [c['ID'], c['cell_id']]));
    expect(objects[0]!.step2).toHaveLength(small.set.spec.classes.length);
    expect(readFileSync(join(output, 'cells.parquet')).subarray(0, 4).toString()).toBe('PAR1');
    expect(readFileSync(join(output, 'cells.parquet')).subarray(-4).toString()).toBe('PAR1');
  });

  test('shards merge to the same files', async () => {
    const batchSize = 1; // a batch's size decides the order of sums: last bits may differ
    const whole = await predict('whole', { batchSize });
    const output = join(small.folder, 'shards');
    for (const index of [3, 1, 2, 4]) {
      if (index === 2) await expect(mergePredictions(output)).rejects.toMatchObject({ code: 'ERR_FILE_NOT_FOUND' });
      await predictCells(options({ output, batchSize, shard: { index, count: 4 } }));
    }
    expect(existsSync(join(output, 'submission.csv'))).toBe(false);
    await mergePredictions(output);
    expect(readFileSync(join(output, 'submission.csv'), 'utf8')).toBe(whole.submission);
    expect(table(join(output, 'cells.csv'))).toEqual(whole.cells);
  });

  test('a shard that is not finished', async () => {
    const output = join(small.folder, 'unfinished');
    for (const index of [1, 2]) await predictCells(options({ output, shard: { index, count: 2 } }));
    const part = join(output, 'parts', '1-of-2.jsonl');
    truncateSync(part, readFileSync(part, 'utf8').indexOf('\n', 800) + 1);
    await expect(mergePredictions(output)).rejects.toMatchObject({ code: 'ERR_INCOMPLETE' });
    expect(existsSync(join(output, 'submission.csv'))).toBe(false);
  });
});

describe('an interrupted run', () => {
  test('goes on behind the last whole line, and only with the same options', async () => {
    const whole = await predict('whole2', { batchSize: 1 });
    const part = join(whole.output, 'parts', '1-of-1.jsonl');
    const text = readFileSync(part, 'utf8');
    writeFileSync(part, text.slice(0, Math.floor(text.length / 2))); // in the middle of a line
    const again = await predict('whole2', { batchSize: 1 });
    expect(again.result.resumed).toBeGreaterThan(0);
    expect(again.result.resumed).toBeLessThan(FIELDS);
    expect(readFileSync(part, 'utf8')).toBe(text);
    expect(again.submission).toBe(whole.submission);
    await expect(predict('whole2', { batchSize: 1, tta: 'flips' })).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' });
    appendFileSync(part, '{"id": 1\n');
    await expect(predict('whole2', { batchSize: 1 })).rejects.toMatchObject({ code: 'ERR_TABLE' });
  });

  test('kill -9 on the command line', async () => {
    const o = options();
    const args = (output: string): string[] => [
      'predict', '--images-folder', o.imagesFolder, '--weights-files', weights, '--backbone', 'resnet18', '--home', small.folder,
      '--image-size', String(SIZE), '--masks', small.set.masksFolder, '--batch-size', '1', '--device', 'cpu', '--precision', 'fp32',
      '--spec', join(small.folder, 'spec.json'), '--json', '--output', output,
    ]; // prettier-ignore
    const killed = join(small.folder, 'killed');
    const part = join(killed, 'parts', '1-of-1.jsonl');
    const hasBegun = (): boolean => existsSync(part) && readFileSync(part, 'utf8').split('\n').length > 3;
    await cellcam(args(killed), {
      onStart: (child) => void setInterval(() => hasBegun() && child.kill('SIGKILL'), 5).unref(),
    });
    expect((await cellcam(args(killed))).code).toBe(0);
    expect((await cellcam(args(join(small.folder, 'calm')))).code).toBe(0);
    for (const file of ['submission.csv', 'cells.csv'])
      expect(readFileSync(join(killed, file), 'utf8')).toBe(readFileSync(join(small.folder, 'calm', file), 'utf8'));
  }, 120_000);
});

describe('fields that are not as they should be', () => {
  test('one that cannot be read is named, in order, and the others are there', async () => {
    const ids = [small.set.fields[2]!.id, 'absent', small.set.fields[0]!.id];
    const { result, submission } = await predict('refusals', { ids });
    expect(result.failed).toEqual([{ id: 'absent', reason: expect.stringMatching(/absent_\w+\.png/) as string }]);
    const rows: Record<string, string>[] = parse(submission, { columns: true });
    expect(rows.map((row) => row['ID'])).toEqual([ids[0], ids[2]]);
    expect((await predict('refusals', { ids })).result).toMatchObject({ failed: [{ id: 'absent' }], resumed: 3 });
  });

  test('no cells: a row without predictions, and its name', async () => {
    const masks = mkdtempSync(join(small.folder, 'masks-'));
    for (const { id } of small.set.fields) await writeGrey16(join(masks, `${id}.png`), new Uint16Array(SIZE * SIZE), [SIZE, SIZE]); // prettier-ignore
    const { result, submission } = await predict('empty', { masks });
    expect(result.withoutCells).toHaveLength(FIELDS);
    expect(submission.trim().split('\n')[1]).toMatch(/,64,64,$/);
  });

  test('cells at the edge are dropped if asked for', async () => {
    const all = await predict('whole3');
    const inner = await predict('inner', { border: 'drop' });
    const touches = (c: Record<string, string>): boolean =>
      c['x1'] === '0' || c['y1'] === '0' || c['x2'] === String(SIZE) || c['y2'] === String(SIZE);
    const expected = all.cells.filter((c) => !touches(c)).map((c) => `${c['ID']} ${c['cell_id']}`);
    expect(inner.cells.map((c) => `${c['ID']} ${c['cell_id']}`)).toEqual(expected);
    expect(expected.length).toBeLessThan(all.cells.length);
  });

  test('masks of another size than the image’s', async () => {
    const masks = mkdtempSync(join(small.folder, 'masks-'));
    const { id } = small.set.fields[0]!;
    const { data } = await readGrey(join(small.set.masksFolder, `${id}.png`));
    const twice = new Uint16Array(4 * SIZE * SIZE).map((_, i) => data[Math.floor(i / (4 * SIZE)) * SIZE + Math.floor((i % (2 * SIZE)) / 2)]!); // prettier-ignore
    await writeGrey16(join(masks, `${id}.png`), twice, [2 * SIZE, 2 * SIZE]);
    const [large, plain] = [await predict('large', { masks, ids: [id] }), await predict('plain', { ids: [id] })];
    const shapes = (cells: Record<string, string>[]) => cells.map((c) => [c['cell_id'], c['area'], c['cell_center']]);
    expect(shapes(large.cells)).toEqual(shapes(plain.cells));
    // A cell of one pixel, which is not there at the field's size: no other cell gets its step 2.
    twice[0] = 1000;
    await writeGrey16(join(masks, `${id}.png`), twice, [2 * SIZE, 2 * SIZE]);
    const { cells } = await predict('speck', { masks, ids: [id] });
    expect(cells.map((c) => c['cell_id'])).toEqual([...plain.cells.map((c) => c['cell_id']), '1000']);
    plain.cells.forEach((c, i) => expectClose(probabilities(cells[i]!, 'step2_'), probabilities(c, 'step2_')));
    expect(cells.at(-1)!['step2_0']).toBe('');
  });
});

test('fields without masks are segmented once', async () => {
  const maskCache = join(small.folder, 'cache-of-masks');
  const first = await predict('segmented', { masks: undefined, maskCache });
  expect(first.result.cells).toBeGreaterThan(0);
  const cached = readdirSync(maskCache, { recursive: true }).filter((name) => String(name).endsWith('.png')); // prettier-ignore
  expect(cached).toHaveLength(FIELDS);
  const again = await predict('segmented2', { masks: undefined, maskCache });
  expect(again.submission).toBe(first.submission);
});

test('flips: a mirrored field has mirrored maps and the same logits', async () => {
  const { spec } = small.set;
  using predictor = await Predictor.create({ backbone: 'resnet18', weights: [weights], tta: 'flips', device: 'cpu', precision: 'fp32', spec }); // prettier-ignore
  const field = await readFieldImage(small.set.imagesFolder, small.set.fields[0]!.id, SIZE, spec);
  const mirrored = new Uint8Array(field.pixels.length);
  for (let i = 0; i < SIZE * SIZE; i++) {
    const from = 4 * (i - (i % SIZE) + SIZE - 1 - (i % SIZE));
    mirrored.set(field.pixels.subarray(from, from + 4), 4 * i);
  }
  const [a, b] = [
    await predictor.predict(stacked(field.pixels, SIZE)),
    await predictor.predict(stacked(mirrored, SIZE)),
  ];
  const w = a.maps.shape[3]!;
  expectClose([...b.logits.data], a.logits.data);
  expectClose(
    [...b.maps.data],
    a.maps.data.map((_, i) => a.maps.data[i - (i % w) + w - 1 - (i % w)]!),
  );
});

test('options that are wrong are told before anything is written', async () => {
  const output = join(small.folder, 'wrong');
  for (const [o, text] of [
    [{ weightsFiles: [] }, 'weightsFiles'],
    [{ shard: { index: 5, count: 4 } }, 'shard.index'],
    [{ steps: '3' }, 'steps'],
    [{ imagesFolder: join(small.folder, 'nowhere') }, 'nowhere'],
  ] as const)
    await expect(predictCells(options({ output, ...(o as object) }))).rejects.toThrow(text);
  expect(existsSync(output)).toBe(false);
});
