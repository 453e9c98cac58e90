import type { NdArray } from '../options';

export interface CellOutline {
  cellId: number;
  /** Closed lines of (x, y) in pixel edges: 0 is the left or top edge of the first pixel. Several where a cell is in pieces or has holes. */
  loops: [x: number, y: number][][];
  /** Mean position of the cell's pixels. */
  centre: [x: number, y: number];
}

/** Directed pixel edges of one cell by the corner they start from; the cell lies to their right. */
type Edges = Map<number, number[]>;

interface Traced {
  edges: Edges;
  sumX: number;
  sumY: number;
  pixels: number;
}

function addEdge(edges: Edges, from: number, to: number): void {
  const ends = edges.get(from);
  if (ends === undefined) edges.set(from, [to]);
  else ends.push(to); // two pixels of the cell meet at this corner only
}

function traceCells({ data, shape }: NdArray<Uint16Array>): Map<number, Traced> {
  const [height, width] = shape as [number, number];
  const traced = new Map<number, Traced>();
  const labelAt = (x: number, y: number): number =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : data[y * width + x]!;
  const corner = (x: number, y: number): number => y * (width + 1) + x;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const label = data[y * width + x]!;
      if (label === 0) continue;
      let cell = traced.get(label);
      if (cell === undefined) traced.set(label, (cell = { edges: new Map(), sumX: 0, sumY: 0, pixels: 0 }));
      cell.sumX += x + 0.5;
      cell.sumY += y + 0.5;
      cell.pixels++;
      if (labelAt(x, y - 1) !== label) addEdge(cell.edges, corner(x, y), corner(x + 1, y));
      if (labelAt(x + 1, y) !== label) addEdge(cell.edges, corner(x + 1, y), corner(x + 1, y + 1));
      if (labelAt(x, y + 1) !== label) addEdge(cell.edges, corner(x + 1, y + 1), corner(x, y + 1));
      if (labelAt(x - 1, y) !== label) addEdge(cell.edges, corner(x, y + 1), corner(x, y));
    }
  }
  return traced;
}

/** Walks the edges from corner to corner until all are used; each walk ends where it began. */
function linkLoops(edges: Edges): number[][] {
  const loops: number[][] = [];
  for (const [start, ends] of edges) {
    while (ends.length > 0) {
      const loop: number[] = [];
      let at = start;
      for (let next = edges.get(at)!.pop(); next !== undefined; next = edges.get(at)?.pop()) {
        loop.push(at);
        at = next;
        if (at === start) break;
      }
      loops.push(loop);
    }
  }
  return loops;
}

/** Rounds off the pixel steps: every point becomes the mean of itself and its two neighbours on each side. */
function smooth(loop: [number, number][]): [number, number][] {
  if (loop.length < 8) return loop;
  const at = (i: number): [number, number] => loop[(i + loop.length) % loop.length]!;
  return loop.map((_, i) => {
    const near = [at(i - 2), at(i - 1), at(i), at(i + 1), at(i + 2)];
    return [near.reduce((sum, [x]) => sum + x, 0) / 5, near.reduce((sum, [, y]) => sum + y, 0) / 5];
  });
}

/** Outlines of all cells of a mask (height, width), by ascending cell number. */
export function cellOutlines(cells: NdArray<Uint16Array>): CellOutline[] {
  const stride = cells.shape[1]! + 1;
  return [...traceCells(cells)]
    .sort(([a], [b]) => a - b)
    .map(([cellId, { edges, sumX, sumY, pixels }]) => ({
      cellId,
      loops: linkLoops(edges).map((loop) =>
        smooth(smooth(loop.map((corner) => [corner % stride, Math.floor(corner / stride)]))),
      ),
      centre: [sumX / pixels, sumY / pixels],
    }));
}

/** The `d` of an SVG path, every coordinate multiplied by `scale`. */
export function outlinePath({ loops }: CellOutline, scale: number): string {
  const point = ([x, y]: [number, number]): string => `${(x * scale).toFixed(1)} ${(y * scale).toFixed(1)}`;
  return loops.map((loop) => `M${loop.map(point).join('L')}Z`).join('');
}
