import { createHash } from 'node:crypto';
import type { NdArray } from '../options';
import { cellBoxes } from './centers';
import type { Instances } from './label_cells';
import { cellPolygons, type Polygon } from './outlines';
import { runLengthText, runLengths } from './run_lengths';

/** Cells enlarged or shrunk to another size, each pixel that of the nearest one's middle. */
export function resizeLabels(
  { data, shape: [h, w] }: NdArray<Uint16Array>,
  [height, width]: [height: number, width: number],
): NdArray<Uint16Array> {
  if (h === height && w === width) return { data, shape: [height, width] };
  const columns = Int32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * w!) / width));
  const out = new Uint16Array(height * width);
  for (let y = 0, i = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * h!) / height) * w!;
    for (let x = 0; x < width; x++, i++) out[i] = data[row + columns[x]!]!;
  }
  return { data: out, shape: [height, width] };
}

/** A name-based UUID (RFC 9562, version 5 in form), the same for the same text. */
function uuid(text: string): string {
  const hex = createHash('sha1').update(`cellcam:${text}`).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

function geometry(polygons: Polygon[], [sx, sy]: [number, number]) {
  const rings = polygons.map((polygon) => polygon.map((ring) => ring.map(([x, y]) => [x * sx, y * sy])));
  return rings.length === 1
    ? { type: 'Polygon', coordinates: rings[0]! }
    : { type: 'MultiPolygon', coordinates: rings };
}

/**
 * Cells as QuPath's GeoJSON: a FeatureCollection of cell objects, each with its nucleus where there is one.
 * @param id of the image, from which the objects' own ids are made
 * @param originalSize [height, width] that coordinates are in
 */
export function toGeoJson(id: string, { nuclei, cells }: Instances, originalSize: [number, number]): string {
  const scale: [number, number] = [originalSize[1] / cells.shape[1]!, originalSize[0] / cells.shape[0]!];
  const cores = cellPolygons(nuclei);
  const features = [...cellPolygons(cells)].map(([cellId, polygons]) => {
    const core = cores.get(cellId);
    return {
      type: 'Feature',
      id: uuid(`${id}/${cellId}`),
      geometry: geometry(polygons, scale),
      ...(core === undefined ? {} : { nucleusGeometry: geometry(core, scale) }),
      properties: { objectType: 'cell', name: String(cellId), measurements: { cell_id: cellId } },
    };
  });
  return JSON.stringify({ type: 'FeatureCollection', features });
}

/** A cell as an annotation of COCO's, its mask as compressed run lengths at the size of `cells`. */
export interface CocoAnnotation {
  id: number;
  image_id: number;
  category_id: 1;
  /** x, y, width, height. */
  bbox: [number, number, number, number];
  area: number;
  iscrowd: 0;
  segmentation: { size: [height: number, width: number]; counts: string };
  cell_id: number;
}

/** One annotation a cell, ids from `firstId` on. */
export function toCoco(cells: NdArray<Uint16Array>, imageId: number, firstId: number): CocoAnnotation[] {
  const [height, width] = cells.shape as [number, number];
  return cellBoxes(cells, [height, width]).map(({ cellId, x1, y1, x2, y2 }, i) => {
    const data = Uint8Array.from(cells.data, (v) => Number(v === cellId));
    const runs = runLengths({ data, shape: [height, width] });
    return {
      id: firstId + i,
      image_id: imageId,
      category_id: 1,
      bbox: [x1, y1, x2 - x1, y2 - y1],
      area: data.reduce((sum, v) => sum + v, 0),
      iscrowd: 0,
      segmentation: { size: [height, width], counts: runLengthText(runs) },
      cell_id: cellId,
    };
  });
}
