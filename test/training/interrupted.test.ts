// Training that is killed, interrupted or left behind, by real signals to real processes.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readState } from '../../dist/training/snapshots';
import { cellcam, runNode, type Ended } from '../cli/run_cellcam';
import { makeSmallSet, type SmallSet } from './small_set';

const PACKAGE = join(__dirname, '..', '..', 'dist');
const EPOCHS = 3;

let small: SmallSet;
let straight: string;

beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-interrupted-')), 48);
  expect(await train('straight')).toMatchObject({ code: 0, signal: null });
  straight = digest('straight');
});
afterAll(() => rmSync(small.folder, { recursive: true }));

function snapshots(stage: string): string {
  return join(small.folder, 'models', 'siamese_resnet18_64_64_RGBY_fp32_CV2_v3.0', 'fold2', stage, 'snapshots');
}

/** Of best weights and state, which holds the stage's name: all have eight letters here. */
function digest(stage: string): string {
  const digests = ['model_best.safetensors', 'last.safetensors'].map((name) => {
    const bytes = readFileSync(join(snapshots(stage), name));
    const at = name === 'last.safetensors' ? bytes.indexOf(stage) : 0;
    return createHash('sha256')
      .update(bytes.subarray(0, at))
      .update(bytes.subarray(at + stage.length))
      .digest('hex');
  });
  return digests.join(' ');
}

/** Trains fold 2; `signal` is sent in the middle of the second epoch, some steps after the first one's end. */
function train(stage: string, signal?: NodeJS.Signals, largestFile?: number): Promise<Ended> {
  const args = [...small.args, '--epochs', `${EPOCHS}`, '--batch_size', '2', '--resume_fold', '2', '--stage', stage];
  return cellcam(['train', ...args, '--json'], {
    largestFile,
    onLine: (line, child) => {
      if (signal && line.includes('"event":"epoch"')) setTimeout(() => child.kill(signal), 250);
    },
  });
}

async function epochsDone(stage: string): Promise<{ epoch: number; tally: boolean }> {
  const { notes, tally } = await readState(join(snapshots(stage), 'last.safetensors'));
  return { epoch: notes['epoch'] as number, tally: tally !== null };
}

test('kill -9 in the middle of an epoch: the same command again ends with the same bits', async () => {
  expect(await train('killed__', 'SIGKILL')).toMatchObject({ signal: 'SIGKILL' });
  expect(await epochsDone('killed__')).toEqual({ epoch: 1, tally: false });
  expect(await train('killed__')).toMatchObject({ code: 0 });
  expect(digest('killed__')).toBe(straight);
});

test.each([
  ['SIGINT', 'sig__int'],
  ['SIGTERM', 'sig_term'],
] as const)('%s saves the middle of the epoch, from which the same bits come', async (signal, stage) => {
  const ended = await train(stage, signal);
  expect(ended).toMatchObject({ code: 130, signal: null });
  expect(ended.stderr).toContain('the same command goes on');
  expect(await epochsDone(stage)).toEqual({ epoch: 1, tally: true });
  expect(await train(stage)).toMatchObject({ code: 0 });
  expect(digest(stage)).toBe(straight);
});

test('a disk that is full when the state is saved: one line, nothing half-written, and later the same bits', async () => {
  expect(await train('diskfull', 'SIGKILL')).toMatchObject({ signal: 'SIGKILL' });
  const ended = await train('diskfull', undefined, 100e6); // the weights have 45 MB, the state 134 MB
  expect(ended).toMatchObject({ code: 1, signal: null });
  expect(ended.stderr.trim()).toMatch(/^cellcam: could not write .*last\.safetensors: EFBIG.*$/);
  expect(readdirSync(snapshots('diskfull')).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  expect(await epochsDone('diskfull')).toEqual({ epoch: 1, tally: false });
  expect(await train('diskfull')).toMatchObject({ code: 0 });
  expect(digest('diskfull')).toBe(straight);
});

test('a process may exit in the middle of training', async () => {
  const program = `
    const { trainFolds } = require(${JSON.stringify(PACKAGE)});
    trainFolds({ ...${JSON.stringify(small.options)}, stage: 'left', resumeFold: 2,
      onEvent: ({ kind }) => { if (kind === 'epoch') setTimeout(() => process.exit(7), 100); } });`;
  expect(await runNode(['-e', program])).toMatchObject({ code: 7, signal: null, stderr: '' });
});

test('a worker thread may be terminated in the middle of training', async () => {
  const inner = `
    const { trainFolds } = require(${JSON.stringify(PACKAGE)});
    const { parentPort } = require('node:worker_threads');
    trainFolds({ ...${JSON.stringify(small.options)}, stage: 'dropped', resumeFold: 2,
      onEvent: ({ kind }) => kind === 'epoch' && parentPort.postMessage(kind) });`;
  const program = `
    const { Worker } = require('node:worker_threads');
    const worker = new Worker(${JSON.stringify(inner)}, { eval: true });
    worker.once('message', () => setTimeout(async () => { await worker.terminate(); console.log('terminated'); }, 100));`;
  expect(await runNode(['-e', program])).toMatchObject({ code: 0, signal: null, stdout: 'terminated\n', stderr: '' });
});
