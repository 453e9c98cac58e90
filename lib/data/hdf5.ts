import { existsSync, realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { CellcamError, codeOf } from '../errors';
import { native } from '../native';
import { type DataSetInfo, type Hdf5File, type Hdf5Library, loadHdf5 } from './hdf5_file';
import { type PlainDataSet, plainDataSets } from './hdf5_layout';
import { HASH_ATTRIBUTE, pixelHash, SIZE_ATTRIBUTE } from './hdf5_writer';

export { linkTarget, ShardWriter, writeIndex } from './hdf5_writer';

/** How the pixels of a field are stored. */
export type PixelType = 'uint8' | 'float32';

/** Shape (height, width, channels) and type of a stored field. */
export interface FieldInfo {
  shape: [height: number, width: number, channels: number];
  dtype: PixelType;
}

// Enough for all shards of a full set (211 of 512 images hold 108k); each costs the library some 4 MB.
const MAX_OPEN_SHARDS = 256;

function broken(path: string): CellcamError {
  return new CellcamError(
    'ERR_HDF5',
    `Expected an HDF5 file in ${path} but it cannot be opened: it is cut short or no HDF5 file; dump it again`,
  );
}

function openExisting(library: Hdf5Library, path: string): Hdf5File {
  if (!existsSync(path))
    throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected an HDF5 file in ${path} but there is none`);
  const file = library.open(path);
  if (file === undefined) throw broken(path);
  return file;
}

/** A field that can be read where it lies: `offset` bytes into the file of this path. */
export interface PlainField extends FieldInfo {
  path: string;
  offset: number;
}

/** Where a field lies: its file's path and its name in there. */
interface Place {
  path: string;
  name: string;
}

/** A field that is there: its open file, its name and what it holds, and what to call it in an error. */
interface Found {
  file: Hdf5File;
  name: string;
  info: DataSetInfo;
  where: string;
}

/**
 * Reads fields from an HDF5 file with one root data set an id, shape (height, width, channels), uint8 or float32 in [0, 1],
 * or from an index of external links to such data sets. Reads are synchronous; a reader belongs to one thread.
 */
export class Hdf5Reader {
  readonly path: string;
  readonly #library: Hdf5Library;
  readonly #folder: string;
  readonly #files = new Map<string, Hdf5File>(); // by path, the longest unused first; the file itself is not among them
  readonly #places = new Map<string, Place>();
  readonly #plain = new Map<string, Map<string, PlainDataSet>>(); // by path
  #root: Hdf5File | undefined;

  private constructor(path: string, library: Hdf5Library, root: Hdf5File) {
    this.path = path;
    this.#library = library;
    this.#root = root;
    this.#folder = dirname(realpathSync(path)); // links are relative to where the index really lies
  }

  /** @throws CellcamError ERR_FILE_NOT_FOUND, ERR_HDF5 */
  static async open(path: string): Promise<Hdf5Reader> {
    const absolute = resolve(path);
    const library = await loadHdf5();
    return new Hdf5Reader(absolute, library, openExisting(library, absolute));
  }

  get #file(): Hdf5File {
    if (this.#root === undefined) throw new CellcamError('ERR_DISPOSED', `The reader of ${this.path} is closed`);
    return this.#root;
  }

  /** All ids, ascending. Takes seconds for an index of 100,000 links: that is HDF5's own pace. */
  ids(): string[] {
    return this.#file.names().sort();
  }

  /** Whether there is such an id; a link whose shard is missing counts. */
  has(id: string): boolean {
    return this.#place(id) !== undefined;
  }

  /** The file that holds an id: this one, or the shard that a link names, whether it exists or not; undefined for no such id. */
  fileOf(id: string): string | undefined {
    return this.#place(id)?.path;
  }

  /** @throws CellcamError ERR_HDF5 or ERR_FILE_NOT_FOUND for an id that is missing or is no field */
  info(id: string): FieldInfo {
    const { shape, dtype } = this.#find(id).info;
    return { shape, dtype } as FieldInfo;
  }

  /** Where a field's bytes lie, if it is a field and they lie in one piece, unfiltered; undefined says to ask `info`. */
  locate(id: string): PlainField | undefined {
    const place = this.#place(id);
    if (place === undefined || !existsSync(place.path)) return undefined;
    let plain = this.#plain.get(place.path);
    if (plain === undefined) this.#plain.set(place.path, (plain = plainDataSets(place.path)));
    const found = plain.get(place.name);
    if (found?.shape.length !== 3) return undefined;
    return { ...found, shape: found.shape as FieldInfo['shape'], path: place.path };
  }

  /** Height and width of the image before it was resized; undefined if the file does not say. */
  originalSize(id: string): [height: number, width: number] | undefined {
    const { file, name } = this.#find(id);
    const bytes = file.attribute(name, SIZE_ATTRIBUTE, 'int32', 2);
    return bytes && (Array.from(new Int32Array(bytes.buffer)) as [number, number]);
  }

  /** SHA-256 that a field's bytes had when they were written, in hexadecimal; undefined if the file does not say. */
  hash(id: string): string | undefined {
    const { file, name } = this.#find(id);
    const bytes = file.attribute(name, HASH_ATTRIBUTE, 'uint8', 32);
    return bytes && Buffer.from(bytes.buffer).toString('hex');
  }

  /** Whether a field can be read and its bytes are those that were written, as far as the file says. */
  isIntact(id: string): boolean {
    try {
      const hash = this.hash(id);
      const found = pixelHash(this.storedBytes(id)).toString('hex');
      return hash === undefined || hash === found;
    } catch (error) {
      if (codeOf(error) === 'ERR_HDF5' || codeOf(error) === 'ERR_FILE_NOT_FOUND') return false;
      throw error;
    }
  }

  /**
   * Reads a field as uint8; float32 x becomes floor(255·x) in float32.
   * @param out receives height·width·channels values, HWC; untouched if the field cannot be read
   * @throws CellcamError ERR_HDF5 or ERR_FILE_NOT_FOUND
   */
  readInto(id: string, out: Uint8Array): void {
    const found = this.#find(id);
    const { info, where } = found;
    if (out.length !== info.shape.reduce((product, n) => product * n, 1)) {
      const shape = info.shape.join(', ');
      throw new CellcamError('ERR_HDF5', `Expected ${out.length} values for ${where} but its shape is (${shape})`);
    }
    const bytes = this.#read(found);
    if (info.dtype === 'uint8') return out.set(bytes);
    quantise(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), out, where);
  }

  /** Reads a field as float32 in [0, 1], HWC; uint8 v becomes v/255. @throws CellcamError ERR_HDF5 or ERR_FILE_NOT_FOUND */
  readFloat32(id: string): Float32Array {
    const found = this.#find(id);
    const { info, where } = found;
    const bytes = this.#read(found);
    return info.dtype === 'uint8' ? Float32Array.from(bytes, (v) => v / 255) : inUnitRange(bytes, where).slice();
  }

  /**
   * A field's bytes as stored (little-endian for float32), valid until the next read of any file in this thread.
   * @throws CellcamError ERR_HDF5 or ERR_FILE_NOT_FOUND
   */
  storedBytes(id: string): Uint8Array {
    return this.#read(this.#find(id));
  }

  /** Closes every file. Calling it again does nothing. */
  close(): void {
    for (const file of this.#files.values()) file.close();
    this.#files.clear();
    this.#root?.close();
    this.#root = undefined;
  }

  #place(id: string): Place | undefined {
    const known = this.#places.get(id);
    const root = this.#file;
    if (known !== undefined) return known;
    if (id === '' || id.includes('/')) return undefined; // these would name groups
    const link = root.link(id);
    if (link === undefined && root.info(id) === undefined) return undefined;
    const place = link ? { path: resolve(this.#folder, link.file), name: link.target } : { path: this.path, name: id };
    place.name = place.name.replace(/^\//, '');
    this.#places.set(id, place);
    return place;
  }

  #find(id: string): Found {
    const place = this.#place(id);
    if (place === undefined)
      throw new CellcamError('ERR_HDF5', `Expected an image '${id}' in ${this.path} but there is none`);
    const file = place.path === this.path ? this.#file : this.#shard(id, place.path);
    const info = file.info(place.name);
    const where = `image '${id}' of ${place.path}`;
    if (info === undefined) throw new CellcamError('ERR_HDF5', `Expected ${where} but it is missing or no data set`);
    if (info.shape.length !== 3 || (info.dtype !== 'uint8' && info.dtype !== 'float32')) {
      throw new CellcamError(
        'ERR_HDF5',
        `Expected ${where} as uint8 or float32 of shape (height, width, channels) but it is ${info.dtype} of shape (${info.shape.join(', ')})`,
      );
    }
    return { file, name: place.name, info, where };
  }

  #read({ file, name, info, where }: Found): Uint8Array {
    const bytes = file.read(name, info);
    if (bytes !== undefined) return bytes;
    throw new CellcamError('ERR_HDF5', `Expected ${where} to be readable but it is damaged; dump it again`);
  }

  #shard(id: string, path: string): Hdf5File {
    let file = this.#files.get(path);
    if (file === undefined) {
      if (!existsSync(path)) {
        throw new CellcamError(
          'ERR_FILE_NOT_FOUND',
          `Expected image '${id}' of ${this.path} in its shard ${path} but that file is missing; keep an index and its folder of shards together`,
        );
      }
      if (this.#files.size >= MAX_OPEN_SHARDS) this.#closeOldest();
      file = openExisting(this.#library, path);
    }
    this.#files.delete(path); // to the end of the order
    this.#files.set(path, file);
    return file;
  }

  #closeOldest(): void {
    for (const [path, file] of this.#files) {
      file.close();
      this.#files.delete(path);
      return;
    }
  }
}

/** floor(255·x) in float32. @throws CellcamError ERR_HDF5 for a value outside [0, 1] */
export function quantise(values: Float32Array, out: Uint8Array, where: string): void {
  const outside = native((a) => a.quantise(values, out));
  if (outside >= 0) throw outOfRange(values[outside]!, where);
}

function outOfRange(value: number, where: string): CellcamError {
  return new CellcamError('ERR_HDF5', `Expected values from 0 to 1 in ${where} but found ${value}`);
}

function inUnitRange(bytes: Uint8Array, where: string): Float32Array {
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  // A loop: a callback for each of a million values takes longer than reading them.
  for (let i = 0; i < values.length; i++) {
    if (values[i]! >= 0 && values[i]! <= 1) continue;
    throw outOfRange(values[i]!, where);
  }
  return values;
}
