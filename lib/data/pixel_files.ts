import { closeSync, openSync, readSync } from 'node:fs';
import { CellcamError, messageOf } from '../errors';
import { quantise } from './hdf5';

/** Where images lie in plain bytes, one entry an id of an index. */
export interface StoredImages {
  files: string[];
  /** Place in `files`; −1: the image does not lie in plain bytes. */
  file: Int32Array;
  /** Of the first value, in bytes. */
  offset: Float64Array;
  /** Whether float32 in [0, 1] is stored instead of uint8. */
  isFloat: Uint8Array;
}

// A training set's shards all stay open (211 of 512 images hold 108k); more would only cost file handles.
const MAX_OPEN_FILES = 256;
// Floats are read in pieces that stay in the cache until they are converted.
const PIECE_VALUES = 64 * 1024;

/** Reads images where they lie, without HDF5. Belongs to one thread. */
export class PixelFiles {
  readonly #stored: StoredImages;
  readonly #open = new Map<number, number>(); // handles by file, the longest unused first
  #piece: Float32Array | undefined;

  constructor(stored: StoredImages) {
    this.#stored = stored;
  }

  /** Whether this image lies in plain bytes. */
  has(row: number): boolean {
    return this.#stored.file[row]! >= 0;
  }

  /**
   * Reads an image as uint8; float32 x becomes floor(255·x) in float32.
   * @param row place in the index; @param id what to call it in an error; @param out receives all its values
   * @throws CellcamError ERR_HDF5, ERR_FILE_NOT_FOUND
   */
  readInto(row: number, id: string, out: Uint8Array): void {
    const file = this.#stored.file[row]!;
    const where = `image '${id}' of ${this.#stored.files[file]}`;
    const from = this.#stored.offset[row]!;
    const fd = this.#handle(file, where);
    if (this.#stored.isFloat[row] === 0) return read(fd, out, from, where);
    const piece = (this.#piece ??= new Float32Array(PIECE_VALUES));
    for (let at = 0; at < out.length; at += PIECE_VALUES) {
      const values = piece.subarray(0, Math.min(PIECE_VALUES, out.length - at));
      read(fd, new Uint8Array(values.buffer, 0, values.byteLength), from + 4 * at, where);
      quantise(values, out.subarray(at, at + values.length), where);
    }
  }

  #handle(file: number, where: string): number {
    let fd = this.#open.get(file);
    if (fd === undefined) {
      if (this.#open.size >= MAX_OPEN_FILES) this.#closeOldest();
      fd = open(this.#stored.files[file]!, where);
    }
    this.#open.delete(file); // to the end of the order
    this.#open.set(file, fd);
    return fd;
  }

  #closeOldest(): void {
    for (const [file, fd] of this.#open) {
      closeSync(fd);
      this.#open.delete(file);
      return;
    }
  }

  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
  }
}

function open(path: string, where: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected ${where} but it cannot be opened: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function read(fd: number, out: Uint8Array, from: number, where: string): void {
  let got = 0;
  while (got < out.length) {
    const bytes = attempt(() => readSync(fd, out, got, out.length - got, from + got), where);
    if (bytes === 0)
      throw new CellcamError('ERR_HDF5', `Expected ${where} to be readable but its file is cut short; dump it again`);
    got += bytes;
  }
}

function attempt<T>(call: () => T, where: string): T {
  try {
    return call();
  } catch (error) {
    throw new CellcamError('ERR_HDF5', `Expected ${where} to be readable: ${messageOf(error)}`, { cause: error });
  }
}
