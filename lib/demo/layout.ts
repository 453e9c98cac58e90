import { randomCell, relativeDistance, type CellShape } from './cell_shape';
import type { RandomStream } from './random';

/** Where the cells of a square field lie. Pixels of no cell: label 0, distances Infinity. */
export interface FieldLayout {
  size: number;
  cells: CellShape[];
  /** (size, size) cell number from 1, or 0. */
  labels: Uint16Array;
  /** (size, size) distance from the cell's centre, 1 at its outline. */
  fromCell: Float32Array;
  /** (size, size) distance from the nucleus' centre, 1 at the nuclear envelope. */
  fromNucleus: Float32Array;
}

// Cells keep their distance: a pixel of an activation map is 32 pixels of the field, as much as half a cell.
const GAP = 1.4;
const TRIES = 60;

/** Every pixel of the box around a cell, with its distance as a share of the outline. */
function* pixelsNear(cell: CellShape, size: number, share: number): Generator<{ at: number; distance: number }> {
  const reach = Math.ceil(Math.max(...cell.body.reach) * share);
  const { x: cx, y: cy } = cell.body;
  for (let y = Math.max(0, Math.floor(cy - reach)); y <= Math.min(size - 1, Math.ceil(cy + reach)); y++) {
    for (let x = Math.max(0, Math.floor(cx - reach)); x <= Math.min(size - 1, Math.ceil(cx + reach)); x++) {
      const distance = relativeDistance(cell.body, x, y);
      if (distance < share) yield { at: y * size + x, distance };
    }
  }
}

function isClear(x: number, y: number, radius: number, { cells }: FieldLayout): boolean {
  return cells.every(({ body }) => Math.hypot(body.x - x, body.y - y) > 0.85 * (body.radius + radius));
}

function fits(cell: CellShape, layout: FieldLayout): boolean {
  for (const { at } of pixelsNear(cell, layout.size, GAP)) if (layout.labels[at] !== 0) return false;
  return true;
}

function place(cell: CellShape, layout: FieldLayout): void {
  const label = layout.cells.push(cell);
  for (const { at, distance } of pixelsNear(cell, layout.size, 1)) {
    layout.labels[at] = label;
    layout.fromCell[at] = distance;
    layout.fromNucleus[at] = relativeDistance(cell.nucleus, at % layout.size, Math.floor(at / layout.size));
  }
}

/** 4 to 7 cells of radius .12 to .165 of the side that do not overlap; a few are cut by the border, none by more than a half. */
export function randomLayout(size: number, random: RandomStream): FieldLayout {
  const pixels = size * size;
  const layout: FieldLayout = {
    size,
    cells: [],
    labels: new Uint16Array(pixels),
    fromCell: new Float32Array(pixels).fill(Infinity),
    fromNucleus: new Float32Array(pixels).fill(Infinity),
  };
  const wanted = random.integer(4, 7);
  for (let tries = 0; layout.cells.length < wanted && (tries < TRIES * wanted || layout.cells.length < 4); tries++) {
    const shrink = Math.min(1, (TRIES * wanted) / tries); // ends the search for the fourth cell in every case
    const radius = size * random.uniform(0.12, 0.165) * shrink;
    const margin = 0.7 * radius;
    const [x, y] = [random.uniform(margin, size - margin), random.uniform(margin, size - margin)];
    if (!isClear(x, y, radius, layout)) continue;
    const cell = randomCell(x, y, radius, random);
    if (fits(cell, layout)) place(cell, layout);
  }
  return layout;
}
