import { native, nativeAsync } from '../native';
import { invalidArgument, type NdArray, requireInteger, requireNdArray } from '../options';
import type { DatasetSpec } from './dataset_spec';
import { type Field, readField } from './field';
import type { PixelType } from './hdf5';
import { release } from './release';

/**
 * Resizes an image as scikit-image's `resize(image, size, anti_aliasing=True)` does, to the last bit for nearly every value.
 * @param image shape (height, width, channels); uint8 is divided by 255 and uint16 by 65535, float32 is taken as it is
 * @param size [height, width] of the result
 * @returns float32, shape (...size, channels)
 * @throws CellcamError ERR_INVALID_ARG
 */
export function resizeImage(
  image: NdArray<Float32Array | Uint8Array | Uint16Array>,
  size: readonly [height: number, width: number],
): NdArray<Float32Array> {
  const kinds = ['Float32Array', 'Uint8Array', 'Uint16Array'] as const;
  const checked = requireNdArray(image, 'image', kinds, ['height', 'width', 'channels']);
  if (checked.data.length === 0) throw invalidArgument('at least one pixel', 'image.data', checked.data);
  if (!Array.isArray(size) || size.length !== 2) throw invalidArgument('[height, width]', 'size', size);
  const [height, width] = (size as readonly [number, number]).map((n, i) => requireInteger(n, `size[${i}]`, 1)) as [
    number,
    number,
  ];
  const data = native((addon) => addon.resizeImage(checked, height, width));
  return { data, shape: [height, width, checked.shape[2]!] };
}

/** A field brought to (size, size, channels), and the height and width of its files. */
export interface ResizedField {
  pixels: Uint8Array | Float32Array;
  original: [height: number, width: number];
}

/** Reads a field's files and resizes them as `resizeField` does; of the files' pixels nothing stays. @throws CellcamError as readField */
export async function readResizedField(
  folder: string,
  id: string,
  spec: DatasetSpec,
  size: number,
  dtype: PixelType,
): Promise<ResizedField> {
  const field = await readField(folder, id, spec);
  const pixels = await resizeField(field, size, dtype);
  release(field.planes.map(({ data }) => data));
  return { pixels, original: [field.height, field.width] };
}

/**
 * Brings a field to (size, size, channels): values over 65535 if any exceeds 255, else over 255, then resized as `resizeImage`
 * does; as uint8, floor(255·x). Runs beside JavaScript; leave the planes alone until it settles.
 */
export function resizeField(field: Field, size: number, dtype: PixelType): Promise<Uint8Array | Float32Array> {
  return nativeAsync<Uint8Array | Float32Array>((addon) =>
    dtype === 'uint8' ? addon.resizeField(field.planes, size, dtype) : addon.resizeField(field.planes, size, dtype),
  );
}
