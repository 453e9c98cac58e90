// The three lines of the original's page, in order, on a small data set.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { dumpImages, planTraining } from '../../dist';
import { cellcam } from '../cli/run_cellcam';
import { makeSmallSet, SIZE, type SmallSet } from './small_set';

const FIRST = 10;
let small: SmallSet;

beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-stages-')), 16);
  const [header, ...rows] = readFileSync(join(small.folder, 'labels.csv'), 'utf8').trim().split('\n');
  const write = (name: string, part: string[]): void =>
    writeFileSync(join(small.folder, name), [header, ...part].join('\n'));
  write('train_cleaned_default_external.csv', rows.slice(0, FIRST));
  write('train_cleaned_2018.csv', rows.slice(FIRST));
  await dumpImages({
    imagesFolder: small.set.imagesFolder,
    hdf5Output: join(small.folder, 'train', `image_additional_${SIZE}.hdf5`), // as the original's page spells it
    imageSize: SIZE,
    spec: small.set.spec,
    ids: small.set.fields.slice(FIRST).map(({ id }) => id),
  });
});
afterAll(() => rmSync(small.folder, { recursive: true }));

const ADDITIONAL = ['--additional_labels_file', 'train_cleaned_2018.csv'];
const STAGES: [stage: string, gamma: string, more: string[]][] = [
  ['stage1', '0.50', []],
  ['stage2', '0.50', ['--stage', 'stage2', '--pretrained_stage', 'stage1', ...ADDITIONAL]],
  ['stage3', '0.25', ['--stage', 'stage3', '--pretrained_stage', 'stage1']],
];

function args(gamma: string, more: string[]): string[] {
  const own = small.args.slice();
  own[own.indexOf('--labels_file') + 1] = 'train_cleaned_default_external.csv';
  return [...own, '--factory', 'HDF5', '--gamma', gamma, '--epochs', '1', ...more];
}

/** Which fold validates each image. */
function folds(stage: string): Map<string, number> {
  const path = join(small.folder, 'models', 'siamese_resnet18_64_64_RGBY_fp32_CV2_v3.0', `folds_${stage}.csv`);
  const rows: { ID: string; fold: string }[] = parse(readFileSync(path, 'utf8'), { columns: true });
  return new Map(rows.map(({ ID, fold }) => [ID, Number(fold)]));
}

test('run one after the other; no fold validates what it was trained on in an earlier stage', async () => {
  for (const [, gamma, more] of STAGES) {
    expect(await cellcam(['train', ...args(gamma, more)])).toMatchObject({ code: 0, signal: null });
  }
  const [one, two, three] = STAGES.map(([stage]) => folds(stage)) as [
    Map<string, number>,
    Map<string, number>,
    Map<string, number>,
  ];
  expect([one.size, two.size, three.size]).toEqual([FIRST, 16, FIRST]);
  expect(three).toEqual(one);
  for (let k = 1; k <= 2; k++) {
    const trainedInFirst = [...one].filter(([, fold]) => fold !== k).map(([id]) => id);
    for (const id of trainedInFirst) expect(two.get(id)).not.toBe(k);
  }
});

test('a resumed fold starts at the one asked for; mtype regular has a folder of its own', async () => {
  const ended = await cellcam([
    'train',
    ...args('0.5', ['--mtype', 'regular', '--resume_fold', '2', '--dropout', '0.2']),
  ]);
  expect(ended).toMatchObject({ code: 0 });
  expect(ended.stdout).not.toContain('fold 1:');
  const path = join(
    small.folder,
    'models',
    'regular_resnet18_64_64_RGBY_fp32_CV2_v3.0',
    'fold2',
    'stage1',
    'snapshots',
    'valid.csv',
  );
  const [row]: Record<string, string>[] = parse(readFileSync(path, 'utf8'), { columns: true });
  expect([row!['tiled'], row!['l1']]).toEqual(['0', '0']);
  expect(row!['loss']).toBe(row!['full']);
});

test('--plan tells folds, classes, files and what has been done, and trains nothing', async () => {
  const planned = await cellcam([
    'train',
    ...args('0.5', ['--stage', 'stage4', '--pretrained_stage', 'stage1', ...ADDITIONAL, '--plan']),
  ]);
  expect(planned).toMatchObject({ code: 0, stderr: '' });
  expect(planned.stdout).toMatch(/fold 2: \d+ images to train on, \d+ to validate on; starts from .*fold2\/stage1/);
  const spec = { ...small.options, labelsFile: 'train_cleaned_default_external.csv', epochs: 1 };
  const outline = await planTraining(spec);
  expect(outline.folds.map(({ epochsDone }) => epochsDone)).toEqual([1, 1]);
  const labels = outline.folds.map(({ trainCounts, validCounts }) => trainCounts.map((n, c) => n + validCounts[c]!));
  expect(labels[0]).toEqual(labels[1]);
  expect(outline.folds.reduce((sum, { valid }) => sum + valid, 0)).toBe(FIRST);
});
