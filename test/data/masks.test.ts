import { deflateRawSync } from 'node:zlib';
import { writeFileSync } from 'node:fs';
import sharp from 'sharp';
import { ZipFile } from 'yazl';
import { findMask, readMask } from '../../dist/data/masks';
import { scratchFolder } from './scratch';

const scratch = scratchFolder();

/** A .npy file of version 1, as NumPy writes it. */
function npy(descr: string, shape: number[], body: Uint8Array, fortran = false): Buffer {
  const order = fortran ? 'True' : 'False';
  const text = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`;
  const header = text.padEnd(Math.ceil((10 + text.length + 1) / 64) * 64 - 11) + '\n';
  const start = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, 0, 0]);
  start.writeUInt16LE(header.length, 8);
  return Buffer.concat([start, Buffer.from(header, 'latin1'), body]);
}

const bytes = (array: { buffer: ArrayBufferLike }): Uint8Array => new Uint8Array(array.buffer);
const LABELS = Uint16Array.of(0, 1, 2, 300, 0, 65535);
const mask = { data: LABELS, shape: [2, 3] };

function npz(files: Record<string, Buffer>, compress: boolean): Promise<Buffer> {
  const zip = new ZipFile();
  for (const [name, data] of Object.entries(files)) zip.addBuffer(data, name, { compress });
  zip.end();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    zip.outputStream.on('data', (chunk: Buffer) => chunks.push(chunk));
    zip.outputStream.on('end', () => resolve(Buffer.concat(chunks)));
    zip.outputStream.on('error', reject);
  });
}

async function read(name: string, contents: Buffer) {
  writeFileSync(scratch.path(name), contents);
  return readMask(scratch.path(name));
}

test.each([
  ['<u2', Uint16Array.from(LABELS)],
  ['<i4', Int32Array.from(LABELS)],
  ['<u4', Uint32Array.from(LABELS)],
  ['<i8', BigInt64Array.from(LABELS, (v) => BigInt(v))],
] as const)('.npy of %s', async (descr, array) => {
  expect(await read('m.npy', npy(descr, [2, 3], bytes(array)))).toEqual(mask);
  expect(await read('m.npy', npy(descr, [1, 2, 3], bytes(array)))).toEqual(mask);
});

test('.npy column by column, and of bytes', async () => {
  const columns = Uint16Array.of(0, 300, 1, 0, 2, 65535);
  expect(await read('m.npy', npy('<u2', [2, 3], bytes(columns), true))).toEqual(mask);
  expect(await read('m.npy', npy('|b1', [1, 2], Uint8Array.of(0, 1)))).toEqual({
    data: Uint16Array.of(0, 1),
    shape: [1, 2],
  });
});

test('.npz, stored and compressed', async () => {
  const array = npy('<u2', [2, 3], bytes(LABELS));
  for (const compress of [false, true])
    expect(await read('m.npz', await npz({ 'arr_0.npy': array }, compress))).toEqual(mask);
});

test('TIFF of 16 bits', async () => {
  const image = sharp(LABELS, { raw: { width: 3, height: 2, channels: 1 } }).toColourspace('grey16');
  await image.tiff({ compression: 'lzw' }).toFile(scratch.path('m.tif'));
  expect(await readMask(scratch.path('m.tif'))).toEqual(mask);
});

test.each([
  ['text', Buffer.from('no numbers at all'), 'no .npy file'],
  ['floats', npy('<f4', [1, 1], new Uint8Array(4)), 'type <f4'],
  ['one dimension', npy('|u1', [4], new Uint8Array(4)), 'shape is (4)'],
  ['labels beyond 16 bits', npy('<i4', [1, 1], bytes(Int32Array.of(65536))), 'label 65536'],
  ['labels below 0', npy('<i4', [1, 1], bytes(Int32Array.of(-1))), 'label -1'],
  ['a file cut off', npy('<u2', [9, 9], new Uint8Array(4)), 'ends too early'],
])('%s are refused', async (_, contents, text) => {
  await expect(read('bad.npy', contents)).rejects.toMatchObject({
    code: 'ERR_IMAGE',
    message: expect.stringMatching(`bad.npy.*${text.replace(/[()]/g, '\\$&')}`) as string,
  });
});

test('.npz of several arrays, or damaged', async () => {
  const array = npy('|u1', [1, 1], Uint8Array.of(1));
  await expect(read('bad.npz', await npz({ 'a.npy': array, 'b.npy': array }, false))).rejects.toThrow(/2 arrays/);
  await expect(read('bad.npz', deflateRawSync(array))).rejects.toThrow(/cannot be opened/);
  expect(() => findMask(scratch.path(), 'other')).toThrow(/other_predictedmask|_predictedmask/);
});
