// Out-of-fold cells of drawn fields of 512², from HDF5 and masks to the table; start-up and the first batch do not count.
// Usage: node bench/oof.mjs [--python PYTHON] [--backbone NAME] [--device cpu] [--fields N] [--copies N] [--batch B] [--json]   python has torch, timm, h5py, scikit-image
import { spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { peerPrecision } from './network.mjs';
import { peerScript, show, start } from './report.mjs';

const require = createRequire(import.meta.url);
const { PuzzleCam, dumpImages, generateOof } = require('../dist/index.js');
const { DEMO_SPEC, generateFields } = require('../dist/demo/fields.js');
const { native } = require('../dist/native.js');
const { values: o } = parseArgs({
  options: {
    python: { type: 'string' },
    backbone: { type: 'string', default: 'seresnext50_32x4d' },
    device: { type: 'string', default: 'cpu' },
    fields: { type: 'string', default: '32' },
    copies: { type: 'string', default: '1' }, // of each field, under ids of their own: drawing takes longer than predicting
    batch: { type: 'string', default: '4' },
    json: { type: 'boolean', default: false },
  },
});
const SIZE = 512;
const BATCH = Number(o.batch);
const threads = os.availableParallelism();
const scratch = mkdtempSync(path.join(os.tmpdir(), 'cellcam-bench-'));
const at = (name) => path.join(scratch, name);

/** Links every image and mask under further ids, and repeats its labels. */
function multiply({ imagesFolder, masksFolder, labelsFile }) {
  const [header, ...rows] = readFileSync(labelsFile, 'utf8').trimEnd().split('\n');
  const ofCopy = (text, copy) => text.replace(/^field_/, `field_${copy}_`);
  const all = [...rows];
  for (let copy = 2; copy <= Number(o.copies); copy++) {
    all.push(...rows.map((row) => ofCopy(row, copy)));
    for (const folder of [imagesFolder, masksFolder]) {
      for (const name of readdirSync(folder).filter((n) => /^field_\d+[_.]\D/.test(n))) {
        linkSync(path.join(folder, name), path.join(folder, ofCopy(name, copy)));
      }
    }
  }
  writeFileSync(labelsFile, [header, ...all, ''].join('\n'));
}

async function prepare() {
  const set = await generateFields({ folder: scratch, fields: Number(o.fields), size: SIZE, seed: 1 });
  multiply(set);
  mkdirSync(at('train'));
  const hdf5 = at('train/images_512.hdf5');
  await dumpImages({
    imagesFolder: set.imagesFolder,
    hdf5Output: hdf5,
    metaOutput: at('meta.csv'),
    imageSize: SIZE,
    spec: DEMO_SPEC,
  });
  const model = await PuzzleCam.forSpec(DEMO_SPEC, { backbone: o.backbone, device: 'cpu' });
  await model.saveWeights(at('weights.safetensors'));
  model.dispose();
  return { set, hdf5 };
}

/** Seconds an image. */
async function own({ set }) {
  const times = [];
  const { cells } = await generateOof({
    home: scratch,
    dataHome: scratch,
    trainHome: at('train'),
    labelsFile: set.labelsFile,
    metadataFile: at('meta.csv'),
    masks: set.masksFolder,
    weightsFiles: [at('weights.safetensors')],
    fold: 0,
    backbone: o.backbone,
    spec: DEMO_SPEC,
    batchSize: BATCH,
    oofFolder: at('oof'),
    device: o.device,
    onProgress: ({ done }) => times.push({ done, now: performance.now() }),
  });
  const first = times.find(({ done }) => done >= BATCH);
  const last = times.at(-1);
  return { seconds: (last.now - first.now) / 1e3 / (last.done - first.done), cells };
}

function peer(mode, { set, hdf5 }) {
  const args = [
    '--hdf5',
    hdf5,
    '--masks',
    set.masksFolder,
    '--weights',
    at('weights.safetensors'),
    '--output',
    at('peer.csv'),
  ];
  const rest = [
    '--backbone',
    o.backbone,
    '--classes',
    DEMO_SPEC.classes.length,
    '--batch',
    BATCH,
    '--threads',
    threads,
    '--device',
    o.device,
  ];
  if (mode === 'tuned') {
    const { precision } = native((addon) => addon.resolve(o.device, 'auto'));
    rest.push('--precision', peerPrecision(precision));
  }
  const { status, stdout, stderr } = spawnSync(o.python, [peerScript('oof'), mode, ...args, ...rest], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${o.python} failed: ${stderr}`);
  const { images, seconds } = JSON.parse(stdout.trim().split('\n').at(-1));
  return seconds / images;
}

start(o.json);
try {
  const data = await prepare();
  const rounds = [await own(data)];
  const common = { what: 'oof', backbone: o.backbone, device: o.device, size: SIZE };
  show([
    {
      ...common,
      per_s: 1 / rounds[0].seconds,
      step_s: rounds[0].seconds,
      note: `${o.backbone}, ${rounds[0].cells} cells`,
    },
  ]);
  if (o.python) {
    for (const mode of ['eager', 'tuned']) {
      const seconds = peer(mode, data);
      const again = (await own(data)).seconds;
      const pair = [rounds[0].seconds, again].map((s) => seconds / s);
      show([
        {
          ...common,
          peer: `timm + scikit-image, ${mode}`,
          per_s: 1 / seconds,
          step_s: seconds,
          ratio: (pair[0] + pair[1]) / 2,
          lowest: Math.min(...pair),
          highest: Math.max(...pair),
        },
      ]);
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
