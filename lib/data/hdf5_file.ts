import { closeSync, openSync } from 'node:fs';
import { devNull } from 'node:os';
import type { Metadata, ready } from 'h5wasm/node' with { 'resolution-mode': 'import' };

type H5Module = Awaited<typeof ready>;
type WriteMetadata = Parameters<H5Module['create_dataset']>[3];

// The only module that knows h5wasm. Every status is checked here: the library never throws for a failed read or write.

const INTEGER = 0;
const FLOAT = 1;
/** What cellcam writes; all little-endian. */
const UINT8 = { type: INTEGER, size: 1, signed: false };
const INT32 = { type: INTEGER, size: 4, signed: true };
const FLOAT32 = { type: FLOAT, size: 4, signed: true };
const STDERR = 2;
// Files are written in HDF5's first format as far as it can hold them, which every HDF5 since 1.8 reads and hdf5_layout.ts knows. The
// library's own default, since HDF5 2.0, is a newer one.
const FIRST_FORMAT = 0;
const FORMAT_OF_1_8 = 1;

let library: Promise<Hdf5Library> | undefined;

/** Loads HDF5 once a thread. */
export function loadHdf5(): Promise<Hdf5Library> {
  library ??= import('h5wasm/node').then(async ({ ready }) => new Hdf5Library(await ready));
  return library;
}

/** HDF5 prints its error stack for every failed call, also for those that merely ask; the library's own stderr is shut. */
function silence(module: H5Module): void {
  const { createStream } = module.FS as unknown as { createStream?: (stream: object, fd: number) => unknown };
  const nfd = openSync(devNull, 'w');
  // Replaced, never just closed: the next opened file would get the number and error texts would land in it.
  if (createStream) createStream({ nfd, position: 0, path: devNull, flags: 577, tty: false, seekable: false }, STDERR);
  else closeSync(nfd);
}

/** What a data set holds. `dtype` is named as in NumPy: `uint8`, `float32`, … */
export interface DataSetInfo {
  shape: number[];
  dtype: string;
  byteLength: number;
}

function dtypeName(metadata: Metadata): string {
  const bits = metadata.size * 8;
  if (metadata.type === INTEGER) return `${metadata.signed ? 'int' : 'uint'}${bits}`;
  return metadata.type === FLOAT ? `float${bits}` : `HDF5 class ${metadata.type}`;
}

function described(type: typeof UINT8, shape: number[]): WriteMetadata {
  const dims = shape.map(BigInt);
  const count = shape.reduce((product, n) => product * n, 1);
  // The library reads three fields that its types leave out.
  const unfiltered = { chunks: null, compression: 0, compression_opts: [], track_order: false };
  return { ...type, littleEndian: true, vlen: false, shape: dims, maxshape: dims, total_size: count, ...unfiltered };
}

/** HDF5 in this thread, with one transfer buffer that all files share. */
export class Hdf5Library {
  #pointer = 0;
  #capacity = 0;

  constructor(readonly module: H5Module) {
    silence(module);
  }

  /** Opens a file for reading, or returns undefined if HDF5 cannot. */
  open(path: string): Hdf5File | undefined {
    return this.#file(path, this.module.H5F_ACC_RDONLY);
  }

  /** Creates or empties a file, or returns undefined if HDF5 cannot. */
  create(path: string): Hdf5File | undefined {
    return this.#file(path, this.module.H5F_ACC_TRUNC);
  }

  #file(path: string, mode: number): Hdf5File | undefined {
    const id = this.module.open(path, mode, false, FIRST_FORMAT, FORMAT_OF_1_8);
    return id < 0n ? undefined : new Hdf5File(this, id);
  }

  /** The address of at least `byteLength` bytes of the library's memory. */
  reserve(byteLength: number): number {
    if (byteLength > this.#capacity) {
      this.module._free(this.#pointer);
      this.#pointer = this.module._malloc(byteLength);
      this.#capacity = this.#pointer === 0 ? 0 : byteLength;
      if (this.#pointer === 0) throw new RangeError(`HDF5 has no memory for ${byteLength} bytes`);
    }
    return this.#pointer;
  }

  /** The library's memory, fetched anew each time because it moves when it grows. */
  bytes(pointer: number, byteLength: number): Uint8Array {
    return this.module.HEAPU8.subarray(pointer, pointer + byteLength);
  }
}

/** One open HDF5 file. Names are those of the root group. */
export class Hdf5File {
  readonly #library: Hdf5Library;
  readonly #id: bigint;

  constructor(library: Hdf5Library, id: bigint) {
    this.#library = library;
    this.#id = id;
  }

  get #module(): H5Module {
    return this.#library.module;
  }

  /** Every name in the root group, ascending. */
  names(): string[] {
    return this.#module.get_names(this.#id, '/', false);
  }

  /** Where an external link leads, as written in the file; undefined if there is no such link. */
  link(name: string): { file: string; target: string } | undefined {
    const { filename, obj_path } = this.#module.get_external_link(this.#id, `/${name}`);
    return filename === undefined ? undefined : { file: filename, target: obj_path };
  }

  /** What a data set holds; undefined if there is none of that name. */
  info(name: string): DataSetInfo | undefined {
    let metadata: Metadata;
    try {
      metadata = this.#module.get_dataset_metadata(this.#id, `/${name}`);
    } catch {
      return undefined; // the only thing this call throws for
    }
    const shape = metadata.shape ?? [];
    return { shape, dtype: dtypeName(metadata), byteLength: metadata.total_size * metadata.size };
  }

  /** A data set's little-endian bytes, valid until the next call of any file; undefined if they cannot be read. */
  read(name: string, info: DataSetInfo): Uint8Array | undefined {
    const pointer = this.#library.reserve(info.byteLength);
    const status = this.#module.get_dataset_data(this.#id, `/${name}`, null, null, null, BigInt(pointer));
    return status < 0 ? undefined : this.#library.bytes(pointer, info.byteLength);
  }

  /** The bytes of a data set's attribute, little-endian; undefined if it has none of this type and length. */
  attribute(name: string, attribute: string, dtype: 'int32' | 'uint8', length: number): Uint8Array | undefined {
    const byteLength = length * (dtype === 'int32' ? 4 : 1);
    const pointer = this.#library.reserve(byteLength);
    try {
      const metadata = this.#module.get_attribute_metadata(this.#id, `/${name}`, attribute);
      if (dtypeName(metadata) !== dtype || metadata.total_size !== length) return undefined;
      if (this.#module.get_attribute_data(this.#id, `/${name}`, attribute, BigInt(pointer)) < 0) return undefined;
    } catch {
      return undefined; // no such attribute
    }
    return this.#library.bytes(pointer, byteLength).slice();
  }

  /** Adds a contiguous data set. False if it could not be written; the file is then of no more use. */
  add(name: string, data: Uint8Array | Float32Array, shape: number[]): boolean {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const pointer = this.#library.reserve(bytes.length);
    this.#library.bytes(pointer, bytes.length).set(bytes);
    const type = data.BYTES_PER_ELEMENT === 1 ? UINT8 : FLOAT32;
    // Creating writes too, but hides whether it could; so it is given nothing to write.
    this.#module.create_dataset(this.#id, `/${name}`, 0n, described(type, shape));
    try {
      return this.#module.set_dataset_data(this.#id, `/${name}`, null, null, null, BigInt(pointer)) >= 0;
    } catch {
      return false; // it was not created
    }
  }

  /** Gives a data set an attribute, a list of numbers. */
  addAttribute(name: string, attribute: string, values: Int32Array | Uint8Array): boolean {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const pointer = this.#library.reserve(bytes.length);
    this.#library.bytes(pointer, bytes.length).set(bytes);
    const type = described(values.BYTES_PER_ELEMENT === 1 ? UINT8 : INT32, [values.length]);
    return this.#module.create_attribute(this.#id, `/${name}`, attribute, BigInt(pointer), type) >= 0;
  }

  addLink(name: string, file: string, target: string): boolean {
    return this.#module.create_external_link(this.#id, file, target, `/${name}`) >= 0;
  }

  /** False if something could not be written, which for small pieces shows only here. */
  close(): boolean {
    return this.#module.close_file(this.#id) >= 0;
  }
}
