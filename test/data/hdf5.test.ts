import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Hdf5Reader, ShardWriter, writeIndex } from '../../dist/data/hdf5';
import { describeShared, fixture, readJson, readTensors, shared } from '../reference_cases';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();
const ORIGINAL = fixture('hdf5', 'dump8_many.hdf5'); // 23 float32 images (8, 8, 4), not written by this library
const SHAPE: [number, number, number] = [2, 3, 4];
const PIXELS = Uint8Array.from({ length: 24 }, (_, i) => i * 10);
const MODULE = join(__dirname, '..', '..', 'dist', 'data', 'hdf5.js');

async function shard(name: string, ids: string[], pixels: Uint8Array | Float32Array = PIXELS): Promise<string> {
  const writer = await ShardWriter.create(scratch.path(name));
  for (const id of ids) await writer.add(id, pixels, SHAPE, [200, 300]);
  await writer.close();
  return scratch.path(name);
}

function read(reader: Hdf5Reader, id: string): number[] {
  const out = new Uint8Array(24);
  reader.readInto(id, out);
  return [...out];
}

async function opened<T>(path: string, use: (reader: Hdf5Reader) => T): Promise<T> {
  const reader = await Hdf5Reader.open(path);
  try {
    return use(reader);
  } finally {
    reader.close();
  }
}

function refusal(code: string, message: RegExp): Error {
  return expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;
}

describe('files and images that cannot be read', () => {
  test('no file', async () => {
    await expect(Hdf5Reader.open(scratch.path('none.hdf5'))).rejects.toEqual(
      refusal('ERR_FILE_NOT_FOUND', /none\.hdf5/),
    );
  });

  test('no HDF5 file, an empty one, a folder', async () => {
    writeFileSync(scratch.path('text'), 'x'.repeat(5000));
    writeFileSync(scratch.path('empty'), '');
    mkdirSync(scratch.path('folder'));
    for (const name of ['text', 'empty', 'folder']) {
      await expect(Hdf5Reader.open(scratch.path(name))).rejects.toEqual(refusal('ERR_HDF5', new RegExp(`${name} but`)));
    }
  });

  test('a file cut short', async () => {
    const whole = readFileSync(ORIGINAL);
    for (const length of [100, 5000, whole.length - 1]) {
      writeFileSync(scratch.path('cut.hdf5'), whole.subarray(0, length));
      await expect(Hdf5Reader.open(scratch.path('cut.hdf5'))).rejects.toEqual(
        refusal('ERR_HDF5', /cut\.hdf5.*cut short/),
      );
    }
  });

  test('an id that is missing, empty or a path', async () => {
    await opened(ORIGINAL, (reader) => {
      for (const id of ['nobody', '', '.', '/', 'img_00/x', '/img_00']) {
        expect(reader.has(id)).toBe(false);
        expect(() => reader.info(id)).toThrow(
          refusal('ERR_HDF5', /Expected an image '.*' in .*dump8_many\.hdf5 but there is none/),
        );
      }
    });
  });

  test('a place of another size', async () => {
    await opened(ORIGINAL, (reader) => {
      const out = new Uint8Array(255);
      expect(() => reader.readInto('img_00', out)).toThrow(refusal('ERR_HDF5', /255 values.*img_00.*\(8, 8, 4\)/));
      expect(out.every((v) => v === 0)).toBe(true);
    });
  });

  test.each([NaN, -0.01, 1.01, Infinity])('a float32 value of %p', async (value) => {
    const pixels = new Float32Array(24).fill(0.5);
    pixels[7] = value;
    const path = await shard('f.hdf5', ['id'], pixels);
    await opened(path, (reader) => {
      expect(() => read(reader, 'id')).toThrow(refusal('ERR_HDF5', /from 0 to 1 in image 'id' of .*f\.hdf5/));
      expect(() => reader.readFloat32('id')).toThrow(refusal('ERR_HDF5', /from 0 to 1/));
    });
  });

  test('a link whose shard is gone', async () => {
    await shard('s.hdf5', ['a']);
    await writeIndex(scratch.path('index.hdf5'), new Map([['a', scratch.path('s.hdf5')]]));
    rmSync(scratch.path('s.hdf5'));
    await opened(scratch.path('index.hdf5'), (reader) => {
      expect(reader.has('a')).toBe(true);
      expect(() => read(reader, 'a')).toThrow(refusal('ERR_FILE_NOT_FOUND', /'a' of .*index\.hdf5.*s\.hdf5.*missing/));
    });
  });

  test('a link to an id that its shard lacks, and to a broken shard', async () => {
    await shard('s.hdf5', ['a']);
    writeFileSync(scratch.path('broken.hdf5'), 'broken');
    const links = [
      ['b', scratch.path('s.hdf5')],
      ['c', scratch.path('broken.hdf5')],
    ] as const;
    await writeIndex(scratch.path('index.hdf5'), new Map(links));
    await opened(scratch.path('index.hdf5'), (reader) => {
      expect(() => read(reader, 'b')).toThrow(refusal('ERR_HDF5', /image 'b' of .*s\.hdf5/));
      expect(() => read(reader, 'c')).toThrow(refusal('ERR_HDF5', /broken\.hdf5/));
    });
  });

  test('a reader that is closed', async () => {
    const reader = await Hdf5Reader.open(ORIGINAL);
    reader.close();
    reader.close();
    expect(() => reader.ids()).toThrow(refusal('ERR_DISPOSED', /dump8_many/));
  });

  test('the library itself prints nothing', () => {
    const script = `const { Hdf5Reader } = require(${JSON.stringify(MODULE)});
      Hdf5Reader.open(${JSON.stringify(ORIGINAL)}).then((r) => { r.has('x'); r.close(); return Hdf5Reader.open(__filename); }).catch(() => {});`;
    const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    expect([child.status, child.stdout, child.stderr]).toEqual([0, '', '']);
  });
});

describe('reading', () => {
  test("the original's float32 files as training sees them", async () => {
    const keys = Array.from({ length: 23 }, (_, i) => `img_${String(i).padStart(2, '0')}`);
    await opened(ORIGINAL, (reader) => {
      expect(reader.ids()).toEqual(keys);
      expect(reader.info('img_00')).toEqual({ shape: [8, 8, 4], dtype: 'float32' });
      expect(reader.originalSize('img_00')).toBeUndefined();
      for (const id of keys) {
        const out = new Uint8Array(256);
        reader.readInto(id, out);
        expect([...out]).toEqual(Array.from(reader.readFloat32(id), (v) => Math.trunc(Math.fround(255 * v))));
      }
    });
  });

  test('the ends of the range', async () => {
    const pixels = new Float32Array(24);
    pixels.set([0, 1, 254.99 / 255, 255 / 256, Math.fround(1 / 255), 0.5]);
    await opened(await shard('f.hdf5', ['id'], pixels), (reader) => {
      expect(read(reader, 'id').slice(0, 6)).toEqual([0, 255, 254, 254, 1, 127]);
    });
  });

  test('uint8 comes back as it is, or as v/255', async () => {
    await opened(await shard('u.hdf5', ['id']), (reader) => {
      expect(reader.info('id')).toEqual({ shape: [2, 3, 4], dtype: 'uint8' });
      expect(reader.originalSize('id')).toEqual([200, 300]);
      expect(read(reader, 'id')).toEqual([...PIXELS]);
      expect([...reader.readFloat32('id')]).toEqual(Array.from(PIXELS, (v) => Math.fround(v / 255)));
    });
  });

  test('what was read stays when more is read', async () => {
    await opened(ORIGINAL, (reader) => {
      const first = reader.readFloat32('img_00');
      const copy = [...first];
      reader.readFloat32('img_01');
      expect([...first]).toEqual(copy);
    });
  });

  test('many readers at once', async () => {
    const path = await shard('u.hdf5', ['a', 'b']);
    const readers = await Promise.all(Array.from({ length: 5 }, () => Hdf5Reader.open(path)));
    for (const reader of readers) expect(read(reader, 'b')).toEqual([...PIXELS]);
    readers.forEach((reader) => reader.close());
  });
});

describe('writing', () => {
  test('a shard appears when it is closed, and nothing but it', async () => {
    const writer = await ShardWriter.create(scratch.path('s.hdf5'));
    await writer.add('a', PIXELS, SHAPE, [1, 1]);
    expect(readdirSync(scratch.path())).toEqual(['s.hdf5.tmp']);
    await writer.close();
    await writer.close();
    expect(readdirSync(scratch.path())).toEqual(['s.hdf5']);
  });

  test('an abandoned shard leaves nothing', async () => {
    const writer = await ShardWriter.create(scratch.path('s.hdf5'));
    await writer.add('a', PIXELS, SHAPE, [1, 1]);
    await writer.abandon();
    expect(readdirSync(scratch.path())).toEqual([]);
    await expect(writer.add('b', PIXELS, SHAPE, [1, 1])).rejects.toEqual(refusal('ERR_DISPOSED', /s\.hdf5/));
  });

  test('an id twice, empty, or with a slash', async () => {
    const writer = await ShardWriter.create(scratch.path('s.hdf5'));
    await writer.add('a', PIXELS, SHAPE, [1, 1]);
    for (const id of ['a', '', 'b/c']) {
      await expect(writer.add(id, PIXELS, SHAPE, [1, 1])).rejects.toEqual(refusal('ERR_HDF5', /new id/));
    }
    await writer.abandon();
  });

  test('a folder that does not exist', async () => {
    await expect(ShardWriter.create(scratch.path('none', 's.hdf5'))).rejects.toEqual(refusal('ERR_WRITE', /s\.hdf5/));
    await expect(writeIndex(scratch.path('none', 'i.hdf5'), new Map())).rejects.toEqual(
      refusal('ERR_WRITE', /i\.hdf5/),
    );
  });

  test('an index and its shards can be moved together', async () => {
    mkdirSync(scratch.path('old', 'i.shards'), { recursive: true });
    const links = new Map([
      ['b', await shard('old/i.shards/0.hdf5', ['b'])],
      ['a', await shard('old/i.shards/1.hdf5', ['a'])],
    ]);
    await writeIndex(scratch.path('old', 'i.hdf5'), links);
    renameSync(scratch.path('old'), scratch.path('new'));
    await opened(scratch.path('new', 'i.hdf5'), (reader) => {
      expect(reader.ids()).toEqual(['a', 'b']);
      expect(reader.fileOf('b')).toMatch(/new.i\.shards.0\.hdf5$/);
      expect(read(reader, 'a')).toEqual([...PIXELS]);
      expect(reader.originalSize('b')).toEqual([200, 300]);
    });
  });

  test('more shards than stay open at once', async () => {
    const links = new Map<string, string>();
    for (let i = 0; i < 260; i++)
      links.set(
        `id${i}`,
        await shard(
          `s${i}.hdf5`,
          [`id${i}`],
          PIXELS.map((v) => v + (i % 5)),
        ),
      );
    await writeIndex(scratch.path('i.hdf5'), links);
    await opened(scratch.path('i.hdf5'), (reader) => {
      for (let i = 0; i < 520; i++) {
        expect(read(reader, `id${i % 260}`)).toEqual(Array.from(PIXELS, (v) => v + ((i % 260) % 5)));
      }
    });
  });

  // The shell's limit on the size of a file fails a write the way a full disk does.
  const limited = process.platform === 'win32' ? test.skip : test;
  limited('a full disk is told, and nothing is left half-written', () => {
    const script = `const { ShardWriter } = require(${JSON.stringify(MODULE)});
      (async () => {
        const writer = await ShardWriter.create(${JSON.stringify(scratch.path('s.hdf5'))});
        for (let i = 0; i < 9; i++) await writer.add('id' + i, new Uint8Array(1 << 18), [256, 256, 4], [1, 1]);
        await writer.close();
      })().then(() => console.log('written'), (e) => console.log(e.code, e.message));`;
    const said = execFileSync('bash', ['-c', 'ulimit -f 1024; exec "$0" -e "$1"', process.execPath, script], {
      encoding: 'utf8',
    });
    expect(said).toMatch(
      /^ERR_WRITE could not write .*s\.hdf5: image 'id3' could not be written; is the disk full\?\n$/,
    );
    expect(readdirSync(scratch.path())).toEqual([]);
  });
});

describeShared('large reference cases', () => {
  test('a file with a tree of several levels', async () => {
    const { keys, shape } = readJson<{ keys: string[]; shape: number[] }>(shared('hdf5', 'many_keys.json'));
    await opened(shared('hdf5', 'many_keys.hdf5'), (reader) => {
      expect(reader.ids()).toEqual([...keys].sort());
      for (const id of keys) expect(reader.info(id)).toEqual({ shape, dtype: 'float32' });
    });
  });

  test('float32 images of 64 × 64', async () => {
    const expected = readTensors(shared('hdf5', 'dump64_expected.safetensors'));
    await opened(shared('hdf5', 'dump64.hdf5'), (reader) => {
      for (const id of reader.ids()) {
        const out = new Uint8Array(64 * 64 * 4);
        reader.readInto(id, out);
        expect(Buffer.compare(out, expected(`${id}.uint8`).bytes)).toBe(0);
        expect(reader.readFloat32(id)).toEqual(expected(`${id}.float32`).data);
      }
    });
  });
});
