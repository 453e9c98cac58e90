import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { generateOof, readLabels, readWeights, stratifiedFolds, trainFolds, type TrainEvent } from '../../dist';
import { makeSmallSet, type SmallSet } from './small_set';

let small: SmallSet;
let files: Awaited<ReturnType<typeof trainFolds>>;
const events: TrainEvent[] = [];

beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-train-')), 12);
  files = await trainFolds({ ...small.options, onEvent: (event) => events.push(event) });
});
afterAll(() => rmSync(small.folder, { recursive: true }));

function table(path: string): Record<string, string>[] {
  return parse(readFileSync(path, 'utf8'), { columns: true });
}

describe('wrong options are refused before any work', () => {
  test.each([
    ['a crop that tiles would not agree on', { cropSize: 32 }, 'ERR_INVALID_ARG', 'cropSize'],
    ['an image size that is no multiple of 64', { imageSize: 100 }, 'ERR_INVALID_ARG', 'multiple of 64'],
    ['one fold', { folds: 1 }, 'ERR_INVALID_ARG', 'folds'],
    ['more folds than images', { folds: 13 }, 'ERR_INVALID_ARG', 'folds'],
    ['a first fold beyond the last', { resumeFold: 3 }, 'ERR_INVALID_ARG', 'resumeFold'],
    ['a rate of 0', { lr: 0 }, 'ERR_INVALID_ARG', 'lr'],
    ['an unknown backbone', { backbone: 'resnet19' }, 'ERR_INVALID_ARG', 'resnet18'],
    ['a stage with a slash', { stage: '../a' }, 'ERR_INVALID_ARG', 'stage'],
    ['half precision on the CPU', { precision: 'fp16' as const }, 'ERR_INVALID_ARG', 'precision'],
    ['a device that is not there', { device: 'cuda:7' as const }, 'ERR_INVALID_ARG', 'cuda:7'],
    ['a missing table', { labelsFile: 'nothing.csv' }, 'ERR_FILE_NOT_FOUND', 'looked at'],
    ['images that were dumped at another size', { imageSize: 128 }, 'ERR_FILE_NOT_FOUND', 'images_128.hdf5'],
    ['a stage that was never trained', { stage: 'stage2', pretrainedStage: 'stage0' }, 'ERR_FILE_NOT_FOUND', 'stage0'],
  ])('%s', async (_, wrong, code, message) => {
    const run = trainFolds({ ...small.options, ...wrong });
    await expect(run).rejects.toMatchObject({ code, message: expect.stringContaining(message) as string });
  });

  test('an id of the table that the HDF5 file lacks', async () => {
    writeFileSync(join(small.folder, 'more.csv'), 'ID,Label\nfield_0001,0\nnobody,1\nfield_0002,2\n');
    const run = trainFolds({ ...small.options, labelsFile: 'more.csv' });
    await expect(run).rejects.toMatchObject({
      code: 'ERR_HDF5',
      message: expect.stringContaining('nobody') as string,
    });
  });
});

describe('a finished run', () => {
  test('leaves the files of the original in its folders', () => {
    const name = 'siamese_resnet18_64_64_RGBY_fp32_CV2_v3.0';
    for (const [i, fold] of files.entries()) {
      expect(fold.folder).toBe(join(small.folder, 'models', name, `fold${i + 1}`, 'stage1', 'snapshots'));
      expect(readdirSync(fold.folder).sort()).toEqual(
        [
          'last.safetensors',
          'model_best.safetensors',
          `oof_${i + 1}.csv`,
          'train.csv',
          'train.png',
          'valid.csv',
        ].sort(),
      );
    }
  });

  test('predicts every image once, by the model that did not train on it', () => {
    const { ids, labels } = readLabels(join(small.folder, 'labels.csv'), { spec: small.set.spec });
    const folds = stratifiedFolds(labels, { folds: 2, seed: 7 });
    files.forEach(({ oof }, i) => {
      const expected = ids.filter((_, row) => folds[row] === i + 1);
      expect(table(oof).map((row) => row['ID'])).toEqual(expected);
    });
    const written = table(
      join(small.folder, 'models', 'siamese_resnet18_64_64_RGBY_fp32_CV2_v3.0', 'folds_stage1.csv'),
    );
    expect(written.map((row) => [row['ID'], Number(row['fold'])])).toEqual(ids.map((id, row) => [id, folds[row]]));
  });

  test('writes probabilities and figures of every epoch that are finite', () => {
    for (const { oof, train, valid } of files) {
      for (const row of table(oof)) {
        const values = small.set.spec.classes.map((name) => Number(row[name]));
        expect(values.every((p) => p > 0 && p < 1)).toBe(true);
      }
      for (const path of [train, valid]) {
        const rows = table(path);
        expect(rows.map((row) => row['epoch'])).toEqual(['1', '2']);
        expect(Object.keys(rows[0]!)).toEqual(['epoch', 'lr', 'loss', 'full', 'tiled', 'l1', 'f1', 'mAP']);
        expect(rows.every((row) => Object.values(row).every((value) => Number.isFinite(Number(value))))).toBe(true);
      }
    }
  });

  test('the loss is the sum of its parts and the best weights are those of the lowest validation loss', () => {
    for (const { valid } of files) {
      for (const row of table(valid)) {
        const sum = Number(row['full']) + Number(row['tiled']) + 0.5 * Number(row['l1']);
        expect(sum / Number(row['loss'])).toBeCloseTo(1, 5);
      }
    }
    const done = events.filter((event) => event.kind === 'done');
    done.forEach(({ best }, i) => {
      const losses = table(files[i]!.valid).map((row) => Number(row['loss']));
      expect(best.loss).toBeCloseTo(Math.min(...losses), 6);
    });
  });

  test('tells what happens in order', () => {
    const kinds = events.filter(({ kind }) => kind !== 'step').map(({ kind, fold }) => `${kind} ${fold}`);
    const fold = (k: number) => [`fold ${k}`, `epoch ${k}`, `epoch ${k}`, `done ${k}`];
    expect(kinds).toEqual([...fold(1), ...fold(2)]);
  });

  test('is left alone by the same call again', async () => {
    const before = files.map(({ best, last }) => [statSync(best).mtimeMs, statSync(last).mtimeMs]);
    const again = await trainFolds(small.options);
    expect(again).toEqual(files);
    expect(files.map(({ best, last }) => [statSync(best).mtimeMs, statSync(last).mtimeMs])).toEqual(before);
  });

  test('refuses to go on with other settings, and names them', async () => {
    await expect(trainFolds({ ...small.options, lr: 1e-3 })).rejects.toMatchObject({
      code: 'ERR_TRAINING',
      message: expect.stringMatching(/lr 0\.0003 instead of 0\.001/) as string,
    });
  });

  test("cells are predicted by the fold's own weights, and by no others", async () => {
    const { home, dataHome, labelsFile, backbone, spec, imageSize, cropSize, device, precision } = small.options;
    const o = {
      home,
      dataHome,
      labelsFile,
      backbone,
      spec,
      imageSize,
      cropSize,
      device,
      precision,
      folds: 2,
      masks: 'masks',
    } as const;
    const run = (fold: number, weights: string, seed = 7) =>
      generateOof({ ...o, fold, seed, metadataFile: 'meta.csv', weightsFiles: [weights] });
    const wrong = { code: 'ERR_INVALID_ARG', message: expect.stringContaining('never saw') as string };
    await expect(run(2, files[0]!.best)).rejects.toMatchObject(wrong);
    await expect(run(1, files[0]!.best, 8)).rejects.toMatchObject(wrong);
    expect((await run(1, files[0]!.best)).seen).toEqual([]);
    const { seen } = await run(0, files[0]!.best);
    expect(seen).toEqual(table(files[1]!.oof).map((row) => row['ID']));
  });

  test('a later stage starts from its best weights', async () => {
    const stage = { ...small.options, stage: 'stage2', pretrainedStage: 'stage1', epochs: 1, lr: 1e-12, resumeFold: 2 };
    const [second] = await trainFolds(stage);
    const [from, to] = [await readWeights(files[1]!.best), await readWeights(second!.best)];
    const name = 'cnn1.mclassifier.weight';
    const start = from[name]!.data as Float32Array;
    const worst = (to[name]!.data as Float32Array).reduce((most, v, i) => Math.max(most, Math.abs(v - start[i]!)), 0);
    expect(worst).toBeLessThan(1e-6);
    expect(existsSync(second!.oof)).toBe(true);
  });
});

describe('what ends a run', () => {
  const fresh = (stage: string) => ({ ...small.options, stage, resumeFold: 2 });

  test('a loss that is not a number, and nothing of it is kept', async () => {
    const run = trainFolds({ ...fresh('diverges'), lr: 1e30, epochs: 3 });
    await expect(run).rejects.toMatchObject({
      code: 'ERR_TRAINING',
      message: expect.stringContaining('not a finite number') as string,
    });
    const folder = files[1]!.folder.replace('stage1', 'diverges');
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test("an aborted signal's own reason", async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const run = trainFolds({
      ...fresh('aborted'),
      signal: controller.signal,
      onEvent: ({ kind }) => kind === 'epoch' && controller.abort(reason),
    });
    await expect(run).rejects.toBe(reason);
    const resumed = await trainFolds(fresh('aborted'));
    const best = (path: string) => readFileSync(path).toString('base64');
    const [straight] = await trainFolds(fresh('straight'));
    expect(best(resumed[0]!.best) === best(straight!.best)).toBe(true);
  });

  test('an HDF5 file that is cut short', async () => {
    const { hdf5 } = { hdf5: join(small.folder, 'train', 'images_64.hdf5') };
    const shard = join(`${hdf5}.shards`, readdirSync(`${hdf5}.shards`)[0]!);
    const whole = readFileSync(shard);
    writeFileSync(shard, whole.subarray(0, whole.length / 2));
    try {
      await expect(trainFolds(fresh('cut'))).rejects.toMatchObject({
        code: 'ERR_HDF5',
        message: expect.stringContaining(shard) as string,
      });
    } finally {
      writeFileSync(shard, whole);
    }
  });
});
