import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

// Where the pixels lie in files that HDF5 wrote in its first format, which is what cellcam and h5py write unless told otherwise. The
// library keeps some 4 MB an open file and copies twice; a training epoch reads the bytes where they lie. What is stored in any other
// way is left to the library. Source: the HDF5 File Format Specification, version 3.0, sections II and IV.

/** A data set whose values lie in one piece, unfiltered, little-endian, row-major. */
export interface PlainDataSet {
  shape: number[];
  dtype: 'uint8' | 'float32';
  /** Place of the first value in the file, in bytes. */
  offset: number;
}

const SIGNATURE = Buffer.from('\x89HDF\r\n\x1a\n', 'latin1');
const SUPERBLOCK_BYTES = 96;
const NODE_BYTES = 24; // of a B-tree node before its keys and children
const NO_ADDRESS = 0xffffffffffffffffn;

const DATASPACE = 0x01;
const DATATYPE = 0x03;
const EXTERNAL_FILES = 0x07;
const LAYOUT = 0x08;
const FILTERS = 0x0b;
const CONTINUATION = 0x10;

/** The file is not of the kind that is read here; never seen outside this module. */
class OtherFormat extends Error {}

function expectFormat(holds: boolean): asserts holds {
  if (!holds) throw new OtherFormat();
}

class File {
  readonly #fd: number;
  readonly #size: number;

  constructor(fd: number) {
    this.#fd = fd;
    this.#size = fstatSync(fd).size;
  }

  get size(): number {
    return this.#size;
  }

  read(address: bigint, length: number): Buffer {
    const from = Number(address);
    expectFormat(address !== NO_ADDRESS && from + length <= this.#size && length < 2 ** 26);
    const bytes = Buffer.allocUnsafe(length);
    expectFormat(readSync(this.#fd, bytes, 0, length, from) === length);
    return bytes;
  }
}

function signed(bytes: Buffer, signature: string): Buffer {
  expectFormat(bytes.toString('latin1', 0, 4) === signature);
  return bytes;
}

/** Addresses of the B-tree and the heap of names of the root group. */
function rootGroup(file: File): { tree: bigint; heap: bigint } {
  const block = file.read(0n, SUPERBLOCK_BYTES);
  const [version, offsetBytes, lengthBytes] = [block[8], block[13], block[14]];
  expectFormat(block.subarray(0, 8).equals(SIGNATURE) && version === 0 && offsetBytes === 8 && lengthBytes === 8);
  const base = block.readBigUInt64LE(24);
  const end = block.readBigUInt64LE(40);
  const isCached = block.readUInt32LE(72) === 1; // the root's entry holds its tree and heap
  expectFormat(base === 0n && Number(end) <= file.size && isCached);
  return { tree: block.readBigUInt64LE(80), heap: block.readBigUInt64LE(88) };
}

/** Addresses of the tables of symbols under a node of a group's B-tree. */
function* symbolTables(file: File, node: bigint, level?: number): Generator<bigint> {
  const head = signed(file.read(node, NODE_BYTES), 'TREE');
  expectFormat(head[4] === 0 && head[5] === (level ?? head[5]));
  const used = head.readUInt16LE(6);
  const children = file.read(node + BigInt(NODE_BYTES), 16 * used); // key, child, key, child, …
  for (let i = 0; i < used; i++) {
    const child = children.readBigUInt64LE(16 * i + 8);
    if (head[5] === 0) yield child;
    else yield* symbolTables(file, child, head[5]! - 1);
  }
}

/** The names in the root group and the addresses of what they name. */
function* links(file: File): Generator<{ name: string; header: bigint }> {
  const { tree, heap } = rootGroup(file);
  const heapHead = signed(file.read(heap, 32), 'HEAP');
  const names = file.read(heapHead.readBigUInt64LE(24), Number(heapHead.readBigUInt64LE(8)));
  for (const address of symbolTables(file, tree)) {
    const count = signed(file.read(address, 8), 'SNOD').readUInt16LE(6);
    const entries = file.read(address + 8n, 40 * count);
    for (let i = 0; i < count; i++) {
      const start = Number(entries.readBigUInt64LE(40 * i));
      const name = names.toString('utf8', start, names.indexOf(0, start));
      yield { name, header: entries.readBigUInt64LE(40 * i + 8) };
    }
  }
}

/** The messages of an object header, by their type; of several of one type the last. */
function messages(file: File, header: bigint): Map<number, Buffer> {
  const head = file.read(header, 16);
  expectFormat(head[0] === 1);
  const found = new Map<number, Buffer>();
  const blocks: { address: bigint; length: number }[] = [{ address: header + 16n, length: head.readUInt32LE(8) }];
  for (const { address, length } of blocks) {
    const block = file.read(address, length);
    for (let at = 0; at + 8 <= length;) {
      const size = block.readUInt16LE(at + 2);
      const body = block.subarray(at + 8, at + 8 + size);
      const type = block.readUInt16LE(at);
      if (type === CONTINUATION)
        blocks.push({ address: body.readBigUInt64LE(0), length: Number(body.readBigUInt64LE(8)) });
      else found.set(type, body);
      at += 8 + size;
    }
    expectFormat(blocks.length < 16);
  }
  return found;
}

function shapeOf(dataspace: Buffer): number[] {
  const start = dataspace[0] === 1 ? 8 : 4;
  return Array.from({ length: dataspace[1]! }, (_, i) => Number(dataspace.readBigUInt64LE(start + 8 * i)));
}

function dtypeOf(datatype: Buffer): 'uint8' | 'float32' | undefined {
  const [kind, order, size] = [datatype[0]! & 15, datatype[1]!, datatype.readUInt32LE(4)];
  if (kind === 0 && size === 1 && (order & 8) === 0) return 'uint8';
  return kind === 1 && size === 4 && (order & 0x41) === 0 ? 'float32' : undefined;
}

function dataSet(file: File, header: bigint): PlainDataSet | undefined {
  const found = messages(file, header);
  const [dataspace, datatype, layout] = [found.get(DATASPACE), found.get(DATATYPE), found.get(LAYOUT)];
  if (!dataspace || !datatype || !layout || found.has(FILTERS) || found.has(EXTERNAL_FILES)) return undefined;
  const dtype = dtypeOf(datatype);
  const isContiguous = layout[0] === 3 && layout[1] === 1;
  if (!isContiguous || dtype === undefined) return undefined;
  const [address, byteLength] = [layout.readBigUInt64LE(2), Number(layout.readBigUInt64LE(10))];
  const shape = shapeOf(dataspace);
  const wanted = shape.reduce((product, n) => product * n, dtype === 'uint8' ? 1 : 4);
  if (address === NO_ADDRESS || byteLength !== wanted || Number(address) + byteLength > file.size) return undefined;
  return { shape, dtype, offset: Number(address) };
}

/** Reading past the end of a buffer. By name: under a test runner Node's own classes are not ours. */
function isOutOfRange(error: unknown): boolean {
  return (error as Error | undefined)?.name === 'RangeError';
}

/** The data sets of a file's root group that can be read where they lie; none for a file of another format. */
export function plainDataSets(path: string): Map<string, PlainDataSet> {
  const found = new Map<string, PlainDataSet>();
  const fd = openSync(path, 'r');
  try {
    const file = new File(fd);
    for (const { name, header } of links(file)) {
      const plain = dataSet(file, header);
      if (plain) found.set(name, plain);
    }
  } catch (error) {
    // A damaged file looks like another format, and out-of-range fields like either: the library says what is wrong with it.
    if (!(error instanceof OtherFormat || isOutOfRange(error))) throw error;
    found.clear();
  } finally {
    closeSync(fd);
  }
  return found;
}
