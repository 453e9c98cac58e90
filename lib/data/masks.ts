import { existsSync } from 'node:fs';
import { extname, join } from 'node:path';
import { CellcamError } from '../errors';
import type { NdArray } from '../options';
import { parseNpy, parseNpz } from './npy';
import { readBytes, readLabelMask } from './png';

const SUFFIXES = ['', '_mask', '_predictedmask', '_cellmask', '_cell_mask'];
const EXTENSIONS = ['.png', '.tif', '.tiff', '.npy', '.npz'];

/**
 * The mask file of an image: `<id>.png`, `<id>_mask.png`, `<id>_predictedmask.png`, `<id>_cellmask.png` or `<id>_cell_mask.png`, or such a
 * .tif, .tiff, .npy or .npz; the first that exists.
 * @throws CellcamError ERR_FILE_NOT_FOUND
 */
export function findMask(folder: string, id: string): string {
  for (const suffix of SUFFIXES) {
    for (const extension of EXTENSIONS) {
      const place = join(folder, `${id}${suffix}${extension}`);
      if (existsSync(place)) return place;
    }
  }
  throw new CellcamError(
    'ERR_FILE_NOT_FOUND',
    `Expected a mask of image '${id}' in ${folder}: ${id}.png, with _mask, _predictedmask, _cellmask or _cell_mask behind the id, ` +
      `or the same as ${EXTENSIONS.slice(1).join(', ')}`,
  );
}

/**
 * Reads numbered cells, 0 is background: grey PNG or TIFF of 8 or 16 bits, or whole numbers in .npy or .npz.
 * @returns shape (height, width)
 * @throws CellcamError ERR_FILE_NOT_FOUND; ERR_IMAGE, also for labels above 65535
 */
export async function readMask(path: string): Promise<NdArray<Uint16Array>> {
  const extension = extname(path).toLowerCase();
  if (extension === '.npy') return parseNpy(await readBytes(path), path);
  return extension === '.npz' ? parseNpz(await readBytes(path), path) : readLabelMask(path);
}
