import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { fixture } from '../reference_cases';
import { makeSmallSet, type SmallSet } from '../training/small_set';
import { cellcam } from './run_cellcam';

let small: SmallSet;
beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-cli-')), 8);
});
afterAll(() => rmSync(small.folder, { recursive: true }));

/** What a user sees of an error: one line. */
async function fails(args: string[], code: number, text: RegExp): Promise<void> {
  const ended = await cellcam(args, { cwd: small.folder });
  expect(ended).toMatchObject({ code, signal: null });
  expect(ended.stderr.trim().split('\n').at(-1)).toMatch(text);
  expect(ended.stderr).not.toMatch(/^ +at /m);
}

describe('wrong usage exits with 2', () => {
  test.each([
    ['no such command', ['walk'], /unknown command 'walk'/],
    ['no such option', ['train', '--learning_rate', '1'], /unknown option '--learning-rate'/],
    ['an option without its value', ['oof', '--fold'], /argument missing/],
    ['a word for a number', ['train', '--epochs', 'many'], /'many'/],
    ['a number out of range', ['train', '--folds', '1', '--labels_file', 'labels.csv'], /folds/],
    ['a wrong choice', ['train', '--factory', 'TIFF'], /HDF5, None/],
    ['a dump without its output', ['dump', '--images_folder', 'images'], /hdf5-output/],
  ])('%s', async (_, args, text) => {
    const ended = await cellcam(args, { cwd: small.folder, env: { DATA_HOME: small.folder } });
    expect(ended).toMatchObject({ code: 2, signal: null });
    expect(ended.stderr).toMatch(text);
  });
});

test('--version and --help exit with 0', async () => {
  expect(await cellcam(['--version'])).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
  });
  const help = await cellcam(['train', '--help']);
  expect(help.code).toBe(0);
  expect(help.stdout).toContain('--pretrained-stage');
});

test('a missing table is named with the places looked at; --debug shows the stack', async () => {
  await fails(
    ['train', '--home', small.folder, '--labels_file', 'lost.csv'],
    1,
    /lost\.csv.*data\/lost\.csv.*lost\.csv/,
  );
  const debug = await cellcam(['train', '--labels_file', 'lost.csv', '--debug'], { cwd: small.folder });
  expect(debug.stderr).toMatch(/^ +at /m);
});

test('train and oof by the original names of options', async () => {
  const trained = await cellcam([
    'train',
    ...small.args,
    '--epochs',
    '1',
    '--mtype',
    'siamese',
    '--additional_labels_file',
    'None',
  ]);
  expect(trained).toMatchObject({ code: 0, signal: null });
  expect(trained.stdout).toMatch(/fold 2: best epoch 1/);
  const best = join(
    small.folder,
    'models',
    'siamese_resnet18_64_64_RGBY_fp32_CV2_v3.0',
    'fold1',
    'stage1',
    'snapshots',
    'model_best.safetensors',
  );
  const taken = ['--epochs', '--workers', '--crop_size'];
  const args = small.args.filter((word, i) => !taken.includes(word) && !taken.includes(small.args[i - 1]!));
  const oof = ['oof', ...args, '--fold', '1', '--metadata_file', 'meta.csv', '--weights_files', best];
  expect(await cellcam(oof, { cwd: small.folder })).toMatchObject({ code: 0 }); // segments the fields itself
  const predicted = await cellcam([...oof, '--masks', 'masks', '--json'], { cwd: small.folder });
  expect(predicted).toMatchObject({ code: 0, signal: null });
  const done = JSON.parse(predicted.stdout.trim().split('\n').at(-1)!) as {
    event: string;
    path: string;
    cells: number;
  };
  expect(done.event).toBe('done');
  expect(readFileSync(done.path, 'utf8').trim().split('\n').length).toBe(done.cells + 1);
});

test('training from PNGs', async () => {
  const args = [
    ...small.args,
    '--factory',
    'None',
    '--images_folder',
    'images',
    '--epochs',
    '1',
    '--stage',
    'pngs',
    '--resume_fold',
    '2',
  ];
  expect(await cellcam(['train', ...args])).toMatchObject({ code: 0, signal: null });
  await fails(['train', ...small.args, '--factory', 'None', '--stage', 'lost'], 1, /train\/images/);
});

test('a dump is verified, and previewed', async () => {
  const dump = [
    'dump',
    '--images_folder',
    'images',
    '--hdf5_output',
    'again.hdf5',
    '--size',
    '64',
    '--verify',
    '--json',
  ];
  const dumped = await cellcam([...dump, '--spec', 'spec.json'], { cwd: small.folder });
  expect(dumped).toMatchObject({ code: 0, stderr: '' });
  const events = dumped.stdout.trim().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>); // prettier-ignore
  expect(events.at(-1)).toEqual({ event: 'verified', damaged: [] });
  const preview = ['preview', 'again.hdf5', '--output', 'out/preview.png', '--images', '2', '--draws', '1'];
  const drawn = await cellcam([...preview, '--spec', 'spec.json', '--device', 'cpu'], { cwd: small.folder });
  expect(drawn).toMatchObject({ code: 0, stderr: '', stdout: 'out/preview.png: 2 images, 2 augmented crops\n' });
  expect((await sharp(join(small.folder, 'out', 'preview.png')).metadata()).format).toBe('png');
});

test('a dump lists the fields it refuses, keeps the others and exits with 1', async () => {
  const images = join(small.folder, 'mixed');
  mkdirSync(images);
  const channels = ['red', 'green', 'blue', 'yellow'];
  const copy = (id: string, as: string): void =>
    channels.forEach((c) =>
      copyFileSync(join(small.folder, 'images', `${id}_${c}.png`), join(images, `${as}_${c}.png`)),
    );
  for (const name of ['good', 'missing', 'colour', 'unequal', 'truncated']) copy('field_0001', name);
  rmSync(join(images, 'missing_blue.png'));
  const plain = (width: number): sharp.Sharp =>
    sharp({ create: { width, height: 64, channels: 3, background: 'red' } });
  await plain(64).png().toFile(join(images, 'colour_green.png'));
  await plain(32).toColourspace('b-w').png().toFile(join(images, 'unequal_yellow.png'));
  const whole = readFileSync(join(images, 'truncated_red.png'));
  writeFileSync(join(images, 'truncated_red.png'), whole.subarray(0, whole.length / 2));
  const args = [
    'dump',
    '--images_folder',
    'mixed',
    '--hdf5_output',
    'out/mixed.hdf5',
    '--image_size',
    '64',
    '--meta_output',
    'out/meta.csv',
  ];
  const ended = await cellcam(args, { cwd: small.folder });
  expect(ended).toMatchObject({ code: 1, signal: null });
  for (const file of ['missing_blue.png', 'colour_green.png', 'unequal', 'truncated_red.png'])
    expect(ended.stderr).toContain(file);
  expect(readFileSync(join(small.folder, 'out', 'meta.csv'), 'utf8')).toBe('ID,ImageHeight,ImageWidth\ngood,64,64\n');
  expect(
    readdirSync(join(small.folder, 'out'))
      .filter((name) => name !== 'preview.png')
      .sort(),
  ).toEqual(['meta.csv', 'mixed.hdf5', 'mixed.hdf5.manifest.json', 'mixed.hdf5.shards']);
  expect(existsSync(join(small.folder, 'out', 'mixed.hdf5.shards', '00000.hdf5'))).toBe(true);
});

test('weights are converted both ways and listed; backbones are listed', async () => {
  const given = fixture('weights', 'tiny_zip.pt');
  const [there, back] = ['there.safetensors', 'back.pt'].map((name) => join(small.folder, name)) as [string, string];
  expect(await cellcam(['convert', given, there])).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('20 tensors') as string,
  });
  expect(await cellcam(['convert', there, back])).toMatchObject({ code: 0 });
  const listed = await cellcam(['convert', '--list', back]);
  expect(listed.stdout).toMatch(/^conv1\.weight +float32 +\(6, 4, 3, 3\)$/m);
  await fails(['convert', given], 2, /output/);
  await fails(['convert', fixture('weights', 'bad_malicious_zip.pt'), there], 1, /posix\.system/);
  const old = fixture('weights', 'tiny_old_dataparallel_legacy.pth');
  await fails(['convert', old, there], 1, /whole module/);
  expect(await cellcam(['convert', '--whole-module', old, there])).toMatchObject({ code: 0 });
  const backbones = await cellcam(['backbones', '--json']);
  const names = (JSON.parse(backbones.stdout) as { name: string }[]).map(({ name }) => name);
  expect(names).toEqual(['cspresnext50', 'gluon_seresnext101_32x4d', 'regnety_064', 'resnet18', 'seresnext50_32x4d']);
});
