import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { dirname, relative, resolve, sep } from 'node:path';
import { CellcamError } from '../errors';
import { publish, temporaryName, writeError } from './durable';
import { type Hdf5File, loadHdf5 } from './hdf5_file';

/** The attribute of a field's data set that holds its height and width before it was resized. */
export const SIZE_ATTRIBUTE = 'original_size';
/** The attribute that holds the SHA-256 of its stored bytes. */
export const HASH_ATTRIBUTE = 'sha256';

/** SHA-256 of a field's bytes. */
export function pixelHash(pixels: Uint8Array | Float32Array): Buffer {
  return createHash('sha256').update(pixels).digest();
}

/** Writes one HDF5 file of fields, which appears under its name when it is whole and on disk, or not at all. */
export class ShardWriter {
  readonly path: string;
  readonly #ids = new Set<string>();
  #file: Hdf5File | undefined;

  private constructor(path: string, file: Hdf5File) {
    this.path = path;
    this.#file = file;
  }

  /** @throws CellcamError ERR_WRITE */
  static async create(path: string): Promise<ShardWriter> {
    const absolute = resolve(path);
    const file = (await loadHdf5()).create(temporaryName(absolute));
    if (file === undefined) throw writeError(absolute, 'it could not be created');
    return new ShardWriter(absolute, file);
  }

  /** Number of fields added. */
  get size(): number {
    return this.#ids.size;
  }

  /**
   * Adds a field, contiguous and uncompressed, which is what reads fastest.
   * @param shape (height, width, channels)
   * @param originalSize of the image before it was resized
   * @returns SHA-256 of the stored bytes, in hexadecimal
   * @throws CellcamError ERR_WRITE (the disk is full, say), after which the shard is gone
   */
  async add(
    id: string,
    pixels: Uint8Array | Float32Array,
    shape: [height: number, width: number, channels: number],
    originalSize: [height: number, width: number],
  ): Promise<string> {
    const file = this.#file;
    if (file === undefined) throw new CellcamError('ERR_DISPOSED', `The shard ${this.path} is closed`);
    if (id === '' || id.includes('/') || this.#ids.has(id)) {
      throw new CellcamError('ERR_HDF5', `Expected a new id without '/' for ${this.path} but received '${id}'`);
    }
    const hash = pixelHash(pixels);
    const isWritten =
      file.add(id, pixels, shape) &&
      file.addAttribute(id, SIZE_ATTRIBUTE, Int32Array.from(originalSize)) &&
      file.addAttribute(id, HASH_ATTRIBUTE, hash);
    if (isWritten) {
      this.#ids.add(id);
      return hash.toString('hex');
    }
    await this.abandon();
    throw writeError(this.path, `image '${id}' could not be written; is the disk full?`);
  }

  /** Finishes the file: closed, synced, renamed. @throws CellcamError ERR_WRITE, and nothing is left */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    if (!file.close()) {
      await rm(temporaryName(this.path), { force: true });
      throw writeError(this.path, 'the file could not be finished; is the disk full?');
    }
    await publish(this.path);
  }

  /** Drops the file, leaving nothing. */
  async abandon(): Promise<void> {
    this.#file?.close();
    this.#file = undefined;
    await rm(temporaryName(this.path), { force: true });
  }
}

/** How an index names a shard: relative to the index, whatever the platform, so that both can move together. */
export function linkTarget(index: string, shard: string): string {
  return relative(dirname(index), resolve(shard)).split(sep).join('/');
}

/**
 * Writes an index: a small HDF5 file of external links, one an id, which h5py and other HDF5 programs follow by themselves.
 * @param links from id to the path of the shard that holds it; stored relative to the index
 * @throws CellcamError ERR_WRITE
 */
export async function writeIndex(path: string, links: ReadonlyMap<string, string>): Promise<void> {
  const absolute = resolve(path);
  const temporary = temporaryName(absolute);
  const file = (await loadHdf5()).create(temporary);
  if (file === undefined) throw writeError(absolute, 'it could not be created');
  let written = true;
  for (const [id, shard] of links) {
    written &&= file.addLink(id, linkTarget(absolute, shard), `/${id}`);
  }
  if (!file.close() || !written) {
    await rm(temporary, { force: true });
    throw writeError(absolute, 'its links could not be written; is the disk full?');
  }
  await publish(absolute);
}
