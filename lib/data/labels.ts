import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { stringify } from 'csv-stringify/sync';
import { CellcamError, messageOf } from '../errors';
import { invalidArgument, type NdArray, requireInteger, requireOneOf, requireString } from '../options';
import { CsvTable } from './csv_table';
import { HPA, type DatasetSpec } from './dataset_spec';
import { isEmptyList, labelIndices } from './label_list';

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

/** How to read a table of labels. */
export interface LabelOptions {
  /** Whose classes; default: HPA. */
  spec?: DatasetSpec | undefined;
  /** Replaces ext in every row. */
  ext?: string | undefined;
}

/** How to scan one. */
export interface ScanOptions extends LabelOptions {
  /** Leave out rows without a label instead of refusing the table. */
  skipUnlabelled?: boolean | undefined;
  /** Leave out rows marked `True` in the column in_trainset: HPA's images that Kaggle's train.csv has under another ID. */
  skipTrainSet?: boolean | undefined;
}

/** A table of labels, and what of the file is not in it. */
export interface LabelScan {
  table: LabelTable;
  /** Below the header. */
  rows: number;
  unlabelled: number;
  inTrainSet: number;
  /** Rows whose ID was there before. */
  repeated: number;
}

/** Where each column stands; -1 for those that are absent. */
interface Columns {
  trainSet: number;
  label: number;
  ext: number;
  classes: number[];
}

/** Turns rows into a LabelTable; a row whose id was there before is checked and left out. */
class LabelReader {
  private readonly ids: string[] = [];
  private readonly ext: string[] = [];
  private readonly lists: number[][] = [];
  private readonly seen = new Set<string>();
  private readonly matrix: Uint8Array;
  private readonly columns: Columns;
  private readonly spec: DatasetSpec;
  private readonly counts = { unlabelled: 0, inTrainSet: 0, repeated: 0 };

  constructor(
    private readonly csv: CsvTable,
    private readonly options: ScanOptions,
  ) {
    const { classes } = (this.spec = options.spec ?? HPA);
    const column = (name: string) => csv.header.indexOf(name);
    const [label, ext, trainSet] = ['Label', 'ext', 'in_trainset'].map(column) as [number, number, number];
    this.columns = { label, ext, trainSet, classes: classes.map(column) };
    this.matrix = new Uint8Array(csv.rows.length * classes.length);
  }

  read(): LabelScan {
    const ids = this.csv.ids();
    this.csv.rows.forEach((fields, row) => {
      if (!this.leavesOut(fields)) this.add(ids[row]!, fields, row);
    });
    const shape: [number, number] = [this.ids.length, this.spec.classes.length];
    const labels = { data: this.matrix.slice(0, shape[0] * shape[1]), shape };
    const table = { ids: this.ids, ext: this.ext, labels, lists: this.lists, path: this.csv.path };
    return { table, rows: ids.length, ...this.counts };
  }

  private leavesOut(fields: string[]): boolean {
    const { skipUnlabelled, skipTrainSet } = this.options;
    const inTrainSet = skipTrainSet === true && fields[this.columns.trainSet]?.trim().toLowerCase() === 'true';
    const unlabelled = !inTrainSet && skipUnlabelled === true && isEmptyList(fields[this.columns.label]!);
    if (inTrainSet) this.counts.inTrainSet++;
    if (unlabelled) this.counts.unlabelled++;
    return inTrainSet || unlabelled;
  }

  private add(id: string, fields: string[], row: number): void {
    const list = this.parseList(fields[this.columns.label]!, row);
    const ext = this.options.ext ?? this.parseExt(fields[this.columns.ext], row);
    const first = this.ids.length * this.spec.classes.length;
    const own = this.matrix.subarray(first, first + this.spec.classes.length).fill(0);
    for (const label of list) own[label] = 1;
    this.checkOneHot(id, fields, own, row);
    if (this.seen.has(id)) return void this.counts.repeated++;
    this.seen.add(id);
    this.ids.push(id);
    this.ext.push(ext);
    this.lists.push(list);
  }

  private parseList(text: string, row: number): number[] {
    const list = labelIndices(text, this.spec.classes);
    if (list === undefined) {
      const names = this.spec.classes.slice(0, 2).join('|');
      throw this.csv.error(row, `Expected labels such as [6, 12], 6|12 or ${names} in Label but received '${text}'`);
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

  private checkOneHot(id: string, fields: string[], own: Uint8Array, row: number): void {
    const { classes, label } = this.columns;
    for (let c = 0; c < classes.length; c++) {
      const text = fields[classes[c]!];
      // Absent columns give undefined; the exact texts are compared first because all but a few tables hold these.
      if (text === undefined || text === (own[c] === 1 ? '1' : '0')) continue;
      if (text.trim() !== '' && Number(text) === own[c]) continue;
      const where = `column '${this.spec.classes[c]}' of ${id}, whose Label is ${fields[label]},`;
      throw this.csv.error(row, `Expected ${own[c]} in ${where} but received '${text}'`);
    }
  }
}

/** `readLabels` of a table that is parsed already, with counts of what was left out. @throws CellcamError ERR_TABLE */
export function scanLabels(csv: CsvTable, o: ScanOptions = {}): LabelScan {
  return new LabelReader(csv, o).read();
}

/** Opens a table of image labels. @throws CellcamError ERR_FILE_NOT_FOUND; ERR_TABLE with file and line */
export function openLabels(path: string): CsvTable {
  return new CsvTable(path, ['ID', 'Label']);
}

/**
 * Reads a table of image labels: columns ID and Label (`[6, 12]`, `8|5|0`, `6`, or class names: `Nucleoplasm|Cytosol`,
 * `Nucleoplasm,Cytosol`); ext, `default` where absent or empty; and one 0/1 column a class by its name, which must agree
 * with Label where it is there. Of rows with the same ID the first is kept. HPA's public table (kaggle_2021.tsv: Image and
 * Label_idx) is read too; the last part of an image's address is its ID.
 * @param path CSV, UTF-8
 * @param o.spec whose classes; default: HPA
 * @param o.ext replaces ext in every row
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_TABLE with file and line; ERR_INVALID_ARG
 */
export function readLabels(path: string, o: LabelOptions = {}): LabelTable {
  const ext = o.ext === undefined ? undefined : requireOneOf(o.ext, 'ext', CONTAINERS);
  return scanLabels(openLabels(path), { spec: o.spec, ext }).table;
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

const SIZE_COLUMNS = ['ImageHeight', 'ImageWidth'];

/** `readSizes` of a table that is parsed already. @throws CellcamError ERR_TABLE */
export function scanSizes(csv: CsvTable): Map<string, { height: number; width: number }> {
  const columns = SIZE_COLUMNS.map((name) => csv.header.indexOf(name));
  const pixels = (fields: string[], row: number, side: 0 | 1) => {
    const text = fields[columns[side]!]!;
    const size = Number(text);
    if (/^\s*\d+\s*$/.test(text) && Number.isSafeInteger(size) && size > 0) return size;
    throw csv.error(row, `Expected a positive integer in ${SIZE_COLUMNS[side]} but received '${text}'`);
  };
  const ids = csv.ids();
  const sizes = new Map<string, { height: number; width: number }>();
  csv.rows.forEach((fields, row) => {
    const size = { height: pixels(fields, row, 0), width: pixels(fields, row, 1) };
    if (!sizes.has(ids[row]!)) sizes.set(ids[row]!, size);
  });
  return sizes;
}

/**
 * Reads the original sizes of images: columns ID, ImageHeight, ImageWidth, in pixels. Of rows with the same ID the
 * first is kept.
 * @param path .csv or .csv.gz
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_TABLE with file and line
 */
export function readSizes(path: string): Map<string, { height: number; width: number }> {
  return scanSizes(new CsvTable(path, ['ID', ...SIZE_COLUMNS]));
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
