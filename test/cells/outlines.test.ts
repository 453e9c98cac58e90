import { cellPolygons, type Ring } from '../../dist/cells/outlines';
import { toCoco, toGeoJson } from '../../dist/cells/mask_formats';
import { parseRunLengths } from '../../dist/cells/run_lengths';
import { uniform } from '../data/splitmix';

function mask(...rows: string[]) {
  return { data: Uint16Array.from(rows.join(''), Number), shape: [rows.length, rows[0]!.length] };
}

const area = (ring: Ring): number =>
  ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length]!;
    return sum + (x * v - u * y) / 2;
  }, 0);

describe('shapes along pixel edges', () => {
  test('a rectangle has four corners', () => {
    expect([...cellPolygons(mask('0000', '0110', '0110'))]).toEqual([[1, [[[[1, 1], [3, 1], [3, 3], [1, 3], [1, 1]]]]]]); // prettier-ignore
  });

  test('a hole, and another piece of the cell within it', () => {
    const [[, polygons] = []] = [...cellPolygons(mask('11111', '10001', '10101', '10001', '11111'))];
    expect(polygons!.map((polygon) => polygon.map(area))).toEqual([[1], [25, -9]]);
  });

  test('pixels that meet at a corner are pieces of their own', () => {
    const [[, polygons] = []] = [...cellPolygons(mask('110', '110', '001'))];
    expect(polygons!.map((polygon) => polygon.map(area))).toEqual([[1], [4]]);
  });

  test('of noise: areas are the pixels’, and no ring passes a corner twice', () => {
    const data = Uint16Array.from(uniform('outlines', 5, 40 * 30), (v) => Math.floor(3 * v));
    for (const [id, polygons] of cellPolygons({ data, shape: [30, 40] })) {
      const total = polygons.flat().reduce((sum, ring) => sum + area(ring), 0);
      expect(total).toBe(data.filter((v) => v === id).length);
      for (const [outer] of polygons) {
        const corners = outer!.slice(1).map(String);
        expect(new Set(corners).size).toBe(corners.length);
      }
    }
  });
});

describe('files for other programs', () => {
  const cells = mask('1100', '1100', '0022', '0022');
  const nuclei = mask('1000', '0000', '0000', '0000');

  test('GeoJSON: cell objects with nuclei, in pixels of the original', () => {
    interface Feature {
      id: string;
      geometry: unknown;
      nucleusGeometry?: unknown;
      properties: { objectType: string };
    }
    const { type, features } = JSON.parse(toGeoJson('a', { cells, nuclei }, [8, 4])) as { type: string; features: Feature[] }; // prettier-ignore
    expect(type).toBe('FeatureCollection');
    expect(features.map((f) => f.properties.objectType)).toEqual(['cell', 'cell']);
    expect(features[0]!.geometry).toEqual({ type: 'Polygon', coordinates: [[[0, 0], [2, 0], [2, 4], [0, 4], [0, 0]]] }); // prettier-ignore
    expect(features[0]!.nucleusGeometry).toEqual({ type: 'Polygon', coordinates: [[[0, 0], [1, 0], [1, 2], [0, 2], [0, 0]]] }); // prettier-ignore
    expect(features[1]!.nucleusGeometry).toBeUndefined();
    expect(features[0]!.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(new Set(features.map((f) => f.id)).size).toBe(2);
  });

  test('COCO: run lengths, boxes and areas', () => {
    const [, second] = toCoco(cells, 7, 3);
    expect(second).toMatchObject({ id: 4, image_id: 7, bbox: [2, 2, 2, 2], area: 4, cell_id: 2, segmentation: { size: [4, 4] } }); // prettier-ignore
    expect(parseRunLengths(second!.segmentation.counts)).toEqual([10, 2, 2, 2]);
  });
});
