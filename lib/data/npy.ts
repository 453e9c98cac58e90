// Arrays of whole numbers as NumPy saves them: .npy (numpy.lib.format) and .npz, a zip of such files.
import { inflateRawSync } from 'node:zlib';
import { fromBuffer, type Entry, type ZipFile } from 'yauzl';
import { CellcamError, messageOf } from '../errors';
import type { NdArray } from '../options';

/** How to read one number of each type; all little-endian. */
const READERS: Record<string, { bytes: number; read: (v: DataView, at: number) => number }> = {
  '|b1': { bytes: 1, read: (v, at) => v.getUint8(at) },
  '|u1': { bytes: 1, read: (v, at) => v.getUint8(at) },
  '|i1': { bytes: 1, read: (v, at) => v.getInt8(at) },
  '<u2': { bytes: 2, read: (v, at) => v.getUint16(at, true) },
  '<i2': { bytes: 2, read: (v, at) => v.getInt16(at, true) },
  '<u4': { bytes: 4, read: (v, at) => v.getUint32(at, true) },
  '<i4': { bytes: 4, read: (v, at) => v.getInt32(at, true) },
  '<u8': { bytes: 8, read: (v, at) => Number(v.getBigUint64(at, true)) },
  '<i8': { bytes: 8, read: (v, at) => Number(v.getBigInt64(at, true)) },
};

function refuse(path: string, rule: string): never {
  throw new CellcamError('ERR_IMAGE', `Expected a mask of whole numbers in ${path} but ${rule}`);
}

interface Header {
  type: string;
  fortran: boolean;
  shape: number[];
  start: number;
}

function parseHeader(bytes: Buffer, path: string): Header {
  if (bytes.length < 12 || bytes.toString('latin1', 0, 6) !== '\x93NUMPY') refuse(path, 'it is no .npy file');
  const long = bytes[6]! > 1;
  const start = (long ? 12 : 10) + (long ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8));
  const text = bytes.toString('latin1', long ? 12 : 10, start);
  const type = /'descr':\s*'([^']*)'/.exec(text)?.[1];
  const shape = /'shape':\s*\(([^)]*)\)/.exec(text)?.[1];
  if (start > bytes.length || type === undefined || shape === undefined) refuse(path, 'its header is damaged');
  const sizes = shape.split(',').filter((n) => n.trim() !== '');
  return { type, fortran: /'fortran_order':\s*True/.test(text), shape: sizes.map(Number), start };
}

/**
 * A label mask from the bytes of a .npy file; dimensions of length 1 before or behind the two are dropped.
 * @throws CellcamError ERR_IMAGE for other types and shapes, and for labels below 0 or above 65535
 */
export function parseNpy(bytes: Buffer, path: string): NdArray<Uint16Array> {
  const { type, fortran, shape, start } = parseHeader(bytes, path);
  const reader = READERS[type];
  if (reader === undefined) refuse(path, `its numbers are of type ${type}`);
  const sides = shape.filter((n) => n !== 1 || shape.length <= 2);
  const [height, width] = sides as [number, number];
  if (sides.length !== 2 || !(height > 0 && width > 0)) refuse(path, `its shape is (${shape.join(', ')})`);
  if (bytes.length < start + height * width * reader.bytes) refuse(path, 'it ends too early');
  const view = new DataView(bytes.buffer, bytes.byteOffset + start);
  const data = new Uint16Array(height * width);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = reader.read(view, (fortran ? x * height + y : i) * reader.bytes);
      if (!(label >= 0 && label <= 65535)) refuse(path, `it has the label ${label}, outside of 0 to 65535`);
      data[i] = label;
    }
  }
  return { data, shape: [height, width] };
}

function openZip(bytes: Buffer): Promise<{ zip: ZipFile; entries: Entry[] }> {
  return new Promise((resolve, reject) => {
    fromBuffer(bytes, { lazyEntries: true }, (error, zip) => {
      if (error) return reject(error);
      const entries: Entry[] = [];
      zip.on('error', reject);
      zip.on('entry', (entry: Entry) => {
        entries.push(entry);
        zip.readEntry();
      });
      zip.on('end', () => resolve({ zip, entries }));
      zip.readEntry();
    });
  });
}

function dataOf(zip: ZipFile, entry: Entry): Promise<number> {
  return new Promise((resolve, reject) => {
    zip.readLocalFileHeader(entry, { minimal: true }, (error, header) => {
      if (error) reject(error);
      else resolve(header.fileDataStart);
    });
  });
}

/** Masks that decompress to more than this are no masks of fields. */
const MAX_BYTES = 2 ** 31;

/** The one array of a .npz file. @throws CellcamError ERR_IMAGE */
export async function parseNpz(bytes: Buffer, path: string): Promise<NdArray<Uint16Array>> {
  let array: Buffer;
  try {
    const { zip, entries } = await openZip(bytes);
    const [entry] = entries;
    if (entries.length !== 1 || entry === undefined) refuse(path, `it holds ${entries.length} arrays`);
    const start = await dataOf(zip, entry);
    const stored = bytes.subarray(start, start + entry.compressedSize);
    const deflated = entry.compressionMethod === 8;
    array = deflated
      ? inflateRawSync(stored, { maxOutputLength: Math.min(MAX_BYTES, entry.uncompressedSize) })
      : stored;
  } catch (error) {
    if (error instanceof CellcamError) throw error;
    return refuse(path, `it cannot be opened: ${messageOf(error)}`);
  }
  return parseNpy(array, path);
}
