// What was predicted, image by image, as it comes: a killed run goes on behind the last whole line, and shards are merged from these.
import { createReadStream, existsSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { writeError } from '../data/durable';
import { CellcamError } from '../errors';

/** A cell in the original image. */
export interface PredictedCell {
  cellId: number;
  /** Middle of the box. */
  center: [x: number, y: number];
  /** First column and row, one past the last column and row. */
  box: [x1: number, y1: number, x2: number, y2: number];
  /** Pixels. */
  area: number;
  /** As submissions hold it. */
  mask: string;
  /** One a class; the mean of the steps that were run. */
  probabilities: number[];
  step1?: number[];
  /** Absent, too, for a cell so small that it has no pixel at the field's size. */
  step2?: number[];
}

export interface PredictedImage {
  id: string;
  width: number;
  height: number;
  cells: PredictedCell[];
}

/** An image whose files or mask could not be used. */
export interface RefusedImage {
  id: string;
  refused: string;
}

export type JournalEntry = PredictedImage | RefusedImage;

/** The first line: what the entries depend on. */
export interface JournalHeader {
  cellcam: string;
  classes: number;
  /** Whether cells have step1 and step2. */
  steps: string;
  settings: string;
}

/** Part i of n, from 1. */
export interface Shard {
  index: number;
  count: number;
}

export function journalPath(output: string, { index, count }: Shard): string {
  return join(output, 'parts', `${index}-of-${count}.jsonl`);
}

async function* lines(path: string, end: number): AsyncGenerator<string> {
  if (end === 0) return;
  const stream = createReadStream(path, { encoding: 'utf8', end: end - 1 });
  try {
    for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) yield line;
  } finally {
    stream.destroy();
  }
}

/** Bytes up to the last line feed: what a kill left behind it counts for nothing. */
async function wholeLength(file: FileHandle): Promise<number> {
  const { size } = await file.stat();
  const window = Buffer.alloc(1 << 16);
  for (let end = size; end > 0; end -= window.length) {
    const start = Math.max(0, end - window.length);
    const { bytesRead } = await file.read(window, 0, end - start, start);
    const at = window.subarray(0, bytesRead).lastIndexOf(0x0a);
    if (at >= 0) return start + at + 1;
  }
  return 0;
}

function damaged(path: string): CellcamError {
  return new CellcamError(
    'ERR_TABLE',
    `Expected the predictions of an earlier run in ${path} but they are damaged; remove the file`,
  );
}

function parse<T>(line: string, path: string): T {
  try {
    return JSON.parse(line) as T;
  } catch {
    throw damaged(path);
  }
}

/** Appends entries to a journal. */
export class Journal {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
    /** Images of earlier runs. */
    readonly done: ReadonlySet<string>,
  ) {}

  /** @throws CellcamError ERR_INVALID_ARG for a journal of other settings */
  static async open(path: string, header: JournalHeader): Promise<Journal> {
    const existed = existsSync(path);
    const file = await open(path, existed ? 'r+' : 'w+').catch((error: unknown) => {
      throw writeError(path, error);
    });
    try {
      const length = await wholeLength(file);
      await file.truncate(length);
      const done = new Set<string>();
      let first: JournalHeader | undefined;
      for await (const line of lines(path, length)) {
        if (first === undefined) first = parse<JournalHeader>(line, path);
        else done.add(parse<JournalEntry>(line, path).id);
      }
      if (first !== undefined && JSON.stringify(first) !== JSON.stringify(header)) {
        throw new CellcamError(
          'ERR_INVALID_ARG',
          `Expected the options of the earlier run whose predictions are in ${path}: give those, or another output, or remove the file`,
        );
      }
      const journal = new Journal(path, file, done);
      if (first === undefined) await journal.#write(JSON.stringify(header) + '\n');
      return journal;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  append(entry: JournalEntry): Promise<void> {
    return this.#write(JSON.stringify(entry) + '\n');
  }

  async #write(text: string): Promise<void> {
    try {
      const { size } = await this.file.stat();
      await this.file.write(text, size);
    } catch (error) {
      throw writeError(this.path, error);
    }
  }

  async close(): Promise<void> {
    try {
      await this.file.sync();
    } finally {
      await this.file.close();
    }
  }
}

/** A journal from its beginning. */
export class JournalReader {
  readonly #lines: AsyncGenerator<string>;

  private constructor(
    readonly path: string,
    readonly header: JournalHeader,
    lines: AsyncGenerator<string>,
  ) {
    this.#lines = lines;
  }

  static async open(path: string): Promise<JournalReader> {
    const file = await open(path, 'r').catch(() => {
      throw new CellcamError(
        'ERR_FILE_NOT_FOUND',
        `Expected the predictions of a shard in ${path} but there is no such file`,
      );
    });
    const length = await wholeLength(file).finally(() => file.close());
    const all = lines(path, length);
    const first = await all.next();
    if (first.done === true) throw damaged(path);
    return new JournalReader(path, parse<JournalHeader>(first.value, path), all);
  }

  /** The next entry, undefined at the end. */
  async next(): Promise<JournalEntry | undefined> {
    const line = await this.#lines.next();
    return line.done === true ? undefined : parse<JournalEntry>(line.value, this.path);
  }

  async close(): Promise<void> {
    await this.#lines.return(undefined);
  }
}

/** What a journal holds, counted. */
export async function summarise(path: string) {
  const reader = await JournalReader.open(path);
  const result = { images: 0, cells: 0, withoutCells: [] as string[], failed: [] as { id: string; reason: string }[] };
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) count(result, entry);
  return result;
}

export function count(result: Awaited<ReturnType<typeof summarise>>, entry: JournalEntry): void {
  if ('refused' in entry) {
    result.failed.push({ id: entry.id, reason: entry.refused });
    return;
  }
  result.images++;
  result.cells += entry.cells.length;
  if (entry.cells.length === 0) result.withoutCells.push(entry.id);
}
