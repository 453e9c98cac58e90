import { randomBytes } from 'node:crypto';
import { truncateSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import sharp from 'sharp';
import { HPA } from '../../dist';
import { ShardWriter, writeIndex } from '../../dist/data/hdf5';
import { imageIndex } from '../../dist/data/image_index';
import { ImageLoader, type ImageIndex } from '../../dist/data/loader';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();
const SIZE = 8;
const IMAGES = 50;
const SHARD = 20;
const ids = Array.from({ length: IMAGES }, (_, row) => `id${row}`);

/** Images whose every value is their row, in shards; with `dtype` float32 as row / 255. */
async function makeSet(
  dtype: 'uint8' | 'float32' = 'uint8',
  change?: (pixels: Float32Array, row: number) => void,
): Promise<ImageIndex> {
  const links = new Map<string, string>();
  for (let first = 0; first < IMAGES; first += SHARD) {
    const path = scratch.path(`${first}.hdf5`);
    const writer = await ShardWriter.create(path);
    for (let row = first; row < Math.min(first + SHARD, IMAGES); row++) {
      const bytes = new Uint8Array(SIZE * SIZE * 4).fill(row);
      const floats = Float32Array.from(bytes, (v) => (v + 0.5) / 255);
      change?.(floats, row);
      await writer.add(ids[row]!, dtype === 'uint8' ? bytes : floats, [SIZE, SIZE, 4], [SIZE, SIZE]);
      links.set(ids[row]!, path);
    }
    await writer.close();
  }
  await writeIndex(scratch.path(`images_${SIZE}.hdf5`), links);
  const table = { ids, ext: ids.map(() => 'default'), path: 'table.csv' };
  return imageIndex(table, { trainHome: scratch.path(), size: SIZE, spec: HPA });
}

async function loading<T>(index: ImageIndex, workers: number, use: (loader: ImageLoader) => Promise<T>): Promise<T> {
  const loader = await ImageLoader.open(index, { batch: 7, workers });
  try {
    return await use(loader);
  } finally {
    await loader.close();
  }
}

/** The rows that come, batch by batch, each read from every value of its image, those of the first batch after `waitMs`. */
async function rowsOf(loader: ImageLoader, order: Int32Array, firstBatch = 0, waitMs = 0): Promise<number[]> {
  const rows: number[] = [];
  for await (const { batch, images } of loader.read(order, firstBatch)) {
    if (batch === firstBatch) await setTimeout(waitMs);
    const [count, ...shape] = images.shape;
    expect(shape).toEqual([SIZE, SIZE, 4]);
    for (let i = 0; i < count!; i++) {
      const values = new Set(images.data.slice(i * SIZE * SIZE * 4, (i + 1) * SIZE * SIZE * 4));
      expect(values.size).toBe(1);
      rows.push([...values][0]!);
    }
  }
  return rows;
}

/** Every row, most of them several times, in no order. */
const ORDER = Int32Array.from({ length: 333 }, (_, i) => (i * i * 17 + 3 * i) % IMAGES);

test.each([
  ['uint8', 1],
  ['uint8', 3],
  ['float32', 2],
] as const)('%s images come in the order asked for, each time, from %i workers', async (dtype, workers) => {
  await loading(await makeSet(dtype), workers, async (loader) => {
    expect(await rowsOf(loader, ORDER)).toEqual([...ORDER]);
    expect(await rowsOf(loader, ORDER.slice(0, 20))).toEqual([...ORDER.slice(0, 20)]); // a second epoch, not of whole batches
    expect(await rowsOf(loader, ORDER, 40)).toEqual([...ORDER.slice(40 * 7)]); // where an interrupted one goes on
  });
});

/** An index whose image `row` takes a thread long: PNGs of many pixels. */
async function withSlowImage(index: ImageIndex, row: number): Promise<ImageIndex> {
  const side = 1536;
  for (const channel of ['red', 'yellow', 'blue', 'green']) {
    const noise = sharp(randomBytes(side * side), { raw: { width: side, height: side, channels: 1 } });
    await noise
      .toColourspace('b-w')
      .png()
      .toFile(scratch.path(`${ids[row]}_${channel}.png`));
  }
  index.sources.push({ kind: 'png', folder: scratch.path() });
  index.source[row] = index.sources.length - 1;
  index.stored.file[row] = -1;
  return index;
}

test('what a thread still reads of an epoch that was left does not end up in the next', async () => {
  const slow = IMAGES - 1;
  const index = await withSlowImage(await makeSet(), slow);
  const begun = Int32Array.from({ length: 70 }, (_, i) => (i % 7 === 0 && i > 0 ? slow : 1));
  const next = Int32Array.from({ length: 70 }, (_, i) => 2 + (i % 40));
  await loading(index, 2, async (loader) => {
    for await (const { batch } of loader.read(begun)) if (batch === 0) break;
    expect(await rowsOf(loader, next, 0, 1000)).toEqual([...next]);
  });
});

test('leaving an epoch early neither hangs nor disturbs the next', async () => {
  await loading(await makeSet(), 2, async (loader) => {
    for await (const { batch } of loader.read(ORDER)) if (batch === 3) break;
    expect(await rowsOf(loader, ORDER)).toEqual([...ORDER]);
  });
});

test('a file that is cut short, lost or wrong while it is being read ends the epoch with image and file', async () => {
  const index = await makeSet();
  truncateSync(scratch.path('20.hdf5'), 3000);
  await loading(index, 2, async (loader) => {
    await expect(rowsOf(loader, ORDER)).rejects.toMatchObject({
      code: 'ERR_HDF5',
      message: expect.stringMatching(/image 'id[23]\d' of .*20\.hdf5.*cut short/) as string,
    });
  });
});

test('a value outside [0, 1] ends the epoch with image and file', async () => {
  const index = await makeSet('float32', (pixels, row) => {
    if (row === 40) pixels[100] = NaN;
  });
  await loading(index, 2, async (loader) => {
    await expect(rowsOf(loader, ORDER)).rejects.toMatchObject({
      code: 'ERR_HDF5',
      message: expect.stringMatching(/from 0 to 1 in image 'id40' of .*40\.hdf5 but found NaN/) as string,
    });
  });
});
