import { CellcamError } from '../errors';
import type { DatasetSpec } from './dataset_spec';
import { Hdf5Reader } from './hdf5';
import { containerPath } from './homes';
import type { LabelTable } from './labels';
import type { ImageIndex, ImageSource } from './loader';
import type { StoredImages } from './pixel_files';

export interface IndexOptions {
  /** Folder of the HDF5 files. */
  trainHome: string;
  /** Read the PNGs of this folder instead. */
  imagesFolder?: string;
  size: number;
  spec: DatasetSpec;
}

/** Which images: a table, or what is needed of one. */
export type ImageTable = Pick<LabelTable, 'ids' | 'ext' | 'path'>;

const LISTED = 5;

function list(ids: string[]): string {
  return ids.slice(0, LISTED).join(', ') + (ids.length > LISTED ? `, … (${ids.length} in all)` : '');
}

function requireAll(reader: Hdf5Reader, ids: string[], table: string): void {
  const missing = ids.filter((id) => !reader.has(id));
  if (missing.length === 0) return;
  throw new CellcamError(
    'ERR_HDF5',
    `Expected every image of ${table} in ${reader.path} but it lacks ${list(missing)}`,
  );
}

function requireShape(shape: number[], id: string, path: string, { size, spec }: IndexOptions): void {
  const channels = spec.channels.length;
  if (shape[0] === size && shape[1] === size && shape[2] === channels) return;
  throw new CellcamError(
    'ERR_HDF5',
    `Expected image '${id}' of ${path} with shape (${size}, ${size}, ${channels}) but it has (${shape.join(', ')}): ` +
      'dump it at that size, or give --image_size',
  );
}

/** Collects where images lie. */
class Places implements StoredImages {
  readonly files: string[] = [];
  readonly file: Int32Array;
  readonly offset: Float64Array;
  readonly isFloat: Uint8Array;
  readonly #numbers = new Map<string, number>();

  constructor(images: number) {
    this.file = new Int32Array(images).fill(-1);
    this.offset = new Float64Array(images);
    this.isFloat = new Uint8Array(images);
  }

  set(row: number, path: string, offset: number, isFloat: boolean): void {
    let number = this.#numbers.get(path);
    if (number === undefined) this.#numbers.set(path, (number = this.files.push(path) - 1));
    this.file[row] = number;
    this.offset[row] = offset;
    this.isFloat[row] = Number(isFloat);
  }
}

/** Checks the images of one HDF5 file, before any work is done on them, and finds where they lie. */
async function locate(path: string, rows: number[], table: ImageTable, o: IndexOptions, places: Places): Promise<void> {
  const reader = await Hdf5Reader.open(path);
  try {
    requireAll(
      reader,
      rows.map((row) => table.ids[row]!),
      table.path,
    );
    for (const row of rows) {
      const id = table.ids[row]!;
      const plain = reader.locate(id);
      requireShape((plain ?? reader.info(id)).shape, id, reader.path, o);
      if (plain) places.set(row, plain.path, plain.offset, plain.dtype === 'float32');
    }
  } finally {
    reader.close();
  }
}

/**
 * Where each image of a table is read from, checked: every id is there with the right shape.
 * @throws CellcamError ERR_FILE_NOT_FOUND, ERR_HDF5 that names the first ones that are missing or wrong
 */
export async function imageIndex(table: ImageTable, o: IndexOptions): Promise<ImageIndex> {
  const containers = [...new Set(table.ext)];
  const folder = o.imagesFolder;
  const sources = containers.map((ext): ImageSource =>
    folder === undefined ? { kind: 'hdf5', path: containerPath(o.trainHome, ext, o.size) } : { kind: 'png', folder },
  );
  const source = Int32Array.from(table.ext, (ext) => containers.indexOf(ext));
  const places = new Places(table.ids.length);
  for (const [number, from] of sources.entries()) {
    const rows = [...source.keys()].filter((row) => source[row] === number);
    if (from.kind === 'hdf5') await locate(from.path, rows, table, o, places);
  }
  const { files, file, offset, isFloat } = places;
  return { ids: table.ids, source, sources, stored: { files, file, offset, isFloat }, size: o.size, spec: o.spec };
}

/** The index of some images, in the order given. @param rows places in `index` */
export function selectImages(index: ImageIndex, rows: readonly number[]): ImageIndex {
  const { files, file, offset, isFloat } = index.stored;
  return {
    ...index,
    ids: rows.map((row) => index.ids[row]!),
    source: Int32Array.from(rows, (row) => index.source[row]!),
    stored: {
      files,
      file: Int32Array.from(rows, (row) => file[row]!),
      offset: Float64Array.from(rows, (row) => offset[row]!),
      isFloat: Uint8Array.from(rows, (row) => isFloat[row]!),
    },
  };
}
