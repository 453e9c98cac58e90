import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { type DumpOptions, type DumpProgress, dumpImages } from '../../dist/data/dump';
import { Hdf5Reader } from '../../dist/data/hdf5';
import { describeShared, fixture, readTensors, shared } from '../reference_cases';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();
const ORIGINAL = fixture('hdf5', 'dump8_many.hdf5');
const PNGS = fixture('hdf5', 'dump8_many_png');
const IDS = Array.from({ length: 23 }, (_, i) => `img_${String(i).padStart(2, '0')}`);
const MODULE = join(__dirname, '..', '..', 'dist', 'data', 'dump.js');

function dump(o: Partial<DumpOptions> = {}) {
  return dumpImages({ imagesFolder: PNGS, hdf5Output: scratch.path('out.hdf5'), imageSize: 8, ...o });
}

function refusal(code: string, message = /./): Error {
  return expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;
}

/** Every image of a file, as uint8. */
async function contents(path: string): Promise<Record<string, string>> {
  const reader = await Hdf5Reader.open(path);
  const all: Record<string, string> = {};
  for (const id of reader.ids()) {
    const out = new Uint8Array(reader.info(id).shape.reduce((product, n) => product * n, 1));
    reader.readInto(id, out);
    all[id] = Buffer.from(out).toString('base64');
  }
  reader.close();
  return all;
}

function shards(output = 'out.hdf5'): string[] {
  return readdirSync(scratch.path(`${output}.shards`)).sort();
}

describe('wrong arguments', () => {
  test.each([
    ['no options', undefined],
    ['no folder', { hdf5Output: 'x' }],
    ['an empty output', { imagesFolder: 'x', hdf5Output: '' }],
    ['a size of 0', { imagesFolder: 'x', hdf5Output: 'x', imageSize: 0 }],
    ['another type', { imagesFolder: 'x', hdf5Output: 'x', dtype: 'float64' }],
    ['ids that are no list', { imagesFolder: 'x', hdf5Output: 'x', ids: 'a' }],
    ['an id that leaves the folder', { imagesFolder: 'x', hdf5Output: 'x', ids: ['../a'] }],
    ['a shard of nothing', { imagesFolder: 'x', hdf5Output: 'x', shardSize: 0 }],
    ['no workers', { imagesFolder: 'x', hdf5Output: 'x', workers: 0 }],
    ['no signal', { imagesFolder: 'x', hdf5Output: 'x', signal: 1 }],
    ['no function', { imagesFolder: 'x', hdf5Output: 'x', onProgress: 1 }],
  ])('%s', async (_, options) => {
    await expect(dumpImages(options as never)).rejects.toEqual(refusal('ERR_INVALID_ARG'));
  });

  test('a folder that is missing, or has no images', async () => {
    await expect(dump({ imagesFolder: scratch.path('none') })).rejects.toEqual(refusal('ERR_FILE_NOT_FOUND', /none/));
    writeFileSync(scratch.path('a_red.jpg'), '');
    await expect(dump({ imagesFolder: scratch.path() })).rejects.toEqual(
      refusal('ERR_FILE_NOT_FOUND', /<id>_red\.png/),
    );
    expect(readdirSync(scratch.path())).toEqual(['a_red.jpg']);
  });
});

describe('images that are refused', () => {
  beforeEach(() => cpSync(PNGS, scratch.path('png'), { recursive: true }));
  const file = (name: string) => scratch.path('png', `${name}.png`);
  const run = () => dump({ imagesFolder: scratch.path('png'), metaOutput: scratch.path('meta.csv') });

  test('each is told why, and the others are dumped', async () => {
    rmSync(file('img_01_yellow'));
    writeFileSync(file('img_03_red'), readFileSync(file('img_03_red')).subarray(0, 100));
    writeFileSync(file('img_05_green'), '');
    await sharp({ create: { width: 24, height: 24, channels: 3, background: 'red' } })
      .png()
      .toFile(file('img_07_blue'));
    await sharp(new Uint8Array(30), { raw: { width: 5, height: 6, channels: 1 } })
      .toColourspace('b-w')
      .png()
      .toFile(file('img_09_blue'));
    const result = await run();
    expect({ written: result.written, skipped: result.skipped }).toEqual({ written: 18, skipped: 0 });
    expect(result.failed).toEqual([
      { id: 'img_01', reason: `Expected an image in ${file('img_01_yellow')} but there is no such file` },
      { id: 'img_03', reason: expect.stringContaining(`Expected a readable image in ${file('img_03_red')}`) as string },
      { id: 'img_05', reason: expect.stringContaining(file('img_05_green')) as string },
      { id: 'img_07', reason: `Expected a grey 8- or 16-bit image in ${file('img_07_blue')} but it has 3 channels` },
      {
        id: 'img_09',
        reason: `Expected ${file('img_09_blue')} to be 24 × 24 like ${file('img_09_red')} but it is 6 × 5`,
      },
    ]);
    const refused = result.failed.map(({ id }) => id);
    expect(Object.keys(await contents(scratch.path('out.hdf5')))).toEqual(IDS.filter((id) => !refused.includes(id)));
    expect(readFileSync(scratch.path('meta.csv'), 'utf8').trim().split('\n').length).toBe(19);
  });

  test('once mended they are dumped by the next run, into the same whole', async () => {
    rmSync(file('img_01_yellow'));
    await run();
    copyFileSync(join(PNGS, 'img_01_yellow.png'), file('img_01_yellow'));
    expect(await run()).toEqual({ written: 1, skipped: 22, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
    expect(readFileSync(scratch.path('meta.csv'), 'utf8')).toContain('\nimg_01,24,24\nimg_02,24,24\n');
  });

  test('if all are, there is no output', async () => {
    for (const id of IDS) rmSync(file(`${id}_green`));
    const { written, failed } = await run();
    expect([written, failed.length, existsSync(scratch.path('out.hdf5'))]).toEqual([0, 23, false]);
  });
});

describe('a dump', () => {
  test('equals the original, as uint8 and as float32', async () => {
    expect(await dump()).toEqual({ written: 23, skipped: 0, failed: [] });
    await dump({ hdf5Output: scratch.path('f.hdf5'), dtype: 'float32' });
    const original = await contents(ORIGINAL);
    expect(await contents(scratch.path('out.hdf5'))).toEqual(original);
    expect(await contents(scratch.path('f.hdf5'))).toEqual(original);
    const [theirs, ours] = [await Hdf5Reader.open(ORIGINAL), await Hdf5Reader.open(scratch.path('f.hdf5'))];
    for (const id of IDS) expect([...ours.readFloat32(id)]).toEqual([...theirs.readFloat32(id)]);
    expect([ours.info('img_00').dtype, ours.originalSize('img_00')]).toEqual(['float32', [24, 24]]);
    theirs.close();
    ours.close();
  });

  test('lies in shards of the given size, whatever the number of workers', async () => {
    await dump({ shardSize: 5, workers: 7 });
    await dump({ hdf5Output: scratch.path('one.hdf5'), shardSize: 5, workers: 1 });
    expect(shards()).toEqual(['00000.hdf5', '00001.hdf5', '00002.hdf5', '00003.hdf5', '00004.hdf5']);
    for (const name of shards()) {
      const [a, b] = ['out', 'one'].map((o) => scratch.path(`${o}.hdf5.shards`, name));
      expect(await contents(a!)).toEqual(await contents(b!));
    }
    expect(Object.keys(await contents(scratch.path('out.hdf5.shards', '00004.hdf5')))).toEqual([
      'img_20',
      'img_21',
      'img_22',
    ]);
    expect(readdirSync(scratch.path()).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('tells its progress', async () => {
    const told: DumpProgress[] = [];
    await dump({ onProgress: (p) => told.push(p) });
    expect(told).toEqual(IDS.map((id, i) => ({ part: 'dump', done: i + 1, total: 23, failed: 0, id })));
  });

  test('of some ids, then of others, then of none that is new', async () => {
    expect(await dump({ ids: ['img_04', 'img_02', 'img_04'] })).toEqual({ written: 2, skipped: 0, failed: [] });
    expect(Object.keys(await contents(scratch.path('out.hdf5')))).toEqual(['img_02', 'img_04']);
    const all = await dump({ metaOutput: scratch.path('meta.csv') });
    expect(all).toEqual({ written: 21, skipped: 2, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
    const meta = ['ID,ImageHeight,ImageWidth', ...IDS.map((id) => `${id},24,24`), ''].join('\n');
    expect(readFileSync(scratch.path('meta.csv'), 'utf8')).toBe(meta);

    const before = statSync(scratch.path('out.hdf5')).mtimeMs;
    const again = await dump({ metaOutput: scratch.path('meta.csv') });
    expect(again).toEqual({ written: 0, skipped: 23, failed: [] });
    expect(statSync(scratch.path('out.hdf5')).mtimeMs).toBe(before);
    expect(readFileSync(scratch.path('meta.csv'), 'utf8')).toBe(meta);
  });

  test('of another data set', async () => {
    const spec = { classes: ['a', 'b'], channels: ['blue', 'green'] };
    await dump({ spec: spec as never });
    const two = await contents(scratch.path('out.hdf5'));
    const four = Buffer.from((await contents(ORIGINAL))['img_00']!, 'base64');
    const expected = Array.from({ length: 64 }, (_, i) => [four[4 * i + 2]!, four[4 * i + 1]!]).flat();
    expect([...Buffer.from(two['img_00']!, 'base64')]).toEqual(expected);
  });

  test('is not mixed with one of another size or type', async () => {
    await dump();
    await expect(dump({ imageSize: 16 })).rejects.toEqual(
      refusal('ERR_HDF5', /\(16, 16, 4\) but an earlier dump wrote .*\(8, 8, 4\)/),
    );
    await expect(dump({ dtype: 'float32' })).rejects.toEqual(refusal('ERR_HDF5', /float32 .*earlier dump wrote uint8/));
  });

  test('never touches an HDF5 file of other making', async () => {
    copyFileSync(ORIGINAL, scratch.path('out.hdf5'));
    expect(await dump({ metaOutput: scratch.path('meta.csv') })).toEqual({ written: 0, skipped: 23, failed: [] });
    expect(readFileSync(scratch.path('meta.csv'), 'utf8')).toContain('\nimg_22,24,24\n');
    await expect(dump({ ids: ['new', 'img_00'] })).rejects.toEqual(
      refusal('ERR_HDF5', /lacks 1 of 2 images, such as 'new'/),
    );
    await expect(dump({ imageSize: 9 })).rejects.toEqual(refusal('ERR_HDF5', /shape \(8, 8, 4\)/));
    expect(readFileSync(scratch.path('out.hdf5'))).toEqual(readFileSync(ORIGINAL));
    expect(existsSync(scratch.path('out.hdf5.shards'))).toBe(false);
  });

  test('says when its output is no HDF5 file', async () => {
    writeFileSync(scratch.path('out.hdf5'), 'precious notes');
    await expect(dump()).rejects.toEqual(refusal('ERR_HDF5', /out\.hdf5/));
    expect(readFileSync(scratch.path('out.hdf5'), 'utf8')).toBe('precious notes');
  });
});

/** Dumps in a process of its own that kills itself, with no chance to tidy up, once it has done so many fields. */
function dumpAndDie(fields: number): string | null {
  const o = JSON.stringify({ imagesFolder: PNGS, hdf5Output: scratch.path('out.hdf5'), imageSize: 8, shardSize: 4 });
  const script = `require(${JSON.stringify(MODULE)}).dumpImages({ ...${o},
    onProgress: (p) => p.done === ${fields} && process.kill(process.pid, 'SIGKILL') })`;
  return spawnSync(process.execPath, ['-e', script]).signal;
}

interface Manifest {
  tool: string;
  dtype: string;
  shape: number[];
  channels: string[];
  images: { id: string; height: number; width: number; shard: string; sha256: string }[];
}

function manifest(): Manifest {
  return JSON.parse(readFileSync(scratch.path('out.hdf5.manifest.json'), 'utf8')) as Manifest;
}

describe('the manifest', () => {
  test('tells sizes, shards and hashes of the stored bytes', async () => {
    await dump({ shardSize: 10, dtype: 'float32' });
    const { images, tool, ...rest } = manifest();
    expect(rest).toEqual({ dtype: 'float32', shape: [8, 8, 4], channels: ['red', 'green', 'blue', 'yellow'] });
    expect(tool).toMatch(/^cellcam \d+\.\d+\.\d+$/);
    expect(images.map(({ id }) => id)).toEqual(IDS);
    const reader = await Hdf5Reader.open(scratch.path('out.hdf5'));
    for (const [i, { id, height, width, shard, sha256 }] of images.entries()) {
      expect([height, width, shard]).toEqual([24, 24, `out.hdf5.shards/0000${Math.floor(i / 10)}.hdf5`]);
      expect(createHash('sha256').update(reader.storedBytes(id)).digest('hex')).toBe(sha256);
    }
    reader.close();
  });

  test('is the same after any number of runs, and made up for when it is lost', async () => {
    await dump({ ids: IDS.slice(0, 9), shardSize: 5 });
    await dump({ ids: IDS.slice(0, 20), shardSize: 5 });
    expect(manifest().images.length).toBe(20);
    await dump({ shardSize: 5 });
    const first = manifest();
    rmSync(scratch.path('out.hdf5.manifest.json'));
    await dump({ shardSize: 5 });
    expect(manifest()).toEqual(first);
    expect(first.images.every(({ sha256 }) => /^[0-9a-f]{64}$/.test(sha256))).toBe(true);
  });
});

describe('reading back', () => {
  test('finds nothing wrong with a good dump', async () => {
    const told: DumpProgress[] = [];
    const result = await dump({ verify: true, onProgress: (p) => told.push(p) });
    expect(result).toEqual({ written: 23, skipped: 0, failed: [], damaged: [] });
    expect(told.filter(({ part }) => part === 'verify').map(({ id }) => id)).toEqual(IDS);
  });

  test('finds one changed byte, and the next run stores its shard anew', async () => {
    await dump({ shardSize: 10 });
    const whole = await contents(scratch.path('out.hdf5'));
    const reader = await Hdf5Reader.open(scratch.path('out.hdf5'));
    const { path, offset } = reader.locate('img_13')!;
    reader.close();
    const bytes = readFileSync(path);
    bytes[offset + 77]! ^= 1;
    writeFileSync(path, bytes);
    expect(await dump({ shardSize: 10 })).toEqual({ written: 0, skipped: 23, failed: [] }); // not looked for
    const result = await dump({ shardSize: 10, verify: true });
    expect(result).toEqual({ written: 0, skipped: 23, failed: [], damaged: ['img_13'] });
    expect(existsSync(`${path}.damaged`)).toBe(true);
    expect(await dump({ shardSize: 10, verify: true })).toEqual({ written: 10, skipped: 13, failed: [], damaged: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(whole);
  });

  test('of a file of other making finds what cannot be read', async () => {
    copyFileSync(ORIGINAL, scratch.path('out.hdf5'));
    expect(await dump({ verify: true })).toEqual({ written: 0, skipped: 23, failed: [], damaged: [] });
  });
});

describe('a dump that is stopped', () => {
  const unixTest = process.platform === 'win32' ? test.skip : test;

  unixTest('by kill -9, again and again, goes on from its last finished shard', async () => {
    for (const [fields, finished] of [
      [1, 0],
      [4, 1],
      [7, 2],
      [9, 4],
    ] as const) {
      expect(dumpAndDie(fields)).toBe('SIGKILL');
      const names = shards().filter((name) => name.endsWith('.hdf5'));
      expect(names.length).toBe(finished);
      for (const name of names) {
        expect(Object.keys(await contents(scratch.path('out.hdf5.shards', name))).length).toBe(4);
      }
    }
    const result = await dump({ shardSize: 4, metaOutput: scratch.path('meta.csv') });
    expect(result).toEqual({ written: 7, skipped: 16, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
    expect(shards().filter((name) => name.endsWith('.tmp'))).toEqual([]);
    expect(readFileSync(scratch.path('meta.csv'), 'utf8').trim().split('\n').length).toBe(24);
  });

  unixTest('by 20 kills at any moment comes to the same contents', async () => {
    await dump({ hdf5Output: scratch.path('whole.hdf5'), shardSize: 2 });
    for (let round = 0; round < 20; round++) {
      const o = JSON.stringify({
        imagesFolder: PNGS,
        hdf5Output: scratch.path('out.hdf5'),
        imageSize: 8,
        shardSize: 2,
      });
      const script = `require(${JSON.stringify(MODULE)}).dumpImages({ ...${o}, workers: 1 })`;
      // Later and later, from before the first shard to after the index.
      const { signal } = spawnSync(process.execPath, ['-e', script], {
        timeout: 150 + 20 * round,
        killSignal: 'SIGKILL',
      });
      if (signal !== null) continue;
      const [shard] = readdirSync(scratch.path('out.hdf5.shards')); // it came to its end: give it more to do
      rmSync(scratch.path('out.hdf5.shards', shard!));
    }
    await dump({ shardSize: 2, verify: true });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(scratch.path('whole.hdf5')));
    const hashes = manifest().images.map(({ sha256 }) => sha256);
    const whole = JSON.parse(readFileSync(scratch.path('whole.hdf5.manifest.json'), 'utf8')) as Manifest;
    expect(hashes).toEqual(whole.images.map(({ sha256 }) => sha256));
  });

  test('by a signal keeps every field that was finished', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const stopped = dump({
      signal: controller.signal,
      workers: 1,
      onProgress: ({ done }) => done === 6 && controller.abort(reason),
    });
    await expect(stopped).rejects.toBe(reason);
    expect(existsSync(scratch.path('out.hdf5'))).toBe(false);
    expect(shards()).toEqual(['00000.hdf5']);
    expect(await dump()).toEqual({ written: 17, skipped: 6, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
  });

  test('before it began', async () => {
    await expect(dump({ signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
    expect(readdirSync(scratch.path())).toEqual([]);
  });

  test('leaves unfinished files that the next one removes', async () => {
    mkdirSync(scratch.path('out.hdf5.shards'));
    writeFileSync(scratch.path('out.hdf5.shards', '00007.hdf5.tmp'), 'half');
    writeFileSync(scratch.path('out.hdf5.tmp'), 'half');
    await dump();
    expect(shards()).toEqual(['00000.hdf5']);
    expect(readdirSync(scratch.path()).sort()).toEqual(['out.hdf5', 'out.hdf5.manifest.json', 'out.hdf5.shards']);
  });

  test('between its last shard and its index gets the index', async () => {
    await dump();
    rmSync(scratch.path('out.hdf5'));
    expect(await dump()).toEqual({ written: 0, skipped: 23, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
  });

  test('by a lost shard dumps its fields again', async () => {
    await dump({ shardSize: 10 });
    rmSync(scratch.path('out.hdf5.shards', '00001.hdf5'));
    expect(await dump({ shardSize: 10 })).toEqual({ written: 10, skipped: 13, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
  });

  test('by a shard that was cut short dumps its fields again and puts it aside', async () => {
    await dump({ shardSize: 5 });
    const whole = await contents(scratch.path('out.hdf5'));
    const shard = scratch.path('out.hdf5.shards', shards()[1]!);
    writeFileSync(shard, readFileSync(shard).subarray(0, 1000));
    expect(await dump({ shardSize: 5 })).toMatchObject({ written: 5, skipped: 18, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(whole);
    expect(existsSync(`${shard}.damaged`)).toBe(true);
  });

  test('after a lost shard was made up for gets an index that leads to the new one', async () => {
    await dump({ shardSize: 10 });
    copyFileSync(scratch.path('out.hdf5'), scratch.path('stale'));
    rmSync(scratch.path('out.hdf5.shards', '00001.hdf5'));
    await dump({ shardSize: 10 });
    copyFileSync(scratch.path('stale'), scratch.path('out.hdf5'));
    expect(await dump({ shardSize: 10 })).toEqual({ written: 0, skipped: 23, failed: [] });
    expect(await contents(scratch.path('out.hdf5'))).toEqual(await contents(ORIGINAL));
  });

  // The shell's limit on the size of a file fails a write the way a full disk does.
  unixTest('by a full disk says so, keeps finished shards and leaves nothing half-written', async () => {
    // 64 KiB a field of 128 × 128, 512 KiB a file: shards of 4 fit, shards of 10 do not.
    await dump({ imageSize: 128, shardSize: 4, ids: IDS.slice(0, 4) });
    const o = JSON.stringify({
      imagesFolder: PNGS,
      hdf5Output: scratch.path('out.hdf5'),
      imageSize: 128,
      shardSize: 10,
    });
    const script = `require(${JSON.stringify(MODULE)}).dumpImages(${o}).then(() => console.log('done'), (e) => console.log(e.code, e.message))`;
    const said = execFileSync('bash', ['-c', 'ulimit -f 512; exec "$0" -e "$1"', process.execPath, script], {
      encoding: 'utf8',
    });
    expect(said).toMatch(/^ERR_WRITE could not write .*00001\.hdf5: .* is the disk full\?\n$/);
    expect(shards()).toEqual(['00000.hdf5']);
    expect(await dump({ imageSize: 128, shardSize: 10 })).toEqual({ written: 19, skipped: 4, failed: [] });
  });
});

describeShared('reference cases of 64 × 64', () => {
  test('8-bit, 16-bit, 16-bit with low values, not square', async () => {
    const result = await dump({
      imagesFolder: shared('hdf5', 'dump64_png'),
      imageSize: 64,
      metaOutput: scratch.path('meta.csv'),
    });
    expect(result.failed.map(({ id }) => id)).toEqual(['set_incomplete']);
    const expected = readTensors(shared('hdf5', 'dump64_expected.safetensors'));
    for (const [id, pixels] of Object.entries(await contents(scratch.path('out.hdf5')))) {
      expect(pixels).toBe(Buffer.from(expected(`${id}.uint8`).bytes).toString('base64'));
    }
    expect(readFileSync(scratch.path('meta.csv'), 'utf8')).toContain('\nset_300x200,300,200\n');
  });
});

describe('files of other names and kinds', () => {
  const random = Buffer.from(Array.from({ length: 24 * 20 }, (_, i) => (i * 7919) % 251));
  const grey = (data: Buffer) => sharp(data, { raw: { width: 20, height: 24, channels: 1 } }).toColourspace('b-w');
  const deep = new Uint16Array(24 * 20).map((_, i) => (i * 104729) % 65521);

  async function write(folder: string, name: (channel: string) => string, write: (file: string) => Promise<unknown>) {
    mkdirSync(scratch.path(folder), { recursive: true });
    for (const channel of ['red', 'green', 'blue', 'yellow']) await write(join(scratch.path(folder), name(channel)));
  }
  const stored = async (folder: string, filePattern?: string) => {
    const output = scratch.path(`${folder}.hdf5`);
    const result = await dump({
      imagesFolder: scratch.path(folder),
      hdf5Output: output,
      ...(filePattern ? { filePattern } : {}),
    });
    expect(result.failed).toEqual([]);
    return contents(output);
  };

  test('TIFF of 8 and 16 bit gives what PNG gives', async () => {
    const deepImage = () => sharp(deep, { raw: { width: 20, height: 24, channels: 1 } }).toColourspace('grey16');
    for (const [depth, image] of [
      ['8', () => grey(random)],
      ['16', deepImage],
    ] as const) {
      await write(
        `png${depth}`,
        (c) => `a_${c}.png`,
        (file) => image().png().toFile(file),
      );
      await write(
        `tif${depth}`,
        (c) => `${c}-a.tif`,
        (file) => image().tiff({ compression: 'lzw' }).toFile(file),
      );
      expect(await stored(`tif${depth}`, '{channel}-{id}.tif')).toEqual(await stored(`png${depth}`));
    }
  });

  test('JPEG is read as its decoder gives it', async () => {
    await write(
      'jpg',
      (c) => `a.b_${c}.jpg`,
      (file) => grey(random).jpeg({ quality: 90 }).toFile(file),
    );
    const all = await stored('jpg', '{id}_{channel}.jpg');
    expect(Object.keys(all)).toEqual(['a.b']);
    const decoded = await sharp(scratch.path('jpg', 'a.b_red.jpg')).toColourspace('b-w').raw().toBuffer();
    await write(
      'decoded',
      (c) => `a.b_${c}.png`,
      (file) => grey(decoded).png().toFile(file),
    );
    expect(await stored('decoded')).toEqual(all);
  });

  test('a TIFF of several pages is refused', async () => {
    await write(
      'pages',
      (c) => `a_${c}.tif`,
      async (file) => {
        const pages = sharp(Buffer.concat([random, random]), {
          raw: { width: 20, height: 48, channels: 1, pageHeight: 24 },
        });
        await pages.toColourspace('b-w').tiff().toFile(file);
      },
    );
    const { failed } = await dump({ imagesFolder: scratch.path('pages'), filePattern: '{id}_{channel}.tif' });
    expect(failed).toEqual([{ id: 'a', reason: expect.stringMatching(/2 pages/) as string }]);
  });

  test.each(['{id}.png', '{id}_{id}_{channel}.png', 'x/{id}_{channel}.png', ''])(
    'the pattern %p is refused',
    async (filePattern) => {
      await expect(dump({ filePattern })).rejects.toThrow(
        refusal('ERR_INVALID_ARG', /\{id\} and \{channel\} once each/),
      );
    },
  );
});
