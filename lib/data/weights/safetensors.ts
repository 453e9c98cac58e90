import { open, type FileHandle } from 'node:fs/promises';
import { CellcamError, codeOf, messageOf } from '../../errors';
import { fillDurably } from '../durable';
import { KINDS, bytesOf, checkTensor, elements, type DType, type WeightTensor, type Weights } from './tensors';

const MAX_HEADER = 100 * 1024 * 1024; // the format's own limit
const WRITE_CHUNK = 256 * 1024 * 1024; // one write call takes less than 2 GiB

/** A safetensors file: its tensors in the file's order, and the text notes of its header. */
export interface SafetensorsFile {
  tensors: Weights;
  metadata: Record<string, string>;
}

interface Entry {
  name: string;
  dtype: DType;
  shape: number[];
  begin: number;
  end: number;
}

function refuseSafetensors(path: string, rule: string): never {
  throw new CellcamError('ERR_WEIGHTS', `Expected a safetensors file in ${path} but ${rule}`);
}

/** Fills a buffer from a place in a file; `refuse` says that the file ends before. */
export async function readExactly(
  file: FileHandle,
  buffer: Uint8Array,
  position: number,
  path: string,
  refuse: (path: string, rule: string) => never = refuseSafetensors,
): Promise<void> {
  let done = 0;
  while (done < buffer.byteLength) {
    const length = Math.min(buffer.byteLength - done, WRITE_CHUNK);
    const { bytesRead } = await file.read(buffer, done, length, position + done);
    if (bytesRead === 0) refuse(path, 'it ends too early');
    done += bytesRead;
  }
}

function parseJson(text: string, path: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    refuseSafetensors(path, `its header is not JSON: ${messageOf(error)}`);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    refuseSafetensors(path, 'its header is not an object');
  return parsed as Record<string, unknown>;
}

const BY_TAG = new Map<unknown, DType>(Object.entries(KINDS).map(([dtype, kind]) => [kind.tag, dtype as DType]));

function parseEntry(name: string, value: unknown, dataBytes: number, path: string): Entry {
  const { dtype: tag, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const dtype = BY_TAG.get(tag);
  if (dtype === undefined) refuseSafetensors(path, `tensor ${name} has the unknown dtype ${JSON.stringify(tag)}`);
  const count = elements(shape);
  if (count === undefined) refuseSafetensors(path, `tensor ${name} has no valid shape`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every((o) => Number.isSafeInteger(o) && o >= 0)) {
    refuseSafetensors(path, `tensor ${name} has no valid data_offsets`);
  }
  const [begin, end] = offsets as [number, number];
  if (end > dataBytes || begin > end) refuseSafetensors(path, `tensor ${name} lies outside the file`);
  if (end - begin !== count * KINDS[dtype].bytes)
    refuseSafetensors(path, `tensor ${name} has not as many bytes as its shape needs`);
  return { name, dtype, shape: shape as number[], begin, end };
}

/** The tensors must fill the data without gap or overlap. */
function checkCoverage(entries: Entry[], dataBytes: number, path: string): void {
  let position = 0;
  for (const entry of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== position)
      refuseSafetensors(path, `tensor ${entry.name} does not begin where the one before it ends`);
    position = entry.end;
  }
  if (position !== dataBytes) refuseSafetensors(path, `${dataBytes - position} bytes at its end belong to no tensor`);
}

function parseMetadata(value: unknown, path: string): Record<string, string> {
  if (value === undefined) return {};
  const ok = typeof value === 'object' && value !== null && Object.values(value).every((v) => typeof v === 'string');
  if (!ok) refuseSafetensors(path, 'its __metadata__ is not a list of texts');
  return value as Record<string, string>;
}

interface Header {
  entries: Entry[];
  metadata: Record<string, string>;
  dataStart: number;
}

async function readHeader(file: FileHandle, path: string): Promise<Header> {
  const { size } = await file.stat();
  if (size < 8) refuseSafetensors(path, 'it is shorter than 8 bytes');
  const prefix = Buffer.alloc(8);
  await readExactly(file, prefix, 0, path);
  const headerBytes = Number(prefix.readBigUInt64LE());
  if (headerBytes > Math.min(MAX_HEADER, size - 8))
    refuseSafetensors(path, `its header is said to have ${headerBytes} bytes`);
  const text = Buffer.alloc(headerBytes);
  await readExactly(file, text, 8, path);
  const { __metadata__: metadata, ...tensors } = parseJson(text.toString('utf8'), path);
  const dataBytes = size - 8 - headerBytes;
  const entries = Object.entries(tensors).map(([name, value]) => parseEntry(name, value, dataBytes, path));
  checkCoverage(entries, dataBytes, path);
  return {
    entries: entries.sort((a, b) => a.begin - b.begin),
    metadata: parseMetadata(metadata, path),
    dataStart: 8 + headerBytes,
  };
}

async function readTensor(file: FileHandle, entry: Entry, dataStart: number, path: string): Promise<WeightTensor> {
  const bytes = new Uint8Array(entry.end - entry.begin);
  await readExactly(file, bytes, dataStart + entry.begin, path);
  const kind = KINDS[entry.dtype];
  return { dtype: entry.dtype, shape: entry.shape, data: kind.create(bytes.buffer, 0, bytes.byteLength / kind.bytes) };
}

/** Opens a weights file, with one clear error when it is not there. */
export async function openWeights(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new CellcamError('ERR_FILE_NOT_FOUND', `no such weights file: ${path}`);
    throw new CellcamError('ERR_WEIGHTS', `could not open ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** Reads a safetensors file. Throws CellcamError ERR_WEIGHTS naming the rule that it breaks. */
export async function readSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await openWeights(path);
  try {
    const header = await readHeader(file, path);
    const tensors = Object.create(null) as Weights;
    for (const entry of header.entries) tensors[entry.name] = await readTensor(file, entry, header.dataStart, path);
    return { tensors, metadata: header.metadata };
  } finally {
    await file.close();
  }
}

/** Names, dtypes, shapes and the text notes, without the numbers. */
export async function listSafetensors(
  path: string,
): Promise<{ outline: { name: string; dtype: DType; shape: number[] }[]; metadata: Record<string, string> }> {
  const file = await openWeights(path);
  try {
    const { entries, metadata } = await readHeader(file, path);
    return { outline: entries.map(({ name, dtype, shape }) => ({ name, dtype, shape })), metadata };
  } finally {
    await file.close();
  }
}

function encodeHeader(tensors: Weights, metadata: Record<string, string>): Buffer {
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let position = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    const end = position + tensor.data.byteLength;
    header[name] = { dtype: KINDS[tensor.dtype].tag, shape: tensor.shape, data_offsets: [position, end] };
    position = end;
  }
  const text = Buffer.from(JSON.stringify(header), 'utf8');
  const padded = Buffer.alloc(8 + Math.ceil(text.byteLength / 8) * 8, ' ');
  padded.writeBigUInt64LE(BigInt(padded.byteLength - 8));
  text.copy(padded, 8);
  return padded;
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.byteLength - done, WRITE_CHUNK));
    done += bytesWritten;
  }
}

/** Largest elements first, as readers that map the file want their tensors aligned; otherwise in the order given. */
function aligned(tensors: Weights): Weights {
  const entries = Object.entries(tensors).sort(([, a], [, b]) => KINDS[b.dtype].bytes - KINDS[a.dtype].bytes);
  return Object.fromEntries(entries);
}

/** Writes a safetensors file, whole or not at all. */
export async function writeSafetensors(
  path: string,
  tensors: Weights,
  metadata: Record<string, string> = {},
): Promise<void> {
  for (const [name, tensor] of Object.entries(tensors)) {
    if (name === '__metadata__') throw new CellcamError('ERR_INVALID_ARG', 'a tensor cannot be called __metadata__');
    checkTensor(name, tensor);
  }
  const ordered = aligned(tensors);
  await fillDurably(path, async (file) => {
    await writeAll(file, encodeHeader(ordered, metadata));
    for (const tensor of Object.values(ordered)) await writeAll(file, bytesOf(tensor));
  });
}
