// Measures cellcam, beside what a user would run instead with --peer.
// Usage: npm run bench -- [train|infer|busy|curve|cells|loader|dump|oof|all] [--device cpu|cuda] [--peer] [--json] [--python PYTHON] [--images FOLDER]
//   of train, busy and infer: [--backbone NAME] [--batch B] [--crop S] [--size S] [--steps N] [--rounds N] [--threads N] [--precision P] [--modes eager,tuned,compiled]
//   of train and infer: [--beside CELLCAM_WINOGRAD=0,precision=fp32]: ours with each of these changes, in turns
//   of curve: [--backbone NAME] [--threads N] [--precision P] [--seeds 1,2]
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import os from 'node:os';
import path from 'node:path';
import { measureBusy } from './busy.mjs';
import { measureCurve } from './curve.mjs';
import { measureNetwork } from './network.mjs';
import { ROOT, show, start } from './report.mjs';

const { values: o, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: 'string', default: 'cpu' },
    peer: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    python: { type: 'string', default: 'python3' },
    images: { type: 'string' },
    backbone: { type: 'string', default: 'seresnext50_32x4d' },
    batch: { type: 'string' },
    crop: { type: 'string' },
    size: { type: 'string', default: '512' },
    steps: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: String(os.availableParallelism()) },
    precision: { type: 'string', default: 'auto' },
    modes: { type: 'string', default: 'eager,tuned,compiled' },
    beside: { type: 'string' },
    seeds: { type: 'string', default: '1,2' },
  },
});

const cuda = o.device !== 'cpu';
const networkOptions = (what) => ({
  what,
  ...o,
  batch: o.batch ?? (cuda && what === 'train' ? '36' : '4'),
  size: what === 'train' ? (o.crop ?? (cuda ? '384' : '192')) : o.size,
  rounds: Number(o.rounds),
  steps: Number(o.steps),
  modes: o.peer ? o.modes.split(',') : [],
  changes: o.beside?.split(',') ?? [],
});

/** A script of its own, which prints as this one does. */
function script(name, ...more) {
  const args = [path.join(ROOT, 'bench', name), ...more];
  if (o.peer) args.push('--python', o.python);
  if (o.json) args.push('--json');
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
  if (status !== 0) throw new Error(`bench/${name} failed`);
}

const measures = {
  train: () => measureNetwork(networkOptions('train')),
  infer: () => measureNetwork(networkOptions('infer')),
  busy: () => measureBusy(networkOptions('train')),
  curve: () => measureCurve({ ...o, python: o.peer ? o.python : undefined }),
  cells: () => script('cam_intersection.mjs'),
  oof: () => script('oof.mjs', '--backbone', o.backbone, '--device', o.device),
  loader: () => script('loader.mjs'),
  dump: () => script('dump.mjs', ...(o.images ? ['--images', o.images] : [])),
};

const asked =
  positionals.length === 0 || positionals.includes('all')
    ? Object.keys(measures).filter((name) => o.peer || name !== 'curve')
    : positionals;
const unknown = asked.find((name) => !Object.hasOwn(measures, name));
if (unknown === undefined) {
  start(o.json);
  for (const name of asked) show(await measures[name]());
} else {
  console.error(`Expected ${Object.keys(measures).join(', ')} or all but received '${unknown}'`);
  process.exitCode = 1;
}
