import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import sharp from 'sharp';
import { findMask } from '../../dist/data/masks';
import { readGrey, readImageSize, readLabelMask, writeGrey16, writeLabelMask } from '../../dist/data/png';
import { fixture } from '../reference_cases';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();
const labels = Uint16Array.from({ length: 12 }, (_, i) => i * 5957);

// An 8 × 8 grey PNG of one bit a pixel.
const ONE_BIT = 'iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAADUlEQVR4nGMIZWJAhgAFewBkPEmtEAAAAABJRU5ErkJggg==';

function rawImage(channels: 1 | 2 | 3 | 4) {
  const data = Uint8Array.from({ length: 16 * 16 * channels }, (_, i) => (i * 37) % 256);
  return sharp(data, { raw: { width: 16, height: 16, channels } });
}

describe('images that are refused', () => {
  test.each([
    ['colour', '3 channels', () => rawImage(3).png()],
    ['alpha', '2 channels', () => rawImage(2).toColourspace('b-w').png()],
    ['colour with alpha', '4 channels', () => rawImage(4).png()],
    ['a palette', '3 channels', () => rawImage(3).png({ palette: true })],
  ])('%s', async (_, found, make) => {
    await make().toFile(scratch.path('x.png'));
    await expect(readGrey(scratch.path('x.png'))).rejects.toMatchObject({
      code: 'ERR_IMAGE',
      message: `Expected a grey 8- or 16-bit image in ${scratch.path('x.png')} but it has ${found}`,
    });
  });

  test('fewer than 8 bits, whose labels a decoder would stretch', async () => {
    writeFileSync(scratch.path('bit.png'), Buffer.from(ONE_BIT, 'base64'));
    await expect(readLabelMask(scratch.path('bit.png'))).rejects.toMatchObject({
      code: 'ERR_IMAGE',
      message: expect.stringContaining('1 bits') as string,
    });
  });

  test('cut short, at any place', async () => {
    await writeGrey16(scratch.path('whole.png'), labels, [3, 4]);
    const bytes = readFileSync(scratch.path('whole.png'));
    for (const length of [0, 4, 30, 45, 60]) {
      writeFileSync(scratch.path('cut.png'), bytes.subarray(0, length));
      await expect(readGrey(scratch.path('cut.png'))).rejects.toMatchObject({
        code: 'ERR_IMAGE',
        message: expect.stringMatching(/^Expected a readable image in .*cut\.png but decoding failed: .+$/) as string,
      });
    }
  });

  test('no image at all, a folder, no file', async () => {
    writeFileSync(scratch.path('text.png'), 'not an image, though long enough to be looked at');
    mkdirSync(scratch.path('folder.png'));
    await expect(readGrey(scratch.path('text.png'))).rejects.toMatchObject({ code: 'ERR_IMAGE' });
    await expect(readGrey(scratch.path('folder.png'))).rejects.toMatchObject({ code: 'ERR_IMAGE' });
    await expect(readGrey(scratch.path('none.png'))).rejects.toMatchObject({
      code: 'ERR_FILE_NOT_FOUND',
      message: expect.stringContaining('none.png') as string,
    });
  });
});

describe('images that are read', () => {
  test('16-bit values come back as written', async () => {
    await writeGrey16(scratch.path('a.png'), labels, [3, 4]);
    const { data, height, width } = await readGrey(scratch.path('a.png'));
    expect([height, width, data.BYTES_PER_ELEMENT]).toEqual([3, 4, 2]);
    expect([...data]).toEqual([...labels]);
    expect(await readImageSize(scratch.path('a.png'))).toEqual([3, 4]);
  });

  test('8-bit values come back as written', async () => {
    await rawImage(1).toColourspace('b-w').png().toFile(scratch.path('a.png'));
    const { data } = await readGrey(scratch.path('a.png'));
    expect(data.BYTES_PER_ELEMENT).toBe(1);
    expect([...data]).toEqual(Array.from({ length: 256 }, (_, i) => (i * 37) % 256));
  });

  test('a file that was replaced is read anew', async () => {
    await writeGrey16(scratch.path('a.png'), Uint16Array.of(1), [1, 1]);
    await readGrey(scratch.path('a.png'));
    await writeGrey16(scratch.path('a.png'), Uint16Array.of(2), [1, 1]);
    expect([...(await readGrey(scratch.path('a.png'))).data]).toEqual([2]);
  });

  test('masks of both depths', async () => {
    const mask = { data: Uint16Array.of(0, 1, 2, 255, 3, 4), shape: [2, 3] };
    await writeLabelMask(scratch.path('m.png'), mask);
    expect((await readGrey(scratch.path('m.png'))).data.BYTES_PER_ELEMENT).toBe(1);
    expect(await readLabelMask(scratch.path('m.png'))).toEqual(mask);
    mask.data[3] = 256;
    await writeLabelMask(scratch.path('m.png'), mask);
    expect((await readGrey(scratch.path('m.png'))).data.BYTES_PER_ELEMENT).toBe(2);
    expect(await readLabelMask(scratch.path('m.png'))).toEqual(mask);
  });

  test('a mask of another program', async () => {
    const { data, shape } = await readLabelMask(fixture('cells', 'img_a_cells.png'));
    expect(data.length).toBe(shape[0]! * shape[1]!);
    expect(data.some((label) => label > 0)).toBe(true);
  });
});

test('a mask that cannot be written is told and leaves nothing', async () => {
  await expect(writeGrey16(scratch.path('none', 'a.png'), labels, [3, 4])).rejects.toMatchObject({ code: 'ERR_WRITE' });
  await expect(writeGrey16(scratch.path('a.png'), labels, [3, 5])).rejects.toMatchObject({ code: 'ERR_WRITE' });
  expect(readdirSync(scratch.path())).toEqual([]);
});

test('masks are looked for under several names, in this order', async () => {
  expect(() => findMask(scratch.path(), 'id')).toThrow(
    expect.objectContaining({
      code: 'ERR_FILE_NOT_FOUND',
      message: expect.stringContaining(`Expected a mask of image 'id' in ${scratch.path()}: id.png`) as string,
    }) as Error,
  );
  for (const name of ['id_predictedmask.png', 'id_mask.png', 'id.png']) {
    await writeGrey16(scratch.path(name), labels, [3, 4]);
    expect(findMask(scratch.path(), 'id')).toBe(scratch.path(name));
  }
});
