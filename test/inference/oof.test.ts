import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import sharp from 'sharp';
import { generateOof, PuzzleCam, stratifiedFolds, readLabels, type OofOptions } from '../../dist';
import { readLabelMask } from '../../dist/data/png';
import { makeSmallSet, SIZE, type SmallSet } from '../training/small_set';

const SEED = 7;
let small: SmallSet;
let weights: string[];

beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-oof-')), 10);
  weights = await Promise.all(
    [1, 2].map(async (seed) => {
      using model = await PuzzleCam.forSpec(small.set.spec, { backbone: 'resnet18', device: 'cpu', seed });
      const path = join(small.folder, `weights${seed}.safetensors`);
      await model.saveWeights(path);
      return path;
    }),
  );
});
afterAll(() => rmSync(small.folder, { recursive: true }));

function oof(o: Partial<OofOptions> = {}) {
  const { home, dataHome, labelsFile, backbone, spec, imageSize, cropSize, folds, device, precision } = small.options;
  const run = { home, dataHome, labelsFile, backbone, spec, imageSize, cropSize, folds, device, precision } as const;
  const own = { fold: 1, seed: SEED, metadataFile: 'meta.csv', weightsFiles: [weights[0]!], masks: 'masks' };
  return generateOof({ ...run, ...own, ...o });
}

function rows(path: string): Record<string, string>[] {
  return parse(readFileSync(path, 'utf8'), { columns: true });
}

function validationIds(fold: number): string[] {
  const { ids, labels } = readLabels(join(small.folder, 'labels.csv'), { spec: small.set.spec });
  const folds = stratifiedFolds(labels, { folds: 2, seed: SEED });
  return ids.filter((_, row) => folds[row] === fold);
}

function refusal(code: string, text: string): Error {
  return expect.objectContaining({ code, message: expect.stringContaining(text) as string }) as Error;
}

describe('wrong input', () => {
  test.each([
    ['a folder of masks that is not there', { masks: 'nowhere' }, 'ERR_FILE_NOT_FOUND', 'nowhere'],
    ['no weights', { weightsFiles: [] }, 'ERR_INVALID_ARG', 'weightsFiles'],
    ['weights of another backbone', { backbone: 'seresnext50_32x4d' }, 'ERR_WEIGHTS', 'weights1.safetensors'],
    ['a fold that is not there', { fold: 3 }, 'ERR_INVALID_ARG', 'fold'],
    ['a table of sizes that is not there', { metadataFile: 'none.csv' }, 'ERR_FILE_NOT_FOUND', 'none.csv'],
  ])('%s', async (_, wrong, code, text) => {
    await expect(oof({ ...wrong, oofFolder: 'wrong' })).rejects.toEqual(refusal(code, text));
    expect(readdirSync(small.folder)).not.toContain('wrong');
  });

  test('an image without a size, or without a mask, is named before any work', async () => {
    const id = validationIds(1)[1]!;
    const lines = readFileSync(join(small.folder, 'meta.csv'), 'utf8').split('\n');
    writeFileSync(join(small.folder, 'less.csv'), lines.filter((line) => !line.startsWith(id)).join('\n'));
    await expect(oof({ metadataFile: 'less.csv' })).rejects.toEqual(refusal('ERR_TABLE', id));
    const fewer = join(small.folder, 'fewer');
    mkdirSync(fewer);
    copyFileSync(
      join(small.folder, 'masks', `${validationIds(1)[0]!}.png`),
      join(fewer, `${validationIds(1)[0]!}.png`),
    );
    await expect(oof({ masks: 'fewer' })).rejects.toEqual(refusal('ERR_FILE_NOT_FOUND', id));
  });

  test('a damaged mask is named, and no half-written table stays', async () => {
    const damaged = join(small.folder, 'damaged');
    mkdirSync(damaged);
    for (const id of validationIds(1)) {
      const bytes = readFileSync(join(small.folder, 'masks', `${id}.png`));
      writeFileSync(join(damaged, `${id}.png`), id === validationIds(1)[2] ? bytes.subarray(0, 100) : bytes);
    }
    await expect(oof({ masks: 'damaged', oofFolder: 'stopped' })).rejects.toEqual(
      refusal('ERR_IMAGE', `${validationIds(1)[2]!}.png`),
    );
    const [folder] = readdirSync(join(small.folder, 'stopped'));
    expect(readdirSync(join(small.folder, 'stopped', folder!))).toEqual([]);
  });
});

test('a row for every cell of the fold, in order, with sizes and centres of the original', async () => {
  const { path, images, cells, withoutCells } = await oof();
  expect(path).toBe(join(small.folder, 'oof', 'siamese_resnet18_64_64_RGBY_fp32_CV2_v3.0', 'oof_1.csv'));
  const expected: string[] = [];
  for (const id of validationIds(1)) {
    const { data } = await readLabelMask(join(small.folder, 'masks', `${id}.png`));
    const numbers = [...new Set(data)].filter((n) => n > 0).sort((a, b) => a - b);
    expected.push(...numbers.map((n) => `${id} ${n} ${SIZE}x${SIZE}`));
  }
  const table = rows(path);
  expect(readFileSync(path, 'utf8').split('\n')[0]).toBe('ID,ImageWidth,ImageHeight,cell_id,cell_center,0,1,2,3,4,5,6');
  expect(table.map((row) => `${row['ID']} ${row['cell_id']} ${row['ImageWidth']}x${row['ImageHeight']}`)).toEqual(
    expected,
  );
  expect(table.every((row) => /^\(\d+, \d+\)$/.test(row['cell_center']!))).toBe(true);
  expect({ images, cells, withoutCells }).toEqual({
    images: validationIds(1).length,
    cells: expected.length,
    withoutCells: [],
  });
});

test('the holdout is every image of the table, by the mean of all weights', async () => {
  const { path, images } = await oof({ fold: 0, weightsFiles: weights });
  expect(path.endsWith('holdout.csv')).toBe(true);
  expect(images).toBe(10);
  const twice = await oof({ fold: 0, weightsFiles: [weights[0]!, weights[0]!], oofFolder: 'twice' });
  const once = await oof({ fold: 0, weightsFiles: [weights[0]!], oofFolder: 'once' });
  expect(readFileSync(twice.path, 'utf8')).toBe(readFileSync(once.path, 'utf8'));
  expect(readFileSync(twice.path, 'utf8')).not.toBe(readFileSync(path, 'utf8'));
});

test('results do not depend on the batch size, nor on where images are read from', async () => {
  const all = readFileSync((await oof()).path, 'utf8');
  const single = readFileSync((await oof({ batchSize: 1, oofFolder: 'single' })).path, 'utf8');
  const near = (a: string, b: string) =>
    a
      .split(',')
      .every((text, i) => Math.abs(Number(text) - Number(b.split(',')[i])) < 1e-5 || text === b.split(',')[i]);
  single.split('\n').forEach((line, i) => expect(near(line, all.split('\n')[i]!)).toBe(true));
  const pngs = await oof({ factory: 'None', imagesFolder: join(small.folder, 'images'), oofFolder: 'pngs' });
  expect(readFileSync(pngs.path, 'utf8')).toBe(all);
});

test('a run that is stopped leaves no table', async () => {
  const controller = new AbortController();
  const reason = new Error('enough');
  const stopped = oof({
    batchSize: 1,
    oofFolder: 'aborted',
    signal: controller.signal,
    onProgress: () => controller.abort(reason),
  });
  await expect(stopped).rejects.toBe(reason);
  const [folder] = readdirSync(join(small.folder, 'aborted'));
  expect(readdirSync(join(small.folder, 'aborted', folder!))).toEqual([]);
});

test('an image without cells has no row and is told', async () => {
  const masks = join(small.folder, 'empty');
  mkdirSync(masks);
  const [first, ...others] = validationIds(1);
  for (const id of others) copyFileSync(join(small.folder, 'masks', `${id}.png`), join(masks, `${id}_mask.png`));
  const nothing = { create: { width: SIZE, height: SIZE, channels: 3 as const, background: 'black' } };
  await sharp(nothing)
    .toColourspace('b-w')
    .png()
    .toFile(join(masks, `${first!}_predictedmask.png`));
  const { path, withoutCells } = await oof({ masks: 'empty', oofFolder: 'without' });
  expect(withoutCells).toEqual([first]);
  expect(rows(path).some((row) => row['ID'] === first)).toBe(false);
  expect(new Set(rows(path).map((row) => row['ID']))).toEqual(new Set(others));
});
