import { deflateSync, crc32 } from 'node:zlib';
import sharp from 'sharp';
import { decodeGreyPng } from '../../dist/data/grey_png';
import { uniform } from './splitmix';

type Pixels = Uint8Array | Uint16Array;

function chunk(type: string, body: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + body.length);
  out.writeUInt32BE(body.length, 0);
  out.write(type, 4, 'latin1');
  out.set(body, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + body.length)), 8 + body.length);
  return out;
}

function header(width: number, height: number, bits: number, color = 0, interlace = 0): Buffer {
  const body = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, bits, color, 0, 0, interlace]);
  body.writeUInt32BE(width, 0);
  body.writeUInt32BE(height, 4);
  return chunk('IHDR', body);
}

/** What the specification has a filter subtract, by its own words. */
function predicted(filter: number, left: number, above: number, corner: number): number {
  if (filter === 1) return left;
  if (filter === 2) return above;
  if (filter === 3) return Math.floor((left + above) / 2);
  if (filter === 0) return 0;
  const p = left + above - corner;
  const distances = [left, above, corner].map((v) => Math.abs(p - v));
  return [left, above, corner][distances.indexOf(Math.min(...distances))]!;
}

/** A PNG whose rows take the filters in turn. */
function png(pixels: Pixels, width: number, filters: number[], o: { pieces?: number; more?: Buffer[] } = {}): Buffer {
  const bytes = pixels.BYTES_PER_ELEMENT;
  const height = pixels.length / width;
  const big = Buffer.from(new Uint8Array(pixels.buffer.slice(0)));
  if (bytes === 2) big.swap16();
  const at = (row: number, i: number): number => (row < 0 || i < 0 ? 0 : big[row * width * bytes + i]!);
  const rows = Buffer.alloc(height * (width * bytes + 1));
  for (let row = 0; row < height; row++) {
    const filter = filters[row % filters.length]!;
    rows[row * (width * bytes + 1)] = filter;
    for (let i = 0; i < width * bytes; i++) {
      const from = predicted(filter, at(row, i - bytes), at(row - 1, i), at(row - 1, i - bytes));
      rows[row * (width * bytes + 1) + 1 + i] = (at(row, i) - from) & 255;
    }
  }
  const data = deflateSync(rows);
  const piece = Math.ceil(data.length / (o.pieces ?? 1));
  const parts = Array.from({ length: o.pieces ?? 1 }, (_, i) =>
    chunk('IDAT', data.subarray(i * piece, (i + 1) * piece)),
  );
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  return Buffer.concat([signature, header(width, height, 8 * bytes), ...(o.more ?? []), ...parts, chunk('IEND', Buffer.alloc(0))]); // prettier-ignore
}

function noise(count: number, bits: 8 | 16, seed = 1): Pixels {
  const values = Array.from(uniform('png', seed, count), (x) => Math.floor(x * 2 ** bits));
  return bits === 8 ? Uint8Array.from(values) : Uint16Array.from(values);
}

describe.each([8, 16] as const)('%i bit', (bits) => {
  test.each([
    ['none', [0]],
    ['left', [1]],
    ['above', [2]],
    ['average', [3]],
    ['Paeth', [4]],
    ['all in turn', [4, 3, 1, 2, 0]],
    ['Paeth in runs of one to three', [4, 1, 4, 4, 3, 4, 4, 4, 0]],
  ])('filter %s', async (_, filters) => {
    for (const width of [1, 7, 8, 9, 31, 64]) {
      const pixels = noise(width * 13, bits, width);
      const found = (await decodeGreyPng(png(pixels, width, filters, { pieces: 3 })))!;
      expect([found.height, found.width]).toEqual([13, width]);
      expect(found.data).toEqual(pixels);
    }
  });

  test('what the library writes and reads', async () => {
    const pixels = noise(50 * 40, bits);
    for (const adaptiveFiltering of [false, true]) {
      const raw = { width: 50, height: 40, channels: 1 as const };
      const grey = sharp(pixels, { raw }).toColourspace(bits === 8 ? 'b-w' : 'grey16');
      const file = await grey.png({ adaptiveFiltering }).toBuffer();
      expect((await decodeGreyPng(file))?.data).toEqual(pixels);
    }
  });
});

describe('is left to the library', () => {
  const pixels = noise(64, 8);
  const good = png(pixels, 8, [1]);

  test('a good one is not', async () => {
    expect((await decodeGreyPng(good))?.data).toEqual(pixels);
    const harmless = chunk('tEXt', Buffer.from('Comment\0x'));
    expect((await decodeGreyPng(png(pixels, 8, [1], { more: [harmless] })))?.data).toEqual(pixels);
  });

  test('any file with a changed byte, or cut short', async () => {
    for (let i = 0; i < good.length; i++) {
      const bytes = Buffer.from(good);
      bytes[i]! ^= 4;
      expect(await decodeGreyPng(bytes)).toBeUndefined();
      if (i < good.length - 4) expect(await decodeGreyPng(good.subarray(0, i))).toBeUndefined();
    }
  });

  test.each([
    ['a filter that PNG does not have', png(pixels, 8, [5])],
    ['transparency', png(pixels, 8, [0], { more: [chunk('tRNS', Buffer.from([0, 3]))] })],
    ['an unknown chunk that matters', png(pixels, 8, [0], { more: [chunk('CgBI', Buffer.from([0]))] })],
    ['fewer rows than told', Buffer.concat([good.subarray(0, 8), header(8, 9, 8), good.subarray(33)])],
    ['more rows than told', Buffer.concat([good.subarray(0, 8), header(8, 7, 8), good.subarray(33)])],
    ['colour', Buffer.concat([good.subarray(0, 8), header(8, 8, 8, 2), good.subarray(33)])],
    ['interlacing', Buffer.concat([good.subarray(0, 8), header(8, 8, 8, 0, 1), good.subarray(33)])],
    ['no image', Buffer.from('text')],
  ])('%s', async (_, file) => {
    expect(await decodeGreyPng(file)).toBeUndefined();
  });
});
