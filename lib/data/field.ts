import { join } from 'node:path';
import { CellcamError } from '../errors';
import type { NdArray } from '../options';
import { type DatasetSpec, FILE_PATTERN } from './dataset_spec';
import { readGrey } from './png';

/** One field as its files hold it: a plane of shape (height, width) a channel, in the specification's order. */
export interface Field {
  planes: NdArray<Uint8Array | Uint16Array>[];
  height: number;
  width: number;
}

/** The files of a field, one a channel, as the specification's pattern names them. */
export function channelFiles(
  folder: string,
  id: string,
  { channels, filePattern = FILE_PATTERN }: DatasetSpec,
): string[] {
  return channels.map(({ suffix }) =>
    join(
      folder,
      filePattern.replace('{channel}', () => suffix).replace('{id}', () => id),
    ),
  );
}

/**
 * Reads all channels of a field at once.
 * @throws CellcamError ERR_FILE_NOT_FOUND for a channel that is missing; ERR_IMAGE for files that are no grey 8- or 16-bit
 *   images, are damaged, or differ in size
 */
export async function readField(folder: string, id: string, spec: DatasetSpec): Promise<Field> {
  const files = channelFiles(folder, id, spec);
  const images = await Promise.all(files.map(readGrey));
  const { height, width } = images[0]!;
  const other = images.findIndex((image) => image.height !== height || image.width !== width);
  if (other >= 0) {
    const found = images[other]!;
    throw new CellcamError(
      'ERR_IMAGE',
      `Expected ${files[other]} to be ${height} × ${width} like ${files[0]} but it is ${found.height} × ${found.width}`,
    );
  }
  return { planes: images.map(({ data }) => ({ data, shape: [height, width] })), height, width };
}
