// Files of Python's torch.save, the zip format and the older one, read without running what is in them.
import type { FileHandle } from 'node:fs/promises';
import { CellcamError, messageOf } from '../../errors';
import { PickleEnded, PickleError, Unpickler } from './pickle';
import { openWeights, readExactly } from './safetensors';
import { KINDS, type Weights, type WeightTensor } from './tensors';
import { hostOf, tensorsOf, type Storage, type StorageIds, type TensorView } from './torch_objects';
import { readZipEntries, type ZipEntries } from './torch_zip';

/** A file's pickles are read whole; those of large models have a few MB. */
const MAX_PICKLE = 64 * 1024 * 1024;
const FIRST_WINDOW = 1024 * 1024;
/** How much larger tensors may be than their file, as views may overlap: a bound on what a file can make us allocate. */
const MAX_GROWTH = 8;
const SMALL = 1024 * 1024;

const LEGACY_MAGIC = 119547037146038801333356n;
const LEGACY_PROTOCOL = 1001;

/** Where the numbers of each storage begin in the file. */
type Places = Map<string, number>;

interface Contents {
  tensors: Map<string, TensorView>;
  places: Places;
}

function refuse(path: string, rule: string): never {
  throw new CellcamError('ERR_WEIGHTS', `Expected a PyTorch weights file in ${path} but ${rule}`);
}

/** Runs the pickles of a legacy file that lie in `bytes`. */
function readLegacyPickles(
  bytes: Uint8Array,
  wholeModule: boolean,
): { contents: Map<string, TensorView>; ids: StorageIds; keys: string[]; end: number } {
  const ids: StorageIds = { legacy: true, found: new Map() };
  const host = hostOf(ids, wholeModule);
  let end = 0;
  const next = (): unknown => {
    const unpickler = new Unpickler(bytes, end, host);
    const value = unpickler.run();
    end = unpickler.end;
    return value;
  };
  if (next() !== LEGACY_MAGIC || next() !== LEGACY_PROTOCOL) throw new PickleError('it does not begin as one');
  next(); // the system that wrote it; storages are little-endian on every machine that LibTorch runs on
  const contents = tensorsOf(next(), wholeModule);
  const keys = next();
  if (!Array.isArray(keys) || !keys.every((key) => typeof key === 'string'))
    throw new PickleError('its list of storages is none');
  return { contents, ids, keys, end };
}

/** Behind the pickles: for each key its number of elements and the elements. */
async function placeLegacyStorages(
  file: FileHandle,
  path: string,
  start: number,
  keys: string[],
  ids: StorageIds,
): Promise<Places> {
  const { size } = await file.stat();
  const places: Places = new Map();
  let at = start;
  for (const key of keys) {
    const storage = ids.found.get(key);
    if (storage === undefined) refuse(path, `its storage ${key} belongs to no tensor`);
    const count = Buffer.alloc(8);
    await readExactly(file, count, at, path, refuse);
    if (count.readBigInt64LE() !== BigInt(storage.count))
      refuse(path, `its storage ${key} has another size than its tensors say`);
    places.set(key, at + 8);
    at += 8 + storage.count * KINDS[storage.dtype].bytes;
    if (at > size) refuse(path, 'it ends too early');
  }
  const missing = [...ids.found.keys()].find((key) => !places.has(key));
  if (missing !== undefined) refuse(path, `its storage ${missing} is missing`);
  return places;
}

async function readLegacy(file: FileHandle, path: string, wholeModule: boolean): Promise<Contents> {
  const { size } = await file.stat();
  for (let window = FIRST_WINDOW; ; window *= 8) {
    const bytes = Buffer.alloc(Math.min(window, size, MAX_PICKLE));
    await readExactly(file, bytes, 0, path, refuse);
    try {
      const { contents, ids, keys, end } = readLegacyPickles(bytes, wholeModule);
      return { tensors: contents, places: await placeLegacyStorages(file, path, end, keys, ids) };
    } catch (error) {
      if (!(error instanceof PickleEnded) || bytes.length === size || bytes.length === MAX_PICKLE) throw error;
    }
  }
}

function placeZipStorages(entries: ZipEntries, ids: StorageIds, path: string): Places {
  const places: Places = new Map();
  for (const storage of ids.found.values()) {
    const entry = entries.get(`data/${storage.key}`);
    if (entry === undefined) refuse(path, `its storage ${storage.key} is missing`);
    if (entry.bytes !== storage.count * KINDS[storage.dtype].bytes) {
      refuse(path, `its storage ${storage.key} has another size than its tensors say`);
    }
    places.set(storage.key, entry.start);
  }
  return places;
}

async function readZip(file: FileHandle, path: string, wholeModule: boolean): Promise<Contents> {
  const entries = await readZipEntries(file, path, refuse);
  const text = async (name: string, most: number): Promise<Buffer | undefined> => {
    const entry = entries.get(name);
    if (entry === undefined) return undefined;
    if (entry.bytes > most) refuse(path, `its ${name} has ${entry.bytes} bytes`);
    const bytes = Buffer.alloc(entry.bytes);
    await readExactly(file, bytes, entry.start, path, refuse);
    return bytes;
  };
  const order = await text('byteorder', 16);
  if (order && order.toString('latin1') !== 'little') refuse(path, 'its numbers are big-endian');
  const pickle = await text('data.pkl', MAX_PICKLE);
  if (pickle === undefined) refuse(path, 'it is a zip file without data.pkl');
  const ids: StorageIds = { legacy: false, found: new Map() };
  const root = new Unpickler(pickle, 0, hostOf(ids, wholeModule)).run();
  return { tensors: tensorsOf(root, wholeModule), places: placeZipStorages(entries, ids, path) };
}

type Words = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

/** The same memory as elements of one, two, four or eight bytes. */
function wordsOf(bytes: Uint8Array, itemBytes: number): Words {
  const count = bytes.byteLength / itemBytes;
  if (itemBytes === 8) return new BigUint64Array(bytes.buffer, bytes.byteOffset, count);
  if (itemBytes === 4) return new Uint32Array(bytes.buffer, bytes.byteOffset, count);
  return itemBytes === 2 ? new Uint16Array(bytes.buffer, bytes.byteOffset, count) : bytes;
}

function isContiguous({ shape, strides }: TensorView): boolean {
  let expected = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && strides[d] !== expected) return false;
    expected *= shape[d]!;
  }
  return true;
}

/** Copies a strided view, whose element 0 is element 0 of `from`, into row-major order. */
function gather({ shape, strides }: TensorView, from: Words, to: Words): void {
  const index = new Array<number>(shape.length).fill(0);
  let at = 0;
  for (let i = 0; i < to.length; i++) {
    to[i] = from[at]!;
    for (let d = shape.length - 1; d >= 0; d--) {
      at += strides[d]!;
      if (++index[d]! < shape[d]!) break;
      at -= strides[d]! * shape[d]!;
      index[d] = 0;
    }
  }
}

function countOf(shape: number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

async function readTensor(file: FileHandle, path: string, tensor: TensorView, places: Places): Promise<WeightTensor> {
  const { dtype } = tensor.storage;
  const kind = KINDS[dtype];
  const count = countOf(tensor.shape);
  const extent = count === 0 ? 0 : tensor.shape.reduce((sum, n, d) => sum + (n - 1) * tensor.strides[d]!, 1);
  const bytes = new Uint8Array(extent * kind.bytes);
  await readExactly(file, bytes, places.get(tensor.storage.key)! + tensor.offset * kind.bytes, path, refuse);
  let values = bytes;
  if (!isContiguous(tensor)) {
    values = new Uint8Array(count * kind.bytes);
    gather(tensor, wordsOf(bytes, kind.bytes), wordsOf(values, kind.bytes));
  }
  return { dtype, shape: tensor.shape, data: kind.create(values.buffer, 0, count) };
}

/** Refuses a file whose tensors would need much more memory than it has bytes. */
function checkGrowth(tensors: Map<string, TensorView>, size: number, path: string): void {
  let bytes = 0;
  for (const { shape, storage } of tensors.values()) bytes += countOf(shape) * KINDS[storage.dtype].bytes;
  if (bytes > MAX_GROWTH * size + SMALL)
    refuse(path, `its tensors would take ${bytes} bytes, far more than the file has`);
}

async function open(file: FileHandle, path: string, wholeModule: boolean): Promise<Contents> {
  const start = Buffer.alloc(4);
  const { size } = await file.stat();
  if (size < 4) refuse(path, `it has ${size} bytes`);
  await readExactly(file, start, 0, path, refuse);
  if (start.toString('latin1') === 'PK\x03\x04') return readZip(file, path, wholeModule);
  if (start[0] === 0x80) return readLegacy(file, path, wholeModule);
  return refuse(path, 'it begins like neither of the two formats of torch.save');
}

/** What a file holds, before its numbers are read. */
export interface TensorOutline {
  name: string;
  dtype: Storage['dtype'];
  shape: number[];
}

async function within<T>(
  path: string,
  wholeModule: boolean,
  use: (file: FileHandle, contents: Contents) => Promise<T>,
): Promise<T> {
  const file = await openWeights(path);
  try {
    const contents = await open(file, path, wholeModule);
    checkGrowth(contents.tensors, (await file.stat()).size, path);
    return await use(file, contents);
  } catch (error) {
    if (!(error instanceof PickleError)) throw error;
    const hint =
      wholeModule || !error.message.includes('its pickle asks for')
        ? ''
        : '; a whole module is read only when asked for (wholeModule, convert --whole-module)';
    throw new CellcamError('ERR_WEIGHTS', `Expected a PyTorch weights file in ${path} but ${messageOf(error)}${hint}`, {
      cause: error,
    });
  } finally {
    await file.close();
  }
}

/** Reads the tensors of a .pt or .pth file one by one, each from its place in the file. @throws CellcamError ERR_WEIGHTS */
export function readTorchFile(path: string, o: { wholeModule: boolean }): Promise<Weights> {
  return within(path, o.wholeModule, async (file, { tensors, places }) => {
    const weights = Object.create(null) as Weights;
    for (const [name, tensor] of tensors) weights[name] = await readTensor(file, path, tensor, places);
    return weights;
  });
}

/** Names, dtypes and shapes only. */
export function listTorchFile(path: string, o: { wholeModule: boolean }): Promise<TensorOutline[]> {
  return within(path, o.wholeModule, (_file, { tensors }) =>
    Promise.resolve([...tensors].map(([name, { storage, shape }]) => ({ name, dtype: storage.dtype, shape }))),
  );
}
