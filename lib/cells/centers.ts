import { type NdArray, requireInteger, requireNdArray } from '../options';
import { cellRows, type CellRows } from './cell_rows';
import { EnlargedCell, enlargedAxis, reach } from './enlarged_cell';
import { roundHalfEven } from './inter_area';

/** Where a cell lies in the original image, in its pixels. */
export interface CellBox {
  cellId: number;
  /** First column and row. */
  x1: number;
  y1: number;
  /** One past the last column and row. */
  x2: number;
  y2: number;
  /** Middle of the box, halves rounded to even. */
  center: [x: number, y: number];
}

/** Inclusive extents of one cell in the mask. */
interface Extent {
  first: [row: number, column: number];
  last: [row: number, column: number];
}

/** Extents of all cells by id. */
function extentsOf({ count, cell, row, column, length }: CellRows): Map<number, Extent> {
  const extents = new Map<number, Extent>();
  for (let i = 0; i < count; i++) widen(extents, cell[i]!, row[i]!, column[i]!, column[i]! + length[i]! - 1);
  return extents;
}

/** Takes a run of a cell's pixels in row y into its extent. */
function widen(extents: Map<number, Extent>, id: number, y: number, left: number, right: number): void {
  const extent = extents.get(id);
  if (extent === undefined) {
    extents.set(id, { first: [y, left], last: [y, right] });
    return;
  }
  extent.last[0] = y;
  extent.first[1] = Math.min(extent.first[1], left);
  extent.last[1] = Math.max(extent.last[1], right);
}

/** The first of the outputs from, from + step, … before `to` that passes, or -1. */
function firstWhere(from: number, to: number, step: 1 | -1, passes: (d: number) => boolean): number {
  for (let d = from; d !== to; d += step) if (passes(d)) return d;
  return -1;
}

function enlargedBox(cell: EnlargedCell, rows: [number, number], columns: [number, number]): number[] | undefined {
  const [top, bottom] = rows;
  const [left, right] = columns;
  const rowIsSet = (y: number) => firstWhere(left, right, 1, (x) => cell.has(y, x)) >= 0;
  const y1 = firstWhere(top, bottom, 1, rowIsSet);
  if (y1 < 0) return undefined;
  const y2 = firstWhere(bottom - 1, top - 1, -1, rowIsSet) + 1;
  const columnIsSet = (x: number) => firstWhere(y1, y2, 1, (y) => cell.has(y, x)) >= 0;
  const x1 = firstWhere(left, right, 1, columnIsSet);
  return [x1, y1, firstWhere(right - 1, left - 1, -1, columnIsSet) + 1, y2];
}

/** The box scaled and widened to whole pixels. */
function scaledBox(extent: Extent, height: number, width: number): number[] {
  const [y1, x1] = extent.first;
  const [y2, x2] = extent.last;
  return [Math.floor(x1 * width), Math.floor(y1 * height), Math.ceil((x2 + 1) * width), Math.ceil((y2 + 1) * height)];
}

function cellBox(cellId: number, [x1, y1, x2, y2]: number[]): CellBox {
  const center: [number, number] = [roundHalfEven((x1! + x2!) / 2), roundHalfEven((y1! + y2!) / 2)];
  return { cellId, x1: x1!, y1: y1!, x2: x2!, y2: y2!, center };
}

/**
 * The box and centre of every cell in the original image: those of its 0/1 mask after OpenCV's INTER_AREA enlarging,
 * pixel for pixel, at the cost of the boxes' borders. Where height or width shrinks, and for a cell so small that
 * enlarging wipes it out, the mask's box is scaled and widened to whole pixels instead.
 * @param cells cell numbers, 0 is background; shape (H, W)
 * @param originalSize [height, width] of the original image
 * @param runs of these cells, where they are at hand
 * @returns in ascending order of cellId; x right, y down
 * @throws CellcamError ERR_INVALID_ARG
 */
export function cellBoxes(
  cells: NdArray<Uint16Array>,
  originalSize: [height: number, width: number],
  runs?: CellRows,
): CellBox[] {
  const [rows, columns] = requireNdArray(cells, 'cells', ['Uint16Array'], ['H', 'W']).shape as [number, number];
  const height = requireInteger(originalSize?.[0], 'originalSize[0]', 1);
  const width = requireInteger(originalSize[1], 'originalSize[1]', 1);
  if (rows === 0 || columns === 0) return [];
  const grows = height > rows || width > columns;
  const enlarges = grows && height >= rows && width >= columns;
  const axes = enlarges ? [enlargedAxis(rows, height), enlargedAxis(columns, width)] : undefined;
  const box = (id: number, extent: Extent) => {
    const [down, across] = axes ?? [];
    const scaled = () => scaledBox(extent, height / rows, width / columns);
    if (!down || !across) return scaled();
    const window = reach(down, extent.first[0], extent.last[0]);
    const cell = new EnlargedCell(cells, id, down, across);
    return enlargedBox(cell, window, reach(across, extent.first[1], extent.last[1])) ?? scaled();
  };
  const extents = [...extentsOf(runs ?? cellRows(cells))].sort(([a], [b]) => a - b);
  return extents.map(([id, extent]) => cellBox(id, box(id, extent)));
}
