// What share of the time training spends in steps when it reads HDF5 files and draws all of the augmentation: the time of a step on a batch
// in memory over that of a step in an epoch fed by the loader. On CUDA also what nvidia-smi saw: the share of the time with a kernel running.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { measureNetwork } from './network.mjs';
import { median } from './report.mjs';

const require = createRequire(import.meta.url);
const { PuzzleCam, Trainer, dumpImages, readLabels } = require('../dist/index.js');
const { imageIndex } = require('../dist/data/image_index.js');
const { ImageLoader } = require('../dist/data/loader.js');
const { DEMO_SPEC, generateFields } = require('../dist/demo/fields.js');

const SIZE = 512;
const FIELDS = 24;
const WARM = 6; // steps that do not count: the first ones search for algorithms and record graphs
const SAMPLE_MS = 100;

/** Drawn fields in an HDF5 file: where each is read from, and its labels. */
async function makeSet(folder) {
  const set = await generateFields({ folder, fields: FIELDS, size: SIZE, seed: 1 });
  await dumpImages({
    imagesFolder: set.imagesFolder,
    hdf5Output: path.join(folder, `images_${SIZE}.hdf5`),
    metaOutput: path.join(folder, 'meta.csv'),
    imageSize: SIZE,
    spec: DEMO_SPEC,
  });
  const { ids, labels } = await readLabels(set.labelsFile, { spec: DEMO_SPEC });
  const table = { ids, ext: ids.map(() => 'default'), path: set.labelsFile };
  return { index: await imageIndex(table, { trainHome: folder, size: SIZE, spec: DEMO_SPEC }), labels };
}

/** What nvidia-smi says while it is watched, in per cent; nothing without a GPU. */
function watchGpu(device) {
  if (device === 'cpu') return () => undefined;
  const query = ['--query-gpu=utilization.gpu', '--format=csv,noheader,nounits', `--loop-ms=${SAMPLE_MS}`];
  const child = spawn('nvidia-smi', query, { stdio: ['ignore', 'pipe', 'inherit'] });
  const seen = [];
  child.on('error', (error) => console.error(`nvidia-smi: ${error.message}`));
  child.stdout.on('data', (text) => seen.push(...String(text).trim().split('\n').map(Number)));
  return () => {
    child.kill();
    return seen.length > 0 ? seen.reduce((a, b) => a + b) / seen.length / 100 : undefined;
  };
}

/** Seconds of a step of an epoch that loader threads feed, and the GPU's share of them. */
async function fed({ index, labels }, { device, backbone, batch, crop, steps, precision }) {
  const model = await PuzzleCam.forSpec(DEMO_SPEC, { backbone, device });
  const trainer = new Trainer({ model, spec: DEMO_SPEC, precision });
  const loader = await ImageLoader.open(index, { batch, workers: Math.min(8, os.availableParallelism()) });
  try {
    const classes = DEMO_SPEC.classes.length;
    const order = Int32Array.from({ length: (WARM + steps) * batch }, (_, i) => (i * 7) % FIELDS);
    const targets = new Uint8Array(order.length * classes);
    order.forEach((row, i) => targets.set(labels.data.subarray(row * classes, (row + 1) * classes), i * classes));
    const feed = loader.begin(order, 0);
    const times = [];
    let stopWatching;
    try {
      const onProgress = ({ step }) => {
        times.push(performance.now());
        if (step === WARM) stopWatching = watchGpu(device);
      };
      const shape = [order.length, classes];
      await trainer.runFed(
        true,
        { feed, targets: { data: targets, shape }, batch, size: SIZE },
        { crop, reportEvery: 1, onProgress },
      );
    } finally {
      feed.close();
    }
    const gpu = stopWatching?.();
    return { seconds: (times.at(-1) - times[WARM - 1]) / 1e3 / steps, gpu };
  } finally {
    await loader.close();
    trainer.dispose();
    model.dispose();
  }
}

/** @param o as for measureNetwork, `steps` per measurement */
export async function measureBusy(o) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'cellcam-busy-'));
  try {
    const set = await makeSet(folder);
    const batch = Number(o.batch);
    const alone = async () => (await measureNetwork({ ...o, what: 'train', modes: [] }))[0].step_s;
    const before = await alone();
    const { seconds, gpu } = await fed(set, { ...o, batch, crop: Number(o.size), steps: 20 });
    const share = median([before, await alone()]) / seconds;
    const seen = gpu === undefined ? {} : { gpu };
    const note = `${(100 * share).toFixed(0)} % of it the step${gpu === undefined ? '' : `, GPU busy ${(100 * gpu).toFixed(0)} %`}`;
    const result = {
      what: 'busy',
      backbone: o.backbone,
      device: o.device,
      batch,
      size: Number(o.size),
      share,
      ...seen,
    };
    return [{ ...result, per_s: batch / seconds, step_s: seconds, note }];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
