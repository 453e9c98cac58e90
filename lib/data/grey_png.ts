import { promisify } from 'node:util';
import { crc32, inflate as inflateWithCallback } from 'node:zlib';
import { nativeAsync } from '../native';
import type { GreyImage } from './png';
import { release } from './release';

// Plain grey PNGs, which is what fields are, without the library: it takes twice the time, most of it for one filter. What is not
// plain or not in order is left to the library, which also says what is wrong with it.

const SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
const HEADER_BYTES = 13;
const MOST_PIXELS = 2 ** 28;
const inflate = promisify<Uint8Array, { chunkSize: number; maxOutputLength: number }, Buffer>(inflateWithCallback);

interface Header {
  width: number;
  height: number;
  sampleBytes: number;
}

/** What a header says of a grey image of 8 or 16 bit, not interlaced; undefined for any other. */
function greyHeader(body: Buffer): Header | undefined {
  if (body.length !== HEADER_BYTES) return undefined;
  const [width, height] = [body.readUInt32BE(0), body.readUInt32BE(4)];
  const [bits, color, compression, filter, interlace] = body.subarray(8);
  if ((bits !== 8 && bits !== 16) || color !== 0 || compression !== 0 || filter !== 0 || interlace !== 0)
    return undefined;
  return width > 0 && height > 0 && width * height <= MOST_PIXELS
    ? { width, height, sampleBytes: bits / 8 }
    : undefined;
}

/** The chunks of a file up to its end; undefined if anything about them is wrong. */
function chunksOf(file: Buffer): { type: string; body: Buffer }[] | undefined {
  if (!file.subarray(0, 8).equals(SIGNATURE)) return undefined;
  const chunks: { type: string; body: Buffer }[] = [];
  for (let at = 8; at + 12 <= file.length;) {
    const end = at + 8 + file.readUInt32BE(at);
    if (end + 4 > file.length || crc32(file.subarray(at + 4, end)) !== file.readUInt32BE(end)) return undefined;
    const type = file.toString('latin1', at + 4, at + 8);
    if (type === 'IEND') return chunks;
    chunks.push({ type, body: file.subarray(at + 8, end) });
    at = end + 4;
  }
  return undefined;
}

/** The filtered rows; undefined for data that cannot be inflated to just so many bytes. */
async function inflated(data: Buffer[], length: number): Promise<Buffer | undefined> {
  try {
    const stream = Buffer.concat(data);
    const rows = await inflate(stream, { chunkSize: length + 64, maxOutputLength: length + 64 });
    release([stream]);
    return rows.length === length ? rows : undefined;
  } catch {
    return undefined; // the library tries, and complains
  }
}

/** Decodes a plain grey PNG of 8 or 16 bit, values exactly as stored; undefined for anything else. */
export async function decodeGreyPng(file: Buffer): Promise<GreyImage | undefined> {
  const chunks = chunksOf(file);
  const [first] = chunks ?? [];
  const header = first?.type === 'IHDR' ? greyHeader(first.body) : undefined;
  // Transparency and animation are not plain; of chunks that matter (a capital first) there are no others.
  if (!chunks || !header || chunks.some(({ type }) => /^(tRNS|ac|fc|PLTE)/.test(type))) return undefined;
  const data = chunks.filter(({ type }) => type === 'IDAT').map(({ body }) => body);
  if (chunks.filter(({ type }) => /^[A-Z]/.test(type)).length !== data.length + 1) return undefined;
  const { width, height, sampleBytes } = header;
  const rowBytes = width * sampleBytes;
  const rows = await inflated(data, height * (rowBytes + 1));
  if (!rows || !(await nativeAsync((a) => a.unfilter(rows, height, rowBytes, sampleBytes)))) return undefined;
  const values = width * height;
  // The memory is one of a kind: larger buffers are never pooled.
  if (sampleBytes === 1) return { data: new Uint8Array(rows.buffer, rows.byteOffset, values), height, width };
  const aligned = rows.byteOffset % 2 === 0 ? rows : Uint8Array.from(rows);
  return { data: new Uint16Array(aligned.buffer, aligned.byteOffset, values), height, width };
}
