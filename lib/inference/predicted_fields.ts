import { createReadStream, existsSync } from 'node:fs';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { parse } from 'csv-parse';
import { CellcamError, messageOf } from '../errors';

/** A cell as a file of predictions tells it. */
export interface CellRow {
  /** Its mask as submissions hold it, at the size of the original; undefined where only its number is known. */
  mask: string | undefined;
  /** Its number in the masks that were used; 0 in submissions, which do not tell. */
  cellId: number;
}

export interface FieldRow {
  id: string;
  width: number;
  height: number;
  cells: CellRow[];
  /** In the file's order, which decides between equal confidences; `cell` is a place in `cells`. */
  detections: { cell: number; classId: number; confidence: number }[];
}

function wrong(path: string, row: number, problem: string): CellcamError {
  return new CellcamError('ERR_TABLE', `${path}: row ${row}: ${problem}`);
}

function numberOf(text: string | undefined, path: string, row: number, what: string): number {
  const value = Number(text);
  if (text !== undefined && text.trim() !== '' && Number.isFinite(value)) return value;
  throw wrong(path, row, `Expected a number for ${what} but found '${text ?? ''}'`);
}

/** Triplets of class, confidence and mask; those of one mask are one cell. */
function parseTriplets(text: string, path: string, row: number): Pick<FieldRow, 'cells' | 'detections'> {
  const words = text.trim() === '' ? [] : text.trim().split(/\s+/);
  if (words.length % 3 !== 0)
    throw wrong(path, row, `Expected triplets of class, confidence and mask but found ${words.length} words`);
  const cells = new Map<string, number>();
  const detections: FieldRow['detections'] = [];
  for (let i = 0; i < words.length; i += 3) {
    const mask = words[i + 2]!;
    if (!cells.has(mask)) cells.set(mask, cells.size);
    const [classId, confidence] = [numberOf(words[i], path, row, 'a class'), numberOf(words[i + 1], path, row, 'a confidence')]; // prettier-ignore
    detections.push({ cell: cells.get(mask)!, classId, confidence });
  }
  return { cells: [...cells.keys()].map((mask) => ({ mask, cellId: 0 })), detections };
}

/** Takes a cell with all its probabilities into its field. */
function addCell(field: FieldRow, cell: CellRow, probabilities: number[]): void {
  const place = field.cells.push(cell) - 1;
  probabilities.forEach((confidence, classId) => field.detections.push({ cell: place, classId, confidence }));
}

type Row = Record<string, string>;

async function* csvRows(path: string): AsyncGenerator<Row> {
  const parser = createReadStream(path).pipe(parse({ columns: true, bom: true, max_record_size: 2 ** 30 }));
  try {
    for await (const row of parser) yield row as Row;
  } catch (error) {
    throw new CellcamError('ERR_TABLE', `${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function* submissionFields(path: string): AsyncGenerator<FieldRow> {
  let at = 1;
  for await (const row of csvRows(path)) {
    at++;
    const [width, height] = [numberOf(row['ImageWidth'], path, at, 'ImageWidth'), numberOf(row['ImageHeight'], path, at, 'ImageHeight')]; // prettier-ignore
    yield { id: row['ID'] ?? '', width, height, ...parseTriplets(row['PredictionString'] ?? '', path, at) };
  }
}

/** Rows of one field follow each other. */
async function* cellFields(path: string, classes: number): AsyncGenerator<FieldRow> {
  let [at, field] = [1, undefined as FieldRow | undefined];
  for await (const row of csvRows(path)) {
    at++;
    const id = row['ID'] ?? '';
    if (field?.id !== id) {
      if (field) yield field;
      const [width, height] = [numberOf(row['ImageWidth'], path, at, 'ImageWidth'), numberOf(row['ImageHeight'], path, at, 'ImageHeight')]; // prettier-ignore
      field = { id, width, height, cells: [], detections: [] };
    }
    const probabilities = Array.from({ length: classes }, (_, c) => numberOf(row[c], path, at, `class ${c}`));
    addCell(field, { mask: undefined, cellId: numberOf(row['cell_id'], path, at, 'cell_id') }, probabilities);
  }
  if (field) yield field;
}

interface JsonCell {
  id: string;
  width: number;
  height: number;
  cellId: number;
  mask: string;
  probabilities: number[];
}

async function* jsonFields(path: string): AsyncGenerator<FieldRow> {
  let [at, field] = [0, undefined as FieldRow | undefined];
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
    at++;
    let cell: JsonCell;
    try {
      cell = JSON.parse(line) as JsonCell;
    } catch (error) {
      throw wrong(path, at, messageOf(error));
    }
    if (field?.id !== cell.id) {
      if (field) yield field;
      field = { id: cell.id, width: cell.width, height: cell.height, cells: [], detections: [] };
    }
    addCell(field, { mask: cell.mask, cellId: cell.cellId }, cell.probabilities);
  }
  if (field) yield field;
}

async function headerOf(path: string): Promise<string[]> {
  for await (const row of csvRows(path)) return Object.keys(row);
  return [];
}

/**
 * Predictions field by field, whatever the size of the file: a submission (`PredictionString`), a table of cells (`cell_id` and a column a
 * class, CSV), or `.jsonl` as `cellcam predict` writes it.
 * @throws CellcamError ERR_FILE_NOT_FOUND, ERR_TABLE naming the row
 */
export async function* predictedFields(path: string, classes: number): AsyncGenerator<FieldRow, void> {
  if (!existsSync(path))
    throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected predictions in ${path} but there is no such file`);
  const header = extname(path) === '.jsonl' ? undefined : await headerOf(path);
  if (header === undefined) yield* jsonFields(path);
  else if (header.includes('PredictionString')) yield* submissionFields(path);
  else if (header.includes('cell_id')) yield* cellFields(path, classes);
  else throw new CellcamError('ERR_TABLE', `Expected the column PredictionString or cell_id in ${path} but the header is ${header.slice(0, 6).join(',')}`); // prettier-ignore
}
