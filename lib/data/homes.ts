import { existsSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { CellcamError } from '../errors';
import { requireOneOf } from '../options';

/** The folders that the Python original had as constants in its scripts. */
export interface Homes {
  /** Holds models/ and oof/. */
  home: string;
  /** Holds the tables. */
  dataHome: string;
  /** Holds the HDF5 files. */
  trainHome: string;
}

/** Given folders, else HOME_DIR, DATA_HOME and TRAIN_HOME of the environment, else `.`, `<home>/data` and `<dataHome>/train`. */
export function resolveHomes(o: Partial<Homes> = {}, env: NodeJS.ProcessEnv = process.env): Homes {
  const home = resolve(o.home ?? env.HOME_DIR ?? '.');
  const dataHome = resolve(o.dataHome ?? env.DATA_HOME ?? join(home, 'data'));
  return { home, dataHome, trainHome: resolve(o.trainHome ?? env.TRAIN_HOME ?? join(dataHome, 'train')) };
}

/** A file by its absolute path, or by its path in one of the folders or in the working folder. */
export function findFile(file: string, folders: string[], what: string): string {
  const places = isAbsolute(file)
    ? [file]
    : [...new Set([...folders, process.cwd()].map((folder) => resolve(folder, file)))];
  const found = places.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new CellcamError(
    'ERR_FILE_NOT_FOUND',
    `Expected the ${what} ${file} but there is none; looked at ${places.join(', ')}`,
  );
}

const STEMS: Record<string, string[]> = {
  default: ['images', 'image'],
  external: ['images_external', 'image_external'],
  additional: ['images_additional', 'image_additional'],
  '2018': ['images_additional', 'image_additional'],
};

/** The HDF5 file that the images of a table's `ext` live in, such as <trainHome>/images_external_512.hdf5. */
export function containerPath(trainHome: string, ext: string, size: number): string {
  const places = (STEMS[ext] ?? []).map((stem) => join(trainHome, `${stem}_${size}.hdf5`));
  const found = places.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new CellcamError(
    'ERR_FILE_NOT_FOUND',
    `Expected the HDF5 file of the images with ext '${ext}' but there is none; looked at ${places.join(', ')}: make it with cellcam dump`,
  );
}

/** Where images come from: the HDF5 files of trainHome, or the PNGs of a folder. The names are the Python original's. */
export type Factory = 'HDF5' | 'None';

/** The folder of PNGs of factory None (by default <trainHome>/images), found; undefined for HDF5. */
export function pngFolder(
  { factory, imagesFolder }: { factory?: Factory; imagesFolder?: string },
  homes: Homes,
): string | undefined {
  if (requireOneOf(factory ?? 'HDF5', 'factory', ['HDF5', 'None']) === 'HDF5') return undefined;
  return findFile(imagesFolder ?? join(homes.trainHome, 'images'), [homes.dataHome], 'folder of images');
}
