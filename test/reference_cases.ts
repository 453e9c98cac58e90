import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';

const ROOT = join(__dirname, '..');
const SHARED = process.env['CELLCAM_SHARED'] ?? join(ROOT, '..', 'shared');

/** Path of a small reference case that is part of the repository. */
export function fixture(...parts: string[]): string {
  return join(ROOT, 'test', 'fixtures', ...parts);
}

/** Path of a reference case that is too large for the repository. */
export function shared(...parts: string[]): string {
  return join(SHARED, 'goldens', ...parts);
}

/** `describe` where the large reference cases are there, else a skipped one that says so. */
export function describeShared(title: string, body: () => void): void {
  if (existsSync(join(SHARED, 'goldens'))) describe(title, body);
  else it.skip(`${title} (skipped: no reference cases at ${SHARED})`, () => undefined); // a skipped body would run all the same, and read them
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

interface Tensor<T> {
  data: T;
  shape: number[];
}
interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A safetensors file: F32 as Float32Array, all else as bytes. */
export function readTensors(path: string): (name: string) => Tensor<Float32Array> & { bytes: Uint8Array } {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, start).toString('utf8')) as Record<string, Entry | undefined>;
  return (name) => {
    const entry = header[name];
    if (entry === undefined) throw new Error(`no tensor ${name} in ${path}`);
    const bytes = Uint8Array.from(file.subarray(start + entry.data_offsets[0], start + entry.data_offsets[1]));
    const data = entry.dtype === 'F32' ? new Float32Array(bytes.buffer) : new Float32Array(0);
    return { data, bytes, shape: entry.shape };
  };
}

/** A 16-bit label image. */
export async function readLabelImage(path: string): Promise<Tensor<Uint16Array>> {
  const image = sharp(path).toColourspace('grey16').raw({ depth: 'ushort' });
  const { data, info } = await image.toBuffer({ resolveWithObject: true });
  return { data: new Uint16Array(Uint8Array.from(data).buffer), shape: [info.height, info.width] };
}
