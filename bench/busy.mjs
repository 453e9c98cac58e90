// What share of the time training spends in steps when it reads HDF5 files and draws all of the augmentation: the time of a step on a batch
// in memory over that of a step in an epoch fed by the loader. The files have just been written, so no disk is measured. On CUDA also what
// nvidia-smi saw: the share of the time with a kernel running.
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
const { selectRows } = require('../dist/data/labels.js');
const { imageIndex } = require('../dist/data/image_index.js');
const { ImageLoader } = require('../dist/data/loader.js');
const { DEMO_SPEC, generateFields } = require('../dist/demo/fields.js');
const { native } = require('../dist/native.js');

const SIZE = 512;
const FIELDS = 24;
/** Steps between reports, as in training: at each the host waits for the device. Those before the first report do not count. */
const STEPS = 20;
const SAMPLE_MS = 100;

/** Drawn fields in an HDF5 file: where each is read from, and the table of their labels. */
async function makeSet(folder) {
  const { imagesFolder, labelsFile } = await generateFields({ folder, fields: FIELDS, size: SIZE, seed: 1 });
  const hdf5Output = path.join(folder, `images_${SIZE}.hdf5`);
  const metaOutput = path.join(folder, 'meta.csv');
  await dumpImages({ imagesFolder, hdf5Output, metaOutput, imageSize: SIZE, spec: DEMO_SPEC });
  const table = readLabels(labelsFile, { spec: DEMO_SPEC });
  return { table, index: await imageIndex(table, { trainHome: folder, size: SIZE, spec: DEMO_SPEC }) };
}

/** Watches a GPU. @returns what ends it and says which share of the time a kernel ran; nothing without a GPU */
function watchGpu(device) {
  if (device === 'cpu') return () => undefined;
  const number = device.split(':')[1] ?? '0';
  const query = [`--id=${number}`, '--query-gpu=utilization.gpu', '--format=csv,noheader,nounits'];
  const child = spawn('nvidia-smi', [...query, `--loop-ms=${SAMPLE_MS}`], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.on('error', (error) => console.error(`nvidia-smi: ${error.message}`));
  child.stdout.on('data', (chunk) => (text += chunk));
  return () => {
    child.kill();
    const seen = text.split('\n').filter((line) => /^\d+$/.test(line.trim()));
    return seen.length > 0 ? seen.reduce((sum, line) => sum + Number(line), 0) / seen.length / 100 : undefined;
  };
}

/** Seconds of a step of an epoch that loader threads feed, and the GPU's share of them. `periods` of STEPS steps count. */
async function fed({ index, table }, { device, backbone, batch, crop, precision, periods }) {
  const model = await PuzzleCam.forSpec(DEMO_SPEC, { backbone, device });
  const trainer = new Trainer({ model, spec: DEMO_SPEC, precision });
  const loader = await ImageLoader.open(index, { batch, workers: Math.min(8, os.availableParallelism()) });
  const order = Int32Array.from({ length: (1 + periods) * STEPS * batch }, (_, i) => (i * 7) % FIELDS);
  const feed = loader.begin(order, 0);
  const reports = [];
  let stopWatching = () => undefined;
  let gpu;
  const onProgress = () => {
    reports.push(performance.now());
    if (reports.length === 1) stopWatching = watchGpu(device);
    if (reports.length === 1 + periods) gpu = stopWatching();
  };
  try {
    const { labels } = selectRows(table, order);
    await trainer.runFed(true, { feed, targets: labels, batch, size: SIZE }, { crop, reportEvery: STEPS, onProgress });
    return { seconds: (reports[periods] - reports[0]) / 1e3 / (periods * STEPS), gpu };
  } finally {
    stopWatching();
    feed.close();
    await loader.close();
    trainer.dispose();
    model.dispose();
  }
}

/** @param o as for measureNetwork; a step in memory is measured before and after those of the epoch */
export async function measureBusy(o) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'cellcam-busy-'));
  try {
    const set = await makeSet(folder);
    const [batch, crop, threads] = [Number(o.batch), Number(o.size), Number(o.threads)];
    native((a) => a.setThreads(threads));
    const alone = async () => (await measureNetwork({ ...o, what: 'train', modes: [], changes: [] }))[0].step_s;
    const before = await alone();
    const { seconds, gpu } = await fed(set, { ...o, batch, crop, periods: o.device === 'cpu' ? 1 : 5 });
    const share = median([before, await alone()]) / seconds;
    const seen = gpu === undefined ? '' : `, GPU busy ${(100 * gpu).toFixed(0)} %`;
    return [
      {
        what: 'busy',
        backbone: o.backbone,
        device: o.device,
        batch,
        size: crop,
        threads,
        share,
        ...(gpu === undefined ? {} : { gpu }),
        per_s: batch / seconds,
        step_s: seconds,
        note: `${(100 * share).toFixed(0)} % of it the step${seen}`,
      },
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
