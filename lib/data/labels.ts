import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parse } from 'csv-parse/sync';
import { stringify } from 'csv-stringify/sync';
import { CellcamError, codeOf, messageOf } from '../errors';
import { invalidArgument, type NdArray, requireInteger, requireOneOf, requireString } from '../options';
import { HPA, type DatasetSpec } from './dataset_spec';

/** Names of the containers that an image can live in. */
const CONTAINERS = ['default', 'external', 'additional', '2018'] as const;

/** Image-level labels, one row an image. */
export interface LabelTable {
  ids: string[];
  /** The container of each image: default, external, additional or 2018. */
  ext: string[];
  /** 0/1, shape (rows, classes). */
  labels: NdArray<Uint8Array>;
  /** The labels of each row as the table lists them: order and repeats kept. */
  lists: number[][];
  /** The file they come from. */
  path: string;
}

/** Where each column stands; -1 for those that are absent. */
interface Columns {
  id: number;
  label: number;
  ext: number;
  classes: number[];
}

function readText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(requireString(path, 'path'));
  } catch (error) {
    if (codeOf(error) === 'ERR_INVALID_ARG') throw error;
    if (codeOf(error) === 'ENOENT') {
      throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected a table at ${path} but there is no such file`, {
        cause: error,
      });
    }
    throw new CellcamError('ERR_TABLE', `Cannot read the table ${path}: ${messageOf(error)}`, { cause: error });
  }
  if (!path.endsWith('.gz')) return bytes.toString('utf8');
  try {
    return gunzipSync(bytes).toString('utf8');
  } catch (error) {
    throw new CellcamError('ERR_TABLE', `Expected gzip data in ${path}: ${messageOf(error)}`, { cause: error });
  }
}

const CSV = { bom: true, record_delimiter: '\n', skip_empty_lines: true };

/** A parsed file with all `needed` columns and at least one row below the header. */
class CsvTable {
  readonly header: string[];
  readonly rows: string[][];
  private readonly text: string;

  constructor(
    readonly path: string,
    needed: string[],
  ) {
    // One kind of line end, as csv-parse counts a CRLF within quotes as two lines.
    this.text = readText(path).replace(/\r\n?/g, '\n');
    const [header, ...rows] = this.parse();
    this.rows = rows;
    this.header = (header ?? []).map((name) => name.trim());
    this.checkHeader(needed);
    if (rows.length === 0) throw this.error(-1, 'Expected at least one row below the header');
  }

  /** An error about a row (-1: the header). Lines are counted only here, as counting them doubles the time of reading. */
  error(row: number, problem: string): CellcamError {
    const read = parse(this.text, { ...CSV, to: row + 2, info: true }) as unknown as { info: { lines: number } }[];
    return new CellcamError('ERR_TABLE', `${this.path}:${read.at(-1)?.info.lines ?? 1}: ${problem}`);
  }

  private parse(): string[][] {
    try {
      return parse(this.text, CSV);
    } catch (error) {
      const { lines } = error as { lines?: number };
      throw new CellcamError('ERR_TABLE', `${this.path}:${lines ?? 1}: ${messageOf(error)}`, { cause: error });
    }
  }

  private checkHeader(needed: string[]): void {
    const { header } = this;
    const missing = needed.filter((name) => !header.includes(name));
    if (missing.length > 0) {
      const found = header.length === 0 ? 'the file is empty' : `the header is ${header.slice(0, 5).join(',')}`;
      throw this.error(-1, `Expected the columns ${needed.join(', ')}; ${missing.join(', ')} is missing: ${found}`);
    }
    const twice = header.find((name, i) => name !== '' && header.indexOf(name) !== i);
    if (twice !== undefined) throw this.error(-1, `Expected every column once but '${twice}' is there twice`);
  }
}

/** The label indices of `[6, 12]`, `8|5|0` or `6`; undefined where the text is none of these. */
function splitList(text: string): string[] | undefined {
  const trimmed = text.trim();
  const bracketed = /^\[([\s\d,]*)\]$/.exec(trimmed);
  if (bracketed) {
    const inner = bracketed[1]!.trim();
    return inner === '' ? [] : inner.split(',').map((part) => part.trim());
  }
  if (trimmed === '') return [];
  return trimmed.split('|').map((part) => part.trim());
}

/** Turns rows into a LabelTable; a row whose id was there before is checked and left out. */
class LabelReader {
  private readonly ids: string[] = [];
  private readonly ext: string[] = [];
  private readonly lists: number[][] = [];
  private readonly seen = new Set<string>();
  private readonly matrix: Uint8Array;
  private readonly columns: Columns;

  constructor(
    private readonly csv: CsvTable,
    private readonly spec: DatasetSpec,
  ) {
    const column = (name: string) => csv.header.indexOf(name);
    this.columns = { id: column('ID'), label: column('Label'), ext: column('ext'), classes: spec.classes.map(column) };
    this.matrix = new Uint8Array(csv.rows.length * spec.classes.length);
  }

  read(): LabelTable {
    this.csv.rows.forEach((fields, row) => this.add(fields, row));
    const shape: [number, number] = [this.ids.length, this.spec.classes.length];
    const labels = { data: this.matrix.slice(0, shape[0] * shape[1]), shape };
    return { ids: this.ids, ext: this.ext, labels, lists: this.lists, path: this.csv.path };
  }

  private add(fields: string[], row: number): void {
    const id = fields[this.columns.id]!.trim();
    if (id === '') throw this.csv.error(row, 'Expected a non-empty ID');
    const list = this.parseList(fields[this.columns.label]!, row);
    const ext = this.parseExt(fields[this.columns.ext], row);
    const first = this.ids.length * this.spec.classes.length;
    const own = this.matrix.subarray(first, first + this.spec.classes.length).fill(0);
    for (const label of list) own[label] = 1;
    this.checkOneHot(fields, own, row);
    if (this.seen.has(id)) return;
    this.seen.add(id);
    this.ids.push(id);
    this.ext.push(ext);
    this.lists.push(list);
  }

  private parseList(text: string, row: number): number[] {
    const list = splitList(text)?.map((part) => (/^\d+$/.test(part) ? Number(part) : NaN));
    if (list === undefined || list.some(Number.isNaN)) {
      throw this.csv.error(row, `Expected labels such as [6, 12] or 6|12 in Label but received '${text}'`);
    }
    if (list.length === 0) throw this.csv.error(row, 'Expected at least one label in Label but it is empty');
    const last = this.spec.classes.length - 1;
    const above = list.find((label) => label > last);
    if (above === undefined) return list;
    throw this.csv.error(row, `Expected labels from 0 to ${last} in Label but received ${above}`);
  }

  private parseExt(text: string | undefined, row: number): string {
    const ext = text?.trim() || 'default';
    if (CONTAINERS.some((name) => name === ext)) return ext;
    throw this.csv.error(row, `Expected one of ${CONTAINERS.join(', ')} in ext but received '${ext}'`);
  }

  private checkOneHot(fields: string[], own: Uint8Array, row: number): void {
    const { classes, id, label } = this.columns;
    for (let c = 0; c < classes.length; c++) {
      const text = fields[classes[c]!];
      // Absent columns give undefined; the exact texts are compared first because all but a few tables hold these.
      if (text === undefined || text === (own[c] === 1 ? '1' : '0')) continue;
      if (text.trim() !== '' && Number(text) === own[c]) continue;
      const where = `column '${this.spec.classes[c]}' of ${fields[id]}, whose Label is ${fields[label]},`;
      throw this.csv.error(row, `Expected ${own[c]} in ${where} but received '${text}'`);
    }
  }
}

/**
 * Reads a table of image labels: columns ID and Label (`[6, 12]`, `8|5|0` or `6`); ext, `default` where absent or
 * empty; and one 0/1 column a class by its name, which must agree with Label where it is there. Of rows with the same
 * ID the first is kept.
 * @param path CSV, UTF-8
 * @param o.spec whose classes; default: HPA
 * @param o.ext replaces ext in every row
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_TABLE with file and line; ERR_INVALID_ARG
 */
export function readLabels(path: string, o: { spec?: DatasetSpec; ext?: string } = {}): LabelTable {
  const spec = o.spec ?? HPA;
  const ext = o.ext === undefined ? undefined : requireOneOf(o.ext, 'ext', CONTAINERS);
  const table = new LabelReader(new CsvTable(path, ['ID', 'Label']), spec).read();
  return ext === undefined ? table : { ...table, ext: table.ids.map(() => ext) };
}

/**
 * The table of some rows, in the order given.
 * @param rows row numbers from 0
 * @throws CellcamError ERR_INVALID_ARG
 */
export function selectRows(table: LabelTable, rows: Int32Array | number[]): LabelTable {
  const [count, classes] = table.labels.shape as [number, number];
  const data = new Uint8Array(rows.length * classes);
  const chosen = Array.from(rows, (row, i) => requireInteger(row, `rows[${i}]`, 0, count - 1));
  chosen.forEach((row, i) => data.set(table.labels.data.subarray(row * classes, (row + 1) * classes), i * classes));
  return {
    ids: chosen.map((row) => table.ids[row]!),
    ext: chosen.map((row) => table.ext[row]!),
    lists: chosen.map((row) => table.lists[row]!),
    labels: { data, shape: [chosen.length, classes] },
    path: table.path,
  };
}

/**
 * Both tables' rows, a's first. Both may hold the same ID only in different containers.
 * @throws CellcamError ERR_INVALID_ARG if they differ in the number of classes; ERR_TABLE if both hold one image
 */
export function concatTables(a: LabelTable, b: LabelTable): LabelTable {
  const classes = a.labels.shape[1]!;
  if (b.labels.shape[1] !== classes) throw invalidArgument(`a table of ${classes} classes`, 'b', b.labels.shape[1]);
  const key = (table: LabelTable, row: number) => `${table.ext[row]}/${table.ids[row]}`;
  const known = new Set(a.ids.map((_, row) => key(a, row)));
  const twice = b.ids.findIndex((_, row) => known.has(key(b, row)));
  if (twice >= 0) {
    const message = `Expected different images in ${a.path} and ${b.path} but both hold ${key(b, twice)}`;
    throw new CellcamError('ERR_TABLE', message);
  }
  const data = new Uint8Array(a.labels.data.length + b.labels.data.length);
  data.set(a.labels.data);
  data.set(b.labels.data, a.labels.data.length);
  return {
    ids: [...a.ids, ...b.ids],
    ext: [...a.ext, ...b.ext],
    lists: [...a.lists, ...b.lists],
    labels: { data, shape: [a.ids.length + b.ids.length, classes] },
    path: `${a.path} + ${b.path}`,
  };
}

/**
 * Reads the original sizes of images: columns ID, ImageHeight, ImageWidth, in pixels. Of rows with the same ID the
 * first is kept.
 * @param path .csv or .csv.gz
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_TABLE with file and line
 */
export function readSizes(path: string): Map<string, { height: number; width: number }> {
  const names = ['ID', 'ImageHeight', 'ImageWidth'];
  const csv = new CsvTable(path, names);
  const [id, height, width] = names.map((name) => csv.header.indexOf(name)) as [number, number, number];
  const pixels = (text: string, name: string, row: number) => {
    const size = Number(text);
    if (/^\s*\d+\s*$/.test(text) && Number.isSafeInteger(size) && size > 0) return size;
    throw csv.error(row, `Expected a positive integer in ${name} but received '${text}'`);
  };
  const sizes = new Map<string, { height: number; width: number }>();
  csv.rows.forEach((fields, row) => {
    const name = fields[id]!.trim();
    if (name === '') throw csv.error(row, 'Expected a non-empty ID');
    const size = {
      height: pixels(fields[height]!, 'ImageHeight', row),
      width: pixels(fields[width]!, 'ImageWidth', row),
    };
    if (!sizes.has(name)) sizes.set(name, size);
  });
  return sizes;
}

/**
 * Writes a table with the columns ID, Label (`[6, 12]`), ext and one 0/1 column a class. A file of that name is
 * replaced only once the new one is whole.
 * @throws CellcamError ERR_WRITE; ERR_INVALID_ARG if table and spec differ in the number of classes
 */
export function writeLabels(path: string, table: LabelTable, spec: DatasetSpec = HPA): void {
  const classes = spec.classes.length;
  if (table.labels.shape[1] !== classes)
    throw invalidArgument(`a table of ${classes} classes`, 'table', table.labels.shape[1]);
  const rows = table.ids.map((id, row) => {
    const own = table.labels.data.subarray(row * classes, (row + 1) * classes);
    return [id, `[${table.lists[row]!.join(', ')}]`, table.ext[row]!, ...own];
  });
  const temporary = `${requireString(path, 'path')}.${process.pid}.part`;
  try {
    writeFileSync(temporary, stringify([['ID', 'Label', 'ext', ...spec.classes], ...rows]), { flush: true });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new CellcamError('ERR_WRITE', `Cannot write the table ${path}: ${messageOf(error)}`, { cause: error });
  }
}
