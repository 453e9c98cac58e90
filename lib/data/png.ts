import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { decodeGreyPng } from './grey_png';
import { CellcamError, codeOf, messageOf } from '../errors';
import type { NdArray } from '../options';
import { writeDurably, writeError } from './durable';
import { release } from './release';

/** A grey image, row-major; the array's type is the file's depth. */
export interface GreyImage {
  data: Uint8Array | Uint16Array;
  height: number;
  width: number;
}

type Depth = 'uchar' | 'ushort';

/** A file's bytes. @throws CellcamError ERR_FILE_NOT_FOUND, ERR_IMAGE */
export async function readBytes(path: string): Promise<Buffer> {
  try {
    // Not left to the decoder: its cache goes by file name and would show a replaced file's old pixels.
    return await readFile(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') {
      throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected an image in ${path} but there is no such file`, {
        cause: error,
      });
    }
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): CellcamError {
  const [reason = ''] = messageOf(error).split('\n');
  return new CellcamError('ERR_IMAGE', `Expected a readable image in ${path} but decoding failed: ${reason}`, {
    cause: error,
  });
}

/** What makes an image unusable; undefined if nothing does. */
function flaw({ channels, depth, bitsPerSample = 8, pages = 1 }: sharp.Metadata): string | undefined {
  if (pages > 1) return `${pages} pages`;
  if (channels !== 1) return `${channels} channels`;
  if (bitsPerSample >= 8 && (depth === 'uchar' || depth === 'ushort')) return undefined;
  return `${bitsPerSample} bits (${depth}) a pixel`;
}

function checkedDepth(metadata: sharp.Metadata, path: string): Depth {
  const found = flaw(metadata);
  if (found === undefined) return metadata.depth as Depth;
  throw new CellcamError('ERR_IMAGE', `Expected a grey 8- or 16-bit image in ${path} but it has ${found}`);
}

async function openImage(path: string, bytes: Buffer): Promise<{ image: sharp.Sharp; metadata: sharp.Metadata }> {
  try {
    const image = sharp(bytes, { ignoreIcc: true }); // an embedded profile would change the measured values
    return { image, metadata: await image.metadata() };
  } catch (error) {
    throw unreadable(path, error);
  }
}

/** Pixels as stored, 8 or 16 bit; every other combination of these calls gives three channels or wrong values. */
function rawPixels(image: sharp.Sharp, depth: Depth): Promise<Buffer> {
  const grey =
    depth === 'uchar' ? image.toColourspace('b-w').raw() : image.toColourspace('grey16').raw({ depth: 'ushort' });
  return grey.toBuffer();
}

function asUint16(bytes: Buffer): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
}

/**
 * Reads a grey 8- or 16-bit image, values exactly as stored.
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_IMAGE for colour, alpha, a palette, other depths and damaged files
 */
export async function readGrey(path: string): Promise<GreyImage> {
  const file = await readBytes(path);
  const plain = await decodeGreyPng(file);
  if (plain) {
    release([file]);
    return plain;
  }
  const { image, metadata } = await openImage(path, file);
  const depth = checkedDepth(metadata, path);
  let bytes: Buffer;
  try {
    bytes = await rawPixels(image, depth);
  } catch (error) {
    throw unreadable(path, error);
  }
  const data = depth === 'uchar' ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : asUint16(bytes);
  return { data, height: metadata.height, width: metadata.width };
}

/** Height and width of an image without decoding it. @throws CellcamError ERR_FILE_NOT_FOUND, ERR_IMAGE */
export async function readImageSize(path: string): Promise<[height: number, width: number]> {
  const { metadata } = await openImage(path, await readBytes(path));
  return [metadata.height, metadata.width];
}

/**
 * Reads a mask of numbered cells (0 is background) from an 8- or 16-bit grey image.
 * @returns shape (height, width)
 * @throws CellcamError as readGrey
 */
export async function readLabelMask(path: string): Promise<NdArray<Uint16Array>> {
  const { data, height, width } = await readGrey(path);
  return {
    data: data.BYTES_PER_ELEMENT === 2 ? (data as Uint16Array) : Uint16Array.from(data),
    shape: [height, width],
  };
}

async function writeGrey(
  path: string,
  data: Uint8Array | Uint16Array,
  [height, width]: [number, number],
): Promise<void> {
  const space = data.BYTES_PER_ELEMENT === 2 ? 'grey16' : 'b-w';
  // sharp knows arrays by `instanceof`, which fails for those of another realm, as test runners and vm contexts make them.
  const own = data.BYTES_PER_ELEMENT === 2 ? Uint16Array.from(data) : Uint8Array.from(data);
  let bytes: Buffer;
  try {
    bytes = await sharp(own, { raw: { width, height, channels: 1 } })
      .toColourspace(space)
      .png()
      .toBuffer();
  } catch (error) {
    throw writeError(path, error);
  }
  await writeDurably(path, bytes);
}

/** Writes a 16-bit grey PNG of shape [height, width], whole or not at all. @throws CellcamError ERR_WRITE */
export function writeGrey16(path: string, data: Uint16Array, shape: [height: number, width: number]): Promise<void> {
  return writeGrey(path, data, shape);
}

/** Writes a mask of numbered cells, (height, width), as an 8-bit PNG if its numbers fit, else 16-bit. @throws CellcamError ERR_WRITE */
export function writeLabelMask(path: string, mask: NdArray<Uint16Array>): Promise<void> {
  const [height = 0, width = 0] = mask.shape;
  const fits = mask.data.every((label) => label <= 255);
  return writeGrey(path, fits ? Uint8Array.from(mask.data) : mask.data, [height, width]);
}
