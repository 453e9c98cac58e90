import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Hdf5Reader, ShardWriter, writeIndex } from '../../dist/data/hdf5';
import { plainDataSets } from '../../dist/data/hdf5_layout';
import { fixture } from '../reference_cases';
import { scratchFolder } from './scratch';
import { uniform } from './splitmix';

const scratch = scratchFolder();
const ORIGINAL = fixture('hdf5', 'dump8_many.hdf5'); // float32 images (8, 8, 4), written by h5py

/** Every image's bytes by its place equal what HDF5 reads. */
async function expectSameBytes(path: string, count: number): Promise<void> {
  const reader = await Hdf5Reader.open(path);
  try {
    const ids = reader.ids();
    expect(ids.length).toBe(count);
    for (const id of ids) {
      const place = reader.locate(id)!;
      const { shape, dtype } = reader.info(id);
      expect({ shape: place.shape, dtype: place.dtype }).toEqual({ shape, dtype });
      const stored = reader.storedBytes(id);
      const found = readFileSync(place.path).subarray(place.offset, place.offset + stored.length);
      expect(Buffer.compare(found, stored)).toBe(0);
    }
  } finally {
    reader.close();
  }
}

test('images of a file that h5py wrote', async () => {
  await expectSameBytes(ORIGINAL, 23);
});

test.each(['uint8', 'float32'] as const)('images of an index of %s shards', async (dtype) => {
  const links = new Map<string, string>();
  for (const [shard, count] of [
    ['a', 1],
    ['b', 700], // several levels of HDF5's tree of names
  ] as const) {
    const path = scratch.path(`${shard}.hdf5`);
    const writer = await ShardWriter.create(path);
    for (let i = 0; i < count; i++) {
      const values = Array.from(uniform(shard, i, 24), (x) => Math.floor(256 * x));
      const pixels = dtype === 'uint8' ? Uint8Array.from(values) : Float32Array.from(values, (v) => v / 255);
      await writer.add(`${shard}${i}`, pixels, [2, 3, 4], [2, 3]);
      links.set(`${shard}${i}`, path);
    }
    await writer.close();
  }
  await writeIndex(scratch.path('index.hdf5'), links);
  await expectSameBytes(scratch.path('index.hdf5'), 701);
});

test('images stored in any other way are left to HDF5', async () => {
  const data = Uint8Array.from({ length: 24 }, (_, i) => i);
  const write = (name: string, bounds: object, more: object): string => {
    const set = { name: 'image', data: [...data], shape: [2, 3, 4], dtype: '<B', ...more };
    const script = `
      import h5 from 'h5wasm/node';
      await h5.ready;
      const file = new h5.File(${JSON.stringify(scratch.path(name))}, 'w', ${JSON.stringify(bounds)});
      file.create_dataset(${JSON.stringify(set)});
      file.close();`;
    execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: join(__dirname, '..', '..') });
    return scratch.path(name);
  };
  const first = { libver: ['earliest', 'v114'] };
  const paths = [
    write('chunked.hdf5', first, { chunks: [1, 3, 4] }),
    write('compressed.hdf5', first, { chunks: [2, 3, 4], compression: 1 }),
    write('signed.hdf5', first, { dtype: '<b' }),
    write('newer.hdf5', {}, {}),
  ];
  expect(paths.map((path) => plainDataSets(path).size)).toEqual([0, 0, 0, 0]);
  expect(plainDataSets(write('plain.hdf5', first, {})).size).toBe(1);
  const reader = await Hdf5Reader.open(paths[1]!);
  const out = new Uint8Array(24);
  reader.readInto('image', out);
  expect(out).toEqual(data);
  reader.close();
});

test('an id that is missing, and one whose shard is missing, lie nowhere', async () => {
  await writeIndex(scratch.path('index.hdf5'), new Map([['lost', scratch.path('gone.hdf5')]]));
  const reader = await Hdf5Reader.open(scratch.path('index.hdf5'));
  expect(reader.locate('lost')).toBeUndefined();
  expect(reader.locate('nobody')).toBeUndefined();
  reader.close();
});

test('other and damaged files hold nothing that is read without HDF5', () => {
  const whole = readFileSync(ORIGINAL);
  const path = scratch.path('damaged.hdf5');
  for (const bytes of [Buffer.alloc(0), Buffer.from('text'), whole.subarray(0, 5000), whole.subarray(0, -1)]) {
    writeFileSync(path, bytes);
    expect(plainDataSets(path).size).toBe(0);
  }
});

test('any damage at all is survived, and no place lies outside the file', () => {
  const whole = readFileSync(ORIGINAL);
  const path = scratch.path('damaged.hdf5');
  for (let round = 0; round < 400; round++) {
    const bytes = Buffer.from(whole);
    const draws = uniform('damage', round, 66);
    for (let k = 0; k < 33; k++) {
      const range = k < 3 ? 1500 : bytes.length; // the tree and the first headers are in the first bytes
      bytes[Math.floor(range * draws[2 * k]!)] = Math.floor(256 * draws[2 * k + 1]!);
    }
    writeFileSync(path, bytes);
    for (const { offset, shape } of plainDataSets(path).values()) {
      const length = 4 * shape.reduce((product, n) => product * n, 1);
      expect(offset + length).toBeLessThanOrEqual(bytes.length);
    }
  }
});
