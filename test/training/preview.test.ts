import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import sharp from 'sharp';
import { dumpImages, previewAugmentation, type PreviewOptions } from '../../dist';
import { fixture } from '../reference_cases';
import { scratchFolder } from '../data/scratch';

const scratch = scratchFolder();
const PNGS = fixture('hdf5', 'dump8_many_png'); // 23 fields of 24 × 24

const preview = (o: Partial<PreviewOptions>) =>
  previewAugmentation({ source: PNGS, output: scratch.path('sheet.png'), imageSize: 64, device: 'cpu', ...o });

const refused = (code: string, message: RegExp) => ({ code, message: expect.stringMatching(message) as string });

test('what cannot be drawn is refused, and nothing is written', async () => {
  writeFileSync(scratch.path('notes'), 'x');
  await expect(preview({ source: scratch.path('none') })).rejects.toMatchObject(refused('ERR_FILE_NOT_FOUND', /none/));
  await expect(preview({ source: scratch.path('notes') })).rejects.toMatchObject(refused('ERR_HDF5', /notes/));
  await expect(preview({ ids: ['nobody'] })).rejects.toMatchObject(refused('ERR_FILE_NOT_FOUND', /nobody/));
  await expect(preview({ draws: 0 })).rejects.toMatchObject(refused('ERR_INVALID_ARG', /draws/));
  await expect(preview({ cropSize: 96 })).rejects.toMatchObject(refused('ERR_INVALID_ARG', /cropSize/));
  expect(existsSync(scratch.path('sheet.png'))).toBe(false);
});

/** The pixels of a tile of a sheet. */
function tile(path: string, row: number, column: number, rowHeight: number): Promise<Buffer> {
  const area = { left: 12 + 268 * column, top: 12 + rowHeight * row, width: 256, height: 256 };
  return sharp(path).removeAlpha().extract(area).raw().toBuffer();
}

test('images and draws as asked for, the same for the same seed', async () => {
  const first = await preview({ images: 2, draws: 3, seed: 5 });
  expect(first.images.map(({ id, draws }) => [id, draws.length])).toEqual([
    ['img_00', 3],
    ['img_01', 3],
  ]);
  const { width } = await sharp(first.path).metadata();
  expect(width).toBe(12 + 4 * 268);
  const bytes = readFileSync(first.path);
  expect(await preview({ images: 2, draws: 3, seed: 5 })).toEqual(first);
  expect(readFileSync(first.path)).toEqual(bytes);
  expect((await preview({ images: 2, draws: 3, seed: 6 })).images).not.toEqual(first.images);
});

test('a crop of the whole shows the image itself; a flip shows it flipped', async () => {
  const { path, images } = await preview({ ids: ['img_03'], draws: 8, augmentation: { level: 'flips' } });
  const { height } = await sharp(path).metadata();
  const original = await tile(path, 0, 0, height);
  const seen = new Set<string>();
  for (const [i, steps] of images[0]!.draws.entries()) {
    const factor = (steps.find(({ op }) => op === 'RandomRotate90')!.params as { factor: number }).factor;
    const flips = steps.some(({ op }) => op === 'HorizontalFlip');
    let expected = sharp(original, { raw: { width: 256, height: 256, channels: 3 } });
    if (flips)
      expected = sharp(await expected.flop().raw().toBuffer(), { raw: { width: 256, height: 256, channels: 3 } });
    const turned = await expected
      .rotate(360 - 90 * factor)
      .raw()
      .toBuffer();
    expect(difference(await tile(path, 0, i + 1, height), turned)).toBeLessThan(2); // enlarging is not quite symmetric
    seen.add(`${flips} ${factor}`);
  }
  expect(seen.size).toBeGreaterThan(2);
});

function difference(a: Buffer, b: Buffer): number {
  return a.reduce((sum, v, i) => sum + Math.abs(v - b[i]!), 0) / a.length;
}

test('an HDF5 file gives what its folder gives', async () => {
  const source = scratch.path('images.hdf5');
  await dumpImages({ imagesFolder: PNGS, hdf5Output: source, imageSize: 64 });
  await preview({ ids: ['img_07', 'img_02'], output: scratch.path('a.png') });
  await preview({ ids: ['img_07', 'img_02'], output: scratch.path('b.png'), source });
  expect(readFileSync(scratch.path('a.png'))).toEqual(readFileSync(scratch.path('b.png')));
});
