import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { datasetSpec, HPA } from '../../dist/data/dataset_spec';
import { concatTables, readLabels, readSizes, selectRows, writeLabels } from '../../dist/data/labels';
import { describeShared, readJson, shared } from '../reference_cases';

const spec = datasetSpec({ classes: ['A', 'B, b', 'C'], channels: ['x'] });
let folder: string;
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'cellcam-labels-'))));
afterAll(() => rmSync(folder, { recursive: true }));

function file(content: string | Buffer, name = 'table.csv'): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const coded = (code: string) => expect.objectContaining({ code }) as Error;

describe('readLabels refuses', () => {
  it.each([
    ['an empty file', '', 1, 'the file is empty'],
    ['no rows', 'ID,Label\n', 1, 'at least one row'],
    ['no Label column', 'ID,ext\na,default\n', 1, 'Label is missing'],
    ['no ID column', 'Label\n[0]\n', 1, 'ID is missing'],
    ['a column twice', 'ID,Label,ID\na,[0],a\n', 1, "'ID' is there twice"],
    ['a short row', 'ID,Label\na,[0]\nb\n', 3, 'Invalid Record Length'],
    ['an open quote', 'ID,Label\na,"[0]\n', 2, 'Quote Not Closed'],
    ['an empty ID', 'ID,Label\na,[0]\n,[1]\n', 3, 'non-empty ID'],
    ['no label', 'ID,Label\na,[]\n', 2, 'at least one label'],
    ['an empty Label', 'ID,Label\na,\n', 2, 'at least one label'],
    ['a class above the last', 'ID,Label\na,[0]\nb,"[1, 3]"\n', 3, 'from 0 to 2 in Label but received 3'],
    ['a negative class', 'ID,Label\na,[-1]\n', 2, "received '[-1]'"],
    ['a fraction', 'ID,Label\na,1.5\n', 2, "received '1.5'"],
    ['a semicolon', 'ID,Label\na,1;2\n', 2, "received '1;2'"],
    ['a dangling bar', 'ID,Label\na,1|\n', 2, "received '1|'"],
    ['text', 'ID,Label\na,[x]\n', 2, "received '[x]'"],
    ['an unknown container', 'ID,Label,ext\na,[0],2019\n', 2, "in ext but received '2019'"],
    [
      'a disagreeing column',
      'ID,Label,ext,A,"B, b",C\na,[1],default,0,1,0\nb,[1],default,0,1,1\n',
      3,
      "column 'C' of b",
    ],
    ['an empty column', 'ID,Label,ext,A\na,[1],default,\n', 2, "column 'A' of a"],
  ])('%s', (_, content, line, message) => {
    const path = file(content);
    expect(() => readLabels(path, { spec })).toThrow(coded('ERR_TABLE'));
    expect(() => readLabels(path, { spec })).toThrow(`${path}:${line}: `);
    expect(() => readLabels(path, { spec })).toThrow(message);
  });

  it('a missing file, a folder and wrong arguments', () => {
    expect(() => readLabels(join(folder, 'none.csv'))).toThrow(coded('ERR_FILE_NOT_FOUND'));
    expect(() => readLabels(folder)).toThrow(coded('ERR_TABLE'));
    expect(() => readLabels('')).toThrow(coded('ERR_INVALID_ARG'));
    expect(() => readLabels(file('ID,Label\na,0\n'), { ext: 'other' })).toThrow(coded('ERR_INVALID_ARG'));
  });

  it('names the line, not the row, below blank lines and fields of many lines', () => {
    const path = file('ID,Label,note\r\n\r\na,[0],"one\r\ntwo"\r\nb,[9],x\r\n');
    expect(() => readLabels(path, { spec })).toThrow(`${path}:5: `);
  });
});

describe('readLabels', () => {
  it('takes every way to write labels, keeping order and repeats', () => {
    const table = readLabels(file('ID,Label\na,"[2, 0]"\nb,2|0|1\nc,1\nd,"[1,1]"\ne,[ 2 ]\n'), { spec });
    expect(table.lists).toEqual([[2, 0], [2, 0, 1], [1], [1, 1], [2]]);
    expect(table.labels.shape).toEqual([5, 3]);
    expect([...table.labels.data]).toEqual([1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1]);
    expect(table.ext).toEqual(Array(5).fill('default'));
  });

  it('reads a byte order mark, CRLF, any column order, columns of its own and empty ext', () => {
    const table = readLabels(file('\ufeffnote,ext,Label,"B, b",ID\r\nhi,external,[1],1,a\r\n"x,y",,[0],0.0,b\r\n'), {
      spec,
    });
    expect(table.ids).toEqual(['a', 'b']);
    expect(table.ext).toEqual(['external', 'default']);
    expect(table.lists).toEqual([[1], [0]]);
  });

  it('keeps the first of rows with one ID, but still checks the others', () => {
    const table = readLabels(file('ID,Label\na,[0]\nb,[1]\na,[2]\nc,[2]\n'), { spec });
    expect(table.ids).toEqual(['a', 'b', 'c']);
    expect([...table.labels.data]).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    expect(() => readLabels(file('ID,Label\na,[0]\na,[7]\n'), { spec })).toThrow(coded('ERR_TABLE'));
  });

  it('moves all rows to another container', () => {
    const path = file('ID,Label,ext\na,[0],2018\nb,[1],2018\n');
    expect(readLabels(path, { spec }).ext).toEqual(['2018', '2018']);
    expect(readLabels(path, { spec, ext: 'additional' }).ext).toEqual(['additional', 'additional']);
  });
});

describe('tables', () => {
  const table = () => readLabels(file('ID,Label,ext\na,"[2, 0]",default\nb,[1],external\nc,[1],default\n'), { spec });

  it('gives rows in the order asked for', () => {
    const some = selectRows(table(), Int32Array.of(2, 0));
    expect(some).toMatchObject({ ids: ['c', 'a'], ext: ['default', 'default'], lists: [[1], [2, 0]] });
    expect(some.labels).toEqual({ data: Uint8Array.of(0, 1, 0, 1, 0, 1), shape: [2, 3] });
    expect(() => selectRows(table(), [3])).toThrow(coded('ERR_INVALID_ARG'));
  });

  it('joins two tables of different images', () => {
    const other = readLabels(file('ID,Label\na,[0]\n', 'other.csv'), { spec, ext: 'additional' });
    const both = concatTables(table(), other);
    expect(both.ids).toEqual(['a', 'b', 'c', 'a']);
    expect(both.ext.at(-1)).toBe('additional');
    expect(both.labels.shape).toEqual([4, 3]);
    expect([...both.labels.data.subarray(9)]).toEqual([1, 0, 0]);
    expect(() => concatTables(table(), table())).toThrow(coded('ERR_TABLE'));
    const wide = readLabels(file('ID,Label\nz,[0]\n', 'wide.csv'));
    expect(() => concatTables(table(), wide)).toThrow(coded('ERR_INVALID_ARG'));
  });

  it('writes what it reads', () => {
    const path = join(folder, 'written.csv');
    writeLabels(path, table(), spec);
    expect(readFileSync(path, 'utf8').split('\n').slice(0, 2)).toEqual([
      'ID,Label,ext,A,"B, b",C',
      'a,"[2, 0]",default,1,0,1',
    ]);
    expect(readLabels(path, { spec })).toEqual({ ...table(), path });
    expect(() => writeLabels(path, table(), HPA)).toThrow(coded('ERR_INVALID_ARG'));
  });

  it('leaves nothing behind where it cannot write', () => {
    expect(() => writeLabels(join(folder, 'none', 'x.csv'), table(), spec)).toThrow(coded('ERR_WRITE'));
    expect(() => writeLabels(folder, table(), spec)).toThrow(coded('ERR_WRITE'));
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  });
});

describe('readSizes', () => {
  it.each([
    ['ID,ImageHeight\na,1\n', 'ImageWidth is missing'],
    ['ID,ImageHeight,ImageWidth\na,1,0\n', 'a positive integer in ImageWidth'],
    ['ID,ImageHeight,ImageWidth\na,1.5,1\n', 'a positive integer in ImageHeight'],
    ['ID,ImageHeight,ImageWidth\na,,1\n', 'a positive integer in ImageHeight'],
    ['ID,ImageHeight,ImageWidth\n,1,1\n', 'a non-empty ID'],
  ])('refuses %p', (content, message) => {
    const path = file(content);
    expect(() => readSizes(path)).toThrow(coded('ERR_TABLE'));
    expect(() => readSizes(path)).toThrow(message);
  });

  it('refuses missing files and what is not gzip', () => {
    expect(() => readSizes(join(folder, 'none.csv.gz'))).toThrow(coded('ERR_FILE_NOT_FOUND'));
    expect(() => readSizes(file('ID\n', 'plain.csv.gz'))).toThrow(coded('ERR_TABLE'));
  });

  it('reads plain and compressed tables alike, the first of equal IDs', () => {
    const text = 'ID,ImageWidth,ImageHeight\na,20,10\na,1,1\nb,5,6\n';
    const plain = readSizes(file(text));
    expect([...plain]).toEqual([['a', { height: 10, width: 20 }], ['b', { height: 6, width: 5 }]]); // prettier-ignore
    expect(readSizes(file(gzipSync(text), 'sizes.csv.gz'))).toEqual(plain);
  });
});

interface TableFacts {
  file: string;
  rows_after_drop_duplicates: number;
  ext_values: Record<string, number>;
  class_counts: Record<string, number>;
  rows_with_duplicate_in_Label: number;
  rows_with_unsorted_Label: number;
  max_labels_per_row: number;
}

describeShared('the tables of the data set', () => {
  const facts = () =>
    readJson<{ tables: TableFacts[]; meta: { rows: number; sizes: Record<string, number> } }>(
      shared('labels', 'tables.json'),
    );

  it.each(['holdout.csv', 'train_cleaned_2018.csv'])('%s', (name) => {
    const expected = facts().tables.find((t) => t.file === name)!;
    const { ids, ext, labels, lists } = readLabels(shared('labels', name));
    expect(ids).toHaveLength(expected.rows_after_drop_duplicates);
    expect(Object.entries(expected.ext_values)).toEqual([[ext[0], ext.length]]);
    const counts = HPA.classes.map((_, c) => ids.reduce((sum, _id, row) => sum + labels.data[row * 19 + c]!, 0));
    expect(counts).toEqual(HPA.classes.map((c) => expected.class_counts[c]));
    expect(lists.filter((l) => new Set(l).size < l.length)).toHaveLength(expected.rows_with_duplicate_in_Label);
    const unsorted = lists.filter((l) => l.some((label, i) => i > 0 && label < l[i - 1]!));
    expect(unsorted).toHaveLength(expected.rows_with_unsorted_Label);
    expect(Math.max(...lists.map((l) => new Set(l).size))).toBe(expected.max_labels_per_row);
  });

  it('meta', () => {
    const { meta } = facts();
    const sizes = readSizes(shared('labels', 'meta_cleaned_default_external.csv.gz'));
    const counts: Record<string, number> = {};
    for (const { height, width } of sizes.values())
      counts[`${height}x${width}`] = (counts[`${height}x${width}`] ?? 0) + 1;
    expect(sizes.size).toBe(meta.rows);
    expect(counts).toEqual(meta.sizes);
  });
});
