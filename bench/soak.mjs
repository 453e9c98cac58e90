// Loading 100,000 images for 3 epochs without a model: memory, open files and what was read, epoch by epoch.
// Usage: node bench/soak.mjs [images] [epochs]   makes images of 16² in shards of 512; their first bytes hold their row. Fails on a wrong row,
// on memory that grows after the first epoch by more than 32 MB, and on a growing number of open files.
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';

const require = createRequire(import.meta.url);
const { ShardWriter, writeIndex } = require('../dist/data/hdf5.js');
const { imageIndex } = require('../dist/data/image_index.js');
const { ImageLoader } = require('../dist/data/loader.js');
const { drawSamples, sampleWeights } = require('../dist/training/sample_weights.js');
const { HPA } = require('../dist/data/dataset_spec.js');

const [images, epochs] = [Number(process.argv[2] ?? 100_000), Number(process.argv[3] ?? 3)];
const SIZE = 16;
const SHARD = 512;
const ALLOWED_GROWTH = 32; // MB

const elapsed = (start) => `${((performance.now() - start) / 1e3).toFixed(1)} s`;

async function makeSet(folder) {
  const ids = Array.from({ length: images }, (_, row) => `id-${String(row).padStart(7, '0')}`);
  const links = new Map();
  mkdirSync(path.join(folder, 'shards'));
  for (let first = 0; first < images; first += SHARD) {
    const file = path.join(folder, 'shards', `${first}.hdf5`);
    const writer = await ShardWriter.create(file);
    for (let row = first; row < Math.min(first + SHARD, images); row++) {
      const pixels = new Uint8Array(SIZE * SIZE * 4);
      new DataView(pixels.buffer).setUint32(0, row, true);
      await writer.add(ids[row], pixels, [SIZE, SIZE, 4], [SIZE, SIZE]);
      links.set(ids[row], file);
    }
    await writer.close();
  }
  await writeIndex(path.join(folder, `images_${SIZE}.hdf5`), links);
  return ids;
}

/** One to three classes an image, some of them rare. */
function labels() {
  const classes = HPA.classes.length;
  const data = new Uint8Array(images * classes);
  for (let row = 0; row < images; row++) {
    for (let k = 0; k <= row % 3; k++)
      data[row * classes + ((row * (k + 1) * 7919) % (row % 50 === 0 ? classes : 5))] = 1;
  }
  return { data, shape: [images, classes] };
}

async function epochOf(loader, order) {
  let position = 0;
  for await (const { images: batch } of loader.read(order)) {
    const view = new DataView(batch.data.buffer, batch.data.byteOffset);
    const bytes = batch.data.length / batch.shape[0];
    for (let i = 0; i < batch.shape[0]; i++) {
      const row = view.getUint32(i * bytes, true);
      if (row !== order[position]) throw new Error(`Expected row ${order[position]} at ${position} but found ${row}`);
      position++;
    }
  }
  if (position !== order.length) throw new Error(`Expected ${order.length} images but ${position} came`);
}

const megabytes = () => Math.round(process.memoryUsage().rss / 2 ** 20);
const openFiles = () => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0);

const folder = mkdtempSync(path.join(os.tmpdir(), 'cellcam-soak-'));
try {
  let start = performance.now();
  const ids = await makeSet(folder);
  console.log(`${images} images written: ${elapsed(start)}, ${megabytes()} MB`);
  start = performance.now();
  const table = { ids, ext: ids.map(() => 'default'), path: 'the soak' };
  const index = await imageIndex(table, { trainHome: folder, size: SIZE, spec: HPA });
  console.log(`checked and located: ${elapsed(start)}, ${megabytes()} MB`);
  const weights = sampleWeights(labels());
  const loader = await ImageLoader.open(index, { batch: 36, workers: 2 });
  const seen = [];
  try {
    for (let epoch = 1; epoch <= epochs; epoch++) {
      start = performance.now();
      await epochOf(loader, drawSamples(weights, images, epoch));
      globalThis.gc?.();
      seen.push({ memory: megabytes(), files: openFiles() });
      console.log(
        `epoch ${epoch}: ${elapsed(start)}, every draw in its place, ${seen.at(-1).memory} MB, ${seen.at(-1).files} files open`,
      );
    }
  } finally {
    await loader.close();
  }
  const [first, last] = [seen[0], seen.at(-1)];
  if (last.memory > first.memory + ALLOWED_GROWTH)
    throw new Error(`memory grew from ${first.memory} to ${last.memory} MB`);
  if (last.files > first.files) throw new Error(`open files grew from ${first.files} to ${last.files}`);
  if (openFiles() > first.files) throw new Error('files stay open');
} finally {
  rmSync(folder, { recursive: true, force: true });
}
