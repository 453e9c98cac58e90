import { resizeLabels } from '../cells/mask_formats';
import { decodeMask } from '../cells/run_lengths';
import { CsvTable } from '../data/csv_table';
import type { DatasetSpec } from '../data/dataset_spec';
import { labelIndices } from '../data/label_list';
import { findMask, readMask } from '../data/masks';
import { CellcamError } from '../errors';
import type { NdArray } from '../options';
import type { CellMask } from '../metrics/mask_overlap';

/** A true cell of an image. */
export interface TrueCell {
  mask: NonNullable<CellMask>;
  labels: number[];
  groupOf: boolean;
}

interface Row {
  /** A number in the image's mask, or the mask itself. */
  cell: number | string;
  labels: number[];
  groupOf: boolean;
  size?: [height: number, width: number];
}

/** The columns of the challenge's evaluator: a row a cell and class, the mask as in submissions. */
const EVALUATOR = ['ImageID', 'ImageWidth', 'ImageHeight', 'LabelName', 'Mask'];

function byImage(rows: [id: string, row: Row][]): Map<string, Row[]> {
  const images = new Map<string, Row[]>();
  for (const [id, row] of rows) {
    const own = images.get(id) ?? [];
    images.set(id, own);
    const same = own.find(({ cell, groupOf }) => cell === row.cell && groupOf === row.groupOf);
    if (same) same.labels.push(...row.labels);
    else own.push(row);
  }
  return images;
}

/** What is known of the cells of images; masks are read when an image's turn comes. */
export class TrueCells {
  /** Of all images. */
  readonly ids: ReadonlySet<string>;

  private constructor(
    private readonly rows: Map<string, Row[]>,
    private readonly masks: string | undefined,
  ) {
    this.ids = new Set(rows.keys());
  }

  /** @throws CellcamError ERR_FILE_NOT_FOUND, ERR_TABLE naming the line, ERR_INVALID_ARG for a table that needs masks */
  static read(path: string, masks: string | undefined, spec: DatasetSpec): TrueCells {
    const evaluator = new CsvTable(path, []).header.includes('ImageID');
    if (evaluator) return new TrueCells(readEvaluator(path, spec), undefined);
    if (masks === undefined)
      throw new CellcamError('ERR_INVALID_ARG', `Expected truthMasks, the masks of the cells in ${path}`);
    return new TrueCells(readNumbered(path, spec), masks);
  }

  /** @param size to which masks are brought; default their own */
  async cellsOf(id: string, size?: [height: number, width: number]): Promise<TrueCell[]> {
    const rows = this.rows.get(id) ?? [];
    let map: NdArray<Uint16Array> | undefined;
    const cells: TrueCell[] = [];
    for (const { cell, labels, groupOf, size: own } of rows) {
      if (typeof cell === 'string') {
        const decoded = decodeMask(cell, own!);
        const resized = size ? resizeLabels({ ...decoded, data: Uint16Array.from(decoded.data) }, size) : decoded;
        cells.push({ mask: { map: resized, cellId: 1 }, labels, groupOf });
      } else {
        map ??= await this.#mapOf(id, size);
        cells.push({ mask: { map, cellId: cell }, labels, groupOf });
      }
    }
    return cells;
  }

  async #mapOf(id: string, size?: [number, number]): Promise<NdArray<Uint16Array>> {
    const map = await readMask(findMask(this.masks!, id));
    return size ? resizeLabels(map, size) : map;
  }
}

function labelsOf(text: string, spec: DatasetSpec, table: CsvTable, row: number): number[] {
  const labels = labelIndices(text, spec.classes);
  if (labels !== undefined && labels.every((c) => c < spec.classes.length)) return labels;
  throw table.error(row, `Expected class indices or names but found '${text}'`);
}

function readNumbered(path: string, spec: DatasetSpec): Map<string, Row[]> {
  const table = new CsvTable(path, ['ID', 'cell_id', 'Label']);
  const [number, label] = [table.header.indexOf('cell_id'), table.header.indexOf('Label')];
  const ids = table.ids();
  return byImage(
    table.rows.map((fields, row) => {
      const cell = Number(fields[number]);
      if (!Number.isInteger(cell) || cell < 1)
        throw table.error(row, `Expected the number of a cell but found '${fields[number]}'`);
      return [ids[row]!, { cell, labels: labelsOf(fields[label]!, spec, table, row), groupOf: false }];
    }),
  );
}

function readEvaluator(path: string, spec: DatasetSpec): Map<string, Row[]> {
  const table = new CsvTable(path, EVALUATOR);
  const [id, width, height, label, mask] = EVALUATOR.map((name) => table.header.indexOf(name)) as [number, number, number, number, number]; // prettier-ignore
  const group = table.header.indexOf('IsGroupOf');
  return byImage(
    table.rows.map((fields, row) => {
      const size: [number, number] = [Number(fields[height]), Number(fields[width])];
      if (!size.every((n) => Number.isInteger(n) && n > 0))
        throw table.error(row, 'Expected ImageWidth and ImageHeight in pixels');
      const groupOf = fields[group] === '1';
      return [fields[id]!, { cell: fields[mask]!, labels: labelsOf(fields[label]!, spec, table, row), groupOf, size }];
    }),
  );
}
