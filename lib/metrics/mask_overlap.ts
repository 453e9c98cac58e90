import type { NdArray } from '../options';

/** One cell of a label map; null: an empty mask. */
export type CellMask = { map: NdArray<Uint8Array | Uint16Array>; cellId: number } | null;

type LabelMap = NonNullable<CellMask>['map'];

/** First row, first column, last row + 1, last column + 1, in pixels. */
export type PixelBox = [top: number, left: number, bottom: number, right: number];

/** Area and box of every cell of a label map. */
interface Extents {
  area: Map<number, number>;
  box: Map<number, PixelBox>;
}

/** Areas, boxes and overlaps of masks, each label map looked at once, each pair of a cell and a map once within the cell's box. */
export class MaskOverlaps {
  readonly #extents = new Map<LabelMap, Extents>();
  readonly #shared = new Map<LabelMap, Map<number, Map<LabelMap, Map<number, number>>>>();

  #of(map: LabelMap): Extents {
    let found = this.#extents.get(map);
    if (found === undefined) this.#extents.set(map, (found = extentsOf(map)));
    return found;
  }

  /** Pixels of a mask; 0 if it is empty. */
  area(mask: CellMask): number {
    return mask === null ? 0 : (this.#of(mask.map).area.get(mask.cellId) ?? 0);
  }

  /** The box of a mask, or undefined if it is empty. */
  box(mask: CellMask): PixelBox | undefined {
    return mask === null ? undefined : this.#of(mask.map).box.get(mask.cellId);
  }

  /** Pixels that two masks share; their maps have one shape. */
  intersection(a: CellMask, b: CellMask): number {
    if (a === null || b === null) return 0;
    const cells = entry(this.#shared, a.map, () => new Map<number, Map<LabelMap, Map<number, number>>>());
    const maps = entry(cells, a.cellId, () => new Map<LabelMap, Map<number, number>>());
    return entry(maps, b.map, () => this.#count(a, b.map)).get(b.cellId) ?? 0;
  }

  /** Pixels of each cell of `other` under a mask. */
  #count({ map, cellId }: NonNullable<CellMask>, other: LabelMap): Map<number, number> {
    const counts = new Map<number, number>();
    const [top, left, bottom, right] = this.box({ map, cellId }) ?? [0, 0, 0, 0];
    const width = map.shape[1]!;
    for (let y = top; y < bottom; y++) {
      for (let i = y * width + left; i < y * width + right; i++) {
        if (map.data[i] !== cellId) continue;
        const under = other.data[i]!;
        counts.set(under, (counts.get(under) ?? 0) + 1);
      }
    }
    return counts;
  }
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}

function extentsOf({ data, shape }: LabelMap): Extents {
  const width = shape[1]!;
  const extents: Extents = { area: new Map(), box: new Map() };
  for (let i = 0; i < data.length; i++) {
    const id = data[i]!;
    if (id === 0) continue;
    const [y, x] = [Math.floor(i / width), i % width];
    extents.area.set(id, (extents.area.get(id) ?? 0) + 1);
    const box = extents.box.get(id);
    if (box === undefined) {
      extents.box.set(id, [y, x, y + 1, x + 1]);
      continue;
    }
    box[1] = Math.min(box[1], x);
    box[2] = y + 1;
    box[3] = Math.max(box[3], x + 1);
  }
  return extents;
}
