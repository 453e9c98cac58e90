// Reading shuffled batches of 36 images of 512² with 2 workers, beside h5py in a torch DataLoader with 2 workers on the same file.
// Usage: node bench/loader.mjs [--python PYTHON] [--images 768] [--json]   makes a file of that many uint8 images, then one of float32.
import { spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { median, peerScript, ratios, show, start } from './report.mjs';

const require = createRequire(import.meta.url);
const { ShardWriter } = require('../dist/data/hdf5.js');
const { imageIndex } = require('../dist/data/image_index.js');
const { ImageLoader } = require('../dist/data/loader.js');
const { HPA } = require('../dist/data/dataset_spec.js');

const { values: o } = parseArgs({
  options: {
    python: { type: 'string' },
    images: { type: 'string', default: '768' },
    json: { type: 'boolean', default: false },
  },
});
start(o.json);
const SIZE = 512;
const BATCH = 36;
const WORKERS = 2;
const ROUNDS = 3;
const PASSES = 4;

async function makeFile(file, count, dtype) {
  const values = SIZE * SIZE * 4;
  const noise = randomFillSync(new Uint8Array(values));
  const pixels = dtype === 'uint8' ? noise : Float32Array.from(noise, (v) => v / 255);
  const writer = await ShardWriter.create(file);
  const ids = Array.from({ length: count }, (_, i) => `image-${i}`);
  for (const id of ids) await writer.add(id, pixels, [SIZE, SIZE, 4], [SIZE, SIZE]);
  await writer.close();
  return ids;
}

function shuffled(count) {
  const order = Int32Array.from({ length: count * PASSES }, (_, i) => i % count);
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Images a second of a loader that is already open, as the peer's workers are. */
async function own(loader, order) {
  const begin = performance.now();
  let read = 0;
  for await (const { images: batch } of loader.read(order)) read += batch.shape[0];
  return (1e3 * read) / (performance.now() - begin);
}

function peer(file, count) {
  const args = [
    peerScript('loader'),
    file,
    '--batch',
    String(BATCH),
    '--workers',
    String(WORKERS),
    '--images',
    String(count),
  ];
  const { status, stdout, stderr } = spawnSync(o.python, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${o.python} failed: ${stderr}`);
  return JSON.parse(stdout).images_per_second;
}

async function compare(folder, dtype, count) {
  const file = path.join(folder, `images_${SIZE}.hdf5`);
  const ids = await makeFile(file, count, dtype);
  const table = { ids, ext: ids.map(() => 'default'), path: 'the bench' };
  const index = await imageIndex(table, { trainHome: folder, size: SIZE, spec: HPA });
  const loader = await ImageLoader.open(index, { batch: BATCH, workers: WORKERS });
  const rates = { own: [], peer: [] };
  try {
    await own(loader, shuffled(count)); // starts the threads, warms the file
    for (let round = 0; round < ROUNDS; round++) {
      rates.own.push(await own(loader, shuffled(count)));
      if (o.python) rates.peer.push(peer(file, count * PASSES));
    }
  } finally {
    await loader.close();
    rmSync(file);
  }
  const result = (rate) => ({ what: `loader ${dtype}`, workers: WORKERS, size: SIZE, per_s: rate, step_s: 1 / rate });
  show([{ ...result(median(rates.own)), note: `${SIZE}², ${WORKERS} workers` }]);
  if (!o.python) return;
  const seconds = (list) => list.map((rate) => 1 / rate);
  show([
    {
      ...result(median(rates.peer)),
      peer: 'h5py in a torch DataLoader',
      ...ratios(seconds(rates.own), seconds(rates.peer)),
    },
  ]);
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'cellcam-bench-'));
try {
  await compare(folder, 'uint8', Number(o.images));
  await compare(folder, 'float32', Math.ceil(Number(o.images) / 3));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
