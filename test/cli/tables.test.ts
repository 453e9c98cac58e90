import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Inspection, MergeResult } from '../../dist';
import { fixture } from '../reference_cases';
import { cellcam } from './run_cellcam';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cellcam-tables-'));
  const files = {
    'train.csv': 'ID,Label\na,8|5|0\nb,16\n',
    'public.csv': 'ID,Label,Cellline\nb,16,A549\nc,"Nucleoplasm,Cytosol",HeLa\nd,,HeLa\n',
    'holdout.csv': 'ID,Label\na,0\n',
    'spec.json': JSON.stringify({ classes: ['one', 'two'], channels: ['x'] }),
    'bad.csv': 'ID,Label\na,0\nb,one|19\n',
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
});
afterAll(() => rmSync(folder, { recursive: true }));

const run = (...args: string[]) => cellcam(args, { cwd: folder });

describe('one clear line and its exit code', () => {
  test.each([
    ['inspect without a file', ['inspect'], 2, /missing required argument 'files'/],
    ['inspect of a missing file', ['inspect', 'train.csv', 'lost.hdf5'], 1, /lost\.hdf5/],
    ['inspect of a wrong table', ['inspect', 'bad.csv'], 1, /bad\.csv:3: .*'one\|19'/],
    ['inspect of no table', ['inspect', 'spec.json'], 1, /spec\.json:\d/],
    ['labels without an output', ['labels', '--train_csv', 'train.csv'], 2, /--output/],
    ['labels without a table', ['labels', '--output', 'out.csv'], 2, /received none/],
    [
      'labels of a row without a label',
      ['labels', '--output', 'out.csv', '--external', 'public.csv'],
      1,
      /public\.csv:4/,
    ],
    ['labels over an input', ['labels', '--output', 'train.csv', '--train_csv', 'train.csv'], 2, /none of the inputs/],
  ])('%s', async (_, args, code, text) => {
    const ended = await run(...args);
    expect(ended).toMatchObject({ code, signal: null, stdout: '' });
    expect(ended.stderr.trim().split('\n').at(-1)).toMatch(text);
    expect(ended.stderr).not.toMatch(/^ +at /m);
  });
});

test('labels merges tables and says what it left out', async () => {
  const args = ['labels', '--output', 'out.csv', '--train_csv', 'train.csv', '--external', 'public.csv', '--holdout', 'holdout.csv', '--skip_unlabelled']; // prettier-ignore
  const ended = await run(...args);
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  expect(ended.stdout.trim().split('\n')).toEqual([
    'train.csv: 1 of 2 rows; left out: 1 held out',
    'public.csv: 1 of 3 rows; left out: 1 without a label, 1 in an earlier table',
    'out.csv: 2 images',
  ]);
  const written = readFileSync(join(folder, 'out.csv'), 'utf8').trim().split('\n');
  expect(written.map((line) => line.slice(0, 18))).toEqual([
    'ID,Label,ext,Nucle',
    'b,[16],default,0,0',
    'c,"[0, 16]",extern',
  ]);
  const json = JSON.parse((await run(...args, '--json')).stdout) as MergeResult;
  expect(json).toMatchObject({ event: 'done', images: 2, inputs: [{ heldOut: 1 }, { unlabelled: 1, inEarlier: 1 }] });
});

test('inspect prints aligned lines, also when files differ', async () => {
  const path = fixture('hdf5', 'dump8_many.hdf5');
  const ended = await run('inspect', 'train.csv', path, '--hash');
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  expect(ended.stdout).toContain('train.csv: a table of 2 rows, 2 different IDs\n  columns ');
  expect(ended.stdout).toMatch(/^ {2}Nucleoplasm +1 +50\.00 %$/m);
  expect(ended.stdout).toMatch(/^ {2}classes without an image +Nuclear membrane, Nucleoli,/m);
  expect(ended.stdout).toMatch(/^ {2}shapes +8 × 8 × 4: 23$/m);
  expect(ended.stdout).toMatch(/^ {2}same pixels +0 groups$/m);
  expect(ended.stdout).toMatch(/^ {2}only in train\.csv +2 \(a, b\)$/m);
  expect(ended.stdout).toMatch(/^ {2}only in .*many\.hdf5 +23 \((\S+, ){5}…\)$/m);
  const widths = ended.stdout.match(/^ {2}(shapes|dtypes|shards|unreadable) +/gm)!.map((text) => text.length);
  expect(new Set(widths).size).toBe(1);
});

test('inspect as one JSON object, against another file, with other classes', async () => {
  writeFileSync(join(folder, 'small.csv'), 'ID,Label\na,one\nz,"one,two"\n');
  // Of the other file, whose labels are not of these classes, only the IDs are read.
  const { stdout } = await run('inspect', 'small.csv', '--against', 'train.csv', '--spec', 'spec.json', '--json');
  const { files, comparisons } = JSON.parse(stdout) as Inspection;
  expect(files).toHaveLength(1);
  expect(files[0]).toMatchObject({ labels: { absent: [], perImage: { 1: 1, 2: 1 } } });
  expect(comparisons).toEqual([
    { a: 'small.csv', b: 'train.csv', both: 1, onlyA: { count: 1, first: ['z'] }, onlyB: { count: 1, first: ['b'] } },
  ]);
});
