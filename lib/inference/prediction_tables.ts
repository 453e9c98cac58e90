import { existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { float32Text, quoted } from '../cells/oof_rows';
import { fillDurably, publish, temporaryName, writeError } from '../data/durable';
import { CellcamError } from '../errors';
import { requireOneOf, requireString } from '../options';
import {
  count,
  JournalReader,
  type JournalHeader,
  type PredictedCell,
  type PredictedImage,
  type RefusedImage,
} from './prediction_journal';

export const CELL_FORMATS = ['csv', 'parquet', 'jsonl'] as const;
export type CellFormat = (typeof CELL_FORMATS)[number];

export interface TableOptions {
  /** Also the table of cells, `cells.csv`, `cells.parquet`, `cells.jsonl`. Default: csv. */
  cells?: readonly CellFormat[];
}

export interface TablesResult {
  images: number;
  cells: number;
  withoutCells: string[];
  failed: { id: string; reason: string }[];
  files: string[];
}

/** Takes images one by one and becomes a file. */
interface Sink {
  add(image: PredictedImage): Promise<void>;
}

type Write = (text: string) => Promise<unknown>;

function texts(values: readonly number[]): string[] {
  return values.map((p, c) => float32Text(p, `probabilities[${c}]`));
}

/** `ID,ImageWidth,ImageHeight,PredictionString`, as the challenge takes it: `class confidence mask` of every cell and class above 0. */
class SubmissionSink implements Sink {
  constructor(private readonly write: Write) {}

  async begin(): Promise<void> {
    await this.write('ID,ImageWidth,ImageHeight,PredictionString\n');
  }

  async add({ id, width, height, cells }: PredictedImage): Promise<void> {
    const triplets = cells.flatMap(({ mask, probabilities }) =>
      texts(probabilities).flatMap((p, c) => (probabilities[c]! > 0 ? [`${c} ${p} ${mask}`] : [])),
    );
    await this.write(`${quoted(id)},${width},${height},${triplets.join(' ')}\n`);
  }
}

/** The columns of an OOF table, then box, area and both steps where both were run. */
class CsvSink implements Sink {
  constructor(
    private readonly write: Write,
    private readonly header: JournalHeader,
  ) {}

  async begin(): Promise<void> {
    const of = (prefix: string): string =>
      Array.from({ length: this.header.classes }, (_, c) => `${prefix}${c}`).join(',');
    const steps = this.header.steps === 'both' ? `,${of('step1_')},${of('step2_')}` : '';
    await this.write(`ID,ImageWidth,ImageHeight,cell_id,cell_center,${of('')},x1,y1,x2,y2,area${steps}\n`);
  }

  async add({ id, width, height, cells }: PredictedImage): Promise<void> {
    const rows = cells.map((cell) => {
      const start = `${quoted(id)},${width},${height},${cell.cellId},"(${cell.center[0]}, ${cell.center[1]})"`;
      const step2 = cell.step2 ? texts(cell.step2) : cell.probabilities.map(() => '');
      const steps = cell.step1 ? [...texts(cell.step1), ...step2] : [];
      return [start, ...texts(cell.probabilities), ...cell.box, cell.area, ...steps].join(',') + '\n';
    });
    if (rows.length > 0) await this.write(rows.join(''));
  }
}

/** One object a cell. */
class JsonlSink implements Sink {
  constructor(private readonly write: Write) {}

  async add({ id, width, height, cells }: PredictedImage): Promise<void> {
    const rows = cells.map((cell) => JSON.stringify({ id, width, height, ...cell }) + '\n');
    if (rows.length > 0) await this.write(rows.join(''));
  }
}

type Column = 'STRING' | 'INT32' | 'FLOAT';

/** Columns of a Parquet file and what each holds of a cell. */
function parquetColumns(
  header: JournalHeader,
): [name: string, type: Column, of: (i: PredictedImage, c: PredictedCell) => unknown][] {
  const perClass = (prefix: string, of: (c: PredictedCell) => number[] | undefined) =>
    Array.from({ length: header.classes }, (_, k) => [`${prefix}${k}`, 'FLOAT', (_i: PredictedImage, c: PredictedCell) => of(c)?.[k] ?? NaN]) as ReturnType<typeof parquetColumns>; // prettier-ignore
  const box = ['x1', 'y1', 'x2', 'y2'].map((name, k) => [name, 'INT32', (_: PredictedImage, c: PredictedCell) => c.box[k]]) as ReturnType<typeof parquetColumns>; // prettier-ignore
  return [
    ['ID', 'STRING', (i) => i.id],
    ['ImageWidth', 'INT32', (i) => i.width],
    ['ImageHeight', 'INT32', (i) => i.height],
    ['cell_id', 'INT32', (_, c) => c.cellId],
    ['center_x', 'INT32', (_, c) => c.center[0]],
    ['center_y', 'INT32', (_, c) => c.center[1]],
    ...box,
    ['area', 'INT32', (_, c) => c.area],
    ['mask', 'STRING', (_, c) => c.mask],
    ...perClass('', (c) => c.probabilities),
    ...(header.steps === 'both' ? [...perClass('step1_', (c) => c.step1), ...perClass('step2_', (c) => c.step2)] : []),
  ];
}

const ROW_GROUP = 16_384;

/** Rows are gathered into groups, which is all that is kept in memory. */
class ParquetSink implements Sink {
  readonly #columns: ReturnType<typeof parquetColumns>;
  #rows: unknown[][];
  #writer: { write(o: object): void | Promise<void>; finish(): void | Promise<void> } | undefined;

  constructor(header: JournalHeader) {
    this.#columns = parquetColumns(header);
    this.#rows = this.#columns.map(() => []);
  }

  async begin(path: string): Promise<void> {
    const { ParquetWriter, fileWriter } = await import('hyparquet-writer');
    const leaves = this.#columns.map(([name, type]) => ({
      name,
      repetition_type: 'REQUIRED' as const,
      ...(type === 'STRING' ? { type: 'BYTE_ARRAY' as const, converted_type: 'UTF8' as const } : { type }),
    }));
    const schema = [{ name: 'root', num_children: leaves.length }, ...leaves];
    this.#writer = new ParquetWriter({ writer: fileWriter(temporaryName(path)), schema, createdBy: 'cellcam' });
  }

  async add(image: PredictedImage): Promise<void> {
    for (const cell of image.cells) this.#columns.forEach(([, , of], k) => this.#rows[k]!.push(of(image, cell)));
    if (this.#rows[0]!.length >= ROW_GROUP) await this.#flush();
  }

  async #flush(): Promise<void> {
    const columnData = this.#columns.map(([name], k) => ({ name, data: this.#rows[k]! }));
    await this.#writer!.write({ columnData, rowGroupSize: ROW_GROUP * 2 });
    this.#rows = this.#columns.map(() => []);
  }

  async finish(): Promise<void> {
    if (this.#rows[0]!.length > 0) await this.#flush();
    await this.#writer!.finish();
  }
}

/** All entries in the order of the ids: image i is in shard i mod n. */
async function* merged(readers: JournalReader[]): AsyncGenerator<PredictedImage | RefusedImage> {
  for (let i = 0; ; i++) {
    const entry = await readers[i % readers.length]!.next();
    if (entry !== undefined) {
      yield entry;
      continue;
    }
    // The first shard that ends, ends all: those behind it had as many images less one.
    for (const [k, reader] of readers.entries()) {
      if (k !== i % readers.length && (await reader.next()) !== undefined) {
        throw new CellcamError('ERR_INCOMPLETE', `Expected all shards to be complete but ${readers[i % readers.length]!.path} ends early; finish it first`); // prettier-ignore
      }
    }
    return;
  }
}

async function openParts(output: string): Promise<JournalReader[]> {
  const folder = join(output, 'parts');
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => /^\d+-of-\d+\.jsonl$/.test(name)) : [];
  const counts = new Set(names.map((name) => Number(/of-(\d+)/.exec(name)![1])));
  const [count] = counts;
  if (counts.size !== 1 || count === undefined) {
    const what = names.length === 0 ? 'none' : names.join(', ');
    throw new CellcamError(
      'ERR_FILE_NOT_FOUND',
      `Expected the shards of one prediction in ${folder} but found ${what}`,
    );
  }
  const readers: JournalReader[] = [];
  for (let i = 1; i <= count; i++) readers.push(await JournalReader.open(join(folder, `${i}-of-${count}.jsonl`)));
  const [first] = readers;
  const other = readers.find(({ header }) => JSON.stringify(header) !== JSON.stringify(first!.header));
  if (other) {
    throw new CellcamError('ERR_INVALID_ARG', `Expected shards of the same options but ${other.path} and ${first!.path} differ in them`); // prettier-ignore
  }
  return readers;
}

/** Every image of a prediction, in the order of the ids. @param output the folder given to `predictCells` */
export async function* predictionsOf(output: string): AsyncGenerator<PredictedImage | RefusedImage> {
  const readers = await openParts(resolve(output));
  try {
    yield* merged(readers);
  } finally {
    for (const reader of readers) await reader.close();
  }
}

/** Runs through all parts once and gives each image to the sink, as it counts. */
async function pour(
  output: string,
  sink: (header: JournalHeader) => Promise<Sink>,
): Promise<Omit<TablesResult, 'files'>> {
  const readers = await openParts(output);
  const result: Omit<TablesResult, 'files'> = { images: 0, cells: 0, withoutCells: [], failed: [] };
  try {
    const target = await sink(readers[0]!.header);
    for await (const entry of merged(readers)) {
      count(result, entry);
      if (!('refused' in entry)) await target.add(entry);
    }
    return result;
  } finally {
    for (const reader of readers) await reader.close();
  }
}

type TextSink = Sink & { begin?(): Promise<void> };

async function writeText(output: string, path: string, make: (write: Write, header: JournalHeader) => TextSink) {
  let result: Omit<TablesResult, 'files'> | undefined;
  await fillDurably(path, async (file) => {
    result = await pour(output, async (header) => {
      const sink = make((text) => file.write(text), header);
      await sink.begin?.();
      return sink;
    });
  });
  return result!;
}

async function writeParquet(output: string, path: string): Promise<void> {
  try {
    let sink: ParquetSink | undefined;
    await pour(output, async (header) => {
      sink = new ParquetSink(header);
      await sink.begin(path);
      return sink;
    });
    await sink!.finish();
  } catch (error) {
    await rm(temporaryName(path), { force: true });
    throw error instanceof CellcamError ? error : writeError(path, error);
  }
  await publish(path);
}

/**
 * Makes the tables of a prediction from its shards under `<output>/parts`: `submission.csv` and the cells. Each file appears whole or not at
 * all. Needs no network, and memory does not grow with the number of images.
 * @param output the folder given to `predictCells`
 * @throws CellcamError ERR_FILE_NOT_FOUND for a missing shard, ERR_INCOMPLETE for an unfinished one, ERR_WRITE
 */
export async function mergePredictions(output: string, o: TableOptions = {}): Promise<TablesResult> {
  const folder = resolve(requireString(output, 'output'));
  const formats = (o.cells ?? ['csv']).map((format) => requireOneOf(format, 'cells', CELL_FORMATS));
  const submission = join(folder, 'submission.csv');
  const result = await writeText(folder, submission, (write) => new SubmissionSink(write));
  const files = [submission];
  for (const format of formats) {
    const path = join(folder, `cells.${format}`);
    if (format === 'csv') await writeText(folder, path, (write, header) => new CsvSink(write, header));
    else if (format === 'jsonl') await writeText(folder, path, (write) => new JsonlSink(write));
    else await writeParquet(folder, path);
    files.push(path);
  }
  return { ...result, files };
}
