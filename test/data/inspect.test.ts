import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import sharp from 'sharp';
import { dumpImages, type Hdf5Report, inspectFile, inspectFiles, type TableReport } from '../../dist';
import { datasetSpec } from '../../dist/data/dataset_spec';
import { Hdf5Reader, ShardWriter, writeIndex } from '../../dist/data/hdf5';
import { describeShared, fixture, readJson, shared } from '../reference_cases';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();
const spec = datasetSpec({ classes: ['A', 'B, b', 'C'], channels: ['x'] });
const ORIGINAL = fixture('hdf5', 'dump8_many.hdf5'); // 23 float32 images (8, 8, 4), not written by this library
const coded = (code: string) => expect.objectContaining({ code }) as Error;

function file(name: string, content: string | Buffer): string {
  writeFileSync(scratch.path(name), content);
  return scratch.path(name);
}

/** A shard of uint8 fields (2, side, 1), each filled with its value. */
async function shard(name: string, values: Record<string, number>, side = 2): Promise<string> {
  const writer = await ShardWriter.create(scratch.path(name));
  for (const [id, value] of Object.entries(values)) {
    await writer.add(id, new Uint8Array(2 * side).fill(value), [2, side, 1], [200, 100 * side]);
  }
  await writer.close();
  return scratch.path(name);
}

/** An index of a and b in one shard and of c, wider, in another. */
async function index(): Promise<string> {
  const first = await shard('one.hdf5', { a: 1, b: 1 });
  const second = await shard('two.hdf5', { c: 1 }, 4);
  await writeIndex(scratch.path('all.hdf5'), new Map([['a', first], ['b', first], ['c', second]])); // prettier-ignore
  return scratch.path('all.hdf5');
}

async function hdf5(path: string, hash = false): Promise<Hdf5Report> {
  const report = await inspectFile(path, { hash });
  if (report.kind !== 'hdf5') throw new Error('a table');
  return report;
}

async function table(path: string, o = {}): Promise<TableReport> {
  const report = await inspectFile(path, o);
  if (report.kind !== 'table') throw new Error('no table');
  return report;
}

describe('inspectFile refuses', () => {
  test('wrong arguments', async () => {
    for (const path of ['', 3 as unknown as string])
      await expect(inspectFile(path)).rejects.toEqual(coded('ERR_INVALID_ARG'));
    for (const o of [null, { hash: 'yes' }, { spec: {} }, { signal: 1 }, { onProgress: 1 }])
      await expect(inspectFile(ORIGINAL, o as never)).rejects.toEqual(coded('ERR_INVALID_ARG'));
    for (const paths of [[], 'x', [1]])
      await expect(inspectFiles(paths as never)).rejects.toEqual(coded('ERR_INVALID_ARG'));
  });

  test.each([
    ['a missing table', 'none.csv', undefined, 'ERR_FILE_NOT_FOUND'],
    ['a missing HDF5 file', 'none.hdf5', undefined, 'ERR_FILE_NOT_FOUND'],
    ['no HDF5 file', 'text.hdf5', 'ID\na\n', 'ERR_HDF5'],
    ['a table without IDs', 'x.csv', 'name\na\n', 'ERR_TABLE'],
    ['an empty ID', 'x.csv', 'ID,n\n,1\n', 'ERR_TABLE'],
    ['a wrong label', 'x.csv', 'ID,Label\na,[7]\n', 'ERR_TABLE'],
    ['a wrong size', 'x.csv', 'ID,ImageHeight,ImageWidth\na,7,-7\n', 'ERR_TABLE'],
    ['what is no gzip data', 'x.csv.gz', 'ID\na\n', 'ERR_TABLE'],
  ])('%s', async (_, name, content, code) => {
    const path = content === undefined ? scratch.path(name) : file(name, content);
    await expect(inspectFile(path, { spec })).rejects.toEqual(coded(code));
    await expect(inspectFile(path, { spec })).rejects.toThrow(name);
  });

  test('what is neither, by one line without its contents', async () => {
    const path = file('x.png', Buffer.from('\x89PNG\r\n\x1a\n\0\0\0\rIHDR', 'latin1'));
    await expect(inspectFile(path)).rejects.toThrow(
      `Expected an HDF5 file or a CSV table in ${path} but it is neither`,
    );
  });

  test('an aborted signal', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(inspectFile(ORIGINAL, { signal })).rejects.toThrow('enough');
  });
});

describe('an HDF5 file', () => {
  test('of the original: float32 data sets in the file itself', async () => {
    expect(await hdf5(ORIGINAL)).toEqual({
      kind: 'hdf5',
      path: ORIGINAL,
      images: 23,
      shapes: { '8 × 8 × 4': 23 },
      dtypes: { float32: 23 },
      originalSizes: { 'not stored': 23 },
      shards: 0,
      missingShards: { count: 0, first: [] },
      lost: { count: 0, first: [] },
      bytes: readFileSync(ORIGINAL).length,
      unreadable: { count: 0, first: [] },
    });
  });

  test('of cellcam: an index of links', async () => {
    const path = await index();
    const files = ['all.hdf5', 'one.hdf5', 'two.hdf5'].map((name) => readFileSync(scratch.path(name)).length);
    expect(await hdf5(path)).toMatchObject({
      images: 3,
      shapes: { '2 × 2 × 1': 2, '2 × 4 × 1': 1 },
      dtypes: { uint8: 3 },
      originalSizes: { '200 × 200': 2, '200 × 400': 1 },
      shards: 2,
      missingShards: { count: 0 },
      bytes: files.reduce((sum, n) => sum + n),
    });
  });

  test('by any name', async () => {
    const path = file('images', readFileSync(ORIGINAL));
    expect((await hdf5(path)).images).toBe(23);
  });

  test('what is lost and what cannot be read is listed, the rest is counted', async () => {
    const ids = Array.from({ length: 7 }, (_, i) => `i${i}`);
    const gone = await shard('gone.hdf5', Object.fromEntries(ids.map((id) => [id, 1])));
    const cut = await shard('cut.hdf5', { j: 1 });
    const here = await shard('here.hdf5', { k: 1 });
    const links = new Map([...ids.map((id): [string, string] => [id, gone]), ['j', cut], ['k', here], ['other', here]]);
    await writeIndex(scratch.path('all.hdf5'), links);
    rmSync(gone);
    writeFileSync(cut, readFileSync(cut).subarray(0, 300));
    const report = await hdf5(scratch.path('all.hdf5'));
    expect(report).toMatchObject({ images: 10, shapes: { '2 × 2 × 1': 1 }, shards: 3 });
    expect(report.missingShards).toEqual({ count: 1, first: [gone] });
    expect(report.lost).toEqual({ count: 7, first: ids.slice(0, 5) });
    expect(report.unreadable).toEqual({
      count: 2,
      first: [
        { id: 'j', reason: expect.stringContaining('cut short') as string },
        { id: 'other', reason: expect.stringContaining('missing or no data set') as string },
      ],
    });
  });

  test('images with the same pixels, shape and dtype', async () => {
    const path = await index(); // c has the same values in another shape
    expect((await hdf5(path)).identical).toBeUndefined();
    expect((await hdf5(path, true)).identical).toEqual([['a', 'b']]);
    const other = await shard('other.hdf5', { a: 1, b: 2, c: 3, d: 2, e: 1, f: 2 });
    expect((await hdf5(other, true)).identical).toEqual([['a', 'e'], ['b', 'd', 'f']]); // prettier-ignore
    const zeros = await ShardWriter.create(scratch.path('zeros.hdf5'));
    await zeros.add('a', new Uint8Array(16), [2, 2, 4], [2, 2]);
    await zeros.add('b', new Float32Array(4), [2, 2, 1], [2, 2]);
    await zeros.close();
    expect((await hdf5(scratch.path('zeros.hdf5'), true)).identical).toEqual([]);
  });

  test('the reader is closed, also after an error', async () => {
    const close = jest.spyOn(Hdf5Reader.prototype, 'close');
    const path = await index();
    await inspectFile(path);
    await expect(inspectFile(path, { signal: AbortSignal.abort() })).rejects.toThrow();
    expect(close).toHaveBeenCalledTimes(2);
    close.mockRestore();
  });
});

describe('a table', () => {
  test('of labels', async () => {
    const rows = ['ID,Label,ext', 'a,"[0, 0]",external', 'b,1|0,', 'c,[1],2018', 'b,[0],', 'd,,', 'a,[0],', 'b,[],'];
    const report = await table(file('x.csv', rows.join('\r\n')), { spec });
    expect(report).toMatchObject({ rows: 7, images: 4, columns: ['ID', 'Label', 'ext'] });
    expect(report.repeated).toEqual({ count: 2, first: ['b', 'a'] });
    expect(report.labels).toEqual({
      classes: [
        { name: 'A', count: 2, share: 2 / 3 },
        { name: 'B, b', count: 2, share: 2 / 3 },
        { name: 'C', count: 0, share: 0 },
      ],
      absent: ['C'],
      perImage: { 1: 2, 2: 1 },
      ext: { external: 1, default: 1, 2018: 1 },
      unlabelled: 2,
    });
    expect(report.sizes).toBeUndefined();
  });

  test('of labels without a label', async () => {
    const { labels } = await table(file('x.csv', 'ID,Label\na,\n'), { spec });
    expect(labels).toMatchObject({ absent: spec.classes, unlabelled: 1, perImage: {}, ext: {} });
    expect(labels!.classes[0]).toEqual({ name: 'A', count: 0, share: 0 });
  });

  test('of sizes, compressed', async () => {
    const text = 'ID,ImageHeight,ImageWidth\na,20,10\nb,20,10\na,1,1\nc,5,6\n';
    const report = await table(file('meta.csv.gz', gzipSync(text)));
    expect(report).toMatchObject({ rows: 4, images: 3, repeated: { count: 1, first: ['a'] } });
    expect(report.sizes).toEqual({ '20 × 10': 2, '5 × 6': 1 });
    expect(report.labels).toBeUndefined();
  });

  test('of anything else with IDs, of which five repeated ones are listed', async () => {
    const ids = [...'abcdefg'];
    const report = await table(file('cells.csv', ['ID,cell_id', ...ids.map((id) => `${id},1`), ...ids.map((id) => `${id},2`)].join('\n'))); // prettier-ignore
    expect(report).toMatchObject({ rows: 14, images: 7, columns: ['ID', 'cell_id'] });
    expect(report.repeated).toEqual({ count: 7, first: ids.slice(0, 5) });
  });

  test('of 108,000 rows in seconds', async () => {
    const rows = Array.from({ length: 108_000 }, (_, i) => `id_${i},"[${i % 3}, 1]",default,${i % 3 === 0 ? 1 : 0}`);
    const path = file('large.csv', ['ID,Label,ext,A', ...rows].join('\n'));
    const started = performance.now();
    expect((await table(path, { spec })).labels!.classes.map(({ count }) => count)).toEqual([36_000, 108_000, 36_000]);
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});

describe('several files', () => {
  test('whose IDs differ, both ways', async () => {
    const labels = file('labels.csv', ['ID', ...'abcdefghx'].join('\n'));
    const cells = file('cells.csv', 'ID\na\na\ny\n');
    const { files, comparisons } = await inspectFiles([await index(), labels, cells]);
    expect(files.map(({ kind, images }) => [kind, images])).toEqual([['hdf5', 3], ['table', 9], ['table', 2]]); // prettier-ignore
    expect(comparisons).toEqual([
      {
        a: scratch.path('all.hdf5'),
        b: labels,
        both: 3,
        onlyA: { count: 0, first: [] },
        onlyB: { count: 6, first: ['d', 'e', 'f', 'g', 'h'] },
      },
      expect.objectContaining({ b: cells, both: 1, onlyA: { count: 2, first: ['b', 'c'] }, onlyB: { count: 1, first: ['y'] } }), // prettier-ignore
      expect.objectContaining({ a: labels, b: cells, both: 1 }),
    ]);
  });

  test('each against one', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((id) => file(`${id}.csv`, `ID\n${id}\n`)) as [string, string, string];
    const { files, comparisons } = await inspectFiles([a, b], { against: c });
    expect(files.map(({ path }) => path)).toEqual([a, b]);
    expect(comparisons.map((o) => [o.a, o.b])).toEqual([[a, c], [b, c]]); // prettier-ignore
    const { comparisons: withImages } = await inspectFiles([a], { against: ORIGINAL });
    expect(withImages).toMatchObject([{ b: ORIGINAL, both: 0, onlyB: { count: 23 } }]);
    await expect(inspectFiles([a], { against: scratch.path('none.csv') })).rejects.toEqual(coded('ERR_FILE_NOT_FOUND'));
  });

  test('a dump, its table of sizes and the folder it was made of', async () => {
    const folder = scratch.path('images');
    mkdirSync(folder);
    const grey = sharp({ create: { width: 12, height: 10, channels: 3, background: 'gray' } }).toColourspace('b-w');
    for (const id of ['a', 'b', 'c'])
      await grey
        .clone()
        .png()
        .toFile(scratch.path('images', `${id}_x.png`));
    const [output, meta] = [scratch.path('images_8.hdf5'), scratch.path('meta.csv')];
    await dumpImages({
      imagesFolder: folder,
      hdf5Output: output,
      imageSize: 8,
      spec,
      ids: ['a', 'b'],
      metaOutput: meta,
    });
    const { files, comparisons } = await inspectFiles([output, meta], { imagesFolder: folder, spec, hash: true });
    expect(files[0]).toMatchObject({ shapes: { '8 × 8 × 1': 2 }, originalSizes: { '10 × 12': 2 }, shards: 1 });
    expect(files[0]).toMatchObject({ identical: [['a', 'b']] });
    expect(files[1]).toMatchObject({ sizes: { '10 × 12': 2 } });
    expect(comparisons.map((o) => [o.b, o.both, o.onlyB.first])).toEqual([
      [meta, 2, []],
      [folder, 2, ['c']],
      [folder, 2, ['c']],
    ]);
    await expect(inspectFiles([meta], { imagesFolder: scratch.path('none') })).rejects.toEqual(
      coded('ERR_FILE_NOT_FOUND'),
    );
  });
});

describeShared('the tables of the data set', () => {
  interface Facts {
    tables: { file: string; ext_values: Record<string, number>; class_counts: Record<string, number> }[];
    meta: { rows: number; sizes: Record<string, number> };
  }
  const facts = () => readJson<Facts>(shared('labels', 'tables.json'));

  test.each(['holdout.csv', 'train_cleaned_2018.csv'])('%s', async (name) => {
    const expected = facts().tables.find((t) => t.file === name)!;
    const { labels } = await table(shared('labels', name));
    expect(labels!.ext).toEqual(expected.ext_values);
    expect(Object.fromEntries(labels!.classes.map(({ name, count }) => [name, count]))).toEqual(expected.class_counts);
  });

  test('meta', async () => {
    const { meta } = facts();
    const report = await table(shared('labels', 'meta_cleaned_default_external.csv.gz'));
    expect(report.images).toBe(meta.rows);
    const sizes = Object.entries(meta.sizes).map(([size, count]) => [size.replace('x', ' × '), count]);
    expect(report.sizes).toEqual(Object.fromEntries(sizes));
  });
});
