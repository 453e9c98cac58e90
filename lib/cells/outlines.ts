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
function linkLoops(edges: Edges, stride: number): number[][] {
  const right = new Map([[1, stride], [stride, -1], [-1, -stride], [-stride, 1]]); // prettier-ignore
  const loops: number[][] = [];
  for (const [start, ends] of edges) {
    while (ends.length > 0) {
      const loop: number[] = [];
      for (let [at, next] = [start, ends.pop()]; next !== undefined;) {
        loop.push(at);
        const turn = next + right.get(next - at)!;
        at = next;
        if (at === start) break;
        // Where two pixels meet at a corner only, turning right stays at the first: pieces never touch themselves.
        const choices = edges.get(at)!;
        const found = choices.indexOf(turn);
        next = choices.splice(Math.max(found, 0), 1)[0];
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
      loops: linkLoops(edges, stride).map((loop) =>
        smooth(smooth(loop.map((corner) => [corner % stride, Math.floor(corner / stride)]))),
      ),
      centre: [sumX / pixels, sumY / pixels],
    }));
}

/** A closed line around pixels: (x, y) in pixel edges, the first point again at the end. */
export type Ring = [x: number, y: number][];
/** One piece of a cell: its outer line, then its holes. */
export type Polygon = Ring[];

/** Twice the area that a ring encloses; negative for holes. */
function signedArea(ring: Ring): number {
  return ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length]!;
    return sum + x * v - u * y;
  }, 0);
}

/** Even-odd rule. */
function contains(ring: Ring, x: number, y: number): boolean {
  return ring.reduce((inside, [x1, y1], i) => {
    const [x2, y2] = ring[(i + 1) % ring.length]!;
    const crosses = y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1;
    return crosses ? !inside : inside;
  }, false);
}

/** Cuts a loop at the corners that it passes twice: a hole that touches the outer line there becomes a loop of its own. */
function simpleLoops(loop: number[]): number[][] {
  const loops: number[][] = [];
  const path: number[] = [];
  const places = new Map<number, number>();
  for (const corner of loop) {
    const before = places.get(corner);
    if (before !== undefined) {
      const cut = path.splice(before);
      for (const each of cut) places.delete(each);
      loops.push(cut);
    }
    places.set(corner, path.length);
    path.push(corner);
  }
  return [...loops, path];
}

/** Corners where the line turns, the first one again at the end. */
function closedRing(loop: number[], stride: number): Ring {
  const turns = loop.filter((at, i) => at - loop.at(i - 1)! !== loop[(i + 1) % loop.length]! - at);
  const ring = turns.map((at): [number, number] => [at % stride, Math.floor(at / stride)]);
  return [...ring, ring[0]!];
}

/** The middle of the cell's pixel to the right of a ring's first edge. */
function pixelBeside(ring: Ring): [number, number] {
  const [[x1, y1], [x2, y2]] = ring as [[number, number], [number, number]];
  const [dx, dy] = [Math.sign(x2 - x1), Math.sign(y2 - y1)];
  return [x1 + (dx - dy) / 2, y1 + (dy + dx) / 2];
}

function polygonsOf(rings: Ring[]): Polygon[] {
  const outer = rings.filter((ring) => signedArea(ring) > 0).sort((a, b) => signedArea(a) - signedArea(b));
  const polygons = outer.map((ring): Polygon => [ring]);
  for (const hole of rings.filter((ring) => signedArea(ring) < 0)) {
    const [x, y] = pixelBeside(hole);
    polygons[outer.findIndex((ring) => contains(ring, x, y))]!.push(hole); // the smallest: pieces may lie in others' holes
  }
  return polygons;
}

/** The exact shapes of all cells of a mask (height, width), along pixel edges, by ascending cell number; one polygon a 4-connected piece. */
export function cellPolygons(cells: NdArray<Uint16Array>): Map<number, Polygon[]> {
  const stride = cells.shape[1]! + 1;
  const traced = [...traceCells(cells)].sort(([a], [b]) => a - b);
  return new Map(
    traced.map(([id, { edges }]) => [
      id,
      polygonsOf(
        linkLoops(edges, stride)
          .flatMap(simpleLoops)
          .map((loop) => closedRing(loop, stride)),
      ),
    ]),
  );
}

/** The `d` of an SVG path, every coordinate multiplied by `scale`. */
export function outlinePath({ loops }: CellOutline, scale: number): string {
  const point = ([x, y]: [number, number]): string => `${(x * scale).toFixed(1)} ${(y * scale).toFixed(1)}`;
  return loops.map((loop) => `M${loop.map(point).join('L')}Z`).join('');
}
