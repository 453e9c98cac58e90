import type { DatasetSpec } from '../data/dataset_spec';
import { readResizedField } from '../data/resize';
import type { NdArray } from '../options';

/** A field at the networks' size and what it was made of. */
export interface FieldImage {
  /** (size, size, channels) uint8, as it is dumped. */
  pixels: Uint8Array;
  size: number;
  /** Of the files, in pixels. */
  original: [height: number, width: number];
}

/** Reads a field's files and brings them to size × size, as a dump does. @throws CellcamError naming the file */
export async function readFieldImage(folder: string, id: string, size: number, spec: DatasetSpec): Promise<FieldImage> {
  const { pixels, original } = await readResizedField(folder, id, spec, size, 'uint8');
  return { pixels: pixels as Uint8Array, size, original };
}

/** (H, W, C) uint8 as (1, C, H, W) with values 0…1. */
export function toUnitImage(
  pixels: Uint8Array,
  [height, width]: [number, number],
  channels: number,
): NdArray<Float32Array> {
  const data = new Float32Array(pixels.length);
  const area = height * width;
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < area; i++) data[c * area + i] = pixels[i * channels + c]! / 255;
  return { data, shape: [1, channels, height, width] };
}
