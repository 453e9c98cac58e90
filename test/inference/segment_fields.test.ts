import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { segmentFields, segmentationScore } from '../../dist';
import { generateFields } from '../../dist/demo/fields';
import { readMask } from '../../dist/data/masks';
import { cellcam } from '../cli/run_cellcam';
import { scratchFolder } from '../data/scratch';

const scratch = scratchFolder();
const SIZE = 96;

async function fields(count: number) {
  return generateFields({ folder: scratch.path('set'), fields: count, size: SIZE, seed: 8 });
}

test('masks, nuclei, overlays, GeoJSON and COCO of every field', async () => {
  const { imagesFolder, masksFolder, spec } = await fields(3);
  const output = scratch.path('masks');
  const formats = ['png', 'geojson', 'coco'] as const;
  const result = await segmentFields({
    imagesFolder,
    output,
    formats,
    nuclei: true,
    overlay: true,
    imageSize: SIZE,
    spec,
  });
  expect(result).toMatchObject({ fields: 3, failed: [], withoutCells: [] });
  const of = (id: string): string[] => ['.geojson', '.png', '_nuclei.png', '_overlay.png'].map((end) => id + end);
  const ids = ['field_0001', 'field_0002', 'field_0003'];
  expect(readdirSync(output).sort()).toEqual(['cells.coco.json', ...ids.flatMap(of)].sort());
  let cells = 0;
  for (const id of ids) {
    expect((await sharp(join(output, `${id}.png`)).metadata()).depth).toBe('ushort');
    const found = await readMask(join(output, `${id}.png`));
    const nuclei = await readMask(join(output, `${id}_nuclei.png`));
    expect(nuclei.data.every((v, i) => v === 0 || v === found.data[i])).toBe(true);
    expect(segmentationScore(found, await readMask(join(masksFolder, `${id}.png`))).averagePrecision).toBeGreaterThan(
      0.6,
    );
    const { features } = JSON.parse(readFileSync(join(output, `${id}.geojson`), 'utf8')) as { features: unknown[] };
    cells += features.length;
  }
  const coco = JSON.parse(readFileSync(join(output, 'cells.coco.json'), 'utf8')) as { images: { id: number }[]; annotations: { id: number; image_id: number }[] }; // prettier-ignore
  expect(coco.images).toHaveLength(3);
  expect(coco.annotations.map(({ id }) => id)).toEqual(Array.from({ length: cells }, (_, i) => i + 1));
  expect(result.cells).toBe(cells);
});

test('masks at the size of the files', async () => {
  const { imagesFolder, spec } = await fields(1);
  const output = scratch.path('masks');
  await segmentFields({ imagesFolder, output, imageSize: 48, originalSize: true, spec });
  expect((await readMask(join(output, 'field_0001.png'))).shape).toEqual([SIZE, SIZE]);
});

test('a field that cannot be read is named on the command line, the others are there', async () => {
  const { imagesFolder, spec } = await fields(3);
  rmSync(join(imagesFolder, 'field_0002_blue.png'));
  writeFileSync(scratch.path('spec.json'), JSON.stringify(spec));
  const output = scratch.path('masks');
  const args = ['segment', '--images_folder', imagesFolder, '--output', output, '--spec', scratch.path('spec.json'), '--image-size', String(SIZE)]; // prettier-ignore
  const { code, stdout, stderr } = await cellcam(args);
  expect(code).toBe(1);
  expect(stdout).toMatch(/cells in 2 fields, 1 refused/);
  expect(stderr).toMatch(/refused field_0002: .*field_0002_blue.png/);
  expect(readdirSync(output).sort()).toEqual(['field_0001.png', 'field_0003.png']);
  const hpa = await cellcam([...args, '--segmenter', 'hpa']);
  expect([hpa.code, hpa.stderr]).toEqual([2, expect.stringContaining('--nuclei-weights')]);
});
